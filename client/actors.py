"""Actors: classes made remote, and the options of their methods.

Never makes an instance here: that is a task like any other, which ends when the actor does.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, NoReturn, TypeVar

from ..protocol.actor_calls import is_async
from ..protocol.actors import ANY_NUMBER, ActorOptions
from ..protocol.modules import portable
from ..protocol.outcomes import VALUE, value_of
from ..protocol.parcels import is_parcel
from ..protocol.payload import pack_call
from ..protocol.references import ObjectRef
from ..protocol.session import Session, current
from . import limits, names
from . import options as options_
from .functions import Callee, Remote, session_or_start, signature_of
from .handles import ActorHandle, Class, Parameters, ToldClass, ToldMethod, actor_of, class_told

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

#: where a method keeps the options that @method gave it
_GIVEN: Final = "__drumbeat_method__"


class ActorClass(Remote, Generic[T]):
    """A class whose instances live in the cluster: `C.remote(...)` returns a handle at once."""

    def __init__(
        self,
        class_: type[T],
        given: Mapping[str, Any] | None = None,
        *,
        shared: Callee | None = None,
    ) -> None:
        functools.update_wrapper(self, class_, updated=())
        self._class = class_
        self._given = dict(given or {})
        checked, self._of_calls = options_.check_actor(self._given)
        _check_checkpoints(class_, checked.options.creates)
        _check_health(class_, checked.options.creates)
        super().__init__(Callee(class_) if shared is None else shared, checked)
        self._told: Class | None = None

    @property
    def plain_class(self) -> type[T]:
        """The class itself, for instances here and now."""
        return self._class

    def remote(self, /, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Make an instance in the cluster; returns its handle at once.

        What the constructor raises is told to whoever calls a method: ActorDied.

        Raises:
            TypeError: the arguments do not fit the constructor, or the class is abstract.
            NotPicklable: an argument cannot be sent; says which part of it.
            Infeasible: no node is large enough for what the actor asks for.
            ValueError: another actor has the name that it is to have.
        """
        session = current()
        if session is None or not session.alive:
            session = session_or_start()
        if inspect.isabstract(self._class):
            some = ", ".join(sorted(getattr(self._class, "__abstractmethods__", ())))
            raise TypeError(f"{self._shared.name} is abstract: it has to define {some}")
        self._shared.check(args, kwargs)
        creates = self._checked.options.creates
        if creates is not None and creates.detached:
            # It outlives the processes whose memory large values lie in.
            whole = [_whole(value, session) for value in args]
            packed = pack_call(
                tuple(whole), {name: _whole(value, session) for name, value in kwargs.items()}
            )
        else:
            packed = pack_call(args, kwargs, session.keeper)
        if creates is not None and (creates.name or creates.detached):
            exists = bool(self._given.get("get_if_exists", False))
            kind, told = self.kind(), self._handles_know()
            return names.create(session, kind, packed, told, get_if_exists=exists)
        ids = session.submit(self.kind_for(session), packed)
        ref: ObjectRef[None] = ObjectRef(ids[0], session)
        return ActorHandle(ref, actor_of(ref.id, self._handles_know()))

    def options(self, **given: Any) -> "ActorClass[T]":
        """Return the same class with other options; those not named stay as they are.

        Raises:
            TypeError: an unknown option (the message names the options there are).
            ValueError: a value out of bounds.
        """
        return ActorClass(self._class, {**self._given, **given}, shared=self._shared)

    def _handles_know(self) -> Class:
        if self._told is None:
            creates = self._checked.options.creates
            methods, others = _members_of(self._class, self._of_calls)
            self._told = class_told(
                ToldClass(
                    self._shared.name,
                    ANY_NUMBER if creates is None else creates.max_pending_calls,
                    methods,
                    others,
                )
            )
        return self._told

    def __call__(self, /, *_: Any, **__: Any) -> NoReturn:
        """Refuse to be called: here or in the cluster is for the caller to say."""
        name = self._shared.name
        raise TypeError(
            f"{name} is the class of an actor: call {name}.remote(...) to make one in the cluster, "
            f"or {name}.plain_class(...) to make an instance here"
        )

    def _is_no_function(self) -> str:
        name = self._shared.name
        return (
            f"{name} is the class of an actor, no function: {name}.remote(...) makes one, and for "
            f"plain instances take {name}.plain_class"
        )

    def __getattr__(self, name: str) -> Any:
        # Its constants and static methods are used by their class's name, in its methods too.
        if name.startswith("__") or "_class" not in self.__dict__:
            raise AttributeError(f"an actor's class has no attribute {name!r}", name=name)
        return getattr(self._class, name)

    def __getitem__(self, item: Any) -> "ActorClass[T]":
        _ = self._class[item]  # type: ignore[index]  # raises for a class that is not generic
        return self

    def __mro_entries__(self, _: tuple[Any, ...]) -> tuple[type, ...]:
        return (self._class,)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, self._class)

    def __repr__(self) -> str:
        given = "".join(f", {name}={value!r}" for name, value in self._given.items())
        return f"<actor class {self._shared.name}{given}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # In two steps, since the class's methods may hold this object in their globals.
        return (_empty, (), (portable(self._class), self._given))

    def __setstate__(self, state: tuple[type[T], dict[str, Any]]) -> None:
        class_, given = state
        self.__init__(class_, given)  # type: ignore[misc]  # made by _empty


