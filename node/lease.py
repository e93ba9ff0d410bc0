"""How long actors may act here though the scheduler is not heard.

Never reads the clock, and never ends anything: the keeper does, since a daemon that stands still
could not. The scheduler counts from when it last heard of this node; here the time is counted from
when that was sent which the scheduler has acknowledged, and so is over earlier.

    held     after 0.7 of it nothing is delivered to actors and none is made
    over     its actors are ended, but for those that are not replaced on mere silence
"""

from typing import Final

from ..protocol.settings import Settings

#: of the time, until then calls are delivered
DELIVERS: Final = 0.7
#: of the time, what makes the lease longer by less than that is not worth a word
STEP: Final = 0.01
NEVER_S: Final = float("inf")


def lasts_s(settings: Settings) -> float:
    """Return how long a lease is from when the scheduler heard."""
    return settings.lost_after_intervals * settings.heartbeat_interval_s


class Lease:
    """See the module.

    Args:
        settings: a silent node is lost after so many of so long intervals.
    """

    __slots__ = ("_holds_s", "_lasts_s", "_step_s", "until_s")

    def __init__(self, settings: Settings) -> None:
        self._lasts_s = lasts_s(settings)
        self._holds_s = (1.0 - DELIVERS) * self._lasts_s
        # Acknowledgements come by the thousand when there is much to do.
        self._step_s = STEP * self._lasts_s
        #: its end; NEVER_S: it has not begun, as no scheduler has been heard
        self.until_s = NEVER_S

    def confirmed(self, sent_s: float) -> bool:
        """What was sent then has been acknowledged; return whether the lease is longer for it."""
        until_s = sent_s + self._lasts_s
        if self.until_s < NEVER_S and until_s < self.until_s + self._step_s:
            return False
        self.until_s = until_s
        return True

    def delivers(self, now_s: float) -> bool:
        """Return whether actors are made, and given calls."""
        return now_s < self.until_s - self._holds_s
