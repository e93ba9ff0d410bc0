"""How actors at a node end: each in every way, with what becomes of their calls."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    ActorMade,
    Exit,
    Finished,
    FinishedRow,
    Refs,
    Returned,
)
from drumbeat.protocol.actors import ActorOptions, ActorsUp
from drumbeat.protocol.drain import DrainNode
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Beat,
    Blocked,
    Cancel,
    Discard,
    Failure,
    Outcome,
    Results,
    Shared,
    Stop,
    StopMode,
    TaskRow,
    Unshared,
    ValueRow,
)
from drumbeat.protocol.recovery import Inventory, InventoryRow, Phase, Registered
from drumbeat.protocol.standstill import Deadlock, Look, Looked, WaitRow
from support.node_acting import Stage
from support.node_bench import (
    CLIENT,
    NODE,
    OTHER,
    NodeBench,
    at_rest,
    nest,
    options,
    restart,
    value,
)


@pytest.fixture
def stage():
    return Stage()


# -------------------------------------------------------------------------- ends, of all kinds


def test_when_an_actor_dies_unstarted_calls_go_back_before_it_is_told_what_died_with_it(stage):
    calls = stage.call(4)
    stage.die(1, started=2)
    assert stage.told_back() == [calls[1], calls[2], calls[3]]
    assert [(row.id, row.died) for row in stage.done()] == [(calls[0], True), (stage.actor, True)]
    news = stage.order_of_news()
    assert news.index("TakenBack") < news.index("Done")
    assert at_rest(stage) == {}


def test_a_call_that_had_started_and_whose_result_was_lost_is_a_bystander_of_the_last(stage):
    first, second = stage.call(2, expected_s=1e-6)
    stage.die(1, started=3)
    assert [(row.id, row.bystander) for row in stage.done()] == [
        (first, True),
        (second, False),
        (stage.actor, True),
    ]


def test_an_idle_actor_that_dies_is_told_as_any_worker_with_the_reason(stage):
    stage.die(1, started=1)
    (row,) = stage.done()
    assert row.id == stage.actor
    assert row.values[0].failure.error == "WorkerDied"
    assert "SIGKILL" in row.values[0].failure.text


def test_an_actor_that_ends_itself_has_its_last_call_answered_and_gives_back_the_others(stage):
    calls = stage.call(3)
    values = [ValueRow(calls[0], Outcome.VALUE, b"n"), ValueRow(stage.actor, Outcome.VALUE, b"n")]
    ended = [FinishedRow(2, (values[0],), 0.1), FinishedRow(1, (values[1],), 0.0)]
    stage.say(1, Finished(ended))
    assert stage.told_back() == calls[1:]
    assert [row.id for row in stage.done()] == [calls[0], stage.actor]
    stage.feed(events.WorkerExited(1, 0, "", ""))
    assert at_rest(stage) == {}


def test_an_actor_that_nobody_needs_is_told_to_exit_after_its_last_call(stage):
    (call,) = stage.call()
    stage.hear(Stop([(stage.actor, 1, StopMode.EXIT)]))
    assert not stage.told(1, Exit)
    stage.finish(1, 2)
    assert stage.told(1, Exit)
    stage.say(1, Finished([FinishedRow(1, (ValueRow(stage.actor, Outcome.VALUE, b"n"),), 0.0)]))
    assert [row.id for row in stage.done()] == [stage.actor]
    assert call not in stage.core._state.attempts
    stage.feed(events.WorkerExited(1, 0, "", ""))
    assert at_rest(stage) == {}


def test_one_that_does_not_exit_is_killed_and_that_is_no_death(stage):
    stage.hear(Stop([(stage.actor, 1, StopMode.EXIT)]))
    stage.after(stage.settings.term_grace_s)
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    stage.die(1, started=1)
    (row,) = stage.done()
    assert (row.died, row.values[0].failure.error) == (False, "TaskCancelled")


def test_one_that_is_to_exit_while_it_is_made_does_so_once_it_is():
    stage = Stage(made=False)
    stage.hear(Stop([(stage.actor, 1, StopMode.EXIT)]))
    assert not stage.told(1, Exit)
    stage.say(1, ActorMade(1))
    assert stage.told(1, Exit)


def test_a_killed_actor_is_killed_at_once_and_ends_cancelled(stage):
    (call,) = stage.call()
    stage.hear(Stop([(stage.actor, 1, StopMode.FORCE)]))
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    stage.die(1, started=2)
    assert [(row.id, row.died) for row in stage.done()] == [(call, True), (stage.actor, False)]
    assert stage.done()[1].values[0].failure.error == "TaskCancelled"


def test_one_that_is_killed_to_begin_anew_dies_as_if_by_accident(stage):
    stage.hear(Stop([(stage.actor, 1, StopMode.RESTART)]))
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    stage.die(1, started=1)
    assert [(row.id, row.died) for row in stage.done()] == [(stage.actor, True)]


def test_one_that_is_cancelled_has_time_to_end_by_itself(stage):
    stage.hear(Stop([(stage.actor, 1, StopMode.SOFT)]))
    assert stage.of(events.Signal) == [events.Signal(1, "TERM")]
    stage.after(stage.settings.term_grace_s)
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]


def test_one_that_is_cancelled_while_it_is_made_is_interrupted_even_if_made_meanwhile():
    stage = Stage(made=False)
    stage.hear(Stop([(stage.actor, 1, StopMode.SOFT)]))
    stage.feed(events.PacketsTaken(1, []))
    stage.say(1, ActorMade(1))
    stage.feed(events.PageRead([(1, 1, False)]))
    stage.after(0.1)
    assert stage.of(events.Signal) == [events.Signal(1, "TERM")]


def test_when_its_client_leaves_an_actor_is_killed_and_forgotten(stage):
    stage.call(3)
    stage.hear(Discard([], [CLIENT]))
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    stage.die(1, started=2)
    assert at_rest(stage) == {}


# ----------------------------------------------------------------------------- cancelled calls


def test_a_waiting_call_that_is_cancelled_is_dropped_and_the_others_go_on(stage):
    calls = stage.call(4)
    stage.hear(Stop([(calls[2], 1, StopMode.SOFT)]))
    assert [(d.id, d.values[0].failure.error) for d in stage.done()] == [
        (calls[2], "TaskCancelled")
    ]
    stage.finish(1, 2)
    assert stage.ran() == {1: [calls[3]]}


def test_a_call_in_the_workers_hands_is_called_back_and_those_behind_it_keep_their_order(stage):
    calls = stage.call(5, expected_s=1e-6)
    assert stage.ran() == {1: calls}
    stage.hear(Stop([(calls[2], 1, StopMode.SOFT)]))
    assert stage.of(events.Revoke) == [events.Revoke(1, 4)]
    stage.feed(events.PacketsTaken(1, []))
    stage.feed(events.PageRead([(1, 2, True)]))
    assert [d.id for d in stage.done()] == [calls[2]]
    stage.finish(1, 2)
    assert not stage.ran(), "it still has the rows that were revoked"
    stage.finish(1, 3)
    stage.say(1, Returned([4, 5, 6]))
    assert stage.of(events.Revoke) == [events.Revoke(1, 0)]
    assert stage.ran() == {1: calls[3:]}


def test_those_that_come_back_in_pieces_are_sent_again_in_their_order(stage):
    calls = stage.call(2, expected_s=1e-6) + stage.call(2, expected_s=1e-6)
    stage.hear(Stop([(calls[1], 1, StopMode.SOFT)]))
    stage.feed(events.PageRead([(1, 2, True)]))
    stage.say(1, Returned([3]))
    later = stage.call(expected_s=1e-6)
    stage.feed(events.PacketsTaken(1, [4, 5]))
    assert stage.ran() == {1: [*calls[2:], *later]}


def test_a_running_call_is_interrupted_and_no_more_than_that(stage):
    (call,) = stage.call()
    stage.hear(Stop([(call, 1, StopMode.SOFT)]))
    stage.feed(events.PacketsTaken(1, []))
    stage.feed(events.PageRead([(1, 2, True)]))
    assert stage.of(events.Interrupt) == [events.Interrupt(1, 2)]
    stage.after(100.0)
    assert not stage.of(events.Signal), "to go further would end the actor"
    failure = Failure("TaskCancelled", "cancelled")
    stage.say(1, Finished([FinishedRow(2, (ValueRow(call, 3, failure=failure),), 0.1)]))
    assert [row.id for row in stage.done()] == [call]
    (following,) = stage.call()
    assert stage.ran() == {1: [following]}


def test_a_running_call_is_not_ended_by_force_either(stage):
    (call,) = stage.call()
    stage.hear(Stop([(call, 1, StopMode.FORCE)]))
    stage.feed(events.PacketsTaken(1, []))
    stage.feed(events.PageRead([(1, 2, True)]))
    assert stage.of(events.Interrupt)
    assert not stage.of(events.Signal)


def test_a_call_that_is_to_end_only_if_unstarted_goes_on_if_it_is_the_first(stage):
    first, second = stage.call(2)
    stage.hear(Stop([(first, 1, StopMode.UNSTARTED)]))
    (beat,) = stage.sent(Beat)
    assert [row.id for row in beat.running] == [first]
    stage.hear(Stop([(second, 1, StopMode.UNSTARTED)]))
    stage.feed(events.PacketsTaken(1, [3]))
    assert [row.id for row in stage.done()] == [second]


# ----------------------------------------------------------------------------- calls that wait


def test_a_call_that_waits_lends_what_its_actor_holds():
    stage = Stage({"CPU": 1.0}, num_cpus=1.0)
    stage.prepare(1)
    stage.ready()
    (task,) = stage.assign()
    stage.call()
    stage.want(1, IdFactory(OTHER)(), seq=2)
    assert [message.rows for message in stage.sent(Blocked)] == [[(stage.actor, 1, True)]]
    assert [task] in stage.ran().values()


def test_an_idle_actor_stands_still_and_one_whose_call_waits_is_named_by_its_creation():
    stage = Stage({"CPU": 1.0}, num_cpus=1.0)
    stage.hear(Look(7))
    assert stage.sent(Looked) == [Looked(7, True, [])]
    stage.call(2)
    stage.hear(Look(8))
    assert stage.sent(Looked) == [Looked(8, False, [])]
    stage.want(1, IdFactory(OTHER)(), seq=2, request=4)
    stage.hear(Look(9))
    assert stage.sent(Looked) == [Looked(9, True, [WaitRow(stage.actor, 1, True)])]
    stage.hear(Deadlock([(stage.actor, 1, "for ever")]))
    assert [answer.error for answer in stage.answers(1)] == ["ResourceDeadlock"]


# ------------------------------------------------------------------------------------ restarts


def test_another_scheduler_is_told_of_actors_and_their_calls_before_all_news(stage):
    first, second, third = stage.call(3)
    told = restart(stage)
    (inventory,) = [message for message in told if isinstance(message, Inventory)]
    assert inventory.rows == [
        InventoryRow(stage.actor, 1, Phase.RUNNING),
        InventoryRow(first, 1, Phase.RUNNING),
        InventoryRow(second, 1, Phase.QUEUED),
        InventoryRow(third, 1, Phase.QUEUED),
    ]
    assert ActorsUp([(stage.actor, 1)]) in told
    assert told.index(ActorsUp([(stage.actor, 1)])) < told.index(Registered())
    stage.finish(1)
    assert stage.ran() == {1: [third]}


def test_one_made_while_nobody_listened_is_told_of_once(stage):
    stage = Stage(made=False)
    stage.feed(events.Disconnected())
    stage.feed(events.WorkerSpoke(1, ActorMade(1)), events.Connected(2, False))
    assert [m.rows for m in stage.sent(ActorsUp)] == [[(stage.actor, 1)]]


def test_a_node_that_was_given_up_ends_its_actors(stage):
    stage.call(3)
    stage.feed(events.Disconnected())
    stage.feed(events.Connected(1, False))
    assert stage.of(events.Signal) == [events.Signal(1, "KILL")]
    assert not stage.sent(ActorsUp)
    stage.die(1, started=2)
    assert at_rest(stage) == {}


# ------------------------------------------------------------------------------------- drained


def test_a_drained_node_gives_back_the_calls_that_wait_and_its_actors_go_on_for_now(stage):
    first, second, third = stage.call(3)
    stage.hear(DrainNode(False))
    assert third in stage.told_back()
    stage.feed(events.PacketsTaken(1, [3]))
    assert stage.told_back() == [second]
    stage.feed(events.PageRead([(1, 2, True)]))
    stage.finish(1, 2)
    assert [row.id for row in stage.done()] == [first]
    assert not stage.told(1, Exit)
    stage.hear(Stop([(stage.actor, 1, StopMode.RESTART)]))
    stage.die(1, started=2)
    assert [row.died for row in stage.done()] == [True]


def test_one_drained_in_a_hurry_interrupts_the_call_and_ends_the_actor_after_it(stage):
    (call,) = stage.call()
    stage.hear(DrainNode(True))
    stage.feed(events.PacketsTaken(1, []))
    stage.feed(events.PageRead([(1, 2, True)]), events.PageRead([(1, 2, True)]))
    assert [i.reason for i in stage.of(events.Interrupt)] == ["drain"]
    failure = Failure("TaskCancelled", "cancelled")
    stage.say(1, Finished([FinishedRow(2, (ValueRow(call, 3, failure=failure),), 0.1)]))
    assert [(d.id, d.died, d.bystander) for d in stage.done()] == [
        (call, True, True),
        (stage.actor, True, True),
    ]
    assert stage.told(1, Exit)
    stage.feed(events.WorkerExited(1, 0, "", ""))


def test_an_idle_actor_is_ended_at_once_by_a_drain_in_a_hurry(stage):
    stage.hear(DrainNode(True))
    assert [(row.id, row.died) for row in stage.done()] == [(stage.actor, True)]
    assert stage.told(1, Exit)


# ------------------------------------------------------------ actors that workers have created


def created(bench, worker=1):
    """Let a worker's task create an actor; return it."""
    actor = IdFactory(NODE, worker)()
    made = options(creates=ActorOptions(), num_cpus=0.0, max_retries=0)
    nest(bench, worker, TaskRow(actor, 1), options=made)
    return actor


