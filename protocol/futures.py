"""Standard futures whose result is a row of ours, opened by whoever asks for it.

Never opens a value, and never runs a user's callback, in the thread that moves a session's
messages: a callback that waits would stop the very thread that it waits for.
"""

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from time import monotonic
from typing import Any, TypeVar
from weakref import WeakKeyDictionary
from weakref import ref as weak

from .errors import GetTimeoutError
from .ids import ObjectId
from .messages import ValueRow
from .outcomes import VALUE, error_of, value_of
from .references import ObjectRef, end_of
from .session import Session

T = TypeVar("T")


class _Unopened(Exception):  # noqa: N818  # no error: an error's row
    """A row that is not a value, as the exception of a future."""

    def __init__(self, row: ValueRow) -> None:
        super().__init__(row)
        self.row = row


class RowFuture(Future[T]):
    """A future that is given a ValueRow and opens it once, in the thread that asks."""

    def __init__(self) -> None:
        super().__init__()
        #: (value, error) once opened
        self._opened: tuple[Any, BaseException | None] | None = None
        #: what it waits for; let go when its row has been opened, which may name other objects
        self._awaited: ObjectRef[T] | None = None

    def _lend(self, timeout: float | None) -> float | None:
        """In a task's main thread, wait where its CPUs are lent; return what is left of the time.

        Whatever comes, the future itself is finished by the thread for callbacks.
        """
        ref = self._awaited
        if ref is None or self.done() or not lends_here(ref._session):
            return timeout
        end_s = None if timeout is None else monotonic() + timeout
        if ref.session.wait((ref.id,), 1, timeout):
            return None  # on its way through the thread for callbacks
        return None if end_s is None else max(0.0, end_s - monotonic())

    def set_row(self, row: ValueRow) -> None:
        """Finish the future."""
        if row.outcome == VALUE:
            self.set_result(row)  # type: ignore[arg-type]  # opened by result()
        else:
            self.set_exception(_Unopened(row))

    def result(self, timeout: float | None = None) -> T:
        """Return the value, or raise what the task raised."""
        if self._opened is None:
            until_s = end_of(timeout)
            try:
                found: Any = super().result(self._lend(timeout))
            except _Unopened as unopened:
                found = unopened.row
            if not isinstance(found, ValueRow):
                return found  # type: ignore[no-any-return]  # set without a row
            self._open(found, until_s)
        assert self._opened is not None
        value, error = self._opened
        if error is not None:
            try:
                raise error
            finally:
                del error, self  # no cycle through the traceback
        return value  # type: ignore[no-any-return]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return what the task raised, or None."""
        if self._opened is None:
            until_s = end_of(timeout)
            found: Any = super().exception(self._lend(timeout))
            if found is None:
                found = super().result(0)
            elif isinstance(found, _Unopened):
                found = found.row
            else:
                return found  # type: ignore[no-any-return]  # set without a row
            if not isinstance(found, ValueRow):
                return None
            self._open(found, until_s)
        assert self._opened is not None
        return self._opened[1]

    def _open(self, row: ValueRow, until_s: float | None) -> None:
        error = error_of(row)
        value = None
        if error is None:
            try:
                value = value_of(row, until_s)
            except Exception as failed:  # it is the future's outcome now
                if until_s is not None and isinstance(failed, GetTimeoutError):
                    raise  # its bytes may come yet
                error = failed
        self._opened = (value, error)
        self._awaited = None


# ------------------------------------------------------------------------ the thread for callbacks


class _Delivery:
    """One thread a process that finishes futures and so runs their callbacks, in order."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Have the thread, from a thread that may wait for it."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="drumbeat-callbacks", daemon=True
                )
                self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called in the thread; returns at once."""
        self._queue.put((function, args))

    def _run(self) -> None:
        while True:
            function, args = self._queue.get()
            try:
                function(*args)
            except Exception:
                import logging

                logging.getLogger("drumbeat").exception("a callback raised")
            del function, args


