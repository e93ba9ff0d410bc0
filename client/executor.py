"""drumbeat.Executor: the cluster as a concurrent.futures.Executor.

Never has a user's callback run in the thread that moves messages, and never waits there: futures
are finished in the thread for callbacks (protocol.futures), which also submits what comes next.
"""

import contextlib
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from concurrent.futures import Executor as BaseExecutor
from functools import partial
from itertools import chain, islice
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakSet

from ..protocol.errors import Backpressure, Interrupted, NotInitialized
from ..protocol.futures import RowFuture, deliver, lends_here, start_delivery
from ..protocol.lines import say
from ..protocol.messages import ValueRow
from ..protocol.outcomes import ERROR, VALUE, error_of
from ..protocol.payload import pack_call
from ..protocol.references import ObjectRef, check_timeout
from ..protocol.session import Packed, Session
from .functions import RemoteFunction, as_call, refuse_no_function, session_or_start
from .initializers import Initialized, InitializerFailed

P = ParamSpec("P")
T = TypeVar("T")

#: so many functions are remembered an executor
FUNCTIONS_MAX: Final = 256
#: what has come gives its place to the next within about this time
LANDING_S: Final = 0.0005
#: what ends the program, or the task that the executor is used in: nobody waits for results then
_STOPS: Final = (KeyboardInterrupt, Interrupted)

_executors: "WeakSet[Executor]" = WeakSet()


def wait_for_all() -> None:
    """Wait until all executors of this process have done what was submitted to them.

    That is at the end of the program: if Ctrl-C has ended it, or comes now, nobody waits any more.
    """
    executors = list(_executors)
    try:
        if not _ends_by_interrupt():
            for executor in executors:
                executor.shutdown(wait=True)
            return
    except KeyboardInterrupt:
        say("drumbeat: interrupted while executors had calls; these are cancelled")
    for executor in executors:
        executor._give_up()


def _ends_by_interrupt() -> bool:
    """Return whether a Ctrl-C that nobody caught is what ends this program."""
    at_a_prompt = hasattr(sys, "ps1")  # there such a Ctrl-C ends a line, not the program
    return not at_a_prompt and isinstance(getattr(sys, "last_value", None), KeyboardInterrupt)


class _Future(RowFuture[T]):
    """A future of an executor: cancelling it cancels the task, if that has not started.

    One that says `running()` cannot be cancelled. With max_workers a call is running once it has
    taken one of those places, as in ProcessPoolExecutor; without, the cluster alone knows whether
    it has started, so it is pending to its end, and cancelling asks.
    """

    def __init__(
        self,
        executor: "Executor",
        session: Session,
        call: RemoteFunction[..., Any],
        packed: Packed,
    ) -> None:
        super().__init__()
        self._executor: Executor | None = executor
        #: of the cluster that it was submitted to; it never runs in another
        self._session: Session | None = session
        self._call: RemoteFunction[..., Any] | None = call
        self._packed: Packed | None = packed
        self._ref: ObjectRef[T] | None = None
        #: cancelled, or being so; guarded by the executor's lock
        self._marked = False

    def cancel(self) -> bool:
        """Return True if the task has not started and now never will."""
        executor = self._executor
        if executor is not None and not self.running() and executor._cancel([self]):
            return True
        return self.cancelled()

    def _lend(self, timeout: float | None) -> float | None:
        executor, session = self._executor, self._session
        if executor is None or session is None or not lends_here(session):
            return timeout
        return executor._lend_for(self, session, timeout)

    def _finish(self) -> None:
        """Let go of everything that the result does not need."""
        self._executor = self._session = self._call = self._packed = self._ref = None