def let_go(bench, worker, *ids):
    return bench.say(worker, Refs([], list(ids)))


def ends(bench):
    return [message.ids for message in bench.sent(Cancel) if message.exit]


def test_an_actor_that_no_worker_holds_any_more_is_to_end():
    bench = NodeBench.ready_with_two()
    bench.assign()
    actor = created(bench)
    assert not ends(bench)
    let_go(bench, 1, actor)
    assert ends(bench) == [[actor]]
    bench.feed()
    assert not ends(bench)


def test_a_call_keeps_its_actor_until_its_result_is_here():
    bench = NodeBench.ready_with_two()
    bench.assign()
    actor = created(bench)
    call = IdFactory(NODE, 1)
    call()
    call = call()
    nest(bench, 1, TaskRow(call, 2), options=options(actor=actor, num_cpus=0.0), number=2)
    let_go(bench, 1, actor, call)
    assert not ends(bench)
    bench.hear(Results([value(call)]))
    assert ends(bench) == [[actor]]


def test_an_actor_that_others_hold_goes_on_until_they_do_not():
    bench = NodeBench.ready_with_two()
    bench.assign()
    actor = created(bench)
    bench.hear(Shared([actor]))
    let_go(bench, 1, actor)
    assert not ends(bench)
    bench.hear(Unshared([actor]))
    assert ends(bench) == [[actor]]


def test_another_scheduler_is_told_again_of_actors_that_nobody_holds():
    bench = NodeBench.ready_with_two()
    bench.assign()
    actor = created(bench)
    let_go(bench, 1, actor)
    told = restart(bench)
    assert [m.ids for m in told if isinstance(m, Cancel) and m.exit] == [[actor]]


def test_a_task_that_nobody_holds_is_not_ended_for_that():
    bench = NodeBench.ready_with_two()
    bench.assign()
    task = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(task, 1))
    let_go(bench, 1, task)
    assert not ends(bench)
