"""After a restart of the scheduler: nobody hears "cancelled" of what a node may yet start."""

import pytest
from drumbeat.protocol.ids import TaskId
from drumbeat.protocol.messages import (
    AssignRow,
    Cancel,
    Cancelled,
    DoneRow,
    Leave,
    Outcome,
    StopMode,
    ValueRow,
)
from drumbeat.protocol.recovery import Inventory, Phase
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row
from support.scheduling import failure_done

FORCE, SOFT = int(StopMode.FORCE), int(StopMode.SOFT)


def ends(stage: Restarted) -> dict[bytes, str]:
    """What the client has been told since it was asked last: an error, or nothing for a value."""
    told = stage.results(CLIENT)
    return {id_: "" if v.failure is None else v.failure.error for id_, v in told.items()}


def cancelled(id_: TaskId, attempt: int = 1) -> DoneRow:
    return failure_done(_assigned(id_, attempt), "TaskCancelled")


def _assigned(id_: TaskId, attempt: int) -> AssignRow:
    return AssignRow(id_, attempt, 1, 1, 0, -1.0)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING, Phase.BLOCKED])
def test_a_cancel_is_kept_until_the_node_is_back_that_has_the_task(
    phase: Phase, force: bool
) -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.cancel(client, one, force=force)
    stage.node_back()
    stage.turn()
    assert ends(stage) == {}
    assert stage.task(one)["stopping"]
    stage.node_back(row(one, phase=phase), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, FORCE if force else SOFT)]
    assert ends(stage) == {}
    stage.done(OTHER, cancelled(one))
    stage.turn()
    assert ends(stage) == {one: "TaskCancelled"}
    assert stage.at(15.0).at_rest()


def test_force_that_is_asked_for_later_counts_when_the_node_is_back() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one])
    for force in (False, True, False):
        stage.cancel(client, one, force=force)
        stage.turn()
    stage.node_back(row(one))
    stage.turn()
    assert stage.stops(NODE) == [(one, 1, FORCE)]


def test_a_value_that_the_node_brings_back_beats_the_cancel() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.cancel(client, one)
    stage.turn()
    stage.node_back(row(one, phase=Phase.ENDED))
    stage.turn()
    assert stage.reports(NODE) == [(one, 1)]
    stage.done(NODE, done(one))
    stage.turn()
    assert ends(stage) == {one: ""}
    assert stage.at(15.0).at_rest()


@pytest.mark.parametrize("force", [False, True])
def test_a_cancel_before_its_task_is_named_leaves_an_end_where_it_will_be_asked_for(
    force: bool,
) -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    stage.node_back(row(one, phase=Phase.ENDED))
    other = stage.client_back(letter="d")
    stage.say(other, Cancel([one], force, True))
    stage.turn()
    assert stage.stops(NODE) == [], "a node forgets an end that it is to stop"
    stage.client_back([one])
    stage.turn()
    assert stage.reports(NODE) == [(one, 1)]
    stage.done(NODE, done(one))
    stage.turn()
    assert ends(stage) == {one: ""}
    assert stage.at(15.0).at_rest()


def test_with_all_nodes_back_what_nobody_has_is_said_to_be_cancelled() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.cancel(client, one)
    stage.node_back()
    stage.turn()
    assert ends(stage) == {}
    stage.node_back(letter="m")
    stage.turn()
    assert ends(stage) == {one: "TaskCancelled"}
    assert stage.assigned(NODE) == stage.assigned(OTHER) == []
    assert stage.at(15.0).at_rest()


@pytest.mark.parametrize("max_retries", [0, 3])
@pytest.mark.parametrize("at_s", [0.5, 2.5])
def test_a_cancel_waits_for_a_missing_node_until_that_is_given_up(
    at_s: float, max_retries: int
) -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    # Nothing can run it: it is queued, and charged or parked, when it is cancelled.
    client = stage.client_back([one], options={"max_retries": max_retries, "num_cpus": 8})
    stage.node_back()
    stage.at(at_s).turn()
    stage.cancel(client, one)
    stage.at(11.9)
    assert ends(stage) == {}
    stage.at(12.1)
    assert ends(stage) == {one: "TaskCancelled"}
    assert stage.assigned(NODE) == []
    assert stage.at(15.0).at_rest()


def test_a_charged_attempt_is_stopped_where_it_is_found_when_its_task_was_cancelled() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one], options={"num_cpus": 8})
    stage.node_back()
    stage.at(2.5).turn()
    assert stage.retried(client) == {one: 2}
    stage.cancel(client, one)
    stage.turn()
    stage.node_back(row(one, phase=Phase.QUEUED), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, SOFT)]
    assert ends(stage) == {}
    stage.done(OTHER, cancelled(one))
    stage.turn()
    assert ends(stage) == {one: "TaskCancelled"}
    assert stage.at(15.0).at_rest()


def test_a_cancel_before_the_submitter_knows_of_the_charge_waits_too() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.node_back()
    stage.at(1.9).turn(0.2)
    assert stage.core.at_rest()["charges_untold"] == 1
    stage.cancel(client, one)
    stage.turn().turn()
    assert stage.core.at_rest()["charges_untold"] == 0
    assert ends(stage) == {}
    assert stage.assigned(NODE) == []
    stage.node_back(letter="m")
    stage.turn()
    assert ends(stage) == {one: "TaskCancelled"}


