"""The names of actors at the scheduler: who has which, and who is told so."""

from typing import Any

import pytest
from drumbeat.protocol.actors import ActorName, ActorOptions
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import Answer, AssignRow, Cancel, Leave, Query, Submit, TaskRow
from drumbeat.protocol.recovery import Registered
from drumbeat.scheduler import events
from drumbeat.scheduler.names import ENDING_S
from support.acting import Acting
from support.restarts import CLIENT, NODE, Restarted, ids, row
from support.scheduling import Stage, died, ids_of, value_done

SPACE = "space"


def said(stage: Stage, peer: PeerId) -> list[Any]:
    """Return what a peer was answered since it was asked last."""
    stage.turn()
    return [answer.data for answer in stage.take(peer, Answer)]


def asks(stage: Stage, peer: PeerId, name: str = "one", **more: Any) -> None:
    named = ActorName(name, more.pop("namespace", SPACE), **more)
    stage.say(peer, Query(7, "name", named=named))


def takes(stage: Acting, peer: PeerId, name: str = "one", **more: Any) -> TaskId:
    """Have a peer take a name for what it is about to create."""
    actor = stage.name(peer)
    asks(stage, peer, name, id=actor, told=b"class", **more)
    return actor


def creates(stage: Acting, peer: PeerId, actor: TaskId, name: str = "one", **more: Any) -> None:
    options = ActorOptions(name=name, namespace=SPACE, told=b"class")
    kind = stage.define(peer, name="Counter", creates=options, num_cpus=0.0, **more)
    stage.submit(peer, kind, [actor])


def test_a_name_is_whose_it_is_from_the_moment_it_is_taken() -> None:
    stage = Acting()
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]
    actor = takes(stage, stage.caller)
    assert said(stage, stage.caller) == [{"id": actor, "told": b"class"}]
    other = stage.client("d")
    asks(stage, other)
    takes(stage, other)
    assert said(stage, other) == [{"id": actor, "told": b"class"}] * 2


def test_a_name_is_one_in_its_namespace() -> None:
    stage = Acting()
    first = takes(stage, stage.caller)
    second = takes(stage, stage.caller, namespace="elsewhere")
    assert [one["id"] for one in said(stage, stage.caller)] == [first, second]


def test_a_name_is_free_again_when_its_actor_has_ended_for_good() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    row = stage.started(actor, node)
    stage.done(node, value_done(row, b""))
    stage.turn()
    said(stage, stage.caller)
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]


def test_a_name_stays_while_its_actor_is_restarted() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor, max_retries=1)
    stage.process_ends(node, stage.started(actor, node))
    said(stage, stage.caller)
    asks(stage, stage.caller)
    assert said(stage, stage.caller)[0]["id"] == actor


def test_who_asks_for_the_name_of_an_actor_that_is_killed_waits_for_its_end() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    row = stage.started(actor, node)
    said(stage, stage.caller)
    first, second = stage.client("d"), stage.client("e")
    stage.cancel(stage.caller, actor, force=True)
    successor = takes(stage, first)
    asks(stage, second)
    assert said(stage, first) == said(stage, second) == []
    stage.done(node, died(row))
    assert said(stage, first) == [{"id": successor, "told": b"class"}]
    assert said(stage, second) == [{"id": successor, "told": b"class"}]


def test_an_actor_that_nobody_needs_any_more_keeps_nobody_from_its_name() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    row = stage.started(actor, node)
    said(stage, stage.caller)
    stage.drop(actor)
    stage.turn()
    other = stage.client("d")
    asks(stage, other)
    assert said(stage, other) == []
    stage.done(node, value_done(row, b""))
    assert said(stage, other) == [{}]


def test_a_process_that_does_not_die_gives_its_name_back_after_a_while_and_that_is_told() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    row = stage.started(actor, node)
    said(stage, stage.caller)
    stage.cancel(stage.caller, actor, force=True)
    other = stage.client("d")
    successor = takes(stage, other)
    stage.live(ENDING_S - 0.5)
    assert said(stage, other) == []
    stage.live(1.0)
    assert said(stage, other) == [{"id": successor, "told": b"class"}]
    (told,) = stage.ask(stage.caller, "events", match="name freed")["events"]
    assert told["severity"] == "warning"
    assert "its name 'one' is free for others" in told["text"]
    creates(stage, other, successor)
    stage.done(node, died(row))
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{"id": successor, "told": b"class"}]


