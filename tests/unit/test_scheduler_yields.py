"""What tasks yield, in the scheduler: passed on if it is current, and back how far it was read."""

import pytest
from drumbeat.protocol.ids import PeerId, TaskId, item_of
from drumbeat.protocol.messages import (
    AssignRow,
    DoneRow,
    HowFar,
    ItemsTaken,
    Outcome,
    Wanted,
    Yielded,
)
from drumbeat.protocol.recovery import Phase
from drumbeat.protocol.yields import YieldRow
from drumbeat.scheduler import events
from support.restarts import CLIENT, NODE, Restarted, ids, row
from support.scheduling import Stage, died, ids_of

STREAMS = {"num_returns": 0, "stream_buffer_max": 4}
BIG = b"x" * 100_000


class Yielding(Stage):
    """A scheduler whose one node runs one task that yields."""

    def __init__(self) -> None:
        super().__init__()
        self.who, self.where = self.client(), self.node()
        (self.task,) = ids_of(self.who, 1)
        self.submit(self.who, self.define(self.who, retry_backoff_s=0.0, **STREAMS), [self.task])
        self.turn()
        (self.row,) = self.assigned(self.where)

    def yields(self, *indexes: int, attempt: int = 1, **more: object) -> None:
        rows = [_item(self.task, index, attempt, **more) for index in indexes]
        self.say(self.where, Yielded(rows))
        self.turn()


def _item(task: TaskId, index: int, attempt: int = 1, **more: object) -> YieldRow:
    fields: dict[str, object] = {"payload": b"item"} | more
    return YieldRow(item_of(task, index), attempt, **fields)  # type: ignore[arg-type]


def ended(row: AssignRow) -> DoneRow:
    return DoneRow(row.id, row.attempt, (), 1.0)


def test_an_item_goes_to_the_submitter_and_the_task_goes_on() -> None:
    stage = Yielding()
    stage.yields(0, 1)
    rows = stage.results(stage.who)
    assert list(rows) == [item_of(stage.task, 0), item_of(stage.task, 1)]
    assert {row.outcome for row in rows.values()} == {Outcome.VALUE}
    assert stage.ask(stage.who, "tasks")[0]["state"] == "assigned"
    stage.done(stage.where, ended(stage.row))
    stage.turn()
    assert list(stage.results(stage.who)) == [stage.task], "one outcome, of the task itself"
    assert stage.at_rest()


def test_a_large_item_is_passed_on_when_it_is_whole() -> None:
    stage = Yielding()
    stage.yields(0, payload=None, size=len(BIG))
    assert stage.results(stage.who) == {}
    stage.event(events.BlobReceived(stage.where, item_of(stage.task, 0), BIG))
    stage.turn()
    (told,) = stage.results(stage.who).values()
    assert (told.payload, told.size) == (None, len(BIG))
    assert [blob.payload for blob in stage.blobs if blob.peer == stage.who] == [BIG]


@pytest.mark.parametrize("size", [0, len(BIG)])
def test_an_item_of_an_attempt_that_was_given_up_is_dropped_and_counted(size: int) -> None:
    stage = Yielding()
    stage.done(stage.where, died(stage.row))
    stage.turn().turn()
    (again,) = stage.assigned(stage.where)
    assert again.attempt == 2
    stage.yields(0, payload=None if size else b"old", size=size)
    if size:
        stage.event(events.BlobReceived(stage.where, item_of(stage.task, 0), BIG))
    assert stage.results(stage.who) == {}
    assert stage.core.counters["stale_dropped"] == 1
    stage.yields(0, attempt=2, payload=b"new")
    assert [one.payload for one in stage.results(stage.who).values()] == [b"new"]
    stage.done(stage.where, ended(again))
    stage.turn()
    assert stage.at_rest()


def test_an_item_that_becomes_whole_after_its_attempt_was_given_up_is_dropped() -> None:
    stage = Yielding()
    stage.yields(0, payload=None, size=len(BIG))
    stage.done(stage.where, died(stage.row))
    stage.event(events.BlobReceived(stage.where, item_of(stage.task, 0), BIG))
    stage.turn()
    assert stage.results(stage.who) == {}
    assert stage.core.counters["stale_dropped"] == 1


def test_a_node_that_says_a_task_had_yielded_itself_is_dropped() -> None:
    stage = Yielding()
    stage.say(stage.where, Yielded([YieldRow(stage.task, 1, b"x")]))
    assert [drop.peer for drop in stage.drops] == [stage.where]


def test_who_runs_a_task_is_told_how_far_it_was_read_and_nobody_of_others_tasks() -> None:
    stage = Yielding()
    other = stage.client("d")
    stage.say(other, ItemsTaken([(stage.task, 9, 9)]))
    stage.say(stage.who, ItemsTaken([(stage.task, 2, 1), (ids_of(stage.who, 2)[1], 1, 1)]))
    stage.turn()
    assert stage.take(stage.where, ItemsTaken) == [ItemsTaken([(stage.task, 2, 1)])]


def test_a_submitter_is_asked_how_far_it_is_of_its_own_tasks() -> None:
    stage = Yielding()
    stage.say(stage.where, HowFar([stage.task, ids_of(stage.who, 2)[1]]))
    stage.turn()
    assert stage.take(stage.who, HowFar) == [HowFar([stage.task])]


def test_what_was_yielded_is_had_from_its_home_while_its_task_runs() -> None:
    stage = Yielding()
    (user,) = ids_of(PeerId(stage.who), 3)[2:]
    kind = stage.define(stage.who, name="use")
    stage.submit(stage.who, kind, [user], deps=(item_of(stage.task, 0),))
    stage.turn()
    assert stage.take(stage.who, Wanted) == [Wanted([item_of(stage.task, 0)])]


@pytest.mark.parametrize("order", ["client first", "node first"])
def test_after_a_restart_a_node_is_asked_for_what_it_may_have_said_in_vain(order: str) -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    if order == "client first":
        stage.client_back([one], options=STREAMS)
        stage.node_back(row(one, phase=Phase.RUNNING))
    else:
        stage.node_back(row(one, phase=Phase.RUNNING))
        stage.say(NODE, Yielded([_item(one, 0)]))
        stage.client_back([one], options=STREAMS)
    stage.turn()
    assert stage.take(NODE, HowFar) == [HowFar([one])]
    stage.say(NODE, Yielded([_item(one, 0)]))
    stage.turn()
    assert list(stage.results(CLIENT)) == [item_of(one, 0)]
