"""What this client keeps, for `drumbeat objects`.

Never changes anything, and never looks at a value. A memory segment counts with the value that
needs it: nobody knows of it otherwise.
"""

from collections.abc import Callable, Mapping
from itertools import islice

from ..protocol.ids import PEER_BYTES, ObjectId, TaskId, task_of
from ..protocol.stock import (
    ACTOR,
    ARGUMENTS,
    DISK,
    NAME_MAX,
    PARTS_MAX,
    PUT,
    RESULT,
    SEGMENT,
    SHARED,
    STOCK_ROWS_MAX,
    Stock,
    StockRow,
    TakeStock,
)
from ..protocol.tally import (
    LOOK_AT,
    Found,
    found_in,
    is_segment,
    place_of,
    size_of,
    state_of,
)
from .events import Call
from .home import ABSENT, NO_KIND, Entry, Home
from .kinds import Kinds


def stock_of(message: TakeStock, home: Home, kinds: Kinds, tasks: Mapping[TaskId, Call]) -> Stock:
    """Return what is asked for.

    Args:
        message: the question.
        home: everything that this client keeps.
        kinds: what its functions are called.
        tasks: those that are unfinished.
    """
    if message.ids:
        known = [ObjectId(id_) for id_ in message.ids[:STOCK_ROWS_MAX]]
        rows = [_held(id_, entry) for id_ in known if (entry := home.entries.get(id_)) is not None]
        return Stock(message.number, rows)
    return _Look(message, home, kinds, tasks).told()


def placed(stock: Stock, is_spilled: Callable[[bytes], bool]) -> Stock:
    """Say of the values whose memory segments lie on disk that they do; return the stock.

    Args:
        stock: what is told.
        is_spilled: whether the segment of that id lies there.
    """
    for row in stock.rows:
        if row.place == SHARED and any(is_spilled(id_) for id_ in (row.id, *row.parts)):
            row.place = DISK
    return stock


def _held(id_: ObjectId, entry: Entry) -> StockRow:
    # Of another home's object: what it is, that knows.
    state, place = state_of(entry.row, wanted=False), place_of(entry.row)
    refs, uses = max(0, entry.refs), max(0, entry.pins)
    return StockRow(id_, RESULT, "", state, size_of(entry.row), place, refs, uses)


class _Look:
    """One look at everything."""

    def __init__(
        self, message: TakeStock, home: Home, kinds: Kinds, tasks: Mapping[TaskId, Call]
    ) -> None:
        self._message = message
        self._home = home
        self._kinds = kinds
        self._tasks = tasks
        #: value -> bytes of the segments that it needs, and these
        self._behind: dict[bytes, int] = {}
        self._parts: dict[bytes, list[bytes]] = {}
        #: segment -> the function whose arguments it holds
        self._arguments: dict[bytes, str] = {}

    def told(self) -> Stock:
        """Look, and return what there is."""
        entries, peer = self._home.entries, self._home.peer
        own: list[Found] = []
        copies: list[int] = []
        segments: dict[bytes, int] = {}
        carriers: list[tuple[ObjectId, tuple[bytes, ...]]] = []
        for id_, entry in islice(entries.items(), LOOK_AT):
            # Not a call more than need be: there may be very many.
            row, size = entry.row, 0
            if row is not None:
                payload = row.payload
                if payload is not None:
                    size = len(payload)
                elif is_segment(row):
                    size = segments[id_] = row.size
                if row.contained:
                    carriers.append((id_, row.contained))
            if id_[:PEER_BYTES] != peer:
                if row is not None:
                    copies.append(size)
            elif entry.state != ABSENT:
                own.append((size, id_))
        if segments:
            own = self._joined(own, segments, carriers)
        stock, found = found_in(self._message, own, copies, peer, self._name)
        stock.unseen = max(0, len(entries) - LOOK_AT)
        stock.rows = [self._row(ObjectId(id_), size) for size, id_ in found]
        return stock

    def _joined(
        self,
        own: list[Found],
        segments: dict[bytes, int],
        carriers: list[tuple[ObjectId, tuple[bytes, ...]]],
    ) -> list[Found]:
        """Count each segment with the first value that needs it; else find out whose it is."""
        alone = dict(segments)
        for id_, contained in carriers:
            for part in contained:
                size = alone.pop(part, 0)
                if size:
                    self._behind[id_] = self._behind.get(id_, 0) + size
                    self._parts.setdefault(id_, []).append(part)
        if alone:
            for call in islice(self._tasks.values(), LOOK_AT):
                for part in call.row.contained:
                    self._arguments.setdefault(part, self._kinds.name_of(call.row.kind))
        behind = self._behind
        return [
            (size + behind.get(id_, 0), id_)
            for size, id_ in own
            if id_ in alone or id_ not in segments
        ]

    def _name(self, id_: bytes) -> str:
        entry = self._home.entries[ObjectId(id_)]
        if entry.kind != NO_KIND:
            return self._kinds.name_of(entry.kind)[:NAME_MAX]
        return self._arguments.get(id_, "")[:NAME_MAX] if is_segment(entry.row) else ""

    def _row(self, id_: ObjectId, size_bytes: int) -> StockRow:
        entry = self._home.entries[id_]
        place = SHARED if id_ in self._behind else place_of(entry.row)
        return StockRow(
            id_,
            self._sort(id_, entry),
            self._name(id_),
            state_of(entry.row, wanted=entry.wanted),
            size_bytes,
            place,
            max(0, entry.refs),
            max(0, entry.pins),
            tuple(self._parts.get(id_, ())[:PARTS_MAX]),
        )

    def _sort(self, id_: ObjectId, entry: Entry) -> str:
        if is_segment(entry.row):
            return ARGUMENTS if id_ in self._arguments else SEGMENT
        if entry.kind == NO_KIND:
            return PUT
        call = self._tasks.get(task_of(id_))
        makes_actor = entry.is_actor or (call is not None and call.options.creates is not None)
        return ACTOR if makes_actor else RESULT
