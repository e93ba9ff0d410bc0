"""The one clock: seconds that never jump and, where the system has it, also pass in suspend.

Never wall clock. Cores and pure modules never read it: whoever turns a loop hands `now_s` in.
"""

import time
from collections.abc import Callable
from functools import partial

#: returns the seconds since some fixed moment; no Python in between, since every turn asks twice
now_s: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_BOOTTIME")
    else time.monotonic
)
