"""Who does not read gets no more work done; who submits more than was granted is refused."""

from typing import Any

import pytest
from drumbeat.protocol.frames import Channel
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import FIRST_CREDIT, Credit, Leave, Results, TakeBack
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler import events
from support.acting import Acting
from support.scheduling import Stage, ids_of, value_done

MIB = 1 << 20


def lag(stage: Stage, peer: PeerId, mib: int, channel: int = Channel.CONTROL) -> None:
    stage.event(events.PeerLags(peer, mib * MIB, channel))


def submitted(stage: Stage, client: PeerId, count: int = 3, **options: Any) -> int:
    kind = stage.define(client, **options)
    stage.submit(client, kind, ids_of(client, count))
    return kind


@pytest.mark.parametrize("channel", [Channel.CONTROL, Channel.BULK])
def test_a_client_that_does_not_read_gets_no_more_work_placed_until_it_has_caught_up(
    channel: int,
) -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    submitted(stage, client, 4)
    rows = stage.turn().assigned(node)
    assert len(rows) == 2
    lag(stage, client, 65, channel)
    stage.finish(node, rows)
    assert stage.turn().assigned(node) == []
    assert stage.take(client, Results), "what has run is told nevertheless"
    lag(stage, client, 70, channel)
    assert stage.turn().assigned(node) == []
    lag(stage, client, 0, channel)
    assert len(stage.turn().assigned(node)) == 2


def test_both_links_of_a_client_count_together() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    lag(stage, client, 40)
    lag(stage, client, 40, Channel.BULK)
    submitted(stage, client)
    assert stage.turn().assigned(node) == []
    lag(stage, client, 0)
    assert stage.turn().assigned(node)


def test_a_client_that_lags_a_little_is_served_on() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    lag(stage, client, 63)
    submitted(stage, client)
    assert stage.turn().assigned(node)


def test_others_work_goes_on_while_one_does_not_read() -> None:
    stage = Stage()
    client, other, node = stage.client(), stage.client("d"), stage.node(cpus=2)
    lag(stage, client, 100)
    submitted(stage, client, 5)
    submitted(stage, client, 5, num_cpus=2.0)
    submitted(stage, client, 5, priority=3)
    submitted(stage, other, 5)
    rows = stage.turn().assigned(node)
    assert {row.id[:6] for row in rows} == {other}
    stage.finish(node, rows)
    assert {row.id[:6] for row in stage.turn().assigned(node)} == {other}


def test_others_work_is_evened_out_while_one_does_not_read() -> None:
    stage = Stage()
    client, other, node = stage.client(), stage.client("d"), stage.node("n", cpus=1)
    kind = submitted(stage, other, 1)
    stage.finish(node, stage.turn().assigned(node), duration_s=0.0001)
    stage.submit(other, kind, ids_of(other, 3)[1:])
    assert len(stage.turn().assigned(node)) == 2
    lag(stage, client, 100)
    submitted(stage, client, 5)
    idle = stage.node("m", cpus=1)
    stage.turn()
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s <= stage.now_s + Settings().window_s
    stage.turn(Settings().window_s)
    assert stage.take(node, TakeBack) == [TakeBack(1)]
    assert stage.assigned(idle) == []


def test_calls_of_a_node_that_does_not_read_wait_with_those_of_their_client() -> None:
    stage = Stage()
    client, other, node = stage.client(), stage.client("d"), stage.node(cpus=4)
    submitted(stage, client, 1)
    assert stage.turn().assigned(node)
    lag(stage, node, 100, Channel.BULK)
    stage.submit(client, 1, ids_of(client, 2)[1:])
    assert stage.turn().assigned(node), "large payloads for a node are mostly arguments"
    lag(stage, node, 100)
    stage.submit(client, 1, ids_of(client, 3)[2:])
    submitted(stage, other, 1)
    assert {row.id[:6] for row in stage.turn().assigned(node)} == {other}
    lag(stage, node, 0)
    assert stage.turn().assigned(node)


