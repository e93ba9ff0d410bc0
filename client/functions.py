"""Remote functions: `@drumbeat.remote`, `.options(...)`, `.remote(...)`; classes: actors.py.

Never runs a function and never waits for one. A function is pickled at its first submit; each call
then costs one pickle of its arguments and one small record.
"""

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, Protocol, TypeVar, overload

from ..protocol import modules
from ..protocol.ids import ObjectId
from ..protocol.modules import portable
from ..protocol.payload import pack_call, pack_function
from ..protocol.references import ObjectRef, orphaned, refuse_fork
from ..protocol.session import FunctionDefinition, Kind, Packed, Session, current
from . import options as options_
from .generators import several

if TYPE_CHECKING:
    from .actors import ActorClass

P = ParamSpec("P")
T = TypeVar("T")

#: so many variants by .options() and so many forms of a call are remembered a function
VARIANTS_MAX: Final = 256
FORMS_MAX: Final = 256


def session_or_start() -> Session:
    """Return this process's session; start a local cluster if nobody called init().

    Raises:
        NotInitialized: this is a forked child of a process that uses Drumbeat.
    """
    session = current()
    if session is not None and session.alive:
        return session
    if orphaned():
        raise refuse_fork()
    from . import local

    return local.session_or_init()


class Callee:
    """What all variants of a remote function share: what is called, its signature, its pickles."""

    __slots__ = ("call", "code_version", "definitions", "fewest", "forms", "most", "name")

    def __init__(self, function: Callable[..., Any], name: str = "") -> None:
        self.call = function
        self.name = name or _name_of(function)
        self.definitions: dict[Any, FunctionDefinition] = {}
        #: of the modules that came along with these
        self.code_version = -1
        #: calls with so many positional arguments and no others are right; most=-1: not known yet
        self.fewest = 0
        self.most = -1
        #: other calls that were right: (number of arguments, names of keyword arguments)
        self.forms: dict[tuple[int, tuple[str, ...]], None] = {}

    def definition(self, retry_exceptions: options_.RetryExceptions) -> FunctionDefinition:
        """Return the function as it is sent; pickled when first asked for."""
        version = modules.code_version()
        if version != self.code_version:
            self.definitions.clear()
        found = self.definitions.get(retry_exceptions)
        if found is None:
            found = pack_function(as_call(self.call), retry_exceptions, self.name)
            self.definitions[retry_exceptions] = found
            self.code_version = modules.code_version()
        return found

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call that does not fit the signature.

        Raises:
            TypeError: as a direct call would.
        """
        if not kwargs and self.fewest <= len(args) <= self.most:
            return
        form = (len(args), tuple(kwargs))
        if form in self.forms:
            return
        signature = self.signature()
        if signature is None:
            self.most = 1 << 62  # a builtin without a signature: the worker will tell
        else:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self.name}(): {error}") from None
            if self.most < 0:
                self.fewest, self.most = _range_of(signature)
        if len(self.forms) >= FORMS_MAX:
            self.forms.clear()
        self.forms[form] = None

    def signature(self) -> inspect.Signature | None:
        """Return what arguments fit; None: that is not known here."""
        return signature_of(self.call)


class AsyncCall:
    """An `async def` function as a plain one: a worker runs it to its end in a loop of its own."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = portable(function)
        self.__name__ = _name_of(function)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Run the function to its end."""
        import asyncio  # loads ssl and much else: for those who use it

        return asyncio.run(self.function(*args, **kwargs))


class Remote:
    """What is called with options, whose kind is made anew when more code has to come along."""

    def __init__(self, callee: Callee, checked: options_.Checked) -> None:
        self._shared = callee
        self._checked = checked
        self._kind: Kind | None = None

    def kind(self) -> Kind:
        """Return callee and options as a session submits them, new for a new session."""
        while True:
            definition = self._shared.definition(self._checked.retry_exceptions)
            name = self._checked.name or self._shared.name
            kind = self._kind = Kind(definition, self._checked.options, name)
            modules.packed(self)
            if self._shared.code_version == modules.code_version():
                return kind

    def kind_for(self, session: Session) -> Kind:
        """Return the kind to be submitted to a session."""
        kind = self._kind
        if kind is None or (kind.session is not session and kind.session is not None):
            kind = self.kind()
        return kind

    def outdated(self) -> None:
        """Have the callee packed anew: more modules have to come along."""
        self._kind = None


class RemoteFunction(Remote, Generic[P, T]):
    """A function whose calls run in the cluster: `f.remote(...)` returns an ObjectRef at once."""

    def __init__(
        self,
        function: Callable[P, T],
        given: Mapping[str, Any] | None = None,
        *,
        pool: str = "",
        shared: Callee | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._given = dict(given or {})
        callee = Callee(function) if shared is None else shared
        super().__init__(callee, options_.check(self._given, pool))
        self._variants: dict[Any, RemoteFunction[P, T]] = {}
        self._single = self._checked.options.num_returns == 1

    @property
    def function(self) -> Callable[P, T]:
        """The function itself, to be called here and now."""
        return self._shared.call

    def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[T]:
        """Call the function in the cluster; returns at once.

        Returns:
            A reference to the value; with num_returns=n a list of n references, with 0 None, and
            with "streaming" an ObjectRefGenerator.

        Raises:
            TypeError: the arguments do not fit the function's signature.
            NotPicklable: an argument cannot be sent; says which part of it.
            Infeasible: no node is large enough for what the task asks for.
        """
        session = current()
        if session is None or not session.alive:
            session = session_or_start()
        shared = self._shared
        if kwargs or not shared.fewest <= len(args) <= shared.most:
            shared.check(args, kwargs)
        # First: its classes may be of a module that has to come along with the function.
        packed = pack_call(args, kwargs, session.keeper)
        kind = self._kind
        if kind is None or (kind.session is not session and kind.session is not None):
            kind = self.kind()
        if self._single:
            return ObjectRef(session.submit(kind, packed)[0], session)
        return several(session, kind, packed)  # type: ignore[return-value]  # by num_returns

    def options(self, **given: Any) -> "RemoteFunction[P, T]":
        """Return the same function with other options; those not named stay as they are.

        Raises:
            TypeError: an unknown option (the message names the options there are).
            ValueError: a value out of bounds.
        """
        key = frozen(given)
        try:
            found = self._variants.get(key)
        except TypeError:  # a value that cannot be hashed is checked each time
            return RemoteFunction(self.function, {**self._given, **given}, shared=self._shared)
        if found is None:
            found = RemoteFunction(self.function, {**self._given, **given}, shared=self._shared)
            if len(self._variants) >= VARIANTS_MAX:
                self._variants.clear()
            self._variants[key] = found
        return found

    @property
    def name(self) -> str:
        """What the function is called in tables and errors."""
        return self._checked.name or self._shared.name

    @property
    def num_returns(self) -> int | str:
        """The option num_returns."""
        options = self._checked.options
        return "streaming" if options.stream_buffer_max else options.num_returns

    @property
    def retries(self) -> bool:
        """Whether errors of the function's code may be tried again."""
        return self._checked.options.retry_exceptions

    def around(self, wrap: Callable[[Callable[..., Any]], Any]) -> "RemoteFunction[..., Any]":
        """Return `wrap(function)` as a remote function with this one's options."""
        shared = self._shared
        call = as_call(shared.call)
        given = {**self._given, "name": self.name}
        return RemoteFunction(wrap(call), given, pool=self._checked.options.pool)

    def submit(self, session: Session, packed: Packed) -> list[ObjectId]:
        """Submit a call whose arguments are packed already."""
        return session.submit(self.kind_for(session), packed)

    def __call__(self, /, *_: Any, **__: Any) -> T:
        """Refuse to be called: here or in the cluster is for the caller to say."""
        name = self._shared.name
        raise TypeError(
            f"{name} is a remote function: call {name}.remote(...) to run it in the cluster, "
            f"or {name}.function(...) to run it here"
        )

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._given.items())
        return f"<remote function {self._shared.name}{given}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # In two steps, since a function that calls itself holds this object in its globals.
        state = (portable(self.function), self._given, self._checked.options.pool)
        return (_empty, (), state)

    def __setstate__(self, state: tuple[Callable[P, T], dict[str, Any], str]) -> None:
        function, given, pool = state
        self.__init__(function, given, pool=pool)  # type: ignore[misc]  # made by _empty


