"""Labels of nodes, name and text: what a node may carry, and what a task may ask of one.

Never knows what a label means: `zone`, `disk`, `owner` are all alike.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from .errors import ConfigError

NAME_CHARACTERS_MAX: Final = 64
TEXT_CHARACTERS_MAX: Final = 256
#: of one node, or asked for by one task
LABELS_MAX: Final = 64

LabelName = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS_MAX)]
LabelText = Annotated[str, Meta(max_length=TEXT_CHARACTERS_MAX)]
#: what a node carries
Labels = Annotated[dict[LabelName, LabelText], Meta(max_length=LABELS_MAX)]
#: what a task asks for: sorted (name, texts that will do) pairs
AskedLabels = Annotated[
    tuple[tuple[LabelName, tuple[LabelText, ...]], ...], Meta(max_length=LABELS_MAX)
]


def carries(labels: Mapping[str, str], asked: AskedLabels) -> bool:
    """Return whether a node with these labels has all that is asked for."""
    return all(labels.get(name) in texts for name, texts in asked)


def show(labels: Mapping[str, str]) -> str:
    """Return labels as people write them: `disk=ssd, zone=a`."""
    return ", ".join(f"{name}={text}" for name, text in sorted(labels.items()))


def show_asked(asked: AskedLabels) -> str:
    """Return what is asked for, as people write it: `disk=ssd, zone=a or b`."""
    return ", ".join(f"{name}={' or '.join(texts)}" for name, texts in asked)


def parsed(given: Sequence[str], origin: str) -> dict[str, str]:
    """Return labels that were written as NAME=VALUE.

    Raises:
        ConfigError: they are no labels; says which and why.
    """
    found: dict[str, str] = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise _wrong(f"{origin} {one!r} is no label: it is written NAME=VALUE, as in zone=a")
        if name in found:
            raise _wrong(f"{origin}: {name!r} is given twice, as {found[name]!r} and {text!r}")
        found[name] = text
    return checked(found, origin)


def checked(given: Mapping[Any, Any], origin: str) -> dict[str, str]:
    """Return the labels of a node.

    Args:
        given: name -> text.
        origin: where they come from, for the error: a flag or an argument.

    Raises:
        ConfigError: they are no labels; says which and why.
    """
    if len(given) > LABELS_MAX:
        raise _wrong(f"{origin}: {len(given)} labels, and a node carries at most {LABELS_MAX}")
    for name, text in given.items():
        reason = fault_of(name, text)
        if reason:
            raise _wrong(f"{origin}: {name!r} = {text!r} is no label: {reason}")
    return dict(given)


def fault_of(name: Any, text: Any) -> str:
    """Return why this is no label, for people; "" where it is one."""
    if not isinstance(name, str) or not isinstance(text, str):
        return "name and value are texts"
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or "=" in name:
        return f"a name has 1 to {NAME_CHARACTERS_MAX} characters and no ="
    if len(text) > TEXT_CHARACTERS_MAX:
        return f"a value has at most {TEXT_CHARACTERS_MAX} characters"
    return ""


def _wrong(text: str) -> ConfigError:
    return ConfigError(text, setting="labels", origin="flag")
