"""Which part of its rate a program kept under attack: the arithmetic, and the verdict.

Never waits, never measures: what a program told and when parts began and ended comes in.
"""

import statistics
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

KEPT_RATE: Final = 0.8
#: left out of the rate of each part: in that time what was begun before it ends
EDGE_S: Final = 0.5


class Told(NamedTuple):
    """A word of the program."""

    done: int
    wrong: int
    at_s: float


class Part(NamedTuple):
    """A part of a turn: when it was, and the processor time that the scheduler had in it."""

    begun_s: float
    ended_s: float
    busy_s: float


class Turn(NamedTuple):
    """What a turn of quiet, attacked, quiet came to."""

    #: tasks a second
    quiet: tuple[float, float]
    attacked: float
    #: connections, and in how long
    made: int
    lasted_s: float
    #: processor time of the scheduler for each of them: beyond what tasks take in quiet parts
    each_us: float

    @property
    def kept(self) -> float:
        """Which part of the rate was kept: none, if it came to nothing in a quiet part."""
        return self.attacked / statistics.mean(self.quiet) if all(self.quiet) else 0.0

    def words(self) -> str:
        """Return the figures."""
        return (
            f"{self.kept:6.0%}   quiet {statistics.mean(self.quiet):8,.0f}/s  "
            f"attacked {self.attacked:8,.0f}/s  {self.made:6,} connections, "
            f"{self.made / self.lasted_s:6,.0f}/s, of the scheduler {self.each_us:5.0f} us each"
        )


def done_at(told: Sequence[Told], at_s: float) -> float:
    """Return how much was done by then: evenly more between two words, nothing after the last."""
    if not told:
        return 0.0
    later = bisect_right(told, at_s, key=lambda word: word.at_s)
    before, after = told[max(0, later - 1)], told[min(later, len(told) - 1)]
    if before is after:
        return before.done
    share = (at_s - before.at_s) / (after.at_s - before.at_s)
    return before.done + share * (after.done - before.done)


def done_between(told: Sequence[Told], since_s: float, until_s: float) -> float:
    """Return how much was done between two times: a program that stands still does nothing."""
    return done_at(told, until_s) - done_at(told, since_s)


def turn_of(told: Sequence[Told], parts: tuple[Part, Part, Part], made: int) -> Turn:
    """Return what a turn came to.

    Args:
        told: by the program, in order, until some time after the turn.
        parts: quiet, attacked, quiet.
        made: connections, of the attack.
    """
    first, attacked, last = parts
    rates = [
        done_between(told, part.begun_s + EDGE_S, part.ended_s)
        / (part.ended_s - part.begun_s - EDGE_S)
        for part in parts
    ]
    tasks = [done_between(told, part.begun_s, part.ended_s) for part in parts]
    task_s = (first.busy_s + last.busy_s) / max(1.0, tasks[0] + tasks[2])
    each_s = (attacked.busy_s - tasks[1] * task_s) / max(1, made)
    lasted_s = attacked.ended_s - attacked.begun_s
    return Turn((rates[0], rates[2]), rates[1], made, lasted_s, each_s * 1e6)


def complaint(turns: Sequence[Turn]) -> str:
    """Return what is wrong with an attack's turns; "": the program kept its rate."""
    if not all(turn.made for turn in turns):
        return "in one of its turns it made no connection: that was no attack"
    if any(0.0 in turn.quiet for turn in turns):
        return "the program stood still while there was no attack"
    kept = statistics.median(turn.kept for turn in turns)
    return "" if kept >= KEPT_RATE else f"less than {KEPT_RATE:.0%}"
