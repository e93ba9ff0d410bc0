"""Detached actors at the scheduler: handed over, written down, and there when nobody else is."""

from typing import Any

import pytest
from drumbeat.protocol.actors import ActorName, ActorOptions, ActorsUp
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import (
    Answer,
    AssignRow,
    Cancel,
    Define,
    Discard,
    KindRow,
    Leave,
    Options,
    Output,
    OutputRow,
    Prepare,
    Query,
    StopMode,
    Submit,
    TaskRow,
)
from drumbeat.protocol.recovery import Inventory, Phase
from drumbeat.scheduler import events
from drumbeat.scheduler.deeds import Course, Will
from support.acting import Acting
from support.restarts import CLIENT, NODE, OTHER, Restarted, row
from support.scheduling import Stage, died, error_done, value_done

#: of detached actors
HOMES = (PeerId(b"first!"), PeerId(b"second"), PeerId(b"third!"))


def detached(home: PeerId = HOMES[0]) -> TaskId:
    return IdFactory(home)()


def hand_over(
    stage: Acting,
    peer: PeerId | None = None,
    home: PeerId = HOMES[0],
    restarts: int = 0,
    fields: dict[str, Any] | None = None,
    client: PeerId | None = None,
    **more: Any,
) -> TaskId:
    """Have a peer submit a detached actor."""
    peer = peer or stage.caller
    options = ActorOptions(detached=True, **more)
    kind = stage.define(
        peer, client, name="Counter", creates=options, num_cpus=0.0, max_retries=restarts
    )
    actor = detached(home)
    stage.submit(peer, kind, [actor], client=client, **(fields or {}))
    return actor


def ended(stage: Acting, actor: TaskId) -> None:
    """Assert that nothing is left of an actor."""
    assert actor not in stage.deeds
    assert not stage.core.at_rest()["wards"]
    assert not stage.core.at_rest()["wards_pending"]


# ---------------------------------------------------------------------------------- handed over


def test_a_detached_actor_is_written_down_before_anybody_hears_of_it() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage, fields={"args": b"arguments"})
    stage.turn()
    deed = stage.deeds[actor]
    assert (deed.name, deed.code, deed.args) == ("Counter", b"code", b"arguments")
    assert deed.environment.directory == "/home"
    assert stage.errors() == {actor: ""}
    assert stage.sent(node) == [actor]


def test_its_creator_has_nothing_unfinished_and_may_leave() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    stage.started(actor, node)
    assert stage.core.at_rest()["tasks"] == 0
    stage.say(stage.caller, Leave())
    stage.turn()
    assert stage.stops(node) == []
    assert HOMES[0] not in [one for said in stage.take(node, Discard) for one in said.clients]
    other = stage.client("d")
    call = stage.call(actor, other)
    stage.turn()
    assert stage.sent(node) == [call]


def test_what_cannot_be_written_down_is_refused_and_nothing_else_is() -> None:
    stage = Acting()
    node = stage.node()
    stage.disk_error = "No space left on device"
    actor, ordinary = hand_over(stage), stage.create()
    stage.turn()
    failure = stage.failure(actor)
    assert failure.error == "ActorDied"
    assert "could not write it down: No space left on device" in failure.text
    assert stage.sent(node) == [ordinary]
    stage.turn()
    ended(stage, actor)


def test_it_waits_for_its_arguments_and_ends_with_its_creator_until_it_is_handed_over() -> None:
    stage = Acting()
    stage.node()
    value = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [value])
    actor = hand_over(stage, fields={"deps": (value,)})
    stage.turn()
    assert actor not in stage.deeds
    stage.say(stage.caller, Leave())
    stage.turn()
    stage.turn()
    ended(stage, actor)


def test_values_that_it_depends_on_are_written_down_with_it() -> None:
    stage = Acting()
    node = stage.node()
    value = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [value])
    actor = hand_over(stage, fields={"deps": (value,)})
    stage.turn()
    (work,) = stage.assigned(node)
    stage.done(node, value_done(work, b"value"))
    stage.turn()
    assert [given.payload for given in stage.deeds[actor].values] == [b"value"]


