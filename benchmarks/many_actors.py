"""What a small actor costs a node: memory and time, for a thousand of them.

    python -m benchmarks.many_actors [--actors 1000]

A counter each, on a cluster of one node on this machine. Memory is the proportional set size of
all processes with the program: what workers share counts once.
"""

import argparse
import gc
import statistics
import time
from typing import Any

import drumbeat

from . import processes
from .workloads import Counter

#: calls are timed on so many of them
TIMED_MAX = 200
WITHIN_S = 600.0


def rested_bytes() -> int:
    """Return what all processes use together, once what has just happened is over."""
    gc.collect()
    time.sleep(1.0)
    return processes.pss_bytes(processes.family())


def main() -> None:
    """Make them, call them, end them, and print what it took."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--actors", type=int, default=1_000)
    count = flags.parse_args().actors
    counters: Any = drumbeat.remote(Counter)
    with drumbeat.init(num_cpus=2):
        first = counters.remote()
        drumbeat.get(first.add.remote())
        base_bytes, base = rested_bytes(), len(processes.family())

        begun_s = time.perf_counter()
        actors = [counters.remote() for _ in range(count)]
        answers = drumbeat.get([actor.add.remote() for actor in actors], timeout=WITHIN_S)
        made_s = time.perf_counter() - begun_s
        assert answers == [1] * count, "each has counted its own call, and no other"

        used_bytes = rested_bytes() - base_bytes
        used_s = processes.cpu_percent(processes.family(), 3.0) / 100

        begun_s = time.perf_counter()
        answers = drumbeat.get([actor.add.remote() for actor in actors], timeout=WITHIN_S)
        all_s = time.perf_counter() - begun_s
        assert answers == [2] * count
        times_s = []
        for actor in actors[:TIMED_MAX]:
            begun_s = time.perf_counter()
            drumbeat.get(actor.add.remote())
            times_s.append(time.perf_counter() - begun_s)

        begun_s = time.perf_counter()
        del actor, actors
        while len(processes.family()) > base:
            if time.perf_counter() - begun_s > WITHIN_S:
                raise RuntimeError(f"{len(processes.family()) - base} processes have not ended")
            time.sleep(0.05)
        ended_s = time.perf_counter() - begun_s
    print(f"{count:,} small actors on one node, each:")
    print(f"  memory (PSS)                        {used_bytes / count / 1e6:8.2f} MB")
    print(f"  from creation to its first answer   {made_s / count * 1e3:8.2f} ms")
    print(f"  one more call, all of them at once  {all_s / count * 1e3:8.2f} ms")
    print(f"  one more call, round trip, median   {statistics.median(times_s) * 1e3:8.2f} ms")
    print(f"  its end, once its handle is gone    {ended_s / count * 1e3:8.2f} ms")
    print(f"all of them idle: {used_s:.1%} of a core; they began in {made_s:.1f} s")


if __name__ == "__main__":
    main()
