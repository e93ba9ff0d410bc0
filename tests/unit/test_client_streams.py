"""What tasks yield, in the client core: kept until it is read, told of, never taken twice."""

from typing import Any

import pytest
from drumbeat.client.events import BlobReceived, Disconnected, ItemsRead, Received
from drumbeat.protocol.absent import absent
from drumbeat.protocol.ids import ObjectId, TaskId, item_of
from drumbeat.protocol.messages import (
    Cancel,
    Failure,
    HowFar,
    ItemsTaken,
    Outcome,
    Submit,
    ValueRow,
)
from drumbeat.protocol.yielded import END
from support.client_bench import LARGE, Client, foreign, resolved, sent, value

STREAMS = {"num_returns": 0, "stream_buffer_max": 4}


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def task(client: Client) -> TaskId:
    return client.submit(STREAMS)


def items(task: TaskId, *indexes: int) -> list[ValueRow]:
    return [value(item_of(task, index)) for index in indexes]


def taken(commands: list[Any]) -> list[tuple[bytes, int, int]]:
    return [row for message in sent(commands, ItemsTaken) for row in message.rows]


def read(client: Client, task: TaskId, count: int, over: bool = False) -> list[Any]:
    return client.do(ItemsRead([(task, count, over)]))


def end(client: Client, task: TaskId, error: str = "") -> list[Any]:
    if error:
        row = ValueRow(task, Outcome.FAILURE, failure=Failure(error, "it was so"))
        return client.result(row)
    return client.result(ValueRow(task, Outcome.VALUE))


def test_an_item_is_resolved_as_it_comes_and_the_scheduler_is_told(
    client: Client, task: TaskId
) -> None:
    commands = client.result(*items(task, 0, 1))
    assert [row.id for row in resolved(commands)] == [item_of(task, 0), item_of(task, 1)]
    assert taken(commands) == [(task, 2, 0)]
    assert taken(read(client, task, 1)) == [(task, 2, 1)]


def test_the_next_item_may_be_waited_for_before_it_is_there(client: Client, task: TaskId) -> None:
    assert item_of(task, 0) in client.core.home.entries
    client.result(*items(task, 0))
    assert item_of(task, 1) in client.core.home.entries


def test_the_end_stands_behind_the_last_item(client: Client, task: TaskId) -> None:
    client.result(*items(task, 0))
    (row,) = resolved(end(client, task))
    assert (row.id, row.failure) == (item_of(task, 1), END)
    read(client, task, 1, over=True)
    client.drop(item_of(task, 0))
    assert client.at_rest()


def test_a_failure_stands_behind_the_last_item_for_whoever_gets_it(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0))
    (row,) = resolved(end(client, task, "WorkerDied"))
    assert row.id == item_of(task, 1)
    assert row.failure is not None
    assert row.failure.error == "WorkerDied"
    read(client, task, 2, over=True)
    client.drop(item_of(task, 0), item_of(task, 1))
    assert client.at_rest()


def test_an_item_that_comes_again_is_dropped_counted_and_answered(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0, 1))
    commands = client.result(*items(task, 0))
    assert resolved(commands) == []
    assert taken(commands) == [(task, 2, 0)]
    assert client.core.counters["stale_dropped"] == 1


def test_an_item_that_was_read_and_let_go_of_comes_to_life_no_more(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0, 1))
    read(client, task, 1)
    client.drop(item_of(task, 0))
    assert resolved(client.result(*items(task, 0))) == []
    assert item_of(task, 0) not in client.core.home.entries


def test_an_item_behind_a_large_one_waits_to_be_counted_until_that_is_whole(
    client: Client, task: TaskId
) -> None:
    large = ValueRow(item_of(task, 0), Outcome.VALUE, None, len(LARGE))
    commands = client.result(large, *items(task, 1))
    assert taken(commands) == [(task, 0, 0)]
    commands = client.do(BlobReceived(large.id, LARGE))
    assert [row.id for row in resolved(commands)] == [large.id]
    assert taken(commands) == [(task, 2, 0)]


def test_a_large_item_that_is_on_its_way_twice_is_taken_once(client: Client, task: TaskId) -> None:
    id_ = item_of(task, 0)
    for _ in range(2):
        client.result(ValueRow(id_, Outcome.VALUE, None, len(LARGE)))
    assert len(resolved(client.do(BlobReceived(id_, LARGE)))) == 1
    assert resolved(client.do(BlobReceived(id_, LARGE))) == []
    end(client, task)
    read(client, task, 0, over=True)
    assert client.at_rest()


def test_an_item_that_is_lost_with_its_node_is_taken_from_the_next_attempt(
    client: Client, task: TaskId
) -> None:
    id_ = item_of(task, 0)
    client.result(ValueRow(id_, Outcome.VALUE, None, len(LARGE)))
    commands = client.do(BlobReceived(id_, absent("its node has gone")))
    assert not resolved(commands)
    assert not any(received for _, received, _ in taken(commands))
    (row,) = resolved(client.result(value(id_)))
    assert row.id == id_
    assert client.core.home.sizes()["unfilled"] == 0


