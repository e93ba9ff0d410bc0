"""Values as arguments: where they come from, and what becomes of those who need them."""

from typing import Any

import pytest
from drumbeat.protocol.ids import ObjectId, PeerId, TaskId, objects_of
from drumbeat.protocol.messages import (
    DoneRow,
    Failure,
    Fetch,
    Leave,
    Outcome,
    Release,
    Shared,
    Unshared,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.scheduler import events
from support.scheduling import Stage, error_done, failure_done, ids_of, value_done


def failure_of(stage: Stage, peer: PeerId, id_: bytes) -> Failure:
    failure = stage.results(peer)[id_].failure
    assert failure is not None
    return failure


def needing(stage: Stage, deps: list[bytes], **fields: Any) -> tuple[PeerId, TaskId]:
    """Have a client submit a task that needs these; return both."""
    client = stage.client("z")
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_], deps=tuple(deps), **fields)
    return client, id_


def test_a_value_at_hand_is_passed_on() -> None:
    stage = Stage()
    node, other = stage.node(), stage.client("o")
    (dep,) = ids_of(other, 1)
    value = ValueRow(dep, 0, b"v")
    needing(stage, [dep], values=(value,))
    stage.turn()
    assert stage.assigned(node)[0].values == (value,)
    assert not stage.take(other, Wanted)
    assert stage.core.at_rest()["objects"] == 0


def test_a_value_of_a_pending_task_is_awaited_and_passed_on() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    first, second = ids_of(client, 2)
    stage.submit(client, kind, [first])
    stage.submit(client, kind, [second], deps=(first,))
    stage.turn()
    (row,) = stage.assigned(node)
    assert row.id == first
    stage.finish(node, [row])
    stage.turn()
    (row,) = stage.assigned(node)
    assert (row.id, row.values) == (second, (ValueRow(first, 0, b"v"),))
    stage.finish(node, [row])
    stage.turn()
    assert stage.at_rest(), "nobody needs the value any more"


def test_one_of_several_values_is_awaited_by_its_own_id() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    first, second = ids_of(client, 2)
    stage.submit(client, stage.define(client, num_returns=2), [first])
    one, two = objects_of(first, 2)
    stage.submit(client, stage.define(client), [second], deps=(two,))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, DoneRow(first, 1, (ValueRow(one, 0, b"1"), ValueRow(two, 0, b"2")), 0.1))
    stage.turn()
    assert stage.assigned(node)[0].values == (ValueRow(two, 0, b"2"),)
    assert row.values == ()


@pytest.mark.parametrize("dep", ["index", "whole", "itself"])
def test_a_value_that_a_task_does_not_give_is_lost(dep: str) -> None:
    stage = Stage()
    client = stage.client()
    first, second = ids_of(client, 2)
    stage.submit(client, stage.define(client, num_returns=2), [first])
    wrong = {"index": first + b"\x00\x02", "whole": first, "itself": second}[dep]
    stage.submit(client, stage.define(client), [second], deps=(wrong,))
    stage.turn()
    cause = failure_of(stage, client, second).cause
    assert cause is not None
    assert cause.error == "ObjectLost"


def test_a_value_nobody_has_here_is_wanted_from_its_home_once() -> None:
    stage = Stage()
    node, home = stage.node(), stage.client("h")
    (dep,) = ids_of(home, 1)
    client, first = needing(stage, [dep])
    second = ids_of(client, 2)[1]
    stage.submit(client, 1, [second], deps=(dep,))
    stage.turn()
    assert stage.take(home, Wanted) == [Wanted([dep])]
    assert not stage.assigned(node)
    stage.say(home, Values([ValueRow(dep, 0, b"v")]))
    stage.turn()
    assert [row.values for row in stage.assigned(node)] == [(ValueRow(dep, 0, b"v"),)] * 2
    third = ids_of(client, 3)[2]
    stage.submit(client, 1, [third], deps=(dep,))
    stage.turn()
    assert not stage.take(home, Wanted), "it is cached while tasks depend on it"
    assert first


def test_a_large_value_of_a_home_is_awaited_and_sent_apart() -> None:
    stage = Stage(inline_bytes_max=10)
    node, home = stage.node(), stage.client("h")
    (dep,) = ids_of(home, 1)
    needing(stage, [dep])
    stage.turn()
    stage.say(home, Values([ValueRow(dep, 0, None, 20)]))
    stage.turn()
    assert not stage.assigned(node)
    stage.event(events.BlobReceived(home, dep, bytes(20)))
    stage.turn()
    assert stage.assigned(node)[0].values == (ValueRow(dep, 0, None, 20),)
    assert stage.blobs == [events.SendBlob(node, dep, bytes(20))]


def test_a_value_comes_again_for_each_attempt() -> None:
    stage = Stage()
    node, home = stage.node(), stage.client("h")
    (dep,) = ids_of(home, 1)
    needing(stage, [dep])
    stage.say(home, Values([ValueRow(dep, 0, b"v")]))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.taken_back(node, row)
    stage.turn()
    assert stage.assigned(node)[0].values == row.values


