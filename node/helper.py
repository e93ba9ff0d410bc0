"""A worker's second thread: pulses while calls run, sends what waits, and else sleeps.

Never runs user code, but for the streams that users may have put in the place of theirs.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Final

from .channel import ClosedError
from .held import Held
from .kernel import ends_if_it_fails
from .line import Line, start_thread
from .page import BEAT, HEALTH_CHECK, PHASE, RUNNING, Words

#: results wait no longer than this while other tasks of the packet run
FLUSH_S: Final = 0.001
#: so often the helper looks for results and calls that wait to be sent
_FAST_S: Final = 0.004
_FAST_TICKS: Final = 8
_IDLE_TICKS: Final = 2


class Helper:
    """The worker's second thread: pulses while a task runs, sends what waits, and else sleeps."""

    def __init__(
        self, line: Line, held: Held, words: Words, parent_pid: int, pulse_interval_s: float
    ) -> None:
        self._line = line
        self._held = held
        self._words = words
        self._parent_pid = parent_pid
        self._pulse_s = pulse_interval_s
        # Held while nobody calls: the helper sleeps in acquire().
        self._bell = threading.Lock()
        self._bell.acquire()
        #: called at each tick
        self.ticked: Callable[[], None] = _nothing
        #: whether there is something to tick for though no row runs
        self.goes_on: Callable[[], bool] = _no
        #: seconds between ticks; -1: asleep until called
        self._tick_s = -1.0

    def start(self) -> None:
        """Start the thread."""
        start_thread(self._serve, "drumbeat-helper")

    def begin(self) -> None:
        """The main thread starts a packet, or there is one for it."""
        if self._tick_s < 0:
            self._tick_s = self._pulse_s
            self._ring()

    def hurry(self) -> None:
        """Something waits to be sent while user code runs."""
        if self._tick_s != _FAST_S:
            self._tick_s = _FAST_S
            self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # somebody has rung already
            self._bell.release()

    def _serve(self) -> None:
        words, line, quiet = self._words, self._line, 0
        try:
            while True:
                rung = self._bell.acquire(timeout=self._tick_s)
                if os.getppid() != self._parent_pid:
                    os._exit(1)
                words[BEAT] = (words[BEAT] + 1) & 0xFFFF_FFFF_FFFF_FFFF
                quiet = 0 if rung else quiet + 1
                self.ticked()
                if (line.outbox or self._held.changes) and (
                    perf_counter() - line.flushed_s > FLUSH_S
                ):
                    flush_streams()
                    with ends_if_it_fails():
                        line.flush()
                    quiet = 0
                if line.details:
                    line.tell_details(wait=True)
                if self._tick_s == _FAST_S:
                    if quiet > _FAST_TICKS and not line.outbox:
                        self._tick_s, quiet = self._pulse_s, 0
                elif quiet >= _IDLE_TICKS and not self._has_cause():
                    self._tick_s = -1.0
                    if line.outbox or self._has_cause():
                        self._tick_s = self._pulse_s
        except ClosedError:
            os._exit(1)

    def _has_cause(self) -> bool:
        """Return whether there is something to pulse for."""
        words = self._words
        return bool(words[RUNNING]) or words[PHASE] == HEALTH_CHECK or self.goes_on()


def _nothing() -> None:
    """Nothing else is done by the helper."""


def _no() -> bool:
    return False


def flush_streams() -> None:
    """Have what was printed arrive before the results; a broken stream is the task's own."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: BLE001  # it may be anything that the user put there
            continue
