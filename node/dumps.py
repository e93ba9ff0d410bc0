"""Has workers write down where their threads are, and reads what they wrote.

Never waits: a worker is signalled and its file looked at again and again for a moment. The text is
made by a handler in C (`faulthandler`) that needs no GIL, so a worker that holds it answers too;
one that is stopped, or has taken the signal for something else, is not signalled at all.
"""

import os
import re
import time
from collections.abc import Callable
from signal import Signals
from typing import Final

from ..protocol.running import STACK_BYTES_MAX
from . import kernel
from .events import Dumped
from .page import STARTING, PulsePage
from .process import Process

SIGNAL: Final = Signals.SIGUSR2
#: a file is looked at so often
_LOOK_S: Final = 0.002
#: no more is awaited once nothing has come for so long, if it does not look complete
_QUIET_S: Final = 0.1
_GIVE_UP_S: Final = 1.0
_NEVER_S: Final = float("inf")
#: the main thread comes last, and its outermost frame at the end, unless there were too many
_END: Final = re.compile(rb"(in <module>|in _run_module_as_main|^ *\.\.\.)\n\Z", re.MULTILINE)


class _Awaited:
    __slots__ = ("changed_s", "due_s", "process", "size")

    def __init__(self, process: Process, at_s: float) -> None:
        self.process = process
        self.size = 0
        self.changed_s = at_s
        self.due_s = at_s + _GIVE_UP_S


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
        self.awaited[number] = _Awaited(process, at_s)
        self._signal(process)

    def _refusal(self, process: Process) -> str:
        state = kernel.process_state(process.pid) if process.pid else ""
        if state in ("T", "t"):
            return "it is stopped, and cannot write its stacks"
        phase = self._page.sample(process.command.page_slot).phase
        if not process.pid or phase == STARTING or kernel.catches(process.pid, SIGNAL) is False:
            return f"it does not listen to {SIGNAL.name}, with which its stacks are asked for"
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
        size = os.fstat(awaited.process.stacks).st_size
        if size != awaited.size:
            awaited.size, awaited.changed_s = size, at_s
            return None  # complete is only what has not grown since the last look
        if not size:
            if at_s < awaited.due_s:
                return None
            return Dumped(number, "", f"it did not write them within {_GIVE_UP_S:g} s")
        text = os.pread(awaited.process.stacks, min(size, STACK_BYTES_MAX), 0)
        if (
            size <= STACK_BYTES_MAX
            and not _END.search(text)
            and at_s < min(awaited.due_s, awaited.changed_s + _QUIET_S)
        ):
            return None
        os.ftruncate(awaited.process.stacks, 0)
        at = time.strftime("%H:%M:%S")
        return Dumped(number, text.decode("ascii", "backslashreplace"), at=at)

    def due_s(self) -> float:
        """Return when `turn` is next due."""
        if self.done:
            return self._at_s
        return self._at_s + _LOOK_S if self.awaited else _NEVER_S
