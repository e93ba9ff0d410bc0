"""What became of a task: from a row to its value, or to the exception to raise.

Never asks anybody anything: all that is known is in the row. A user's exception arrives as a class
that is both TaskError and the exception's own type, so that `except ValueError` goes on working.
"""

from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final, cast

from . import errors
from .errors import (
    ActorDied,
    DependencyFailed,
    DrumbeatError,
    Interrupted,
    NotPicklable,
    Supervised,
    TaskError,
)
from .ids import show
from .messages import Failure, Outcome, ValueRow
from .payload import ErrorReport, load_error, load_exception, pack_cause, unpack_value
from .references import found_inside

VALUE: Final = int(Outcome.VALUE)
ERROR: Final = int(Outcome.ERROR)

_HEAP_TYPE: Final = 1 << 9
#: a class for each type of cause; None: that type cannot be one
_classes: dict[type[BaseException], "type[TaskError] | None"] = {}
#: as many types are remembered
_CLASSES_MAX: Final = 1024
#: details of progress() that are shown in an error, if they are text
_WORDS_MAX: Final = 80


def value_of(row: ValueRow, until_s: float | None = None) -> Any:
    """Return the value of a row.

    Args:
        row: what came.
        until_s: how long to wait for bytes that did not come with it; see Session.buffers.

    Raises:
        TaskError: the task failed.
        NotPicklable: the value is here, but cannot be unpickled.
        DrumbeatError: the system could not give a value.
    """
    if row.outcome == VALUE:
        return unpack_value(row.payload, until_s)
    raise _error(row)


def error_of(row: ValueRow) -> BaseException | None:
    """Return the error of a row, or None if it has a value."""
    return None if row.outcome == VALUE else _error(row)


def is_retryable(
    exception: BaseException, retry_exceptions: bool | tuple[type[BaseException], ...]
) -> bool:
    """Return whether a task that raised this asks to be tried again."""
    if isinstance(retry_exceptions, bool):
        return retry_exceptions and isinstance(exception, Exception)
    try:
        return isinstance(exception, retry_exceptions)
    except Interrupted:
        raise
    except BaseException:  # noqa: BLE001  # a metaclass's __instancecheck__ is the user's code
        return False


def _error(row: ValueRow) -> BaseException:
    try:
        return _told(row)
    except NotPicklable as error:
        return error  # no error report at all: a worker of ours never sends that


def _told(row: ValueRow) -> BaseException:
    if row.outcome == ERROR and row.payload is not None:
        return task_error(load_error(row.payload))
    if row.failure is None:
        return TaskError("the task failed, and nothing is known about why", task=show(row.id))
    error = _failure(row.failure)
    if isinstance(error, DependencyFailed) and row.payload is not None:
        error.cause = task_error(load_error(row.payload))
        error.__cause__ = error.cause
    elif isinstance(error, Supervised):
        _add_what_it_left(error, row.payload)
    elif isinstance(error, ActorDied) and row.payload is not None:
        error.__cause__ = task_error(load_error(row.payload))  # its constructor raised
    return error


def _add_what_it_left(error: Supervised, payload: bytes | None) -> None:
    """Add what only whoever asked for the call can read: its last details, and a late value."""
    told = error.__dict__
    details = told.pop("pickled_details", "")
    if isinstance(details, str) and details:
        with suppress(DrumbeatError, ValueError):
            told["last_details"] = unpack_value(b64decode(details))
    if payload is not None:
        with suppress(DrumbeatError):
            told["partial"] = unpack_value(payload)
            told["has_partial"] = True
    if error.progress:
        said, ago_s = error.last_details, told.get("progress_s")
        words = f' "{said}"' if isinstance(said, str) and len(said) <= _WORDS_MAX else ""
        ago = f", {ago_s:.0f} s ago" if isinstance(ago_s, (int, float)) else ""
        told["progress"] = f"{error.progress}{words}{ago}"


def _failure(failure: Failure) -> DrumbeatError:
    kind = getattr(errors, failure.error, None)
    if not isinstance(kind, type) or not issubclass(kind, DrumbeatError):
        error: DrumbeatError = TaskError(f"{failure.error}: {failure.text}")
    else:
        error = kind(failure.text)
    # Not as arguments: whoever sent them may have named them anything.
    error.__dict__.update(failure.details)
    if failure.cause is not None:
        cause = _failure(failure.cause)
        if isinstance(error, TaskError):
            error.cause = cause
        error.__cause__ = cause
    return error


