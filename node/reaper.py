"""The keeper's part of the lease: which actors are to end, because their daemon's lease has.

Never signals anybody, and never believes the daemon anything but the end of its lease, which lies
in the pulse page: whoever stands still cannot renew it, and whoever lives does so every second.

Where scheduler and node are on one machine they sleep together, and time in which the machine was
suspended is not counted.
"""

from typing import Final

NEVER_S: Final = float("inf")


class Reaper:
    """Told which processes are leased; says which of them are to be killed.

    Args:
        sleeps_along: the scheduler is suspended whenever this machine is.
    """

    __slots__ = ("_leased", "_seen_s", "_sleeps_along", "_until_s")

    def __init__(self, *, sleeps_along: bool) -> None:
        self._sleeps_along = sleeps_along
        self._leased: dict[int, None] = {}
        self.begin()

    def begin(self) -> None:
        """Another daemon: it has no actors, and no lease yet."""
        self._leased.clear()
        self._seen_s = 0.0
        #: by the clock of `overdue`; NEVER_S: no lease has begun
        self._until_s = NEVER_S

    def lease(self, pid: int) -> None:
        """A process is, or is about to be, an actor that another may take the place of."""
        self._leased[pid] = None

    def gone(self, pid: int) -> None:
        """A process has ended."""
        self._leased.pop(pid, None)

    def overdue(self, until_s: float, boot_s: float, awake_s: float) -> list[int]:
        """Return who is to be killed now; each is said once.

        Args:
            until_s: the end of the lease, as the page has it; 0: there is none yet.
            boot_s: the time, by the clock of the page.
            awake_s: the time, by a clock that stands still while the machine is suspended.
        """
        if until_s != self._seen_s:
            self._seen_s = until_s
            left_s = until_s - boot_s
            now_s = awake_s if self._sleeps_along else boot_s
            before_s = 0.0 if self._until_s == NEVER_S else self._until_s
            # Written before the machine slept and read after: what was known before holds on.
            self._until_s = max(before_s, now_s + left_s)
        if not self._leased or (awake_s if self._sleeps_along else boot_s) < self._until_s:
            return []
        overdue, self._leased = list(self._leased), {}
        return overdue

    def left_s(self, boot_s: float, awake_s: float) -> float:
        """Return in how many seconds to look again, whatever happens."""
        if not self._leased:
            return NEVER_S
        return self._until_s - (awake_s if self._sleeps_along else boot_s)
