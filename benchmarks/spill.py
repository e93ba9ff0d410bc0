"""More large values than memory may have: put, spilled, read by the program and by tasks.

    python -m benchmarks.spill [--objects 1000] [--mb 10] [--store-mb 1000] [--directory DIR]

On a cluster of one node on this machine. It fails if a value is not what it was, and says what
memory the processes have taken, and what is left at the end.
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import psutil

MB = 1_000_000
PAGE_BYTES = 4096
#: values that tasks read at a time
AT_ONCE = 20
WITHIN_S = 600.0
#: until what has gone is known to have gone everywhere, and memory kept for more is given back
SETTLED_S = 6.0


def made(number: int, size: int) -> Any:
    """Return an array that says in each page which one it is."""
    array = np.zeros(size, np.uint8)
    array[::PAGE_BYTES] = np.arange(len(array[::PAGE_BYTES])) % 251
    array[:8] = np.frombuffer(number.to_bytes(8, "little"), np.uint8)
    return array


def is_good(array: Any, number: int) -> bool:
    """Return whether an array is what it was."""
    return bool(np.array_equal(array, made(number, array.size)))


def own_bytes(pid: int) -> int:
    """Return how much memory a process has that is its own."""
    return int(psutil.Process(pid).memory_full_info().uss)


def segments_of(pid: int) -> int:
    """Return how many files of large values a process has, in memory or without a name on disk."""
    count = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            count += "drumbeat-segment" in os.readlink(fd) or "(deleted)" in os.readlink(fd)
        except OSError:
            continue  # closed meanwhile
    return count


def run(cluster: Any, objects: int, size: int) -> None:
    """Put all, read all, and print what that took."""
    scheduler = cluster.processes["scheduler"]
    before, others = own_bytes(scheduler), segments_of(os.getpid())
    begun_s = time.perf_counter()
    refs = [drumbeat.put(made(number, size)) for number in range(objects)]
    put_s = time.perf_counter() - begun_s
    total = objects * size / 1e9
    print(f"put: {objects:,} x {size / MB:g} MB in {put_s:.1f} s ({total / put_s:.2f} GB/s)")
    begun_s = time.perf_counter()
    for number, ref in enumerate(refs):
        assert is_good(drumbeat.get(ref), number), f"{number} is not what it was"
    read_s = time.perf_counter() - begun_s
    print(f"read back by the program: {read_s:.1f} s ({total / read_s:.2f} GB/s)")
    begun_s = time.perf_counter()
    check = drumbeat.remote(is_good)
    for first in range(0, objects, AT_ONCE):
        some = range(first, min(objects, first + AT_ONCE))
        good = drumbeat.get([check.remote(refs[at], at) for at in some], timeout=WITHIN_S)
        assert all(good), f"one of {some} is not what it was"
    task_s = time.perf_counter() - begun_s
    print(f"read by tasks: {task_s:.1f} s ({total / task_s:.2f} GB/s)")
    after = own_bytes(scheduler)
    print(f"the scheduler's own memory: {before / MB:.1f} MB before, {after / MB:.1f} MB after")
    mine = segments_of(os.getpid()) - others
    print(f"the program has {mine:,} files of values open, in memory and on disk")
    del ref
    refs.clear()
    time.sleep(SETTLED_S)
    left = segments_of(os.getpid()) - others
    assert not left, f"{left} files are left open"
    print("none of them is left when nobody holds the values")


def main() -> None:
    """Run it once, and look for what is left."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--objects", type=int, default=1000)
    flags.add_argument("--mb", type=float, default=10.0, help="of a value")
    flags.add_argument("--store-mb", type=int, default=1000, help="memory for values")
    flags.add_argument("--directory", default="", help="where values go to disk")
    given = flags.parse_args()
    size = int(given.mb * MB)
    free_before = psutil.virtual_memory().shared
    settings = {"store_bytes_max": given.store_mb * MB, "spill_directory": given.directory}
    with drumbeat.init(num_cpus=2, **settings) as cluster:
        run(cluster, given.objects, size)
    grown = psutil.virtual_memory().shared - free_before
    print(f"shared memory of the machine at the end: {grown / MB:+.1f} MB")


if __name__ == "__main__":
    main()
