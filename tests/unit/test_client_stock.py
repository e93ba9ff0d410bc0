"""What a client tells of the objects that it keeps: how large they are, and what keeps them."""

import mmap
from typing import Any, cast

import pytest
from drumbeat.client import kinds
from drumbeat.client import stock as stock_room
from drumbeat.client.events import Awaited, KindsDropped, Received, Submitted
from drumbeat.client.kinds import Kinds
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.ids import ObjectId, show
from drumbeat.protocol.messages import (
    Failure,
    Outcome,
    Stock,
    TakeStock,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.stock import NAME_MAX, STOCK_ROWS_MAX, StockRow
from support.client_bench import Client, foreign, received_with, sent, value


def stock(client: Client, limit: int = 100, **more: Any) -> Stock:
    (told,) = sent(client.do(Received(TakeStock(7, limit, **more))), Stock)
    assert told.number == 7
    return cast("Stock", told)


def rows(client: Client, **more: Any) -> dict[bytes, StockRow]:
    return {row.id: row for row in stock(client, **more).rows}


def test_values_are_told_the_largest_first_with_how_many_there_are_and_their_bytes() -> None:
    client = Client()
    small, large = client.put(b"v"), client.put(b"v" * 500)
    task = client.submit()
    client.result(value(task, b"v" * 30))
    told = stock(client, limit=2)
    assert [(row.id, row.size_bytes) for row in told.rows] == [(large, 500), (task, 30)]
    assert (told.objects, told.size_bytes, told.copies, told.unseen) == (3, 531, 0, 0)
    assert rows(client)[small] == StockRow(small, "put", "", "ready", 1, "memory", 1, 0)
    assert rows(client)[task].name == "work"


def test_an_object_is_pending_wanted_ready_or_failed() -> None:
    client = Client()
    task = client.submit()
    assert rows(client)[task] == StockRow(task, "result", "work", "pending", 0, "", 1, 0)
    client.do(Received(Wanted([task])))
    assert rows(client)[task].state == "wanted"
    client.result(ValueRow(task, Outcome.FAILURE, failure=Failure("WorkerDied", "it died")))
    assert (rows(client)[task].state, rows(client)[task].place) == ("failed", "")


def test_what_makes_an_actor_is_told_of_as_one_until_it_ends() -> None:
    client = Client()
    kind = client.kind(creates=ActorOptions())
    call = client.call(kind.number)
    client.do(Submitted([kind], [call]))
    assert rows(client)[call.row.id].sort == "actor"


def test_a_segment_counts_with_the_value_that_needs_it() -> None:
    client = Client()
    segment = client.segment(1 << 20)
    put = client.put(b"v" * 100, contained=(segment,))
    told = stock(client)
    assert [(row.id, row.sort, row.size_bytes) for row in told.rows] == [(put, "put", 1048676)]
    assert told.rows[0].place == "shared memory"
    assert told.rows[0].parts == (segment,), "who maps it, holds that"
    assert (told.objects, told.size_bytes) == (1, 1048676)


def test_a_segment_that_two_values_need_counts_once() -> None:
    client = Client()
    segment = client.segment(1000)
    first, second = (client.put(b"v", contained=(segment,)) for _ in range(2))
    assert {id_: row.size_bytes for id_, row in rows(client).items()} == {first: 1001, second: 1}


def test_a_segment_of_arguments_is_told_with_the_function_and_one_of_nothing_by_itself() -> None:
    client = Client()
    arguments, mapped = client.segment(2000), client.segment(1000)
    client.submit(args=b"args", contained=(arguments,))
    client.drop(arguments)
    told = rows(client)
    assert told[arguments] == StockRow(
        arguments, "arguments", "work", "ready", 2000, "shared memory", 0, 1
    )
    assert told[mapped].sort == "segment"
    assert next(iter(rows(client, match="work"))) == arguments


def test_refs_and_uses_are_counted_apart() -> None:
    client = Client()
    id_ = client.put()
    client.submit(deps=(id_,))
    assert (rows(client)[id_].refs, rows(client)[id_].uses) == (1, 1)
    client.drop(id_)
    assert (rows(client)[id_].refs, rows(client)[id_].uses) == (0, 1)


def test_a_value_in_a_memory_file_lies_in_shared_memory() -> None:
    client = Client()
    task = client.submit()
    payload = memoryview(mmap.mmap(-1, 4096)).toreadonly()
    client.result(ValueRow(task, Outcome.VALUE, cast("bytes", payload)))
    assert rows(client)[task].place == "shared memory"
    assert rows(client)[task].size_bytes == 4096


def test_copies_of_what_others_keep_are_counted_and_not_listed() -> None:
    client = Client()
    other = foreign()
    received_with(client, other)
    assert stock(client).copies == 0
    client.do(Awaited([ObjectId(other)]))
    client.do(Received(Values([value(other, b"v" * 40)])))
    told = stock(client)
    assert (told.copies, told.copies_bytes, told.objects) == (1, 40, 1)
    assert other not in {row.id for row in told.rows}


def test_of_the_objects_that_are_named_it_is_told_how_they_are_held_here() -> None:
    client = Client()
    other, unknown = foreign(1), foreign(2)
    received_with(client, other)
    told = stock(client, ids=[other, unknown])
    assert [(row.id, row.refs, row.uses, row.size_bytes) for row in told.rows] == [(other, 0, 1, 0)]


def test_a_match_keeps_names_and_ids_that_begin_so() -> None:
    client = Client()
    put, task = client.put(b"vv"), client.submit()
    assert list(rows(client, match="wor")) == [task]
    assert list(rows(client, match=show(put))) == [put]
    told = stock(client, match="other")
    assert (told.rows, told.objects, told.size_bytes) == ([], 0, 0)


def test_the_name_of_a_function_that_the_program_has_dropped_is_still_known() -> None:
    client = Client()
    task = client.submit()
    client.do(KindsDropped([1]))
    client.result(value(task))
    assert rows(client)[task].name == "work"


def test_of_forgotten_functions_only_so_many_names_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kinds, "NAMES_MAX", 2)
    known, client = Kinds(1000), Client()
    made = [client.kind() for _ in range(3)]
    known.add(made)
    known.drop([row.number for row in made])
    known.forget_unused(0, list)
    assert [known.name_of(row.number) for row in made] == ["a task", "work", "work"]


