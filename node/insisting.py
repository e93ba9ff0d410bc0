"""Calls beside each other that are to be interrupted and could not be at once: tried again.

Never interrupts anything by itself, and never takes more than one thread, however many calls wait
for it: each is tried again and again, ever more seldom, until that is settled.
"""

import threading
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Final

from .line import start_thread

if TYPE_CHECKING:
    from .several import Call


class Insister:
    """See the module. Any thread may add to it.

    Args:
        strike: tries to interrupt a call; returns whether there is nothing more to be tried.
        first_s: it is tried again after so long,
        seldom_s: and at last as seldom.
        times: no oftener.
    """

    def __init__(
        self, strike: "Callable[[Call], bool]", first_s: float, seldom_s: float, times: int
    ) -> None:
        self._strike = strike
        self._first_s = first_s
        self._seldom_s = seldom_s
        self._times: Final = times
        self._woken = threading.Condition()
        #: by seq: the call, when it is tried next, after which pause, and how often it was
        self._waiting: dict[int, tuple[Call, float, float, int]] = {}
        self._runs = False

    def add(self, call: "Call") -> None:
        """Have a call tried again."""
        with self._woken:
            first_s = self._first_s
            self._waiting[call.seq] = call, perf_counter() + first_s, first_s, 0
            if self._runs:
                self._woken.notify()
                return
            self._runs = True
        start_thread(self._serve, "drumbeat-insist")

    def _serve(self) -> None:
        while True:
            with self._woken:
                if not self._waiting:
                    self._runs = False
                    return
                due_s = min(due_s for _, due_s, _, _ in self._waiting.values())
                now_s = perf_counter()
                if now_s < due_s:
                    self._woken.wait(due_s - now_s)
                    continue
                due = [one for one in self._waiting.values() if one[1] <= now_s]
            for call, _, after_s, times in due:
                is_settled = self._strike(call) or times + 1 >= self._times
                with self._woken:
                    if is_settled:
                        self._waiting.pop(call.seq, None)
                    else:
                        pause_s = min(2 * after_s, self._seldom_s)
                        again_s = perf_counter() + pause_s
                        self._waiting[call.seq] = call, again_s, pause_s, times + 1