def test_a_value_that_nobody_waits_for_any_more_is_dropped() -> None:
    stage = Stage()
    home = stage.client("h")
    (dep,) = ids_of(home, 1)
    client, id_ = needing(stage, [dep])
    stage.turn()
    stage.cancel(client, id_)
    stage.say(home, Values([ValueRow(dep, 0, None, 20)]))
    stage.event(events.BlobReceived(home, dep, bytes(20)))
    assert stage.turn().at_rest()
    assert stage.core.counters["stale_dropped"] == 1


def test_a_dependency_that_raised_fails_the_task_with_its_report() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    ids = ids_of(client, 4)
    stage.submit(client, kind, ids[:1])
    for at in range(1, 4):
        stage.submit(client, kind, ids[at : at + 1], deps=(ids[at - 1],))
    stage.turn()
    stage.done(node, error_done(stage.assigned(node)[0]))
    stage.turn()
    results = stage.results(client)
    assert list(results) == ids
    for id_ in ids[1:]:
        assert results[id_].payload == b"report"
        assert results[id_].outcome == Outcome.FAILURE
    assert stage.at_rest()


def test_a_very_long_chain_of_failures_ends() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    kind = stage.define(client)
    ids = ids_of(client, 5_000)
    for before, id_ in zip([None, *ids], ids, strict=False):
        stage.submit(client, kind, [id_], deps=() if before is None else (before,))
    stage.turn()
    stage.done(node, failure_done(stage.assigned(node)[0], "WorkerDied"))
    stage.turn()
    assert len(stage.results(client)) == 5_000
    assert stage.at_rest()


def test_a_failed_task_of_several_values_fails_all_who_need_any() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    ids = ids_of(client, 3)
    stage.submit(client, stage.define(client, num_returns=2), ids[:1])
    kind = stage.define(client)
    for object_id, id_ in zip(objects_of(ids[0], 2), ids[1:], strict=True):
        stage.submit(client, kind, [id_], deps=(object_id,))
    stage.turn()
    stage.done(node, failure_done(stage.assigned(node)[0], "NotPicklable"))
    stage.turn()
    results = stage.results(client)
    assert list(results) == ids, "one row for the task itself"
    for id_ in ids[1:]:
        failure = results[id_].failure
        assert failure is not None
        assert failure.cause is not None
        assert failure.cause.error == "NotPicklable"


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_what_needs_a_value_whose_home_is_gone_fails(when: str) -> None:
    stage = Stage()
    stage.node()
    home = stage.client("h")
    (dep,) = ids_of(home, 1)
    if when == "before":
        stage.say(home, Leave())
    client, id_ = needing(stage, [dep])
    stage.turn()
    if when == "meanwhile":
        stage.say(home, Leave())
    stage.turn()
    failure = failure_of(stage, client, id_)
    assert failure.error == "DependencyFailed"
    assert failure.cause is not None
    assert failure.cause.error == "ObjectLost"
    assert stage.at_rest()


def test_what_needs_a_task_of_a_client_that_left_fails() -> None:
    stage = Stage()
    home = stage.client("h")
    (dep,) = ids_of(home, 1)
    stage.submit(home, stage.define(home), [dep])
    client, id_ = needing(stage, [dep])
    stage.say(client, Fetch([dep]))
    stage.turn()
    stage.say(home, Leave())
    stage.turn()
    failure = failure_of(stage, client, id_)
    assert failure.cause is not None
    assert failure.cause.error == "ObjectLost"
    ((row,),) = [message.rows for message in stage.take(client, Values)]
    assert row.failure is not None
    assert row.failure.error == "ObjectLost"


def test_a_home_that_has_lost_a_value_fails_who_needs_it() -> None:
    stage = Stage()
    home = stage.client("h")
    (dep,) = ids_of(home, 1)
    client, id_ = needing(stage, [dep])
    stage.turn()
    gone = ValueRow(dep, Outcome.FAILURE, failure=Failure("ObjectLost", "it was freed"))
    stage.say(home, Values([gone]))
    stage.turn()
    assert failure_of(stage, client, id_).error == "DependencyFailed"


def test_a_task_that_failed_at_once_waits_for_nothing_else() -> None:
    stage = Stage()
    home = stage.client("h")
    good, bad = ids_of(home, 2)
    failed = ValueRow(bad, Outcome.ERROR, b"report")
    client, id_ = needing(stage, [good, bad], values=(failed,))
    stage.turn()
    assert stage.results(client)[id_].payload == b"report"
    assert stage.at_rest()


# -------------------------------------------------------------------------------------- fetching


