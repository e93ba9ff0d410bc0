"""What tasks yield one by one: what is here of each, how far the program has read.

Never sends by itself: `news` names the tasks whose scheduler is to be told. The core's `Home` keeps
the items; an item that nobody has read yet is held for whoever will.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.absent import reason_of
from ..protocol.ids import ObjectId, TaskId, index_of, item_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.yielded import END
from .home import HERE, PENDING, Entry, Home


class Stream(Struct, gc=False):
    """One task that yields, as this process knows it."""

    #: the number of its function and options
    kind: int = 0
    #: so many items are here, or were, without a gap
    received: int = 0
    #: so many of these the program has taken
    read: int = 0
    #: came before one of a lower index, which was large
    early: frozenset[int] = frozenset()
    #: the task has its outcome
    ended: bool = False
    #: nobody reads any more
    over: bool = False


class Streams:
    """All of them, until their task has ended and nobody reads any more.

    Args:
        home: where items are kept.
        counters: `stale_dropped` is counted there.
    """

    def __init__(self, home: Home, counters: dict[str, int]) -> None:
        self._home = home
        self._counters = counters
        self.open: dict[TaskId, Stream] = {}
        #: tasks of which the scheduler is to be told how far they were received and read
        self.news: dict[TaskId, None] = {}

    def begin(self, task: TaskId, kind: int) -> None:
        """A task of this kind is submitted that will yield."""
        self.open[task] = Stream(kind)
        self._home.entries[item_of(task, 0)] = Entry(kind=kind)

    def came(self, task: TaskId, row: ValueRow) -> None:
        """Take an item of an unfinished task, perhaps without its payload, perhaps once more."""
        home, stream, index = self._home, self.open[task], index_of(row.id)
        id_ = ObjectId(row.id)
        # Whoever said it may not know that it is here.
        self.news[task] = None
        known = index < stream.received or index in stream.early
        if stream.over or known or (row.payload is None and row.id in home.unfilled):
            if stream.over:
                stream.received = stream.read = max(stream.received, index + 1)
            self._counters["stale_dropped"] += 1
            home.refuse(row)
            return
        if not home.filled(row):
            return
        if row.payload is not None and reason_of(row.payload):
            # Lost with its node: the next attempt yields it anew, and may have said so already.
            if not home.waits_again(row):
                home.refuse(row)
            return
        entry = home.entries.get(id_)
        if entry is None:
            entry = home.entries[id_] = Entry(kind=stream.kind)
        home.resolve(id_, entry, row)
        stream.early |= {index}
        while stream.received in stream.early:
            stream.early -= {stream.received}
            stream.received += 1
        following = item_of(task, stream.received)
        if following not in home.entries:
            # Somebody may wait for it before it comes.
            home.entries[following] = Entry(kind=stream.kind)

    def ended(self, task: TaskId, row: ValueRow) -> None:
        """A task has its outcome: it stands behind the last item."""
        home, stream = self._home, self.open[task]
        stream.ended = True
        self.news.pop(task, None)
        if stream.over:
            del self.open[task]
            home.refuse(row)
            return
        for index in stream.early:  # behind one that did not come
            home.change_refs([(item_of(task, index), -1)])
        id_ = item_of(task, stream.received)
        if row.outcome == Outcome.VALUE:
            last = ValueRow(id_, Outcome.FAILURE, failure=END)
        else:
            last = replace(row, id=id_)
        home.resolve(id_, home.entries[id_], last)

    def read(self, rows: Iterable[tuple[TaskId, int, bool]]) -> list[TaskId]:
        """Take in how far the program has read; return unfinished tasks that nobody reads."""
        unread = []
        for task, count, over in rows:
            stream = self.open.get(task)
            if stream is None or stream.over:
                continue
            stream.read = max(stream.read, count)
            if not stream.ended:
                self.news[task] = None
            if over:
                self._let_go(task, stream)
                if not stream.ended:
                    unread.append(task)
        return unread

    def asked(self, ids: Iterable[bytes]) -> None:
        """The scheduler asks how far these are."""
        for id_ in ids:
            stream = self.open.get(TaskId(id_))
            if stream is not None and not stream.ended:
                self.news[TaskId(id_)] = None

    def told(self) -> list[tuple[bytes, int, int]]:
        """Return what the scheduler is to be told, and be empty of it."""
        rows: list[tuple[bytes, int, int]] = []
        for task in self.news:
            stream = self.open[task]
            rows.append((task, stream.received, min(stream.read, stream.received)))
        self.news.clear()
        return rows

    def _let_go(self, task: TaskId, stream: Stream) -> None:
        """Nobody reads any more: let go of what is here and was not read, and of what comes."""
        home = self._home
        stream.over = True
        for index in (*range(stream.read, stream.received + 1), *stream.early):
            id_ = item_of(task, index)
            entry = home.entries.get(id_)
            if entry is None:
                continue
            if entry.state == PENDING:
                # Another thread may wait for it.
                home.resolve(id_, entry, ValueRow(id_, Outcome.FAILURE, failure=END))
            assert entry.state == HERE, "an own item is never fetched"
            home.change_refs([(id_, -1)])
        # Those before an early one are on their way, and will not be said again.
        stream.received = max(stream.received, *(index + 1 for index in stream.early), 0)
        stream.early = frozenset()
        stream.read = stream.received
        if stream.ended:
            del self.open[task]
