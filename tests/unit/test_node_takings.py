"""What tasks yield that workers of a node have submitted: kept for them, told of, let go of."""

import pytest
from drumbeat.node.packets import ItemsRead, NestedKind, Refs, Submitted
from drumbeat.protocol.ids import IdFactory, TaskId, item_of
from drumbeat.protocol.messages import (
    Cancel,
    Failure,
    HowFar,
    ItemsTaken,
    Options,
    Outcome,
    Results,
    Submit,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.yielded import END
from support.node_bench import NODE, NodeBench, at_rest, restart, value

WORKER = 1


@pytest.fixture
def bench() -> NodeBench:
    made = NodeBench({"CPU": 1.0})
    made.ready()
    made.assign()
    made.ready()
    return made


@pytest.fixture
def task(bench: NodeBench) -> TaskId:
    """What the worker has submitted."""
    child = IdFactory(NODE, WORKER)()
    options = Options(num_returns=0, stream_buffer_max=4)
    kind = NestedKind(1, b"f" * 16, "count", options, b"code")
    bench.say(WORKER, Submitted(bench.rows[WORKER][1].id, 1, [kind], [TaskRow(child, 1)]))
    return TaskId(child)


def come(bench: NodeBench, task: TaskId, *indexes: int, **more: object) -> None:
    bench.hear(Results([value(item_of(task, index), **more) for index in indexes]))


def read(bench: NodeBench, task: TaskId, count: int, over: bool = False) -> None:
    bench.say(WORKER, ItemsRead(task, count, over))


def end(bench: NodeBench, task: TaskId, error: str = "") -> None:
    if error:
        row = ValueRow(task, Outcome.FAILURE, failure=Failure(error, "it was so"))
    else:
        row = ValueRow(task, Outcome.VALUE)
    bench.hear(Results([row]))


def taken(bench: NodeBench) -> list[tuple[bytes, int, int]]:
    return [row for message in bench.sent(ItemsTaken) for row in message.rows]


def answered(bench: NodeBench) -> list[ValueRow]:
    return [row for answer in bench.answers(WORKER) for row in answer.rows]


def test_an_item_is_had_by_whoever_waits_for_it(bench: NodeBench, task: TaskId) -> None:
    bench.want(WORKER, item_of(task, 0))
    come(bench, task, 0)
    assert [row.id for row in answered(bench)] == [item_of(task, 0)]
    assert taken(bench) == [(task, 1, 0)]


def test_the_end_stands_behind_the_last_item(bench: NodeBench, task: TaskId) -> None:
    come(bench, task, 0)
    bench.want(WORKER, item_of(task, 1))
    end(bench, task)
    assert [(row.id, row.failure) for row in answered(bench)] == [(item_of(task, 1), END)]
    read(bench, task, 1, over=True)
    bench.say(WORKER, Refs([], [item_of(task, 0)]))
    assert not bench.core._state.objects.entries
    assert not {"takings", "calls", "objects"} & set(at_rest(bench))


def test_a_failure_stands_there_as_well(bench: NodeBench, task: TaskId) -> None:
    bench.want(WORKER, item_of(task, 0))
    end(bench, task, "WorkerDied")
    assert [row.failure.error for row in answered(bench) if row.failure] == ["WorkerDied"]
    read(bench, task, 1, over=True)
    bench.say(WORKER, Refs([], [item_of(task, 0)]))
    assert not bench.core._state.objects.entries


def test_what_was_read_is_the_workers_and_the_rest_is_held_for_it(
    bench: NodeBench, task: TaskId
) -> None:
    come(bench, task, 0, 1)
    read(bench, task, 1)
    assert taken(bench) == [(task, 2, 1)]
    bench.say(WORKER, Refs([], [item_of(task, 0)]))
    assert set(bench.core._state.objects.entries) == {item_of(task, 1), item_of(task, 2)}


def test_an_item_that_comes_again_is_not_taken_twice(bench: NodeBench, task: TaskId) -> None:
    come(bench, task, 0)
    read(bench, task, 1)
    bench.say(WORKER, Refs([], [item_of(task, 0)]))
    come(bench, task, 0)
    assert item_of(task, 0) not in bench.core._state.objects.entries
    assert taken(bench) == [(task, 1, 1)]


def test_an_item_that_comes_before_an_earlier_one_waits_to_be_counted(
    bench: NodeBench, task: TaskId
) -> None:
    come(bench, task, 1)
    assert taken(bench) == [(task, 0, 0)]
    come(bench, task, 0)
    assert taken(bench) == [(task, 2, 0)]
    end(bench, task)
    read(bench, task, 0, over=True)
    assert not bench.core._state.objects.entries


def test_a_worker_that_reads_no_more_has_the_task_cancelled(bench: NodeBench, task: TaskId) -> None:
    come(bench, task, 0, 1, 3)
    read(bench, task, 1, over=True)
    assert [message.ids for message in bench.sent(Cancel)] == [[task]]
    assert set(bench.core._state.objects.entries) == {item_of(task, 0)}
    come(bench, task, 2)
    assert taken(bench) == [(task, 4, 4)]
    end(bench, task, "TaskCancelled")
    assert "takings" not in at_rest(bench)


def test_a_worker_that_dies_has_it_cancelled_too(bench: NodeBench, task: TaskId) -> None:
    come(bench, task, 0)
    bench.die(WORKER, 1)
    assert [message.ids for message in bench.sent(Cancel)] == [[task]]
    end(bench, task, "TaskCancelled")
    assert not bench.core._state.objects.entries
    assert "takings" not in at_rest(bench)


def test_nobody_reads_what_another_worker_has_submitted(bench: NodeBench, task: TaskId) -> None:
    come(bench, task, 0)
    bench.core._state.objects.takings.open[task].worker = WORKER + 1
    read(bench, task, 1, over=True)
    assert bench.sent(Cancel) == []
    bench.core._state.objects.takings.open[task].worker = WORKER


def test_it_counts_on_over_a_restart_of_the_scheduler_and_says_so_when_asked(
    bench: NodeBench, task: TaskId
) -> None:
    come(bench, task, 0, 1)
    read(bench, task, 1)
    said = restart(bench)
    assert [row.id for one in said if isinstance(one, Submit) for row in one.rows] == [task]
    bench.hear(HowFar([task]))
    assert taken(bench) == [(task, 2, 1)]


def test_a_thread_that_waits_for_the_next_item_is_told_of_the_end_when_another_reads_no_more(
    bench: NodeBench, task: TaskId
) -> None:
    bench.want(WORKER, item_of(task, 0))
    read(bench, task, 0, over=True)
    assert [(row.id, row.failure) for row in answered(bench)] == [(item_of(task, 0), END)]
    end(bench, task, "TaskCancelled")
    assert not bench.core._state.objects.entries


def test_what_came_early_counts_as_received_when_nobody_reads_any_more(
    bench: NodeBench, task: TaskId
) -> None:
    come(bench, task, 1)
    read(bench, task, 0, over=True)
    assert taken(bench)[-1] == (task, 2, 2)
