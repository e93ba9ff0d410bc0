"""The one clock: seconds that never jump and, where the system has it, also pass in suspend.

Never wall clock. Cores and pure modules never read it: whoever turns a loop hands `now_s` in.
"""

import time


def _read_boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


#: returns the seconds since some fixed moment
now_s = _read_boottime_s if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
