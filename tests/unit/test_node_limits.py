"""Calls beyond their limits: who is judged, by what, and who is not."""

from typing import Any

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Finished, FinishedRow, Progressed
from drumbeat.node.page import (
    FETCHING,
    IMPORTING,
    PICKLING,
    RUNNING_CODE,
    UNPICKLING,
    WAITING,
)  # fmt: skip
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import (
    Done,
    DoneRow,
    Failure,
    Outcome,
    Output,
    Stop,
    StopMode,
    ValueRow,
)
from drumbeat.protocol.outcomes import error_of, value_of
from drumbeat.protocol.payload import pack_value
from support.node_acting import CALL
from support.node_acting import Stage as Acting
from support.node_bench import OTHER, NodeBench, at_rest

STACKS = (
    "Current thread 0x00007e (most recent call first):\n"
    '  File "/home/u/imgtool.py", line 88 in _native_blur\n'
    '  File "/home/u/pipeline.py", line 31 in resize\n'
    '  File "/site/drumbeat/node/worker.py", line 307 in _attempt\n'
    '  File "<string>", line 1 in <module>\n'
)
MIB = 1 << 20
LADDER = {"cancel_grace_s": 1.0, "term_grace_s": 0.5, "reap_timeout_s": 3.0}
STEPS = (events.Dump, events.Interrupt, events.Signal)


class Limited:
    """A node that runs one call with limits in worker 1, which does what is said."""

    def __init__(self, bench: NodeBench | None = None, running: int = 1, **limits: Any) -> None:
        self.bench = bench or NodeBench({"CPU": 1.0}, LADDER)
        self.running = running
        if bench is None:
            self.bench.prepare(2, limits=Limits(**limits), max_retries=2)
            self.bench.ready()
            (self.task,) = self.bench.assign(kind=2)
        self.began_s = self.bench.now_s
        self.beat = 0
        self.worker = 1
        self.commands: list[Any] = []
        #: what it says of itself, at each look
        self.how: dict[str, Any] = {}

    def goes_on(self, seconds: float, **how: Any) -> list[Any]:
        """Let it go on for so long; return the steps taken against it."""
        self.how |= how
        before, end_s = len(self.commands), self.bench.now_s + seconds
        while self.bench.now_s < end_s - 1e-9:
            new = self.bench.after(min(0.05, end_s - self.bench.now_s))
            while new:
                self.commands += new
                answers = [answer for command in new for answer in self.answers(command)]
                new = self.bench.feed(*answers) if answers else []
        return [c for c in self.commands[before:] if type(c) in STEPS]

    def answers(self, command: Any) -> list[Any]:
        how = self.how
        match command:
            case events.ReadPage():
                return [
                    events.PageRead([(number, self.running, True) for number in command.workers])
                ]
            case events.TakePackets():
                return [events.PacketsTaken(self.worker, [])]
            case events.Dump() if how.get("answers", True):
                return [events.Dumped(self.worker, STACKS, at="14:04:12")]
            case events.LookAt():
                self.beat += 1
                elapsed_s = self.bench.now_s - self.began_s
                rows = [
                    events.Evidence(
                        number, self.beat, self.running, how.get("phase", RUNNING_CODE), elapsed_s,
                        how.get("progress", 0), how.get("state", "R") if depth else "",
                        elapsed_s * 0.9, 5, "", "", how.get("done", 0.0), how.get("total", -1.0),
                        how.get("memory", 10 * MIB) if depth else 0,
                    )
                    for number, depth in command.rows
                ]  # fmt: skip
                return [events.Seen(rows)]
        return []

    def ends_with(self, outcome: int, payload: bytes | None = None, **given: Any) -> DoneRow:
        """Let the worker tell of its end; return what the scheduler is told."""
        failure = Failure("TaskCancelled", "it was cancelled") if outcome == 2 else None
        row = ValueRow(self.task, outcome, payload, failure=failure, **given)
        self.bench.say(1, Finished([FinishedRow(1, (row,), 0.5)]))
        (done,) = self.bench.done()
        return done


