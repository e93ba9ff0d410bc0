"""Large results that stay at their node: they count once whoever submitted the task has them."""

from collections import deque
from typing import Any

import pytest
from drumbeat.protocol.ahead import ahead_key
from drumbeat.protocol.codec import Reader
from drumbeat.protocol.frames import Offered, Source
from drumbeat.protocol.ids import PeerId, TaskId, objects_of
from drumbeat.protocol.messages import AssignRow, Done, DoneRow, ValueRow
from drumbeat.protocol.recovery import HandedOver
from drumbeat.protocol.remotes import Remote
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import Traffic
from drumbeat.scheduler import events
from support.scheduling import Stage, ids_of, value_done


def _remote(node: PeerId, id_: bytes) -> Remote:
    source = Source(node, "tcp://10.0.0.1:7000", bytes(32))
    holder = Traffic(Reader.to_scheduler(), Settings(), peer=node, name="one", source=source)
    return Remote(holder, Offered(id_, 1, 20, id_))


def _started(stage: Stage) -> tuple[PeerId, PeerId, TaskId]:
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.turn()
    assert len(stage.assigned(node)) == 1
    return client, node, id_


def _ends(stage: Stage, node: PeerId, id_: TaskId) -> Remote:
    remote = _remote(node, id_)
    stage.done(node, DoneRow(id_, 1, (ValueRow(id_, 0, None, 20),), 0.1))
    stage.event(events.BlobReceived(node, id_, remote))  # type: ignore[arg-type]
    return remote


def test_it_is_sent_to_its_submitter_and_told_of_when_that_has_it() -> None:
    stage = Stage(inline_bytes_max=10)
    stage.prompt = False
    client, node, id_ = _started(stage)
    remote = _ends(stage, node, id_)
    stage.turn()
    key = ahead_key(id_, 1)
    assert stage.blobs == [events.SendBlob(client, key, remote)]  # type: ignore[arg-type]
    assert not stage.results(client)
    assert stage.core.at_rest()["delivering"] == 1
    stage.reach(client)
    stage.turn()
    assert stage.results(client) == {id_: ValueRow(id_, 0, None, 20)}
    assert len(stage.blobs) == 1  # it is not sent again


def test_its_node_may_forget_it_only_then() -> None:
    stage = Stage(inline_bytes_max=10)
    stage.prompt = False
    client, node, id_ = _started(stage)
    stage.say(node, Done([DoneRow(id_, 1, (ValueRow(id_, 0, None, 20),), 0.1)], 1))
    stage.event(events.BlobReceived(node, id_, _remote(node, id_)))  # type: ignore[arg-type]
    stage.live(1.0)
    assert not stage.take(node, HandedOver)
    stage.prompt = True
    stage.live(1.0)
    assert id_ in stage.results(client)
    assert len(stage.take(node, HandedOver)) == 1


def test_with_its_node_it_is_lost_as_long_as_nobody_has_it_and_the_task_runs_again() -> None:
    stage = Stage(inline_bytes_max=10)
    stage.prompt = False
    client, node, id_ = _started(stage)
    _ends(stage, node, id_)
    stage.turn()
    other = stage.node("o")
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert stage.core.registered()["nodes"] == 1
    stage.prompt = True
    stage.live(1.0, 0.25, node)
    (row,) = stage.assigned(other)
    assert (row.id, row.attempt) == (id_, 2)
    stage.finish(other, [row])
    stage.turn()
    assert stage.results(client)[id_].payload is not None
    assert stage.live(1.0, 0.25, node).at_rest()


def test_a_task_that_depends_on_it_gets_it_from_where_it_is() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node, id_ = _started(stage)
    (next_id,) = ids_of(client, 1, worker=1)
    stage.submit(client, stage.define(client), [next_id], deps=(id_,))
    remote = _ends(stage, node, id_)
    stage.live(0.5)
    assert stage.results(client) == {id_: ValueRow(id_, 0, None, 20)}
    (row,) = stage.assigned(node)
    assert row.values == (ValueRow(id_, 0, None, 20),)
    told = deque(blob for blob in stage.blobs if blob.peer == node)
    assert told == deque([events.SendBlob(node, id_, remote)])  # type: ignore[arg-type]
    stage.finish(node, [row])
    assert stage.live(0.5).at_rest()


def test_an_error_that_is_tried_again_is_not_sent_to_anybody() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    kind = stage.define(client, retry_exceptions=True, retry_backoff_s=0.0)
    stage.submit(client, kind, [id_])
    stage.turn()
    stage.assigned(node)
    stage.done(node, DoneRow(id_, 1, (ValueRow(id_, 1, None, 20),), 0.1, retry=True))
    stage.event(events.BlobReceived(node, id_, _remote(node, id_)))  # type: ignore[arg-type]
    stage.live(0.5)
    assert not stage.blobs
    rows: list[AssignRow] = stage.assigned(node)
    assert [row.attempt for row in rows] == [2]
    stage.done(node, value_done(rows[0]))
    stage.turn()
    assert id_ in stage.results(client)


@pytest.mark.parametrize("ended", ["retry", "died"])
def test_a_last_error_is_sent_ahead_like_a_value_and_lost_with_its_node_until_it_is_there(
    ended: str,
) -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, retry_exceptions=True, max_retries=0), [id_])
    stage.turn()
    stage.assigned(node)
    stage.prompt = False
    row = DoneRow(id_, 1, (ValueRow(id_, 1, None, 20),), 0.1, **{ended: True})
    stage.done(node, row)
    remote = _remote(node, id_)
    stage.event(events.BlobReceived(node, id_, remote))  # type: ignore[arg-type]
    stage.turn()
    key = ahead_key(id_, 1)
    assert stage.blobs == [events.SendBlob(client, key, remote)]  # type: ignore[arg-type]
    assert not stage.results(client)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    failure = stage.results(client)[id_].failure
    assert failure is not None
    assert failure.error == "NodeLost"


