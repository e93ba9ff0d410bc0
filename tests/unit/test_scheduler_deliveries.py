"""A node may forget a result once its submitter has it, or is gone; and not before."""

from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import (
    Assign,
    AssignRow,
    Done,
    DoneRow,
    HandedOver,
    Leave,
    Results,
    Retried,
    ValueRow,
)
from drumbeat.scheduler import events
from drumbeat.scheduler.deliveries import (
    HAND_OVER_NUMBERS_MAX,
    HAND_OVER_S,
    MARK_EACH_S,
    Deliveries,
)
from drumbeat.scheduler.state import State
from support.scheduling import Stage, died, ids_of, value_done

BIG = 100_000


def slow_stage() -> Stage:
    """Return a stage whose peers acknowledge only when they are told to."""
    stage = Stage()
    stage.prompt = False
    return stage


def running(stage: Stage, client: PeerId, node: PeerId, count: int = 1) -> list[AssignRow]:
    stage.submit(client, stage.define(client), ids_of(client, count))
    stage.turn()
    return stage.assigned(node)


def handed_over(stage: Stage, node: PeerId) -> list[int]:
    return [number for message in stage.take(node, HandedOver) for number in message.numbers]


def done(stage: Stage, node: PeerId, number: int, *rows: DoneRow) -> None:
    stage.say(node, Done(list(rows), number))


def later(stage: Stage) -> None:
    stage.turn(HAND_OVER_S + 0.01)


def test_a_result_is_handed_over_when_its_submitter_has_it() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, value_done(row))
    stage.turn()
    assert row.id in stage.results(client)
    later(stage)
    assert handed_over(stage, node) == []
    assert not stage.at_rest()
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == [1]
    assert stage.at_rest()


def test_the_mark_is_the_last_word_to_the_submitter_in_a_turn() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, value_done(row, payload=bytes(BIG)))
    commands = stage.core.turn(stage.now_s)
    assert isinstance(commands[-1], events.Mark)
    assert commands[-1].peer == client
    assert any(isinstance(one, events.SendBlob) for one in commands[:-1])
    assert any(isinstance(one, events.Send) for one in commands[:-1])


def test_a_turn_costs_one_mark_a_submitter_however_many_results_it_tells() -> None:
    stage = slow_stage()
    client, other, node = stage.client(), stage.client("d"), stage.node(cpus=20)
    rows = running(stage, client, node, 5) + running(stage, other, node, 5)
    for number, row in enumerate(rows, 1):
        done(stage, node, number, value_done(row))
    stage.turn()
    assert {peer: len(marks) for peer, marks in stage.marks.items()} == {client: 1, other: 1}
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == []
    stage.reach(other)
    later(stage)
    assert handed_over(stage, node) == list(range(1, 11))


def test_numbers_ride_with_new_work() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node(cpus=1)
    (first,) = running(stage, client, node, 3)
    done(stage, node, 1, value_done(first))
    stage.turn()
    (second,) = stage.assigned(node)
    stage.reach(client)
    stage.turn()
    assert handed_over(stage, node) == []
    done(stage, node, 2, value_done(second))
    stage.turn()
    assert stage.take(node, Assign)
    assert handed_over(stage, node) == [1]


def test_turns_that_follow_quickly_share_a_mark_that_is_set_behind_them_all() -> None:
    stage = slow_stage()
    clients, node = [stage.client(), stage.client("d")], stage.node(cpus=100)
    rows = [running(stage, client, node, 2) for client in clients]
    done(stage, node, 1, value_done(rows[0][0]))
    stage.turn()
    assert list(stage.marks) == clients[:1]
    for number, row in ((2, rows[0][1]), (3, rows[1][0])):
        done(stage, node, number, value_done(row))
        stage.turn(MARK_EACH_S / 10)
    assert sum(len(marks) for marks in stage.marks.values()) == 1
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s <= stage.now_s + MARK_EACH_S
    assert stage.core.at_rest()["taken_in"], "two turns have no mark yet"
    stage.turn(MARK_EACH_S)
    assert [len(stage.marks[client]) for client in clients] == [2, 1]
    stage.reach(clients[0])
    later(stage)
    assert handed_over(stage, node) == [1], "the other client has yet to hear of the third"
    stage.reach(clients[1])
    later(stage)
    assert handed_over(stage, node) == [2, 3]


def test_who_goes_before_a_mark_is_set_is_not_waited_for() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node(cpus=100)
    rows = running(stage, client, node, 2)
    for number, row in enumerate(rows, 1):
        done(stage, node, number, value_done(row))
        stage.turn(MARK_EACH_S / 10)
    stage.say(client, Leave())
    later(stage)
    later(stage)
    assert handed_over(stage, node) == [1, 2]
    assert stage.at_rest()


def test_numbers_that_ride_on_nothing_go_after_a_while_or_when_there_are_many() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node(cpus=100)
    rows = running(stage, client, node, HAND_OVER_NUMBERS_MAX + 1)
    done(stage, node, 1, value_done(rows[0]))
    stage.turn()
    stage.reach(client)
    stage.turn()
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert stage.now_s < due_s <= stage.now_s + HAND_OVER_S
    for number in range(2, HAND_OVER_NUMBERS_MAX + 1):
        done(stage, node, number, value_done(rows[number - 1]))
    stage.turn(MARK_EACH_S)
    assert handed_over(stage, node) == []
    stage.reach(client)
    stage.turn()
    assert len(handed_over(stage, node)) == HAND_OVER_NUMBERS_MAX
    done(stage, node, 65, value_done(rows[64]))
    stage.turn(MARK_EACH_S)
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == [65]


