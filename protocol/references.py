"""ObjectRef: the name of a value that is somewhere, or will be.

Never holds a value and never waits by itself: it asks the session that it belongs to. Holding and
dropping are counted by that session; a reference only tells when it comes and goes.
"""

import os
import threading
import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, final

from .errors import NotInitialized
from .ids import ObjectId, show
from .session import Session, current

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")


class _Found:
    """What a thread that packs something for the cluster finds inside it."""

    __slots__ = ("refs",)

    def __init__(self) -> None:
        #: a list while the thread packs (see payload), otherwise None
        self.refs: list[ObjectId] | None = None


class _Collecting(threading.local):
    def __init__(self) -> None:
        self.found = _Found()


#: one `found` a thread
collecting = _Collecting()

#: rises in every forked child: tells the references of the parent from those made here
_life = 0
#: True in a forked child whose parent had a session, until the child makes its own
_orphaned = False


def _after_fork() -> None:
    global _life, _orphaned  # noqa: PLW0603  # a fork happens to the process as a whole
    _life += 1
    collecting.found.refs = None
    session = current()
    if session is not None:
        _orphaned = True
        try:
            session.alive = False
        except AttributeError:
            return  # it works out by itself that it is no more


os.register_at_fork(after_in_child=_after_fork)


def refuse_fork() -> NotInitialized:
    """Return the error for a process that was forked from one with a session."""
    return NotInitialized(
        "this process was forked from one that uses Drumbeat; a cluster's connection cannot be "
        "shared over fork(). Call drumbeat.init() here, or start the process by "
        "multiprocessing's spawn method"
    )


def gone(what: str, why: str) -> NotInitialized:
    """Return the error for a thing of a cluster that this process has left, or had."""
    return NotInitialized(
        f"{what} belongs to a cluster that was shut down, or that this process has left: {why} "
        "after another drumbeat.init()"
    )


def check_timeout(timeout: Any, name: str = "timeout") -> None:
    """Refuse what is no time to wait.

    Raises:
        TypeError: it is no number.
        ValueError: it is negative, or not a number (NaN).
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not hasattr(timeout, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {timeout!r:.80}")
    if not timeout >= 0:
        raise ValueError(f"{name} must be a number of seconds from 0 up, or None, not {timeout!r}")


def end_of(timeout: float | None) -> float | None:
    """Return when a time that begins now is over, by time.monotonic; None: never."""
    return None if timeout is None else time.monotonic() + timeout


def orphaned() -> bool:
    """Return whether this is a forked child that only inherited its session."""
    if not _orphaned:
        return False
    session = current()
    return session is None or not session.alive


def found_inside(ids: Sequence[ObjectId]) -> None:
    """References lie in bytes that become part of what is being pickled."""
    refs = collecting.found.refs
    if refs is not None:
        refs.extend(ids)
        return
    session = current()
    if session is not None and session.alive:
        for id_ in ids:
            session.pin(id_)


@final
class ObjectRef(Generic[T]):
    """The value of a task or of a put: here already, still being made, or elsewhere.

    As a top-level argument of a task it is passed by value, when that is ready; inside a container
    it stays a reference. It can be pickled, compared, hashed and awaited. The value is freed when
    nobody holds a reference any more.

    Whoever makes one hands over a hold that the session has counted already.
    """

    __slots__ = ("__weakref__", "_is_call", "_life", "_session", "id")
    #: there only in references to calls of actors, in the process that made the call
    _is_call: bool

    def __init__(self, id_: ObjectId, session: Session) -> None:
        self.id = id_
        self._session = session
        self._life = _life

    def __del__(self) -> None:
        try:
            if self._life == _life:
                self._session.drop(self.id)
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            return

    @property
    def session(self) -> Session:
        """The session it belongs to.

        Raises:
            NotInitialized: it was made before this process was forked, or the session was shut
                down.
        """
        if self._life != _life:
            raise refuse_fork()
        if not self._session.alive:
            raise gone(repr(self), "its value is gone; submit the task again")
        return self._session

    def result(self, timeout: float | None = None) -> T:
        """Wait for the value and return it.

        Raises:
            TypeError, ValueError: `timeout` is no number of seconds.
            GetTimeoutError: it was not there in `timeout` seconds.
            TaskError: the task failed; an exception of its code is also of that exception's type.
        """
        from .outcomes import value_of

        check_timeout(timeout)
        until_s = end_of(timeout)
        value: T = value_of(self.session.get((self.id,), timeout)[-1], until_s)
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the task's end and return its error, or None if it has a value."""
        from .outcomes import error_of

        check_timeout(timeout)
        return error_of(self.session.get((self.id,), timeout)[-1])

    def done(self) -> bool:
        """Return whether there is a value or an error."""
        session = self.session
        # In a task, to look at a value is to have it brought from the node, however large it is.
        if not session.lends and session.peek(self.id) is not None:
            return True
        return bool(session.wait((self.id,), 1, 0.0))

    def cancel(self, force: bool = False, recursive: bool = True) -> None:
        """Cancel the task; see `drumbeat.cancel`."""
        if force:
            refuse_force((self,))
        self.session.cancel((self.id,), force, recursive)

    def future(self) -> "Future[T]":
        """Return a `concurrent.futures.Future` of the value.

        Cancelling that future does not cancel the task. Its callbacks run in a thread of
        Drumbeat's.
        """
        from .futures import future_of

        return future_of(self, self.session)

    def __await__(self) -> Generator[Any, None, T]:
        from .futures import wait_in_loop

        return wait_in_loop(self, self.session).__await__()

    def __eq__(self, other: object) -> bool:
        return type(other) is ObjectRef and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"ObjectRef({show(self.id)})"

    def __copy__(self) -> "ObjectRef[T]":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ObjectRef[T]":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        session = self.session  # of a cluster that is gone it would name nothing
        refs = collecting.found.refs
        if refs is not None:
            refs.append(self.id)
        else:
            # Pickled by somebody else, into a file perhaps: it may come back at any time.
            session.pin(self.id)
        return (_unpickled, (self.id,))


def refuse_force(refs: Iterable[Any]) -> None:
    """Refuse to cancel an actor's call by force.

    Raises:
        ValueError: one is such a call.
    """
    for ref in refs:
        if getattr(ref, "_is_call", False):
            raise ValueError(
                f"{ref!r} is a call of an actor, and cancelling never kills one, so force=True "
                "does not go with it; drumbeat.kill(actor) kills the actor with all its calls"
            )


def _unpickled(id_: ObjectId) -> ObjectRef[Any]:
    session = current()
    if session is None or not session.alive:
        raise (
            refuse_fork()
            if orphaned()
            else NotInitialized(
                f"ObjectRef({show(id_)}) was unpickled in a process that has no cluster; "
                "call drumbeat.init() first"
            )
        )
    session.hold(id_)
    return ObjectRef(id_, session)