def test_several_values_of_one_task_are_sent_ahead_and_counted_together() -> None:
    stage = Stage(inline_bytes_max=10)
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, num_returns=2), [id_])
    stage.turn()
    stage.assigned(node)
    stage.prompt = False
    one, two = objects_of(id_, 2)
    stage.done(node, DoneRow(id_, 1, tuple(ValueRow(v, 0, None, 20) for v in (one, two)), 0.1))
    for value in (one, two):
        remote = _remote(node, value)
        stage.event(events.BlobReceived(node, value, remote))  # type: ignore[arg-type]
        stage.turn()
    assert [blob.key for blob in stage.blobs] == [ahead_key(v, 1) for v in (one, two)]
    assert not stage.results(client)
    stage.reach(client)
    stage.turn()
    assert set(stage.results(client)) == {one, two}


def _dependant(stage: Stage, near: PeerId, **options: Any) -> tuple[TaskId, PeerId]:
    """Have a task depend on a large result of one of two nodes; return both."""
    client = stage.client()
    (id_, next_id) = ids_of(client, 2)
    stage.submit(client, stage.define(client, node=near[:1].decode()), [id_])
    stage.turn()
    assert len(stage.assigned(near)) == 1
    stage.submit(client, stage.define(client, **options), [next_id], deps=(id_,))
    _ends(stage, near, id_)
    stage.live(0.5)
    return next_id, client


def test_a_task_goes_where_most_of_what_it_needs_lies() -> None:
    for letter in "ab":
        stage = Stage(inline_bytes_max=10)
        nodes = {name: stage.node(name) for name in "ab"}
        next_id, _ = _dependant(stage, nodes[letter])
        assert [row.id for row in stage.assigned(nodes[letter])] == [next_id]


def test_a_task_goes_elsewhere_rather_than_wait_for_the_node_that_has_what_it_needs() -> None:
    stage = Stage(inline_bytes_max=10)
    busy, idle = stage.node("a", cpus=1), stage.node("b", cpus=1)
    client = stage.client("d")
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, node="a", priority=9), [id_])
    stage.turn()
    ((first,),) = [stage.assigned(busy)]
    (long_id, next_id) = ids_of(client, 2, worker=1)
    stage.submit(client, stage.define(client, node="a", priority=5), [long_id])
    stage.submit(client, stage.define(client), [next_id], deps=(id_,))
    _ends(stage, busy, TaskId(first.id))
    stage.live(0.5)
    assert [row.id for row in stage.assigned(busy)] == [long_id]
    assert [row.id for row in stage.assigned(idle)] == [next_id]


def test_tasks_that_are_to_be_spread_do_not_gather_where_their_values_lie() -> None:
    stage = Stage(inline_bytes_max=10)
    near, other = stage.node("a"), stage.node("b")
    client = stage.client()
    (id_, *rest) = ids_of(client, 3)
    stage.submit(client, stage.define(client, node="a"), [id_])
    stage.turn()
    stage.assigned(near)
    stage.submit(client, stage.define(client, spread=True), rest, deps=(id_,))
    _ends(stage, near, id_)
    stage.live(0.5)
    assert len(stage.assigned(near)) == len(stage.assigned(other)) == 1


def test_a_task_at_the_node_that_submitted_its_maker_gets_it_like_any_other() -> None:
    stage = Stage(inline_bytes_max=10)
    client, home = stage.client(), stage.node("h", cpus=1)
    parent_kind = stage.define(client)
    (parent_id,) = ids_of(client, 1)
    stage.submit(client, parent_kind, [parent_id])
    stage.turn()
    (parent,) = stage.assigned(home)
    other = stage.node("o", cpus=1)
    (made,), (needs,) = ids_of(home, 1, worker=1), ids_of(home, 1, worker=2)
    kind = stage.define(home, client)
    stage.submit(home, kind, [made], client, parent.id, 1)
    stage.turn()
    assert [row.id for row in stage.assigned(other)] == [made]
    stage.submit(home, kind, [needs], client, parent.id, 1, deps=(made,))
    remote = _ends(stage, other, made)
    stage.live(0.5)
    stage.taken_back(other, *stage.assigned(other))
    stage.blocked(home, parent)
    stage.event(events.PeerDisconnected(other))
    stage.live(2.0, 0.25, other)
    (row,) = stage.assigned(home)
    assert row.values == (ValueRow(made, 0, None, 20),)
    # The result, and once more as an argument: the node pairs each row with a payload of its own.
    told = [blob for blob in stage.blobs if blob.peer == home]
    keys = [ahead_key(made, 1), made]
    assert told == [events.SendBlob(home, key, remote) for key in keys]  # type: ignore[arg-type]


def test_what_lies_elsewhere_may_come_before_its_row_however_large_it_is_but_not_without_end() -> (
    None
):
    stage = Stage(inline_bytes_max=10, value_bytes_max=1024)
    node = stage.node()
    source = Source(node, "tcp://10.0.0.1:7000", bytes(32))
    holder = Traffic(Reader.to_scheduler(), Settings(), peer=node, name="one", source=source)
    for number in range(5):
        (id_,) = ids_of(node, 1, worker=number)
        assert not stage.drops
        remote = Remote(holder, Offered(id_, 1, 1 << 34, id_))
        stage.event(events.BlobReceived(node, id_, remote))  # type: ignore[arg-type]
        stage.turn()
    assert [drop.peer for drop in stage.drops] == [node]