def refuse_no_function(thing: Any) -> None:
    """Refuse what looks like a function and runs elsewhere: it says itself what is meant.

    Raises:
        TypeError: it is a method of an actor, an actor, or an actor's class.
    """
    instead = getattr(type(thing), "_is_no_function", None)
    if instead is not None:
        raise TypeError(instead(thing))


def as_call(function: Any) -> Callable[..., Any]:
    """Return what a worker is to call for a function: plain, and run to its end."""
    if isinstance(function, RemoteFunction):
        function = function.function
    return AsyncCall(function) if _is_coroutine_function(function) else function


def _empty() -> RemoteFunction[..., Any]:
    made: RemoteFunction[..., Any] = RemoteFunction.__new__(RemoteFunction)
    return made


class Decorator(Protocol):
    """What `@remote(**options)` is: it makes a function or a class remote."""

    @overload
    def __call__(self, class_: type[T], /) -> "ActorClass[T]": ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> RemoteFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> RemoteFunction[P, T]: ...


@overload
def remote(class_: type[T], /) -> "ActorClass[T]": ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, Coroutine[Any, Any, T]], /) -> RemoteFunction[P, T]: ...
@overload
def remote(function: Callable[P, T], /) -> RemoteFunction[P, T]: ...
@overload
def remote(**options: Any) -> Decorator: ...
def remote(function: Any = None, /, **options: Any) -> Any:
    """Make a function or a class remote: `@remote`, `@remote(num_cpus=2)` or `remote(function)`.

    Raises:
        TypeError: an unknown option, or neither a function nor a class.
    """
    if function is None:
        options_.check_names(options)
        return functools.partial(_remote, options=options)
    return _remote(function, options)


