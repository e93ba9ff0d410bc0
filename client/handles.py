"""Handles of actors, and calls of their methods.

Never runs a method and never waits for one. A handle is the reference to its actor's creation, and
what has to be known of the class to call its methods; the class itself stays where it is.
"""

import inspect
import threading
from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar, final
from weakref import WeakValueDictionary

from ..protocol import modules
from ..protocol.actor_calls import MethodCall
from ..protocol.actors import ANY_NUMBER
from ..protocol.errors import PendingCallsLimitExceeded
from ..protocol.ids import ObjectId, show
from ..protocol.limits import Limits
from ..protocol.messages import Options, ValueRow
from ..protocol.payload import pack_call
from ..protocol.references import ObjectRef, gone, orphaned
from ..protocol.session import Kind, Session
from . import limits
from . import options as options_
from .functions import VARIANTS_MAX, Callee, frozen
from .generators import several

T = TypeVar("T")

Parameters = tuple[tuple[str, int, bool], ...]


class ToldMethod(NamedTuple):
    """What a handle takes along of a method. Hashable."""

    name: str
    #: name, kind, whether it has a default; None: not known
    parameters: Parameters | None
    num_returns: int
    max_task_retries: int
    retry_exceptions: options_.RetryExceptions
    #: for people; "": that of class and method
    title: str
    limits: Limits | None = None
    #: see messages.Options
    stream_buffer_max: int = 0


class ToldClass(NamedTuple):
    """What a handle takes along of its class. Hashable."""

    name: str
    max_pending_calls: int
    methods: tuple[ToldMethod, ...]
    #: public names that are no methods, and what they are
    others: tuple[tuple[str, str], ...]


class Method(Callee):
    """A method as it is called from afar."""

    __slots__ = ("told",)

    def __init__(self, class_name: str, told: ToldMethod) -> None:
        super().__init__(MethodCall(told.name), f"{class_name}.{told.name}")
        self.told = told

    def signature(self) -> inspect.Signature | None:
        """Return what arguments fit, without `self`."""
        if self.told.parameters is None:
            return None
        empty = inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(
                    name, inspect._ParameterKind(kind), default=None if has_default else empty
                )
                for name, kind, has_default in self.told.parameters
            ]
        )


class Class:
    """A class as handles know it."""

    __slots__ = ("__weakref__", "methods", "others", "plain", "told")

    def __init__(self, told: ToldClass) -> None:
        self.told = told
        #: the same as plain tuples, which are quickly pickled and found again
        self.plain = (*told[:2], tuple([tuple(method) for method in told.methods]), told.others)
        self.methods = {method.name: Method(told.name, method) for method in told.methods}
        self.others = dict(told.others)


class Actor:
    """What all handles of one actor share in this process."""

    __slots__ = ("__weakref__", "_lock", "_pending", "class_", "id", "kinds")

    def __init__(self, id_: ObjectId, class_: Class) -> None:
        self.id = id_
        self.class_ = class_
        #: of each method with its options
        self.kinds: dict[Any, Kind] = {}
        #: calls of this process without a result, where that has a bound
        self._pending = 0
        # A finalizer may call an actor while the lock is held.
        self._lock = threading.RLock()

    def kind(self, key: Any, method: Method, changed: Mapping[str, Any]) -> Kind:
        """Return a method with its options as a session submits it."""
        told = method.told
        retry_exceptions = changed.get("retry_exceptions", told.retry_exceptions)
        options = Options(
            num_cpus=0.0,
            num_returns=changed.get("num_returns", told.num_returns),
            max_retries=changed.get("max_task_retries", told.max_task_retries),
            retry_exceptions=bool(retry_exceptions),
            actor=self.id,
            limits=limits.changed(told.limits, changed),
            stream_buffer_max=changed.get("stream_buffer_max", told.stream_buffer_max),
        )
        name = changed.get("name", told.title) or method.name
        while True:
            kind = Kind(method.definition(retry_exceptions), options, name)
            if len(self.kinds) >= VARIANTS_MAX:
                self.kinds.clear()
            self.kinds[key] = kind
            modules.packed(self)
            if method.code_version == modules.code_version():
                return kind

    def outdated(self) -> None:
        """Have the calls packed anew: more modules have to come along."""
        self.kinds.clear()

    def submit(self, session: Session, kind: Kind, packed: Any) -> list[ObjectId]:
        """Submit a call, one of not more than there may be."""
        most = self.class_.told.max_pending_calls
        if most == ANY_NUMBER or not kind.options.num_returns:
            return session.submit(kind, packed)  # without a value, it is for the scheduler to count
        with self._lock:
            pending = self._pending
            if pending >= most:
                raise PendingCallsLimitExceeded(
                    f"{kind.name}: calls of this process without a result: {pending}, and actor "
                    f"{show(self.id)} takes no more (max_pending_calls={most}); wait for some",
                    name=kind.name,
                    actor=show(self.id),
                )
            self._pending += 1
        try:
            ids = session.submit(kind, packed)
        except BaseException:
            self._ended()
            raise
        session.when_ready(ids[-1], self._ended)
        return ids

    def _ended(self, _: ValueRow | None = None) -> None:
        with self._lock:
            self._pending -= 1


