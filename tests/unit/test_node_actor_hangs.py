"""Actors that hang, seen from the node: each call is judged, and nobody who has nothing to do."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import ActorMade, Finished, FinishedRow, Returned
from drumbeat.node.page import CHECKPOINTING, IDLE, RUNNING_CODE, SAVING
from drumbeat.protocol.messages import Beat, Failure, Outcome, Stop, StopMode, ValueRow
from drumbeat.protocol.running import Stack, Stacks
from support.node_acting import Stage

SOON = {"hang_timeout_s": 5.0, "cancel_grace_s": 1.0, "term_grace_s": 1.0}


@pytest.fixture
def stage():
    return Stage(settings=SOON)


def in_a_deadlock(stage, seconds, running=2):
    """Let time pass while the actor is seen with a stale pulse, every thread at a lock."""
    return seen_for(stage, seconds, lambda command: answers_to(command, running))


def telling_its_state(stage, seconds, running=2, phase=CHECKPOINTING, state="S"):
    """Let time pass while the actor is in its __checkpoint__, and its pulse comes."""

    def answers(command):
        if type(command) is not events.LookAt:
            return answers_to(command, running)
        beat, elapsed_s = int(stage.now_s * 100), 9.0 if running else 0.0
        about = beat, running, phase, elapsed_s, 0
        started = running or 1
        return [
            events.Seen([events.Evidence(
                1, *about, state if depth else "", 1.0, 5, "", "read", started=started
            )])
            for _, depth in command.rows
        ]  # fmt: skip

    return seen_for(stage, seconds, answers)


def seen_for(stage, seconds, answers_of):
    end_s, commands = stage.now_s + seconds, []
    while stage.now_s < end_s:
        new = stage.after(0.05)
        while new:
            commands += new
            answers = [a for c in new for a in answers_of(c)]
            new = stage.feed(*answers) if answers else []
    return commands


def answers_to(command, running):
    if type(command) is events.ReadPage:
        return [events.PageRead([(1, running, True)])]
    if type(command) is events.TakePackets:
        return [events.PacketsTaken(1, [])]
    if type(command) is events.Dump:
        return [events.Dumped(1, "", "nobody was asked")]
    if type(command) is not events.LookAt:
        return []
    rows = []
    for number, depth in command.rows:
        state = "" if depth == events.PAGE else "S"
        threads = events.FUTEX if depth == events.THREADS else ""
        at = (RUNNING_CODE, 9.0) if running else (IDLE, 0.0)
        about = (*at, 0, state, 1.0, 5, threads)
        rows.append(events.Evidence(number, 7, running, *about))
    return [events.Seen(rows)]


def steps(commands):
    return [c for c in commands if type(c) in (events.Interrupt, events.Signal)]


def named(commands):
    sent = [c.message for c in commands if type(c) is events.Send]
    return [row.id for message in sent if type(message) is Beat for row in message.running]


def test_an_idle_actor_is_not_looked_at_nor_told_of_and_wants_nothing(stage):
    commands = stage.after(5.0)
    assert not [c for c in commands if type(c) is events.LookAt]
    assert not named(commands)
    assert stage.core._hangs.deadline_s() is None


def test_calls_of_an_actor_are_looked_at_again_after_it_was_idle(stage):
    stage.after(5.0)
    (call,) = stage.call()
    assert stage.core._hangs.deadline_s() is not None
    commands = stage.after(1.5)
    assert [c for c in commands if type(c) is events.LookAt]
    assert set(named(commands)) == {call}
    stage.finish(1, 2)
    assert not [c for c in stage.after(5.0) if type(c) is events.LookAt]


def test_a_look_that_comes_when_the_call_is_over_says_nothing(stage):
    stage.call()
    stage.after(0.5)
    stage.finish(1, 2)
    stage.feed(*answers_to(events.LookAt([(1, events.THREADS)]), 2))
    assert not named(stage.after(2.0))


def test_a_running_call_is_judged_by_its_own_row(stage):
    first, second = stage.call(2, expected_s=1e-6)
    commands = in_a_deadlock(stage, 2.0, running=3)
    told = [
        row
        for c in commands
        if type(c) is events.Send and type(c.message) is Beat
        for row in c.message.running
    ]
    assert (told[-1].id, told[-1].verdict) == (second, "deadlock")
    assert first not in {row.id for row in told if row.verdict == "deadlock"}


def test_a_constructor_is_judged_as_any_task():
    stage = Stage(settings=SOON, made=False)
    commands = in_a_deadlock(stage, 10.0, running=1)
    assert set(named(commands)) == {stage.actor}
    assert steps(commands) == [
        events.Interrupt(1, 1, "hung"), events.Signal(1, "TERM"), events.Signal(1, "KILL")
    ]  # fmt: skip
    stage.feed(events.WorkerExited(1, -9, "SIGKILL", ""))
    (row,) = stage.done()
    assert (row.id, row.died, row.values[0].failure.error) == (stage.actor, True, "TaskHung")


def test_a_call_that_hangs_ends_as_that_and_its_actor_as_if_it_had_died(stage):
    call, later = stage.call(2)
    assert not steps(in_a_deadlock(stage, 4.0))
    commands = in_a_deadlock(stage, 6.0)
    assert steps(commands) == [
        events.Interrupt(1, 2, "hung"), events.Signal(1, "TERM"), events.Signal(1, "KILL")
    ]  # fmt: skip
    stage.say(1, Returned([3]))
    stage.die(1, started=2)
    assert stage.told_back() == [later]
    assert [(row.id, row.died, row.values[0].failure.error) for row in stage.done()] == [
        (call, True, "TaskHung"),
        (stage.actor, True, "WorkerDied"),
    ]


def test_an_actor_that_takes_nothing_any_more_ends_and_its_calls_run_in_the_next_one(stage):
    calls = stage.call(2, expected_s=1e-6)
    assert not steps(in_a_deadlock(stage, 4.0, running=0))
    commands = in_a_deadlock(stage, 6.0, running=0)
    assert [c for c in commands if type(c) is events.Dump]
    assert steps(commands) == [events.Signal(1, "TERM"), events.Signal(1, "KILL")]
    stage.die(1, started=1)
    assert stage.told_back() == calls
    assert [(row.id, row.died, row.values[0].failure.error) for row in stage.done()] == [
        (stage.actor, True, "TaskHung"),
    ]


def test_a_worker_that_takes_nothing_is_killed_and_what_it_was_sent_runs_elsewhere():
    stage = Stage(settings=SOON, made=False)
    commands = in_a_deadlock(stage, 10.0, running=0)
    assert steps(commands) == [events.Signal(1, "KILL")]
    commands = stage.die(1, started=0)
    assert not stage.done()
    assert [c.worker for c in commands if type(c) is events.StartWorker] == [2]


def test_one_that_can_be_interrupted_after_all_costs_its_actor_nothing(stage):
    (call,) = stage.call()
    while not steps(in_a_deadlock(stage, 0.25)):
        assert stage.now_s < 120.0
    failure = Failure("TaskCancelled", "it was cancelled while it ran")
    row = ValueRow(call, Outcome.FAILURE, failure=failure)
    stage.say(1, Finished([FinishedRow(2, (row,), 0.1)]))
    assert [(row.id, row.values[0].failure.error) for row in stage.done()] == [(call, "TaskHung")]
    assert not steps(stage.after(10.0))
    stage.say(1, Returned([]))
    stage.feed(events.PageRead([(1, 2, False)]))
    (following,) = stage.call()
    assert following in stage.core._state.attempts


@pytest.mark.parametrize("seconds", [1.0, 4.9])
def test_one_that_was_cancelled_and_hangs_is_ended_too(stage, seconds):
    (call,) = stage.call()
    in_a_deadlock(stage, seconds)
    asked = stage.hear(Stop([(call, 1, StopMode.SOFT)]))
    stage.feed(*(answer for command in asked for answer in answers_to(command, 2)))
    commands = in_a_deadlock(stage, 12.0)
    assert events.Signal(1, "KILL") in commands
    stage.die(1, started=2)
    assert [row.id for row in stage.done()] == [call, stage.actor]


def test_an_actor_that_does_not_end_telling_its_state_is_ended_after_its_limit():
    stage = Stage(settings={**SOON, "checkpoint_timeout_s": 20.0})
    stage.call()
    assert not steps(telling_its_state(stage, 19.0))
    assert steps(telling_its_state(stage, 5.0)) == [
        events.Interrupt(1, 2, "hung"), events.Signal(1, "TERM"), events.Signal(1, "KILL")
    ]  # fmt: skip
    stage.die(1, started=2)
    failure = stage.done()[0].values[0].failure
    assert (failure.error, failure.details["limit"]) == ("TaskHung", "checkpoint_timeout_s")
    assert "has run, but __checkpoint__ of its actor did not end in 20 s" in failure.text
    assert failure.details["verdict"].startswith("checkpointing: __checkpoint__ of its actor has")
    assert "sleeping in read" in failure.details["verdict"]


def test_one_that_tells_its_state_between_calls_is_ended_and_the_call_runs_in_the_next():
    stage = Stage(settings={**SOON, "checkpoint_timeout_s": 20.0})
    (call,) = stage.call()
    commands = telling_its_state(stage, 30.0, running=0)
    assert steps(commands)[-1] == events.Signal(1, "KILL")
    stage.die(1, started=1)
    assert stage.told_back() == [call]
    (row,) = stage.done()
    assert row.id == stage.actor
    assert "did not end __checkpoint__ in 20 s" in row.values[0].failure.text


@pytest.mark.parametrize(
    ("about", "timeout_s"),
    [({"phase": SAVING}, 20.0), ({"state": "T"}, 20.0), ({}, 0.0)],
)
def test_who_waits_for_the_scheduler_or_is_stopped_or_has_no_limit_goes_on(about, timeout_s):
    stage = Stage(settings={**SOON, "checkpoint_timeout_s": timeout_s})
    stage.call()
    assert not steps(telling_its_state(stage, 60.0, **about))


def test_an_actor_made_meanwhile_is_not_judged_for_its_constructor():
    stage = Stage(settings=SOON, made=False)
    in_a_deadlock(stage, 3.0, running=1)
    stage.say(1, ActorMade(1))
    assert not steps(in_a_deadlock(stage, 10.0, running=1))


def test_where_a_call_is_can_be_asked_and_where_its_actor_is(stage):
    (call,) = stage.call()
    for asked in (call, stage.actor):
        stage.hear(Stack(7, [asked], []))
        stage.feed(events.Dumped(1, "File x"))
        (answer,) = stage.sent(Stacks)
        assert [(row.task, row.text) for row in answer.rows] == [(call, "File x")]
    stage.finish(1, 2)
    stage.hear(Stack(8, [], [], all=True))
    (answer,) = stage.sent(Stacks)
    assert not answer.rows, "it does nothing"
    stage.hear(Stack(9, [stage.actor], []))
    stage.feed(events.Dumped(1, "File y"))
    (answer,) = stage.sent(Stacks)
    assert [(row.task, row.text) for row in answer.rows] == [(stage.actor, "File y")]