def test_a_second_attempt_that_was_stopped_is_not_told_while_the_first_may_start() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.node_back()
    stage.at(2.5).turn()
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(one, 2)]
    stage.cancel(client, one)
    stage.turn()
    assert stage.stops(NODE) == [(one, 2, SOFT)]
    stage.done(NODE, cancelled(one, 2))
    stage.turn()
    assert ends(stage) == {}
    stage.node_back(row(one, phase=Phase.QUEUED), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, SOFT)]
    stage.done(OTHER, cancelled(one))
    stage.turn()
    assert ends(stage) == {one: "TaskCancelled"}
    assert stage.at(15.0).at_rest()


def test_the_value_of_a_second_attempt_is_told_though_the_first_is_missing() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one])
    stage.node_back()
    stage.at(2.5).turn()
    stage.done(NODE, done(one, 2))
    stage.turn()
    assert ends(stage) == {one: ""}


def test_children_of_what_waits_for_its_node_wait_for_theirs() -> None:
    stage = Restarted("n", "m", "o")
    (parent,), (child,) = ids(1), ids(1, NODE, 1)
    client = stage.client_back([parent])
    stage.node_joins()
    stage.say(NODE, Inventory([CLIENT], [row(parent, phase=Phase.BLOCKED)], True))
    kind = stage.define(NODE, CLIENT)
    stage.names(NODE, kind, [child], client=CLIENT, parent=parent, depth=1)
    stage.registered(NODE)
    stage.turn()
    stage.cancel(client, parent)
    stage.turn()
    assert stage.stops(NODE) == [(parent, 1, SOFT)]
    assert stage.results(NODE) == {}
    stage.node_back(row(child), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(child, 1, SOFT)]


def test_a_child_that_is_named_after_its_parent_was_cancelled_waits_for_its_node() -> None:
    stage = Restarted("n", "m")
    (parent,), (child,) = ids(1), ids(1, NODE, 1)
    client = stage.client_back([parent])
    stage.cancel(client, parent)
    stage.node_joins()
    stage.say(NODE, Inventory([CLIENT], [row(parent, phase=Phase.BLOCKED)], True))
    kind = stage.define(NODE, CLIENT)
    stage.names(NODE, kind, [child], client=CLIENT, parent=parent, depth=1)
    stage.registered(NODE)
    stage.turn()
    assert stage.stops(NODE) == [(parent, 1, SOFT)]
    assert stage.results(NODE) == {}
    stage.node_back(row(child), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(child, 1, SOFT)]
    stage.done(OTHER, cancelled(child))
    stage.done(NODE, cancelled(parent))
    stage.turn()
    assert ends(stage) == {parent: "TaskCancelled"}
    assert stage.at(15.0).at_rest()


def test_who_asks_for_what_has_not_started_is_told_no_and_nothing_is_cancelled() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.cancel(client, one, request=5)
    stage.turn()
    assert [answer.dropped for answer in stage.take(client, Cancelled)] == [[False]]
    assert not stage.task(one)["stopping"]
    stage.cancel(client, one)
    stage.cancel(client, one, request=6)
    stage.turn()
    assert [answer.dropped for answer in stage.take(client, Cancelled)] == [[False]]


def test_a_cancel_that_came_before_its_task_was_named_waits_for_the_node_too() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back()
    other = stage.client_back(letter="d")
    stage.say(other, Cancel([one], True, True))
    stage.client_back([one])
    stage.turn()
    assert ends(stage) == {}
    stage.node_back(row(one), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, FORCE)]


def test_nothing_is_kept_of_a_client_that_leaves_while_its_cancels_wait() -> None:
    stage = Restarted("n", "m")
    (one, two) = ids(2)
    client = stage.client_back([one, two])
    stage.cancel(client, one)
    stage.node_back()
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    assert stage.task(one) is None
    stage.node_back(row(one), row(two), letter="m")
    stage.turn()
    assert {stop[0] for stop in stage.stops(OTHER)} == {one, two}
    assert stage.at(15.0).at_rest()


def test_nothing_is_kept_of_a_node_that_is_lost_while_its_cancels_wait() -> None:
    stage = Restarted("n", "m")
    (child,) = ids(1, NODE, 1)
    stage.client_back()
    node = stage.node_joins()
    stage.say(node, Inventory([CLIENT], [], True))
    stage.names(node, stage.define(node, CLIENT), [child], client=CLIENT)
    stage.registered(node)
    stage.cancel(CLIENT, child)
    stage.turn()
    assert stage.core.at_rest()["condemned"] == 1
    stage.say(node, Leave())
    stage.turn()
    assert stage.core.at_rest()["condemned"] == 0
    assert stage.at(15.0).at_rest()


def test_a_dependency_that_fails_does_not_answer_for_a_cancelled_task_that_may_start() -> None:
    stage = Restarted("n", "m")
    first, second = ids(2)
    stage.node_back(row(first))
    client = stage.client_enters()
    kind = stage.define(client)
    stage.names(client, kind, [first])
    stage.names(client, kind, [second], deps=(first,))
    stage.registered(client)
    stage.cancel(client, second)
    stage.done(NODE, DoneRow(first, 1, (ValueRow(first, Outcome.ERROR, b"report"),), 1.0))
    stage.turn()
    assert set(ends(stage)) == {first}
    stage.node_back(letter="m")
    stage.turn()
    assert ends(stage) == {second: "TaskCancelled"}
    assert stage.at(15.0).at_rest()
