"""Where results hang, and the threads and callbacks that wait for them.

Never runs a callback itself: it hands out those that are due. Written to by whoever turns the loop;
read by any thread without a lock (a dict is read and written atomically).
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

from ..protocol.ids import ObjectId
from ..protocol.messages import Failure, Outcome, ValueRow

Results = dict[ObjectId, ValueRow]
Callback = Callable[[ValueRow], Any]


class Waiter:
    """One waiting thread: it sleeps on one lock, however many objects it waits for."""

    __slots__ = ("_lock", "done")

    def __init__(self) -> None:
        self.done = False
        #: held while the thread sleeps; most never do, since they turn the loop themselves
        self._lock: threading.Lock | None = None

    def wake(self) -> None:
        """Let the thread go on."""
        self.done = True
        lock = self._lock
        if lock is not None:
            with suppress(RuntimeError):  # woken already
                lock.release()

    def sleep(self, timeout_s: float | None) -> bool:
        """Sleep until woken; False when the time was over first."""
        if self._lock is None:
            lock = threading.Lock()
            lock.acquire()
            self._lock = lock
        if self.done:
            # whoever woke it may have looked for the lock before it was there
            return True
        return self._lock.acquire(timeout=-1 if timeout_s is None else max(0.0, timeout_s))

    def notice(self, results: Results, rows: list[ValueRow], failed: list[ValueRow]) -> None:
        """New rows hang on the board; `failed` are those of them that are no VALUE."""


class AllWaiter(Waiter):
    """Waits for all of some objects, or for the first failure among them."""

    __slots__ = ("_ids", "_known", "_left", "failure")

    def __init__(self, ids: Sequence[ObjectId]) -> None:
        super().__init__()
        self._ids = ids
        self._left = len(ids) - 1
        self._known: frozenset[ObjectId] | None = None
        self.failure: ValueRow | None = None

    def notice(
        self,
        results: Results,
        rows: list[ValueRow],  # noqa: ARG002
        failed: list[ValueRow],
    ) -> None:
        """See `Waiter`. Looks only at the last object that is missing: results come in order."""
        if failed:
            if self._known is None:
                self._known = frozenset(self._ids)
            for row in failed:
                if row.id in self._known:
                    self.failure = row
                    self.wake()
                    return
        self._look_back(results)

    def look(self, results: Results) -> None:
        """Wake if one has failed or nothing is missing; once, after registering."""
        for id_ in self._ids:
            row = results.get(id_)
            if row is not None and row.outcome:
                self.failure = row
                self.wake()
                return
        self._look_back(results)

    def _look_back(self, results: Results) -> None:
        left, ids = self._left, self._ids
        while left >= 0 and ids[left] in results:
            left -= 1
        self._left = left
        if left < 0:
            self.wake()


class SomeWaiter(Waiter):
    """Waits until `count` of some objects are there, failed or not."""

    __slots__ = ("_missing_max", "missing")

    def __init__(self, ids: Sequence[ObjectId], count: int) -> None:
        super().__init__()
        #: not seen yet; what was seen may have been freed since
        self.missing = dict.fromkeys(ids)
        self._missing_max = len(self.missing) - count

    def notice(
        self,
        results: Results,  # noqa: ARG002
        rows: list[ValueRow],
        failed: list[ValueRow],  # noqa: ARG002
    ) -> None:
        """See `Waiter`."""
        missing = self.missing
        for row in rows:
            missing.pop(ObjectId(row.id), None)
        if len(missing) <= self._missing_max:
            self.wake()

    def look(self, results: Results) -> None:
        """Wake if enough are there."""
        missing = self.missing
        for id_ in list(missing):
            if id_ in results:
                missing.pop(id_, None)
        if len(missing) <= self._missing_max:
            self.wake()


class ConditionWaiter(Waiter):
    """Waits until something holds; looked at after every turn of the loop."""

    __slots__ = ("holds",)

    def __init__(self, holds: Callable[[], bool]) -> None:
        super().__init__()
        self.holds = holds


class ReplyWaiter(Waiter):
    """Waits for the answer to a request."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        super().__init__()
        self.data: Any = None


class Board:
    """See the module."""

    def __init__(self) -> None:
        self.results: Results = {}
        #: threads that wait for results
        self.waiters: dict[Waiter, None] = {}
        #: threads that wait for anything else
        self.conditions: dict[ConditionWaiter, None] = {}
        self.requests: dict[int, ReplyWaiter] = {}
        self._callbacks: dict[ObjectId, list[Callback]] = {}
        self._lock = threading.RLock()

    def renew_lock(self) -> None:
        """In a forked child: the lock may be held by a thread that does not exist here."""
        self._lock = threading.RLock()

    def when_ready(self, id_: ObjectId, callback: Callback) -> ValueRow | None:
        """Register a callback, unless the row is here: then return it instead."""
        with self._lock:
            # Registered first: `resolve` hangs up its rows before it looks for callbacks.
            self._callbacks.setdefault(id_, []).append(callback)
            row = self.results.get(id_)
            if row is None:
                return None
            some = self._callbacks.get(id_)
            if some is None or callback not in some:
                return None  # a loop turned within this very call has taken it
            some.remove(callback)
            if not some:
                del self._callbacks[id_]
        return row

    def resolve(self, rows: list[ValueRow]) -> list[tuple[Callback, ValueRow]]:
        """Hang up rows, wake who waited; return the callbacks that are due."""
        results = self.results
        failed: list[ValueRow] = []
        for row in rows:
            results[row.id] = row  # type: ignore[index]  # an object's row, at this place
            if row.outcome:
                failed.append(row)
        due: list[tuple[Callback, ValueRow]] = []
        if self._callbacks:
            with self._lock:
                for row in rows:
                    callbacks = self._callbacks.pop(ObjectId(row.id), None)
                    if callbacks is not None:
                        due += [(callback, row) for callback in callbacks]
        for waiter in list(self.waiters):
            if not waiter.done:
                waiter.notice(results, rows, failed)
        return due

    def free(self, ids: Iterable[ObjectId]) -> None:
        """Take down rows that nobody holds."""
        take = self.results.pop
        for id_ in ids:
            take(id_, None)

    def reply(self, request: int, data: Any) -> None:
        """Give the answer to whoever asked, if it still waits."""
        waiter = self.requests.pop(request, None)
        if waiter is not None:
            waiter.data = data
            waiter.wake()

    def look_at_conditions(self) -> None:
        """Wake those whose condition holds."""
        for waiter in list(self.conditions):
            if not waiter.done and waiter.holds():
                waiter.wake()

    def somebody_waits(self) -> bool:
        """Say whether a thread sleeps here or a callback is to be called."""
        if self._callbacks:
            return True
        if self.waiters:
            for waiter in list(self.waiters):
                if not waiter.done:
                    return True
        if self.conditions or self.requests:
            others = [*self.conditions, *self.requests.values()]
            return not all(waiter.done for waiter in others)
        return False

    def close(self, why: Failure) -> list[tuple[Callback, ValueRow]]:
        """Wake everybody for good; return all callbacks with the rows that they get."""
        with self._lock:
            left, self._callbacks = self._callbacks, {}
        for waiter in [*self.waiters, *self.conditions, *self.requests.values()]:
            waiter.wake()
        rows = {id_: ValueRow(id_, Outcome.FAILURE, failure=why) for id_ in left}
        return [(callback, rows[id_]) for id_, some in left.items() for callback in some]
