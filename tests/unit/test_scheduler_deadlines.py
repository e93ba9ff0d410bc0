"""The limits that the scheduler watches: the wait for a turn, and the time of all attempts."""

import pytest
from drumbeat.protocol.ids import TaskId
from drumbeat.protocol.limits import TIMED_OUT, Limits
from drumbeat.protocol.messages import (
    Beat,
    Outcome,
    Retried,
    Stop,
    StopMode,
)
from drumbeat.protocol.running import RunningRow
from drumbeat.scheduler import events
from support.limited import Limited, timed_out
from support.scheduling import Stage, died, error_done, failure_done, ids_of

# --------------------------------------------------------------------------------- at the scheduler


def test_what_does_not_start_in_time_is_told_and_never_starts() -> None:
    limited = Limited(queue_timeout_s=2.0, num_cpus=4)
    stage = limited.stage
    stage.live(1.9)
    assert limited.failures() == {}
    assert stage.core.deadline_s() == pytest.approx(102.0)
    stage.live(0.2)
    failure = limited.failure()
    assert failure.error == "TaskTimedOut"
    assert "did not start within its queue_timeout of 2 s" in failure.text
    assert "a node with CPU 4 to spare" in str(failure.details["verdict"])
    assert (failure.details["limit"], failure.details["limit_s"]) == ("queue_timeout", 2.0)
    assert failure.details["elapsed_s"] == pytest.approx(2.0, abs=0.3)
    assert stage.at_rest()
    node = stage.node(cpus=8)
    stage.live(1.0)
    assert not stage.assigned(node)


def test_the_wait_for_arguments_is_none_for_a_turn() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    first, second = ids_of(client, 2)
    stage.submit(client, stage.define(client), [first])
    kind = stage.define(client, limits=Limits(queue_timeout_s=1.0))
    stage.submit(client, kind, [second], deps=(first,))
    stage.live(5.0)
    (row,) = stage.assigned(node)
    assert stage.results(client) == {}
    other = stage.define(client, num_cpus=1, priority=1)
    (urgent,) = [TaskId(b"cccccc" + b"\0" * 3 + b"\0\0\0\0\7")]
    stage.submit(client, other, [urgent])
    stage.finish(node, [row])
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [urgent]
    stage.live(0.9)
    assert second not in stage.results(client)
    stage.live(0.3)
    assert stage.results(client)[second].failure.error == "TaskTimedOut"  # type: ignore[union-attr]


def test_the_time_of_all_attempts_counts_from_the_submission() -> None:
    limited = Limited(cpus=1, total_timeout_s=3.0, max_retries=5)
    stage = limited.stage
    for attempt in (1, 2):
        (row,) = limited.given()
        assert row.attempt == attempt
        stage.live(1.0)
        assert limited.node is not None
        stage.done(limited.node, died(row))
        stage.turn()
        stage.live(0.25)
    assert limited.failures() == {}
    (row,) = limited.given()
    stage.live(0.75)
    assert limited.stops() == [(limited.ids[0], StopMode.SOFT, TIMED_OUT)]
    assert limited.failures() == {}
    assert limited.node is not None
    stage.done(limited.node, timed_out(row, "total_timeout", b"best so far"))
    stage.turn()
    result = stage.results(limited.client)[limited.ids[0]]
    assert result.failure is not None
    assert (result.failure.error, result.payload) == ("TaskTimedOut", b"best so far")
    assert result.failure.details["pid"] == 7
    assert stage.at_rest()


def test_what_waits_for_arguments_when_its_time_is_over_ends_at_once() -> None:
    stage = Stage()
    client = stage.client()
    first, second = ids_of(client, 2)
    stage.submit(client, stage.define(client), [first])
    kind = stage.define(client, limits=Limits(total_timeout_s=1.0))
    stage.submit(client, kind, [second], deps=(first,))
    stage.live(1.3)
    failure = stage.results(client)[second].failure
    assert failure is not None
    assert "waited for its arguments" in str(failure.details["verdict"])