def test_it_is_so_too_if_the_next_attempt_was_quicker_than_the_word_of_the_loss(
    client: Client, task: TaskId
) -> None:
    id_ = item_of(task, 0)
    client.result(ValueRow(id_, Outcome.VALUE, None, len(LARGE)))
    client.result(ValueRow(id_, Outcome.VALUE, None, len(LARGE)))
    assert not resolved(client.do(BlobReceived(id_, absent("its node has gone"))))
    (row,) = resolved(client.do(BlobReceived(id_, LARGE)))
    assert row.payload == LARGE
    sizes = client.core.home.sizes()
    assert sizes["unfilled"] == sizes["unwelcome"] == sizes["unclaimed"] == 0


def test_what_is_not_read_is_let_go_of_when_nobody_will_and_the_task_is_cancelled(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0, 1, 2, 4))
    read(client, task, 1)
    commands = read(client, task, 1, over=True)
    assert [message.ids for message in sent(commands, Cancel)] == [[task]]
    assert set(client.core.home.entries) == {item_of(task, 0)}
    # Who yields is not left waiting, should it not listen.
    assert taken(client.result(*items(task, 3))) == [(task, 5, 5)]
    end(client, task, "TaskCancelled")
    client.drop(item_of(task, 0))
    assert client.at_rest()


def test_what_lies_behind_a_gap_when_the_task_fails_is_let_go_of(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0, 2, 3))
    (row,) = resolved(end(client, task, "NodeLost"))
    assert row.id == item_of(task, 1)
    read(client, task, 2, over=True)
    client.drop(item_of(task, 0), item_of(task, 1))
    assert client.at_rest()


def test_who_asks_how_far_it_is_is_told(client: Client, task: TaskId) -> None:
    client.result(*items(task, 0, 1))
    read(client, task, 2)
    assert taken(client.do(Received(HowFar([task, client.next_id()])))) == [(task, 2, 2)]


def test_a_late_item_of_a_task_that_has_ended_is_dropped(client: Client, task: TaskId) -> None:
    end(client, task, "TaskCancelled")
    assert resolved(client.result(*items(task, 0))) == []
    assert client.core.counters["stale_dropped"] == 1


def test_references_inside_an_item_are_held_as_long_as_it_is(client: Client, task: TaskId) -> None:
    inside = foreign()
    client.result(value(item_of(task, 0), contained=(inside,)))
    client.result(value(item_of(task, 0), contained=(inside,)))  # once more
    assert client.core.home.entries[inside].pins == 1
    end(client, task)
    read(client, task, 0, over=True)
    assert inside not in client.core.home.entries
    assert client.at_rest()


def test_over_a_restart_of_the_scheduler_the_task_is_named_again_and_goes_on(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0, 1))
    client.do(Disconnected())
    assert taken(read(client, task, 1)) == [], "there is nobody to be told"
    commands = client.connect(2)
    assert [row.id for message in sent(commands, Submit) for row in message.rows] == [task]
    assert taken(commands) == [(task, 2, 1)]
    assert [row.id for row in resolved(client.result(*items(task, 1, 2)))] == [item_of(task, 2)]


def test_an_item_goes_to_others_who_want_it_while_its_task_runs(
    client: Client, task: TaskId
) -> None:
    from drumbeat.protocol.messages import Shared, Values, Wanted

    client.result(*items(task, 0))
    read(client, task, 1)
    id_ = ObjectId(item_of(task, 0))
    client.do(Received(Shared([id_])))
    client.drop(id_)
    (told,) = sent(client.do(Received(Wanted([id_]))), Values)
    assert [row.id for row in told.rows] == [id_]


def test_who_waits_for_the_next_item_is_told_of_the_end_when_another_thread_reads_no_more(
    client: Client, task: TaskId
) -> None:
    client.result(*items(task, 0))
    commands = read(client, task, 0, over=True)
    assert [(row.id, row.failure) for row in resolved(commands)] == [(item_of(task, 1), END)]
    end(client, task, "TaskCancelled")
    assert client.at_rest()


def test_what_came_early_counts_as_received_when_nobody_reads_any_more(
    client: Client, task: TaskId
) -> None:
    large = ValueRow(item_of(task, 0), Outcome.VALUE, None, len(LARGE))
    client.result(large, *items(task, 1))
    commands = read(client, task, 0, over=True)
    assert taken(commands) == [(task, 2, 2)], "it is not said again, and who yields waits for that"
    client.do(BlobReceived(large.id, LARGE))
    end(client, task, "TaskCancelled")
    assert client.at_rest()


def test_every_item_is_known_by_the_function_that_makes_it(client: Client, task: TaskId) -> None:
    client.result(*items(task, 0, 1))
    entries = client.core.home.entries
    kinds = {entries[ObjectId(item_of(task, index))].kind for index in range(3)}
    assert kinds == {client.core.tasks[task].row.kind}
