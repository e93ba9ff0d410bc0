"""A node that is drained: it starts nothing more, ends what it has, and is missed by nobody."""

from typing import Any

from drumbeat.node import events
from drumbeat.node.packets import Exit, Finished, FinishedRow, Returned, Submitted
from drumbeat.protocol.drain import Draining, DrainNode, Emptied, Farewell
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import (
    Assign,
    Failure,
    Join,
    Outcome,
    Results,
    Shared,
    Stop,
    StopMode,
    TakenBack,
    TaskRow,
    Unshared,
    ValueRow,
)
from drumbeat.protocol.recovery import HandedOver
from support.node_bench import NODE, NodeBench, nest, restart, value


def busy(**settings: Any) -> NodeBench:
    """Return a node whose one worker runs its first task."""
    bench = NodeBench({"CPU": 1.0}, settings)
    bench.ready()
    bench.assign()
    return bench


def stop(bench: NodeBench, times: int = 1) -> None:
    bench.feed(events.StopAsked(times))


def end(bench: NodeBench, row: ValueRow, worker: int = 1) -> None:
    """Let a worker end what it runs with this."""
    ((seq, _),) = bench.rows.pop(worker).items()
    bench.say(worker, Finished([FinishedRow(seq, (row,), 0.5)], []))


def leave_worker(bench: NodeBench, worker: int = 1) -> None:
    bench.feed(events.WorkerExited(worker, 0, "", ""))


def hand_over(bench: NodeBench) -> None:
    numbers, bench.told_numbers = bench.told_numbers, []
    bench.hear(HandedOver(numbers))


def cancelled(bench: NodeBench) -> ValueRow:
    (row,) = bench.rows[1].values()
    failure = Failure("TaskCancelled", "it was cancelled while it ran")
    return ValueRow(row.id, Outcome.FAILURE, failure=failure)


def interrupted(bench: NodeBench) -> None:
    """Let the page show that the task runs, as often as it is asked, so that it is interrupted."""
    worker = bench.core._state.workers[1]
    while worker.taking or worker.reading:
        bench.feed(events.PacketsTaken(1, []), events.PageRead([(1, 1, True)]))


# ------------------------------------------------------------------------------- how it begins


def test_it_says_so_and_tells_whoever_runs_it() -> None:
    bench = busy()
    stop(bench)
    assert bench.sent(Draining) == [Draining(cancel=False)]
    assert bench.of(events.Drains) == [events.Drains()]
    stop(bench)
    assert not bench.sent(Draining)


def test_the_scheduler_can_have_it_drained_as_well() -> None:
    bench = busy()
    bench.hear(DrainNode(cancel=False))
    assert bench.sent(Draining) == [Draining(cancel=False)]


def test_what_has_not_started_goes_back_and_what_still_comes_too() -> None:
    bench = busy()
    queued = bench.assign(2)
    stop(bench)
    assert bench.sent(TakenBack) == [TakenBack([(task, 1) for task in queued])]
    (late,) = bench.assign()
    assert bench.sent(TakenBack) == [TakenBack([(late, 1)])]
    assert not bench.ran()


def test_what_waits_for_a_large_argument_goes_back_and_the_argument_does_no_harm() -> None:
    bench = busy()
    row = bench.row(args=None, size=200_000)
    bench.hear(Assign([row]))
    stop(bench)
    assert bench.sent(TakenBack) == [TakenBack([(row.id, 1)])]
    bench.feed(events.BlobReceived(row.id + b"a", b"x" * 200_000))
    assert not bench.ran()


def test_what_lies_unstarted_in_a_workers_hands_is_called_back_from_the_first_on() -> None:
    bench = NodeBench({"CPU": 1.0})
    bench.ready()
    tasks = bench.assign(3, expected_s=1e-6)
    stop(bench)
    assert bench.of(events.Revoke) == [events.Revoke(1, 1)]
    bench.feed(events.PacketsTaken(1, [3]))
    bench.feed(events.PageRead([(1, 1, True)]))
    back = [row for message in bench.sent(TakenBack) for row in message.rows]
    assert back == [(tasks[1], 1)]
    bench.say(1, Returned([2]))
    bench.finish(1, 1)
    assert [row.id for row in bench.done()] == [tasks[0]]
    assert not bench.ran()


