"""Bugs in what watches limits, one at a time: worlds in which calls have limits must show each.

With each stand the seeds that were seen to catch it; one of them has to. Never leaves anything
changed behind.
"""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.node.limits import LimitsOf
from drumbeat.node.stops import Stops
from drumbeat.scheduler.deadlines import Deadlines
from drumbeat.scheduler.doubts import Doubts
from drumbeat.scheduler.work import Work

from .planted import Planted

Method = Callable[..., Any]


def _does_nothing(_true: Method) -> Method:
    return lambda *_arguments, **_options: None


def _halves(true: Method) -> Method:
    def add(deadlines: Any, limit_s: float, which: int, record: Any) -> None:
        true(deadlines, 0.5 * limit_s, which, record)

    return add


def _drops_what_runs(true: Method) -> Method:
    return lambda *_: True


def _goes_on(true: Method) -> Method:
    def retry(work: Any, record: Any, final: Any) -> None:
        if final.failure is not None and final.failure.error == "TaskTimedOut":
            final.failure.error = "WorkerDied"
        true(work, record, final)

    return retry


def _tells_at_once(true: Method) -> Method:
    def condemns(doubts: Any, record: Any, rows: Any, force: bool) -> Any:
        failure = rows[0].failure
        if failure is not None and failure.error == "TaskTimedOut":
            return False
        return true(doubts, record, rows, force)

    return condemns


def _dies_of_it(true: Method) -> Method:
    def end(state: Any, attempt: Any, case: Any, duration_s: float) -> None:
        attempt.case = None
        state.fail(attempt, "WorkerDied", "it was ended", duration_s=duration_s, died=True)

    return end


PLANTED_LIMITS: Final[dict[str, tuple[Planted, list[int]]]] = {
    "half_the_time": (
        Planted("the scheduler's limits are over too early", Deadlines, "_add", _halves),
        [],
    ),
    "wait_for_ever": (
        Planted("the wait for a turn has no end", Deadlines, "queued", _does_nothing),
        [],
    ),
    "no_total": (
        Planted("what is at no node does not end", Deadlines, "_over", _does_nothing),
        [],
    ),
    "look_away": (
        Planted("a node does not look at limits", LimitsOf, "look", _does_nothing),
        [],
    ),
    "tell_at_once": (
        Planted("after a restart it is told of what may yet start", Doubts, "_condemns",
                _tells_at_once),
        [],
    ),
}  # fmt: skip