#: the classes and actors that handles in this process know
_classes: Final[WeakValueDictionary[ToldClass, Class]] = WeakValueDictionary()
_actors: Final[WeakValueDictionary[ObjectId, Actor]] = WeakValueDictionary()
_lock: Final = threading.RLock()


def class_told(told: ToldClass) -> Class:
    """Return what this process knows of a class that handles tell of."""
    with _lock:
        found = _classes.get(told)
        if found is None:
            found = _classes[told] = Class(told)
        return found


def actor_of(id_: ObjectId, class_: Class) -> Actor:
    """Return what this process knows of an actor, the same for all its handles."""
    with _lock:
        found = _actors.get(id_)
        if found is None:
            found = _actors[id_] = Actor(id_, class_)
        return found


# ------------------------------------------------------------------------------------- the handles


@final
class ActorMethod(Generic[T]):
    """A method of an actor: `actor.method.remote(...)` returns an ObjectRef at once."""

    __slots__ = ("_changed", "_handle", "_key", "_method")

    def __init__(
        self, handle: "ActorHandle[Any]", method: Method, changed: Mapping[str, Any] | None = None
    ) -> None:
        self._handle = handle
        self._method = method
        #: options, checked
        self._changed = changed or {}
        self._key: Any = method.told.name
        if changed:
            self._key = (self._key, frozen(changed))

    def remote(self, /, *args: Any, **kwargs: Any) -> ObjectRef[T]:
        """Call the method where the actor lives; returns at once.

        The calls of one process run in the order in which it made them.

        Returns:
            A reference to the value; with num_returns=n a list of n references, with 0 None, and
            with "streaming" an ObjectRefGenerator.

        Raises:
            TypeError: the arguments do not fit the method's signature.
            NotPicklable: an argument cannot be sent; says which part of it.
            PendingCallsLimitExceeded: the actor takes no more calls before some have ended.
        """
        handle, method = self._handle, self._method
        session = handle._session()
        if kwargs or not method.fewest <= len(args) <= method.most:
            method.check(args, kwargs)
        packed = pack_call(args, kwargs, session.keeper)
        actor = handle._actor
        kind = actor.kinds.get(self._key)
        if kind is None or (kind.session is not session and kind.session is not None):
            kind = actor.kind(self._key, method, self._changed)
        if kind.options.stream_buffer_max:
            return several(session, kind, packed, is_call=True)  # type: ignore[return-value]  # see above
        ids = actor.submit(session, kind, packed)
        refs: list[ObjectRef[T]] = [ObjectRef(id_, session) for id_ in ids]
        for ref in refs:
            ref._is_call = True
        if kind.options.num_returns == 1:
            return refs[0]
        return refs or None  # type: ignore[return-value]  # by num_returns, see above

    def options(self, **given: Any) -> "ActorMethod[T]":
        """Return the same method with other options; those not named stay as they are.

        Raises:
            TypeError: an unknown option (the message names the options there are).
            ValueError: a value out of bounds.
        """
        changed = {**self._changed, **options_.check_method(given)}
        return ActorMethod(self._handle, self._method, changed)

    def __call__(self, /, *_: Any, **__: Any) -> NoReturn:
        """Refuse to be called: the instance is elsewhere."""
        called = self._method.told.name
        raise TypeError(
            f"{self._method.name} is a method of an actor, which lives elsewhere: "
            f"call {called}.remote(...)"
        )

    def _is_no_function(self) -> str:
        called = self._method.told.name
        return (
            f"{self._method.name} is a method of an actor, which runs where the actor lives and "
            f"not in a worker of its own: call it as actor.{called}.remote(...), for a "
            f"concurrent.futures.Future as actor.{called}.remote(...).future(), and for many "
            "arguments over several actors use drumbeat.ActorPool"
        )

    def __repr__(self) -> str:
        return f"<method {self._method.name} of {self._handle!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled_method, (self._handle, self._method.told.name, dict(self._changed)))


