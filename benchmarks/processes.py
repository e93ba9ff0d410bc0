"""What processes cost: their memory and their time on the cores, read from /proc."""

import os
import time
from pathlib import Path


def family() -> list[int]:
    """Return this process and all processes below it. Read without psutil, which costs memory."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_the_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        parents[int(stat.parent.name)] = int(after_the_name[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def pss_bytes(pids: list[int]) -> int:
    """Return the proportional set size of processes: pages that are shared count once in all."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_s(pids: list[int]) -> float:
    """Return how long the threads of processes have been on a core, to the nanosecond."""
    total = 0
    for pid in pids:
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            total += int(schedstat.read_text().split()[0])
    return total / 1e9


def cpu_percent(pids: list[int], seconds: float) -> float:
    """Return how much of a core processes use over so many seconds."""
    before_s, started_s = cpu_s(pids), time.perf_counter()
    time.sleep(seconds)
    return 100 * (cpu_s(pids) - before_s) / (time.perf_counter() - started_s)
