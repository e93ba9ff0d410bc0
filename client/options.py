"""The options of a task: their names, what is allowed, and how they become protocol Options.

Never guesses: an unknown name or a value that does not fit is refused in plain words, naming the
option and what is allowed.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from ..protocol.forms import AMOUNT_MAX, SECONDS_MAX
from ..protocol.labels import LABELS_MAX, AskedLabels, fault_of
from ..protocol.messages import Options
from ..protocol.resources import STEP

#: by how much priorities may differ from 0
PRIORITY_MAX: Final = 1 << 31
RETURNS_MAX: Final = 65_536

RetryExceptions = bool | tuple[type[BaseException], ...]


class Checked(NamedTuple):
    """Options that fit."""

    options: Options
    #: name for people; "": the function's own
    name: str
    retry_exceptions: RetryExceptions


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a number from 0 up, not {value!r}")
    return float(value)


def _seconds(name: str, value: Any) -> float:
    seconds = _number(name, value)
    if seconds > SECONDS_MAX:
        raise ValueError(f"{name} must be at most {SECONDS_MAX:g} seconds, not {value!r}")
    return seconds


def _amount(name: str, value: Any) -> float:
    amount = _number(name, value)
    if amount > AMOUNT_MAX:
        raise ValueError(f"{name} must be at most {AMOUNT_MAX:g}, not {value!r}")
    if 0 < amount < STEP:
        raise ValueError(f"{name} = {value!r} is too little: the step is {STEP:g}, or 0 for none")
    return amount


def _gpus(name: str, value: Any) -> float:
    amount = _amount(name, value)
    if amount > 1 and amount != int(amount):
        raise ValueError(f"{name} above 1 must be a whole number of GPUs, not {value!r}")
    return amount


def _count(maximum: int) -> Callable[[str, Any], int]:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
        if not 0 <= value <= maximum:
            raise ValueError(f"{name} must be from 0 to {maximum}, not {value!r}")
        return value

    return check


def _priority(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if abs(value) > PRIORITY_MAX:
        raise ValueError(f"{name} must be from {-PRIORITY_MAX} to {PRIORITY_MAX}, not {value!r}")
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {value!r}")
    return value


def _directory(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path, not {value!r}")
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError(f"{name} must be a path of text, not {value!r}")
    # A home directory is that of the node: it may be another one there.
    return os.path.abspath(path) if path and not path.startswith("~") else path


def _node(name: str, value: Any) -> str | AskedLabels:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a node's name or a dict of labels, not {value!r}")
    if len(value) > LABELS_MAX:
        raise ValueError(f"{name} asks for {len(value)} labels; {LABELS_MAX} is the most")
    asked = []
    for label, allowed in value.items():
        texts = tuple(allowed) if isinstance(allowed, (list, tuple, set, frozenset)) else (allowed,)
        if not texts:
            raise ValueError(f"{name}[{label!r}] allows no value, so no node would do")
        for text in texts:
            reason = fault_of(label, text)
            if reason:
                kind = ValueError if isinstance(label, str) and isinstance(text, str) else TypeError
                raise kind(f"{name}[{label!r}] = {allowed!r} asks for no label: {reason}")
        asked.append((label, tuple(sorted(dict.fromkeys(texts)))))
    return tuple(sorted(asked))


def _resources(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of names and amounts, not {value!r}")
    amounts = []
    for key, amount in value.items():
        if not isinstance(key, str) or not key:
            raise TypeError(f"{name} must be a dict of names and amounts; {key!r} is no name")
        if key in ("CPU", "GPU"):
            raise ValueError(f"{name} may not hold {key!r}: use num_{key.lower()}s")
        number = _amount(f"{name}[{key!r}]", amount)
        if number > 0:
            amounts.append((key, number))
    return tuple(sorted(amounts))


def _env_vars(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of strings, not {value!r}")
    for key, text in value.items():
        if not isinstance(key, str) or not isinstance(text, str):
            raise TypeError(f"{name} must be a dict of strings; {key!r}: {text!r} is not")
        if not key or "=" in key or "\0" in key + text:
            raise ValueError(f"{name}: {key!r} cannot be an environment variable")
    return tuple(sorted(value.items()))


def _retry_exceptions(name: str, value: Any) -> RetryExceptions:
    if isinstance(value, bool):
        return value
    types = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    for kind in types:
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise TypeError(
                f"{name} must be True, False or exception types, and {kind!r} is none of these"
            )
    return types or False


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "resources": _resources,
    "num_returns": _count(RETURNS_MAX),
    "max_retries": _count(1 << 31),
    "retry_exceptions": _retry_exceptions,
    "retry_backoff_s": _seconds,
    "wait_for_nodes": _flag,
    "priority": _priority,
    "name": _text,
    "node": _node,
    "spread": _flag,
    "max_calls": _count(1 << 31),
    "env_vars": _env_vars,
    "working_dir": _directory,
}

#: the options there are
NAMES: Final = tuple(_CHECKS)


def check(given: Mapping[str, Any], pool: str = "") -> Checked:
    """Return the options of a task; what is not given has its default.

    Raises:
        TypeError: an unknown option, or a value of the wrong type.
        ValueError: a value out of bounds.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        checked = _CHECKS.get(name)
        if checked is None:
            raise TypeError(
                f"{name!r} is not an option of a task; the options are " + ", ".join(NAMES)
            )
        values[name] = checked(name, value)
    name = values.pop("name", "")
    retry_exceptions = values.pop("retry_exceptions", False)
    if isinstance(values.get("node"), tuple):
        values["node_labels"] = values.pop("node")
    options = Options(**values, retry_exceptions=bool(retry_exceptions), pool=pool)
    if options.node and options.spread:
        raise ValueError("node and spread exclude each other: one names a node, one takes many")
    return Checked(options, name, retry_exceptions)