@final
class ActorHandle(Generic[T]):
    """An actor, wherever it lives: its public methods are attributes, each with `.remote(...)`.

    It can be passed to tasks and other actors, and lie inside values. The actor ends when nobody
    holds a handle any more and all its calls have ended. Handles of one actor are equal.
    """

    __slots__ = ("__weakref__", "_actor", "_ref")

    def __init__(self, ref: ObjectRef[None], actor: Actor) -> None:
        self._ref = ref
        self._actor = actor

    def __getattr__(self, name: str) -> ActorMethod[Any]:
        if name.startswith("__") or name in ActorHandle.__slots__:
            raise AttributeError(f"an actor's handle has no attribute {name!r}", name=name)
        method = self._actor.class_.methods.get(name)
        if method is None:
            raise AttributeError(_no_method(self._actor.class_, name), name=name, obj=self)
        return ActorMethod(self, method)

    def _is_no_function(self) -> str:
        return f"{self!r} is an actor, no function: call its methods, actor.method.remote(...)"

    def __dir__(self) -> list[str]:
        return sorted(self._actor.class_.methods)

    def _session(self) -> Session:
        """Return the session that it belongs to.

        Raises:
            NotInitialized: that was shut down, and the actor with it; or this process was forked.
        """
        session = self._ref._session
        if not session.alive and not orphaned():
            raise gone(
                repr(self), "the handle leads to nothing; make the actor, or get_actor() it,"
            )
        return self._ref.session

    def __eq__(self, other: object) -> bool:
        return type(other) is ActorHandle and self._ref.id == other._ref.id

    def __hash__(self) -> int:
        return hash(self._ref.id)

    def __repr__(self) -> str:
        return f"ActorHandle({self._actor.class_.told.name}, {show(self._ref.id)})"

    def __copy__(self) -> "ActorHandle[T]":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ActorHandle[T]":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return (_unpickled, (self._ref, self._actor.class_.plain))


def class_of_plain(plain: tuple[Any, ...]) -> Class:
    """Return what this process knows of a class that was told of as plain tuples."""
    class_: Class | None = _classes.get(plain)  # type: ignore[call-overload]  # equal to what it is made of
    if class_ is None:
        name, pending, methods, others = plain
        told = tuple([ToldMethod(*method) for method in methods])
        class_ = class_told(ToldClass(name, pending, told, others))
    return class_


def _unpickled(ref: ObjectRef[None], plain: tuple[Any, ...]) -> ActorHandle[Any]:
    return ActorHandle(ref, actor_of(ref.id, class_of_plain(plain)))


def _unpickled_method(
    handle: ActorHandle[Any], name: str, changed: dict[str, Any]
) -> ActorMethod[Any]:
    return ActorMethod(handle, handle._actor.class_.methods[name], changed)


def _no_method(class_: Class, name: str) -> str:
    who = f"{name!r} of an actor of class {class_.told.name}"
    if name.startswith("_"):
        return f"{who} is private: only public methods can be called from elsewhere"
    other = class_.others.get(name)
    if other is not None:
        return f"{who} is {other}, which cannot be read from elsewhere: write a method for it"
    import difflib  # for those who err

    near = difflib.get_close_matches(name, class_.methods)
    there = f"did you mean {' or '.join(near)}?" if near else _there_are(class_)
    return f"{class_.told.name} has no public method {name!r}; {there}"


def _there_are(class_: Class) -> str:
    if not class_.methods:
        return "it has none at all"
    return f"there are {', '.join(sorted(class_.methods))}"


def kill(actor: ActorHandle[Any], no_restart: bool = True) -> None:
    """Kill an actor's process at once; returns without waiting for that.

    Calls that it had raise ActorCallLost, those that wait and all later ones ActorDied. Nothing
    happens to one that has ended.

    Args:
        actor: its handle.
        no_restart: False: as if the process had died, so that the actor is restarted if its
            max_restarts allows that; calls that have not started wait for it.
    """
    if type(actor) is not ActorHandle:
        raise TypeError(
            f"kill takes the handle of an actor, not {actor!r:.80}; for a task, use cancel"
        )
    actor._session().kill(actor._ref.id, restart=not no_restart)


def no_refs(function: str, thing: Any) -> TypeError:
    """Return the error for what is no reference, but was given to a function that takes those."""
    if type(thing) is ActorHandle:
        instead = "to end it, use drumbeat.kill(actor)"
        if function != "cancel":
            instead = f"{function} takes what its methods return: {function}(actor.method.remote())"
        return TypeError(f"{thing!r} is an actor and has no value itself; {instead}")
    return TypeError(f"{function} takes ObjectRefs, not {type(thing).__name__} ({thing!r:.80})")
