"""How soon a process that has ended is started again: at once, and then later with each end.

And what people are told of one that is refused over and over. Never starts anything, never reads
the clock.
"""

from collections import deque
from signal import Signals
from typing import Final

from ..protocol.lines import say

CRASHES_MAX: Final = 3
CRASHES_WITHIN_S: Final = 60.0
_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 5.0


class Restarts:
    """The ends of one process's lives in the last minute."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: deque[float] = deque()

    @property
    def too_many(self) -> bool:
        """Whether it ended so often that it will not be any better the next time."""
        return len(self._ends) >= CRASHES_MAX

    def ended(self, now_s: float) -> float:
        """Note an end; return how long to wait: doubling with each one in the last minute."""
        ends = self._ends
        ends.append(now_s)
        while ends[0] < now_s - CRASHES_WITHIN_S:
            ends.popleft()
        return min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2 ** (len(ends) - 1)) if len(ends) > 1 else 0.0


class Refusals:
    """Why the scheduler does not take this node, which tries again and again: said once."""

    __slots__ = ("_reason", "_refused_s")

    def __init__(self) -> None:
        self._reason = ""
        self._refused_s = float("-inf")

    def refused(self, reason: str, now_s: float) -> None:
        """A daemon was refused."""
        if reason != self._reason or not self.is_recent(now_s):
            text = f"drumbeat node: the scheduler refuses this node: {reason}"
            say(f"{text}; it keeps trying, in silence")
        self._reason, self._refused_s = reason, now_s

    def is_recent(self, now_s: float) -> bool:
        """Return whether that was a moment ago, so that the next daemon is likely refused too."""
        return now_s < self._refused_s + CRASHES_WITHIN_S


def ending(status: int) -> str:
    """Return how a process ended, in words."""
    return Signals(-status).name if status < 0 else f"exit code {status}"