def _remote(function: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(function, RemoteFunction):
        return function.options(**options) if options else function
    from .actors import ActorClass, class_of

    if isinstance(function, ActorClass):
        return function.options(**options) if options else function
    class_ = class_of(function)
    if class_ is not None:
        return ActorClass(class_, options)
    refuse_no_function(function)
    if not callable(function):
        raise TypeError(f"drumbeat.remote takes a function or a class, not {function!r}")
    return RemoteFunction(function, options)


def _name_of(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) else type(function).__name__


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    call = getattr(type(function), "__call__", None)  # noqa: B004  # an object with async __call__
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(call)


def signature_of(call: Callable[..., Any]) -> inspect.Signature | None:
    """Return a signature, or None where there is none: that of a builtin perhaps."""
    try:
        return inspect.signature(call)
    except (TypeError, ValueError):
        return None


def _range_of(signature: inspect.Signature) -> tuple[int, int]:
    """Return how many positional arguments alone are right: from, to; (1, 0) if no number is."""
    fewest = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            fewest += required
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = 1 << 62
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            return 1, 0
    return fewest, most


def frozen(given: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return options in a form that can be hashed, unless a value of them cannot be."""
    return tuple([(name, _frozen(value)) for name, value in given.items()])


def _frozen(value: Any) -> Any:
    """Return a form of an option's value that tells it apart from others and can be hashed."""
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    if isinstance(value, list):
        return tuple(value)
    return value if type(value) is str else (type(value), value)
