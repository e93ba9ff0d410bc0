"""Limits of calls at the scheduler: of actors, over restarts, by default; what was said last."""

import pytest
from drumbeat.protocol.limits import TIMED_OUT, Limits
from drumbeat.protocol.messages import (
    AssignRow,
    Prepare,
    Stop,
    StopMode,
)
from drumbeat.protocol.recovery import Phase
from support.acting import Acting
from support.limited import Limited, timed_out
from support.restarts import NODE, OTHER, Restarted, ids, row
from support.scheduling import Stage, died, failure_done, ids_of, value_done

# ------------------------------------------------------------------------------------------- actors


def test_a_call_that_waits_for_its_actor_too_long_ends_and_those_behind_it_go_on() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    kind = stage.define(
        stage.caller, name="Counter.add", actor=bytes(actor), num_cpus=0.0,
        limits=Limits(queue_timeout_s=1.0),
    )  # fmt: skip
    late = stage.name(stage.caller)
    stage.submit(stage.caller, kind, [late])
    other = stage.call(actor)
    stage.live(1.3)
    failure = stage.failure(late)
    assert failure.error == "TaskTimedOut"
    assert "its turn at the actor" in str(failure.details["verdict"])
    stage.started(actor, node)
    assert stage.sent(node) == [other]


def test_a_call_that_takes_its_actor_along_is_told_to_have_timed_out() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=1)
    creation = stage.started(actor, node)
    call = stage.call(actor, retries=3)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, timed_out(row, "timeout", died=True), died(creation))
    stage.live(0.5)
    assert stage.failure(call).error == "TaskTimedOut"
    assert [row.id for row in stage.assigned(node)] == [actor]


# ----------------------------------------------------------------------------------------- restarts


def test_after_a_restart_what_may_start_elsewhere_is_not_told_before_that_is_known() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one], options={"limits": Limits(total_timeout_s=1.0)})
    stage.node_back()
    stage.at(1.5)
    assert stage.results(client) == {}
    stage.node_back(row(one), letter="m")
    stage.turn()
    assert stage.take(OTHER, Stop) == [Stop([(one, 1, StopMode.SOFT)], TIMED_OUT)]
    stage.done(OTHER, failure_done(AssignRow(one, 1, 1, 1, 0, -1.0), "TaskCancelled"))
    stage.turn()
    failure = stage.results(client)[one].failure
    assert failure is not None
    assert failure.error == "TaskTimedOut"
    assert stage.at(15.0).at_rest()


def test_after_a_restart_the_wait_at_a_node_counts_from_when_it_is_known() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    stage.client_back([one], options={"limits": Limits(queue_timeout_s=1.0)})
    stage.node_back(row(one, phase=Phase.QUEUED))
    stage.turn()
    stage.at(1.5)
    assert stage.take(NODE, Stop) == [Stop([(one, 1, StopMode.UNSTARTED)], TIMED_OUT)]


# ------------------------------------------------------------------------------- defaults, details


@pytest.mark.parametrize(
    ("stated", "timeout_s"),
    [(None, 7.0), (Limits(timeout_s=2.0), 2.0), (Limits(total_timeout_s=60.0), 7.0)],
)
def test_nodes_are_told_of_the_timeout_that_the_settings_say(
    stated: Limits | None, timeout_s: float
) -> None:
    stage = Stage(task_timeout_s=7.0, call_timeout_s=9.0)
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client, limits=stated), ids_of(client, 1))
    stage.turn()
    (prepare,) = stage.take(node, Prepare)
    limits = prepare.kinds[0].options.limits
    assert limits is not None
    assert limits.timeout_s == timeout_s
    assert limits.total_timeout_s == (0.0 if stated is None else stated.total_timeout_s)


def test_calls_of_actors_have_a_default_of_their_own_and_actors_none() -> None:
    stage = Acting(task_timeout_s=7.0, call_timeout_s=9.0)
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    stage.call(actor)
    stage.turn()
    limits = [
        kind.options.limits for message in stage.take(node, Prepare) for kind in message.kinds
    ]
    assert limits == [None, Limits(timeout_s=9.0)]


def test_without_such_a_setting_nothing_is_added() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    (prepare,) = stage.take(node, Prepare)
    assert prepare.kinds[0].options.limits is None


def test_the_next_attempt_is_told_what_the_last_one_had_said() -> None:
    limited = Limited(cpus=1, max_retries=3)
    stage, node = limited.stage, limited.node
    assert node is not None
    (row,) = limited.given()
    assert row.details is None
    stage.done(node, failure_done(row, "WorkerDied", died=True, details=b"tile 7"))
    stage.live(0.5)
    (row,) = limited.given()
    assert (row.attempt, row.details) == (2, b"tile 7")
    stage.done(node, died(row))  # it had nothing to say
    stage.live(0.75)
    (row,) = limited.given()
    assert (row.attempt, row.details) == (3, b"tile 7")
    stage.finish(node, [row])
    stage.turn()
    assert stage.at_rest()


def test_what_was_said_goes_with_the_task() -> None:
    limited = Limited(cpus=1, max_retries=0)
    stage, node = limited.stage, limited.node
    assert node is not None
    (row,) = limited.given()
    stage.done(node, failure_done(row, "TaskHung", died=True, details=b"tile 7"))
    stage.turn()
    assert limited.failure().error == "TaskHung"
    assert stage.at_rest()


def test_an_ordinary_value_leaves_no_limit_behind() -> None:
    limited = Limited(cpus=1, total_timeout_s=10.0)
    stage, node = limited.stage, limited.node
    assert node is not None
    stage.done(node, *(value_done(row) for row in limited.given()))
    stage.turn()
    assert stage.at_rest()
    assert limited.failures() == {limited.ids[0]: None}


def test_what_an_earlier_life_had_dropped_for_its_limit_is_told_to_have_timed_out() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one], options={"limits": Limits(queue_timeout_s=60.0)})
    stage.node_back(row(one, phase=Phase.ENDED))
    stage.turn()
    stage.done(NODE, failure_done(AssignRow(one, 1, 1, 1, 0, -1.0), "TaskCancelled"))
    stage.turn()
    failure = stage.results(client)[one].failure
    assert failure is not None
    assert (failure.error, failure.details["limit"]) == ("TaskTimedOut", "queue_timeout")


def test_what_somebody_had_cancelled_before_the_restart_is_cancelled() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one], options={"limits": Limits(queue_timeout_s=60.0)})
    stage.cancel(client, one)
    stage.node_back(row(one, phase=Phase.ENDED))
    stage.turn()
    stage.done(NODE, failure_done(AssignRow(one, 1, 1, 1, 0, -1.0), "TaskCancelled"))
    stage.turn()
    failure = stage.results(client)[one].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"
