"""Tasks that yield their values, and programs that read them: all of it, or not to the end.

Never looks into a core: a reader knows what a program at the client's face would know.
"""

from collections.abc import Generator
from random import Random
from typing import TYPE_CHECKING, Final

from drumbeat.client import events
from drumbeat.node.packets import Item, ToWorker
from drumbeat.protocol.ids import ObjectId, TaskId, item_of
from drumbeat.protocol.messages import Outcome, ValueRow
from drumbeat.protocol.yielded import END

from . import operations as op
from . import scripts
from .operations import Fault, Operation, Scenario
from .scripts import Spec, Value
from .segments import draw_segments

if TYPE_CHECKING:
    from .running import Request, Running
    from .users import User

#: share of the worlds in which tasks yield, and share of the tasks that then do
STREAMS: Final = 0.25
STREAMED: Final = 0.5


class Reader:
    """A thread that reads what one task yields.

    Args:
        user: whose.
        task: what it reads.
        spec: of that.
    """

    def __init__(self, user: "User", task: TaskId, spec: Spec) -> None:
        self.user = user
        self.task = task
        self.spec = spec
        self.count = 0
        self.is_over = False
        self._pauses = False

    def look(self) -> None:
        """Read what is there, one after the other."""
        user = self.user
        while not (self.is_over or self._pauses or user.is_gone):
            id_ = item_of(self.task, self.count)
            row = user.results.get(id_)
            if row is None:
                return
            if row.failure == END:
                if self.count != self.spec.items:
                    user.oracle.wrong(f"{self.task.hex()} ended after {self.count} items")
                user.oracle.count("stream read to its end")
                self._tell(over=True)
                return
            self.count += 1
            user.hand[id_] = user.hand.get(id_, 0) + 1
            over = row.outcome != Outcome.VALUE or self.count == self.spec.reads
            self._tell(over=over)
            self._pauses = self.spec.pause_s > 0.0
            if self._pauses:
                user.clock.after(self.spec.pause_s, self._go_on)

    def close(self) -> None:
        """Read no more."""
        if not self.is_over:
            self._tell(over=True)

    def _go_on(self) -> None:
        self._pauses = False
        self.look()

    def _tell(self, *, over: bool) -> None:
        self.is_over = over
        if over and 0 <= self.spec.reads == self.count:
            self.user.oracle.count("stream left before its end")
            self.user.oracle.cancel_asked([self.task])
        self.user.do(events.ItemsRead([(self.task, self.count, over)]), late=True)


def is_end(row: ValueRow) -> bool:
    """Return whether a row says that a task has yielded all."""
    return row.failure == END


def ids_of(task: TaskId, spec: Spec) -> list[ObjectId]:
    """Return the ids of what a task yields, and of the failure that may come behind."""
    return [item_of(task, index) for index in range(spec.items + 1)]


def run(running: "Running", accumulated: int) -> Generator["Request", ToWorker | None, None]:
    """Yield items as the real worker does: never too far ahead of the reader."""
    from .running import DIE

    worker, spec, row = running.worker, running.spec, running.row
    received = read = 0
    dies = spec.deaths < 0 or row.attempt <= spec.deaths
    for index in range(spec.items):
        if index - read >= running.kind.stream:
            worker.oracle.count("task waited for its reader")
            received, read = yield from worker.await_reader(
                row, 0, index - running.kind.stream + 1, lends=index % 2 == 0
            )
        if spec.each_s:
            yield spec.each_s
        if dies and index == spec.items // 2:
            yield DIE
        if index < received:
            worker.oracle.count("item passed over by a later attempt")
            continue
        refs = running._picked(spec.gives) if index == 0 else []
        padding = b"." * (spec.sizes[index % len(spec.sizes)] if spec.sizes else 0)
        payload = scripts.pack(Value(scripts.value_number(accumulated, index), refs, padding))
        id_ = item_of(TaskId(row.id), index)
        value = ValueRow(id_, Outcome.VALUE, payload, 0, tuple(refs))
        worker.yields(Item(row.seq, value))
    yield from worker.await_reader(row, spec.items, 0, lends=False)


def draw_values(scenario: Scenario, operations: list[Operation | Fault]) -> None:
    """Have some values be large, and some tasks yield theirs."""
    draw_segments(scenario, operations)
    _draw_streams(scenario, operations)


def _draw_streams(scenario: Scenario, operations: list[Operation | Fault]) -> None:
    """Have some tasks yield, and their programs read as fast as they like, or not all."""
    random = Random(f"streams {scenario.seed}")
    if random.random() >= STREAMS:
        return
    for entry in operations:
        if not isinstance(entry, op.Submit) or random.random() >= STREAMED:
            continue
        spec = entry.spec
        spec.items = random.choice((1, 2, 5, 5, 20))
        spec.each_s = random.choice((0.0, 0.0, 0.0005, 0.02))
        spec.pause_s = random.choice((0.0, 0.0, 0.001, 0.05))
        spec.reads = random.choice((-1, -1, -1, 0, 1, 3))
        if spec.reads > spec.items:
            spec.reads = -1
        spec.options |= {"num_returns": 0, "stream_buffer_max": random.choice((1, 2, 4, 16))}
