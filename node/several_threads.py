"""Calls of an actor with `max_concurrency` and no `async def` method: each in a thread.

Never interrupts a thread while Drumbeat's own code runs in it: an exception that came there would
leave the socket, or what is counted, half done. Such a call is interrupted as soon as it is in the
user's code again, or right where it waits for values. What waits in a system call is interrupted
when that returns.
"""

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from ..protocol.actor_calls import MethodCall
from ..protocol.errors import Interrupted
from ..protocol.ids import show
from .arguments import arguments
from .helper import FLUSH_S
from .insisting import Insister
from .line import start_thread
from .page import RUNNING_CODE
from .several import Call, Several, Tools, due, running

#: it is tried again so often to interrupt a call, and at last as seldom
_INSIST_AFTER_S: Final = 0.02
_INSIST_SELDOM_S: Final = 0.5
_INSIST_TIMES: Final = 1 << 30

_PACKAGE: Final = __name__.partition(".")[0] + "."

#: an exception class for each reason: what a thread is interrupted with is made where it comes
_classes: Final[dict[str, type[Interrupted]]] = {}


class ThreadCalls(Several):
    """See the module.

    Args:
        tools: the worker's.
    """

    def __init__(self, tools: Tools) -> None:
        super().__init__(tools)
        lock = threading.RLock()
        self._there = threading.Condition(lock)
        #: who asks the actor how it is waits here until no call runs
        self._free = threading.Condition(lock)
        self._is_late = False
        self._over = threading.Event()
        self._threads = self._idle = 0
        #: held while a call is interrupted, and while one ends its code
        self._striking = threading.Lock()
        self._insister = Insister(self._strike, _INSIST_AFTER_S, _INSIST_SELDOM_S, _INSIST_TIMES)
        # Whoever starts a thread here has all signals blocked. Children would inherit that, and
        # what a call starts could not be terminated.
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    def serve(self) -> None:
        """Have calls run until the actor ends."""
        self.begin()
        if self.doctor is not None:
            start_thread(self._ask_now_and_then, "drumbeat-health")
        self._over.wait()

    # ---------------------------------------------------------------------------- begin and end

    def arrived(self) -> None:
        """Have calls begun that are queued; see Several."""
        with self._there:
            queued = len(self.queue)
            more = min(queued - self._idle, self.concurrency - self._threads)
            self._there.notify(queued)
        for _ in range(more):
            self._threads += 1
            start_thread(self._work, f"drumbeat-call-{self._threads}")

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        while True:
            with self._there:
                while not self._may_begin():
                    self._idle += 1
                    self._there.wait()
                    self._idle -= 1
                call = self.take()
                if call is None:
                    continue
                call.where = threading.get_ident()
                call.thread = threading.get_native_id(), call.where
                self.show(None, RUNNING_CODE)
            self._run(call)

    def _may_begin(self) -> bool:
        """Return whether a call is to begin now; the actor's own health goes before it."""
        if self.is_to_be_asked():
            self._free.notify()
            return False
        return bool(self.queue) and not self.is_asked

    def _ask_now_and_then(self) -> None:
        """Ask the actor how it is whenever it is time and none of its calls runs."""
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
        doctor = self.doctor
        assert doctor is not None
        while True:
            with self._there:
                while not self.is_to_be_asked():
                    self._is_late = doctor.is_due()
                    self._free.wait(None if self._is_late else doctor.wait_s())
                self.is_asked, self._is_late = True, False
            doctor.ask(self._line, self.words, self.tools.helper)
            with self._there:
                self.is_asked = False
                self._there.notify(len(self.queue))

    def _run(self, call: Call) -> None:
        running.set(call)
        error: BaseException | None = None
        value: Any = None
        has_returned = False
        try:
            try:
                value = self._code(call)
                has_returned = True
            except BaseException as raised:  # noqa: BLE001  # even SystemExit is the call's alone
                error = raised
            self._ends(call)
        except Interrupted as late:
            # It came between the end of the user's code and our taking note of that.
            error = None if has_returned else late
            self._ends(call)
        row = self.outcome(call, error, value)
        running.set(None)
        line, helper = self.tools.line, self.tools.helper
        with self._there:
            self.ended(call, row)
            error = value = None  # not sooner: it holds what the result names
            self.show(None, RUNNING_CODE)
            if self._is_late and not self.open:
                self._free.notify()
            waits = bool(self.queue)
            if self.tools.host.over and not self._over.is_set():
                self.queue.clear()  # the node knows that what it has not heard of did not start
                self.lost(self.open.values())
                self._over.set()
                return
        if waits and perf_counter() - line.flushed_s <= FLUSH_S:
            helper.hurry()
        else:
            self.tools.flush_streams()
            line.flush()

    def _code(self, call: Call) -> Any:
        row, kind = call.row, call.kind
        function = kind.function or self.tools.load(kind)
        args, kwargs = ((), {}) if row.args is None else arguments(row)
        with self._there:
            self.show(None, RUNNING_CODE)  # loading and unpickling have phases of theirs
        return function(*args, **kwargs)

    def leave(self) -> None:
        """End the actor; see Several."""
        self._over.set()

    # ------------------------------------------------------------------------------- interrupting

    def interrupt(self, call: Call) -> None:
        """Raise Interrupted in a call's thread; see Several."""
        if not self._strike(call):
            self._insister.add(call)

    # Whom it strikes: nobody but the thread of this call, while that runs this call's code. This
    # and `_ends` both hold `_striking`. A call that has passed `_ends` is over, so its thread,
    # which may have begun another, is left alone. One that has been struck and comes to `_ends`
    # before the exception does takes it back there: whatever begins next finds none pending. If it
    # comes within `_ends`, `_run` catches it and goes through that again; no second one comes.

    def _strike(self, call: Call) -> bool:
        """Interrupt a call if it is in the user's code; return whether that is settled."""
        with self._striking:
            if call.is_over or call.heard or call.seq not in self.open:
                return True
            # Who has just been given the interpreter keeps it long enough for what follows.
            time.sleep(0)
            if call.shields or not _is_in_own_code(call):
                return False
            call.heard = True
            _set_exception(call.where, _class_for(call.reason))
            if call.shields or not _is_in_own_code(call):
                # We were not kept: what it was found to do is not what it does now.
                _set_exception(call.where, None)
                call.heard = False
            return call.heard

    def _ends(self, call: Call) -> None:
        """The code of a call has ended: from here on nothing interrupts its thread."""
        with self._striking:
            call.is_over = True
            if call.heard:
                _set_exception(call.where, None)

    def unshielded(self, call: Call) -> None:
        """The last shield of a call is over; see Several."""
        if call.is_due:
            raise due(call)

    # -------------------------------------------------------------------------------------- stacks

    def stacks(self) -> str:
        """Return which thread runs which call; see Several."""
        lines = []
        for call in self.told_calls():
            name = f"{call.kind.name} {show(call.row.id)}"
            name = "".join(letter for letter in name if letter.isprintable())
            lines.append(f"Named 0x{call.where or 0:016x} {name}\n")
        return "".join(lines)


#: above these on the stack is the user's code
_ENTRIES: Final = (
    ThreadCalls._code.__code__,
    MethodCall.begin.__code__,
    MethodCall.__call__.__code__,
)


def _is_in_own_code(call: Call) -> bool:
    """Return whether nothing but the user's code is on the stack of a call's thread."""
    frame = sys._current_frames().get(call.where)
    is_above = False
    while frame is not None:
        if frame.f_code in _ENTRIES:
            return is_above
        if str(frame.f_globals.get("__name__", "")).startswith(_PACKAGE):
            return False
        is_above = True
        frame = frame.f_back
    return False


def _class_for(reason: str) -> type[Interrupted]:
    found = _classes.get(reason)
    if found is None:

        class Struck(Interrupted):
            def __init__(self, why: str = reason) -> None:
                super().__init__(why)

        Struck.__name__ = Struck.__qualname__ = "Interrupted"
        found = _classes[reason] = Struck
    return found


def _set_exception(thread: int, raised: type[BaseException] | None) -> None:
    set_exception: Callable[..., int] = ctypes.pythonapi.PyThreadState_SetAsyncExc
    set_exception(ctypes.c_ulong(thread), None if raised is None else ctypes.py_object(raised))