def task_error(report: ErrorReport) -> TaskError:
    """Return the exception to raise for a report of what the user's code raised."""
    return _rebuilt(load_exception(report), report)


def _rebuilt(cause: BaseException | None, report: ErrorReport) -> TaskError:
    if cause is not None:
        kind = _class_for(type(cause))
        if kind is not None:
            try:
                return _both(kind, cause, report)
            except Exception:  # noqa: BLE001  # a type that resists is still told as text
                _classes[type(cause)] = None
    error = TaskError(report.text(), **_details(report), _report=report)
    error.cause = cause
    return error


def _details(report: ErrorReport) -> dict[str, Any]:
    return {
        "traceback_text": report.traceback_text,
        "name": report.name,
        "task": report.task,
        "node": report.node,
        "pid": report.pid,
        "attempt": report.attempt,
    }


def reduced(error: TaskError) -> tuple[Any, ...]:
    """Return how an error is pickled that was made of a report: as that report."""
    report, contained = pack_cause(error)
    found_inside(contained)
    return (task_error, (report,))


# -------------------------------------------------------------------------- the class that is both


def _class_for(kind: type[BaseException]) -> type[TaskError] | None:
    try:
        return _classes[kind]
    except KeyError:
        pass
    if len(_classes) >= _CLASSES_MAX:
        _classes.clear()
    made = _classes[kind] = _make_class(kind)
    return made


def _make_class(kind: type[BaseException]) -> type[TaskError] | None:
    # SystemExit and KeyboardInterrupt would end the caller; StopIteration would end its loops.
    if not issubclass(kind, Exception) or issubclass(kind, (StopIteration, StopAsyncIteration)):
        return None
    if issubclass(kind, _Both):
        return cast("type[TaskError]", kind)  # a task that waited for a failed task failed of it
    bases: tuple[type, ...] = (kind,) if issubclass(kind, TaskError) else (TaskError, kind)
    body = {
        "__module__": "drumbeat",
        "__doc__": f"A {kind.__name__} raised by a task.",
        "_members": _members(kind),
    }
    metaclass: Any = type(kind)
    try:
        made: type[TaskError] = metaclass(f"TaskError({kind.__name__})", (_Both, *bases), body)
    except Exception:  # noqa: BLE001  # it cannot be subclassed, or its metaclass objects
        return None
    return made


class _Both:
    """The part that every class which is TaskError and the cause's type has in common."""

    _members: dict[str, Any]
    _report: ErrorReport
    cause: BaseException

    def __str__(self) -> str:
        return self._report.text()

    def __repr__(self) -> str:
        return f"TaskError({self.cause!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(cast("TaskError", self))

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return self.__reduce__()


def _members(kind: type[BaseException]) -> dict[str, Any]:
    """Return the attributes of a type that lie in its instances' memory, not in their dict."""
    return {
        name: descriptor
        for base in reversed(kind.__mro__)
        for name, descriptor in vars(base).items()
        if isinstance(descriptor, (MemberDescriptorType, GetSetDescriptorType))
        and not name.startswith("__")
    }


def _both(kind: type[TaskError], cause: BaseException, report: ErrorReport) -> TaskError:
    """Make an instance without calling the cause's constructor, which may want anything."""
    base = next(base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE)
    new: Callable[..., Any] = base.__new__
    if isinstance(cause, BaseExceptionGroup):
        error: TaskError = new(kind, cause.message, cause.exceptions)
    else:
        error = new(kind)
    attributes = error.__dict__
    # Code that handles this type reads its attributes; only a TaskError's own give way to ours.
    own, ours = cause.__dict__, _details(report)
    attributes.update({**own, **ours} if isinstance(cause, TaskError) else {**ours, **own})
    attributes.update(cause=cause, traceback_text=report.traceback_text, _report=report)
    attributes.pop("_contained", None)
    attributes.pop("__notes__", None)  # they are in the text, which would be shown with them
    for name, member in kind._members.items():  # type: ignore[attr-defined]
        try:
            value = member.__get__(cause, type(cause))
            member.__set__(error, value)
        except (AttributeError, TypeError, ValueError):
            continue  # empty, or read-only
        if name in TaskError.__dict__ or name in TaskError.__annotations__:
            attributes[name] = value
    return error