def test_what_waits_for_a_node_when_its_time_is_over_ends_at_once() -> None:
    limited = Limited(total_timeout_s=1.0)
    limited.stage.live(1.3)
    failure = limited.failure()
    assert failure.error == "TaskTimedOut"
    assert "no outcome within its total_timeout of 1 s" in failure.text
    assert limited.stage.at_rest()


def test_what_pauses_before_its_next_attempt_when_its_time_is_over_ends_at_once() -> None:
    limited = Limited(cpus=1, total_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    assert node is not None
    stage.live(0.95)
    stage.done(node, died(limited.given()[0]))
    stage.turn()
    stage.live(0.1, 0.05)
    stage.turn()
    assert limited.given() == []
    assert "was to begin after a pause" in str(limited.failure().details["verdict"])
    assert stage.at_rest()


# --------------------------------------------------------------------------------------- at a node


def test_its_node_drops_what_has_not_started_when_its_wait_is_over() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    stage.live(1.2)
    assert limited.stops() == [(limited.ids[0], StopMode.UNSTARTED, TIMED_OUT)]
    assert node is not None
    stage.done(node, failure_done(row, "TaskCancelled", duration_s=-1.0))
    stage.turn()
    assert limited.failure().error == "TaskTimedOut"
    assert stage.at_rest()


def test_what_has_started_goes_on_however_long_it_had_waited() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.2)
    assert limited.stops()  # nobody had said that it runs: its node knows
    stage.beat(node, (row.id, 1, 0.9))
    stage.live(5.0)
    stage.finish(node, [row])
    stage.turn()
    assert limited.failures() == {limited.ids[0]: None}
    assert stage.at_rest()


def test_a_node_that_says_that_it_runs_is_not_asked() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.beat(node, (row.id, 1, 0.1))
    stage.live(2.0)
    assert limited.stops() == []


def test_who_lies_untouched_in_a_worker_does_not_run() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.say(node, Beat(0.0, 1, 0, [RunningRow(row.id, 1, 0.1, "idle", "loop-blocked")]))
    stage.live(2.0)
    assert limited.stops() == [(row.id, StopMode.UNSTARTED, TIMED_OUT)]


def test_what_comes_back_unstarted_after_its_wait_ends() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.2)
    stage.taken_back(node, row)
    stage.turn()
    assert limited.failure().error == "TaskTimedOut"
    assert stage.at_rest()


def test_what_comes_back_before_that_has_only_the_rest_of_its_time() -> None:
    limited = Limited(cpus=1, queue_timeout_s=2.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.5)
    stage.taken_back(node, row)
    stage.turn()
    assert [row.attempt for row in limited.given()] == [1]
    stage.live(0.4)
    assert limited.stops() == []
    stage.live(0.3)
    assert limited.stops() == [(limited.ids[0], StopMode.UNSTARTED, TIMED_OUT)]


def test_the_wait_counts_for_the_first_attempt_alone() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0, max_retries=3)
    stage, node = limited.stage, limited.node
    assert node is not None
    stage.live(0.5)
    stage.done(node, died(limited.given()[0]))
    stage.turn()
    stage.live(0.25)
    (row,) = limited.given()
    assert row.attempt == 2
    stage.live(5.0)
    assert limited.stops() == []
    stage.finish(node, [row])
    stage.turn()
    assert limited.failures() == {limited.ids[0]: None}


def test_a_value_that_was_there_already_is_a_value() -> None:
    limited = Limited(cpus=1, total_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.2)
    assert limited.stops()
    stage.finish(node, [row])
    stage.turn()
    assert limited.failures() == {limited.ids[0]: None}
    assert stage.at_rest()


def test_an_error_of_the_users_stays_one() -> None:
    limited = Limited(cpus=1, total_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.2)
    stage.done(node, error_done(row))
    stage.turn()
    assert stage.results(limited.client)[limited.ids[0]].outcome == Outcome.ERROR