class Executor(BaseExecutor):
    """Runs calls in the cluster; a drop-in for concurrent.futures.ProcessPoolExecutor.

    Args:
        max_workers: at most so many calls at once, each `running()` from when it is sent, and not
            to be cancelled from then on; None: as many as the cluster can run, pending to their
            end, and cancelled if they have not started there.
        initializer: called once in each worker, before its first call.
        initargs: its arguments.
        max_tasks_per_child: calls after which a worker is replaced by a fresh one.
        options: options of the tasks, as for `drumbeat.remote`.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        **options: Any,
    ) -> None:
        _check_count("max_workers", max_workers)
        _check_count("max_tasks_per_child", max_tasks_per_child)
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be a callable, not {initializer!r:.80}")
        if not isinstance(initargs, tuple):
            raise TypeError(f"initargs must be a tuple of arguments, not {initargs!r:.80}")
        if max_tasks_per_child is not None:
            options["max_calls"] = max_tasks_per_child
        if options.get("num_returns", 1) != 1:
            raise ValueError("an executor's calls have one result each: num_returns must be 1")
        RemoteFunction(_nothing, options)  # refuses what is no option
        self._options = options
        self._max_workers = max_workers
        self._initializer = initializer
        self._initargs = initargs
        self._pool = uuid.uuid4().hex if initializer is not None else ""
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[_Future[Any]] = deque()
        self._flying: dict[_Future[Any], None] = {}
        self._functions: dict[int, tuple[Any, RemoteFunction[..., Any]]] = {}
        self._shut_down = False
        #: what is being sent is to be cancelled
        self._has_given_up = False
        self._broken = ""
        _executors.add(self)

    # ------------------------------------------------------------------------------------ submit

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function in the cluster and return a future of its result.

        What cannot be pickled fails its own future only.

        Raises:
            RuntimeError: after shutdown.
            TypeError: it is a method of an actor, or an actor's class.
            BrokenExecutor: the initializer has failed.
        """
        refuse_no_function(fn)
        with self._lock:
            self._refuse_if_over()
        session = session_or_start()
        start_delivery()
        call: RemoteFunction[..., Any] = _NO_CALL
        packed, failed = _NO_PACKED, None
        try:
            call = self._remote(fn)
            packed = pack_call(args, kwargs, session.keeper)
        except Backpressure:
            raise  # as for arguments that are small, which are told so as they are submitted
        except Exception as error:  # noqa: BLE001  # the call's own outcome, as in the stdlib
            failed = error
        future: _Future[T] = _Future(self, session, call, packed)
        if failed is not None:
            future._finish()
            future.set_exception(failed)
            return future
        with self._lock:
            self._refuse_if_over()
            if self._max_workers is not None and len(self._flying) >= self._max_workers:
                self._waiting.append(future)
                return future
            self._flying[future] = None
        try:
            self._start(future)
        except BaseException:
            self._land(future)
            raise
        return future

    def _refuse_if_over(self) -> None:
        if self._broken:
            raise BrokenExecutor(self._broken)
        if self._shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _remote(self, function: Any) -> RemoteFunction[..., Any]:
        known = self._functions.get(id(function))
        if known is not None:
            return known[1]
        plain = function.function if isinstance(function, RemoteFunction) else function
        if not callable(plain):
            raise TypeError(f"{function!r} is not callable")
        made: RemoteFunction[..., Any] = RemoteFunction(plain, self._options, pool=self._pool)
        if self._initializer is not None:
            initializer, initargs, pool = self._initializer, self._initargs, self._pool
            made = made.around(lambda call: Initialized(call, initializer, initargs, pool))
        made.kind()  # pickles it
        if len(self._functions) >= FUNCTIONS_MAX:
            self._functions.clear()
        # The function itself is kept, so that its id stays its own.
        self._functions[id(function)] = (function, made)
        return made

    def _start(self, future: _Future[Any]) -> None:
        session, call, packed = future._session, future._call, future._packed
        if session is None or call is None or packed is None:
            return  # cancelled meanwhile
        if not session.alive:
            raise NotInitialized(
                "shutdown() was called before this call, which waited for its turn "
                "(max_workers), was sent"
            )
        if self._max_workers is not None:
            future.set_running_or_notify_cancel()
        (id_,) = call.submit(session, packed)
        with self._lock:
            future._ref = ObjectRef(id_, session)
            is_late = self._has_given_up
        if is_late:  # it was on its way when all that flew was cancelled
            session.cancel([id_], False, True)
        session.when_ready(id_, partial(deliver, self._arrived, future))

    def _lend_for(
        self, future: _Future[Any], session: Session, timeout: float | None
    ) -> float | None:
        """Wait for a future, in a task's main thread, where the task's CPUs are lent meanwhile."""
        end_s = None if timeout is None else monotonic() + timeout
        while not future.done():
            own = future._ref
            refs = [own]
            if own is None:  # it waits for its turn, and so do we, for those before it
                with self._lock:
                    refs = [other._ref for other in self._flying]
            ids = [ref.id for ref in refs if ref is not None]
            left_s = None if end_s is None else max(0.0, end_s - monotonic())
            if left_s == 0.0 or (ids and not session.wait(ids, 1, left_s)):
                return 0.0
            if own is not None:
                break
            sleep(LANDING_S)
        return None  # its result is on the way through the thread for callbacks

    # ----------------------------------------------------------------- in the thread for callbacks

    def _arrived(self, future: _Future[Any], row: ValueRow) -> None:
        if row.outcome == ERROR and self._initializer is not None:
            self._break_if_initializer_failed(row)
        with self._lock:
            flying = future in self._flying
        if flying:
            ref = future._ref
            future._finish()
            cancelled = row.failure is not None and row.failure.error == "TaskCancelled"
            if cancelled and not future.running():
                self._mark_cancelled(future)
            elif self._broken and row.outcome != VALUE:
                future.set_exception(BrokenExecutor(self._broken))
            else:
                future._awaited = ref  # the row may name other objects, which live by this one
                # It may have been cancelled at the last moment, with the value on its way.
                with contextlib.suppress(InvalidStateError):
                    future.set_row(row)
            self._land(future)
        self._start_waiting()

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or len(self._flying) >= (self._max_workers or 1):
                    return
                future = self._waiting.popleft()
                self._flying[future] = None
            try:
                self._start(future)
            except Exception as error:  # noqa: BLE001  # only the future is here to hear it
                future._finish()
                future.set_exception(error)
                self._land(future)

    def _land(self, future: _Future[Any]) -> None:
        with self._lock:
            self._flying.pop(future, None)
            if not self._flying and not self._waiting:
                self._idle.notify_all()

    def _break_if_initializer_failed(self, row: ValueRow) -> None:
        error = error_of(row)
        if not isinstance(error, InitializerFailed):
            return
        with self._lock:
            self._broken = self._broken or str(getattr(error, "cause", error))
            waiting = list(self._waiting)
            self._waiting.clear()
        for future in waiting:
            future._finish()
            future.set_exception(BrokenExecutor(self._broken))

    # ------------------------------------------------------------------------ cancel, map, shutdown

    def _cancel(self, futures: list[_Future[Any]]) -> list[_Future[Any]]:
        """Cancel those that have not started, and return them."""
        asked: list[tuple[_Future[Any], ObjectRef[Any]]] = []
        dropped: list[_Future[Any]] = []
        with self._lock:
            waiting = dict.fromkeys(self._waiting)
            for future in futures:
                ref = None if future.running() else future._ref
                if future in waiting:
                    del waiting[future]
                    dropped.append(future)
                elif ref is not None:
                    asked.append((future, ref))
            if dropped:
                self._waiting = deque(waiting)
        if asked and asked[0][1]._session.alive:
            session = asked[0][1].session
            answers = session.cancel_queued([ref.id for _, ref in asked])
            dropped += [future for (future, _), yes in zip(asked, answers, strict=True) if yes]
        for future in dropped:
            self._mark_cancelled(future)
            future._finish()
            self._land(future)
        if asked and self._waiting:
            deliver(self._start_waiting)
        return dropped

    def _mark_cancelled(self, future: _Future[Any]) -> None:
        """Give a future its cancelled state, once, and tell those who wait for it."""
        with self._lock:
            if future._marked:
                return
            future._marked = True
        if Future.cancel(future):  # the base class's, which only knows the future's state
            future.set_running_or_notify_cancel()

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """Return an iterator of the results of `fn(*items)`, in order; submits all at once.

        Args:
            fn: the function.
            iterables: its arguments, as with the builtin map.
            timeout: seconds until all results must be there, from this call on.
            chunksize: calls put together in one task.

        Raises:
            TimeoutError: from the iterator, when a result is not there in time.
        """
        refuse_no_function(fn)
        check_timeout(timeout)
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        end_s = None if timeout is None else monotonic() + timeout
        items = zip(*iterables)  # noqa: B905  # ends with the shortest, as map does
        if chunksize == 1:
            return self._results([self.submit(fn, *item) for item in items], end_s)
        run: Callable[..., list[T]] = partial(_run_chunk, as_call(fn), len(iterables))
        parts = iter(lambda: list(islice(items, chunksize)), [])
        futures = [self.submit(run, *chain.from_iterable(part)) for part in parts]
        chunks = self._results(futures, end_s)
        return _flattened(chunks)

    def _results(self, futures: list[Future[T]], end_s: float | None) -> Generator[T, None, None]:
        futures.reverse()
        try:
            while futures:
                # Popped first: a result that was handed out is not kept.
                yield _result_of(futures.pop(), end_s)
        finally:
            self._cancel([future for future in futures if isinstance(future, _Future)])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept nothing more; free what is held once all is done.

        Args:
            wait: return only when all futures are done.
            cancel_futures: cancel what has not started.
        """
        with self._lock:
            self._shut_down = True
            futures = [*self._waiting, *self._flying] if cancel_futures else []
        try:
            if futures:
                self._cancel(futures)
            if wait:
                self._wait_until_idle()
        except _STOPS:
            self._give_up()
            raise

    def _wait_until_idle(self) -> None:
        with self._lock:
            futures = [*self._flying, *self._waiting]
        for future in futures:
            future._lend(None)
        with self._lock:
            while self._flying or self._waiting:
                self._idle.wait()
        _executors.discard(self)

    def __exit__(
        self,
        type_: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all is done; where Ctrl-C, or the end of the task, leads out: cancel all."""
        if type_ is not None and issubclass(type_, _STOPS):
            self._give_up()
        else:
            self.shutdown(wait=True)

    def _give_up(self) -> None:
        """Accept nothing more and cancel everything, also what runs; nobody waits for that."""
        with self._lock:
            self._shut_down = self._has_given_up = True
            waiting, running = list(self._waiting), list(self._flying)
            self._waiting.clear()
        _executors.discard(self)
        for future in waiting:
            self._mark_cancelled(future)
            future._finish()
        refs = [ref for future in running if (ref := future._ref) is not None]
        if refs and refs[0]._session.alive:
            refs[0].session.cancel([ref.id for ref in refs], False, True)


def _check_count(name: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number from 1 up, or None, not {value!r:.80}")
    if value <= 0:
        raise ValueError(f"{name} must be greater than 0, or None for no limit, not {value}")


def _result_of(future: Future[T], end_s: float | None) -> T:
    try:
        return future.result(None if end_s is None else end_s - monotonic())
    finally:
        future.cancel()  # does nothing to one that is done
        del future


def _run_chunk(function: Callable[..., T], width: int, *flat: Any) -> list[T]:
    """Call a function for each `width` arguments; flat, so that references become values."""
    return [function(*flat[index : index + width]) for index in range(0, len(flat), width)]


def _flattened(chunks: Iterator[list[T]]) -> Generator[T, None, None]:
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()


def _nothing() -> None:
    """Stand in for a function while there is none."""


_NO_CALL: Final = RemoteFunction(_nothing)
_NO_PACKED: Final = Packed(None)
