"""Nodes that are drained: they get nothing new, and go when nobody would ask for them."""

from typing import Any

from drumbeat.protocol.drain import Drain, Draining, DrainNode, Emptied, Farewell
from drumbeat.protocol.frames import PROTOCOL_VERSION, Hello, Role
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import (
    Answer,
    Enter,
    Environment,
    Join,
    Leave,
    Notice,
    Outcome,
    Shapes,
    Submit,
    TakeBack,
    TaskRow,
)
from drumbeat.scheduler import events
from support.restarts import Restarted
from support.scheduling import Stage, failure_done, ids_of, value_done


def work(stage: Stage, count: int = 1, **options: Any) -> tuple[PeerId, list[TaskId]]:
    """Let a client submit so many tasks."""
    client = stage.client()
    ids = ids_of(client, count)
    stage.submit(client, stage.define(client, **options), ids)
    stage.turn()
    return client, ids


def drains(stage: Stage, node: PeerId, cancel: bool = False) -> None:
    stage.say(node, Draining(cancel))
    stage.turn()


def order(stage: Stage, peer: PeerId, *nodes: str, cancel: bool = False, request: int = 7) -> None:
    stage.say(peer, Drain(request, list(nodes), cancel))
    stage.turn()


def states(stage: Stage, peer: PeerId) -> list[tuple[str, str]] | None:
    answers = stage.take(peer, Answer)
    return [(row["name"], row["state"]) for row in answers[0].data] if answers else None


def row_of(stage: Stage, client: PeerId, node: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = stage.ask(client, "nodes")
    return next(row for row in rows if row["name"] == node)


# ---------------------------------------------------------------------------------- no new work


def test_what_comes_back_from_it_runs_elsewhere_and_is_not_charged() -> None:
    stage = Stage()
    node = stage.node("n", cpus=1)
    work(stage, 1)
    (row,) = stage.assigned(node)
    other = stage.node("o", cpus=1)
    drains(stage, node)
    stage.taken_back(node, row)
    stage.turn()
    (again,) = stage.assigned(other)
    assert (again.id, again.attempt) == (row.id, 1)
    assert not stage.assigned(node)
    assert stage.core.counters["retried"] == 0


def test_what_runs_there_goes_on() -> None:
    stage = Stage()
    node = stage.node()
    client, (task,) = work(stage)
    (row,) = stage.assigned(node)
    drains(stage, node)
    stage.live(100.0)
    stage.done(node, value_done(row))
    stage.turn()
    assert stage.results(client)[task].outcome == Outcome.VALUE


def test_nothing_is_evened_out_with_it() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node("n", cpus=1)
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 1))
    stage.turn()
    stage.finish(node, stage.assigned(node), duration_s=0.0001)
    stage.submit(client, kind, ids_of(client, 41)[1:])
    stage.turn()
    drains(stage, node)
    stage.node("o", cpus=4)
    stage.live(5.0)
    assert not stage.take(node, TakeBack), "it gives back by itself"


def test_it_counts_as_no_node_for_what_it_alone_could_run() -> None:
    stage = Stage(infeasible_timeout_s=5.0)
    node = stage.node("n", cpus=1, GPU=1)
    stage.node("o", cpus=1)
    drains(stage, node)
    client, (task,) = work(stage, num_gpus=1)
    stage.live(4.0)
    assert not stage.results(client)
    stage.live(2.0)
    failure = stage.results(client)[task].failure
    assert failure is not None
    assert failure.error == "Infeasible"


def test_if_it_is_the_only_one_work_waits_and_the_client_is_told() -> None:
    stage = Stage(no_node_notice_s=2.0, infeasible_timeout_s=5.0)
    node = stage.node()
    drains(stage, node)
    client, (task,) = work(stage)
    stage.live(20.0)
    assert not stage.results(client)
    (notice,) = stage.take(client, Notice)
    assert "n is drained" in notice.text
    other = stage.node("o")
    stage.turn()
    assert [row.id for row in stage.assigned(other)] == [task]


def test_clients_do_not_reckon_with_it() -> None:
    stage = Stage()
    client = stage.client()
    node = stage.node()
    stage.turn()
    stage.take(client, Shapes)
    drains(stage, node)
    assert stage.take(client, Shapes) == [Shapes([])]


def test_its_tasks_may_call_others_that_run_elsewhere() -> None:
    stage = Stage()
    node = stage.node("n", cpus=1)
    client, _ = work(stage)
    (parent,) = stage.assigned(node)
    drains(stage, node)
    other = stage.node("o", cpus=1)
    (child,) = ids_of(node, 1, worker=1)
    number = stage.define(node, client)
    stage.say(node, Submit(client, parent.id, 1, [TaskRow(child, number)]))
    stage.blocked(node, parent)
    stage.turn()
    (row,) = stage.assigned(other)
    stage.done(other, value_done(row))
    stage.turn()
    assert stage.results(node)[child].outcome == Outcome.VALUE


