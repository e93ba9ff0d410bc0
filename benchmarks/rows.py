"""The rows of the tables: what is measured, in which unit, on which systems.

Never measures: measure.py and micro.py do.
"""

from dataclasses import dataclass

#: each system has so many worker processes
WORKERS = 2
#: the systems that are always there, and can do everything that pools can
EVERYONE = ("drumbeat", "executor", "pool")
#: each in an environment of its own, see environments.py
PEERS = ("ray", "dask")
#: those that have actors, and references as arguments
CLUSTERS = ("drumbeat", *PEERS)

#: how the tables call them
TITLES = {
    "drumbeat": "Drumbeat",
    "network": "Drumbeat, TCP + CURVE",
    "executor": "ProcessPoolExecutor",
    "pool": "multiprocessing.Pool",
    "ray": "Ray",
    "dask": "Dask distributed",
    "bare": "bare hops",
    "plain": "the same without libzmq",
    "busy": "that with two workers",
}


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    name: str
    title: str
    unit: str
    #: which way is better
    more_is_better: bool = False
    #: the systems that can do it
    systems: tuple[str, ...] = (*EVERYONE, *PEERS)
    #: budgets: Drumbeat's figure is to be at most so many times another system's
    at_most: tuple[tuple[str, float], ...] = ()
    #: of the group "table" each row has a fresh process, else one has all rows of the group
    group: str = "table"
    #: what a plot has this row at: seconds of a task, bytes of a payload
    at: float = 0.0


TABLE = (
    Row(
        "round_trip",
        "no-op task, round trip, median",
        "ms",
        systems=(*EVERYONE, *PEERS, "bare", "plain", "network"),
        at_most=(("bare", 1.6), ("executor", 1.29)),
    ),
    Row(
        "throughput",
        "20,000 no-op tasks, submit and gather",
        "tasks/s",
        more_is_better=True,
        systems=(*EVERYONE, *PEERS, "network"),
    ),
    Row(
        "actor_round_trip",
        "call of an actor's method, round trip, median",
        "ms",
        systems=(*CLUSTERS, "network"),
    ),
    Row(
        "actor_calls",
        "10,000 calls of one actor, submit and gather",
        "calls/s",
        more_is_better=True,
        systems=(*CLUSTERS, "network"),
    ),
    Row("tree", "tree reduce, 4,096 leaves, refs as arguments", "s", systems=CLUSTERS),
    Row("errors", "1,000 tasks that raise", "s"),
    Row(
        "efficiency",
        "20 ms tasks on 2 workers, efficiency",
        "",
        more_is_better=True,
        systems=(*EVERYONE, *PEERS, "busy"),
    ),
    Row("worker_killed", "a worker killed amid 200 tasks of 50 ms, extra", "s", systems=CLUSTERS),
    Row("cold_start", "cold start to first result", "s"),
    Row("import", "import", "ms"),
    Row("idle_memory", "idle memory, all processes with the program (PSS)", "MB"),
    Row("idle_cpu", "idle CPU, all processes with the program", "% of a core"),
    Row("installed_size", "installed size, with what it needs", "MB", systems=CLUSTERS),
    Row("installed_packages", "installed packages, itself among them", "", systems=CLUSTERS),
)


def _micro(name: str, title: str, unit: str, systems: tuple[str, ...] = CLUSTERS) -> Row:
    return Row(f"micro_{name}", title, unit, True, systems, group="micro")


#: the rows of the micro-benchmark that Ray publishes which mean the same everywhere
MICRO = (
    _micro("tasks_sync", "tasks, one after the other", "tasks/s", (*EVERYONE, *PEERS)),
    _micro("tasks_async", "tasks, 1,000 at once", "tasks/s", (*EVERYONE, *PEERS)),
    _micro("tasks_nested", "tasks, from 4 calls inside, 1,000 each", "tasks/s"),
    _micro("actor_sync", "1:1 actor calls, one after the other", "calls/s"),
    _micro("actor_async", "1:1 actor calls, 1,000 at once", "calls/s"),
    _micro("actors_1_n", "1:n actor calls, 1,000 at once on each of 2", "calls/s"),
    _micro("actors_n_n", "n:n actor calls, 4 tasks make 1,000 each on 2 actors", "calls/s"),
    _micro("put", "put of a small value", "values/s"),
    _micro("get", "get of a small value", "values/s"),
    _micro(
        "wait", "wait for each of 1,000 refs, the first there is", "refs/s",
        ("drumbeat", "executor", *PEERS),
    ),
)  # fmt: skip

DURATIONS = tuple(
    Row(
        f"efficiency_{name}", f"{title} tasks on 2 workers, efficiency", "", True,
        group="durations", at=seconds,
    )
    for name, title, seconds in (
        ("100us", "0.1 ms", 0.0001), ("1ms", "1 ms", 0.001),
        ("10ms", "10 ms", 0.01), ("100ms", "100 ms", 0.1),
    )
)  # fmt: skip

PAYLOADS = tuple(
    Row(
        f"payload_{name}", f"a call with an argument of {title}, round trip", "ms",
        group="payloads", at=size,
    )
    for name, title, size in (
        ("1kb", "1 KB", 1e3), ("50kb", "50 KB", 5e4), ("1mb", "1 MB", 1e6), ("16mb", "16 MB", 16e6),
    )
)  # fmt: skip

ARRAYS = tuple(
    Row(name, title, "GB/s", True, systems, group="arrays")
    for name, title, systems in (
        ("array_by_ref", "an array of 100 MB by reference to 10 tasks", CLUSTERS),
        ("array_by_value", "the same by value", (*EVERYONE, *PEERS)),
        ("array_results", "ten results of 100 MB", (*EVERYONE, *PEERS)),
    )
)

GROUPS = {
    "table": TABLE, "micro": MICRO, "durations": DURATIONS, "payloads": PAYLOADS, "arrays": ARRAYS,
}  # fmt: skip
ROWS = tuple(row for rows in GROUPS.values() for row in rows)
BY_NAME = {row.name: row for row in ROWS}
