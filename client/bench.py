"""What `drumbeat bench` measures on a running cluster, as a whole and node by node.

Never prints, and starts no task by itself: who calls hands in what runs tasks, and a clock.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from .inside import current

#: bytes that a task computes over and over to say how fast a core of its node is
_SPUN: Final = bytes(range(256))


class Busy(Exception):  # noqa: N818  # it is an answer: the cluster has other things to do
    """What was asked did not come in time."""


class Tasks(Protocol):
    """How tasks are run."""

    def __call__(
        self, function: Callable[..., Any], arguments: Sequence[tuple[Any, ...]], node: str
    ) -> list[Any]:
        """Run a task for each of these arguments, and return all values.

        Args:
            function: what each runs.
            arguments: those of each.
            node: where; "": wherever the scheduler puts them.

        Raises:
            Busy: they did not end in time; they are cancelled.
        """


# ------------------------------------------------------------------------------------ in the tasks


def where() -> str:
    """Return on which node this runs: the least that a task can say."""
    return current().node


def length(data: bytes) -> int:
    """Take what was sent, and no more."""
    return len(data)


def spin(rounds: int) -> float:
    """Compute so many times the sum of the same numbers; return the seconds of a core it took."""
    begun_s = time.thread_time()
    for _ in range(rounds):
        sum(_SPUN)
    return time.thread_time() - begun_s


# -------------------------------------------------------------------------------- what is measured


class Sizes:
    """How much is done of each.

    Args:
        tasks: of throughput, over the whole cluster.
    """

    def __init__(self, tasks: int) -> None:
        self.tasks = tasks
        self.node_tasks = max(100, tasks // 5)
        self.trips = 200
        self.node_trips = 50
        self.payload_bytes = 1_000_000
        self.payloads = 10
        self.rounds = 20_000


def measure(
    run: Tasks, names: Sequence[str], sizes: Sizes, clock: Callable[[], float]
) -> dict[str, Any]:
    """Measure the cluster as a whole, then each node alone.

    Args:
        run: runs tasks.
        names: of the nodes.
        sizes: how much is done.
        clock: seconds, as of `time.perf_counter`.

    Returns:
        Plain data: figures of the cluster, and under "nodes" a map for each.

    Raises:
        Busy: not even the first task came back in time.
    """
    # Workers begin, and the scheduler learns how long these tasks take.
    run(where, [()] * max(100, sizes.tasks // 10), "")
    trips_ms = _trips_ms(run, sizes.trips, "", clock)
    begun_s = clock()
    ran = Counter(run(where, [()] * sizes.tasks, ""))
    took_s = clock() - begun_s
    nodes: list[Mapping[str, Any]] = []
    for name in names:
        try:
            found = _node(run, name, sizes, clock)
        except Busy as busy:
            found = {"why": str(busy)}
        nodes.append({"name": name, "ran": ran.get(name, 0), **found})
    return {
        "round_trip_ms": round(statistics.median(trips_ms), 3),
        "round_trip_worst_ms": round(max(trips_ms), 3),
        "tasks": sizes.tasks,
        "tasks_per_s": round(sizes.tasks / took_s),
        "nodes": nodes,
    }


def _trips_ms(run: Tasks, count: int, node: str, clock: Callable[[], float]) -> list[float]:
    """Return how long tasks take one after the other, there and back."""
    found = []
    for _ in range(count):
        begun_s = clock()
        run(where, [()], node)
        found.append((clock() - begun_s) * 1e3)
    return found


def _node(run: Tasks, name: str, sizes: Sizes, clock: Callable[[], float]) -> dict[str, Any]:
    """Return what one node does alone."""
    run(where, [()] * 10, name)
    trips_ms = _trips_ms(run, sizes.node_trips, name, clock)
    begun_s = clock()
    run(where, [()] * sizes.node_tasks, name)
    tasks_s = clock() - begun_s
    data = bytes(sizes.payload_bytes)
    run(length, [(data,)], name)
    begun_s = clock()
    run(length, [(data,)] * sizes.payloads, name)
    payloads_s = clock() - begun_s
    (spin_s,) = run(spin, [(sizes.rounds,)], name)
    return {
        "round_trip_ms": round(statistics.median(trips_ms), 3),
        "tasks_per_s": round(sizes.node_tasks / tasks_s),
        "mb_per_s": round(sizes.payloads * sizes.payload_bytes / 1e6 / payloads_s, 1),
        "spin_ms": round(spin_s * 1e3, 1),
    }
