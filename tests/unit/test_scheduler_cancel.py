"""Cancelling: what waits, what runs, and whole families."""

from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import (
    AssignRow,
    Cancelled,
    Define,
    KindRow,
    Leave,
    Options,
    Stop,
    StopMode,
)
from drumbeat.protocol.messages import Outcome as Out
from support.scheduling import Stage, died, error_done, failure_done, ids_of, value_done


def errors(stage: Stage, peer: PeerId) -> dict[bytes, str]:
    return {
        id_: row.failure.error if row.failure is not None else Out(row.outcome).name
        for id_, row in stage.results(peer).items()
    }


class Family:
    """A parent at a node, with children that it submitted there."""

    def __init__(self, children: int = 2, cpus: float = 1, **options: Any) -> None:
        self.stage = stage = Stage()
        self.client, self.node = stage.client(), stage.node(cpus=cpus)
        (self.id,) = ids_of(self.client, 1)
        stage.submit(self.client, stage.define(self.client, **options), [self.id])
        stage.turn()
        (self.row,) = stage.assigned(self.node)
        self.kind = stage.define(self.node, self.client, name="child")
        self.children = ids_of(self.node, children, worker=1)
        self.nest(self.children, self.id, 1)

    def nest(self, ids: list[TaskId], parent: bytes, depth: int) -> None:
        self.stage.submit(self.node, self.kind, ids, self.client, parent, depth)


def test_a_queued_task_is_dropped_at_once_and_never_starts() -> None:
    stage = Stage()
    client = stage.client()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.cancel(client, id_)
    stage.turn()
    assert errors(stage, client) == {id_: "TaskCancelled"}
    assert stage.at_rest()
    node = stage.node()
    stage.live(1.0)
    assert not stage.assigned(node)
    assert stage.core.counters["cancelled"] == 1


def test_a_task_that_waits_for_a_value_is_dropped_at_once() -> None:
    stage = Stage()
    client, other = stage.client(), stage.client("o")
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_], deps=tuple(ids_of(other, 1)))
    stage.turn()
    stage.cancel(client, id_)
    stage.turn()
    assert errors(stage, client) == {id_: "TaskCancelled"}
    assert stage.at_rest()


def test_a_task_that_waits_for_its_arguments_is_dropped_and_so_are_they() -> None:
    from drumbeat.scheduler import events

    stage = Stage()
    client = stage.client()
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_], size=9)
    stage.cancel(client, id_)
    stage.turn()
    stage.event(events.BlobReceived(client, id_ + b"a", b"arguments"))
    assert stage.turn().at_rest()


def test_a_task_at_a_node_is_stopped_there() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.cancel(family.client, family.id)
    stage.cancel(family.client, family.id)
    stage.turn()
    assert [stop.rows for stop in stage.take(family.node, Stop)] == [
        [(family.id, 1, StopMode.SOFT)]
    ]
    assert not stage.results(family.client), "its end is awaited"
    stage.done(family.node, failure_done(family.row, "TaskCancelled"))
    stage.turn()
    assert errors(stage, family.client) == {family.id: "TaskCancelled"}
    assert stage.at_rest()


def test_force_goes_further_than_what_was_asked_before() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.cancel(family.client, family.id)
    stage.cancel(family.client, family.id, force=True)
    stage.turn()
    assert stage.take(family.node, Stop)[0].rows[-1] == (family.id, 1, StopMode.FORCE)


def test_a_value_beats_a_cancel() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.cancel(family.client, family.id)
    stage.done(family.node, value_done(family.row))
    stage.turn()
    assert errors(stage, family.client) == {family.id: "VALUE"}


@pytest.mark.parametrize("how", ["died", "lost", "taken back", "retry"])
def test_a_cancelled_task_is_never_tried_again(how: str) -> None:
    family = Family(children=0)
    stage = family.stage
    stage.cancel(family.client, family.id)
    stage.turn()
    if how == "died":
        stage.done(family.node, died(family.row))
    elif how == "lost":
        stage.say(family.node, Leave())
    elif how == "taken back":
        stage.taken_back(family.node, family.row)
    else:
        stage.done(family.node, error_done(family.row, retry=True))
    stage.live(5.0)
    expected = "ERROR" if how == "retry" else "TaskCancelled"
    assert errors(stage, family.client) == {family.id: expected}
    assert stage.core.counters["retried"] == 0


