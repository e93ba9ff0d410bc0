"""How hard a keeper ends its node: the more often it is told to, the harder.

    by hand, or by a service manager    TERM drains; a second one ends what runs; a third kills
    by the pipe of whoever started it   its end kills; TERM has the daemon take its leave at once

Never signals anybody: it says what is to be done.
"""

from enum import IntEnum


class Step(IntEnum):
    """What a keeper does now."""

    NOTHING = 0
    #: the daemon says goodbye and ends, whatever runs
    LEAVE = 1
    #: the daemon ends when nothing is left to do
    DRAIN = 2
    #: the same, and it ends what runs
    HURRY = 3
    #: all processes are killed
    END = 4


_BY_TERMS = (Step.NOTHING, Step.DRAIN, Step.HURRY, Step.END)


class Ladder:
    """Counts how often a keeper was told to end its node.

    Args:
        is_owned: it has the pipe of whoever started it.
        exit_grace_s: an owned daemon has so long to take its leave.
    """

    __slots__ = ("_exit_grace_s", "_taken", "due_s", "is_owned", "terms")

    def __init__(self, is_owned: bool, exit_grace_s: float) -> None:
        self.is_owned = is_owned
        self._exit_grace_s = exit_grace_s
        self._taken = Step.NOTHING
        #: raised by a signal's handler, at any moment
        self.terms = 0
        #: when `step` is to be called though nothing happens
        self.due_s: float | None = None

    def step(self, now_s: float, has_daemon: bool) -> Step:
        """Return what to do now; each step is said once."""
        terms = self.terms
        if not terms:
            return Step.NOTHING
        if not has_daemon:
            step = Step.END
        elif not self.is_owned:
            step = _BY_TERMS[min(terms, 3)]
        elif self.due_s is None:
            self.due_s = now_s + self._exit_grace_s
            step = Step.LEAVE if terms == 1 else Step.END
        else:
            step = Step.END if terms > 1 or now_s >= self.due_s else Step.LEAVE
        if step <= self._taken:
            return Step.NOTHING
        self._taken = step
        return step
