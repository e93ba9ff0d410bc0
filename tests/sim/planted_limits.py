"""Bugs in what watches limits, one at a time: worlds with limits must show each.

Never leaves anything changed behind.
"""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.node.limits import LimitsOf
from drumbeat.scheduler.deadlines import Deadlines

from .planted import Planted

Method = Callable[..., Any]


def _does_nothing(_true: Method) -> Method:
    return lambda *_arguments, **_options: None


def _halves(true: Method) -> Method:
    def add(deadlines: Any, limit_s: float, which: int, record: Any) -> None:
        true(deadlines, 0.5 * limit_s, which, record)

    return add


PLANTED_LIMITS: Final[dict[str, Planted]] = {
    "half_the_time": Planted(
        "the scheduler's limits are over too early", Deadlines, "_add", _halves
    ),
    "wait_for_ever": Planted("the wait for a turn has no end", Deadlines, "queued", _does_nothing),
    "no_total": Planted("what is at no node does not end", Deadlines, "_over", _does_nothing),
    "look_away": Planted("a node does not look at limits", LimitsOf, "look", _does_nothing),
}