def test_a_call_beyond_its_timeout_goes_down_the_ladder_and_ends_as_timed_out() -> None:
    call = Limited(timeout_s=2.0)
    assert call.goes_on(1.95) == []
    steps = call.goes_on(4.0)
    assert steps == [
        events.Dump([1]),
        events.Interrupt(1, 1, "timed_out"),
        events.Signal(1, "TERM"),
        events.Signal(1, "KILL"),
    ]
    call.bench.die(1, started=1)
    (done,) = call.bench.done()
    assert (done.id, done.died, done.retry) == (call.task, False, False)
    error = error_of(done.values[0])
    assert type(error).__name__ == "TaskTimedOut"
    no_effect = ", no effect in"
    assert str(error).splitlines() == [
        "kind2 took longer than its timeout of 2 s on node lab (pid 1001, attempt 1 of 3)",
        "  verdict : running",
        f"  actions : stack 14:04:12 · cancel{no_effect} 1 s · SIGTERM{no_effect} 0.5 s · SIGKILL",
        "  stack   : imgtool.py:88 _native_blur < pipeline.py:31 resize",
    ]
    assert at_rest(call.bench) == {}


@pytest.mark.parametrize("limit_s", [0.25, 0.3, 0.6, 1.0, 2.0, 7.1])
def test_it_is_noticed_within_a_quarter_of_a_second_of_its_limit(limit_s: float) -> None:
    call = Limited(timeout_s=limit_s)
    while not call.goes_on(0.05):
        pass
    assert limit_s <= call.bench.now_s - call.began_s <= limit_s + 0.25 + 0.05


@pytest.mark.parametrize("phase", [IMPORTING, UNPICKLING, FETCHING])
def test_a_slow_import_and_a_huge_argument_do_not_count(phase: int) -> None:
    call = Limited(timeout_s=2.0, heartbeat_timeout_s=2.0)
    assert call.goes_on(60.0, phase=phase) == []
    assert call.goes_on(1.9, phase=RUNNING_CODE) == []
    assert call.goes_on(0.5) != []


def test_time_counts_from_when_the_function_was_there_however_long_that_took() -> None:
    call = Limited(timeout_s=2.0)
    assert call.goes_on(30.0, phase=IMPORTING) == []
    call.began_s = call.bench.now_s  # as its worker writes then
    assert call.goes_on(1.95, phase=RUNNING_CODE) == []
    assert call.goes_on(0.35) != []


@pytest.mark.parametrize("phase", [WAITING, PICKLING])
def test_waiting_and_pickling_are_part_of_the_call(phase: int) -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(0.5)
    assert call.goes_on(2.0, phase=phase) != []


def test_time_does_not_count_while_it_is_stopped() -> None:
    call = Limited(timeout_s=5.0, heartbeat_timeout_s=5.0)
    call.goes_on(3.0)
    assert call.goes_on(60.0, state="T") == []
    assert call.goes_on(1.5, state="R") == []
    assert call.goes_on(1.5) != []


def test_time_does_not_count_while_the_node_could_not_look() -> None:
    call = Limited(timeout_s=5.0)
    call.goes_on(3.0)
    call.bench.now_s += 600.0
    assert call.goes_on(1.5) == []
    assert call.goes_on(1.5) != []


def test_who_says_that_it_progresses_is_let_be_and_who_does_no_more_hangs() -> None:
    call = Limited(heartbeat_timeout_s=2.0)
    for count in range(1, 11):
        assert call.goes_on(1.5, progress=count, done=30.0 + count, total=900.0) == []
    call.bench.say(1, Progressed(1, pack_value("tile 40").payload))
    steps = call.goes_on(0.9)
    assert steps[:2] == [events.Dump([1]), events.Interrupt(1, 1, "hung")]
    done = call.ends_with(Outcome.FAILURE)
    assert (done.died, done.bystander, done.details) == (True, True, pack_value("tile 40").payload)
    error = error_of(done.values[0])
    assert type(error).__name__ == "TaskHung"
    assert error.progress == '40/900 "tile 40", 2 s ago'  # type: ignore[union-attr]
    assert error.last_details == "tile 40"  # type: ignore[union-attr]
    assert error.limit == "heartbeat_timeout"  # type: ignore[union-attr]


def test_a_value_that_comes_after_the_verdict_is_attached_to_it() -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(2.5)
    done = call.ends_with(Outcome.VALUE, pack_value({"best": 7}).payload)
    error = error_of(done.values[0])
    assert type(error).__name__ == "TaskTimedOut"
    assert (error.has_partial, error.partial) == (True, {"best": 7})  # type: ignore[union-attr]
    assert call.goes_on(5.0) == []