def test_a_fetched_value_comes_from_its_home() -> None:
    stage = Stage()
    home, node = stage.client("h"), stage.node()
    (id_,) = ids_of(home, 1)
    stage.say(node, Fetch([id_]))
    stage.say(node, Fetch([id_]))
    stage.turn()
    assert stage.take(home, Wanted) == [Wanted([id_])]
    stage.say(home, Values([ValueRow(id_, 0, b"v")]))
    stage.turn()
    assert stage.take(node, Values) == [Values([ValueRow(id_, 0, b"v")])]
    assert stage.at_rest()


def test_a_fetched_value_of_a_pending_task_comes_with_its_end() -> None:
    stage = Stage()
    client, other, node = stage.client(), stage.client("o"), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, num_returns=2), [id_])
    objects = objects_of(id_, 2)
    stage.say(other, Fetch(list[bytes](objects)))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, failure_done(row, "NotPicklable"))
    stage.turn()
    (values,) = stage.take(other, Values)
    assert [value.id for value in values.rows] == objects
    assert list(stage.results(client)) == [id_]


@pytest.mark.parametrize("asker", ["home", "other"])
def test_a_value_that_is_nowhere_is_lost_for_who_fetches_it(asker: str) -> None:
    stage = Stage()
    client = stage.client()
    home = client if asker == "home" else PeerId(b"nobody")
    (id_,) = ids_of(home, 1)
    stage.say(client, Fetch([id_]))
    stage.turn()
    ((row,),) = [message.rows for message in stage.take(client, Values)]
    assert row.failure is not None
    assert row.failure.error == "ObjectLost"
    assert stage.at_rest()


def test_a_peer_that_goes_fetches_nothing_any_more() -> None:
    stage = Stage()
    home, other = stage.client("h"), stage.client("o")
    stage.say(other, Fetch(list[bytes](ids_of(home, 1))))
    stage.turn()
    stage.say(other, Leave())
    assert stage.turn().at_rest()


# --------------------------------------------------------------------------------------- holding


def holding(stage: Stage) -> tuple[PeerId, PeerId, PeerId, bytes]:
    """Return client, node and another client that have a value with a ref to its object."""
    client, node, home = stage.client(), stage.node(), stage.client("h")
    (inner,) = ids_of(home, 1)
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    stage.done(node, value_done(row, contained=(inner,)))
    stage.turn()
    assert stage.take(home, Shared) == [Shared([inner])]
    return client, node, home, inner


def test_a_home_is_told_when_nobody_holds_its_object_any_more() -> None:
    stage = Stage()
    client, _, home, inner = holding(stage)
    stage.say(client, Release([(inner, 1)]))
    stage.turn()
    assert stage.take(home, Unshared) == [Unshared([inner])]
    assert stage.at_rest()


def test_a_holder_that_goes_holds_nothing_any_more() -> None:
    stage = Stage()
    client, _, home, inner = holding(stage)
    stage.say(client, Leave())
    stage.turn()
    assert stage.take(home, Unshared) == [Unshared([inner])]
    assert stage.at_rest()


def test_what_is_shared_again_in_the_same_turn_stays_shared() -> None:
    stage = Stage()
    client, node, home, inner = holding(stage)
    (id_,) = ids_of(client, 2)[1:]
    stage.submit(client, 1, [id_])
    stage.turn()
    (row,) = stage.assigned(node)
    stage.say(client, Release([(inner, 1)]))
    stage.done(node, value_done(row, contained=(inner,)))
    stage.turn()
    assert stage.take(home, Unshared) == []
    assert stage.take(home, Shared) == [Shared([inner])]


def test_what_a_gone_home_kept_is_held_by_nobody() -> None:
    stage = Stage()
    client, _, home, inner = holding(stage)
    stage.say(home, Leave())
    assert stage.turn().at_rest()
    stage.say(client, Release([(inner, 1)]))
    assert stage.turn().at_rest()


def test_values_in_arguments_are_counted_for_the_node_that_gets_them() -> None:
    stage = Stage()
    node, home = stage.node(), stage.client("h")
    dep, inner = ids_of(home, 2)
    needing(stage, [dep])
    stage.turn()
    stage.say(home, Values([ValueRow(dep, 0, b"v", 0, (inner,))]))
    stage.turn()
    (row,) = stage.assigned(node)
    assert stage.take(home, Shared) == [Shared([inner])]
    stage.finish(node, [row])
    stage.say(node, Release([(ObjectId(inner), 1)]))
    stage.turn()
    assert stage.take(home, Unshared) == [Unshared([inner])]
    assert stage.at_rest()


def test_a_value_that_went_with_its_node_says_with_which_and_why() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(name="lab3")
    (put,) = ids_of(node, 1)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    stage.say(client, Fetch([put]))
    stage.turn()
    ((row,),) = [message.rows for message in stage.take(client, Values)]
    assert row.failure is not None
    assert row.failure.details["node"] == "lab3"
    assert "is gone with node lab3" in row.failure.text
    assert "connection" in row.failure.text
