"""Measurements that share one process of a system: rates, efficiency by duration, payloads.

Each is given a system that is warm, and leaves it so. Rates are taken as Ray's own benchmark takes
them: the same again and again for a while, after once to warm up.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from . import workloads
from .adapters import Adapter, ClusterAdapter, Waiter
from .rows import ARRAYS, BY_NAME, DURATIONS, PAYLOADS, WORKERS

AT_ONCE = 1_000
WAIT_REFS = 1_000
ACTORS, CALLERS = 2, 4
#: how long the same is done
RATE_S, RATE_FAST_S = 2.0, 0.5
#: of small values before time is looked at
VALUES = 100
#: work of each efficiency in all, and tasks at most
WORK_S, WORK_FAST_S = 4.0, 1.0
TASKS_MAX, TASKS_FAST_MAX = 20_000, 2_000
#: a payload's round trips carry so much in all
CARRIED_BYTES, CARRIED_FAST_BYTES = 300e6, 50e6
TRIPS_MIN, TRIPS_MAX = 5, 300


def rate(work: Callable[[], object], each: int, fast: bool) -> float:
    """Return how many a second, of which one go does so many."""
    work()
    done, begun_s = 0, time.perf_counter()
    least_s = RATE_FAST_S if fast else RATE_S
    while (took_s := time.perf_counter() - begun_s) < least_s:
        work()
        done += each
    return done / took_s


def tasks_sync(system: Adapter, fast: bool) -> float:
    return rate(lambda: system.call(workloads.nothing), 1, fast)


def tasks_async(system: Adapter, fast: bool) -> float:
    return rate(lambda: system.gather(workloads.nothing, [()] * AT_ONCE), AT_ONCE, fast)


def tasks_nested(system: ClusterAdapter, fast: bool) -> float:
    inside = system.submitters(CALLERS)
    return rate(lambda: system.submit_from_all(inside, AT_ONCE), CALLERS * AT_ONCE, fast)


def actor_sync(system: ClusterAdapter, fast: bool) -> float:
    counter = system.counter()
    return rate(lambda: system.count(counter, 1), 1, fast)


def actor_async(system: ClusterAdapter, fast: bool) -> float:
    counter = system.counter()
    return rate(lambda: system.count(counter, AT_ONCE), AT_ONCE, fast)


def actors_1_n(system: ClusterAdapter, fast: bool) -> float:
    counters = [system.counter() for _ in range(ACTORS)]
    return rate(lambda: system.count_all(counters, AT_ONCE), ACTORS * AT_ONCE, fast)


def actors_n_n(system: ClusterAdapter, fast: bool) -> float:
    counters = [system.counter() for _ in range(ACTORS)]
    work = lambda: system.count_from_all(counters, CALLERS, AT_ONCE)  # noqa: E731  # as above
    return rate(work, CALLERS * AT_ONCE, fast)


def put(system: ClusterAdapter, fast: bool) -> float:
    return rate(lambda: [system.put(0) for _ in range(VALUES)], VALUES, fast)


def get(system: ClusterAdapter, fast: bool) -> float:
    ref = system.put(0)
    return rate(lambda: [system.fetch(ref) for _ in range(VALUES)], VALUES, fast)


def wait(system: Waiter, fast: bool) -> float:
    return rate(lambda: system.wait_for_each(workloads.nothing, WAIT_REFS), WAIT_REFS, fast)


def efficiency(name: str) -> Callable[[Adapter, bool], float]:
    """Return the measurement of one duration."""
    task_s = BY_NAME[name].at

    def measure(system: Adapter, fast: bool) -> float:
        most = TASKS_FAST_MAX if fast else TASKS_MAX
        count = min(most, round((WORK_FAST_S if fast else WORK_S) / task_s))
        system.gather(workloads.burn, [(task_s,)] * 4)
        started_s = time.perf_counter()
        system.gather(workloads.burn, [(task_s,)] * count)
        return count * task_s / WORKERS / (time.perf_counter() - started_s)

    return measure


def payload(name: str) -> Callable[[Adapter, bool], float]:
    """Return the measurement of one size."""
    size = int(BY_NAME[name].at)

    def measure(system: Adapter, fast: bool) -> float:
        data = os.urandom(size)
        carried = CARRIED_FAST_BYTES if fast else CARRIED_BYTES
        times_s = []
        for _ in range(max(TRIPS_MIN, min(TRIPS_MAX, int(carried / size)))):
            started_s = time.perf_counter()
            answer = system.call(workloads.length, data)
            times_s.append(time.perf_counter() - started_s)
            assert answer == size, answer
        return statistics.median(times_s) * 1e3

    return measure


def array(name: str) -> Callable[[Any, bool], float]:
    """Return the measurement of large arrays; NumPy is loaded only by who measures these."""

    def measure(system: Any, fast: bool) -> float:
        from . import arrays

        works = {
            "array_by_ref": arrays.by_reference,
            "array_by_value": arrays.by_value,
            "array_results": arrays.results,
        }
        return works[name](system, fast)

    return measure


SHARED: dict[str, Callable[[Any, bool], float]] = {
    "micro_tasks_sync": tasks_sync,
    "micro_tasks_async": tasks_async,
    "micro_tasks_nested": tasks_nested,
    "micro_actor_sync": actor_sync,
    "micro_actor_async": actor_async,
    "micro_actors_1_n": actors_1_n,
    "micro_actors_n_n": actors_n_n,
    "micro_put": put,
    "micro_get": get,
    "micro_wait": wait,
    **{row.name: efficiency(row.name) for row in DURATIONS},
    **{row.name: payload(row.name) for row in PAYLOADS},
    **{row.name: array(row.name) for row in ARRAYS},
}
