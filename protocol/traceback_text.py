"""An exception as text: its type, its message, its traceback without Drumbeat's own frames.

Never raises, whatever the exception's own code does, and never returns more than TEXT_MAX
characters of anything: exceptions may be cyclic, deep, huge or broken.
"""

import os
import traceback
from types import CodeType, TracebackType
from typing import Final

TEXT_MAX: Final = 64 << 10
CHAIN_MAX: Final = 20

#: tracebacks of at most so many frames are put together from frames formatted before
FRAMES_MAX: Final = 30
FORMATTED_MAX: Final = 512

_formatted: dict[tuple[CodeType, int], str] = {}
_HOUSE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
#: frames of files below these are Drumbeat's own
_OURS: Final = tuple(
    os.path.join(_HOUSE, side) + os.sep for side in ("protocol", "client", "node", "scheduler")
)


def describe(exception: BaseException) -> tuple[str, str, str]:
    """Return (type name, message, traceback text)."""
    kind = type(exception)
    try:
        name = str(kind.__qualname__)
        if kind.__module__ not in ("builtins", "__main__"):
            module = str(kind.__module__)
            name = f"{'drumbeat' if module.startswith('drumbeat.') else module}.{name}"
    except Exception:  # noqa: BLE001  # a metaclass of the user's
        name = "an exception"
    try:
        message = cut(str(exception))
    except BaseException as error:  # noqa: BLE001  # __str__ of the user's
        message = f"(its text cannot be had: str() raised {type(error).__name__})"
    try:
        text = cut(_traceback(exception, name, message))
    except BaseException as error:  # noqa: BLE001  # the same, or a source file that misbehaves
        text = f"{name}: {message}\n(no traceback: formatting it raised {type(error).__name__})\n"
    return name, message, text


def frames_of(exception: BaseException) -> str:
    """Return the lines of its traceback alone, without what was raised."""
    try:
        trace = _first_foreign(exception.__traceback__)
        frames = _frames(trace)
        if frames is None:
            stack = [
                one for one in traceback.extract_tb(trace) if not one.filename.startswith(_OURS)
            ]
            frames = "".join(traceback.StackSummary.from_list(stack).format())
    except Exception:  # noqa: BLE001  # a source file that misbehaves
        return ""
    return cut(f"Traceback (most recent call last):\n{frames}") if frames else ""


def cut(text: str) -> str:
    """Return a text of at most TEXT_MAX characters: its middle goes first."""
    if len(text) <= TEXT_MAX:
        return text
    head, tail = TEXT_MAX // 4, TEXT_MAX - TEXT_MAX // 4 - 100
    return f"{text[:head]}\n… {len(text) - head - tail:,} characters cut …\n{text[-tail:]}"


def _traceback(exception: BaseException, name: str, message: str) -> str:
    trace = _first_foreign(exception.__traceback__)
    if (
        exception.__context__ is None
        and exception.__cause__ is None
        and not isinstance(exception, (BaseExceptionGroup, SyntaxError, NameError, AttributeError))
        and not hasattr(exception, "__notes__")
    ):
        frames = _frames(trace)
        if frames is not None:
            last = f"{name}: {message}" if message else name
            head = "Traceback (most recent call last):\n" if frames else ""
            return f"{head}{frames}{last}\n"
    formatted = traceback.TracebackException(type(exception), exception, trace, compact=True)
    _clean(formatted, CHAIN_MAX)
    return "".join(formatted.format())


def _frames(trace: TracebackType | None) -> str | None:
    """Return the lines of a short traceback; None: leave a long one to the library.

    Formatting a frame takes 50 µs, and a task that fails a thousand times fails at one place.
    """
    lines: list[str] = []
    while trace is not None:
        if len(lines) == FRAMES_MAX:
            return None
        code = trace.tb_frame.f_code
        line = _formatted.get((code, trace.tb_lasti))
        if line is None:
            line = _format(trace)
        lines.append(line)
        trace = trace.tb_next
    return "".join(lines)


def _format(trace: TracebackType) -> str:
    code = trace.tb_frame.f_code
    line = ""
    if not code.co_filename.startswith(_OURS):
        pair = next(walk for walk in traceback.walk_tb(trace))
        line = "".join(traceback.StackSummary.extract(iter((pair,))).format())
    if len(_formatted) >= FORMATTED_MAX:
        _formatted.clear()
    _formatted[code, trace.tb_lasti] = line
    return line


def _first_foreign(trace: TracebackType | None) -> TracebackType | None:
    """Skip Drumbeat's outermost frames, before their source is looked up."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


def _clean(formatted: traceback.TracebackException, depth: int) -> None:
    """Remove Drumbeat's frames, and what is chained deeper than `depth`."""
    foreign = [frame for frame in formatted.stack if not frame.filename.startswith(_OURS)]
    if len(foreign) != len(formatted.stack):
        formatted.stack = traceback.StackSummary.from_list(foreign)
    for part in (formatted.exceptions or ()) if depth > 0 else ():
        _clean(part, depth - 1)
    for name in ("__cause__", "__context__"):
        chained = getattr(formatted, name)
        if chained is None:
            continue
        if depth <= 0:
            setattr(formatted, name, None)
        else:
            _clean(chained, depth - 1)
