"""One real scheduler with many real node daemons on this machine: what dispatch costs there.

    python -m benchmarks.scale_real [--nodes 1,10,50] [--tasks 20000] [--turns 3]

Every node is a daemon with its keeper, template and one worker, all on this machine's cores: the
cluster as a whole cannot be faster than these. So what counts is the processor's time that the
scheduler spends on a task, however many nodes there are, and on their beats while all are idle.
Nothing is begun that would not fit into the memory that is available.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import figures, processes, results
from .tables import print_columns, tell

NODES = (1, 10, 50)
#: of a node with its worker, and left to the rest of the machine
NODE_BYTES, SPARE_BYTES = 80 << 20, 2 << 30
ROUND_TRIPS = 300
IDLE_S = 5.0
LIMIT_S = 600.0
SCHEDULER = "drumbeat.scheduler"


def available_bytes() -> int:
    """Return how much memory programs may still have."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def too_many(nodes: int) -> str:
    """Return why so many nodes are not started here; "": they fit."""
    needs, there = nodes * NODE_BYTES + SPARE_BYTES, available_bytes()
    if needs > there:
        return f"{nodes} nodes need {needs >> 20} MB, and {there >> 20} MB are available"
    return ""


def scheduler_of(pids: Sequence[int]) -> int:
    """Return which of these processes is the scheduler."""
    for pid in pids:
        if SCHEDULER.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
            return pid
    raise RuntimeError("there is no scheduler process below this one")


def measure(nodes: int, tasks: int) -> dict[str, Any]:
    """Measure so many nodes, in this process."""
    import drumbeat

    from .workloads import nothing

    begun_s = time.perf_counter()
    with drumbeat.init(num_cpus=1, nodes=nodes):
        remote: Any = drumbeat.remote(nothing)
        drumbeat.get(remote.remote())
        started_s = time.perf_counter() - begun_s
        # Enough for a worker on each node, and for durations to be known.
        for _ in range(3):
            drumbeat.get([remote.remote() for _ in range(max(2_000, 40 * nodes))])
        family = processes.family()
        scheduler = [scheduler_of(family)]

        trips_s = []
        for _ in range(ROUND_TRIPS):
            at_s = time.perf_counter()
            drumbeat.get(remote.remote())
            trips_s.append(time.perf_counter() - at_s)

        before_s, at_s = processes.cpu_s(scheduler), time.perf_counter()
        drumbeat.get([remote.remote() for _ in range(tasks)])
        took_s = time.perf_counter() - at_s
        spent_s = processes.cpu_s(scheduler) - before_s
        time.sleep(1.0)
        idle_percent = processes.cpu_percent(scheduler, IDLE_S)
        memory_bytes = processes.pss_bytes(processes.family())
        used = sum(bool(row["workers"]) for row in drumbeat.nodes())
    return {
        "started_s": started_s,
        "round_trip_ms": statistics.median(trips_s) * 1e3,
        "tasks_per_s": tasks / took_s,
        "scheduler_us": spent_s / tasks * 1e6,
        "scheduler_idle_percent": idle_percent,
        "memory_mb": memory_bytes / 1e6,
        "nodes_with_workers": used,
    }


COLUMNS = {
    "started_s": "first result after s",
    "round_trip_ms": "round trip ms",
    "tasks_per_s": "tasks/s",
    "scheduler_us": "scheduler, µs a task",
    "scheduler_idle_percent": "scheduler idle, % of a core",
    "memory_mb": "memory of all, MB",
    "nodes_with_workers": "nodes with workers",
}


def main() -> int:
    """Measure all, each in a fresh process; return 1 if something failed."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--nodes", default=",".join(map(str, NODES)))
    flags.add_argument("--tasks", type=int, default=20_000)
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--one", type=int, metavar="NODES", help="print these as JSON")
    given = flags.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.tasks)))
        return 0
    about, wrong = results.machine(), 0
    counts = [int(part) for part in given.nodes.split(",")]
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(given.turns):
        for count in counts:
            tell(f"turn {turn + 1}/{given.turns}: {count} nodes")
            if why := too_many(count):
                print(f"{count} nodes: not measured: {why}", file=sys.stderr)
                wrong = 1
                continue
            done = subprocess.run(
                [
                    sys.executable, "-m", "benchmarks.scale_real",
                    "--one", str(count), "--tasks", str(given.tasks),
                ],
                cwd=results.ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
            )  # fmt: skip
            if done.returncode:
                print(f"{count} nodes: failed:\n{done.stderr[-2000:]}", file=sys.stderr)
                wrong = 1
                continue
            for key, value in json.loads(done.stdout).items():
                found.setdefault(str(count), {}).setdefault(key, []).append(value)
    tell("")
    print_columns(
        ["nodes", *COLUMNS.values()],
        [
            [nodes, *(figures.shown(values[key]) for key in COLUMNS)]
            for nodes, values in found.items()
        ],
    )
    print(f"kept in {results.keep('scale_real', about, nodes=found, tasks=given.tasks)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