def test_workers_without_work_end() -> None:
    bench = NodeBench.ready_with_two()
    bench.assign()
    (runs,) = bench.ran()
    stop(bench)
    assert [number for number in (1, 2) if bench.told(number, Exit)] == [3 - runs]
    bench.finish(runs)
    bench.feed()
    assert bench.core._processes.exiting


def test_workers_that_are_starting_are_ended() -> None:
    bench = NodeBench({"CPU": 1.0})
    stop(bench)
    assert [command.name for command in bench.of(events.Signal)] == ["KILL"]


# ------------------------------------------------------------------------------------ how it ends


def test_it_is_empty_when_its_results_are_handed_over_and_its_workers_are_gone() -> None:
    bench = busy()
    stop(bench)
    bench.finish(1)
    assert not bench.sent(Emptied)
    leave_worker(bench)
    assert not bench.sent(Emptied), "the submitter does not have the result yet"
    hand_over(bench)
    assert bench.sent(Emptied) == [Emptied(1)]
    assert not bench.of(events.Finish)
    bench.hear(Farewell(1))
    assert bench.of(events.Finish) == [events.Finish()]


def test_a_farewell_that_was_overtaken_by_new_work_counts_for_nothing() -> None:
    bench = busy()
    stop(bench)
    bench.finish(1)
    leave_worker(bench)
    hand_over(bench)
    bench.hear(Shared([IdFactory(NODE, 1)()]))
    bench.hear(Farewell(1))
    assert not bench.of(events.Finish)


def test_a_value_that_others_hold_is_waited_for() -> None:
    bench = busy()
    id_ = IdFactory(NODE, 1)()
    bench.say(1, Submitted(b"p" * 14, 1, [], [], [value(id_)]))
    bench.finish(1, held=[id_], contained=[id_])
    bench.hear(Shared([id_]))
    stop(bench)
    hand_over(bench)
    leave_worker(bench)
    assert not bench.sent(Emptied)
    bench.hear(Unshared([id_]))
    assert bench.sent(Emptied) == [Emptied(1)]


def test_a_call_whose_caller_has_ended_is_waited_for() -> None:
    bench = busy()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.finish(1)
    stop(bench)
    hand_over(bench)
    leave_worker(bench)
    assert not bench.sent(Emptied)
    bench.hear(Results([value(child)]))
    assert bench.sent(Emptied) == [Emptied(1)]


def test_a_task_that_waits_for_its_children_goes_on_when_they_have_run_elsewhere() -> None:
    bench = busy()
    child = IdFactory(NODE, 1)()
    nest(bench, 1, TaskRow(child, 1))
    bench.want(1, child)
    stop(bench)
    bench.hear(Results([value(child)]))
    assert bench.answers(1)[0].rows[0].payload == b"value"


def test_empty_it_waits_for_a_scheduler_that_is_away_since_its_next_life_would_miss_it() -> None:
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.feed(events.Disconnected())
    stop(bench)
    bench.after(0.9 * bench.settings.drain_timeout_s)
    assert not bench.of(events.Finish)
    told = restart(bench)
    (emptied,) = [one for one in told if isinstance(one, Emptied)]
    bench.hear(Farewell(emptied.number))
    assert events.Finish() in bench.commands


def test_empty_and_in_a_hurry_it_waits_for_no_scheduler_that_is_away() -> None:
    for hurry in (lambda bench: stop(bench, 2), lambda bench: bench.after(3600.1)):
        bench = NodeBench({"CPU": 1.0}, prepare=False)
        bench.feed(events.Disconnected())
        stop(bench)
        assert not bench.of(events.Finish)
        hurry(bench)
        assert events.Finish() in bench.commands


def test_a_scheduler_whose_connection_comes_back_is_told_as_ever() -> None:
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    bench.feed(events.Disconnected())
    stop(bench)
    bench.feed(events.Connected(1, True))
    bench.after(10.0)
    assert not bench.of(events.Finish)


def test_results_that_the_scheduler_has_not_are_kept_while_it_is_away() -> None:
    bench = NodeBench.ready_with_two()
    bench.assign()
    bench.feed(events.Disconnected())
    stop(bench)
    bench.finish(next(iter(bench.rows)))
    bench.after(10.0)
    assert not bench.of(events.Finish)