def test_who_leaves_waits_no_more_for_the_end_of_an_actor() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    row = stage.started(actor, node)
    other = stage.client("d")
    stage.cancel(stage.caller, actor, force=True)
    takes(stage, other)
    stage.say(other, Leave())
    stage.turn()
    stage.done(node, died(row))
    said(stage, stage.caller)
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]


def test_a_name_that_was_taken_and_not_used_is_let_go() -> None:
    stage = Acting()
    actor = takes(stage, stage.caller)
    asks(stage, stage.caller, id=actor, frees=True)
    asks(stage, stage.caller)
    assert said(stage, stage.caller)[1:] == [{}, {}]
    other = stage.client("d")
    takes(stage, other)
    stage.say(other, Leave())
    stage.turn()
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]


def test_whoever_lets_a_name_go_need_not_wait_for_an_answer() -> None:
    stage = Acting()
    actor = takes(stage, stage.caller)
    assert len(said(stage, stage.caller)) == 1
    stage.say(stage.caller, Query(0, "name", named=ActorName("one", SPACE, actor, frees=True)))
    assert said(stage, stage.caller) == []
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]


def test_who_has_given_up_waiting_for_a_name_does_not_get_it_later() -> None:
    stage = Restarted("n")
    other = stage.client("d")
    asks(stage, other, id=b"d" * 14)
    stage.say(other, Query(0, "name", named=ActorName("one", SPACE, b"d" * 14).freed()))
    stage.at(40.0)
    assert said(stage, other) == []
    assert stage.core.at_rest()["names"] == stage.core.at_rest()["names_asked"] == 0


def test_the_name_that_a_task_has_taken_for_an_actor_that_no_node_can_run_is_free_again() -> None:
    stage = Acting()
    node = stage.node()
    (parent,) = ids_of(stage.caller, 1)
    stage.submit(stage.caller, stage.define(stage.caller), [parent])
    stage.turn()
    (actor,) = ids_of(node, 1, worker=1)
    asks(stage, node, id=actor, told=b"class")
    options = ActorOptions(name="one", namespace=SPACE, told=b"class")
    kind = stage.define(node, stage.caller, name="Counter", creates=options, num_cpus=1000.0)
    stage.submit(node, kind, [actor], stage.caller, parent, 1)
    stage.turn()
    assert list(stage.results(node)) == [actor]
    asks(stage, stage.caller)
    assert said(stage, stage.caller) == [{}]


def test_only_whoever_took_a_name_lets_it_go_and_not_once_its_actor_is_submitted() -> None:
    stage = Acting()
    actor = takes(stage, stage.caller)
    asks(stage, stage.caller, id=stage.name(stage.caller), frees=True)
    creates(stage, stage.caller, actor)
    asks(stage, stage.caller, id=actor, frees=True)
    asks(stage, stage.caller)
    assert said(stage, stage.caller)[-1]["id"] == actor


def test_an_actor_whose_name_is_anothers_is_not_created() -> None:
    stage = Acting()
    node = stage.node()
    takes(stage, stage.caller)
    late = stage.name(stage.caller)
    creates(stage, stage.caller, late)
    stage.turn()
    failure = stage.failure(late)
    assert failure.error == "ActorDied"
    assert "its name 'one' is that of another actor" in failure.text
    assert stage.sent(node) == []


def test_a_task_may_ask_for_a_name_and_take_one() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, node)
    assert said(stage, node) == [{"id": actor, "told": b"class"}]


def test_a_question_that_names_nothing_is_answered_in_words() -> None:
    stage = Acting()
    stage.say(stage.caller, Query(7, "name"))
    asks(stage, stage.caller, id=b"short")
    first, second = said(stage, stage.caller)
    assert "names none" in first["error"]
    assert "14 bytes" in second["error"]


def test_after_a_restart_nobody_is_told_that_a_name_is_free_before_all_are_back() -> None:
    stage = Restarted("n")
    stage.client("d")
    asks(stage, PeerId(b"d" * 6))
    assert said(stage, PeerId(b"d" * 6)) == []
    stage.client_enters()
    (actor,) = ids(1)
    creates_ = ActorOptions(name="one", namespace=SPACE, told=b"class")
    kind = stage.define(CLIENT, name="Counter", creates=creates_, num_cpus=0.0)
    stage.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(actor, kind)], [1]))
    stage.say(CLIENT, Registered())
    asks(stage, PeerId(b"d" * 6))
    assert said(stage, PeerId(b"d" * 6)) == [{"id": actor, "told": b"class"}]
    stage.at(20.0)
    assert said(stage, PeerId(b"d" * 6)) == [{"id": actor, "told": b"class"}]


