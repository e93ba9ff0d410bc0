"""Measures rows on one system, in a fresh process.

    python -m benchmarks.measure SYSTEM ROW[,ROW...] [--fast]

Prints a number in the unit of the row; of several rows a line each, with the name before it. Rows
of the table are measured one in a process; those of the other groups may share one, and one that
fails does not stop the others.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import installed, processes, workloads
from .adapters import IMPORTS, PACKAGES, SYSTEMS, Adapter, Caller, ClusterAdapter
from .micro import SHARED
from .rows import BY_NAME, WORKERS

#: enough for the workers to be there and for durations to be known
WARM_UP_TASKS = 2_000


def warm(system: Caller) -> None:
    """Bring a system to its working state."""
    system.start()
    system.gather(workloads.nothing, [()] * WARM_UP_TASKS)


def round_trip(system: Caller, fast: bool) -> float:
    warm(system)
    times_s = []
    for _ in range(300 if fast else 1_000):
        started_s = time.perf_counter()
        system.call(workloads.nothing)
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s) * 1e3


def throughput(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    warm(system)
    count = 20_000
    started_s = time.perf_counter()
    system.gather(workloads.nothing, [()] * count)
    return count / (time.perf_counter() - started_s)


def actor_round_trip(system: ClusterAdapter, fast: bool) -> float:
    warm(system)
    counter = system.counter()
    times_s = []
    for _ in range(300 if fast else 1_000):
        started_s = time.perf_counter()
        system.count(counter, 1)
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s) * 1e3


def actor_calls(system: ClusterAdapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    warm(system)
    counter, count = system.counter(), 10_000
    before = system.count(counter, 1_000)
    started_s = time.perf_counter()
    after = system.count(counter, count)
    took_s = time.perf_counter() - started_s
    assert after == before + count, (before, after)
    return count / took_s


def tree(system: ClusterAdapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    warm(system)
    system.tree(64)
    started_s = time.perf_counter()
    total = system.tree(4_096)
    took_s = time.perf_counter() - started_s
    assert total == 4_096, total
    return took_s


def errors(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    warm(system)
    system.gather_errors(workloads.fail, 20)
    started_s = time.perf_counter()
    raised = system.gather_errors(workloads.fail, 1_000)
    took_s = time.perf_counter() - started_s
    assert raised == 1_000, raised
    return took_s


def efficiency(system: Adapter, fast: bool) -> float:
    warm(system)
    count, task_s = (100 if fast else 200), 0.020
    system.gather(workloads.burn, [(task_s,)] * 4)
    started_s = time.perf_counter()
    system.gather(workloads.burn, [(task_s,)] * count)
    return count * task_s / WORKERS / (time.perf_counter() - started_s)


def worker_killed(system: ClusterAdapter, fast: bool) -> float:
    warm(system)
    count, task_s = (60 if fast else 200), 0.050
    system.gather(workloads.burn_or_die, [(task_s, "")] * 4)
    took_s = []
    with tempfile.TemporaryDirectory() as directory:
        for once in ("", str(Path(directory) / "died")):
            work = [(task_s, "")] * count
            work[count // 4] = (task_s, once)
            started_s = time.perf_counter()
            system.gather(workloads.burn_or_die, work)
            took_s.append(time.perf_counter() - started_s)
        assert Path(once).exists(), "a worker was to be killed"
    return took_s[1] - took_s[0]


def cold_start(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # there is one way only
    started_s = time.perf_counter()
    system.start()
    system.call(workloads.nothing)
    return time.perf_counter() - started_s


def idle_memory(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # there is one way only
    warm(system)
    time.sleep(1)
    return processes.pss_bytes(processes.family()) / 1e6


def idle_cpu(system: Adapter, fast: bool) -> float:
    warm(system)
    time.sleep(1)
    return processes.cpu_percent(processes.family(), 3 if fast else 10)


def import_time(name: str) -> float:
    """Measure in an interpreter that has loaded nothing else."""
    code = f"import time; a = time.perf_counter(); {IMPORTS[name]}; print(time.perf_counter() - a)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    return statistics.median(runs) * 1e3


MEASUREMENTS: dict[str, Callable[[Any, bool], float]] = {
    "round_trip": round_trip,
    "throughput": throughput,
    "actor_round_trip": actor_round_trip,
    "actor_calls": actor_calls,
    "tree": tree,
    "errors": errors,
    "efficiency": efficiency,
    "worker_killed": worker_killed,
    "cold_start": cold_start,
    "idle_memory": idle_memory,
    "idle_cpu": idle_cpu,
}


#: of what is on the disk: nothing is started
ON_DISK: dict[str, Callable[[str], float]] = {
    "installed_size": lambda system: installed.size_mb(PACKAGES[system]),
    "installed_packages": lambda system: installed.packages(PACKAGES[system]),
    "import": import_time,
}


def measure_shared(system: Adapter, rows: list[str], fast: bool) -> bool:
    """Measure rows one after the other on one system; return whether all went well."""
    warm(system)
    is_well = True
    for row in rows:
        try:
            value = SHARED[row](system, fast)
            print(f"{row} {value}" if len(rows) > 1 else value, flush=True)
        except Exception:  # noqa: BLE001  # the other rows are measured nevertheless
            is_well = False
            traceback.print_exc()
    return is_well


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("rows", help="one of the table, or some of the other groups")
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    rows = arguments.rows.split(",")
    for name in rows:
        if name not in BY_NAME:
            parser.error(f"there is no row {name!r}")
        if arguments.system not in BY_NAME[name].systems:
            parser.error(f"{arguments.system} cannot do {name}: {BY_NAME[name].title}")
        if len(rows) > 1 and name not in SHARED:
            parser.error(f"{name} is measured alone")
    if rows[0] in ON_DISK:
        print(ON_DISK[rows[0]](arguments.system))
        return
    # Told to end, as when it takes too long, it ends its system first.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    system: Any = SYSTEMS[arguments.system]()
    is_well = True
    try:
        if rows[0] in SHARED:
            is_well = measure_shared(system, rows, arguments.fast)
        else:
            value = MEASUREMENTS[rows[0]](system, arguments.fast)
    finally:
        system.stop()
    if rows[0] not in SHARED:
        print(value)
    sys.exit(not is_well)


if __name__ == "__main__":
    main()