def test_a_value_with_references_inside_is_no_partial_one() -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(2.5)
    inside = IdFactory(OTHER)()
    done = call.ends_with(Outcome.VALUE, b"payload", contained=(inside,))
    error = error_of(done.values[0])
    assert (error.has_partial, error.partial) == (False, None)  # type: ignore[union-attr]


def test_a_value_that_comes_before_its_limit_is_its_value() -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(1.9)
    done = call.ends_with(Outcome.VALUE, pack_value(7).payload)
    assert value_of(done.values[0]) == 7


def test_a_worker_that_cannot_say_where_it_is_is_waited_for_no_longer_than_a_moment() -> None:
    call = Limited(timeout_s=2.0)
    steps = call.goes_on(5.0, answers=False)
    assert [type(step) for step in steps[:2]] == [events.Dump, events.Interrupt]
    done = call.ends_with(Outcome.FAILURE)
    actions = done.values[0].failure.details["actions"]  # type: ignore[union-attr]
    assert str(actions).startswith("no stack: nothing came within 1.5 s · cancel")


def test_who_uses_more_memory_than_it_may_is_ended_and_told_the_peak() -> None:
    call = Limited(memory_max_bytes=100 * MIB)
    assert call.goes_on(3.0, memory=99 * MIB) == []
    steps = call.goes_on(0.6, memory=110 * MIB)
    assert steps == [events.Dump([1]), events.Interrupt(1, 1, "memory")]
    done = call.ends_with(Outcome.FAILURE)
    assert (done.died, done.bystander) == (True, True)
    error = error_of(done.values[0])
    assert type(error).__name__ == "WorkerOutOfMemory"
    assert str(error).startswith("kind2 used 110 MiB, more than its memory_max of 100 MiB, on node")
    assert (error.peak_bytes, error.limit_bytes) == (110 * MIB, 100 * MIB)  # type: ignore[union-attr]


def test_who_takes_ever_more_memory_is_killed_at_once() -> None:
    call = Limited(memory_max_bytes=100 * MIB)
    steps = call.goes_on(1.0, memory=200 * MIB)
    assert steps[-1] == events.Signal(1, "KILL")
    assert events.Signal(1, "TERM") not in steps


def test_a_users_cancel_does_not_hide_a_verdict_and_its_value_does_not_win_any_more() -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(2.5)
    call.bench.hear(Stop([(call.task, 1, StopMode.SOFT)]))
    done = call.ends_with(Outcome.VALUE, pack_value(1).payload)
    assert done.values[0].failure.error == "TaskTimedOut"  # type: ignore[union-attr]


def test_who_is_cancelled_is_not_judged_besides() -> None:
    call = Limited(timeout_s=2.0)
    call.goes_on(1.8)
    call.bench.hear(Stop([(call.task, 1, StopMode.SOFT)]))
    call.goes_on(0.9)
    done = call.ends_with(Outcome.VALUE, pack_value(1).payload)
    assert value_of(done.values[0]) == 1


# ------------------------------------------------------------------------------------- of actors


def acting(**limits: Any) -> tuple[Acting, Limited, bytes]:
    """Return an actor's node, and its call, which has limits."""
    stage = Acting(settings=LADDER)
    stage.prepare(CALL, actor=stage.actor, num_cpus=0.0, max_retries=0, limits=Limits(**limits))
    (call,) = stage.call()
    limited = Limited(stage, running=2)
    limited.task = call
    return stage, limited, call


def test_a_call_that_heeds_the_interruption_costs_its_actor_nothing() -> None:
    stage, limited, call = acting(timeout_s=2.0)
    assert limited.goes_on(2.5) == [events.Dump([1]), events.Interrupt(1, 2, "timed_out")]
    row = ValueRow(call, Outcome.FAILURE, failure=Failure("TaskCancelled", "it was cancelled"))
    stage.say(1, Finished([FinishedRow(2, (row,), 2.0)]))
    (done,) = stage.done()
    assert (done.id, done.values[0].failure.error) == (call, "TaskTimedOut")
    assert limited.goes_on(10.0) == []
    assert stage.hosted().up


def test_one_that_does_not_ends_with_its_actor_and_what_waits_goes_back() -> None:
    stage, limited, call = acting(timeout_s=2.0)
    (later,) = stage.call()
    steps = limited.goes_on(5.0)
    assert steps[-2:] == [events.Signal(1, "TERM"), events.Signal(1, "KILL")]
    stage.die(1, started=2)
    assert stage.told_back() == [later]
    told = [(row.id, row.died, row.values[0].failure.error) for row in stage.done()]
    assert told == [(call, False, "TaskTimedOut"), (stage.actor, True, "WorkerDied")]
    text = stage.done()[1].values[0].failure.text
    assert "was ended by SIGKILL, since kind11 took longer than its timeout of 2 s" in text


