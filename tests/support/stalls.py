"""How long something took, less the time for which this machine kept processes waiting.

Never a reason to wait longer: for tests that promise a time, on a machine that others use as well.
"""

import math
import os
import time
from pathlib import Path
from typing import NamedTuple

#: what the kernel tells of waits for processors, disks and memory, and for the machine below
PRESSURE = [Path("/proc/pressure") / kind for kind in ("cpu", "io", "memory")]
STATISTICS = Path("/proc/stat")


def stalled_s() -> float:
    """Return for how long since its start the machine has kept somebody waiting; inf: unknown.

    The kernel tells the mean over the processors; all of it may have been on one.
    """
    try:
        told = [path.read_text(encoding="ascii") for path in PRESSURE]
        totals_us = [int(text.partition("total=")[2].split()[0]) for text in told]
        stolen = int(STATISTICS.read_text(encoding="ascii").split()[8])
    except (OSError, ValueError, IndexError):
        return math.inf
    return sum(totals_us) / 1e6 * (os.cpu_count() or 1) + stolen / os.sysconf("SC_CLK_TCK")


class Lap(NamedTuple):
    """What a watch showed at one time."""

    all_s: float
    own_s: float
    stalled_s: float


class Watch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._begun_s = time.monotonic()
        self._stalled_s = stalled_s()

    def all_s(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self._begun_s

    def stalled_s(self) -> float:
        """Return how much of that may be due to a machine that had no time; all, if it is unknown.

        What is measured elsewhere may be later by so much.
        """
        stalled = stalled_s() - self._stalled_s  # not a number where it is unknown
        return min(stalled, self.all_s()) if stalled >= 0.0 else self.all_s()

    def own_s(self) -> float:
        """Return how long it has run, less what may be due to the machine."""
        return self.all_s() - self.stalled_s()

    def lap(self) -> Lap:
        """Return what it shows now."""
        stalled = self.stalled_s()
        all_s = self.all_s()
        return Lap(all_s, all_s - stalled, stalled)