# -------------------------------------------------------------------------------- admins' orders


def test_an_order_is_answered_when_the_node_has_heard_it() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.turn()
    order(stage, client, "n", "nobody")
    assert stage.take(node, DrainNode) == [DrainNode(cancel=False)]
    assert states(stage, client) is None
    drains(stage, node)
    assert states(stage, client) == [("n", "draining"), ("nobody", "unknown")]


def test_from_the_order_on_the_node_gets_nothing() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.turn()
    order(stage, client, node.hex())
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    assert not stage.assigned(node)


def test_a_second_order_may_hurry() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.turn()
    drains(stage, node)
    order(stage, client, "n")
    assert states(stage, client) == [("n", "draining")], "it knows already"
    assert not stage.take(node, DrainNode)
    order(stage, client, "n", cancel=True)
    assert stage.take(node, DrainNode) == [DrainNode(cancel=True)]
    assert states(stage, client) is None
    drains(stage, node, cancel=True)
    assert states(stage, client) == [("n", "draining")]


def test_an_order_for_a_node_that_is_lost_is_answered() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.turn()
    order(stage, client, "n")
    stage.live(12.0, 0.25, node)
    assert states(stage, client) == [("n", "lost")]
    assert stage.at_rest()


def test_who_is_no_admin_may_drain_nothing() -> None:
    stage = Stage()
    node = stage.node()
    client = PeerId(b"client")
    stage.mail[client] = []
    hello = Hello(PROTOCOL_VERSION, "client", client, 0, 0, 0, "3.11", "me")
    stage.event(events.PeerJoined(client, hello, Role.CLIENT))
    stage.say(client, Enter("me", Environment()))
    order(stage, client, "n")
    (answer,) = stage.take(client, Answer)
    assert "admin" in answer.data["error"]
    assert not stage.take(node, DrainNode)


def test_who_asked_and_left_is_not_answered() -> None:
    stage = Stage()
    client = stage.client()
    stage.node()
    stage.turn()
    order(stage, client, "n")
    stage.say(client, Leave())
    stage.turn()
    assert stage.at_rest()


# ------------------------------------------------------------------------------------ how it goes


def test_an_empty_node_is_struck_out_before_it_is_told_farewell() -> None:
    stage = Stage()
    client = stage.client()
    node = stage.node()
    stage.turn()
    drains(stage, node)
    stage.prompt = False
    stage.say(node, Emptied(1))
    stage.turn().turn()
    assert stage.remembered[-1] == ["n"]
    assert not stage.take(node, Farewell), "not everybody knows what was charged there"
    assert row_of(stage, client, "n")["waits_for"] == ["all others to hear that it goes"]
    for peer in list(stage.marks):
        stage.reach(peer)
    stage.turn()
    assert stage.remembered[-1] == []
    assert stage.take(node, Farewell) == [Farewell(1)]
    stage.say(node, Leave())
    stage.turn()
    assert stage.core.counters["nodes_drained"] == 1
    assert stage.core.counters["nodes_lost"] == 0
    assert not stage.core.registered()["nodes"]


def test_the_roster_is_written_before_the_farewell_leaves() -> None:
    stage = Stage()
    node = stage.node()
    stage.turn()
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.turn()
    stage.reach(node)
    commands = stage.core.turn(stage.now_s)
    assert [type(command) for command in commands] == [events.Remember, events.Send]


def test_what_was_on_its_way_to_a_node_that_said_it_is_empty_comes_back_first() -> None:
    stage = Stage()
    node = stage.node("n", cpus=1)
    work(stage)
    (row,) = stage.assigned(node)
    stage.say(node, Draining(cancel=False))
    stage.say(node, Emptied(1))
    stage.turn().turn().turn()
    assert not stage.take(node, Farewell)
    stage.taken_back(node, row)
    stage.say(node, Emptied(2))
    stage.turn().turn().turn()
    assert stage.take(node, Farewell) == [Farewell(2)]


def test_it_stays_while_others_are_getting_large_values_there() -> None:
    stage = Stage()
    stage.reads = True
    node, client = stage.node("n"), stage.client()
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.live(100.0)
    assert not stage.take(node, Farewell)
    waits = row_of(stage, client, "n")["waits_for"]
    assert waits == ["large values that others are getting there"]
    stage.event(events.Unread(node))
    stage.turn().turn()
    assert stage.take(node, Farewell) == [Farewell(1)]