def test_a_long_name_is_cut_and_an_answer_has_a_bound() -> None:
    client = Client()
    kind = client.kind()
    kind.name = "x" * 300
    client.do(Submitted([kind], [client.call(kind.number) for _ in range(STOCK_ROWS_MAX + 5)]))
    told = stock(client, limit=1 << 40)
    assert (len(told.rows), told.objects) == (STOCK_ROWS_MAX, STOCK_ROWS_MAX + 5)
    assert told.rows[0].name == "x" * NAME_MAX


def test_of_very_many_objects_a_part_is_looked_at_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stock_room, "LOOK_AT", 3)
    client = Client()
    for _ in range(5):
        client.put()
    told = stock(client)
    assert (told.objects, told.unseen) == (3, 2)


def test_several_values_of_one_task_are_objects_of_their_own() -> None:
    client = Client()
    client.submit({"num_returns": 3})
    assert [row.name for row in stock(client).rows] == ["work"] * 3


def test_of_what_lies_in_files_it_is_said_which_lies_on_disk() -> None:
    def row(id_: bytes, place: str, *parts: bytes) -> StockRow:
        return StockRow(id_, "put", "", "ready", 1, place, 1, 0, parts)

    told = Stock(1, [row(b"a", "shared memory"), row(b"b", "shared memory", b"p", b"q"),
                     row(b"c", "shared memory", b"r"), row(b"q", "memory")])  # fmt: skip
    placed = stock_room.placed(told, {b"a", b"q"}.__contains__)
    assert [one.place for one in placed.rows] == ["disk", "disk", "shared memory", "memory"]
