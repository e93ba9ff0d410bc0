"""One measurement, in a fresh process: `python -m benchmarks.measure SYSTEM ROW [--fast]`.

Prints one number, in the unit of its row.
"""

import argparse
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from . import processes, workloads
from .adapters import IMPORTS, SYSTEMS, WORKERS, Adapter, Caller, Drumbeat

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


def actor_round_trip(system: Adapter, fast: bool) -> float:
    assert isinstance(system, Drumbeat)
    warm(system)
    counter = system.counter()
    times_s = []
    for _ in range(300 if fast else 1_000):
        started_s = time.perf_counter()
        system.count(counter, 1)
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s) * 1e3


def actor_calls(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    assert isinstance(system, Drumbeat)
    warm(system)
    counter, count = system.counter(), 10_000
    before = system.count(counter, 1_000)
    started_s = time.perf_counter()
    after = system.count(counter, count)
    took_s = time.perf_counter() - started_s
    assert after == before + count, (before, after)
    return count / took_s


def tree(system: Adapter, fast: bool) -> float:  # noqa: ARG001  # the row says how many
    assert isinstance(system, Drumbeat)
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
    "cold_start": cold_start,
    "idle_memory": idle_memory,
    "idle_cpu": idle_cpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("row", choices=[row.name for row in workloads.ROWS])
    parser.add_argument("--fast", action="store_true")
    arguments = parser.parse_args()
    row = next(row for row in workloads.ROWS if row.name == arguments.row)
    if arguments.system not in row.systems:
        parser.error(f"{arguments.system} cannot do {row.name}: {row.title}")
    if arguments.row == "import":
        print(import_time(arguments.system))
        return
    # Told to end, as when it takes too long, it ends its system first.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    system = SYSTEMS[arguments.system]()
    try:
        value = MEASUREMENTS[arguments.row](system, arguments.fast)
    finally:
        system.stop()
    print(value)


if __name__ == "__main__":
    main()