def test_whoever_asks_and_leaves_before_all_are_back_is_forgotten() -> None:
    stage = Restarted("n")
    other = stage.client("d")
    asks(stage, other)
    stage.event(events.PeerDisconnected(other))
    stage.at(40.0)
    assert stage.core.at_rest()["names_asked"] == 0


# ------------------------------------------------- an actor that did not die, and its successor


def test_the_core_wants_a_turn_when_the_name_of_one_that_does_not_die_is_free() -> None:
    stage = Acting()
    node = stage.node()
    actor = takes(stage, stage.caller)
    creates(stage, stage.caller, actor)
    stage.started(actor, node)
    said(stage, stage.caller)
    stage.cancel(stage.caller, actor, force=True)
    free_s = stage.now_s + ENDING_S
    other = stage.client("d")
    successor = takes(stage, other)
    stage.live(ENDING_S - 0.25)
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert due_s <= free_s
    assert said(stage, other) == []
    stage.turn(free_s - stage.now_s)
    assert said(stage, other) == [{"id": successor, "told": b"class"}]


def left(kill_first: bool = False) -> tuple[Restarted, TaskId, TaskId]:
    """Return a next life, with an actor that was killed and has not died, and its successor."""
    old, new = ids(2)
    stage = Restarted("n")
    stage.node_back(row(old), row(new), cpus=2)
    stage.client_enters()
    options = ActorOptions(name="one", namespace=SPACE, told=b"class")
    kind = stage.define(CLIENT, name="Counter", creates=options, num_cpus=0.0, max_retries=0)
    stage.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(old, kind)], [1]))
    if kill_first:
        stage.say(CLIENT, Cancel([old], True, True))
    stage.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(new, kind)], [1]))
    if not kill_first:
        stage.say(CLIENT, Cancel([old], True, True))
    return stage, old, new


def dies(stage: Restarted, actor: TaskId) -> None:
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.live(1.0)


@pytest.mark.parametrize("kill_first", [False, True])
def test_after_a_restart_a_successor_has_its_name_before_the_one_that_did_not_die_has_ended(
    kill_first: bool,
) -> None:
    stage, old, new = left(kill_first)
    asks(stage, CLIENT)
    assert said(stage, CLIENT) == [{"id": new, "told": b"class"}]
    stage.say(CLIENT, Registered())
    dies(stage, old)
    asks(stage, CLIENT)
    assert said(stage, CLIENT) == [{"id": new, "told": b"class"}]


@pytest.mark.parametrize("kill_first", [False, True])
def test_after_a_restart_a_successor_keeps_its_name_when_the_one_that_did_not_die_has_ended(
    kill_first: bool,
) -> None:
    stage, old, new = left(kill_first)
    stage.say(CLIENT, Registered())
    stage.live(1.0)
    assert new not in stage.results(CLIENT)
    dies(stage, old)
    other = stage.client("d")
    (third,) = ids(1, other)
    asks(stage, other, id=third, told=b"class")
    assert said(stage, other) == [{"id": new, "told": b"class"}]
    dies(stage, new)
    stage.at(60.0)  # by now all have come who may have it
    asks(stage, CLIENT)
    assert said(stage, CLIENT) == [{}]
    assert stage.core.at_rest()["names"] == 0


def test_a_successor_that_ends_first_leaves_its_name_to_nobody() -> None:
    stage, old, new = left()
    stage.say(CLIENT, Registered())
    stage.live(1.0)
    dies(stage, new)
    dies(stage, old)
    stage.at(60.0)  # by now all have come who may have it
    asks(stage, CLIENT)
    assert said(stage, CLIENT) == [{}]
    assert stage.core.at_rest()["names"] == 0


def test_a_successor_that_is_being_ended_too_does_not_get_the_name() -> None:
    stage, old, new = left()
    stage.say(CLIENT, Registered())
    stage.cancel(CLIENT, new, force=True)
    dies(stage, old)
    stage.at(60.0)
    other = stage.client("d")
    (third,) = ids(1, other)
    asks(stage, other, id=third, told=b"class")
    assert said(stage, other) == [{"id": third, "told": b"class"}]
    dies(stage, new)
    asks(stage, CLIENT)
    assert said(stage, CLIENT) == [{"id": third, "told": b"class"}]