def test_a_dependency_that_fails_is_told_to_its_creator() -> None:
    stage = Acting()
    node = stage.node()
    value = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [value])
    actor = hand_over(stage, fields={"deps": (value,)})
    stage.turn()
    (work,) = stage.assigned(node)
    stage.done(node, error_done(work))
    stage.turn()
    assert stage.errors()[actor] == "DependencyFailed"
    stage.turn()
    ended(stage, actor)


def test_code_and_arguments_may_come_after_it() -> None:
    stage = Acting(inline_bytes_max=1024)
    node = stage.node()
    options = ActorOptions(detached=True)
    kind = KindRow(9, b"f" * 16, "Counter", Options(num_cpus=0.0, creates=options), None, 2000)
    stage.say(stage.caller, Define(stage.caller, [kind]))
    actor = detached()
    stage.submit(stage.caller, 9, [actor], size=3000)
    stage.turn()
    assert actor not in stage.deeds
    stage.event(events.BlobReceived(stage.caller, actor + b"a", b"a" * 3000))
    stage.turn()
    assert actor not in stage.deeds
    stage.event(events.BlobReceived(stage.caller, b"f" * 16, b"f" * 2000))
    stage.turn()
    assert (stage.deeds[actor].args, stage.deeds[actor].code) == (b"a" * 3000, b"f" * 2000)
    assert stage.sent(node) == [actor]


def test_one_that_is_handed_over_again_is_the_same() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    hand_over(stage)
    stage.turn()
    assert stage.errors() == {actor: ""}
    hand_over(stage)
    stage.turn()
    assert stage.errors() == {actor: ""}
    assert stage.sent(node) == [actor]


def test_a_task_creates_one_for_its_client_and_it_outlives_both() -> None:
    stage = Acting()
    node = stage.node()
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [task])
    stage.turn()
    (work,) = stage.assigned(node)
    actor = hand_over(stage, node, client=stage.caller, fields={"parent": task, "depth": 1})
    stage.turn()
    (made,) = stage.assigned(node)
    assert made.id == actor
    stage.up(node, made)
    stage.done(node, value_done(work))
    stage.say(stage.caller, Leave())
    stage.turn()
    assert stage.stops(node) == []
    assert actor in stage.deeds


def test_only_a_detached_actor_may_have_an_id_of_its_own() -> None:
    stage = Acting()
    kind = stage.define(stage.caller)
    stage.submit(stage.caller, kind, [detached()])
    assert [drop.error for drop in stage.drops] == ["RemoteProtocolError"]


def test_an_id_of_somebody_who_is_there_is_refused_in_words() -> None:
    stage = Acting()
    other = stage.client("d")
    actor = hand_over(stage, home=other)
    stage.turn()
    assert "its id is another's" in stage.failure(actor).text
    assert not stage.drops


# ------------------------------------------------------------------------------------ its client


def test_what_its_worker_submits_and_prints_is_nobodys_else() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    stage.started(actor, node)
    clients = [one.client for said in stage.take(node, Prepare) for one in said.clients]
    assert clients == [HOMES[0]]
    task = stage.name(node, 3)
    stage.submit(node, stage.define(node, HOMES[0]), [task], client=HOMES[0], parent=actor, depth=1)
    stage.say(node, Output(HOMES[0], [OutputRow("Counter", 1, "n", b"text")]))
    stage.turn()
    (work,) = stage.assigned(node)
    assert work.id == task
    stage.done(node, value_done(work))
    stage.turn()
    assert task in stage.results(node)


def test_it_ends_with_all_that_it_has_submitted_and_nodes_forget_it() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    made = stage.started(actor, node)
    task = stage.name(node, 3)
    stage.submit(node, stage.define(node, HOMES[0]), [task], client=HOMES[0], parent=actor, depth=1)
    stage.turn()
    assert stage.sent(node) == [task]
    stage.done(node, value_done(made, b""))
    stage.turn()
    assert [one for said in stage.take(node, Discard) for one in said.clients] == [HOMES[0]]
    stage.turn()
    ended(stage, actor)
    call = stage.call(actor)
    stage.turn()
    assert "it has ended, as it was told to" in stage.failure(call).text


