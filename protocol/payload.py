"""Arguments, values, functions and errors to bytes and back. The only door to pickle.

Never runs in the scheduler or in a node's daemon: they pass payloads on unopened. Plain pickle
comes first, since it is seven times as quick as cloudpickle; but it pickles what is defined in
`__main__` (or in a module that the other side cannot import) by name, which would fail only when
loaded. So bytes that mention such a module are made again with cloudpickle.

What is large need not travel with the rest: a session's keeper puts such buffers into a memory
segment, and the payload is a parcel then (see parcels.py), which only names it.
"""

import pickle
from _blake2 import blake2b  # the one of hashlib, which would load OpenSSL: 1.5 MB a process
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from . import blame
from .errors import DrumbeatError, Interrupted, NotPicklable, TaskError
from .ids import ObjectId
from .messages import ValueRow
from .modules import by_value, carriers, gained_path, portable
from .needs import Directories, Modules, Need, too_large_with
from .outside import Large, bytes_of, large_for
from .parcels import MARK
from .payload_files import Filing
from .references import ObjectRef, collecting
from .session import FunctionDefinition, Keeping, Packed
from .settings import Settings
from .traceback_text import describe, frames_of
from .unpicklable import Parts, argument_parts, no_parts, not_picklable, too_large
from .whole import PROTOCOL, dumps_whole

HASH_BYTES: Final = 16
NO_ARGUMENTS: Final = Packed(None)

_dumps = pickle.dumps
_loads = pickle.loads
_new = tuple.__new__
#: what parcels begin with, and no pickle does
_PARCEL: Final = MARK[:1]
#: what is of exactly these types never lends its memory to pickle
_NO_BUFFERS: Final = frozenset({bool, bytes, complex, float, int, str, type(None)})
#: above this nothing is sent; a session with other settings says so by `limit_values`
_bytes_max = Settings().value_bytes_max


class Placeholder:
    """Stands in packed arguments for the i-th dependency."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        return (Placeholder, (self.index,))


class ErrorReport(NamedTuple):
    """A user's exception on its way: readable whatever became of the exception itself."""

    #: "ValueError"
    type_name: str
    message: str
    #: the remote traceback without Drumbeat's frames
    traceback_text: str
    #: the pickled exception, or None: it cannot be pickled, or not be unpickled again
    pickled: bytes | None
    #: name of the function
    name: str
    #: printed id of the task
    task: str
    #: name of the node
    node: str
    pid: int
    attempt: int
    #: how many tasks it has passed through, with the one that raised it
    tasks: int = 1
    #: where in the traceback the part of that first one begins
    origin: int = 0

    def text(self) -> str:
        """Return the whole story: who raised what, where, and the traceback."""
        where = ", ".join(
            f"{key}={value}" for key, value in (("pid", self.pid), ("node", self.node)) if value
        )
        name = f"{self.name}()" if self.name else "the task"
        again = f" in attempt {self.attempt}" if self.attempt > 1 else ""
        place = f" ({where})" if where else ""
        body = self.traceback_text.rstrip("\n") or f"{self.type_name}: {self.message}"
        return f"{name} raised {self.type_name}{again}{place}\n\n{body}"


_REPORT: Final = (str, str, str, bytes | None, str, str, str, int, int, int, int)


def limit_values(bytes_max: int) -> None:
    """Set the size above which nothing is packed (settings.value_bytes_max)."""
    global _bytes_max  # noqa: PLW0603  # one limit a process
    _bytes_max = bytes_max


# --------------------------------------------------------------------------------- calls, values


def pack_call(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], keeper: Keeping | None = None
) -> Packed:
    """Pack a call's arguments, in the caller's thread; `keeper` keeps what is large of them.

    Raises:
        NotPicklable: names the path to the part at fault.
        MessageTooLarge: more than settings.value_bytes_max, and not kept.
        Backpressure: see Keeper.
    """
    if not args and not kwargs:
        return NO_ARGUMENTS
    plain = True
    for value in args:
        kind = type(value)
        if kind is ObjectRef:
            return _pack_with_dependencies(args, kwargs, keeper)
        if kind not in _NO_BUFFERS:
            plain = False
    if kwargs:
        for value in kwargs.values():
            if type(value) is ObjectRef:
                return _pack_with_dependencies(args, kwargs, keeper)
    found = collecting.found
    outer = found.refs
    refs: list[ObjectId] = []
    found.refs = refs
    most = _bytes_max
    if keeper is not None and keeper.bytes_min <= most:
        most = keeper.bytes_min - 1
    large = None if keeper is None or (plain and not kwargs) else large_for(keeper)
    try:
        if large is None:
            payload = _dumps((args, kwargs), PROTOCOL)
        else:
            payload = _dumps((args, kwargs), PROTOCOL, buffer_callback=large)
    except (KeyboardInterrupt, Interrupted, MemoryError):
        raise
    except BaseException:  # noqa: BLE001  # cloudpickle may know how; if not, it says why
        payload = b""
    finally:
        found.refs = outer
    if carriers:
        carriers[0].look()
    if by_value or not payload or b"__main__" in payload or len(payload) > most or large:
        packed = _finished(
            payload, refs, keeper, large, (args, kwargs), "the arguments", argument_parts
        )
        return _new(Packed, (packed[0], (), packed[1], packed[2]))
    return _new(Packed, (payload, (), tuple(dict.fromkeys(refs)) if refs else (), ()))


