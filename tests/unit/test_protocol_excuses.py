"""What is said of a scheduler that cannot be reached: the cause, when it changes, not too often."""

import itertools

import pytest
from drumbeat.protocol.dialer import Unreachable
from drumbeat.protocol.excuses import (
    TELL_AFTER_S,
    TELL_AGAIN_MAX_S,
    TELL_EACH_S,
    TOLD_MAX,
    Excuses,
    Stage,
    patience_s,
)

WHERE = "lab1:7788"


def failing(stage: Stage, reason: str = "", now_s: float = 0.0) -> Excuses:
    excuses = Excuses(WHERE)
    excuses.failed(stage, reason, now_s)
    return excuses


def test_nothing_is_said_while_all_is_well() -> None:
    assert Excuses(WHERE).due(99.0) is None


def test_a_scheduler_that_is_away_for_a_moment_goes_unmentioned() -> None:
    excuses = failing(Stage.BEGUN, "nobody listens")
    assert excuses.due(TELL_AFTER_S - 0.1) is None
    excuses.connected()
    assert excuses.due(99.0) is None


def test_what_was_found_out_is_said_once() -> None:
    excuses = failing(Stage.BEGUN, "nobody listens")
    assert excuses.due(TELL_AFTER_S) == Unreachable("nobody listens", "SchedulerUnreachable")
    excuses.failed(Stage.BEGUN, "nobody listens", 50.0)
    assert excuses.due(99.0) is None


def test_a_refused_key_is_said_at_once() -> None:
    told = failing(Stage.KEY_REFUSED).due(0.0)
    assert told is not None
    assert told.error == "KeyRefused"
    assert WHERE in told.reason


def test_another_cause_is_said_but_not_all_the_time() -> None:
    excuses = failing(Stage.BEGUN, "nobody listens")
    assert excuses.due(1.0) is not None
    excuses.failed(Stage.BEGUN, "no route", 2.0)
    assert excuses.due(2.0) is None
    assert excuses.due(1.0 + TELL_EACH_S) == Unreachable("no route")


def told_within(excuses: Excuses, lasts_s: int, reasons: list[str]) -> list[int]:
    """Return when something is said while these causes take turns, each for a second."""
    said = []
    for now_s in range(lasts_s):
        excuses.failed(Stage.BEGUN, reasons[now_s % len(reasons)], 0.0)
        if excuses.due(float(now_s)) is not None:
            said.append(now_s)
    return said


def test_causes_that_take_turns_are_said_ever_more_seldom_and_never_for_the_last_time() -> None:
    excuses = Excuses(WHERE)
    said = told_within(excuses, 6 * 3600, ["no answer", "no route"])
    gaps = [later - earlier for earlier, later in itertools.pairwise(said)]
    assert said[:2] == [1, 1 + TELL_EACH_S]
    assert gaps == sorted(gaps)
    assert len(said) < 45
    assert TELL_AGAIN_MAX_S <= gaps[-1] < TELL_AGAIN_MAX_S + 2
    # A cause that is new waits for none of that, and nor does any after a connection.
    excuses.failed(Stage.BEGUN, "nobody listens", 0.0)
    assert excuses.due_s() == said[-1] + TELL_EACH_S
    excuses.connected()
    assert told_within(excuses, 10, ["no answer", "no route"]) == said[:2]


def test_a_cause_that_reads_differently_each_time_is_said_seldom_too() -> None:
    said = told_within(Excuses(WHERE), 6 * 3600, [f"error {number}" for number in range(9999)])
    assert len(said) < TOLD_MAX + 45


def test_a_refused_key_is_said_at_once_but_not_at_once_again() -> None:
    excuses = failing(Stage.KEY_REFUSED)
    assert excuses.due(0.0) is not None
    excuses.failed(Stage.FULL, "", 0.0)
    assert excuses.due(5.0) is not None
    excuses.failed(Stage.KEY_REFUSED, "", 0.0)
    assert excuses.due(5.0) is None
    assert excuses.due(15.0) is not None


def test_after_a_connection_the_same_cause_is_news_again() -> None:
    excuses = failing(Stage.BEGUN, "nobody listens")
    assert excuses.due(1.0) is not None
    excuses.connected()
    excuses.failed(Stage.BEGUN, "nobody listens", 10.0)
    assert excuses.due(10.0) is None
    assert excuses.due(11.0) is not None


def test_nothing_is_said_before_a_cause_is_known() -> None:
    assert failing(Stage.BEGUN).due(99.0) is None


@pytest.mark.parametrize("stage", [stage for stage in Stage if stage is not Stage.BEGUN])
def test_each_way_to_fail_names_the_scheduler_and_what_to_do_or_expect(stage: Stage) -> None:
    told = failing(stage).due(99.0)
    assert told is not None
    assert f"at {WHERE} " in told.reason
    assert (told.error == "KeyRefused") == (stage is Stage.KEY_REFUSED)


def test_who_is_refused_does_not_come_ten_times_a_second() -> None:
    assert patience_s(Stage.KEY_REFUSED) >= 1.0
    assert patience_s(Stage.FULL) >= 1.0
    assert patience_s(Stage.BEGUN) == 0.0
