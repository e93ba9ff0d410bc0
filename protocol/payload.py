"""Arguments, values, functions and errors to bytes and back. The only door to pickle.

Never runs in the scheduler or in a node's daemon: they pass payloads on unopened. Plain pickle
comes first, since it is seven times as quick as cloudpickle; but it pickles what is defined in
`__main__` (or in a module that the other side cannot import) by name, which would fail only when
loaded. So bytes that mention such a module are made again with cloudpickle.
"""

import contextlib
import importlib
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from types import ModuleType
from typing import Any, Final, NamedTuple

from . import blame
from .errors import DrumbeatError, Interrupted, MessageTooLarge, NotPicklable
from .ids import ObjectId
from .messages import ValueRow
from .references import ObjectRef, collecting
from .session import FunctionDefinition, Packed
from .settings import Settings
from .traceback_text import describe

PROTOCOL: Final = 5
HASH_BYTES: Final = 16
NO_ARGUMENTS: Final = Packed(None)

_dumps = pickle.dumps
_loads = pickle.loads
_new = tuple.__new__
#: above this nothing is sent; a session with other settings says so by `limit_values`
_bytes_max = Settings().value_bytes_max
#: encoded names of modules that travel by value
_by_value: tuple[bytes, ...] = ()
#: top-level modules found to be importable, or not
_importable: dict[str, bool] = {}


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


def limit_values(bytes_max: int) -> None:
    """Set the size above which nothing is packed (settings.value_bytes_max)."""
    global _bytes_max  # noqa: PLW0603  # one limit a process
    _bytes_max = bytes_max


# --------------------------------------------------------------------------------- calls, values