def _empty() -> ActorClass[Any]:
    made: ActorClass[Any] = ActorClass.__new__(ActorClass)
    return made


def class_of(thing: Any) -> type | None:
    """Return a class, or that of a generic alias as `Box[int]`; None: it is something else."""
    if isinstance(thing, type):
        return thing
    origin = typing.get_origin(thing)
    return origin if isinstance(origin, type) else None


def method(**given: Any) -> Callable[[F], F]:
    """Give a method of an actor its options: `@drumbeat.method(num_returns=2)`.

    Raises:
        TypeError: an unknown option (the message names the options there are).
        ValueError: a value out of bounds.
    """
    checked = options_.check_method(given)

    def keep(function: F) -> F:
        setattr(getattr(function, "__func__", function), _GIVEN, checked)
        return function

    return keep


def _whole(value: Any, session: Session) -> Any:
    """Return an argument, or for a reference its value if the bytes of that lie elsewhere."""
    if type(value) is not ObjectRef or value.session is not session:
        return value
    row = session.get((value.id,), None)[-1]
    return value_of(row) if row.outcome == VALUE and is_parcel(row.payload) else value


def _check_checkpoints(class_: type, creates: ActorOptions | None) -> None:
    """Refuse checkpoints of a class that cannot make them."""
    if creates is None or not (creates.checkpoint_every_calls or creates.checkpoint_interval_s):
        return
    name = class_.__qualname__
    for method_name in ("__checkpoint__", "__restore__"):
        found = getattr(class_, method_name, None)
        if not callable(found) or inspect.iscoroutinefunction(found):
            raise TypeError(
                f"checkpoints of {name} are made with __checkpoint__(self), which returns its "
                f"state, and __restore__(self, state); {method_name} is no method of it"
            )
    if creates.max_concurrency > 1 or is_async(class_):
        raise ValueError(
            f"checkpoints are made between calls, and {name} may run several at once: leave out "
            "max_concurrency and `async def` methods, or checkpoint_every_calls and "
            "checkpoint_interval_s"
        )


def _check_health(class_: type, creates: ActorOptions | None) -> None:
    """Refuse to have a class asked how it is that cannot say, or that may wait to."""
    found, name = getattr(class_, "__health__", None), class_.__qualname__
    if found is None:
        if creates is not None and creates.health_check_interval_s > 0.0:
            raise TypeError(
                f"health_check_interval_s says how often __health__(self) of {name} is asked, "
                "which is no method of it"
            )
        return
    if not callable(found):
        raise TypeError(f"__health__ of {name} is to be a method: it is asked between calls")
    if inspect.iscoroutinefunction(found) and not is_async(class_):
        raise TypeError(
            f"__health__ of {name} is `async def`, and no method of its own is: it has no event "
            "loop, so make it a plain method"
        )


def _members_of(
    class_: type, of_calls: options_.OfCalls
) -> tuple[tuple[ToldMethod, ...], tuple[tuple[str, str], ...]]:
    """Return the public methods of a class, inherited ones too, and what else is public."""
    methods: list[ToldMethod] = []
    others: list[tuple[str, str]] = []
    for name in dir(class_):
        if name.startswith("_"):
            continue
        found = inspect.getattr_static(class_, name)
        what = _what_else(found)
        if what:
            others.append((name, what))
            continue
        given = getattr(getattr(found, "__func__", found), _GIVEN, {})
        methods.append(
            ToldMethod(
                name,
                _parameters_of(class_, name, found),
                given.get("num_returns", 1),
                given.get("max_task_retries", of_calls.max_task_retries),
                given.get("retry_exceptions", False),
                given.get("name", ""),
                limits.changed(of_calls.limits, given),
                given.get("stream_buffer_max", 0),
            )
        )
    return tuple(methods), tuple(others)


def _what_else(found: Any) -> str:
    """Return what a public member of a class is, if it is no method."""
    if isinstance(found, (property, functools.cached_property)):
        return "a property"
    if isinstance(found, type):
        return "a class"
    if inspect.ismemberdescriptor(found) or inspect.isgetsetdescriptor(found):
        return "an attribute"
    if callable(found) or isinstance(found, (staticmethod, classmethod)):
        return ""
    # Others are called by what they give: functools.partialmethod, singledispatchmethod.
    return "" if hasattr(found, "__get__") and hasattr(found, "func") else "an attribute"


def _parameters_of(class_: type, name: str, found: Any) -> Parameters | None:
    """Return what a method takes from its caller."""
    signature = signature_of(getattr(class_, name))
    if signature is None:
        return None
    parameters = list(signature.parameters.values())
    bound = isinstance(found, (staticmethod, classmethod)) or not hasattr(found, "__get__")
    if parameters and not bound and parameters[0].kind <= parameters[0].POSITIONAL_OR_KEYWORD:
        del parameters[0]  # self
    return tuple((one.name, int(one.kind), one.default is not one.empty) for one in parameters)