def test_it_does_not_wait_for_them_once_it_is_in_a_hurry() -> None:
    stage = Stage()
    stage.reads = True
    node = stage.node()
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.turn().turn()
    assert not stage.take(node, Farewell)
    drains(stage, node, cancel=True)
    stage.turn()
    assert stage.take(node, Farewell) == [Farewell(1)]


def test_what_came_to_it_meanwhile_has_it_asked_again() -> None:
    stage = Stage()
    stage.reads = True
    node = stage.node()
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.turn()
    stage.say(node, Emptied(2))
    stage.reads = False
    stage.turn().turn()
    assert stage.take(node, Farewell) == [Farewell(2)]


def test_a_node_that_goes_while_others_are_getting_something_there_leaves_nothing_behind() -> None:
    stage = Stage()
    stage.reads = True
    node = stage.node()
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.turn()
    stage.say(node, Leave())
    stage.event(events.Unread(node))
    stage.turn()
    assert not any(stage.core.at_rest().values())


def test_a_node_that_is_empty_and_not_drained_is_refused() -> None:
    stage = Stage()
    node = stage.node()
    stage.say(node, Emptied(1))
    assert stage.drops[-1].error == "RemoteProtocolError"


def test_what_was_ended_there_is_tried_again_elsewhere_and_is_no_death() -> None:
    stage = Stage(poison_deaths=1)
    node = stage.node("n", cpus=1)
    client, (task,) = work(stage, max_retries=1)
    (row,) = stage.assigned(node)
    drains(stage, node, cancel=True)
    other = stage.node("o", cpus=1)
    stage.done(node, failure_done(row, "NodeLost", died=True, bystander=True))
    stage.live(1.0)
    (again,) = stage.assigned(other)
    assert (again.id, again.attempt) == (task, 2)
    stage.done(other, failure_done(again, "NodeLost", died=True, bystander=True))
    stage.turn()
    failure = stage.results(client)[task].failure
    assert failure is not None
    assert failure.error == "NodeLost"


# ---------------------------------------------------------------------------- names, and restarts


def test_its_successor_may_be_there_before_it_is_gone() -> None:
    stage = Stage()
    node = stage.node("n", name="lab")
    client, _ = work(stage)
    (row,) = stage.assigned(node)
    drains(stage, node)
    stage.node("o", name="lab")
    stage.turn()
    assert not stage.drops
    stage.done(node, value_done(row))
    stage.turn()
    assert stage.results(client)[row.id].outcome == Outcome.VALUE


def test_one_that_comes_again_under_its_name_takes_work() -> None:
    stage = Stage()
    node = stage.node("n", name="lab")
    drains(stage, node)
    stage.say(node, Emptied(1))
    stage.turn().turn()
    stage.say(node, Leave())
    again = stage.node("m", name="lab")
    _, (task,) = work(stage)
    assert [row.id for row in stage.assigned(again)] == [task]


def test_the_schedulers_next_life_gives_it_nothing_either() -> None:
    stage = Stage()
    peer = PeerId(b"nnnnnn")
    stage.hello(peer, "node", "n")
    stage.say(peer, Join("n", "host", 1, {"CPU": 2.0}, draining=True))
    client, _ = work(stage)
    assert not stage.assigned(peer)
    assert row_of(stage, client, "n")["state"] == "draining"


def test_an_order_in_the_schedulers_next_life_waits_until_the_nodes_are_back() -> None:
    stage = Restarted("n")
    client = stage.client_back()
    stage.say(client, Drain(3, ["n"], False))
    stage.turn()
    assert states(stage, client) is None
    node = stage.node_joins()
    stage.registered(node)
    stage.registered(client)
    stage.turn().turn()
    assert stage.take(node, DrainNode) == [DrainNode(cancel=False)]
    drains(stage, node)
    assert states(stage, client) == [("n", "draining")]


# ---------------------------------------------------------------------------------------- insight


def test_nodes_says_what_it_still_has_and_who_holds_what() -> None:
    stage = Stage()
    node = stage.node("n", cpus=1)
    client, _ = work(stage)
    (row,) = stage.assigned(node)
    drains(stage, node)
    assert row_of(stage, client, "n")["waits_for"] == ["1 task at it"]
    (put,) = ids_of(node, 1, worker=1)
    stage.done(node, value_done(row, contained=(put,)))
    stage.turn()
    shown = row_of(stage, client, "n")
    assert shown["state"] == "draining"
    assert shown["waits_for"] == ["1 value that client 'client-c' holds"]
