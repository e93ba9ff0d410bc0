"""What tasks yield that workers of this node have submitted: kept until it is read.

The node's half of what `client/streams.py` is to a program. Never sends by itself, and never opens
an item. One that nobody has read yet is held here for the worker that will.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.absent import reason_of
from ..protocol.ids import TaskId, index_of, item_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.yielded import END
from .attempts import Worker

if TYPE_CHECKING:
    from .objects import Objects


class Taking(Struct):
    """One task that yields, as its node knows it."""

    #: who reads
    worker: int
    #: so many items are here, or were, without a gap; and were read of these
    received: int = 0
    read: int = 0
    #: came before one of a lower index, which was large
    early: frozenset[int] = frozenset()
    ended: bool = False
    #: nobody reads any more
    over: bool = False

    def unread(self) -> list[int]:
        """Return the indexes of what is held here: the next one, too, before it comes."""
        return [] if self.over else [*range(self.read, self.received + 1), *self.early]


class Takings:
    """All of them, until their task has ended and nobody reads any more.

    Args:
        objects: of this node.
    """

    def __init__(self, objects: "Objects") -> None:
        self._objects = objects
        self.open: dict[bytes, Taking] = {}
        #: tasks of which the scheduler is to be told how far they were received and read
        self.news: dict[bytes, None] = {}

    def begin(self, task: TaskId, worker: Worker) -> None:
        """A worker has submitted a task that will yield."""
        self.open[task] = Taking(worker.number)
        self._expect(item_of(task, 0))

    def came(self, row: ValueRow, task: TaskId) -> None:
        """Take an item of an unfinished task, perhaps once more."""
        taking, index = self.open[task], index_of(row.id)
        self.news[task] = None
        if taking.over:
            taking.received = taking.read = max(taking.received, index + 1)
            return
        is_lost = row.payload is not None and bool(reason_of(row.payload))
        if is_lost or index < taking.received or index in taking.early:
            return  # with its node, if it is lost: the next attempt yields it anew
        if index > taking.received:
            self._expect(row.id)
        self._objects.resolve(row)
        taking.early |= {index}
        while taking.received in taking.early:
            taking.early -= {taking.received}
            taking.received += 1
            if taking.received not in taking.early:
                self._expect(item_of(task, taking.received))

    def ended(self, row: ValueRow, task: TaskId) -> None:
        """A task has its outcome: it stands behind the last item."""
        taking = self.open[task]
        taking.ended = True
        self.news.pop(task, None)
        if taking.over:
            del self.open[task]
            return
        self._objects.unpin([item_of(task, index) for index in taking.early])
        taking.early = frozenset()
        id_ = item_of(task, taking.received)
        if row.outcome == Outcome.VALUE:
            self._objects.resolve(ValueRow(id_, Outcome.FAILURE, failure=END))
        else:
            self._objects.resolve(replace(row, id=id_))

    def read(self, worker: Worker, task: TaskId, count: int, *, over: bool) -> bool:
        """A worker has read so many; return whether the task goes on and nobody reads any more."""
        taking = self.open.get(task)
        if taking is None or taking.over or taking.worker != worker.number:
            return False
        last = taking.received + taking.ended
        for index in range(taking.read, min(count, last)):
            id_ = item_of(task, index)
            self._objects.hold(worker, (id_,))
            self._objects.unpin((id_,))
            taking.read = index + 1
        if not taking.ended:
            self.news[task] = None
        if over:
            self._let_go(task, taking)
        return over and not taking.ended

    def worker_gone(self, worker: Worker) -> list[TaskId]:
        """A worker has ended; return tasks that go on and that nobody reads any more."""
        unread = []
        for id_, taking in list(self.open.items()):
            task = TaskId(id_)
            if taking.worker == worker.number and not taking.over:
                self._let_go(task, taking)
                if not taking.ended:
                    unread.append(task)
        return unread

    def asked(self, ids: Iterable[bytes]) -> None:
        """The scheduler asks how far these are."""
        for id_ in ids:
            taking = self.open.get(id_)
            if taking is not None and not taking.ended:
                self.news[id_] = None

    def told(self) -> list[tuple[bytes, int, int]]:
        """Return what the scheduler is to be told, and be empty of it."""
        found = [(task, self.open[task]) for task in self.news]
        self.news.clear()
        return [(task, one.received, min(one.read, one.received)) for task, one in found]

    def clear(self) -> None:
        """The link's life is over."""
        self.open.clear()
        self.news.clear()

    def pins(self) -> list[list[bytes]]:
        """Return what is held for whoever will read it."""
        return [
            [item_of(TaskId(task), index) for index in taking.unread()]
            for task, taking in self.open.items()
        ]

    def _expect(self, id_: bytes) -> None:
        self._objects.pin((id_,))
        self._objects.entries[id_].pending = True

    def _let_go(self, task: TaskId, taking: Taking) -> None:
        ids = [item_of(task, index) for index in taking.unread()]
        ids = [id_ for id_ in ids if id_ in self._objects.entries]
        for id_ in ids:
            if self._objects.entries[id_].pending:  # another thread may wait for it
                self._objects.resolve(ValueRow(id_, Outcome.FAILURE, failure=END))
        # Those before an early one are on their way, and will not be said again.
        taking.received = max(taking.received, *(index + 1 for index in taking.early), 0)
        taking.over, taking.early = True, frozenset()
        taking.read = taking.received
        self._objects.unpin(ids)
        if taking.ended:
            del self.open[task]