def pack_call(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
    """Pack a call's arguments, in the caller's thread.

    Raises:
        NotPicklable: names the path to the part at fault.
        MessageTooLarge: more than settings.value_bytes_max.
    """
    if not args and not kwargs:
        return NO_ARGUMENTS
    for value in args:
        if type(value) is ObjectRef:
            return _pack_with_dependencies(args, kwargs)
    if kwargs:
        for value in kwargs.values():
            if type(value) is ObjectRef:
                return _pack_with_dependencies(args, kwargs)
    found = collecting.found
    outer = found.refs
    refs: list[ObjectId] = []
    found.refs = refs
    try:
        payload = _dumps((args, kwargs), PROTOCOL)
    except (KeyboardInterrupt, Interrupted, MemoryError):
        raise
    except BaseException:  # noqa: BLE001  # cloudpickle may know how; if not, it says why
        payload = b""
    finally:
        found.refs = outer
    if _by_value or not payload or b"__main__" in payload or len(payload) > _bytes_max:
        payload, contained = _dump((args, kwargs), "the arguments", _argument_parts)
        return Packed(payload, (), contained)
    return _new(Packed, (payload, (), tuple(dict.fromkeys(refs)) if refs else ()))


def _pack_with_dependencies(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Packed:
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
    payload, contained = _dump(call, "the arguments", _argument_parts)
    return Packed(payload, tuple(places), contained)


def unpack_call(
    payload: bytes | None, values: Sequence[ValueRow] = ()
) -> tuple[Sequence[Any], dict[str, Any]]:
    """Return (args, kwargs); `values` are the rows of the dependencies, in their order.

    Raises:
        NotPicklable: the arguments cannot be unpickled here; says why.
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


def pack_value(value: Any, what: str = "value") -> Packed:
    """Pack a result, or a value that is put; `what` names it in errors.

    Raises:
        NotPicklable: names the path to the part at fault.
        MessageTooLarge: more than settings.value_bytes_max.
    """
    payload, contained = _dump(value, what, None)
    return Packed(payload, (), contained)


def pack_results(value: Any, num_returns: int, name: str) -> list[Packed]:
    """Pack what a function returned: one value, or `num_returns` many.

    Raises:
        ValueError: it did not return `num_returns` values.
        NotPicklable, MessageTooLarge: as `pack_value`.
    """
    if num_returns == 1:
        payload, contained = _dump(value, "result", None)
        return [Packed(payload, (), contained)]
    if num_returns == 0:
        return []
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes, bytearray)):
        raise ValueError(
            f"{name}() has num_returns={num_returns}, so it must return a sequence of "
            f"{num_returns} values, not {type(value).__name__}"
        )
    if len(value) != num_returns:
        raise ValueError(f"{name}() has num_returns={num_returns}, but returned {len(value)}")
    return [pack_value(part, f"result[{index}]") for index, part in enumerate(value)]


def unpack_value(payload: bytes | None) -> Any:
    """Return a packed value; None for a task that has none (num_returns=0).

    Raises:
        NotPicklable: it cannot be unpickled here; says why.
    """
    if payload is None:
        return None
    return _load(payload, "the value")


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
    import cloudpickle

    definition = (portable(function), retry_exceptions)
    # References inside a function's closure may be needed as long as the function is: pinned.
    found = collecting.found
    outer, found.refs = found.refs, None
    try:
        payload: bytes = cloudpickle.dumps(definition, PROTOCOL)
    except (KeyboardInterrupt, Interrupted, MemoryError, DrumbeatError):
        raise
    except BaseException as error:
        raise _not_picklable(definition[0], name, None, error) from error
    finally:
        found.refs = outer
    if len(payload) > _bytes_max:
        raise _too_large(f"the function {name} with what it closes over", len(payload))
    return FunctionDefinition(name, blake2b(payload, digest_size=HASH_BYTES).digest(), payload)


def unpack_function(
    payload: bytes,
) -> tuple[Callable[..., Any], bool | tuple[type[BaseException], ...]]:
    """Return (function, retry_exceptions).

    Raises:
        NotPicklable: it cannot be loaded here, a module is missing perhaps; says why.
    """
    function, retry_exceptions = _load(payload, "the function")
    return function, retry_exceptions


class ByName:
    """A decorated function, to be found again by its name.

    The name of a decorated function leads to what the decorator made of it, so pickle would refuse
    it and cloudpickle would take it by value, together with copies of the module's globals.
    """

    __slots__ = ("module", "path")

    def __init__(self, module: str, path: str) -> None:
        self.module = module
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (_undecorated, (self.module, self.path))


def _undecorated(module: str, path: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return getattr(found, "__wrapped__", found)


def portable(function: Callable[..., Any]) -> Any:
    """Return what is to be pickled for a function: itself, or its name where that suffices."""
    module = getattr(function, "__module__", None)
    path = getattr(function, "__qualname__", None)
    if not module or not path or module == "__main__" or module not in sys.modules:
        return function
    if not _can_be_imported(module):
        return function
    found: Any = sys.modules[module]
    for name in path.split("."):
        found = getattr(found, name, None)
    if found is not function and getattr(found, "__wrapped__", None) is function:
        return ByName(module, path)
    return function


def ship_by_value(module: ModuleType | str) -> None:
    """Have everything defined in a module travel by value: the other side cannot import it.

    Raises:
        ValueError: the module is not imported.
    """
    import cloudpickle

    global _by_value  # noqa: PLW0603  # cloudpickle's register is one a process, too
    if isinstance(module, str):
        if module not in sys.modules:
            raise ValueError(f"the module {module!r} is not imported here")
        module = sys.modules[module]
    cloudpickle.register_pickle_by_value(module)
    name = module.__name__.encode()
    if name not in _by_value:
        _by_value = (*_by_value, name)


def _can_be_imported(module: str) -> bool:
    """Return whether another process with the same sys.path would find a module.

    One that would not (made by hand, or by a test runner) is registered to travel by value.
    """
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    known = _importable.get(top)
    if known is None:
        known = _importable[top] = any(_finds(finder, top) for finder in list(sys.meta_path))
        if not known and top in sys.modules:
            ship_by_value(top)
    return known


def _finds(finder: Any, name: str) -> bool:
    try:
        return finder.find_spec(name, None) is not None
    except Exception:  # noqa: BLE001  # somebody's import hook; theirs is not the only one
        return False


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
    where it can still be told apart from a broken message.
    """
    type_name, message, text = describe(exception)
    pickled, contained = _pack_exception(exception)
    report = ErrorReport(type_name, message, text, pickled, name, task, node, pid, attempt)
    return Packed(_dumps(tuple(report), PROTOCOL), (), contained)


def load_error(payload: bytes) -> ErrorReport:
    """Return the report of a row with Outcome.ERROR; the exception in it is still packed."""
    return ErrorReport(*_loads(payload))


def load_exception(report: ErrorReport) -> BaseException | None:
    """Return the user's exception, or None where it cannot be brought here."""
    if report.pickled is None:
        return None
    try:
        exception = _load(report.pickled, "the exception")
    except NotPicklable:
        return None
    return exception if isinstance(exception, BaseException) else None


def _pack_exception(exception: BaseException) -> tuple[bytes | None, tuple[ObjectId, ...]]:
    try:
        payload, contained = _dump(exception, "the exception", _no_parts)
        loaded = _load(payload, "the exception")
    except BaseException:  # noqa: BLE001  # the exception's own code; its text goes without it
        return None, ()
    if type(loaded).__qualname__ != type(exception).__qualname__:
        return None, ()
    return payload, contained


# ------------------------------------------------------------------------------- pickle itself


def _dump(
    value: Any, what: str, parts: Callable[[Any], list[tuple[str, Any]]] | None
) -> tuple[bytes, tuple[ObjectId, ...]]:
    """Return the bytes and the references found inside."""
    found = collecting.found
    outer = found.refs
    refs: list[ObjectId] = []
    found.refs = refs
    try:
        try:
            payload = _dumps(value, PROTOCOL)
            plain = b"__main__" not in payload
            if plain and _by_value:
                plain = not any(name in payload for name in _by_value)
        except (KeyboardInterrupt, Interrupted, MemoryError):
            raise
        except BaseException:  # noqa: BLE001  # cloudpickle may know how; if not, it says why
            plain = False
        if not plain:
            refs.clear()
            payload = _dump_by_value(value, what, parts)
    finally:
        found.refs = outer
    if len(payload) > _bytes_max:
        raise _too_large(what, len(payload))
    return payload, tuple(dict.fromkeys(refs)) if refs else ()


def _dump_by_value(
    value: Any, what: str, parts: Callable[[Any], list[tuple[str, Any]]] | None
) -> bytes:
    import cloudpickle

    try:
        payload: bytes = cloudpickle.dumps(value, PROTOCOL)
    except (KeyboardInterrupt, Interrupted, MemoryError):
        raise
    except BaseException as error:
        raise _not_picklable(value, what, parts, error) from error
    return payload


def _load(payload: bytes, what: str) -> Any:
    try:
        return _loads(payload)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:
        # SystemExit too: whatever unpickling does, it is the value's fault, not the program's.
        raise NotPicklable(
            f"{what} cannot be unpickled here: {type(error).__name__}: {blame.shorten(error)}",
            path=what,
            type_name=type(error).__name__,
        ) from error


def _argument_parts(call: Any) -> list[tuple[str, Any]]:
    args, kwargs = call
    return [
        *((f"args[{index}]", value) for index, value in enumerate(args)),
        *((f"kwargs[{name!r}]", value) for name, value in kwargs.items()),
    ]


def _no_parts(_: Any) -> list[tuple[str, Any]]:
    return []


def _not_picklable(
    value: Any,
    what: str,
    parts: Callable[[Any], list[tuple[str, Any]]] | None,
    error: BaseException,
) -> NotPicklable:
    found = collecting.found
    outer, found.refs = found.refs, []
    try:
        roots = [(what, value)] if parts is None else parts(value)
        fault = blame.find(roots, _why_not) or blame.Fault(what, type(value), error)
    finally:
        found.refs = outer
    return NotPicklable(
        f"{fault.path} cannot be sent: it is a {fault.type.__name__}, and pickling it raises "
        f"{type(fault.reason).__name__}: {blame.shorten(fault.reason)}",
        path=fault.path,
        type_name=fault.type.__name__,
    )


def _why_not(value: Any) -> BaseException | None:
    """Return what pickling raises, or None."""
    import cloudpickle

    try:
        with contextlib.suppress(Exception, SystemExit):
            if b"__main__" not in _dumps(value, PROTOCOL):
                return None
        cloudpickle.dumps(value, PROTOCOL)
    except (KeyboardInterrupt, Interrupted):
        raise
    except BaseException as error:  # noqa: BLE001  # user code may raise anything
        return error
    return None


def _too_large(what: str, size_bytes: int) -> MessageTooLarge:
    return MessageTooLarge(
        f"{what}: {size_bytes:,} bytes when pickled, and at most {_bytes_max:,} can be sent "
        "(the setting value_bytes_max)",
        size_bytes=size_bytes,
        limit_bytes=_bytes_max,
    )