def test_when_its_node_is_lost_after_its_time_it_has_no_further_attempt() -> None:
    limited = Limited(cpus=1, total_timeout_s=1.0, max_retries=5)
    stage, node = limited.stage, limited.node
    assert node is not None
    limited.given()
    stage.live(1.2)
    stage.live(15.0, 0.25, node)
    failure = limited.failure()
    assert failure.error == "TaskTimedOut"
    assert "node 'n'" in failure.text
    assert stage.take(limited.client, Retried) == []
    assert stage.at_rest()


@pytest.mark.parametrize("dies", [False, True])
def test_a_task_that_its_node_ended_for_its_timeout_is_never_tried_again(dies: bool) -> None:
    limited = Limited(cpus=1, timeout_s=1.0, max_retries=5)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.done(node, timed_out(row, "timeout", died=dies))
    stage.turn()
    assert limited.failure().details["limit"] == "timeout"
    assert stage.take(limited.client, Retried) == []
    assert stage.at_rest()


def test_what_a_timed_out_task_had_submitted_is_cancelled() -> None:
    limited = Limited(cpus=1, timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    (child,) = ids_of(node, 1, worker=1)
    kind = stage.define(node, limited.client, name="child")
    stage.submit(node, kind, [child], limited.client, row.id, 1)
    stage.done(node, timed_out(row, "timeout"))
    stage.turn()
    failure = stage.results(node)[child].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"


def test_a_cancel_that_came_first_is_what_is_told() -> None:
    limited = Limited(cpus=1, total_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.cancel(limited.client, row.id)
    stage.live(1.2)
    assert [mode for _, mode, _ in limited.stops()] == [StopMode.SOFT]
    stage.done(node, failure_done(row, "TaskCancelled"))
    stage.turn()
    assert limited.failure().error == "TaskCancelled"


def test_what_is_cancelled_while_its_node_looks_whether_it_has_started_is_cancelled() -> None:
    limited = Limited(cpus=1, queue_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    (row,) = limited.given()
    assert node is not None
    stage.live(1.2)
    stage.cancel(limited.client, row.id)
    stage.turn()
    assert [mode for _, mode, _ in limited.stops()] == [StopMode.UNSTARTED, StopMode.SOFT]
    stage.done(node, failure_done(row, "TaskCancelled"))
    stage.turn()
    assert limited.failure().error == "TaskCancelled"
    assert stage.at_rest()


def test_cancels_and_limits_go_in_messages_of_their_own() -> None:
    limited = Limited(cpus=2, count=2, total_timeout_s=1.0)
    stage, node = limited.stage, limited.node
    assert node is not None
    limited.given()
    stage.now_s += 1.1
    stage.cancel(limited.client, limited.ids[0])
    stage.turn()
    told = {message.reason: message.rows for message in stage.take(node, Stop)}
    assert {reason: [row[0] for row in rows] for reason, rows in told.items()} == {
        "cancelled": [limited.ids[0]],
        "timed_out": [limited.ids[1]],
    }


# ------------------------------------------------------------------------------------- many of them


def test_thousands_with_limits_leave_nothing_behind() -> None:
    limited = Limited(cpus=4, count=2000, total_timeout_s=500.0, queue_timeout_s=400.0)
    stage, node = limited.stage, limited.node
    assert node is not None
    done = 0
    while done < 2000:
        rows = limited.given()
        stage.finish(node, rows, 0.0001)
        stage.turn(0.001)
        done += len(rows)
    assert stage.at_rest()
    assert set(limited.failures().values()) == {None}


def test_time_in_which_the_scheduler_was_away_does_not_count() -> None:
    limited = Limited(total_timeout_s=2.0)
    stage = limited.stage
    stage.now_s += 20.0
    stage.event(events.TimePassed(19.5))
    stage.turn()
    assert limited.failures() == {}
    stage.live(1.4)
    assert limited.failures() == {}
    stage.live(0.5)
    assert limited.failure().error == "TaskTimedOut"
