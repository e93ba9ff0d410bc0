"""Calls of an actor with `async def` methods: on one event loop, in the main thread.

Never runs a call in another thread. Each call is a task of the loop, also that of a plain method.
It is interrupted by cancelling its task; one that does not come to an `await` is interrupted as a
call of any actor is, by a signal, while it is the one that has the loop.
"""

import asyncio
import inspect
import signal
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import copy_context
from time import perf_counter
from types import FrameType
from typing import Any, Final

from ..protocol.actor_calls import MethodCall
from ..protocol.errors import Interrupted
from ..protocol.ids import show
from .arguments import arguments
from .health import METHOD
from .helper import FLUSH_S
from .insisting import Insister
from .page import INTERRUPT, LOOP, PICKLING, REASON, REASONS, RUNNING, RUNNING_CODE, WAITING
from .several import Call, Several, Tools, frames_text, running

#: a call that has not come to an await for so long is interrupted where it is
_INSIST_AFTER_S: Final = 0.25
#: no oftener: by then its node has done more
_INSIST_TIMES: Final = 100
#: the loop is asked so often whether it comes round, while there are calls
_ASK_S: Final = 0.2
#: so long may calls and tasks of the user's take to end when the actor does
_LEAVE_S: Final = 1.0


def make(
    made_by: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, asyncio.AbstractEventLoop]:
    """Make the actor on the loop on which it will live, so that it can start tasks of its own.

    Raises:
        BaseException: what its constructor raised.
    """

    async def construct() -> tuple[Any, BaseException | None]:
        try:
            return made_by(*args, **kwargs), None
        except BaseException as error:  # noqa: BLE001  # raised below, without the loop's frames
            return None, error

    # One that lends nothing: what the actor takes it keeps, since other calls of it may need that.
    loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    made, error = loop.run_until_complete(construct())
    if error is not None:
        raise error
    return made, loop


class _Ended(BaseException):
    """A call ended without having been a coroutine."""

    def __init__(self, error: BaseException | None, value: Any) -> None:
        self.error = error
        self.value = value


class Steps(Coroutine[Any, Any, None]):
    """The coroutine of one call: says in the pulse page when its code has the loop.

    Args:
        calls: whose it is.
        call: what it is.
    """

    def __init__(self, calls: "LoopCalls", call: Call) -> None:
        self.call = call
        self._calls = calls
        #: the user's own, once it has begun
        self.own: Coroutine[Any, Any, Any] | None = None
        self.__name__ = self.__qualname__ = call.kind.name

    def __await__(self) -> Generator[Any, Any, None]:
        raise RuntimeError("a call is run by its loop alone")

    def send(self, value: Any) -> Any:
        """Go on."""
        own = self.own
        return self._step(self._begin if own is None else own.send, value)

    def throw(self, error: Any, *_: Any) -> Any:
        """Go on with an exception: the task is cancelled."""
        own = self.own
        return self._step(_raise if own is None else own.throw, error)

    def close(self) -> None:
        """End where it stands."""
        if self.own is not None:
            self.own.close()

    def _begin(self, _: None) -> Any:
        calls, row, kind = self._calls, self.call.row, self.call.kind
        try:
            function = kind.function or calls.tools.load(kind)
            begin = getattr(function, "begin", function)
            args, kwargs = ((), {}) if row.args is None else arguments(row)
            calls.show(self.call, RUNNING_CODE)  # loading and unpickling have phases of theirs
            made = begin(*args, **kwargs)
        except StopIteration as error:
            raise _Ended(error, None) from None  # it would be taken for a value
        if not inspect.iscoroutine(made):
            raise _Ended(None, made)
        self.own = made
        return made.send(None)

    def _step(self, step: Callable[[Any], Any], given: Any) -> Any:
        calls, call = self._calls, self.call
        error: BaseException | None = None
        value: Any = None
        calls.show(call, RUNNING_CODE)
        try:
            try:
                awaited = step(given)
            except StopIteration as stopped:
                value = stopped.value
            except _Ended as ended:
                error, value = ended.error, ended.value
            except BaseException as raised:  # noqa: BLE001  # even SystemExit is the call's alone
                error = raised
            else:
                calls.show(None, WAITING)
                return awaited
            calls.show(call, PICKLING)
        except Interrupted as raised:
            # It came between the end of the user's code and our taking note of that.
            error = raised
            self.close()
        call.is_over = True
        calls.finish(call, error, value)
        raise StopIteration


