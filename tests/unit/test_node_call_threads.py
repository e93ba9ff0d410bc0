"""Calls in threads of one actor: each is judged by what its own thread does."""

from drumbeat.node import events
from drumbeat.node.cases import STACKS_BYTES_MAX
from drumbeat.node.packets import Begun, BegunRow
from drumbeat.node.page import RUNNING_CODE
from drumbeat.protocol.ids import show
from drumbeat.protocol.running import Stack, Stacks
from drumbeat.protocol.stack_text import in_a_line
from support.node_acting import CALL
from support.node_several import beaten, staged


def test_a_node_names_the_threads_of_calls_when_their_worker_cannot():
    stage = staged(in_threads=True)
    (call,) = stage.call(1)
    stage.say(1, Begun([BegunRow(2, 0.5, thread=71, ident=0xABC)]))
    stage.hear(Stack(7, [stage.actor], []))
    stage.feed(events.Dumped(1, "Current thread\n"))
    commands = stage.after(0.1)
    (answer,) = [
        c.message for c in commands if type(c) is events.Send and type(c.message) is Stacks
    ]
    named = f"Named 0x0000000000000abc kind{CALL} {show(call)}\n"
    assert answer.rows[0].text == f"{named}Current thread\n"


def threads_are_seen(stage, seconds, began_s, threads, process=None, stacks=""):
    """Let time pass; threads: native id -> (state, whether it uses CPU, where it sleeps)."""
    commands, end_s = [], stage.now_s + seconds

    def look_at(command):
        for number, depth in command.rows:
            calls = tuple(
                events.ThreadSeen(one, *_of_thread(stage.now_s, threads[one]))
                for one in command.threads.get(number, ())
            )
            beat, elapsed_s = int(stage.now_s * 100), stage.now_s - began_s
            yield events.Evidence(
                1, beat, 2, RUNNING_CODE, elapsed_s, 0, process or "S" if depth else "",
                stage.now_s, 5, "", "futex", started=5, calls=calls,
            )  # fmt: skip

    answers_to = {
        events.LookAt: lambda command: events.Seen(list(look_at(command))),
        events.ReadPage: lambda _: events.PageRead([(1, 5, True)]),
        events.TakePackets: lambda _: events.PacketsTaken(1, []),
        events.Dump: lambda _: events.Dumped(1, stacks),
    }
    while stage.now_s < end_s:
        new = stage.after(0.05)
        while new:
            commands += new
            answers = [answers_to[type(c)](c) for c in new if type(c) in answers_to]
            new = stage.feed(*answers) if answers else []
    return commands


def _of_thread(now_s, how):
    state, works, where = how
    return state, now_s if works else 1.0, 5, where


def test_each_call_in_a_thread_is_told_of_by_what_its_own_thread_does():
    stage = staged(in_threads=True)
    locked, works, also = stage.call(3)
    rows = [BegunRow(seq, 0.5, thread=70 + seq, ident=seq) for seq in (2, 3, 4)]
    stage.say(1, Begun(rows))
    threads = {
        72: ("S", False, "futex"),
        73: ("R", True, ""),
        74: ("S", False, "futex"),
    }
    commands = threads_are_seen(stage, 4.0, stage.now_s - 1.0, threads)
    told = {row.id: row for row in beaten(commands)}
    assert (told[locked].verdict, told[locked].where) == ("blocked", "futex")
    assert "its thread: no CPU and no IO for" in told[locked].evidence
    assert "2 of 3 calls that the actor has wait for locks" in told[locked].evidence
    assert told[locked].verdict_s > 2.0
    assert (told[works].verdict, told[works].where) == ("running", "")
    assert told[also].verdict == "blocked"
    stage.finish(1, 3)
    told = {row.id: row for row in beaten(threads_are_seen(stage, 2.0, 0.0, threads))}
    assert "; all 2 calls that the actor has wait for locks" in told[locked].evidence


def test_a_thread_of_a_stopped_actor_is_not_blocked():
    stage = staged(in_threads=True)
    first, second = stage.call(2)
    stage.say(1, Begun([BegunRow(seq, 0.5, thread=70 + seq, ident=seq) for seq in (2, 3)]))
    threads = {72: ("T", False, ""), 73: ("T", False, "")}
    commands = threads_are_seen(stage, 3.0, stage.now_s - 1.0, threads, process="T")
    told = {row.id: row.verdict for row in beaten(commands)}
    assert told == {first: "stopped", second: "running"}


def test_the_case_against_a_call_in_a_thread_is_about_that_thread():
    stage = staged(in_threads=True, timeout_s=3.0)
    stage.assign(2, kind=CALL + 1)
    stage.say(1, Begun([BegunRow(2, 0.5, thread=72, ident=0x2), BegunRow(3, 0, thread=73)]))
    threads = {72: ("S", False, "futex"), 73: ("R", True, "")}
    frames = '  File "/home/u/own.py", line 8 in own\n'
    other = '  File "/home/u/main.py", line 9 in main\n' * 400
    text = (
        f"Thread 0x0000000000000002 (most recent call first):\n{frames}\n"
        f"Current thread 0x01 (most recent call first):\n{other}"
    )
    assert len(text) > STACKS_BYTES_MAX
    threads_are_seen(stage, 3.6, stage.now_s - 0.5, threads, stacks=text)
    attempt = stage.hosted().hand[2]
    assert (attempt.case.verdict, attempt.case.reason) == ("blocked", "timed_out")
    assert "its thread: no CPU" in attempt.case.evidence
    assert in_a_line(attempt.case.stacks) == "own.py:8 own"