def test_one_that_ends_because_another_has_is_seen_to_at_once() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    made = stage.started(actor, node)
    task = stage.name(node, 3)
    stage.submit(node, stage.define(node, HOMES[0]), [task], client=HOMES[0], parent=actor, depth=1)
    other = hand_over(stage, home=HOMES[1], fields={"deps": (task,)})
    stage.turn()
    stage.done(node, value_done(made, b""))
    stage.turn()
    # The first was seen to in this turn, and the second came to its end by that.
    assert stage.errors()[other] == "DependencyFailed"
    assert stage.core.deadline_s() == stage.now_s
    stage.turn()
    ended(stage, other)


@pytest.mark.parametrize("asks_from_node", [False, True])
def test_whoever_has_a_handle_may_kill_it_also_from_a_task(asks_from_node: bool) -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    stage.started(actor, node)
    asker = stage.node("m") if asks_from_node else stage.client("d")
    stage.say(asker, Cancel([actor], True, True))
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.FORCE)]


def test_dropping_its_handles_ends_nothing() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage)
    stage.started(actor, node)
    stage.say(stage.caller, Leave())
    stage.live(30.0)
    assert stage.stops(node) == []


def test_it_waits_for_a_node_that_suits_it_and_is_not_given_up() -> None:
    stage = Acting(infeasible_timeout_s=5.0)
    stage.node()
    options = ActorOptions(detached=True)
    kind = stage.define(stage.caller, creates=options, num_cpus=0.0, num_gpus=1.0)
    actor = detached()
    stage.submit(stage.caller, kind, [actor])
    stage.live(20.0)
    gpus = stage.node("g", GPU=1)
    stage.turn()
    assert stage.sent(gpus) == [actor]


def test_its_name_is_its_own_and_free_again_after_its_end() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage, name="one", namespace="space", told=b"class")
    made = stage.started(actor, node)
    asked = Query(1, "name", named=ActorName("one", "space"))
    stage.say(stage.caller, asked)
    stage.done(node, value_done(made, b""))
    stage.turn()
    stage.say(stage.caller, asked)
    stage.turn()
    answers = [answer.data for answer in stage.take(stage.caller, Answer)]
    assert answers == [{"id": actor, "told": b"class"}, {}]


# --------------------------------------------------------------------------------- its next lives


def test_the_number_of_its_incarnation_is_written_before_that_begins() -> None:
    stage = Acting()
    node = stage.node()
    actor = hand_over(stage, restarts=2, restart_window_s=50.0)
    stage.process_ends(node, stage.started(actor, node))
    stage.turn()
    died_s = stage.now_s
    assert stage.courses[actor] == Course(2, 0, (died_s,))
    stage.live(1.0)
    assert stage.sent(node) == [actor]


class Heirs(Restarted):
    """A scheduler in its next life, with what the one before has left."""

    def __init__(self, *expected: str, wills: list[Will], **more: Any) -> None:
        names = sorted(expected)
        daemons = [(name.encode() * 6).hex() for name in names]
        Stage.__init__(self, 0, 2, names, (), daemons, 0, wills, **more)
        self.start_s = self.now_s
        self.event(events.TimePassed(0.0))
        self.turn()


def left(restarts: int = 0, course: Course | None = None, **more: Any) -> tuple[TaskId, Will]:
    """Return an actor, and what a life of the scheduler leaves of it."""
    stage = Acting()
    actor = hand_over(stage, restarts=restarts, **more)
    stage.turn()
    (will,) = stage.wills()
    return actor, Will(will.deed, course or will.course)


def test_one_that_lives_goes_on_and_takes_calls() -> None:
    actor, will = left()
    stage = Heirs("n", wills=[will])
    stage.node_back(row(actor), clients=[HOMES[0]])
    stage.say(NODE, ActorsUp([(actor, 1)]))
    stage.turn()
    client = stage.client("d")
    kind = stage.define(client, name="Counter.add", num_cpus=0.0, actor=bytes(actor))
    call = IdFactory(client)()
    stage.submit(client, kind, [call])
    stage.turn()
    assert stage.stops(NODE) == []
    assert [sent.id for sent in stage.assigned(NODE)] == [call]


def test_one_that_no_node_has_begins_at_once_when_all_are_back() -> None:
    actor, will = left()
    stage = Heirs("n", wills=[will])
    stage.node_back()
    stage.turn()
    assert [(sent.id, sent.attempt) for sent in stage.assigned(NODE)] == [(actor, 1)]


