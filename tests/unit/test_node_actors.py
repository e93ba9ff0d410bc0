"""Actors at a node: made in a worker of their own, and called in order."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    ActorMade,
    Exit,
    Finished,
    FinishedRow,
    Returned,
    Run,
)
from drumbeat.protocol.actors import ActorOptions, ActorsUp
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Outcome,
    Stop,
    StopMode,
    ValueRow,
)
from drumbeat.protocol.recovery import Inventory
from support.node_acting import CREATION, Stage
from support.node_bench import (
    CLIENT,
    OTHER,
    NodeBench,
    at_rest,
)


@pytest.fixture
def stage():
    return Stage()


# ---------------------------------------------------------------------------------- being made


def test_an_actor_is_made_in_a_worker_of_its_own_and_told_of_once_it_is():
    stage = Stage(made=False)
    assert not stage.sent(ActorsUp)
    stage.say(1, ActorMade(1))
    assert [message.rows for message in stage.sent(ActorsUp)] == [[(stage.actor, 1)]]
    assert not stage.done()


def test_each_actor_has_its_own_worker_and_none_of_them_runs_tasks():
    stage = Stage({"CPU": 2.0})
    (second,) = stage.assign(kind=CREATION)
    assert stage.started() == [2]
    stage.ready(2)
    assert stage.ran() == {2: [second]}
    stage.prepare(1)
    stage.assign()
    stage.ready()
    assert 1 not in stage.ran()
    assert 2 not in stage.ran()


def test_an_actor_that_asks_for_no_cpu_takes_none_and_one_that_does_keeps_it():
    stage = Stage({"CPU": 1.0})
    stage.prepare(1)
    stage.ready()
    (task,) = stage.assign()
    assert [task] in stage.ran().values()
    greedy = Stage({"CPU": 1.0}, num_cpus=1.0)
    greedy.prepare(1)
    greedy.ready()
    greedy.assign()
    assert not greedy.ran()


def test_an_actors_worker_never_ends_for_idling():
    stage = Stage(settings={"worker_idle_s": 5.0})
    stage.after(1000.0)
    assert not stage.told(1, Exit)


def test_actors_are_not_counted_among_the_workers_of_tasks_and_have_a_bound_of_their_own():
    stage = Stage({"CPU": 8.0}, {"workers_max": 1, "actors_max": 2})
    stage.assign(3, kind=CREATION)
    assert stage.started() == [2], "the third waits for one of them to end"
    stage.prepare(1)
    assert stage.started() == [3]


def test_what_was_made_of_arguments_is_let_go_and_the_refs_that_the_actor_kept_are_held():
    stage = Stage(made=False)
    kept, dropped = (IdFactory(OTHER)() for _ in range(2))
    kept, dropped = IdFactory(OTHER)(), IdFactory(PeerId(b"third_"))()
    (second,) = stage.assign(kind=CREATION, contained=(kept, dropped))
    stage.ready(2)
    stage.say(2, ActorMade(1, [kept]))
    assert stage.core._state.attempts[second].row.args is None
    released = [row for c in stage.of(events.Send) for row in getattr(c.message, "rows", [])]
    assert (dropped, 1) in released
    assert (kept, 1) not in released


def test_a_constructor_that_raises_ends_its_creation_and_then_its_worker():
    stage = Stage(made=False)
    row = stage.rows[1].pop(1)
    error = ValueRow(row.id, Outcome.ERROR, b"report")
    stage.say(1, Finished([FinishedRow(1, (error,), 0.1)]))
    assert [done.values for done in stage.done()] == [(error,)]
    assert stage.told(1, Exit)
    stage.feed(events.WorkerExited(1, 0, "", ""))
    assert at_rest(stage) == {}


def test_a_creation_that_had_not_started_when_its_worker_died_is_made_in_another():
    stage = Stage(made=False)
    stage.die(1, started=0)
    assert not stage.done()
    assert stage.started() == [2]
    stage.ready(2)
    assert stage.ran() == {2: [stage.actor]}


def test_a_creation_called_back_unstarted_leaves_its_worker_to_the_next_one():
    stage = Stage(made=False)
    stage.hear(Stop([(stage.actor, 1, StopMode.SOFT)]))
    stage.feed(events.PacketsTaken(1, [1]))
    assert [d.values[0].failure.error for d in stage.done()] == ["TaskCancelled"]
    stage.feed(events.PageRead([(1, 0, False)]))
    stage.say(1, Returned([]))
    (second,) = stage.assign(kind=CREATION)
    assert stage.ran() == {1: [second]}
    assert not stage.started()


# --------------------------------------------------------------------------------------- calls


def test_calls_go_to_the_actors_worker_in_order_and_their_results_come_back(stage):
    first, second = stage.call(2, expected_s=1e-6)
    assert stage.ran() == {1: [first, second]}
    stage.finish(1, 2)
    assert [row.id for row in stage.done()] == [first]
    stage.finish(1, 3)
    assert [row.id for row in stage.done()] == [second]
    assert "actors" in at_rest(stage)
    assert "attempts" in at_rest(stage)


def test_of_calls_whose_length_nobody_knows_two_are_in_the_workers_hands(stage):
    calls = stage.call(4)
    assert stage.ran() == {1: calls[:2]}
    stage.finish(1, 2)
    assert stage.ran() == {1: [calls[2]]}


def test_calls_behind_one_that_is_not_whole_are_left_to_the_next_scheduler_with_it(stage):
    (before,) = stage.call()
    assert stage.ran() == {1: [before]}
    (late,), (behind,) = stage.call(args=None, size=9), stage.call()
    stage.feed(events.Disconnected())
    stage.feed(events.Connected(2, False))
    told = [row.id for message in stage.sent(Inventory) for row in message.rows]
    assert told == [stage.actor, before]
    assert stage.ran() == {}
    stage.finish(1, 2)
    assert stage.ran() == {}, f"{behind.hex()} would be run before {late.hex()}"


def test_a_call_for_an_actor_that_is_not_here_goes_back():
    stage = Stage(made=False)
    (early,) = stage.call()
    assert stage.told_back() == [early]
    stage.knows(IdFactory(CLIENT, 9)(), kind=12)
    (stranger,) = stage.assign(kind=12)
    assert stage.told_back() == [stranger]


def test_a_call_whose_arguments_are_on_their_way_holds_back_its_caller_and_nobody_else(stage):
    (large,) = stage.call(args=None, size=100_000)
    (behind,) = stage.call()
    (other,) = stage.call(client=OTHER)
    assert stage.ran() == {1: [other]}
    stage.feed(events.BlobReceived(large + b"a", b"x" * 100_000))
    assert stage.ran() == {1: [large]}
    stage.finish(1)
    assert stage.ran() == {1: [behind]}


def test_a_call_may_be_given_the_gpus_that_its_actor_holds():
    stage = Stage({"CPU": 1.0, "GPU": 1.0}, made=False)
    stage.prepare(20, creates=ActorOptions(), num_cpus=0.0, num_gpus=1.0, max_retries=0)
    (second,) = stage.assign(kind=20)
    stage.ready(2)
    stage.say(2, ActorMade(1))
    stage.knows(second, kind=21)
    stage.assign(kind=21)
    (run,) = stage.told(2, Run)
    assert [row.gpus for row in run.rows] == [(0,)]


def test_a_method_that_raises_is_told_with_whether_it_is_to_be_tried_again(stage):
    (call,) = stage.call()
    row = ValueRow(call, Outcome.ERROR, b"report")
    stage.say(1, Finished([FinishedRow(2, (row,), 0.1, retry=True)]))
    assert [(d.id, d.retry) for d in stage.done()] == [(call, True)]


def test_an_actor_that_tells_of_values_that_are_not_its_calls_is_ended(stage):
    stage.call()
    row = ValueRow(IdFactory(OTHER)(), Outcome.VALUE, b"v")
    stage.say(1, Finished([FinishedRow(2, (row,), 0.1)]))
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    stage.die(1, started=2)
    assert [row.died for row in stage.done()] == [True, True]


def test_a_worker_that_says_it_made_an_actor_that_it_did_not_is_ended():
    stage = NodeBench.ready_with_two()
    stage.assign()
    stage.say(2, ActorMade(1))
    assert stage.of(events.Signal) == [events.Signal(2, "KILL")]
