"""Actors whose event loop does not come round: told of, and their calls end by their limits."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Begun, BegunRow, Returned, StopCalls
from drumbeat.node.page import IDLE, WAITING
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import Done
from support.node_acting import CALL
from support.node_several import beaten, staged


@pytest.fixture
def stage():
    return staged()


def loop_is_blocked(stage, seconds, started=0, running=0, read=0):
    """Let time pass while the loop does not come round; return all that the node commands."""
    began_s, commands, end_s = stage.now_s, [], stage.now_s + seconds
    while stage.now_s < end_s:
        new = stage.after(0.05)
        while new:
            commands += new
            answers = []
            for command in new:
                if type(command) is events.LookAt:
                    loop_s = stage.now_s - began_s
                    beat = int(stage.now_s * 100)
                    phase = WAITING if running else IDLE
                    answers += [
                        events.Seen([events.Evidence(
                            1, beat, running, phase, loop_s if running else 0.0, 0,
                            "S" if depth else "", 1.0, 5, "", "clock_nanosleep", started=started,
                            loop_s=loop_s,
                        )])
                        for _, depth in command.rows
                    ]  # fmt: skip
                elif type(command) is events.ReadPage:
                    answers.append(events.PageRead([(1, read or started, True)]))
                elif type(command) is events.TakePackets:
                    answers.append(events.PacketsTaken(1, []))
                elif type(command) is events.Dump:
                    answers.append(events.Dumped(1, "Current thread 0x7 (most recent call first):"))
            new = stage.feed(*answers) if answers else []
    return commands


def test_a_call_whose_loop_does_not_come_round_is_told_of_as_that(stage):
    (call,) = stage.call(1)
    row = {row.id: row for row in beaten(loop_is_blocked(stage, 3.0))}[call]
    assert (row.phase, row.verdict, row.where) == ("idle", "loop-blocked", "clock_nanosleep")
    assert "its event loop has not come round for" in row.evidence
    row = {row.id: row for row in beaten(loop_is_blocked(stage, 3.0, started=2, running=2))}[call]
    assert (row.phase, row.verdict) == ("waiting", "loop-blocked")


def test_a_loop_that_comes_round_is_not_blocked_however_long_its_calls_wait(stage):
    (call,) = stage.call(1)
    for _ in range(12):
        stage.after(0.25)
        beat = int(stage.now_s * 100)
        about = (WAITING, 9.0, 0, "S", 1.0, 5)
        stage.feed(events.Seen([events.Evidence(1, beat, 2, *about, started=2, loop_s=0.0)]))
    rows = {row.id: row.verdict for row in beaten(stage.after(1.0))}
    assert rows[call] == "waiting"


def test_a_call_that_does_not_get_its_turn_ends_by_its_timeout_and_its_actor_goes_on():
    stage = staged(2, timeout_s=2.0)
    (running,), (waits, no_turn) = stage.call(), stage.assign(2, kind=CALL + 1)
    stage.say(1, Begun([BegunRow(2, 0.1)]))
    commands = loop_is_blocked(stage, 3.5, started=2, running=2)
    (row,) = [
        row
        for c in commands
        if type(c) is events.Send and type(c.message) is Done
        for row in c.message.rows
    ]
    assert (row.id, row.values[0].failure.error) == (waits, "TaskTimedOut")
    assert "did not begin within its timeout of 2 s" in row.values[0].failure.text
    assert row.values[0].failure.details["verdict"].startswith("loop-blocked: ")
    assert row.values[0].failure.details["stacks"].startswith("Current thread")
    assert not [c for c in commands if type(c) in (events.Interrupt, events.Signal)]
    assert not [c for c in commands if type(c) is events.SendWorker and type(c.packet) is StopCalls]
    assert {a.row.id for a in stage.hosted().back.values()} == {no_turn}
    stage.say(1, Returned([3, 4]))
    assert [a.row.id for a in stage.hosted().hand.values()] == [running, no_turn]


def test_the_time_of_who_waits_for_its_turn_goes_on_when_another_is_taken_back():
    stage = staged(timeout_s=2.0)
    stage.knows(stage.actor, CALL + 2)
    stage.prepare(
        CALL + 2, actor=stage.actor, num_cpus=0.0, max_retries=0, limits=Limits(timeout_s=3.0)
    )
    (short,), (long,) = stage.assign(kind=CALL + 1), stage.assign(kind=CALL + 2)
    commands = loop_is_blocked(stage, 2.5)
    stage.say(1, Returned([2, 3]))
    assert [a.row.id for a in stage.hosted().hand.values()] == [long]
    assert long in stage.hosted().turns
    commands = loop_is_blocked(stage, 1.5)
    done = [c.message for c in commands if type(c) is events.Send and type(c.message) is Done]
    assert [row.id for message in done for row in message.rows] == [long]
    assert short != long


def test_one_that_has_begun_when_it_is_taken_back_goes_down_the_ladder():
    stage = staged(timeout_s=1.0)
    (call,) = stage.assign(kind=CALL + 1)
    loop_is_blocked(stage, 1.6, read=2)
    (attempt,) = stage.hosted().hand.values()
    assert (attempt.row.id, attempt.case.actions()) == (call, "stack · cancel")