def test_one_whose_node_is_missing_begins_anew_when_that_cannot_act_any_more() -> None:
    actor, will = left(restarts=1)
    stage = Heirs("m", "n", wills=[will])
    stage.node_back(letter="m")
    stage.at(3.0)
    assert stage.assigned(OTHER) == []
    stage.at(13.0)
    assert [(sent.id, sent.attempt) for sent in stage.assigned(OTHER)] == [(actor, 2)]
    assert stage.courses[actor].attempt == 2


def test_one_without_a_restart_left_ends_for_good_with_its_node() -> None:
    actor, will = left()
    stage = Heirs("m", "n", wills=[will])
    stage.deeds[actor] = will.deed
    stage.node_back(letter="m")
    stage.at(20.0)
    assert stage.assigned(OTHER) == []
    assert actor not in stage.deeds


def test_restarts_that_were_used_up_before_count_in_the_next_life() -> None:
    actor, will = left(restarts=1, course=Course(2))
    stage = Heirs("n", wills=[will])
    stage.node_back(row(actor, 2), clients=[HOMES[0]])
    stage.say(NODE, ActorsUp([(actor, 2)]))
    stage.turn()
    stage.done(NODE, died(AssignRow(actor, 2, 1, 1, 0, -1.0)))
    stage.live(5.0)
    assert stage.assigned(NODE) == []
    assert not stage.core.at_rest()["wards"]


def test_deaths_within_the_window_count_over_a_restart_of_the_scheduler() -> None:
    for died_s, begins_anew in ((99.0, False), (40.0, True)):
        course = Course(2, 0, (died_s,))
        actor, will = left(restarts=1, course=course, restart_window_s=30.0)
        stage = Heirs("n", wills=[will])
        stage.node_back(row(actor, 2), clients=[HOMES[0]])
        stage.say(NODE, ActorsUp([(actor, 2)]))
        stage.turn()
        stage.done(NODE, died(AssignRow(actor, 2, 1, 1, 0, -1.0)))
        stage.live(5.0)
        assert bool(stage.assigned(NODE)) == begins_anew, died_s


def test_its_name_is_known_at_once_in_the_next_life() -> None:
    actor, will = left(name="one", namespace="space", told=b"class")
    stage = Heirs("n", wills=[will])
    client = stage.client("d")
    stage.say(client, Query(1, "name", named=ActorName("one", "space")))
    stage.turn()
    (answer,) = stage.take(client, Answer)
    assert answer.data == {"id": actor, "told": b"class"}


def test_calls_that_a_node_has_over_are_matched_with_their_callers_as_ever() -> None:
    actor, will = left()
    stage = Heirs("n", wills=[will])
    call = IdFactory(CLIENT)()
    stage.node_back(row(actor), row(call, phase=Phase.RUNNING), clients=[HOMES[0], CLIENT])
    stage.say(NODE, ActorsUp([(actor, 1)]))
    stage.client_enters()
    kind = stage.define(CLIENT, name="Counter.add", num_cpus=0.0, actor=bytes(actor))
    stage.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(call, kind)], [1]))
    stage.registered(CLIENT)
    stage.turn()
    assert stage.stops(NODE) == []
    assert stage.assigned(NODE) == []


def test_what_its_worker_submits_is_told_again_without_waiting_for_a_client() -> None:
    actor, will = left()
    stage = Heirs("n", wills=[will])
    stage.node_joins()
    stage.say(NODE, Inventory([HOMES[0]], [row(actor)], True))
    stage.say(NODE, ActorsUp([(actor, 1)]))
    task = IdFactory(NODE, 3)()
    kind = stage.define(NODE, HOMES[0])
    rows = [TaskRow(task, kind)]
    stage.say(NODE, Submit(HOMES[0], actor, 1, rows, [1]))
    stage.registered(NODE)
    stage.turn()
    assert [sent.id for sent in stage.assigned(NODE)] == [task]


def test_what_cannot_be_read_of_the_life_before_is_told_to_whoever_asks_for_events() -> None:
    stage = Acting()
    stage.event(events.Kept(b"", "detached actor x is lost"))
    (told,) = stage.ask(stage.caller, "events", match="actor lost")["events"]
    assert (told["severity"], told["text"]) == ("error", "detached actor x is lost")