def test_a_call_that_was_cancelled_and_goes_on_is_ended_by_its_limit() -> None:
    stage, limited, call = acting(timeout_s=2.0)
    limited.goes_on(1.0)
    asked = stage.hear(Stop([(call, 1, StopMode.SOFT)]))
    stage.feed(*(answer for command in asked for answer in limited.answers(command)))
    steps = limited.goes_on(6.0)
    assert steps[-2:] == [events.Signal(1, "TERM"), events.Signal(1, "KILL")]


def test_an_actor_that_uses_too_much_memory_ends_with_its_call() -> None:
    stage = Acting(settings=LADDER, limits=Limits(memory_max_bytes=50 * MIB))
    (call,) = stage.call()
    limited = Limited(stage, running=2)
    steps = limited.goes_on(1.0, memory=55 * MIB)
    assert steps == [events.Dump([1]), events.Signal(1, "TERM")]
    stage.die(1, started=2, status=-15, name="SIGTERM")
    told = [(row.id, row.values[0].failure.error) for row in stage.done()]
    assert told == [(call, "WorkerOutOfMemory"), (stage.actor, "WorkerDied")]


# ---------------------------------------------------------------------------------- who is stopped


def test_who_is_stopped_is_ended_only_if_a_setting_says_so_and_by_the_kill() -> None:
    bench = NodeBench({"CPU": 1.0}, {**LADDER, "stopped_timeout_s": 10.0})
    bench.ready()
    (task,) = bench.assign()
    call = Limited(bench)
    assert call.goes_on(10.0, state="T") == []
    steps = call.goes_on(5.0, answers=False)
    assert steps[-1] == events.Signal(1, "KILL")
    bench.die(1, started=1)
    (done,) = bench.done()
    failure = done.values[0].failure
    assert failure is not None
    assert (done.id, failure.error, done.died) == (task, "TaskHung", True)
    assert (failure.details["limit"], failure.details["limit_s"]) == ("stopped_timeout_s", 10.0)
    assert str(failure.details["verdict"]).startswith("stopped: stopped or traced for ")


def test_who_is_stopped_is_let_be_for_ever_if_no_setting_says_otherwise() -> None:
    bench = NodeBench({"CPU": 1.0}, LADDER)
    bench.ready()
    bench.assign()
    assert Limited(bench).goes_on(600.0, state="T") == []


# ------------------------------------------------------------------------------ who cannot be ended


def not_reaped(cpus: float = 1.0) -> Limited:
    """Return a call whose process is still there reap_timeout_s after it was killed."""
    call = Limited(NodeBench({"CPU": cpus}, LADDER))
    call.bench.prepare(2, limits=Limits(timeout_s=2.0), max_retries=2)
    call.bench.ready(1)
    (call.task,) = call.bench.assign(kind=2)
    call.began_s = call.bench.now_s
    call.goes_on(4.0)
    assert not call.bench.done()
    return call


def test_a_killed_worker_that_does_not_end_is_told_of_and_replaced() -> None:
    call = not_reaped()
    (waiting,) = call.bench.assign()
    call.goes_on(3.0)
    done = [
        row for c in call.commands if type(c) is events.Send and type(c.message) is Done
        for row in c.message.rows
    ]  # fmt: skip
    (row,) = done
    failure = row.values[0].failure
    assert failure is not None
    assert (row.id, failure.error) == (call.task, "TaskTimedOut")
    assert str(failure.details["actions"]).endswith(
        "SIGKILL, no effect in 3 s · its process is given up"
    )
    told = [row.name for c in call.commands if type(c) is events.Send
            and type(c.message) is Output for row in c.message.rows]  # fmt: skip
    assert call.bench.core.counters["workers_unkillable"] == 1
    assert any("has not ended 3 s after it was killed" in line for _, line in call.bench.core.story)
    assert told == ["workers"]
    call.bench.ready()
    assert call.bench.ran() == {2: [waiting]}
    # It ends at last, and nobody hears of that.
    call.bench.feed(events.WorkerExited(1, -9, "SIGKILL", ""))
    assert not call.bench.done()
    call.bench.finish(2)
    assert at_rest(call.bench) == {}


