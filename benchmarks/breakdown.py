"""Where the time of one task goes: each process's share of the processors, task by task.

    python -m benchmarks.breakdown [--turns N]

Runs no-op tasks one after the other, 20,000 at once, and 200 that compute for 20 ms each, on a
local cluster of two workers. The kernel tells of each thread how long it was on a processor and how
often it came to one. What is left of the time is when nobody of the cluster was on one: of tasks
one after the other mostly waking the next process, of many at once what else the machine did.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import drumbeat

from . import figures, processes, results, workloads
from .measure import WARM_UP_TASKS
from .rows import WORKERS
from .tables import print_columns

TASK_S: Final = 0.020
#: the parties, in the order of a task's way; what is in none of them is "others"
PARTIES: Final = ("program, calling thread", "program, I/O thread", "scheduler", "node", "workers")
OTHERS: Final = "others"
REST: Final = "nobody"
WALL: Final = "the task in all"
#: by name: title, how many tasks, how many of the processors' seconds a second there are for it
WORKS: Final = {
    "one": ("one after the other", 1_000, 1),
    "many": ("20,000 at once", 20_000, WORKERS),
    "long": ("200 of 20 ms", 200, WORKERS),
}

nothing = drumbeat.remote(workloads.nothing)
burn = drumbeat.remote(workloads.burn)


def run(name: str, count: int) -> None:
    """Run the tasks of a work, and wait for all."""
    if name == "one":
        for _ in range(count):
            drumbeat.get(nothing.remote())
    elif name == "many":
        drumbeat.get([nothing.remote() for _ in range(count)])
    else:
        drumbeat.get([burn.remote(TASK_S) for _ in range(count)])


def party_of(pid: int, thread: int) -> str:
    """Return to whom a thread belongs."""
    if pid == os.getpid():
        return PARTIES[0] if thread == pid else PARTIES[1]
    title = Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    if title == "drum:worker":
        return "workers"
    if title == "drum:daemon":
        return "node"
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return "scheduler" if b"drumbeat.scheduler" in words else OTHERS


def on_processors() -> dict[str, tuple[int, int]]:
    """Return of each party how many ns its threads were on a processor, and how often."""
    found = dict.fromkeys((*PARTIES, OTHERS), (0, 0))
    for pid in processes.family():
        for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            try:
                party = party_of(pid, int(path.parent.name))
                ran_ns, _, times = map(int, path.read_text().split())
            except OSError:
                continue  # it has just ended
            before = found[party]
            found[party] = before[0] + ran_ns, before[1] + times
    return found


def turn(name: str) -> dict[str, tuple[float, float]]:
    """Run a work once; return by party the µs a task and how often it came to a processor."""
    _, count, share = WORKS[name]
    before, started_s = on_processors(), time.perf_counter()
    run(name, count)
    wall_us = (time.perf_counter() - started_s) * 1e6 / count * share
    after = on_processors()
    found = {
        party: (
            (after[party][0] - before[party][0]) / 1e3 / count,
            (after[party][1] - before[party][1]) / count,
        )
        for party in after
    }
    if name == "long":  # what a task has asked for is not the cluster's
        wall_us -= TASK_S * 1e6
        found["workers"] = found["workers"][0] - TASK_S * 1e6, found["workers"][1]
    found[REST] = wall_us - sum(us for us, _ in found.values()), 0.0
    found[WALL] = wall_us, 0.0
    return found


def rows_of(found: dict[str, Any], shown: Callable[[list[float]], str]) -> list[list[str]]:
    """Return the lines of a table: a party each, and of each work the µs and how often.

    Args:
        found: by work what its turns have found.
        shown: how figures are written.
    """
    lines = []
    for party in (*PARTIES, OTHERS, REST, WALL):
        line = [party]
        for name in WORKS:
            cells = [turn[party] for turn in found[name]]
            times = statistics.median(times for _, times in cells)
            line += [shown([us for us, _ in cells]), f"{times:.2f}" if times else ""]
        lines.append(line)
    return lines


def heads() -> list[str]:
    """Return what stands above those lines."""
    return ["µs a task", *(word for title, _, _ in WORKS.values() for word in (title, "times"))]


def measured(turns: int) -> dict[str, list[dict[str, tuple[float, float]]]]:
    """Run all works so often, in turn, on a cluster of their own."""
    found: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in WORKS}
    with drumbeat.init(num_cpus=WORKERS):
        drumbeat.get([nothing.remote() for _ in range(WARM_UP_TASKS)])
        drumbeat.get([burn.remote(TASK_S) for _ in range(2 * WORKERS)])
        for _ in range(turns):
            for name in WORKS:
                found[name].append(turn(name))
    return found


def main() -> None:
    """Measure, print and keep it."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--turns", type=int, default=5)
    given = flags.parse_args()
    about = results.machine()
    found = measured(given.turns)
    print_columns(heads(), rows_of(found, figures.shown), left=1)
    print(f"kept in {results.keep('breakdown', about, turns=given.turns, works=found)}")


if __name__ == "__main__":
    main()
