"""Deadlocks over resources: when nothing moves on any node, one get() is told."""

import pytest
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import AssignRow, Beat, Fetch, Leave, TakeBack
from drumbeat.protocol.running import RunningRow
from drumbeat.protocol.standstill import Deadlock, Look, Looked, WaitRow
from support.acting import Acting
from support.scheduling import Stage, died, ids_of


class Still(Stage):
    """A stage whose nodes say that nothing moves on them."""

    def rest(self, *nodes: PeerId) -> None:
        """Let nodes beat."""
        for node in nodes:
            self.say(node, Beat(0.0, 1, 0, [], 0, True))
        self.turn()

    def looks(self, *nodes: PeerId) -> list[int]:
        """Take the numbers of the looks that nodes were sent."""
        return [look.number for node in nodes for look in self.take(node, Look)]

    def look(self, *nodes: PeerId) -> int:
        """Let nodes rest for long enough; return the number of the look at them all."""
        self.rest(*nodes)
        assert not self.looks(*nodes)
        self.turn(1.0)
        numbers = self.looks(*nodes)
        assert len(numbers) == len(nodes)
        return numbers[0]

    def answer(self, node: PeerId, number: int, *rows: AssignRow, lends: bool = True) -> None:
        waits = [WaitRow(row.id, row.attempt, lends) for row in rows]
        self.say(node, Looked(number, True, waits))

    def told(self, *nodes: PeerId) -> list[tuple[bytes, int, str]]:
        """Take what nodes were told of deadlocks."""
        return [row for node in nodes for word in self.take(node, Deadlock) for row in word.rows]


def nested(
    stage: Still, node: PeerId, client: PeerId, parent: AssignRow, **options: object
) -> bytes:
    """Have a task call another."""
    (child,) = ids_of(node, 1, worker=parent.order + 1)
    kind = stage.define(node, client, "child", **options)
    stage.submit(node, kind, [child], client, parent.id, parent.depth + 1)
    stage.turn()
    return child


def stage_with(cpus: float = 2, count: int = 1, **options: object) -> tuple[Still, PeerId, PeerId]:
    """Return a stage with a client, and a node that has been given tasks of such a kind."""
    stage = Still()
    resources = {name: 1.0 for name, _ in options.get("resources", ())}  # type: ignore[attr-defined]
    client, node = stage.client(), stage.node(cpus=cpus, **resources)
    stage.submit(client, stage.define(client, name="parent", **options), ids_of(client, count))
    stage.turn()
    return stage, client, node


LANE = (("lane", 1.0),)


def lane() -> tuple[Still, PeerId, AssignRow, bytes]:
    """Return a stage where a task waits with the one lane, and its child asks for it too."""
    stage, client, node = stage_with(resources=LANE)
    (row,) = stage.assigned(node)
    child = nested(stage, node, client, row, resources=LANE)
    stage.blocked(node, row)
    stage.turn()
    assert not stage.assigned(node)
    return stage, node, row, child


def test_a_parent_that_keeps_what_its_child_needs_is_told_what_keeps_it():
    stage, node, row, _child = lane()
    stage.answer(node, stage.look(node), row)
    stage.turn()
    ((task, attempt, text),) = stage.told(node)
    assert (task, attempt) == (row.id, row.attempt)
    assert (
        "parent waits in get() on node 'n' and keeps lane 1; child asks for CPU 1, lane 1" in text
    )
    assert "more lane" in text
    assert stage.core.counters["deadlocks"] == 1


class Circle(Still, Acting):
    """Such a stage, with actors."""


def test_an_actor_that_waits_for_itself_is_told_which_call_waits_and_which_cannot_start():
    stage = Circle()
    node = stage.node()
    actor = stage.create()
    creation = stage.started(actor, node)
    asks = stage.call(actor, method="ask")
    stage.turn()
    (row,) = stage.assigned(node)
    stage.call(actor, peer=node, worker=1, client=stage.caller, parent=bytes(asks), depth=1)
    stage.turn()
    running = [RunningRow(row.id, row.attempt, 1.0)]
    stage.say(node, Beat(0.0, 1, 0, running, 0, True))
    stage.turn(1.0)
    stage.turn()
    (number,) = stage.looks(node)
    stage.answer(node, number, creation)
    stage.turn()
    ((task, _, text),) = stage.told(node)
    assert task == actor
    assert "Counter.ask waits in get() on node 'n', and Counter.add cannot start" in text


def test_a_cpu_that_may_not_be_lent_names_the_setting():
    stage, client, node = stage_with(cpus=1)
    (row,) = stage.assigned(node)
    nested(stage, node, client, row)
    stage.answer(node, stage.look(node), row, lends=False)
    stage.turn()
    ((_, _, text),) = stage.told(node)
    assert "workers_blocked_max" in text
    assert "keeps CPU 1" in text


def test_the_last_assigned_of_those_in_the_way_is_told_and_each_once_before_any_twice():
    stage, client, node = stage_with(cpus=3, resources=LANE)
    (first,) = stage.assigned(node)
    stage.submit(client, stage.define(client, name="other"), ids_of(client, 3)[2:])
    stage.turn(1.0)
    (idle,) = stage.assigned(node)
    nested(stage, node, client, first, resources=LANE)
    for row in (first, idle):
        stage.blocked(node, row)
    stage.answer(node, stage.look(node), first, idle)
    stage.turn()
    assert [row[0] for row in stage.told(node)] == [first.id], "the other keeps nothing"