def test_a_task_that_waits_to_be_tried_again_is_dropped() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.done(family.node, died(family.row))
    stage.turn()
    stage.cancel(family.client, family.id)
    stage.live(2.0)
    assert errors(stage, family.client) == {family.id: "TaskCancelled"}
    assert not stage.assigned(family.node)
    assert stage.at_rest()


def test_cancelling_what_is_finished_or_unknown_does_nothing() -> None:
    stage = Stage()
    client = stage.client()
    stage.cancel(client, *ids_of(client, 2), *ids_of(PeerId(b"nobody"), 1), request=5)
    stage.turn()
    assert stage.take(client, Cancelled) == [Cancelled(5, [False, False, False])]
    assert not stage.results(client)


def test_whoever_asks_is_told_what_had_not_started_and_the_rest_goes_on() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    ids = ids_of(client, 3)
    stage.submit(client, stage.define(client), ids)
    stage.turn()
    (running,) = stage.assigned(node)
    stage.beat(node, (ids[0], 1, 0.1))
    stage.cancel(client, ids[2], ids[0], request=9)
    stage.turn()
    assert stage.take(client, Cancelled) == [Cancelled(9, [True, False])]
    assert not stage.take(node, Stop)
    assert errors(stage, client) == {ids[2]: "TaskCancelled"}
    stage.finish(node, [running])
    stage.turn()
    assert errors(stage, client) == {ids[0]: "VALUE"}


def test_only_whoever_submitted_a_task_is_told_that_it_never_starts() -> None:
    # Given up, and there again, a submitter tells again what others may have cancelled.
    stage = Stage()
    client, other = stage.client("a"), stage.client("b")
    ids = ids_of(client, 2)
    stage.submit(client, stage.define(client), ids)
    stage.cancel(other, ids[0], request=9)
    stage.cancel(client, ids[1], request=9)
    stage.turn()
    assert errors(stage, client) == dict.fromkeys(ids, "TaskCancelled")
    assert stage.take(other, Cancelled) == [Cancelled(9, [False])]
    assert stage.take(client, Cancelled) == [Cancelled(9, [True])]


class Asked:
    """A client that asked for two tasks at a node, of which nobody knows whether they run."""

    def __init__(self) -> None:
        self.stage = stage = Stage()
        self.client, self.node = stage.client(), stage.node(cpus=2)
        self.ids = ids_of(self.client, 3)
        stage.submit(self.client, stage.define(self.client), self.ids)
        stage.turn()
        self.rows = stage.assigned(self.node)
        stage.cancel(self.client, *self.ids, request=9)
        stage.turn()

    def answers(self) -> list[list[bool]]:
        self.stage.turn()
        return [answer.dropped for answer in self.stage.take(self.client, Cancelled)]


def test_whoever_asks_is_told_what_its_node_drops_unstarted() -> None:
    asked = Asked()
    stage, ids = asked.stage, asked.ids
    (stop,) = stage.take(asked.node, Stop)
    assert stop.rows == [(id_, 1, StopMode.UNSTARTED) for id_ in ids[:2]]
    assert asked.answers() == []
    stage.done(asked.node, failure_done(asked.rows[0], "TaskCancelled", duration_s=-1.0))
    assert asked.answers() == []
    stage.beat(asked.node, (ids[1], 1, 0.1))
    assert asked.answers() == [[True, False, True]]
    assert errors(stage, asked.client) == dict.fromkeys((ids[0], ids[2]), "TaskCancelled")
    stage.finish(asked.node, asked.rows[1:])
    stage.turn()
    assert errors(stage, asked.client) == {ids[1]: "VALUE"}
    assert stage.at_rest()


def test_what_ends_or_comes_back_meanwhile_answers_the_question() -> None:
    asked = Asked()
    stage = asked.stage
    stage.finish(asked.node, asked.rows[:1])
    stage.taken_back(asked.node, asked.rows[1])
    assert asked.answers() == [[False, True, True]]
    assert not stage.assigned(asked.node)
    assert stage.at_rest()


