"""A pool of actors: work goes to whichever is idle; results in order, or as they come.

Never makes or ends an actor, and never gives one more than one call at a time: what finds none idle
waits here, in this process. For one thread at a time.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from time import monotonic
from typing import Any, Generic, TypeVar

from ..protocol.errors import GetTimeoutError
from ..protocol.references import ObjectRef
from . import api
from .handles import ActorHandle

A = TypeVar("A", bound=ActorHandle[Any])
V = TypeVar("V")
T = TypeVar("T")


class ActorPool(Generic[A]):
    """Gives work to a fixed set of actors, one call each at a time.

    Args:
        actors: handles, which may be of different classes.

    Raises:
        ValueError: the same actor twice.
    """

    def __init__(self, actors: Iterable[A]) -> None:
        self._idle: deque[A] = deque()
        #: what finds no actor idle: begun in this order, each with its number
        self._waiting: deque[tuple[int, Callable[[A, Any], ObjectRef[Any]], Any]] = deque()
        #: by their numbers: calls that have not been seen to end, and the others not fetched
        self._running: dict[int, tuple[ObjectRef[Any], A]] = {}
        self._ended: dict[int, ObjectRef[Any]] = {}
        #: the numbers of those that ended, as they did; some have been fetched meanwhile
        self._arrived: deque[int] = deque()
        #: numbers of what is submitted next, and of what get_next returns next
        self._next = self._first = 0
        for actor in actors:
            self.push(actor)

    def submit(self, fn: Callable[[A, V], ObjectRef[T]], value: V) -> None:
        """Have `fn(actor, value)` called with an actor that is idle, now or as soon as one is.

        Args:
            fn: calls a method and returns its reference: `lambda actor, v: actor.work.remote(v)`.
            value: passed on.
        """
        number, self._next = self._next, self._next + 1
        if self._idle:
            self._start(number, fn, value)
        else:
            self._waiting.append((number, fn, value))

    def map(self, fn: Callable[[A, V], ObjectRef[T]], values: Iterable[V]) -> Iterator[T]:
        """Call `fn(actor, value)` for each value; iterate over the results in the same order.

        All is submitted at once. Results of earlier submits that nobody has fetched are dropped.
        """
        self._drop_all()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next)

    def map_unordered(self, fn: Callable[[A, V], ObjectRef[T]], values: Iterable[V]) -> Iterator[T]:
        """As `map`, but iterate over the results as they come."""
        self._drop_all()
        for value in values:
            self.submit(fn, value)
        return self._results(self.get_next_unordered)

    def has_next(self) -> bool:
        """Return whether anything was submitted of which the result has not been fetched."""
        return bool(self._running or self._ended or self._waiting)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """Return the result of what was submitted first, of those not fetched.

        Args:
            timeout: wait no longer than so many seconds.
            ignore_if_timedout: give it up then, instead of leaving it for the next call.

        Raises:
            StopIteration: there is nothing to fetch.
            GetTimeoutError: it is not there in time.
            Exception: what the call raised.
        """
        self._must_have_next()
        # What waits was submitted later than all that has begun.
        while self._first not in self._running and self._first not in self._ended:
            self._first += 1
        number = self._first
        end_s = None if timeout is None else monotonic() + timeout
        while number not in self._ended and self._look(end_s):
            pass
        return self._fetch(number, timeout, ignore_if_timedout)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """Return the result of whichever is ready first; else as `get_next`."""
        self._must_have_next()
        end_s = None if timeout is None else monotonic() + timeout
        if not self._ended:
            self._look(end_s)
        while self._arrived and self._arrived[0] not in self._ended:
            self._arrived.popleft()
        number = self._arrived[0] if self._arrived else next(iter(self._running))
        return self._fetch(number, timeout, ignore_if_timedout)

    def has_free(self) -> bool:
        """Return whether an actor is idle, and nothing waits for one.

        That a call has ended is noticed when results are fetched.
        """
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> A | None:
        """Take an idle actor out of the pool and return it; None: there is none."""
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: A) -> None:
        """Put an actor into the pool.

        Raises:
            TypeError: it is no handle of an actor.
            ValueError: it is in the pool.
        """
        if not isinstance(actor, ActorHandle):
            raise TypeError(f"a pool holds handles of actors, and {actor!r} is none")
        if actor in self._idle or any(actor == busy for _, busy in self._running.values()):
            raise ValueError(f"{actor!r} is in this pool")
        self._return(actor)

    # -------------------------------------------------------------------------------------- inside

    def _start(self, number: int, fn: Callable[[A, Any], ObjectRef[Any]], value: Any) -> None:
        actor = self._idle.popleft()
        try:
            ref = fn(actor, value)
            if not isinstance(ref, ObjectRef):
                raise TypeError(
                    f"what is submitted to a pool must return the reference of a call, not {ref!r}"
                )
        except BaseException:
            self._return(actor)
            raise
        self._running[number] = ref, actor

    def _return(self, actor: A) -> None:
        self._idle.append(actor)
        while self._idle and self._waiting:
            self._start(*self._waiting.popleft())

    def _must_have_next(self) -> None:
        if not self.has_next():
            raise StopIteration("nothing was submitted to the pool that has not been fetched")
        if not (self._running or self._ended):
            raise ValueError("the pool has no actors: put some in with push()")

    def _look(self, end_s: float | None) -> bool:
        """Wait until a call has ended, and have its actor do something else; False: in vain."""
        numbers = {ref: number for number, (ref, _) in self._running.items()}
        timeout = None if end_s is None else max(0.0, end_s - monotonic())
        ready, _ = api.wait(list(numbers), timeout=timeout)
        for ref in ready:
            number = numbers[ref]
            _, actor = self._running.pop(number)
            self._ended[number] = ref
            self._arrived.append(number)
            self._return(actor)
        return bool(ready)

    def _fetch(self, number: int, timeout: float | None, drops: bool) -> Any:
        ref = self._ended.pop(number, None)
        if ref is not None:
            return api.get(ref)
        text = f"no result of the pool was there within {timeout} s"
        if not drops:
            raise GetTimeoutError(text)
        ref, actor = self._running.pop(number)
        self._return(actor)
        raise GetTimeoutError(f"{text}; {ref!r} is given up")

    def _drop_all(self) -> None:
        """Forget what nobody has fetched. What runs goes on: its actor does that first."""
        self._waiting.clear()
        self._ended.clear()
        self._arrived.clear()
        for _, actor in self._running.values():
            self._idle.append(actor)
        self._running.clear()

    def _results(self, fetch: Callable[[], T]) -> Iterator[T]:
        while self.has_next():
            yield fetch()
