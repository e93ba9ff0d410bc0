"""What this node keeps of what its workers submit and put, for `drumbeat objects`.

Never changes anything, and never looks at a value.
"""

from itertools import islice

from ..protocol.ids import ObjectId, task_of
from ..protocol.stock import (
    ACTOR,
    NAME_MAX,
    PUT,
    RESULT,
    STOCK_ROWS_MAX,
    Stock,
    StockRow,
    TakeStock,
)
from ..protocol.tally import LOOK_AT, Found, found_in, place_of, size_of, state_of
from .objects import Objects
from .state import NodeState


def stock_of(message: TakeStock, state: NodeState) -> Stock:
    """Return what is asked for."""
    objects, entries = state.objects, state.objects.entries
    if message.ids:
        known = [id_ for id_ in message.ids[:STOCK_ROWS_MAX] if id_ in entries]
        return Stock(message.number, [_row(id_, state) for id_ in known])
    own: list[Found] = []
    copies: list[int] = []
    for id_, entry in islice(entries.items(), LOOK_AT):
        row = entry.row
        size = 0 if row is None else len(row.payload or b"")
        if not entry.home:
            if row is not None:
                copies.append(size)
        elif row is not None or entry.pending:
            own.append((size, id_))
    stock, found = found_in(message, own, copies, state.peer, lambda id_: entries[id_].name)
    stock.unseen = max(0, len(entries) - LOOK_AT)
    stock.rows = [_row(id_, state, _sort(id_, objects)) for _, id_ in found]
    return stock


def _row(id_: bytes, state: NodeState, sort: str = RESULT) -> StockRow:
    entry = state.objects.entries[id_]
    holders = sum(id_ in worker.holds for worker in state.workers.values())
    return StockRow(
        id_,
        sort,
        entry.name[:NAME_MAX],
        state_of(entry.row, wanted=entry.wanted),
        size_of(entry.row),
        place_of(entry.row),
        holders,
        max(0, entry.count - holders) + len(entry.waiters),
    )


def _sort(id_: bytes, objects: Objects) -> str:
    if not objects.entries[id_].name:
        return PUT
    call = objects.calls.get(task_of(ObjectId(id_)))
    return ACTOR if call is not None and call.creates else RESULT