def test_a_client_that_left_holds_back_nobody() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    submitted(stage, client)
    lag(stage, client, 100)
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    assert stage.at_rest()
    again = stage.client()
    submitted(stage, again)
    assert stage.turn().assigned(node)
    lag(stage, PeerId(b"nobody"), 100)


# ------------------------------------------------------------------------------------- credits


def test_a_client_is_told_its_credit_when_it_enters() -> None:
    stage = Stage(submit_credit_tasks=7, submit_credit_bytes=9)
    client, node = stage.client(), stage.node()
    stage.turn()
    assert stage.take(client, Credit) == [Credit(7, 9)]
    assert stage.take(node, Credit) == []


def test_a_client_may_have_what_was_granted_and_the_first_credit_unfinished_and_no_more() -> None:
    stage = Stage(submit_credit_tasks=5)
    client, node = stage.client(), stage.node()
    ids = ids_of(client, 5 + FIRST_CREDIT.tasks + 1)
    kind = stage.define(client)
    stage.submit(client, kind, ids[:-1])
    stage.turn()
    assert not stage.drops
    stage.finish(node, stage.assigned(node)[:1])
    stage.submit(client, kind, ids[-1:])
    stage.turn()
    assert not stage.drops, "one has ended"
    stage.submit(client, kind, ids_of(client, len(ids) + 1)[-1:])
    stage.turn()
    (drop,) = stage.drops
    assert drop.error == "RemoteProtocolError"
    assert "10006 unfinished tasks; it was granted 5" in drop.reason


def test_bytes_of_arguments_are_bounded_as_tasks_are_and_ends_are_counted() -> None:
    stage = Stage(submit_credit_bytes=MIB, value_bytes_max=MIB)
    client, node = stage.client(), stage.node(cpus=100)
    kind = stage.define(client)
    ids = ids_of(client, 60)
    for id_ in ids[:30]:
        stage.submit(client, kind, [id_], args=bytes(MIB // 4))
        stage.finish(node, stage.turn().assigned(node))
    stage.turn()
    assert not stage.drops
    stage.submit(client, kind, ids[30:35], size=2 * MIB)
    stage.turn()
    assert not stage.drops, "10 MiB are what is granted and may be ahead"
    stage.submit(client, kind, ids[35:36], args=b"x")
    stage.turn()
    (drop,) = stage.drops
    assert "10485761 bytes of arguments in unfinished tasks; it was granted 1048576" in drop.reason
    assert stage.at_rest()


def test_a_nodes_calls_are_bound_by_no_credit() -> None:
    stage = Stage(submit_credit_tasks=1, submit_credit_bytes=1)
    client, node = stage.client(), stage.node()
    kind = stage.define(node, client)
    count = FIRST_CREDIT.tasks + 50
    stage.submit(node, kind, ids_of(node, count, worker=1), client=client)
    stage.turn()
    assert not stage.drops


def test_living_actors_use_up_no_credit() -> None:
    stage = Acting(submit_credit_tasks=10)
    node = stage.node()
    stage.turn()
    (first,) = stage.take(stage.caller, Credit)
    actors = [stage.create() for _ in range(3)]
    stage.turn()
    rows = stage.assigned(node)
    assert stage.take(stage.caller, Credit) == [], "they do not live yet"
    stage.up(node, *rows)
    (more,) = stage.take(stage.caller, Credit)
    assert (more.tasks, more.bytes) == (first.tasks + 3, first.bytes)
    stage.done(node, value_done(rows[0], b""))
    stage.turn()
    (less,) = stage.take(stage.caller, Credit)
    assert less.tasks == first.tasks + 2
    kind = stage.define(stage.caller)
    most = first.tasks + FIRST_CREDIT.tasks
    stage.submit(stage.caller, kind, [stage.name(stage.caller) for _ in range(most)])
    assert not stage.drops
    stage.submit(stage.caller, kind, [stage.name(stage.caller)])
    assert [drop.error for drop in stage.drops] == ["RemoteProtocolError"]
    assert len(actors) == 3
