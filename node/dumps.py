"""Has workers write down where their threads are, and reads what they wrote.

Never waits: a worker's witness is rung for, and its file looked at again and again for a moment.
The witness needs the interpreter. Where something has that and lets nobody else, a signal has a
handler in C write (`faulthandler`), which needs nothing; but it must not be had to look at frames
that change, or the worker dies of a segmentation fault: with CPython 3.13 one of 60 such looks at a
process that calls and returns ended it, with 3.11 one of 4,000. Who keeps the interpreter for
himself changes none. One that is stopped is not asked at all, and one that has taken the signal for
something else is not signalled.
"""

import os
import re
import time
from collections.abc import Callable
from signal import Signals
from typing import Final

from ..protocol.running import STACK_BYTES_MAX
from . import kernel, probe
from .events import Dumped
from .page import STARTING, WITNESS, PulsePage
from .process import Process
from .witness import MARK

SIGNAL: Final = Signals.SIGUSR2
#: a file is looked at so often
_LOOK_S: Final = 0.002
#: no more is awaited once nothing has come for so long, if it does not look complete
_QUIET_S: Final = 0.1
_GIVE_UP_S: Final = 0.5
_NEVER_S: Final = float("inf")
#: what the witness writes, whatever else there is
_WHOLE: Final = re.compile(re.escape(MARK) + b"([^" + re.escape(MARK) + b"]*)" + re.escape(MARK))
#: the main thread comes last, and its outermost frame at the end, unless there were too many
_END: Final = re.compile(rb"(in <module>|in _run_module_as_main|^ *\.\.\.)\n\Z", re.MULTILINE)
#: who wants the interpreter asks for it every 5 ms, and then whoever has it lets go within moments
#: of processor time: it is kept when the witness has asked so often and the process has had so much
#: time meanwhile; and as often and as much again for each thread that may come before it
_ASKED: Final = 5
_USED_S: Final = 0.03
_RIVALS_MAX: Final = 8
#: a worker's threads that do not compete for it: the main one, the helper, the witness
_OWN_THREADS: Final = 3
#: or, with nobody running, so much time
_PATIENCE_S: Final = 0.03
#: a machine on which it has not answered by then is not waited for
_PATIENCE_MAX_S: Final = 0.9


class _Awaited:
    __slots__ = (
        "asked_s", "changed_s", "cpu_s", "due_s", "process", "signalled", "size", "still",
        "switches", "witness",
    )  # fmt: skip

    def __init__(self, process: Process, witness: int, at_s: float) -> None:
        self.process = process
        self.size = 0
        self.asked_s = self.changed_s = at_s
        self.due_s = _NEVER_S
        self.cpu_s = probe.process(process.pid)[1]
        self.witness = witness
        self.switches = probe.switches(process.pid, witness)
        #: nobody ran in it when it was looked at last
        self.still = False
        self.signalled = False


class Dumps:
    """What is awaited of which worker.

    Args:
        page: says who has not begun.
        signal: sends SIGNAL to a worker.
    """

    def __init__(self, page: PulsePage, signal: Callable[[Process], None]) -> None:
        self._page = page
        self._signal = signal
        #: `turn` is to be called while there are any of these
        self.awaited: dict[int, _Awaited] = {}
        self.done: list[Dumped] = []
        self._at_s = 0.0

    def ask(self, number: int, process: Process | None, at_s: float) -> None:
        """Have a worker write; `turn` returns what."""
        self._at_s = at_s
        if number in self.awaited:
            return  # whoever asked before gets what comes now, and so does this one
        why = "its process is gone" if process is None else self._refusal(process)
        if process is None or why:
            self.done.append(Dumped(number, "", why))
            return
        os.ftruncate(process.stacks, 0)
        witness = self._page.slot(process.command.page_slot)[WITNESS]
        self.awaited[number] = _Awaited(process, witness, at_s)
        process.bell.ring()

    def _refusal(self, process: Process) -> str:
        state = kernel.process_state(process.pid) if process.pid else ""
        if state in ("T", "t"):
            return "it is stopped, and cannot write its stacks"
        if not process.pid or self._page.sample(process.command.page_slot).phase == STARTING:
            return "it has only just been started"
        return ""

    def forget(self, process: Process) -> None:
        """A worker has ended."""
        number = process.command.worker
        if self.awaited.pop(number, None) is not None:
            self.done.append(Dumped(number, "", "its process ended"))

    def turn(self, at_s: float) -> list[Dumped]:
        """Return what is there by now."""
        self._at_s = at_s
        for number, awaited in list(self.awaited.items()):
            dumped = self._look(number, awaited, at_s)
            if dumped is not None:
                del self.awaited[number]
                self.done.append(dumped)
        done, self.done = self.done, []
        return done

    def _look(self, number: int, awaited: _Awaited, at_s: float) -> Dumped | None:
        process = awaited.process
        size = os.fstat(process.stacks).st_size
        grew, awaited.size = size != awaited.size, size
        if grew:
            awaited.changed_s = at_s
            room = STACK_BYTES_MAX * 2 + 2  # what the handler wrote may stand before it
            whole = _WHOLE.search(os.pread(process.stacks, room, 0))
            if whole is not None:
                return self._told(number, process, whole[1])
        if not awaited.signalled:
            return self._go_on(number, awaited, at_s)
        if grew:
            return None  # complete is only what has not grown since the last look
        if not size:
            if at_s < awaited.due_s:
                return None
            return Dumped(number, "", f"it did not write them within {_GIVE_UP_S:g} s")
        text = os.pread(process.stacks, min(size, STACK_BYTES_MAX), 0)
        if (
            size <= STACK_BYTES_MAX
            and not _END.search(text)
            and at_s < min(awaited.due_s, awaited.changed_s + _QUIET_S)
        ):
            return None
        return self._told(number, process, text)

    def _told(self, number: int, process: Process, text: bytes) -> Dumped:
        os.ftruncate(process.stacks, 0)
        return Dumped(
            number, text.decode("ascii", "backslashreplace"), at=time.strftime("%H:%M:%S")
        )

    def _go_on(self, number: int, awaited: _Awaited, at_s: float) -> Dumped | None:
        """Have the handler write, if the interpreter is in somebody's hands who keeps it."""
        process = awaited.process
        if not _is_kept(awaited, at_s):
            return None
        if kernel.catches(process.pid, SIGNAL) is False:
            asked = f"it does not listen to {SIGNAL.name}, with which its stacks are asked for"
            return Dumped(number, "", f"its interpreter does not turn, and {asked}")
        awaited.signalled, awaited.due_s = True, at_s + _GIVE_UP_S
        self._signal(process)
        return None

    def due_s(self) -> float:
        """Return when `turn` is next due."""
        if self.done:
            return self._at_s
        return self._at_s + _LOOK_S if self.awaited else _NEVER_S


def _is_kept(awaited: _Awaited, at_s: float) -> bool:
    """Return whether a thread that wants the interpreter would long have had it."""
    waited_s = at_s - awaited.asked_s
    if waited_s < _PATIENCE_S:
        return False
    if waited_s >= _PATIENCE_MAX_S:
        return True
    pid = awaited.process.pid
    count, is_still = probe.threads(pid)
    # Twice in succession: between two steps anybody may be asleep.
    was_still, awaited.still = awaited.still, is_still
    if was_still and is_still:
        return True
    times = 1 + min(_RIVALS_MAX, max(0, count - _OWN_THREADS))
    if probe.process(pid)[1] - awaited.cpu_s < _USED_S * times:
        return False
    switches = probe.switches(pid, awaited.witness)
    return switches < 0 or switches - awaited.switches >= _ASKED * times