def test_what_was_at_a_node_that_is_lost_may_have_started_though_it_was_cancelled_as_well() -> None:
    asked = Asked()
    asked.stage.cancel(asked.client, *asked.ids)
    asked.stage.say(asked.node, Leave())
    assert asked.answers() == [[False, False, True]]
    assert errors(asked.stage, asked.client) == dict.fromkeys(asked.ids, "TaskCancelled")


def test_what_is_at_a_node_when_its_client_is_gone_may_have_started() -> None:
    family = Family(children=1, cpus=2)
    stage = family.stage
    stage.turn()
    assert stage.assigned(family.node)
    stage.cancel(family.node, *family.children, request=9)
    stage.turn()
    stage.say(family.client, Leave())
    stage.turn()
    assert stage.take(family.node, Cancelled) == [Cancelled(9, [False])]


def test_whoever_asks_waits_no_longer_than_a_second() -> None:
    asked = Asked()
    asked.stage.now_s += 0.9
    assert asked.answers() == []
    due_s = asked.stage.core.deadline_s()
    assert due_s is not None
    asked.stage.now_s = due_s
    assert asked.answers() == [[False, False, True]]
    asked.stage.finish(asked.node, asked.rows)
    assert asked.stage.turn().at_rest()


def test_a_question_whose_asker_has_left_is_forgotten() -> None:
    asked = Asked()
    asked.stage.say(asked.client, Leave())
    assert asked.stage.turn(2.0).at_rest()


def test_anybody_may_cancel_anybodys_task() -> None:
    stage = Stage()
    client, other = stage.client("a"), stage.client("b")
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [id_])
    stage.cancel(other, id_)
    stage.turn()
    assert errors(stage, client) == {id_: "TaskCancelled"}


def test_a_family_is_cancelled_down_to_the_last() -> None:
    family = Family()
    stage = family.stage
    stage.blocked(family.node, family.row)
    stage.turn()
    (child,) = stage.assigned(family.node)
    grandchildren = ids_of(family.node, 2, worker=2)
    family.nest(grandchildren, child.id, 2)
    stage.cancel(family.client, family.id)
    stage.turn()
    (stop,) = stage.take(family.node, Stop)
    assert stop.rows == [(family.id, 1, StopMode.SOFT), (child.id, 1, StopMode.SOFT)]
    rest = {family.children[1], *grandchildren}
    assert errors(stage, family.node) == dict.fromkeys(rest, "TaskCancelled")


@pytest.mark.parametrize("force", [False, True])
def test_without_its_children_a_task_is_cancelled_alone(force: bool) -> None:
    family = Family()
    stage = family.stage
    stage.cancel(family.client, family.id, recursive=False, force=force)
    late = ids_of(family.node, 1, worker=2)
    family.nest(late, family.id, 1)
    stage.done(family.node, failure_done(family.row, "TaskCancelled"))
    stage.turn()
    assert errors(stage, family.client) == {family.id: "TaskCancelled"}
    assert not stage.take(family.node, Stop)[0].rows[1:]
    assert not stage.results(family.node)
    for _ in range(3):
        stage.finish(family.node, stage.assigned(family.node))
        stage.turn()
    assert errors(stage, family.node) == dict.fromkeys([*family.children, *late], "VALUE")
    assert stage.at_rest()


def test_children_that_were_spared_go_when_their_parent_is_cancelled_with_them_after_all() -> None:
    for order in ((False, True), (True, False)):
        family = Family()
        stage = family.stage
        for recursive in order:
            stage.cancel(family.client, family.id, recursive=recursive)
        stage.done(family.node, failure_done(family.row, "TaskCancelled"))
        stage.turn()
        assert set(errors(stage, family.node).values()) == {"TaskCancelled"}
        assert stage.at_rest()


def test_children_of_a_lost_attempt_are_cancelled_though_they_were_spared() -> None:
    family = Family()
    stage = family.stage
    stage.cancel(family.client, family.id, recursive=False)
    stage.done(family.node, died(family.row))
    stage.turn()
    assert errors(stage, family.node) == dict.fromkeys(family.children, "TaskCancelled")
    assert stage.at_rest()


def test_children_of_a_dead_attempt_are_cancelled_though_it_is_tried_again() -> None:
    family = Family()
    stage = family.stage
    stage.done(family.node, died(family.row))
    stage.turn()
    assert list(errors(stage, family.node)) == family.children
    stage.live(1.0)
    assert [row.attempt for row in stage.assigned(family.node)] == [2]


