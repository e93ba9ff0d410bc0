"""Arrays of 100 MB: read by tasks, by reference and by value, and returned by them.

Never counts what has not arrived: one number of each page is read of each array, wherever it goes.
Each is given a system that is warm, and does all of it a few times before time is taken.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .adapters import Adapter, ClusterAdapter

SIZE_BYTES = 100_000_000
PAGE_BYTES = 4096
TASKS = 10
WARM_UPS = 2
TIMES, TIMES_FAST = 5, 2
#: what a worker has made to return it: making it is not what is measured
_made: Any = None


def read(array: Any) -> int:
    """Read something of each page."""
    return int(array[::PAGE_BYTES].sum(dtype=np.int64))


def give() -> Any:
    """Return an array, the same again and again."""
    global _made  # noqa: PLW0603  # kept by the worker from call to call
    if _made is None:
        _made = np.ones(SIZE_BYTES, np.uint8)
    return _made


def rate(work: Callable[[], object], fast: bool) -> float:
    """Return how many GB a second TASKS arrays are, of what is done again and again."""
    for _ in range(WARM_UPS):
        work()
    took_s = []
    for _ in range(TIMES_FAST if fast else TIMES):
        started_s = time.perf_counter()
        work()
        took_s.append(time.perf_counter() - started_s)
    return TASKS * SIZE_BYTES / 1e9 / statistics.median(took_s)


def by_reference(system: ClusterAdapter, fast: bool) -> float:
    ref = system.put(np.ones(SIZE_BYTES, np.uint8))
    return rate(lambda: system.gather(read, [(ref,)] * TASKS), fast)


def by_value(system: Adapter, fast: bool) -> float:
    array = np.ones(SIZE_BYTES, np.uint8)
    return rate(lambda: system.gather(read, [(array,)] * TASKS), fast)


def results(system: Adapter, fast: bool) -> float:
    def work() -> None:
        found = system.gather(give, [()] * TASKS)
        assert [read(array) for array in found] == [-(-SIZE_BYTES // PAGE_BYTES)] * TASKS

    return rate(work, fast)
