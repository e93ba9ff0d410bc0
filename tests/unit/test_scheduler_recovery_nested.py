"""After a restart of the scheduler: tasks of tasks, what they depend on, and refs to values."""

from typing import Any

import pytest
from drumbeat.protocol.ids import ObjectId, PeerId
from drumbeat.protocol.messages import (
    Define,
    Discard,
    Fetch,
    Forget,
    KindRow,
    Leave,
    Options,
    Outcome,
    Release,
    Shared,
    StopMode,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.recovery import Holding, Inventory, Phase, Recovered
from drumbeat.scheduler import events
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row

FORCE = int(StopMode.FORCE)


def inventory(stage: Restarted, *rows: Any, letter: str = "n") -> PeerId:
    """A node comes back and tells what it has, with more to say."""
    node = stage.node_joins(letter)
    stage.say(node, Inventory([CLIENT], list(rows), True))
    return node


# --------------------------------------------------------------------------------- tasks of tasks


@pytest.mark.parametrize("order", ["client first", "node first"])
def test_nested_calls_go_on_with_their_parents(order: str) -> None:
    stage = Restarted("n", "m")
    (parent,), (child,) = ids(1), ids(1, NODE, 1)
    if order == "client first":
        stage.client_back([parent])
    node = inventory(stage, row(parent, phase=Phase.BLOCKED))
    kind = stage.define(node, CLIENT)
    stage.names(node, kind, [child], client=CLIENT, parent=parent, depth=1)
    stage.registered(node)
    stage.turn()
    stage.node_back(row(child), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == []
    if order == "node first":
        assert stage.task(child) is None
        stage.client_back([parent])
        stage.turn()
    assert stage.task(child)["node"] == "m"
    # It is the parent's child: it goes with it.
    stage.cancel(CLIENT, parent)
    stage.turn()
    assert stage.stops(OTHER) == [(child, 1, int(StopMode.SOFT))]
    stage.done(OTHER, done(child))
    stage.done(NODE, done(parent))
    stage.turn().turn(0.2)
    assert stage.at_rest()


def test_what_a_task_submitted_goes_on_when_its_client_has_its_result_already() -> None:
    stage = Restarted("n")
    (parent,), (child, late) = ids(1), ids(2, NODE, 1)
    node = inventory(stage, row(parent, phase=Phase.ENDED))
    kind = stage.define(node, CLIENT)
    stage.names(node, kind, [child], client=CLIENT, parent=parent, depth=1)
    stage.registered(node)
    stage.client_back([])
    stage.turn()
    assert stage.stops(NODE) == [(parent, 1, FORCE)], "nobody needs it any more"
    stage.submit(node, kind, [late], CLIENT, parent, 1)
    stage.turn()
    assert [assigned.id for assigned in stage.assigned(NODE)] == [child, late]
    stage.done(NODE, done(child), done(late))
    stage.turn().turn(0.2)
    assert stage.at_rest()


def test_a_nested_call_for_a_node_that_is_awaited_is_not_refused() -> None:
    stage = Restarted("n", "m")
    stage.client_back([])
    node = stage.node_back()
    stage.at(2.5).turn()
    kind = stage.define(node, CLIENT, node="m")
    (task,) = ids(1, NODE, 1)
    stage.submit(node, kind, [task], CLIENT)
    stage.turn()
    assert stage.results(NODE) == {}
    stage.node_joins("m")
    stage.turn()
    assert [assigned.id for assigned in stage.assigned(OTHER)] == [task]


def test_new_calls_of_a_running_task_wait_for_its_client_in_order() -> None:
    stage = Restarted("n")
    (parent,), children = ids(1), ids(2, NODE, 1)
    node = stage.node_back(row(parent, phase=Phase.BLOCKED))
    kind = stage.define(node, CLIENT)
    stage.submit(node, kind, children, CLIENT, parent, 1)
    stage.say(node, Forget([kind]))
    stage.turn()
    assert stage.assigned(node) == []
    stage.client_enters()
    stage.turn()
    assert stage.assigned(node) == []
    stage.names(CLIENT, stage.define(CLIENT), [parent])
    stage.registered(CLIENT)
    stage.turn()
    assert [a.id for a in stage.assigned(node)] == children


def test_of_a_forget_only_what_is_kept_back_waits() -> None:
    stage = Restarted("n")
    stage.client_back(letter="d")
    node = stage.node_back(clients=())
    known = stage.define(node, PeerId(b"d" * 6))
    kept = stage.define(node, CLIENT)
    stage.say(node, Forget([known, kept]))
    # Its number may be given again; the other not before it is known.
    stage.say(node, Define(PeerId(b"d" * 6), [KindRow(known, b"1" * 16, "a", Options(), b"code")]))
    stage.turn()
    assert not stage.drops
    stage.at(12.5)
    assert not stage.drops
    assert stage.at_rest()


def test_calls_for_a_client_that_does_not_come_back_are_refused_after_its_grace() -> None:
    stage = Restarted("n")
    (parent,), (child,) = ids(1), ids(1, NODE, 1)
    node = inventory(stage, row(parent, phase=Phase.BLOCKED))
    stage.names(node, stage.define(node, CLIENT), [child], client=CLIENT, parent=parent, depth=1)
    stage.registered(node)
    stage.at(9.9)
    assert stage.results(node) == {}
    stage.at(10.1)
    failure = stage.results(node)[child].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"
    assert [discard.clients for discard in stage.take(node, Discard)] == [[CLIENT]]
    assert stage.at(13.0).at_rest()


def test_calls_for_a_client_that_enters_anew_or_leaves_are_settled_then() -> None:
    stage = Restarted("n")
    (child,) = ids(1, NODE, 1)
    node = stage.node_back()
    stage.submit(node, stage.define(node, CLIENT), [child], CLIENT)
    stage.client_enters()
    stage.turn()
    stage.say(CLIENT, Leave())
    stage.turn()
    failure = stage.results(node)[child].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"
    assert stage.at_rest()


def test_children_of_a_claim_that_nobody_names_are_cancelled() -> None:
    stage = Restarted("n", "m")
    # The parent's submitter is the other node: it is known last.
    (parent,), (child,) = ids(1, OTHER, 1), ids(1, NODE, 1)
    stage.client_back()
    node = inventory(stage, row(parent, phase=Phase.BLOCKED))
    stage.names(node, stage.define(node, CLIENT), [child], client=CLIENT, parent=parent, depth=2)
    stage.registered(node)
    stage.turn()
    stage.node_back(letter="m")
    stage.turn()
    assert stage.stops(node) == [(parent, 1, FORCE)]
    failure = stage.results(node)[child].failure
    assert failure is not None
    assert failure.error == "TaskCancelled"
    # What it says after that is refused too.
    (more,) = ids(1, NODE, 2)
    kind = stage.define(node, CLIENT)
    stage.submit(node, kind, [more], CLIENT, parent, 2)
    stage.turn()
    assert stage.results(node)[more].failure is not None
    assert stage.at(13.0).at_rest()


def test_claims_of_a_nodes_calls_wait_until_what_is_kept_of_it_is_taken_in() -> None:
    stage = Restarted("n", "m")
    (child,) = ids(1, NODE, 1)
    node = inventory(stage)
    stage.names(node, stage.define(node, CLIENT), [child], client=CLIENT)
    stage.registered(node)
    other = stage.node_back(row(child), letter="m")
    stage.turn()
    assert stage.stops(other) == []
    stage.client_back()
    stage.turn()
    assert stage.stops(other) == []
    assert stage.task(child)["node"] == "m"


# ----------------------------------------------------------------------------- what they depend on


def test_large_arguments_of_a_claimed_task_come_later_and_serve_its_next_attempt() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(row(one))
    stage.node_back(letter="m")
    client = stage.client_back([one], options={"retry_backoff_s": 0.0}, size=1 << 20)
    stage.turn()
    assert stage.task(one)["node"] == "n"
    stage.say(NODE, Leave())
    stage.turn(0.1).turn(0.1)
    assert stage.task(one)["state"] == "waiting"
    stage.event(events.BlobReceived(client, one + b"a", b"x" * (1 << 20)))
    stage.turn()
    assert [(a.id, a.attempt) for a in stage.assigned(OTHER)] == [(one, 2)]
    stage.done(OTHER, done(one, 2))
    stage.turn().turn(0.2)
    assert stage.at(13.0).at_rest()


def test_a_claimed_task_that_is_given_back_waits_for_its_dependency() -> None:
    from drumbeat.protocol.messages import TakenBack

    stage = Restarted("n", "m")
    first, second = ids(2)
    stage.node_back(row(first), row(second, phase=Phase.QUEUED))
    stage.node_back(letter="m")
    client = stage.client_enters()
    kind = stage.define(client)
    stage.names(client, kind, [first])
    stage.names(client, kind, [second], deps=(first,))
    stage.registered(client)
    stage.turn()
    assert stage.task(second)["node"] == "n"
    stage.say(NODE, TakenBack([(second, 1)]))
    stage.turn()
    assert stage.task(second)["state"] == "waiting"
    stage.done(NODE, done(first))
    stage.turn()
    assigned = stage.assigned(OTHER) + stage.assigned(NODE)
    assert [(a.id, a.values[0].payload) for a in assigned] == [(second, b"v")]


def test_a_dependency_that_failed_meanwhile_fails_a_claimed_task_when_it_comes_back() -> None:
    from drumbeat.protocol.messages import DoneRow, TakenBack

    stage = Restarted("n")
    first, second = ids(2)
    stage.node_back(row(first), row(second, phase=Phase.QUEUED))
    client = stage.client_enters()
    kind = stage.define(client)
    stage.names(client, kind, [first])
    stage.names(client, kind, [second], deps=(first,))
    stage.registered(client)
    error = ValueRow(first, Outcome.ERROR, b"report")
    stage.done(NODE, DoneRow(first, 1, (error,), 1.0))
    stage.turn()
    assert stage.task(second)["node"] == "n"
    stage.results(client)
    stage.say(NODE, TakenBack([(second, 1)]))
    stage.turn()
    failure = stage.results(client)[second].failure
    assert failure is not None
    assert failure.error == "DependencyFailed"
    assert stage.at_rest()


def test_a_dependency_that_fails_ends_a_task_that_waits_for_a_missing_node() -> None:
    from drumbeat.protocol.messages import DoneRow

    stage = Restarted("n", "m")
    first, second = ids(2)
    stage.node_back(row(first))
    client = stage.client_enters()
    kind = stage.define(client, max_retries=0)
    stage.names(client, kind, [first])
    stage.names(client, kind, [second], deps=(first,))
    stage.registered(client)
    stage.done(NODE, DoneRow(first, 1, (ValueRow(first, Outcome.ERROR, b"report"),), 1.0))
    stage.turn()
    failure = stage.results(client)[second].failure
    assert failure is not None
    assert failure.error == "DependencyFailed"
    assert stage.at(13.0).at_rest()


# ------------------------------------------------------------------------------- homes and holders


def test_a_fetch_waits_for_a_home_that_comes_and_is_answered() -> None:
    stage = Restarted("n")
    (value,) = ids(1)
    node = inventory(stage)
    stage.say(node, Fetch([value]))
    stage.turn()
    assert stage.take(node, Values) == []
    client = stage.client_back()
    stage.turn()
    assert [wanted.ids for wanted in stage.take(client, Wanted)] == [[value]]
    stage.say(client, Values([ValueRow(value, Outcome.VALUE, b"v")]))
    stage.turn()
    assert [v.payload for values in stage.take(node, Values) for v in values.rows] == [b"v"]


def test_a_home_that_does_not_come_has_lost_its_values_at_the_end() -> None:
    stage = Restarted("n")
    (value,), (one,) = ids(1, PeerId(b"gonegg")), ids(1)
    node = stage.node_back()
    stage.say(node, Fetch([value]))
    client = stage.client_enters()
    kind = stage.define(client)
    stage.names(client, kind, [one], attempt=0, deps=(value,))
    stage.registered(client)
    stage.at(11.9)
    assert stage.take(node, Values) == []
    stage.at(12.3)
    (lost,) = [v for values in stage.take(node, Values) for v in values.rows]
    assert lost.failure is not None
    assert lost.failure.error == "ObjectLost"
    failure = stage.results(client)[one].failure
    assert failure is not None
    assert failure.error == "DependencyFailed"
    assert stage.at_rest()


def test_a_home_that_leaves_while_others_are_awaited_is_not_awaited_itself() -> None:
    stage = Restarted("n", "m")
    (value,) = ids(1)
    client = stage.client_back()
    node = stage.node_back()
    stage.say(client, Leave())
    stage.turn()
    stage.say(node, Fetch([value]))
    stage.turn()
    (lost,) = [v for values in stage.take(node, Values) for v in values.rows]
    assert lost.failure is not None
    assert lost.failure.error == "ObjectLost"


@pytest.mark.parametrize("order", ["home first", "holder first"])
def test_refs_held_over_are_counted_and_their_home_is_told(order: str) -> None:
    stage = Restarted("n")
    (value,) = ids(1)
    if order == "home first":
        stage.client_back()
    node = inventory(stage)
    stage.say(node, Holding([(value, 3)]))
    stage.registered(node)
    stage.turn()
    if order == "holder first":
        stage.client_back()
        stage.turn()
    assert [shared.ids for shared in stage.take(CLIENT, Shared)] == [[value]]
    stage.at(12.3)
    messages = stage.mail[CLIENT]
    assert Recovered() in messages
    assert not [message for message in messages if isinstance(message, Unshared)]
    # Only the deliveries of both lives make it free.
    stage.say(node, Release([(value, 2)]))
    stage.turn()
    assert stage.take(CLIENT, Unshared) == []
    stage.say(node, Release([(value, 3)]))
    stage.turn()
    assert [unshared.ids for unshared in stage.take(CLIENT, Unshared)] == [[value]]
    assert stage.at_rest()


def test_a_ref_that_is_delivered_before_its_home_comes_is_shared_then() -> None:
    stage = Restarted("n")
    inner, (one,) = ObjectId(ids(1, PeerId(b"d" * 6))[0]), ids(1)
    stage.node_back(row(one))
    client = stage.client_back([one])
    stage.done(NODE, done(one, contained=(inner,)))
    stage.turn()
    assert client in stage.core._state.holders.holders_of(inner)
    stage.client_back(letter="d")
    stage.turn()
    assert [shared.ids for shared in stage.take(PeerId(b"d" * 6), Shared)] == [[inner]]


def test_refs_whose_home_does_not_come_are_counted_no_more_at_the_end() -> None:
    stage = Restarted("n")
    (value,) = ids(1, PeerId(b"gonegg"))
    node = inventory(stage)
    stage.say(node, Holding([(value, 1)]))
    stage.registered(node)
    stage.at(12.3)
    stage.say(node, Release([(value, 1)]))
    stage.turn()
    assert stage.at_rest()


def test_however_much_is_kept_for_a_client_its_node_is_not_dropped() -> None:
    stage = Restarted("n", value_bytes_max=10)
    children = ids(9, NODE, 1)
    node = stage.node_back()
    kind = stage.define(node, CLIENT)
    stage.submit(node, kind, children, CLIENT, size=20)
    for child in children:
        stage.event(events.BlobReceived(node, child + b"a", b"x" * 20))
    stage.turn()
    assert not stage.drops
    stage.client_back()
    stage.turn()
    assert stage.assigned(node)