def test_with_too_many_that_cannot_be_ended_a_node_takes_no_more_work() -> None:
    bench = NodeBench({"CPU": 1.0}, LADDER)
    bench.prepare(2, limits=Limits(timeout_s=2.0), max_retries=2)
    for number in range(1, 4):
        bench.assign(kind=2)
        bench.ready(number)
        call = Limited(bench)
        call.began_s = bench.now_s
        call.worker = number
        assert not bench.core._drain.active
        call.goes_on(8.0)
    assert bench.core.counters["workers_unkillable"] == 3
    assert bench.core._drain.active


# ------------------------------------------------------------------------------ where memory is low


def low(bench: NodeBench, free: int, used: dict[int, int], times: int = 2) -> list[Any]:
    """Let the machine have so little left, and workers use so much; return what follows."""
    commands: list[Any] = []
    for _ in range(times):
        bench.now_s += 1.0
        commands += bench.feed(events.Measured(0.0, 0, -1.0, free * MIB, 1000 * MIB))
        looks = [c for c in bench.commands if type(c) is events.LookAt and (1, 1) in c.rows]
        if looks:
            rows = [
                events.Evidence(n, 1, 1, RUNNING_CODE, 9.0, 0, "R", 1.0, 5, memory_bytes=m * MIB)
                for n, m in used.items()
            ]
            commands += bench.feed(events.Seen(rows))
    return commands


@pytest.fixture
def pair() -> NodeBench:
    bench = NodeBench({"CPU": 2.0}, LADDER)
    bench.ready()
    bench.assign(2)
    return bench


def reads(commands: list[Any]) -> list[int]:
    return [number for c in commands if type(c) is events.ReadPage for number in c.workers]


def test_with_little_memory_left_who_uses_the_most_is_ended(pair: NodeBench) -> None:
    assert reads(low(pair, 20, {1: 300, 2: 500})) == [2]
    pair.feed(events.PacketsTaken(2, []), events.PageRead([(2, 1, True)]))
    assert pair.of(events.Dump) == [events.Dump([2])]
    pair.feed(events.Dumped(2, STACKS))
    assert pair.of(events.Interrupt) == [events.Interrupt(2, 1, "memory")]
    commands = low(pair, 20, {}, times=1)
    assert events.Signal(2, "KILL") in commands, "it is asked no second time"
    pair.die(2, started=1)
    (done,) = pair.done()
    error = error_of(done.values[0])
    assert type(error).__name__ == "WorkerOutOfMemory"
    assert str(error).startswith(
        "kind1 used 500 MiB, the most of all, when its node had 20 MiB of 1000 MiB left, on node"
    )
    assert (done.died, done.bystander) == (True, True)


@pytest.mark.parametrize(
    ("free", "used", "times"),
    [
        (20, {1: 50, 2: 90}, 5),  # nobody here uses much: the pressure is others'
        (40, {1: 300, 2: 500}, 5),  # there is enough
        (20, {1: 300, 2: 500}, 1),  # seen only once
    ],
)
def test_nobody_is_ended_for_memory_on_one_bit_of_evidence(
    pair: NodeBench, free: int, used: dict[int, int], times: int
) -> None:
    assert reads(low(pair, free, used, times)) == []


def told_late(stage: NodeBench, limited: Limited, until_s: float) -> bool:
    """Have time pass; return whether the deadline was late after a look at the call."""
    late, core, feed = [], stage.core, stage.feed

    def look_after_the_turn(*happened: Any) -> list[events.Command]:
        if not happened or type(happened[0]) is not events.Seen:
            return feed(*happened)
        # The loop looks while it carries out a turn's commands: no turn follows.
        told = core.handle(happened[0], stage.now_s)
        late.append(core._state.due_s > max(core._first_due_s(), stage.now_s))
        return told + feed(*happened[1:])

    stage.feed = look_after_the_turn  # type: ignore[method-assign]
    limited.goes_on(until_s)
    return any(late)


def test_the_deadline_is_right_after_a_look_too_also_at_what_was_to_be_interrupted() -> None:
    plain = Limited(timeout_s=2.0)
    assert not told_late(plain.bench, plain, 6.0)
    stage, limited, call = acting(timeout_s=2.0)
    limited.goes_on(1.0)
    asked = stage.hear(Stop([(call, 1, StopMode.SOFT)]))
    stage.feed(*(answer for command in asked for answer in limited.answers(command)))
    assert not told_late(stage, limited, 6.0)
