"""What tasks of this node yield before they end: told, and kept until it was received.

Never decides when a worker may go on: it waits until its reader has read so many. Never knows who
reads, nor opens an item.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from ..protocol.ids import index_of, item_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.yields import ITEMS_MAX, HowFar, ItemsTaken, Yielded, YieldRow
from .attempts import Attempt, Waiter, Worker
from .packets import Item

if TYPE_CHECKING:
    from .state import NodeState

#: rows in one message: what cannot be divided on its way must not become too long for it
YIELD_ROWS_MAX = 512


class Stream(Struct, eq=False):
    """What one attempt has yielded."""

    attempt: int
    #: so many were received by the submitter, and read of those
    received: int = 0
    read: int = 0
    #: by index: what was told and is not known to be received. The refs inside are pinned
    kept: dict[int, ValueRow] = {}  # msgspec copies it
    waiters: tuple[Waiter, ...] = ()


class Streams:
    """All that attempts here have yielded, by their tasks.

    Args:
        state: the node's.
    """

    def __init__(self, state: "NodeState") -> None:
        self._state = state
        self.open: dict[bytes, Stream] = {}
        #: to be told, in order, with the number of its attempt
        self.said: list[tuple[int, ValueRow]] = []
        #: to be asked: how far has this been read
        self.asked: dict[bytes, None] = {}

        #: refs inside what attempts that ended in this turn had yielded and may be on its way:
        #: whoever gets it holds them by the time that the end is handed over
        self.left: list[bytes] = []

    # --------------------------------------------------------------------------- workers and tasks

    def yielded(self, worker: Worker, packet: Item) -> str:
        """A row has yielded an item; return what of that cannot be true, or ""."""
        attempt = worker.has(packet.seq)
        if attempt is None:
            self._state.counters["stale_dropped"] += 1
            return ""
        value = packet.value
        task, index = attempt.row.id, index_of(value.id)
        stream = self._of(attempt)
        right = (
            attempt.kind.options.stream_buffer_max
            and value.id == item_of(task, index)  # type: ignore[arg-type]  # the id of a task
            and value.outcome == Outcome.VALUE
            and value.payload is not None
            and index < ITEMS_MAX
            and len(stream.kept) < attempt.kind.options.stream_buffer_max
            and index not in stream.kept
        )
        if not right:
            self._drop_if_idle(task)
            return "it yielded what is no item of its task, or more than it may"
        if index >= stream.received:
            stream.kept[index] = value
            self._state.objects.pin(value.contained)
            self._say(stream, value)
        return ""

    def wait(self, waiter: Waiter, attempt: Attempt | None, reads: tuple[int, int]) -> None:
        """A worker waits until so many items were received, and so many read."""
        waiter.reads = reads
        if attempt is None or not attempt.kind.options.stream_buffer_max:
            self._end(waiter)
            return
        waiter.stream = attempt.row.id
        stream = self._of(attempt)
        stream.waiters = (*stream.waiters, waiter)
        self._look(stream)

    def leave(self, waiter: Waiter) -> None:
        """A waiter has been answered, or its worker has gone."""
        stream = self.open.get(waiter.stream)
        if stream is not None:
            stream.waiters = tuple(other for other in stream.waiters if other is not waiter)

    def reads_of(self, task: bytes) -> tuple[int, int]:
        """Return how many items of a task were received and read."""
        stream = self.open.get(task)
        return (0, 0) if stream is None else (stream.received, stream.read)

    def forget(self, task: bytes) -> None:
        """An attempt has ended, or is no more ours."""
        stream = self.open.pop(task, None)
        self.asked.pop(task, None)
        if stream is not None:
            for value in stream.kept.values():
                self.left += value.contained
            for waiter in stream.waiters:
                self._end(waiter)  # of one that was interrupted and asked for no answer

    # -------------------------------------------------------------------------------- the scheduler

    def taken(self, message: ItemsTaken) -> None:
        """The submitters of tasks have received and read items."""
        for task, received, read in message.rows:
            stream = self.open.get(task)
            if stream is None:
                continue
            stream.received = max(stream.received, received)
            stream.read = max(stream.read, min(read, stream.received))
            for index in [index for index in stream.kept if index < stream.received]:
                self._state.objects.unpin(stream.kept.pop(index).contained)
            self._look(stream)

    def say_again(self, message: HowFar) -> None:
        """The scheduler has not had what of these was said last, or has lost it."""
        for task in message.ids:
            stream = self.open.get(task)
            if stream is not None:
                self.asked[task] = None
                for value in stream.kept.values():
                    self._say(stream, value)

    def let_go(self) -> tuple[bytes, ...]:
        """Return the refs that attempts left behind which have ended; they are still pinned."""
        left, self.left = tuple(self.left), []
        return left

    def restarted(self) -> None:
        """The scheduler is another: it says what it wants to hear again."""
        self.said.clear()
        self.asked.clear()

    def clear(self) -> None:
        """The link's life is over, and with it all attempts; their pins are gone as well."""
        self.open.clear()
        self.left.clear()
        self.restarted()

    def tell(self) -> None:
        """Tell what was yielded in this turn; ask what is to be asked."""
        state, said, self.said = self._state, self.said, []
        for start in range(0, len(said), YIELD_ROWS_MAX):
            rows: list[YieldRow] = []
            for attempt, value in said[start : start + YIELD_ROWS_MAX]:
                row = state.outgoing(value, attempt)
                rows.append(YieldRow(row.id, attempt, row.payload, row.size, row.contained))
            state.send(Yielded(rows))
        if self.asked:
            asked, self.asked = list(self.asked), {}
            state.send(HowFar(asked))

    # -------------------------------------------------------------------------------------- inside

    def _of(self, attempt: Attempt) -> Stream:
        stream = self.open.get(attempt.row.id)
        if stream is None:
            stream = self.open[attempt.row.id] = Stream(attempt.row.attempt)
        return stream

    def _drop_if_idle(self, task: bytes) -> None:
        stream = self.open[task]
        if not stream.kept and not stream.waiters:
            del self.open[task]

    def _say(self, stream: Stream, value: ValueRow) -> None:
        self.said.append((stream.attempt, value))

    def _look(self, stream: Stream) -> None:
        for waiter in stream.waiters:
            received, read = waiter.reads
            if stream.received >= received and stream.read >= read:
                self._end(waiter)

    def _end(self, waiter: Waiter) -> None:
        if not waiter.over:
            waiter.over = True
            self._state.objects.satisfied.append(waiter)

    # -------------------------------------------------------------------------------- for checking

    def sizes(self) -> dict[str, int]:
        """Return how many tasks have yielded something and have not ended."""
        return {"streams": len(self.open), "takings": len(self._state.objects.takings.open)}

    def pins(self) -> list[tuple[bytes, ...]]:
        """Return the refs that are pinned for what is kept."""
        kept = [value.contained for one in self.open.values() for value in one.kept.values()]
        return [*kept, tuple(self.left)]

    def check_invariants(self) -> None:
        """Assert that everything kept is of an attempt that is here."""
        for task, stream in self.open.items():
            attempt = self._state.attempts[task]
            assert attempt.row.attempt == stream.attempt
            assert stream.read <= stream.received
            assert all(index >= stream.received for index in stream.kept)
            assert len(stream.kept) <= attempt.kind.options.stream_buffer_max
            for waiter in stream.waiters:
                assert waiter.stream == task
