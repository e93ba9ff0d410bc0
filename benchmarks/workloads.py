"""What the benchmarks run: plain functions that every system is given alike, and their rows."""

import time
from dataclasses import dataclass


def nothing() -> None:
    """Do nothing: what is left is the price of the call."""


def one(leaf: int) -> int:
    """Return what was given."""
    return leaf


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


def fail(number: int) -> None:
    """Raise an exception of an everyday kind."""
    raise ValueError(f"task {number} was told to fail")


def burn(seconds: float) -> None:
    """Use so much time of a core: computing, not sleeping."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


class Counter:
    """State in place: what an actor is measured with."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        """Count one more."""
        self.count += 1
        return self.count


#: the systems that can do everything
EVERYONE = ("drumbeat", "executor", "pool")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str
    #: which way is better
    more_is_better: bool = False
    #: the systems that can do it
    systems: tuple[str, ...] = EVERYONE
    #: budgets: Drumbeat's figure is to be at most so many times another system's
    at_most: tuple[tuple[str, float], ...] = ()


ROWS = (
    Row(
        "round_trip",
        "no-op task, round trip, median",
        "ms",
        systems=(*EVERYONE, "bare", "network"),
        at_most=(("bare", 1.6), ("executor", 1.29)),
    ),
    Row(
        "throughput",
        "20,000 no-op tasks, submit and gather",
        "tasks/s",
        more_is_better=True,
        systems=(*EVERYONE, "network"),
    ),
    Row(
        "actor_round_trip",
        "call of an actor's method, round trip, median",
        "ms",
        systems=("drumbeat", "network"),
    ),
    Row(
        "actor_calls",
        "10,000 calls of one actor, submit and gather",
        "calls/s",
        more_is_better=True,
        systems=("drumbeat", "network"),
    ),
    Row("tree", "tree reduce, 4,096 leaves, refs as arguments", "s", systems=("drumbeat",)),
    Row("errors", "1,000 tasks that raise", "s"),
    Row("efficiency", "20 ms tasks on 2 workers, efficiency", "", more_is_better=True),
    Row("cold_start", "cold start to first result", "s"),
    Row("import", "import", "ms"),
    Row("idle_memory", "idle memory, all processes with the program (PSS)", "MB"),
    Row("idle_cpu", "idle CPU, all processes with the program", "% of a core"),
)
