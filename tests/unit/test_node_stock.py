"""What a node tells of the objects that it keeps for its workers."""

import mmap
from typing import cast

from drumbeat.node.attempts import Crew, Worker, WorkerKey
from drumbeat.node.objects import Call
from drumbeat.node.state import NodeState
from drumbeat.node.stock import stock_of
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import Failure, Outcome, Stock, TakeStock, TaskRow, ValueRow
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.stock import StockRow
from support.node_bench import NodeBench

NODE, CLIENT = PeerId(b"node01"), PeerId(b"client")


class Home:
    """A node's records with two workers, and ids of both kinds."""

    def __init__(self) -> None:
        self.state = NodeState(Settings(), NODE, "lab", {"CPU": 2.0})
        self.mine, self.foreign = IdFactory(NODE, 1), IdFactory(CLIENT)
        crew = Crew(WorkerKey(CLIENT, (), "", 1.0, ""))
        self.workers = [Worker(number, 1, crew, 0.0) for number in (1, 2)]
        self.state.workers = {worker.number: worker for worker in self.workers}

    def submit(self, name: str = "work", creates: bool = False) -> bytes:
        task = self.mine()
        call = Call(CLIENT, 1, (), 1, TaskRow(task, 1), b"", 1, 1, creates=creates, name=name)
        self.state.objects.submit(task, call, self.workers[0])
        return task

    def put(self, size: int = 5) -> bytes:
        id_ = self.mine()
        self.state.objects.put(ValueRow(id_, Outcome.VALUE, bytes(size)), self.workers[0])
        return id_

    def stock(self, limit: int = 100, match: str = "", ids: tuple[bytes, ...] = ()) -> Stock:
        return stock_of(TakeStock(3, limit, match, list(ids)), self.state)

    def rows(self) -> dict[bytes, StockRow]:
        return {row.id: row for row in self.stock().rows}


def test_what_workers_put_and_submit_is_told_with_the_workers_that_hold_it() -> None:
    home = Home()
    put, task = home.put(40), home.submit()
    home.state.objects.hold(home.workers[1], [put])
    home.state.objects.pin([put])
    told = home.stock()
    assert (told.number, told.objects, told.size_bytes) == (3, 2, 40)
    assert told.rows == [
        StockRow(put, "put", "", "ready", 40, "memory", 2, 1),
        StockRow(task, "result", "work", "pending", 0, "", 1, 0),
    ]


def test_a_result_keeps_the_name_of_its_function_and_tells_of_its_failure() -> None:
    home = Home()
    good, bad, actor = home.submit(), home.submit(), home.submit("Lamp", creates=True)
    home.state.objects.result(ValueRow(good, Outcome.VALUE, b"value"))
    failure = Failure("WorkerDied", "it died")
    home.state.objects.result(ValueRow(bad, Outcome.FAILURE, failure=failure))
    told = home.rows()
    assert (told[good].name, told[good].state) == ("work", "ready")
    assert told[bad].state == "failed"
    assert (told[actor].sort, told[actor].name) == ("actor", "Lamp")


def test_a_result_in_a_memory_file_lies_in_shared_memory() -> None:
    home = Home()
    task = home.submit()
    payload = memoryview(mmap.mmap(-1, 4096)).toreadonly()
    home.state.objects.result(ValueRow(task, Outcome.VALUE, cast("bytes", payload)))
    assert (home.rows()[task].place, home.rows()[task].size_bytes) == ("shared memory", 4096)


def test_of_others_objects_the_values_are_counted_and_holds_told_when_asked() -> None:
    home = Home()
    held, fetched = home.foreign(), home.foreign()
    home.state.objects.hold(home.workers[0], [held, fetched])
    home.state.objects.value(ValueRow(fetched, Outcome.VALUE, b"v" * 9))
    told = home.stock()
    assert (told.objects, told.copies, told.copies_bytes, told.rows) == (0, 1, 9, [])
    rows = home.stock(ids=(held, fetched, home.foreign())).rows
    assert [(row.id, row.refs, row.size_bytes) for row in rows] == [(held, 1, 0), (fetched, 1, 9)]


def test_what_a_scheduler_asks_is_answered_and_changes_nothing() -> None:
    bench = NodeBench.ready_with_two()
    bench.hear(TakeStock(4, 10))
    assert bench.sent(Stock) == [Stock(4, [])]