_delivery = _Delivery()


def _after_fork() -> None:
    global _delivery  # noqa: PLW0603  # the parent's thread does not exist here
    _delivery = _Delivery()


os.register_at_fork(after_in_child=_after_fork)


def start_delivery() -> None:
    """Make sure that `deliver` has its thread; call it before the first row can come."""
    _delivery.start()


def deliver(function: Callable[..., Any], *args: Any) -> None:
    """Call a function in the thread for callbacks; takes no lock and never waits."""
    _delivery.call(function, *args)


def future_of(ref: ObjectRef[T], session: Session) -> Future[T]:
    """Return a future of a reference, which it holds until its value has been taken out."""
    future: RowFuture[T] = RowFuture()
    future.set_running_or_notify_cancel()
    future._awaited = ref
    row = session.peek(ref.id)
    if row is not None:
        future.set_row(row)
        return future
    start_delivery()
    session.when_ready(ref.id, _Finisher(future))
    return future


def lends_here(session: Session | None) -> bool:
    """Return whether a wait of this thread in the session lends CPUs to other tasks."""
    return (
        session is not None
        and getattr(session, "lends", False)
        and threading.current_thread() is threading.main_thread()
    )


class _Finisher:
    """Finishes a future."""

    __slots__ = ("future",)

    def __init__(self, future: RowFuture[Any]) -> None:
        self.future = future

    def __call__(self, row: ValueRow) -> None:
        deliver(self.future.set_row, row)


# ----------------------------------------------------------------------------------------- asyncio


class _Arrivals:
    """Rows on their way into one event loop: it is woken once a burst, not once a row."""

    __slots__ = ("_loop", "_rows", "_woken", "awaited")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weakly: this lives as long as its loop does, and must not keep it.
        self._loop = weak(loop)
        self._rows: deque[tuple[asyncio.Future[ValueRow], ValueRow]] = deque()
        self._woken = False
        #: how many coroutines of the loop await an object
        self.awaited: dict[ObjectId, int] = {}

    def add(self, future: "asyncio.Future[ValueRow]", row: ValueRow) -> None:
        """Hand over a row, from any thread."""
        self._rows.append((future, row))
        if not self._woken:
            self._woken = True
            loop = self._loop()
            try:
                if loop is not None:
                    loop.call_soon_threadsafe(self._settle)
            except RuntimeError:
                self._rows.clear()  # the loop is closed: nobody waits any more

    def _settle(self) -> None:
        self._woken = False  # first: what comes from now on wakes the loop again
        rows = self._rows
        while rows:
            future, row = rows.popleft()
            if not future.done():
                future.set_result(row)


_arrivals: WeakKeyDictionary[asyncio.AbstractEventLoop, _Arrivals] = WeakKeyDictionary()


def awaited_in(loop: asyncio.AbstractEventLoop) -> ObjectId | None:
    """Return an object that is awaited in a loop, if there is one."""
    arrivals = _arrivals.get(loop)
    return None if arrivals is None else next(iter(arrivals.awaited), None)


async def wait_in_loop(ref: ObjectRef[T], session: Session) -> T:
    """Wait for a reference without blocking the running event loop."""
    value: T = value_of(await row_in_loop(ref.id, session))
    return value


async def row_in_loop(id_: ObjectId, session: Session) -> ValueRow:
    """Wait for the row of an object without blocking the running event loop."""
    row = session.peek(id_)
    if row is None:
        loop = asyncio.get_running_loop()
        arrivals = _arrivals.get(loop)
        if arrivals is None:
            arrivals = _arrivals[loop] = _Arrivals(loop)
        future: asyncio.Future[ValueRow] = loop.create_future()
        session.when_ready(id_, lambda row: arrivals.add(future, row))
        awaited = arrivals.awaited
        awaited[id_] = awaited.get(id_, 0) + 1
        try:
            row = await future
        finally:
            awaited[id_] -= 1
            if not awaited[id_]:
                del awaited[id_]
    return row