def test_it_does_not_wait_for_a_scheduler_that_never_was() -> None:
    bench = NodeBench({"CPU": 1.0}, prepare=False)
    never = NodeBench.__new__(NodeBench)
    core = type(bench.core)(bench.settings, NODE, "lab", "here", {"CPU": 1.0}, 7)
    never.core, never.now_s, never.rows = core, 100.0, {}
    stop(never)
    assert never.of(events.Finish) == [events.Finish()]


# --------------------------------------------------------------------------------- in a hurry


def test_asked_again_it_interrupts_what_runs_and_says_why() -> None:
    bench = busy()
    stop(bench)
    interrupted(bench)
    assert not bench.of(events.Interrupt)
    stop(bench, 2)
    assert bench.sent(Draining) == [Draining(cancel=True)]
    interrupted(bench)
    assert bench.of(events.Interrupt) == [events.Interrupt(1, 1, "drain")]


def test_after_drain_timeout_s_it_does_so_by_itself() -> None:
    bench = busy(drain_timeout_s=5.0)
    stop(bench)
    bench.after(4.9)
    assert not bench.sent(Draining)
    bench.after(0.2)
    assert bench.sent(Draining) == [Draining(cancel=True)]


def test_what_is_interrupted_is_as_if_the_node_were_lost() -> None:
    bench = busy()
    stop(bench, 2)
    interrupted(bench)
    end(bench, cancelled(bench))
    (row,) = bench.done()
    failure = row.values[0].failure
    assert failure is not None
    assert (failure.error, row.died, row.bystander) == ("NodeLost", True, True)
    assert "was drained (attempt 1 of " in failure.text


def test_a_value_that_still_comes_counts() -> None:
    bench = busy()
    stop(bench, 2)
    interrupted(bench)
    bench.finish(1)
    (row,) = bench.done()
    assert (row.values[0].outcome, row.died) == (Outcome.VALUE, False)


def test_an_error_after_the_interruption_is_tried_again_and_one_before_it_is_final() -> None:
    for late in (True, False):
        bench = busy()
        stop(bench, 2)
        if late:
            interrupted(bench)
        (row,) = bench.rows[1].values()
        end(bench, ValueRow(row.id, Outcome.ERROR, b"report"))
        assert bench.done()[0].died is late


def test_what_does_not_stop_is_killed_and_is_lost_with_the_node() -> None:
    bench = busy(cancel_grace_s=1.0, term_grace_s=1.0)
    stop(bench, 2)
    interrupted(bench)
    bench.after(2.5)
    assert [command.name for command in bench.of(events.Signal)] == ["TERM", "KILL"]
    bench.die(1, 1)
    failure = bench.done()[0].values[0].failure
    assert failure is not None
    assert failure.error == "NodeLost"


def test_what_was_cancelled_before_or_is_meanwhile_is_cancelled() -> None:
    for first in (True, False):
        bench = busy()
        (row,) = bench.rows[1].values()
        if first:
            bench.hear(Stop([(row.id, 1, StopMode.SOFT)]))
        stop(bench, 2)
        if not first:
            bench.hear(Stop([(row.id, 1, StopMode.SOFT)]))
        end(bench, cancelled(bench))
        failure = bench.done()[0].values[0].failure
        assert failure is not None
        assert failure.error == "TaskCancelled"


def test_in_a_hurry_neither_calls_nor_values_are_waited_for() -> None:
    bench = busy()
    nest(bench, 1, TaskRow(IdFactory(NODE, 1)(), 1))
    stop(bench, 2)
    bench.finish(1)
    leave_worker(bench)
    hand_over(bench)
    assert bench.sent(Emptied) == [Emptied(1)]


# --------------------------------------------------------------------- lives of the scheduler


def test_the_schedulers_next_life_is_told_before_all_else() -> None:
    bench = busy()
    stop(bench)
    told = restart(bench)
    assert isinstance(told[0], Join)
    assert told[0].draining
    stop(bench, 2)
    told = restart(bench, 3)
    assert isinstance(told[0], Join)
    assert told[1] == Draining(cancel=True)


def test_the_schedulers_next_life_is_told_again_that_nothing_is_left() -> None:
    bench = busy()
    stop(bench)
    bench.finish(1)
    leave_worker(bench)
    hand_over(bench)
    assert Emptied(2) in restart(bench)


def test_one_that_was_given_up_is_still_drained() -> None:
    bench = busy()
    stop(bench)
    bench.feed(events.Disconnected())
    bench.feed(events.Connected(1, False))
    (join,) = bench.sent(Join)
    assert join.draining
