"""What is told of a value that cannot be sent: which part of it, why not, and what to do.

Never pickles for sending, and has no pickle of its own: payload.py lends its `dumps`.
"""

import contextlib
from collections.abc import Callable
from typing import Any, Final

from . import blame
from .errors import Interrupted, MessageTooLarge, NotPicklable
from .references import collecting
from .whole import PROTOCOL, dumps_whole

#: what to do about types that are met often
_ADVICE: Final = {
    "generator": "; where it runs is where it stays, so return a list of what it yields",
    "async_generator": "; where it runs is where it stays, so return a list of what it yields",
    "coroutine": "; await it where it was made, and return what it gives",
    "lock": "; locks are of one process: leave it out with __getstate__, or use an actor",
    "RLock": "; locks are of one process: leave it out with __getstate__, or use an actor",
    "TextIOWrapper": "; open files are of one process: send the path, and open it there",
    "BufferedReader": "; open files are of one process: send the path, and open it there",
    "socket": "; sockets are of one process: open it where it is used",
}

#: the parts of a value under their names; None: it is the one part
Parts = Callable[[Any], list[tuple[str, Any]]] | None
Dumps = Callable[[Any, int], bytes]


def argument_parts(call: Any) -> list[tuple[str, Any]]:
    """Return the arguments of a call under the names that its caller knows."""
    args, kwargs = call
    return [
        *((f"args[{index}]", value) for index, value in enumerate(args)),
        *((f"kwargs[{name!r}]", value) for name, value in kwargs.items()),
    ]


def no_parts(_: Any) -> list[tuple[str, Any]]:
    """Return nothing: no part is looked for."""
    return []


def not_picklable(
    value: Any, what: str, parts: Parts, error: BaseException, dumps: Dumps
) -> NotPicklable:
    """Return the error for a value whose pickling raised `error`; names the part at fault."""
    found = collecting.found
    outer, found.refs = found.refs, []
    try:
        roots = [(what, value)] if parts is None else parts(value)
        fault = blame.find(roots, lambda part: _why_not(part, dumps))
    finally:
        found.refs = outer
    fault = fault or blame.Fault(what, type(value), error)
    advice = _ADVICE.get(fault.type.__name__, "")
    return NotPicklable(
        f"{fault.path} cannot be sent: it is a {fault.type.__name__}, and pickling it raises "
        f"{type(fault.reason).__name__}: {blame.shorten(fault.reason)}{advice}",
        path=fault.path,
        type_name=fault.type.__name__,
    )


def _why_not(value: Any, dumps: Dumps) -> BaseException | None:
    """Return what pickling raises, or None."""
    try:
        with contextlib.suppress(Exception, SystemExit):
            if b"__main__" not in dumps(value, PROTOCOL):
                return None
        dumps_whole(value)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # noqa: BLE001  # user code may raise anything
        return error
    return None


def too_large(
    what: str, size_bytes: int, limit_bytes: int, *, was_offered: bool = False
) -> MessageTooLarge:
    """Return the error for what has more bytes than may be sent.

    Args:
        what: names it.
        size_bytes: how large it is.
        limit_bytes: what may be sent.
        was_offered: it was to lie in memory that is shared, and could not.
    """
    shared = (
        "; nor could it lie in memory that this machine shares: it is more than "
        "segment_bytes_max, or there is no memory or no descriptor left (ulimit -n)"
    )
    return MessageTooLarge(
        f"{what}: {size_bytes:,} bytes when pickled, and at most {limit_bytes:,} can be sent "
        f"(the setting value_bytes_max){shared if was_offered else ''}",
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
    )
