"""How fast large values move: put and got, read by tasks, written to by them, returned.

    python -m benchmarks.objects [--mib 100] [--result-mib 100] [--readers 10] [--repeats 9]

On a cluster of one node on this machine. Every figure includes that each page of what arrives is
read once, since a value that is only mapped has not arrived yet. Beside each goes a copy of as many
bytes within one process (warm, into memory that is there), taken right before it: machines differ
and are busy, so it is the ratio that can be compared. The column `cold` is the first time of all,
into memory that has to be had from the system first; a few more go before what is measured.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import drumbeat
import numpy as np

WORKERS = 2
WITHIN_S = 600.0
MIB = 1 << 20
PAGE_BYTES = 4096
#: so often each is done before it is measured
WARM_UPS = 4

#: what a worker has made to return it: making it is not what is measured
made: Any = None


def read(array: Any) -> int:
    """Read something of each page."""
    return int(array[::PAGE_BYTES].sum())


def write(array: Any) -> int:
    """Write into each page, and read what is there then."""
    array[::PAGE_BYTES] += 1
    return read(array)


def give(size: int) -> Any:
    """Return an array of so many bytes, the same again and again."""
    global made  # noqa: PLW0603  # kept by the worker from call to call
    if made is None or made.size != size:
        made = np.ones(size, np.uint8)
    return made


class Measured:
    """What one way of moving bytes has taken, and copies of as many bytes beside it."""

    def __init__(self, name: str, size: int, times: int = 1) -> None:
        self.name = name
        #: of the value, and how often it arrives
        self.size, self.times = size, times
        #: the first time
        self.cold_s = 0.0
        self.took_s: list[float] = []
        self.copied_s: list[float] = []

    def told(self) -> str:
        """Return a row of the table."""
        carried = self.size * self.times / 1e9
        ratio = statistics.median(
            copied_s * self.times / took_s
            for copied_s, took_s in zip(self.copied_s, self.took_s, strict=True)
        )
        typical, best = carried / statistics.median(self.took_s), carried / min(self.took_s)
        copy = self.size / 1e9 / statistics.median(self.copied_s)
        size = f"{self.times} x {self.size / MIB:.0f} MiB"
        rates = f"{carried / self.cold_s:9.2f}{typical:9.2f}{best:9.2f}{copy:9.2f}"
        return f"{self.name:28}{size:>14}{rates}{ratio:8.2f}"


HEAD = f"{'GB/s':28}{'':>14}{'cold':>9}{'median':>9}{'best':>9}{'memcpy':>9}{'ratio':>8}"


def cases(
    size: int, result_size: int, readers: int
) -> Iterator[tuple[Measured, Callable[[], None]]]:
    """Yield each case with what is to be timed."""
    array = np.ones(size, np.uint8)
    pages = read(array)
    reads, writes, gives = drumbeat.remote(read), drumbeat.remote(write), drumbeat.remote(give)

    def put_and_get() -> None:
        assert read(drumbeat.get(drumbeat.put(array))) == pages

    yield Measured("put and get", size), put_and_get

    ref = drumbeat.put(array)

    def by_reference() -> None:
        found = drumbeat.get([reads.remote(ref) for _ in range(readers)], timeout=WITHIN_S)
        assert found == [pages] * readers

    yield Measured("put once, read by tasks", size, readers), by_reference

    def by_value() -> None:
        assert drumbeat.get(reads.remote(array), timeout=WITHIN_S) == pages

    yield Measured("an argument, read", size), by_value

    def written_to() -> None:
        assert drumbeat.get(writes.remote(array), timeout=WITHIN_S) == 2 * pages
        assert read(array) == pages, "the caller's own stays as it was"

    yield Measured("an argument, written to", size), written_to

    def result() -> None:
        # Either worker may be asked, and each has made its own by now.
        assert read(drumbeat.get(gives.remote(result_size), timeout=WITHIN_S)) > 0

    for _ in range(WORKERS):
        drumbeat.get([gives.remote(result_size) for _ in range(WORKERS)], timeout=WITHIN_S)
    yield Measured("a result", result_size), result

    def results() -> None:
        found = [gives.remote(result_size) for _ in range(readers)]
        assert all(map(read, drumbeat.get(found, timeout=WITHIN_S)))

    yield Measured("results, gathered", result_size, readers), results


def main() -> None:
    """Measure each case so many times, and print a table."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--mib", type=int, default=100, help="of a value")
    flags.add_argument("--result-mib", type=int, default=100, help="of a result")
    flags.add_argument(
        "--readers",
        type=int,
        default=10,
        help="tasks that read one value, and results that are gathered",
    )
    flags.add_argument("--repeats", type=int, default=9)
    given = flags.parse_args()
    largest = max(given.mib, given.result_mib) * MIB
    source = np.ones(largest, np.uint8)
    target = np.ones(largest, np.uint8)
    print(HEAD)
    with drumbeat.init(num_cpus=WORKERS):
        for measured, work in cases(given.mib * MIB, given.result_mib * MIB, given.readers):
            begun_s = time.perf_counter()
            work()
            measured.cold_s = time.perf_counter() - begun_s
            for _ in range(WARM_UPS):
                work()
            for _ in range(given.repeats):
                begun_s = time.perf_counter()
                np.copyto(target[: measured.size], source[: measured.size])
                copied_s = time.perf_counter()
                work()
                measured.took_s.append(time.perf_counter() - copied_s)
                measured.copied_s.append(copied_s - begun_s)
            print(measured.told(), flush=True)


if __name__ == "__main__":
    main()
