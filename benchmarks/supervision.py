"""What supervision costs a task: instructions in the node's core and in a worker's loop.

    python -m benchmarks.supervision [--tasks N] [--rate R]

Each runs no-op tasks as shipped, and again with supervision taken out (see unsupervised.py), under
callgrind, which counts instructions: the figures hardly change from run to run, whatever else the
machine does. The clock of what is counted goes as real time would at full load, so that there are
as many looks, beats and pulses a task as there.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
#: supervision may cost so much more
BUDGET = 0.03
#: tasks a second of a node; fewer make supervision dearer, since its looks are by time
RATE = 10_000.0
#: of a node
WORKERS = 2
LIMIT_S = 900.0
TITLES = f"{'':14}{'supervised':>12}{'without':>12}{'added':>10}{'ratio':>9}{'share':>9}"
_COLLECTED = re.compile(r"Collected : (\d+)")


class Cost(NamedTuple):
    """Instructions a task."""

    supervised: float
    bare: float

    @property
    def added(self) -> float:
        """What supervision adds."""
        return self.supervised - self.bare

    @property
    def ratio(self) -> float:
        """How many times as much it is with supervision."""
        return self.supervised / self.bare

    def line(self, name: str) -> str:
        """Return it in figures."""
        return (
            f"{name:14}{self.supervised:12,.0f}{self.bare:12,.0f}{self.added:10,.0f}"
            f"{self.ratio:9.4f}{self.added / self.supervised:9.2%}"
        )


def missing() -> str:
    """Return why nothing can be counted here; "": it can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed: instructions cannot be counted here"
    return ""


def counted(room: str, supervision: str, tasks: int, rate: float) -> int:
    """Return the instructions of a room with so many tasks; see unsupervised.py.

    Raises:
        RuntimeError: it failed; says what it said.
    """
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [sys.executable, "-m", "benchmarks.unsupervised"]
    done = subprocess.run(
        [*command, room, supervision, str(tasks), str(rate)],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, timeout=LIMIT_S,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = _COLLECTED.search(done.stderr)
    if done.returncode or found is None:
        raise RuntimeError(f"{' '.join(done.args)}: exit code {done.returncode}\n{done.stderr}")
    return int(found[1])


def costs_of(tasks: int, rate: float) -> dict[str, Cost]:
    """Return what a task costs each room, without its start: that of twice as many, less that."""
    rates = {"core": rate, "worker": rate / WORKERS}
    rooms = [
        ("core", "on"),
        ("core", "off"),
        ("core", "around"),
        ("worker", "on"),
        ("worker", "off"),
    ]
    # What is counted does not depend on what else runs.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {
            (*room, times): pool.submit(counted, *room, times * tasks, rates[room[0]])
            for room in rooms
            for times in (2, 1)
        }
    each = {room: (runs[*room, 2].result() - runs[*room, 1].result()) / tasks for room in rooms}
    # The core is driven by a loop of ours, which counts as nothing.
    around = each["core", "around"] - each["core", "on"]
    costs = {
        "node core": Cost(each["core", "on"] - around, each["core", "off"] - around),
        "worker's loop": Cost(each["worker", "on"], each["worker", "off"]),
    }
    return costs | {"both": Cost(*(sum(column) for column in zip(*costs.values(), strict=True)))}


def main() -> int:
    """Count and print; return 1 if it is over the budget, 2 if nothing can be counted."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--tasks", type=int, default=10_000, help="counted, of each room")
    flags.add_argument("--rate", type=float, default=RATE, help="tasks a second of the node")
    given = flags.parse_args()
    if reason := missing():
        print(reason, file=sys.stderr)
        return 2
    print(f"instructions a task, no-op tasks, {given.rate:,.0f} a second on {WORKERS} workers")
    costs = costs_of(given.tasks, given.rate)
    print(TITLES)
    for name, cost in costs.items():
        print(cost.line(name))
    over = costs["both"].ratio > 1.0 + BUDGET
    print(f"budget of a task: at most {BUDGET:.0%} more; {'over it' if over else 'kept'}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