def _raise(error: Any) -> Any:
    raise error


class LoopCalls(Several):
    """See the module.

    Args:
        tools: the worker's.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        loop = tools.host.loop
        assert isinstance(loop, asyncio.AbstractEventLoop)
        self._loop = loop
        self._over: asyncio.Future[None] = loop.create_future()
        self._main = threading.get_ident()
        self._woken = self._flushing = self._leaves = False
        self._insister = Insister(self._insist, _INSIST_AFTER_S, _INSIST_AFTER_S, _INSIST_TIMES)
        #: asks the actor how it is though nobody calls
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        #: the loop has answered since it was asked last, and when that was
        self._turned, self._asked_s = True, 0.0

    def serve(self) -> None:
        """Run calls until the actor ends."""
        signal.signal(signal.SIGUSR1, self._on_signal)
        self._times[LOOP] = -1.0
        self.begin()
        self._look_after_it()
        while not self._over.done():
            try:
                self._loop.run_until_complete(self._over)
            except BaseException:  # noqa: BLE001  # a task of the user's has ended or stopped it
                traceback.print_exc()
        self._close()

    # ---------------------------------------------------------------------------- begin and end

    def arrived(self) -> None:
        """Have calls begun that are queued; by any thread."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._pump)

    def _pump(self) -> None:
        self._woken = False
        loop = self._loop
        if self.is_asked or self._asks():
            return
        while len(self.open) < self.concurrency and not self._leaves:
            call = self.take()
            if call is None:
                return
            context = copy_context()
            context.run(running.set, call)
            steps = Steps(self, call)
            call.where = loop.create_task(steps, name=call.kind.name, context=context)
            self.show(None, WAITING)

    def _look_after_it(self) -> None:
        """Ask the actor how it is when it is time, unless calls run: then when they have ended."""
        self._timer = None
        if self.doctor is None or self.open or self.is_asked or self._leaves or self._asks():
            return
        self._timer = self._loop.call_later(self.doctor.wait_s(), self._look_after_it)

    def _asks(self) -> bool:
        """Have the actor say how it is, if it is time; return whether it does."""
        if not self.is_to_be_asked() or self._leaves:
            return False
        self.is_asked = True
        context = copy_context()
        context.run(running.set, None)
        self._asking = self._loop.create_task(self._ask(), name=METHOD, context=context)
        return True

    async def _ask(self) -> None:
        doctor, line = self.doctor, self.tools.line
        assert doctor is not None
        doctor.asks(line, self.words, self.tools.helper)
        try:
            answer = MethodCall(METHOD).begin()
            if inspect.isawaitable(answer):
                answer = await answer
        except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
            if not self._leaves:
                doctor.raised(line, error)
        else:
            doctor.answered(line, answer)
        self.is_asked = False
        self.show(None, WAITING)
        self._pump()
        self._look_after_it()

    def finish(self, call: Call, error: BaseException | None, value: Any) -> None:
        """Take note of the end of a call."""
        if isinstance(error, asyncio.CancelledError) and call.seq in self.open:
            if call.reason:
                error = Interrupted(call.reason)
            elif self._leaves:
                self.lost([call])
        if call.seq in self.open:
            self.ended(call, self.outcome(call, error, value))
        call.where = None
        self.show(None, WAITING)
        if perf_counter() - self.tools.line.flushed_s > FLUSH_S:
            self._flush()
        elif not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        if self.tools.host.over:
            self.queue.clear()  # the node knows that what it has not heard of did not start
            self._end()
        elif self.queue and not self._woken:
            self._woken = True
            self._loop.call_soon(self._pump)
        if self._timer is None:
            self._look_after_it()

    def _flush(self) -> None:
        self._flushing = False
        self.tools.flush_streams()
        self.tools.line.flush()

    def tick(self) -> None:
        """Ask the loop whether it comes round: what keeps it may be no call; see Several."""
        super().tick()
        now_s = perf_counter()
        if self._turned and now_s - self._asked_s >= _ASK_S:
            self._turned, self._asked_s, self._times[LOOP] = False, now_s, now_s
            self._loop.call_soon_threadsafe(self._turns)

    def _turns(self) -> None:
        self._times[LOOP] = -1.0
        self._turned = True

    # ------------------------------------------------------------------------------- interrupting

    def interrupt(self, call: Call) -> None:
        """Cancel a call's task; see Several."""
        self._loop.call_soon_threadsafe(self._cancel, call)
        self._insister.add(call)

    def _cancel(self, call: Call) -> None:
        words = self.words
        if words[INTERRUPT] == call.seq:
            words[INTERRUPT] = 0
        if call.is_due and call.where is not None:
            call.heard = True
            call.where.cancel()

    def unshielded(self, call: Call) -> None:
        """The last shield of a call is over; see Several."""
        self._cancel(call)

    def _insist(self, call: Call) -> bool:
        """Interrupt a call where it is, if it has the loop; return whether that is settled."""
        words = self.words
        if not call.is_due or call.seq not in self.open:
            return True
        if words[RUNNING] == call.seq:
            words[REASON] = REASONS.index(call.reason) if call.reason in REASONS else 0
            words[INTERRUPT] = call.seq
            signal.pthread_kill(self._main, signal.SIGUSR1)
        return False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        call = self.open.get(self.words[RUNNING])
        if call is not None and call.is_due:
            try:
                self.tools.line.on_signal(number, frame)
            except Interrupted:
                call.heard = True
                raise

    # ------------------------------------------------------------------------------------- the end

    def leave(self) -> None:
        """End the actor; by any thread."""
        self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self._leaves = True
        if not self._over.done():
            self._over.set_result(None)

    def _close(self) -> None:
        """Cancel whatever there is on the loop, and give it some time."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        for wait in (
            (lambda: asyncio.wait(tasks, timeout=_LEAVE_S)) if tasks else None,
            self._loop.shutdown_asyncgens,
        ):
            if wait is not None:
                try:
                    self._loop.run_until_complete(wait())
                except BaseException:  # noqa: BLE001  # the user's
                    traceback.print_exc()
        self.lost(self.open.values())

    # -------------------------------------------------------------------------------------- stacks

    def stacks(self) -> str:
        """Return where the coroutines are; see Several. By any thread."""
        lines: list[str] = []
        seen: set[int] = set()
        for call in self.told_calls():
            task = call.where
            if task is None:
                continue
            seen.add(id(task))
            steps = task.get_coro()
            lines.append(_header(f"{call.kind.name} {show(call.row.id)}"))
            lines += frames_text(reversed(list(_frames(steps.own))))
        for task in self._others():
            if id(task) not in seen and not isinstance(task.get_coro(), Steps):
                lines.append(_header(f"{task.get_name()}, a task of its own"))
                lines += frames_text(reversed(list(_frames(task.get_coro()))))
        return "".join(f"{line}\n" for line in lines)

    def _others(self) -> list[Any]:
        try:
            return list(asyncio.all_tasks(self._loop))
        except RuntimeError:
            return []  # they come and go so fast that they cannot be counted


def _header(name: str) -> str:
    name = "".join(letter for letter in name if letter.isprintable())
    return f"Coroutine {name} (most recent call first):"


def _frames(one: Any) -> Iterator[tuple[str, int, str]]:
    """Return the frames of a coroutine and of what it awaits, outermost first."""
    for _ in range(1000):
        frame = getattr(one, "cr_frame", None) or getattr(one, "gi_frame", None)
        if frame is None:
            return
        code = frame.f_code
        yield code.co_filename, frame.f_lineno or 0, code.co_name
        one = getattr(one, "cr_await", None) or getattr(one, "gi_yieldfrom", None)