@pytest.mark.parametrize("end", [value_done, error_done], ids=["value", "error"])
def test_children_of_a_finished_task_go_on(end: Any) -> None:
    family = Family()
    stage = family.stage
    stage.done(family.node, end(family.row))
    stage.turn()
    rows = stage.assigned(family.node)
    assert [row.id for row in rows] == family.children[:1]
    stage.cancel(family.client, family.id)
    stage.turn()
    assert not stage.take(family.node, Stop), "cancelling what is finished is a no-op"


def test_grandchildren_of_a_finished_child_are_cancelled_with_the_grandparent() -> None:
    family = Family(children=1, cpus=2)
    stage = family.stage
    stage.turn()
    (child,) = stage.assigned(family.node)
    grandchildren = ids_of(family.node, 2, worker=2)
    family.nest(grandchildren, child.id, 2)
    stage.finish(family.node, [child])
    stage.turn()
    (running,) = stage.assigned(family.node)
    stage.cancel(family.client, family.id)
    stage.turn()
    stopped = [row[0] for row in stage.take(family.node, Stop)[0].rows]
    assert stopped == [family.id, running.id]
    assert errors(stage, family.node)[grandchildren[1]] == "TaskCancelled"


def test_what_a_cancelled_task_still_submits_does_not_run() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.cancel(family.client, family.id)
    late = ids_of(family.node, 1, worker=1)
    family.nest(late, family.id, 1)
    stage.turn()
    assert errors(stage, family.node) == {late[0]: "TaskCancelled"}


def test_what_a_given_up_attempt_still_submits_does_not_run() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.done(family.node, died(family.row))
    late = ids_of(family.node, 1, worker=1)
    family.nest(late, family.id, 1)
    stage.turn()
    assert errors(stage, family.node) == {late[0]: "TaskCancelled"}


def test_what_a_finished_task_left_behind_may_submit() -> None:
    family = Family(children=0)
    stage = family.stage
    stage.finish(family.node, [family.row])
    late = ids_of(family.node, 1, worker=1)
    family.nest(late, family.id, 1)
    stage.turn()
    assert [row.id for row in stage.assigned(family.node)] == late


def test_what_is_submitted_for_a_client_that_left_does_not_run_and_drops_nobody() -> None:
    family = Family()
    stage = family.stage
    stage.say(family.client, Leave())
    late = ids_of(family.node, 9, worker=1)[8:]
    family.nest(late, family.id, 1)
    row = KindRow(77, b"g" * 16, "late", Options(), b"code")
    stage.say(family.node, Define(family.client, [row]))
    stage.submit(family.node, 77, ids_of(family.node, 1, worker=2), family.client)
    stage.turn()
    assert [drop.peer for drop in stage.drops] == [family.client]
    results = errors(stage, family.node)
    assert results[late[0]] == "TaskCancelled"
    assert stage.at_rest()


def test_what_a_lost_nodes_workers_submitted_is_cancelled_everywhere() -> None:
    family = Family(children=3, cpus=1)
    stage = family.stage
    other = stage.node("o", cpus=2)
    stage.turn()
    rows = stage.assigned(other)
    assert len(rows) == 2
    stage.say(family.node, Leave())
    stage.turn()
    assert sorted(row[0] for row in stage.take(other, Stop)[0].rows) == family.children[:2]
    for row in rows:
        stage.done(other, failure_done(row, "TaskCancelled"))
    stage.live(1.0)
    again: list[AssignRow] = stage.assigned(other)
    assert [(row.id, row.attempt) for row in again] == [(family.id, 2)]
    stage.finish(other, again)
    stage.turn()
    assert stage.at_rest()


def test_an_orphan_ends_with_its_client_too() -> None:
    family = Family(children=1, cpus=1)
    stage = family.stage
    other = stage.node("o", cpus=2)
    stage.turn()
    assert len(stage.assigned(other)) == 1
    stage.say(family.node, Leave())
    stage.turn()
    stage.say(family.client, Leave())
    stage.turn()
    assert stage.at_rest()
    assert stage.core.registered()["kinds"] == 0
