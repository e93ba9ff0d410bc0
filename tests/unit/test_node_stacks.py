"""A node asked for stacks: whose, and what it answers when a worker cannot."""

from drumbeat.node import events
from drumbeat.node.stacks import ANSWER_S
from drumbeat.protocol.running import STACKS_BYTES_MAX, Stack, StackRow, Stacks
from support.node_bench import NodeBench


def ready_bench() -> NodeBench:
    return NodeBench.ready_with_two()


def pid_of(bench: NodeBench, number: int) -> int:
    return bench.core._state.workers[number].pid


def test_a_tasks_worker_is_asked_and_what_it_wrote_goes_back() -> None:
    bench = ready_bench()
    (task,) = bench.assign()
    bench.hear(Stack(4, [task], []))
    (dump,) = bench.of(events.Dump)
    (number,) = dump.workers
    assert not bench.sent(Stacks)
    bench.feed(events.Dumped(number, "Thread 1"))
    row = StackRow(pid_of(bench, number), task, "kind1", "Thread 1")
    assert bench.sent(Stacks) == [Stacks(4, [row], 0)]


def test_all_means_every_worker_that_runs_something_and_a_number_any_worker() -> None:
    bench = ready_bench()
    bench.assign()
    bench.hear(Stack(4, [], [], True))
    (dump,) = bench.of(events.Dump)
    assert len(dump.workers) == 1
    bench.hear(Stack(5, [], [pid_of(bench, 1)]))
    assert bench.of(events.Dump) == [events.Dump([1])]


def test_what_is_not_here_or_has_not_started_is_answered_with_the_reason() -> None:
    bench = ready_bench()
    *_, waiting = bench.assign(3)
    bench.hear(Stack(4, [waiting, b"x" * 14], []))
    (said,) = bench.sent(Stacks)
    assert [row.why for row in said.rows] == ["it has not started", "it is not here"]


def test_a_worker_that_never_tells_is_not_waited_for() -> None:
    bench = ready_bench()
    (task,) = bench.assign()
    bench.hear(Stack(4, [task], []))
    bench.after(ANSWER_S + 0.01)
    (said,) = bench.sent(Stacks)
    assert said.rows[0].why == f"nothing came within {ANSWER_S:g} s"


def test_an_answer_holds_so_much_and_counts_the_rest() -> None:
    bench = ready_bench()
    bench.assign(2)
    bench.hear(Stack(4, [], [], True))
    text = "x" * (STACKS_BYTES_MAX - 100)
    bench.feed(events.Dumped(1, text), events.Dumped(2, text))
    (said,) = bench.sent(Stacks)
    assert (len(said.rows), said.left_off) == (1, 1)
