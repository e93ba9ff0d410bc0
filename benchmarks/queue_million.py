"""A million tasks in the queue: what each costs, and whether the cluster still answers.

    python benchmarks/queue_million.py [--tasks N]

Both workers are kept busy until everything is queued. Meanwhile another thread asks for the
cluster's status and keeps the time. Then the workers are let go, and the queue runs empty.
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import drumbeat
import psutil
from drumbeat.protocol.session import current

ASK_INTERVAL_S = 0.25
DRAIN_LIMIT_S = 600.0


@drumbeat.remote
def hold(gate: str) -> None:
    """Keep a worker until the file is there."""
    while not Path(gate).exists():
        time.sleep(0.05)


@drumbeat.remote
def nothing() -> None:
    """Do nothing."""


def scheduler() -> psutil.Process:
    """Return the scheduler's process."""
    for process in psutil.Process().children(recursive=True):
        if any(part == "drumbeat.scheduler" for part in process.cmdline()):
            return process
    raise SystemExit("there is no scheduler process below this one")


class Asker(threading.Thread):
    """Asks for the status again and again, and keeps how long each answer took."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.times_s: list[float] = []
        self.answer: dict[str, Any] = {}
        self.over = threading.Event()

    def run(self) -> None:
        """Ask until told that it is over."""
        session = current()
        assert session is not None
        while not self.over.wait(ASK_INTERVAL_S):
            started_s = time.perf_counter()
            self.answer = session.query("status")
            self.times_s.append(time.perf_counter() - started_s)

    def queued(self) -> int:
        """Return how many tasks the last answer counted as queued."""
        return int(self.answer.get("tasks", {}).get("queued", 0))

    def report(self, phase: str) -> None:
        """Print the times since the last report."""
        times_ms = sorted(seconds * 1e3 for seconds in self.times_s) or [0.0]
        self.times_s = []
        middle = statistics.median(times_ms)
        print(
            f"status while {phase}: median {middle:.0f} ms, worst {times_ms[-1]:.0f} ms, "
            f"{len(times_ms)} answers"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=1_000_000)
    count = parser.parse_args().tasks

    with tempfile.TemporaryDirectory() as directory, drumbeat.init(num_cpus=2):
        gate = Path(directory) / "open"
        holders = [hold.remote(str(gate)) for _ in range(2)]
        drumbeat.get(nothing.options(num_cpus=0).remote())
        process, program = scheduler(), psutil.Process()
        asker = Asker()
        asker.start()
        time.sleep(1)
        before, ours_before = process.memory_info().rss, program.memory_info().rss

        started_s = time.perf_counter()
        refs = [nothing.remote() for _ in range(count)]
        submitted_s = time.perf_counter() - started_s
        while asker.queued() < count:
            time.sleep(0.05)
        queued_s = time.perf_counter() - started_s
        after, ours_after = process.memory_info().rss, program.memory_info().rss
        print(
            f"{count:,} tasks submitted in {submitted_s:.1f} s, all queued after {queued_s:.1f} s"
        )
        print(f"scheduler: {(after - before) / count:.0f} bytes a queued task")
        print(f"program: {(ours_after - ours_before) / count:.0f} bytes a queued task")
        asker.report("the queue fills")
        time.sleep(3)
        asker.report("the queue is full")

        gate.touch()
        started_s = time.perf_counter()
        drumbeat.get(refs, timeout=DRAIN_LIMIT_S)
        took_s = time.perf_counter() - started_s
        print(f"run in {took_s:.1f} s: {count / took_s:,.0f} tasks a second")
        asker.report("the queue empties")
        drumbeat.get(holders)
        asker.over.set()
        asker.join()


if __name__ == "__main__":
    main()
