"""One virtual clock: everything that will happen, in order.

Never real time. Two things at the same instant happen in the order in which they were planned.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Clock:
    """A heap of planned actions."""

    __slots__ = ("_heap", "_planned", "now_s", "steps")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._planned = 0
        self.now_s = 0.0
        self.steps = 0

    def at(self, when_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan `action(*arguments)`; what lies in the past happens next."""
        self._planned += 1
        now_s = self.now_s
        heappush(self._heap, (max(now_s, when_s), self._planned, action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Plan `action(*arguments)` for `delay_s` from now."""
        self._planned += 1
        when_s = self.now_s + (delay_s if delay_s > 0 else 0.0)
        heappush(self._heap, (when_s, self._planned, action, arguments))

    def run_until(self, end_s: float, found: list[str], steps_max: int) -> bool:
        """Let everything happen up to `end_s`, or until something is found.

        Returns:
            Whether it ended before its time: something was found, or more than `steps_max` steps
            have been taken since the clock began.
        """
        heap = self._heap
        while heap and heap[0][0] <= end_s:
            self.now_s, _, action, arguments = heappop(heap)
            self.steps += 1
            action(*arguments)
            if found or self.steps > steps_max:
                return True
        self.now_s = max(self.now_s, end_s)
        return False
