"""What tasks of a node yield: told, kept until it was received, and waited for."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import Finished, FinishedRow, Item, Want
from drumbeat.protocol.ids import TaskId, item_of
from drumbeat.protocol.messages import (
    Blocked,
    Done,
    Failure,
    HowFar,
    ItemsTaken,
    Outcome,
    Stop,
    StopMode,
    ValueRow,
    Yielded,
)
from drumbeat.protocol.recovery import HandedOver
from drumbeat.protocol.standstill import Look, Looked
from support.node_bench import CLIENT, NodeBench, at_rest, restart

KIND = 7
LARGE = b"x" * 100_000


@pytest.fixture
def bench() -> NodeBench:
    made = NodeBench({"CPU": 1.0})
    made.prepare(KIND, num_returns=0, stream_buffer_max=4)
    return made


def running(bench: NodeBench, **given: object) -> tuple[TaskId, int]:
    """Have a task that yields in a worker; return both."""
    (task,) = bench.assign(1, KIND, **given)
    bench.ready()
    return task, next(iter(bench.ran()))


def item(task: TaskId, index: int, payload: bytes = b"item", **more: object) -> Item:
    return Item(1, ValueRow(item_of(task, index), Outcome.VALUE, payload, **more))


def told(bench: NodeBench) -> list[tuple[bytes, int]]:
    return [(row.id, row.attempt) for message in bench.sent(Yielded) for row in message.rows]


def waits(bench: NodeBench, worker: int, received: int, read: int, lends: bool = True) -> None:
    reads = (received, read)
    bench.say(worker, Want(9, 1, [], 0, None, values=False, lends=lends, reads=reads))


def answered(bench: NodeBench, worker: int) -> list[tuple[int, int]]:
    return [tuple(answer.data) for answer in bench.answers(worker)]


def test_an_item_is_told_with_its_attempt_and_before_the_end(bench: NodeBench) -> None:
    task, worker = running(bench, attempt=3)
    commands = bench.say(worker, item(task, 0), item(task, 1), Finished([FinishedRow(1, (), 0.1)]))
    kinds = [type(one.message) for one in commands if isinstance(one, events.Send)]
    assert kinds.index(Yielded) < kinds.index(Done)
    assert told(bench) == [(item_of(task, 0), 3), (item_of(task, 1), 3)]


def test_a_large_item_goes_on_the_bulk_link(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0, LARGE))
    (message,) = bench.sent(Yielded)
    assert (message.rows[0].payload, message.rows[0].size) == (None, len(LARGE))
    assert [blob.key for blob in bench.of(events.SendBlob)] == [item_of(task, 0)]


def test_a_worker_waits_until_so_many_are_read_and_lends_its_cpu(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, *[item(task, index) for index in range(4)])
    waits(bench, worker, 0, 1)
    assert bench.sent(Blocked) == [Blocked([(task, 1, True)])]
    bench.hear(ItemsTaken([(task, 4, 0)]))
    assert answered(bench, worker) == []
    bench.hear(ItemsTaken([(task, 4, 2)]))
    assert answered(bench, worker) == [(4, 2)]
    assert bench.sent(Blocked) == [Blocked([(task, 1, False)])]


def test_who_waits_for_what_is_read_already_goes_on_at_once(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0))
    bench.hear(ItemsTaken([(task, 1, 1)]))
    waits(bench, worker, 1, 1, lends=False)
    assert answered(bench, worker) == [(1, 1)]
    assert bench.sent(Blocked) == []


def test_what_has_no_reader_inside_the_cluster_is_no_standstill(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0))
    waits(bench, worker, 0, 1)
    bench.hear(Look(5))
    assert bench.sent(Looked) == [Looked(5, False, [])]


def test_an_item_is_kept_until_it_was_received_and_said_again_when_asked_for(
    bench: NodeBench,
) -> None:
    task, worker = running(bench)
    bench.say(worker, *[item(task, index) for index in range(3)])
    bench.hear(ItemsTaken([(task, 1, 0)]))
    said = restart(bench)
    assert not [message for message in said if isinstance(message, Yielded)], "not unasked"
    bench.hear(HowFar([task]))
    assert told(bench) == [(item_of(task, 1), 1), (item_of(task, 2), 1)]
    assert bench.sent(HowFar) == [HowFar([task])], "its reader may have read meanwhile"


def test_where_all_was_received_its_reader_is_but_asked(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0))
    bench.hear(ItemsTaken([(task, 1, 0)]))
    bench.hear(HowFar([task, bench.ids[CLIENT]()]))
    assert told(bench) == []
    assert bench.sent(HowFar) == [HowFar([task])]


def test_what_was_received_before_is_not_told_by_a_later_attempt(bench: NodeBench) -> None:
    task, worker = running(bench, attempt=2)
    bench.say(worker, item(task, 0))
    bench.hear(ItemsTaken([(task, 3, 3)]))
    bench.say(worker, item(task, 1), item(task, 2), item(task, 3))
    assert told(bench) == [(item_of(task, 3), 2)]


def test_references_inside_an_item_are_held_until_it_was_received(bench: NodeBench) -> None:
    inside = bench.ids[CLIENT]()
    task, worker = running(bench)
    bench.say(worker, item(task, 0, contained=(inside,)))
    objects = bench.core._state.objects
    assert objects.entries[inside].count == 1
    bench.hear(ItemsTaken([(task, 1, 0)]))
    assert inside not in objects.entries


@pytest.mark.parametrize("end", ["finishes", "dies", "is stopped"])
def test_nothing_is_left_of_a_task_that_has_ended(bench: NodeBench, end: str) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0, contained=(bench.ids[CLIENT](),)))
    waits(bench, worker, 0, 1)
    if end == "finishes":
        bench.hear(ItemsTaken([(task, 1, 1)]))
        bench.say(worker, Finished([FinishedRow(1, (), 0.1)]))
    else:
        if end == "is stopped":
            bench.hear(Stop([(task, 1, int(StopMode.FORCE))]))
        bench.die(worker, 1)
    assert not {"streams", "waits"} & set(at_rest(bench))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda task: Item(1, ValueRow(task, Outcome.VALUE, b"x")),
        lambda task: Item(1, ValueRow(item_of(task, 65_535), Outcome.VALUE, b"x")),
        lambda task: Item(1, ValueRow(item_of(task, 0), Outcome.ERROR, b"x")),
        lambda task: Item(1, ValueRow(item_of(task, 0), Outcome.VALUE)),
        lambda task: Item(1, ValueRow(b"other_" + item_of(task, 0)[6:], Outcome.VALUE, b"x")),
    ],
)
def test_a_worker_that_yields_what_is_no_item_is_ended(bench: NodeBench, wrong: object) -> None:
    task, worker = running(bench)
    bench.say(worker, wrong(task))  # type: ignore[operator]
    assert told(bench) == []
    assert bench.core.counters["workers_distrusted"] == 1


def test_a_worker_that_yields_more_than_it_may_is_ended(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, *[item(task, index) for index in range(5)])
    assert bench.core.counters["workers_distrusted"] == 1


def test_a_task_that_does_not_yield_cannot(bench: NodeBench) -> None:
    (task,) = bench.assign()
    bench.ready()
    worker = next(iter(bench.ran()))
    bench.say(worker, item(task, 0))
    assert bench.core.counters["workers_distrusted"] == 1


def test_an_item_of_a_row_that_has_ended_is_dropped_and_counted(bench: NodeBench) -> None:
    task, worker = running(bench)
    bench.say(worker, Finished([FinishedRow(1, (), 0.1)]), item(task, 0))
    assert told(bench) == []
    assert bench.core.counters["stale_dropped"] == 1


def test_who_was_interrupted_while_it_waited_for_its_last_item_leaves_no_wait(
    bench: NodeBench,
) -> None:
    task, worker = running(bench)
    bench.say(worker, item(task, 0))
    waits(bench, worker, 1, 0, lends=False)
    cancelled = Failure("TaskCancelled", "it was")
    value = ValueRow(task, Outcome.FAILURE, failure=cancelled)
    bench.say(worker, Finished([FinishedRow(1, (value,), 0.1)]))
    bench.feed()
    assert not {"streams", "waits"} & set(at_rest(bench))


def test_references_inside_what_is_on_its_way_as_its_worker_dies_are_held_until_the_end_is_known(
    bench: NodeBench,
) -> None:
    inside = bench.ids[CLIENT]()
    task, worker = running(bench)
    bench.say(worker, item(task, 0, contained=(inside,)))
    bench.die(worker, 1)
    objects = bench.core._state.objects
    assert objects.entries[inside].count == 1
    bench.hear(HandedOver(bench.told_numbers))
    assert inside not in objects.entries


def test_and_no_longer_when_the_scheduler_is_another(bench: NodeBench) -> None:
    inside = bench.ids[CLIENT]()
    task, worker = running(bench)
    bench.say(worker, item(task, 0, contained=(inside,)))
    bench.die(worker, 1)
    restart(bench)
    assert inside not in bench.core._state.objects.entries
