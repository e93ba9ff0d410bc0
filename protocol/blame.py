"""Which part of a value cannot be pickled: `args[0].handlers[2].lock`, not just "a lock".

Never changes the value, and never raises for what it finds inside. Only runs once pickling has
failed, so it may be slow, but not without bound.
"""

import functools
import types
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple

from .errors import Interrupted

DEPTH_MAX: Final = 32
PARTS_MAX: Final = 100_000
TEXT_MAX: Final = 500

Part = tuple[str, Any]


class Fault(NamedTuple):
    """The innermost part that cannot be pickled."""

    path: str
    type: type
    reason: BaseException


def find(parts: list[Part], why_not: Callable[[Any], BaseException | None]) -> Fault | None:
    """Return the first innermost fault, or None when each part by itself is fine."""
    fault: Fault | None = None
    seen: dict[int, Any] = {}
    for _ in range(DEPTH_MAX):
        for path, value in parts:
            if id(value) in seen:
                continue
            reason = why_not(value)
            if reason is not None:
                seen[id(value)] = value
                fault = Fault(path, type(value), reason)
                break
        else:
            return fault
        if isinstance(reason, RecursionError) or "recursion" in shorten(reason):
            return fault
        try:
            parts = list(islice(_parts_of(path, value), PARTS_MAX))
        except (KeyboardInterrupt, Interrupted, MemoryError):
            raise
        except BaseException:  # noqa: BLE001  # user code may raise anything: no deeper, then
            return fault
    return fault


def shorten(error: BaseException) -> str:
    """Return an exception's text on one line, of bounded length."""
    try:
        text = str(error)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException:  # noqa: BLE001  # user code
        return "(its text cannot be had)"
    text = " ".join(text[: 4 * TEXT_MAX].split())
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"


def _parts_of(path: str, value: Any) -> Iterator[Part]:
    try:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield f"{path}[{_show(key)}]", item
                yield f"a key of {path}", key
        elif isinstance(value, (list, tuple)):
            yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
        elif isinstance(value, (set, frozenset)):
            yield from ((f"an element of {path}", item) for item in value)
        elif isinstance(value, types.FunctionType):
            yield from _parts_of_function(path, value)
            return
        elif isinstance(value, types.MethodType):
            yield f"{path}.__self__", value.__self__
            yield f"{path}.__func__", value.__func__
            return
        elif isinstance(value, functools.partial):
            yield f"{path}.func", value.func
            yield f"{path}.args", value.args
            yield f"{path}.keywords", value.keywords
        elif isinstance(value, type):
            yield from ((f"{path}.{name}", item) for name, item in vars(value).items())
            return
        yield from _parts_of_state(path, value)
    except (Exception, SystemExit):  # noqa: BLE001  # user code: no deeper there, then
        return


def _parts_of_function(path: str, function: types.FunctionType) -> Iterator[Part]:
    """Yield what cloudpickle takes along with a function."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"{path}.<closure>.{name}", cell.cell_contents
        except ValueError:
            continue  # a variable without a value yet
    for name in _globals_used(code):
        if name in function.__globals__:
            yield f"{path}.<globals>.{name}", function.__globals__[name]
    for index, item in enumerate(function.__defaults__ or ()):
        yield f"{path}.__defaults__[{index}]", item
    for name, item in {**(function.__kwdefaults__ or {}), **function.__dict__}.items():
        yield f"{path}.{name}", item


def _globals_used(code: types.CodeType) -> dict[str, None]:
    names = dict.fromkeys(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_used(constant))
    return names


def _parts_of_state(path: str, value: Any) -> Iterator[Part]:
    """Yield what pickle would take along with an instance."""
    reduced = value.__reduce_ex__(4)
    if not isinstance(reduced, tuple):
        return
    _, args, state, items, pairs = (*reduced, None, None, None)[:5]
    states = state if isinstance(state, tuple) else (state,)
    for part in states:
        if isinstance(part, Mapping):
            for name, item in part.items():
                is_name = isinstance(name, str) and name.isidentifier()
                yield f"{path}.{name}" if is_name else f"{path}[{_show(name)}]", item
        elif part is not None:
            yield f"the state of {path}", part
    for index, item in enumerate(args or ()):
        yield (
            f"{path}.args[{index}]"
            if isinstance(value, BaseException)
            else (f"part {index} of {path}"),
            item,
        )
    yield from ((f"{path}[{index}]", item) for index, item in enumerate(items or ()))
    yield from ((f"{path}[{_show(key)}]", item) for key, item in pairs or ())


def _show(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:40] + "…"