def test_all_nodes_are_looked_at_and_one_of_them_is_told():
    stage = Still()
    client, one, two = stage.client(), stage.node("n", 1), stage.node("m", 1)
    stage.submit(client, stage.define(client, name="parent"), ids_of(client, 2))
    stage.turn()
    rows = {node: stage.assigned(node)[0] for node in (one, two)}
    for node in (one, two):
        nested(stage, node, client, rows[node])
    number = stage.look(one, two)
    stage.answer(one, number, rows[one], lends=False)
    stage.turn()
    assert not stage.told(one, two)
    stage.answer(two, number, rows[two], lends=False)
    stage.turn()
    assert len(stage.told(one, two)) == 1


def test_no_node_is_looked_at_while_one_of_them_moves():
    stage, node, _row, _child = lane()
    stage.node("m")
    stage.rest(node)
    stage.turn(1.0)
    assert not stage.looks(node)


def test_a_node_that_moves_after_all_ends_the_matter():
    stage, node, _row, _child = lane()
    stage.say(node, Looked(stage.look(node), False, []))
    stage.turn(5.0)
    assert not stage.told(node)


def test_what_comes_or_goes_between_look_and_answer_ends_the_matter():
    stage, node, row, _child = lane()
    number = stage.look(node)
    stage.blocked(node, row, False)
    stage.answer(node, number, row)
    stage.turn()
    assert not stage.told(node)
    number = stage.look(node)
    client = stage.client("d")
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert stage.assigned(node)
    stage.answer(node, number, row)
    stage.turn(5.0)
    assert not stage.told(node)


def test_an_answer_in_the_same_turn_as_new_work_is_of_no_use():
    stage, node, row, _child = lane()
    number = stage.look(node)
    client = stage.client("d")
    stage.answer(node, number, row)
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert stage.assigned(node)
    assert not stage.told(node)


def test_work_that_cannot_be_placed_hides_nothing():
    stage, node, row, _child = lane()
    number = stage.look(node)
    client = stage.client("d")
    stage.submit(client, stage.define(client, resources=LANE), ids_of(client, 1))
    stage.turn()
    stage.answer(node, number, row)
    stage.turn()
    assert stage.told(node)


def test_the_judgement_begins_anew_after_each_that_was_told():
    stage, node, row, _child = lane()
    stage.answer(node, stage.look(node), row)
    stage.turn()
    assert stage.told(node)
    stage.live(5.0)
    assert not stage.looks(node)
    stage.answer(node, stage.look(node), row)
    stage.turn()
    assert stage.told(node), "it has asked again"


def test_who_was_told_is_forgotten_when_it_has_ended():
    stage, node, row, _child = lane()
    stage.answer(node, stage.look(node), row)
    stage.turn()
    assert stage.core.at_rest()["told_of_deadlock"] == 1
    stage.finish(node, [row])
    stage.turn()
    assert stage.core.at_rest()["told_of_deadlock"] == 0


def test_without_work_that_could_run_nobody_is_told():
    stage, client, node = stage_with()
    (row,) = stage.assigned(node)
    nested(stage, node, client, row, num_cpus=64.0, wait_for_nodes=True)
    stage.blocked(node, row)
    stage.answer(node, stage.look(node), row)
    stage.turn()
    assert not stage.told(node)


def test_a_task_that_is_to_be_tried_again_moves():
    stage, node, _row, _child = lane()
    client = stage.client("d")
    stage.submit(client, stage.define(client, retry_backoff_s=20.0), ids_of(client, 1))
    stage.turn()
    (other,) = stage.assigned(node)
    stage.done(node, died(other))
    stage.turn()
    stage.rest(node)
    stage.turn(1.0)
    assert not stage.looks(node)


def test_a_suspect_node_may_change_everything():
    stage, node, _row, _child = lane()
    silent = stage.node("m", lane=1.0)
    stage.say(silent, Beat(0.0, 1, 0, [], 0, True))
    stage.turn()
    stage.live(3.5, 0.25, silent)
    stage.rest(node)
    stage.live(1.0, 0.25, silent)
    assert not stage.looks(node)


def test_a_value_on_its_way_from_its_home_moves():
    stage, node, _row, _child = lane()
    stage.say(node, Fetch([IdFactory(PeerId(b"c" * 6), 9)()]))
    stage.rest(node)
    stage.live(9.0)
    assert not stage.looks(node)
    stage.live(2.0)
    assert stage.looks(node), "its home would have sent it: the task is not submitted yet"


def test_what_is_queued_at_a_node_that_stands_still_goes_where_it_fits():
    stage = Still()
    client, one = stage.client(), stage.node("n", 1)
    quick = stage.define(client, name="quick")
    stage.submit(client, quick, ids_of(client, 1))
    stage.turn()
    stage.finish(one, stage.assigned(one), 0.001)
    stage.submit(client, quick, ids_of(client, 3)[1:])
    stage.turn()
    parent, *queued = stage.assigned(one)
    assert len(queued) == 1
    stage.submit(
        client, stage.define(client, num_cpus=2.0, wait_for_nodes=True), ids_of(client, 5)[4:]
    )
    two = stage.node("m", 1)
    stage.turn()
    number = stage.look(one, two)
    stage.answer(one, number, parent, lends=False)
    stage.answer(two, number)
    stage.turn()
    assert not stage.told(one)
    assert stage.take(one, TakeBack) == [TakeBack(len(queued))]
    stage.taken_back(one, *queued)
    stage.turn()
    assert stage.assigned(two)


@pytest.mark.parametrize("answers", [0, 1])
def test_a_node_that_goes_while_it_is_looked_at_is_not_waited_for(answers):
    stage, node, row, _child = lane()
    other = stage.node("m")
    number = stage.look(node, other)
    if answers:
        stage.answer(other, number)
    stage.say(other, Leave())
    stage.turn()
    stage.answer(node, number, row)
    stage.turn()
    assert not stage.told(node)
    stage.answer(node, stage.look(node), row)
    stage.turn()
    assert stage.told(node)
