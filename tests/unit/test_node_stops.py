"""What is called back: overdue rows, rows that others could run, cancelled attempts."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import (
    Finished,
    FinishedRow,
    Returned,
)
from drumbeat.node.page import RUNNING_CODE
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Beat,
    Outcome,
    Release,
    Stop,
    StopMode,
    TakeBack,
    TakenBack,
    TaskRow,
)
from support.node_bench import NODE, OTHER, NodeBench, at_rest, nest, value


@pytest.fixture
def bench():
    return NodeBench.ready_with_two()


# ------------------------------------------------------------------------------- overdue packets


def overdue(bench):
    """A worker whose first row takes far longer than expected; return its tasks."""
    tasks = bench.assign(4, expected_s=1e-6)
    bench.rows.clear()
    bench.after(0.0055)
    return tasks


def with_rows_in_hand(count):
    """Return a node whose only worker is overdue and has read all its rows."""
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    bench.assign(count, expected_s=1e-6)
    bench.after(0.0055)
    bench.feed(events.PacketsTaken(1, []))
    return bench


def test_rows_behind_one_that_takes_too_long_are_called_back():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    overdue(bench)
    assert [type(command) for command in bench.commands] == [
        events.TakePackets,
        events.Revoke,
        events.ReadPage,
    ]
    assert bench.of(events.Revoke) == [events.Revoke(1, 2)]
    assert bench.of(events.ReadPage) == [events.ReadPage([1], 0.002)]


def test_what_had_not_started_runs_elsewhere_and_the_page_is_cleared_when_all_is_returned():
    bench = NodeBench({"CPU": 2.0})
    bench.ready(1)
    tasks = bench.assign(4, expected_s=1e-6)
    bench.after(0.0055)
    bench.feed(events.PacketsTaken(1, []))
    bench.ready(2)
    bench.feed(events.PageRead([(1, 2, True)]))
    assert bench.ran() == {2: tasks[2:]}
    bench.say(1, bench.finished(1, 1, 2))
    assert not bench.of(events.Revoke), "it may still hold the rows that were revoked"
    bench.say(1, Returned([3, 4]))
    assert bench.of(events.Revoke) == [events.Revoke(1, 0)]
    bench.finish(2)
    bench.assign(2)
    assert sorted(bench.ran()) == [1, 2]


def test_rows_that_lay_unread_are_taken_at_once():
    bench = NodeBench({"CPU": 2.0})
    bench.ready(1)
    tasks = bench.assign(4, expected_s=1e-6)
    bench.after(0.0055)
    bench.ready(2)
    bench.feed(events.PacketsTaken(1, [3, 4]))
    assert bench.ran() == {2: tasks[2:]}


def test_a_worker_that_ran_all_before_it_saw_the_page_is_used_again():
    bench = with_rows_in_hand(3)
    bench.feed(events.PageRead([(1, 3, False)]))
    bench.finish(1)
    assert bench.of(events.Revoke) == [events.Revoke(1, 0)]
    assert len(bench.done()) == 3
    bench.assign(1)
    assert bench.ran()


def test_a_worker_that_only_waits_for_its_page_to_be_read_gets_the_next_row():
    bench = with_rows_in_hand(2)
    bench.finish(1)
    (task,) = bench.assign(1)
    assert not bench.started(), "a new worker takes longer than the page"
    assert not bench.ran()
    bench.feed(events.PageRead([(1, 2, False)]))
    assert bench.ran() == {1: [task]}


def test_a_worker_that_does_not_return_its_rows_is_not_waited_for():
    bench = with_rows_in_hand(2)
    bench.feed(events.PageRead([(1, 1, True)]))
    bench.say(1, bench.finished(1, 1))
    assert bench.started()


def test_what_lies_behind_a_task_of_milliseconds_is_called_back_when_that_takes_longer():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    bench.assign(2, expected_s=0.02)
    bench.after(0.044)
    assert not bench.of(events.TakePackets)
    bench.after(0.002)
    assert bench.of(events.Revoke) == [events.Revoke(1, 2)]


def test_what_was_called_back_is_not_put_behind_the_same_task_again():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=0.02)
    assert bench.ran() == {1: tasks[:2]}
    bench.after(0.046)
    bench.feed(events.PacketsTaken(1, [2]), events.PageRead([(1, 1, True)]))
    assert not bench.ran()
    bench.finish(1)
    assert bench.ran() == {1: tasks[1:]}


def test_a_single_row_is_never_called_back(bench):
    bench.assign(1)
    bench.after(60.0)
    assert not bench.of(events.TakePackets)


def test_a_stream_of_short_tasks_is_never_overdue(bench):
    bench.assign(4000, expected_s=1e-6)
    while bench.rows.get(1) or bench.rows.get(2):
        for worker in (1, 2):
            if bench.rows.get(worker):
                bench.finish(worker, *list(bench.rows[worker])[:128])
            assert not bench.of(events.TakePackets)
        bench.after(0.0005)
    assert at_rest(bench) == {}


# ------------------------------------------------------------------------------------ take back


def test_the_last_in_the_queue_are_given_back_first(bench):
    tasks = bench.assign(5)
    bench.hear(TakeBack(2))
    assert bench.sent(TakenBack) == [TakenBack([(tasks[4], 1), (tasks[3], 1)])]
    bench.finish(1)
    assert bench.ran() == {1: [tasks[2]]}


def test_unread_packets_are_given_back_when_the_queue_is_not_enough():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(4, expected_s=1e-6)
    bench.hear(TakeBack(3))
    assert bench.of(events.TakePackets) == [events.TakePackets(1)]
    assert not bench.sent(TakenBack)
    bench.feed(events.PacketsTaken(1, [2, 3, 4]))
    assert bench.sent(TakenBack) == [TakenBack([(tasks[3], 1), (tasks[2], 1), (tasks[1], 1)])]
    assert bench.core.at_rest()["attempts"] == 1


def test_a_take_back_is_always_answered(bench):
    bench.hear(TakeBack(5))
    assert bench.sent(TakenBack) == [TakenBack([])]
    bench.assign(2, expected_s=1e-6)
    bench.hear(TakeBack(5))
    assert bench.sent(TakenBack) == [TakenBack([])], "what may run stays"


def test_a_take_back_is_answered_though_the_worker_dies_meanwhile():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    bench.assign(3, expected_s=1e-6)
    bench.hear(TakeBack(2))
    bench.die(1, started=1)
    assert len(bench.sent(TakenBack)[0].rows) == 2


def test_refs_of_what_is_given_back_are_released(bench):
    inside = IdFactory(OTHER)()
    bench.assign(2)
    bench.assign(1, contained=(inside,))
    bench.hear(TakeBack(1))
    assert bench.sent(Release) == [Release([(inside, 1)])]


# -------------------------------------------------------------------------------------- stopping


def test_a_queued_attempt_is_dropped_at_once(bench):
    tasks = bench.assign(3)
    bench.hear(Stop([(tasks[2], 1, StopMode.SOFT)]))
    (row,) = bench.done()
    assert (row.id, row.duration_s) == (tasks[2], -1.0)
    assert row.values[0].failure.error == "TaskCancelled"
    bench.finish(1)
    assert not bench.ran()


def test_only_what_has_not_started_is_dropped_if_that_is_asked(bench):
    tasks = bench.assign(3)
    bench.sent(Beat)
    bench.hear(Stop([(task, 1, StopMode.UNSTARTED) for task in tasks]))
    (row,) = bench.done()
    assert (row.id, row.duration_s) == (tasks[2], -1.0)
    (beat,) = bench.sent(Beat)
    assert {row.id for row in beat.running} == set(tasks[:2]), "who asked is told at once"
    assert not bench.of(events.Revoke)
    assert not bench.of(events.Signal)


def test_what_its_worker_has_not_started_is_called_back_and_dropped_and_the_rest_goes_on():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    bench.hear(Stop([(task, 1, StopMode.UNSTARTED) for task in tasks[:2]]))
    assert bench.of(events.Revoke) == [events.Revoke(1, 2)]
    bench.feed(events.PacketsTaken(1, []), events.PageRead([(1, 1, True)]))
    (row,) = bench.done()
    assert (row.id, row.duration_s) == (tasks[1], -1.0)
    bench.say(1, bench.finished(1, 1))
    bench.say(1, Returned([2, 3]))
    assert bench.ran() == {1: [tasks[2]]}


def test_a_stop_for_what_is_gone_is_ignored(bench):
    (task,) = bench.assign()
    bench.hear(Stop([(task, 2, StopMode.SOFT), (b"n" * 14, 1, StopMode.FORCE)]))
    assert not bench.done()
    assert bench.core.counters["stale_dropped"] == 2


def stop_running(bench, force=False):
    """Stop the only task, which runs in a worker; return (task, worker)."""
    (task,) = bench.assign()
    worker = next(iter(bench.ran()))
    bench.hear(Stop([(task, 1, int(force))]))
    return task, worker


def test_a_running_attempt_is_interrupted_then_terminated_then_killed(bench):
    task, worker = stop_running(bench)
    assert bench.of(events.ReadPage)
    bench.feed(events.PacketsTaken(worker, []), events.PageRead([(worker, 1, True)]))
    assert bench.of(events.Interrupt) == [events.Interrupt(worker, 1)]
    bench.after(4.9)
    assert not bench.of(events.Signal)
    bench.after(0.2)
    assert bench.of(events.Dump) == [events.Dump([worker])]
    assert not bench.of(events.Signal), "where it is comes before its end"
    bench.feed(events.Dumped(worker, STACKS, at="14:04:12"))
    assert bench.of(events.Signal) == [events.Signal(worker, "TERM")]
    bench.after(2.0)
    assert bench.of(events.Signal) == [events.Signal(worker, "KILL")]
    bench.die(worker, 1)
    (row,) = bench.done()
    assert row.id == task
    failure = row.values[0].failure
    assert failure.error == "TaskCancelled"
    assert failure.details["stack"] == "imgtool.py:88 _native_blur < pipeline.py:31 resize"
    assert failure.details["actions"] == (
        "stack 14:04:12 · cancel, no effect in 5.1 s · SIGTERM, no effect in 2 s · SIGKILL"
    )
    assert not row.died
    assert at_rest(bench) == {}


def test_a_value_that_comes_first_wins(bench):
    task, worker = stop_running(bench)
    bench.feed(events.PageRead([(worker, 1, True)]))
    bench.say(worker, Finished([FinishedRow(1, (value(task),), 0.1, True)]))
    (row,) = bench.done()
    assert row.values[0].outcome == Outcome.VALUE
    assert not row.retry, "what is cancelled is not tried again"
    bench.after(20.0)
    assert not bench.of(events.Signal)


def test_force_starts_with_the_kill(bench):
    _task, worker = stop_running(bench, force=True)
    assert bench.of(events.Signal) == [events.Signal(worker, "KILL")]
    bench.die(worker, 1)
    assert bench.done()[0].values[0].failure.error == "TaskCancelled"


def test_force_after_a_gentle_stop_kills(bench):
    task, worker = stop_running(bench)
    bench.hear(Stop([(task, 1, StopMode.FORCE)]))
    assert bench.of(events.Signal) == [events.Signal(worker, "KILL")]


def test_an_attempt_that_had_not_started_is_cancelled_without_a_signal():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    bench.hear(Stop([(tasks[1], 1, StopMode.FORCE)]))
    assert not bench.of(events.Signal), "the first one runs there"
    bench.feed(events.PacketsTaken(1, []), events.PageRead([(1, 1, True)]))
    (row,) = bench.done()
    assert (row.id, row.duration_s) == (tasks[1], -1.0)
    bench.say(1, bench.finished(1, 1))
    bench.say(1, Returned([2, 3]))
    assert bench.ran() == {1: [tasks[2]]}


def test_an_attempt_in_an_unread_packet_is_cancelled_when_it_is_taken():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(2, expected_s=1e-6)
    bench.hear(Stop([(tasks[1], 1, StopMode.SOFT)]))
    bench.feed(events.PacketsTaken(1, [1, 2]))
    assert [row.id for row in bench.done()] == [tasks[1]]


def test_rows_behind_a_forced_kill_run_elsewhere_uncharged():
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    bench.hear(Stop([(tasks[0], 1, StopMode.FORCE)]))
    bench.feed(events.PacketsTaken(1, []), events.PageRead([(1, 1, True)]))
    assert bench.of(events.Signal) == [events.Signal(1, "KILL")]
    bench.die(1, 1)
    assert [row.id for row in bench.done()] == tasks[:1]
    bench.ready()
    assert bench.ran() == {2: tasks[1:]}


def test_a_stopped_attempt_that_is_interrupted_in_get_lends_no_more(bench):
    bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child)
    assert bench.core.at_rest()["lenders"] == 1
    bench.finish(worker)
    assert bench.core.at_rest()["lenders"] == 0
    bench.assign(2)
    assert len(bench.ran()) == 2


# ------------------------------------------------------------------------------------ who hangs


STACKS = (
    "Thread 0x00007f (most recent call first):\n"
    '  File "/site/drumbeat/node/worker.py", line 457 in _serve\n'
    "\n"
    "Current thread 0x00007e (most recent call first):\n"
    '  File "/home/u/imgtool.py", line 88 in _native_blur\n'
    '  File "/home/u/pipeline.py", line 31 in resize\n'
    '  File "/site/drumbeat/node/worker.py", line 307 in _attempt\n'
    '  File "/site/drumbeat/node/worker.py", line 97 in main\n'
    '  File "<string>", line 1 in <module>\n'
)


def in_a_deadlock(bench, seconds):
    """Let time pass while worker 1 is seen with a stale pulse, every thread at a lock."""
    end_s, commands = bench.now_s + seconds, []
    while bench.now_s < end_s:
        new = bench.after(0.05)
        while new:
            commands += new
            answers = [answer_to(command) for command in new]
            answers = [answer for answer in answers if answer is not None]
            new = bench.feed(*answers) if answers else []
    return commands


def answer_to(command):
    if type(command) is events.ReadPage:
        return events.PageRead([(number, 1, True) for number in command.workers])
    if type(command) is events.Dump:
        return events.Dumped(command.workers[0], STACKS, at="14:04:12")
    if type(command) is not events.LookAt:
        return None
    rows = []
    for number, depth in command.rows:
        state = "" if depth == events.PAGE else "S"
        threads = events.FUTEX if depth == events.THREADS else ""
        rows.append(events.Evidence(number, 7, 1, RUNNING_CODE, 9.0, 0, state, 1.0, 5, threads))
    return events.Seen(rows)


def test_an_attempt_that_hangs_goes_down_the_ladder_and_ends_as_that():
    bench = NodeBench(settings={"hang_timeout_s": 5.0, "cancel_grace_s": 1.0, "term_grace_s": 1.0})
    bench.ready(1)
    (task,) = bench.assign()
    commands = in_a_deadlock(bench, 4.0)
    assert not [c for c in commands if type(c) in (events.Interrupt, events.Signal)]
    commands = in_a_deadlock(bench, 6.0)
    steps = [c for c in commands if type(c) in (events.Dump, events.Interrupt, events.Signal)]
    assert steps == [
        events.Dump([1]),
        events.Interrupt(1, 1, "hung"),
        events.Signal(1, "TERM"),
        events.Signal(1, "KILL"),
    ]
    bench.feed(events.WorkerExited(1, -9, "SIGKILL", ""))
    (done,) = bench.done()
    assert (done.id, done.died, done.bystander, done.retry) == (task, True, True, False)
    failure = done.values[0].failure
    assert failure.error == "TaskHung"
    assert failure.details["verdict"].startswith("deadlock: GIL not released")
    assert failure.details["stack"] == "imgtool.py:88 _native_blur < pipeline.py:31 resize"
    assert (failure.details["limit"], failure.details["limit_s"]) == ("hang_timeout_s", 5.0)


def test_a_change_of_verdict_is_told_at_once():
    bench = NodeBench()
    bench.ready(1)
    bench.assign()
    told = [
        row.verdict
        for c in in_a_deadlock(bench, 2.0)
        if type(c) is events.Send and type(c.message) is Beat
        for row in c.message.running
    ]
    assert told[-1] == "deadlock"
    assert len(told) <= 4


def test_a_call_of_many_is_named_by_the_next_beat_when_somebody_waits_for_that():
    bench = NodeBench()
    bench.ready(1)
    (task,) = bench.assign()
    bench.after(5.0)
    bench.hear(Stop([(task, 1, StopMode.UNSTARTED)]))
    (beat,) = bench.sent(Beat)
    assert [row.id for row in beat.running] == [task]


@pytest.mark.parametrize("mode", [StopMode.SOFT, StopMode.FORCE])
def test_who_is_stuck_and_cannot_send_earlier_results_is_ended_all_the_same(mode):
    bench = NodeBench({"CPU": 1.0}, {"cancel_grace_s": 0.2, "term_grace_s": 0.2})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    bench.hear(Stop([(tasks[1], 1, mode)]))
    bench.feed(events.PacketsTaken(1, []), events.PageRead([(1, 2, True)]))
    assert not [c for c in bench.commands if type(c) in (events.Interrupt, events.Signal)]
    end_s, commands = bench.now_s + 3.0, []
    while bench.now_s < end_s:
        new = bench.after(0.05)
        commands += new
        reads = [events.PageRead([(1, 2, True)]) for c in new if type(c) is events.ReadPage]
        if reads:
            commands += bench.feed(*reads)
    assert events.Signal(1, "KILL") in commands
    bench.feed(events.WorkerExited(1, -9, "SIGKILL", ""))
    rows = {row.id: row for row in bench.done()}
    assert rows[tasks[1]].values[0].failure.error == "TaskCancelled"
    assert (rows[tasks[0]].died, rows[tasks[0]].bystander) == (True, True)
    assert tasks[2] not in rows, "it had not started: it runs elsewhere"