def test_a_message_counts_when_the_last_of_its_large_values_has_come() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    rows = running(stage, client, node, 2)
    large = [DoneRow(row.id, row.attempt, (ValueRow(row.id, 0, None, BIG),), 1.0) for row in rows]
    stage.event(events.BlobReceived(node, rows[0].id, bytes(BIG)))
    done(stage, node, 1, *large)
    stage.turn()
    stage.reach(client)
    later(stage)
    assert list(stage.results(client)) == [rows[0].id]
    assert handed_over(stage, node) == []
    stage.event(events.BlobReceived(node, rows[1].id, bytes(BIG)))
    stage.turn()
    assert list(stage.results(client)) == [rows[1].id]
    later(stage)
    assert handed_over(stage, node) == []
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == [1]
    assert stage.at_rest()


def test_a_large_value_whose_task_was_cancelled_meanwhile_is_handed_over_too() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, DoneRow(row.id, row.attempt, (ValueRow(row.id, 0, None, BIG),), 1.0))
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    stage.event(events.BlobReceived(node, row.id, bytes(BIG)))
    stage.turn()
    later(stage)
    assert handed_over(stage, node) == [1]
    assert stage.at_rest()


def test_a_stale_result_is_handed_over_at_once() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (id_,) = ids_of(client, 1)
    done(stage, node, 1, DoneRow(id_, 1, (ValueRow(id_, 0, b"v"),), 0.1))
    stage.turn()
    later(stage)
    assert handed_over(stage, node) == [1]
    assert not stage.marks


def test_a_retry_is_handed_over_when_the_submitter_knows_of_it() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, died(row))
    stage.turn()
    assert stage.take(client, Retried)
    later(stage)
    assert handed_over(stage, node) == []
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == [1]


def test_what_a_submitter_that_is_gone_was_told_is_handed_over() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, value_done(row))
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    later(stage)
    assert handed_over(stage, node) == [1]
    stage.event(events.Reached(client, stage.marks[client]))
    assert stage.at_rest()


def test_a_node_that_is_gone_is_told_nothing() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    rows = running(stage, client, node, 2)
    done(stage, node, 1, value_done(rows[0]))
    stage.turn()
    done(stage, node, 2, value_done(rows[1]))
    stage.say(node, Leave())
    stage.turn()
    stage.reach(client)
    later(stage)
    assert handed_over(stage, node) == []
    assert stage.at_rest()


def test_nothing_is_due_when_the_only_node_to_be_told_is_gone() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, value_done(row))
    stage.turn()
    stage.reach(client)
    stage.turn()
    stage.say(node, Leave())
    later(stage)
    due_s = stage.core.deadline_s()
    assert due_s is None or due_s > stage.now_s, "the loop would not sleep"
    assert handed_over(stage, node) == []
    stage.core.check_invariants()


def test_a_node_that_submits_has_what_it_acknowledged() -> None:
    stage = slow_stage()
    client, home = stage.client(), stage.node("h")
    (parent,) = running(stage, client, home)
    kind = stage.define(home, client)
    (child,) = ids_of(home, 1, worker=1)
    stage.submit(home, kind, [child], client=client, parent=parent.id, depth=1)
    stage.turn()
    (row,) = stage.assigned(home)
    done(stage, home, 1, value_done(row))
    stage.turn()
    assert stage.take(home, Results)
    assert list(stage.marks) == [home]
    stage.reach(home)
    later(stage)
    assert handed_over(stage, home) == [1]


def test_messages_without_a_number_cost_nothing_and_are_not_handed_over() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    stage.done(node, value_done(row))
    stage.turn()
    later(stage)
    assert not stage.marks
    assert handed_over(stage, node) == []
    assert stage.at_rest()


def test_what_is_to_follow_a_turn_follows_when_all_it_told_has_arrived() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    state: State = stage.core._state
    deliveries: Deliveries = stage.core._deliveries
    said: list[str] = []
    deliveries.after_turn(lambda: said.append("nobody was told anything"))
    stage.turn()
    assert said == ["nobody was told anything"]
    said.clear()
    state.out.retry(client, row.id, 2)  # type: ignore[arg-type]
    deliveries.after_turn(lambda: said.append("the client knows"))
    stage.turn()
    stage.turn()
    assert said == []
    stage.reach(client)
    assert said == ["the client knows"]


def test_what_waits_for_everybody_waits_for_what_earlier_turns_told_too() -> None:
    stage = slow_stage()
    client, node = stage.client(), stage.node()
    (row,) = running(stage, client, node)
    done(stage, node, 1, value_done(row))
    stage.turn()
    said: list[str] = []
    deliveries: Deliveries = stage.core._deliveries
    deliveries.after_turn(lambda: said.append("all know"), everybody=True)
    stage.turn()
    stage.reach(node)
    stage.reach(client, 1)
    assert said == []
    stage.reach(client)
    assert said == ["all know"]