def _pack_with_dependencies(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], keeper: Keeping | None
) -> Packed:
    places: dict[ObjectId, Placeholder] = {}

    def placed(value: Any) -> Any:
        if type(value) is not ObjectRef:
            return value
        place = places.get(value.id)
        if place is None:
            # A reference into another session would be waited for without end.
            _ = value.session
            place = places[value.id] = Placeholder(len(places))
        return place

    call = tuple([placed(value) for value in args]), {k: placed(v) for k, v in kwargs.items()}
    payload, contained, keeps = _dump(call, "the arguments", argument_parts, keeper)
    return Packed(payload, tuple(places), contained, keeps)


def unpack_call(
    payload: bytes | None, values: Sequence[ValueRow] = ()
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return (args, kwargs); `values` are the rows of the dependencies, in their order.

    Raises:
        NotPicklable: the arguments cannot be unpickled here; says why.
        ObjectLost: bytes of theirs that lay elsewhere are gone.
    """
    if payload is None:
        return (), {}
    args, kwargs = _load(payload, "the arguments")
    if not values:
        return args, kwargs
    found = [unpack_value(row.payload) for row in values]
    args = [found[value.index] if type(value) is Placeholder else value for value in args]
    for name, value in kwargs.items():
        if type(value) is Placeholder:
            kwargs[name] = found[value.index]
    return args, kwargs


def pack_value(
    value: Any, what: str = "value", keeper: Keeping | None = None, *, frozen: bool = True
) -> Packed:
    """Pack a result, or a value that is put; `what` names it in errors.

    `keeper` keeps what is large. If that is `frozen`, all readers share it, and none of them may
    write to it.

    Raises:
        NotPicklable: names the path to the part at fault.
        MessageTooLarge: more than settings.value_bytes_max, and not kept.
        Backpressure: see Keeper.
    """
    payload, contained, keeps = _dump(value, what, None, keeper, frozen)
    return Packed(payload, (), contained, keeps)


def pack_results(
    value: Any, num_returns: int, name: str, filing: Filing | None = None
) -> list[Packed]:
    """Pack what a function returned: one value, or `num_returns` many; large ones into files.

    Raises:
        ValueError: it did not return `num_returns` values.
        NotPicklable, MessageTooLarge: as `pack_value`.
    """
    if num_returns == 1:
        return [pack_value(value, "result", filing, frozen=False)]
    if num_returns == 0:
        return []
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
        raise ValueError(
            f"{name}() has num_returns={num_returns}, so it must return a sequence of "
            f"{num_returns} values, not {type(value).__name__}"
        )
    if len(value) != num_returns:
        raise ValueError(f"{name}() has num_returns={num_returns}, but returned {len(value)}")
    parts = enumerate(value)
    return [pack_value(part, f"result[{i}]", filing, frozen=False) for i, part in parts]


def unpack_value(payload: bytes | None, until_s: float | None = None) -> Any:
    """Return a packed value; None for a task that has none (num_returns=0).

    Raises:
        NotPicklable: it cannot be unpickled here; says why.
        ObjectLost: bytes of it that lay elsewhere are gone.
        GetTimeoutError: they were not here by `until_s`; see Session.buffers.
    """
    if payload is None:
        return None
    return _load(payload, "the value", until_s)


# ----------------------------------------------------------------------------------- functions


def pack_function(
    function: Callable[..., Any],
    retry_exceptions: bool | tuple[type[BaseException], ...],
    name: str,
) -> FunctionDefinition:
    """Pack a function together with the exceptions after which it is tried again.

    Raises:
        NotPicklable: names the path to the part at fault, a closure's variable perhaps.
        MessageTooLarge: more than settings.value_bytes_max.
    """
    definition = (portable(function), retry_exceptions)
    # References inside a function's closure may be needed as long as the function is: pinned.
    found = collecting.found
    outer, found.refs = found.refs, None
    try:
        payload = dumps_whole(definition)
    except (KeyboardInterrupt, Interrupted, MemoryError, DrumbeatError):
        raise
    except BaseException as error:
        raise not_picklable(definition[0], name, None, error, _dumps) from error
    finally:
        found.refs = outer
    gained = gained_path()
    if gained is not None:
        payload = _dumps(Directories(*gained, payload), PROTOCOL)
    modules = carriers[0].modules(payload) if carriers else ()
    if modules:
        payload = _dumps(Modules.of(modules, payload), PROTOCOL)
        if len(payload) > _bytes_max:
            raise too_large_with(name, modules, len(payload), _bytes_max)
    if len(payload) > _bytes_max:
        what = f"the function {name} with what it closes over"
        raise too_large(what, len(payload), _bytes_max)
    return FunctionDefinition(name, blake2b(payload, digest_size=HASH_BYTES).digest(), payload)


def unpack_function(
    payload: bytes,
) -> tuple[Callable[..., Any], bool | tuple[type[BaseException], ...]]:
    """Return (function, retry_exceptions).

    Raises:
        NotPicklable: it cannot be loaded here, a module is missing perhaps; says why.
    """
    found = _load(payload, "the function")
    while isinstance(found, Need):
        found.meet()
        found = _load(found.payload, "the function")
    function, retry_exceptions = found
    return function, retry_exceptions


# -------------------------------------------------------------------------------------- errors


def pack_error(
    exception: BaseException,
    *,
    name: str = "",
    task: str = "",
    node: str = "",
    pid: int = 0,
    attempt: int = 0,
) -> Packed:
    """Pack what the user's code raised. Never fails, whatever the exception does.

    The exception itself comes along only if it can be pickled and unpickled: that is tried here,
    where it can still be told apart from a broken message. An error of another task, which this
    one has waited for and lets pass, stays what it was.
    """
    if isinstance(exception, TaskError) and isinstance(exception.__dict__.get("_report"), tuple):
        inner, contained = pack_cause(exception)
        text, origin = _passed(exception, inner)
        report = inner._replace(
            traceback_text=text, name=name, task=task, node=node, pid=pid, attempt=attempt,
            tasks=inner.tasks + 1, origin=origin,
        )  # fmt: skip
    else:
        type_name, message, text = describe(exception)
        pickled, contained = _pack_exception(exception)
        report = ErrorReport(type_name, message, text, pickled, name, task, node, pid, attempt)
    return Packed(_dumps(tuple(report), PROTOCOL), (), contained)


def _passed(exception: BaseException, inner: ErrorReport) -> tuple[str, int]:
    """Return the text of an error that passes through a task, and where its first part begins.

    Only the frames of the first and of the last task are told, so that no text grows with depth.
    """
    first = inner.traceback_text[inner.origin :] if inner.tasks > 1 else inner.text()
    between = inner.tasks - 1
    frames = frames_of(exception)
    if between:
        frames += f"… {between} more {'task' if between == 1 else 'tasks'} between …\n"
    return f"{frames}\n{first}", len(frames) + 1


def pack_cause(error: TaskError) -> tuple[ErrorReport, tuple[ObjectId, ...]]:
    """Return the report that an error was made of, with its cause packed; and the refs in that.

    Packed once: packing an error of errors would else take twice as long with each of them.
    """
    known: dict[str, Any] = error.__dict__
    report: ErrorReport = known["_report"]
    contained: tuple[ObjectId, ...] | None = known.get("_contained")
    if contained is None:
        pickled, contained = (None, ()) if error.cause is None else _pack_exception(error.cause)
        known["_report"] = report = report._replace(pickled=pickled)
        known["_contained"] = contained
    return report, contained


def load_error(payload: bytes) -> ErrorReport:
    """Return the report of a row with Outcome.ERROR; the exception in it is still packed.

    Raises:
        NotPicklable: the payload is no such report.
    """
    # One is never a parcel: what begins like one is damaged, and not to be looked for elsewhere.
    told: Any = None if payload[:1] == _PARCEL else _load(payload, "the error report")
    fits = type(told) is tuple and len(_REPORT) - 2 <= len(told) <= len(_REPORT)
    if not fits or not all(map(isinstance, told, _REPORT)):
        text = f"the error report is none, but a {type(told).__name__}"
        raise NotPicklable(text, path="the error report", type_name=type(told).__name__)
    return ErrorReport(*told)


def load_exception(report: ErrorReport) -> BaseException | None:
    """Return the user's exception, or None where it cannot be brought here."""
    if report.pickled is None:
        return None
    try:
        exception = _load(report.pickled, "the exception")
    except DrumbeatError:
        return None
    return exception if isinstance(exception, BaseException) else None


def _pack_exception(exception: BaseException) -> tuple[bytes | None, tuple[ObjectId, ...]]:
    try:
        payload, contained, _ = _dump(exception, "the exception", no_parts)
        loaded = _load(payload, "the exception")
    except BaseException:  # noqa: BLE001  # the exception's own code; its text goes without it
        return None, ()
    if type(loaded).__qualname__ != type(exception).__qualname__:
        return None, ()
    return payload, contained


# ------------------------------------------------------------------------------- pickle itself


def _dump(
    value: Any, what: str, parts: Parts, keeper: Keeping | None = None, frozen: bool = False
) -> tuple[bytes, tuple[ObjectId, ...], tuple[Any, ...]]:
    """Return the bytes, what is named inside, and references to what was kept for it."""
    found = collecting.found
    outer = found.refs
    refs: list[ObjectId] = []
    found.refs = refs
    if carriers:
        carriers[0].look()
    plain = keeper is None or type(value) in _NO_BUFFERS
    large = None if plain or keeper is None else large_for(keeper)
    try:
        payload = _dumps(value, PROTOCOL, buffer_callback=large)
    except (KeyboardInterrupt, Interrupted, MemoryError):
        raise
    except BaseException:  # noqa: BLE001  # cloudpickle may know how; if not, it says why
        payload = b""
    finally:
        found.refs = outer
    return _finished(payload, refs, keeper, large, value, what, parts, frozen)


def _finished(
    payload: bytes,
    refs: list[ObjectId],
    keeper: Keeping | None,
    large: Large | None,
    value: Any,
    what: str,
    parts: Parts,
    frozen: bool = False,
) -> tuple[bytes, tuple[ObjectId, ...], tuple[Any, ...]]:
    """Return what `_dump` does, of what plain pickle made of a value; b"": it could not."""
    if large is None and keeper is not None and len(payload) >= keeper.bytes_min:
        large = large_for(keeper)
    plain = payload and b"__main__" not in payload
    if not plain or (by_value and any(name in payload for name in by_value)):
        refs.clear()
        if large is not None:
            large.clear()
        payload = _dump_by_value(value, what, parts, refs, large)
    contained = tuple(dict.fromkeys(refs)) if refs else ()
    keeps: tuple[Any, ...] = ()
    if large is not None and (large or len(payload) >= large.keeper.bytes_min):
        kept = large.kept(payload, frozen)
        if kept is not None:
            payload, segments, keeps = kept
            contained = (*contained, *segments)
        elif large:  # all of it goes together, if it is not too much
            size_bytes = len(payload) + sum([view.nbytes for view in large])
            if size_bytes > _bytes_max:
                raise too_large(what, size_bytes, _bytes_max, was_offered=True)
            return _dump(value, what, parts)
    if len(payload) > _bytes_max:
        raise too_large(what, len(payload), _bytes_max, was_offered=large is not None)
    return payload, contained, keeps


def _dump_by_value(
    value: Any, what: str, parts: Parts, refs: list[ObjectId], large: Large | None
) -> bytes:
    found = collecting.found
    outer, found.refs = found.refs, refs
    try:
        payload = dumps_whole(value, large)
    except (KeyboardInterrupt, Interrupted, MemoryError):
        raise
    except BaseException as error:
        raise not_picklable(value, what, parts, error, _dumps) from error
    finally:
        found.refs = outer
    return payload


def _load(payload: bytes, what: str, until_s: float | None = None) -> Any:
    try:
        if payload[:1] == _PARCEL:
            stream, buffers = bytes_of(payload, until_s)
            return _loads(stream, buffers=buffers)
        return _loads(payload)
    except (KeyboardInterrupt, Interrupted, DrumbeatError):
        # What Drumbeat says, of bytes that are gone or of a get() in there, is told as it is.
        raise
    except BaseException as error:
        # SystemExit too: whatever unpickling does, it is the value's fault, not the program's.
        raise NotPicklable(
            f"{what} cannot be unpickled here: {type(error).__name__}: {blame.shorten(error)}",
            path=what,
            type_name=type(error).__name__,
        ) from error
