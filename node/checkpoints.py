"""The last checkpoint of each actor here: told to the scheduler, and to the next one again.

Never opens one. Never lets go of one before the scheduler says so, or that it has a newer one: it
keeps them in its memory only, so what is here is what it will know after it was restarted, and what
is on its way may yet be refused. Large ones go one at a time: of what is on its way there is never
more than one.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    CheckpointRow,
    CheckpointsGone,
    CheckpointsKept,
)
from .attempts import ARRIVING, Attempt, Worker
from .events import SendBlob, SendWorker
from .packets import Checkpointed, CheckpointKept
from .state import NodeState

#: rows in one message: what rides in them adds up
_ROWS_MAX: Final = 16


class _Kept(Struct, gc=False):
    """The last one of an actor that the scheduler is known to have, and those told after it.

    After a large one its worker waits, and of small ones no more are on their way than the actor
    has calls here: each goes as soon as the scheduler is known to have a newer one.
    """

    client: bytes
    #: the oldest first
    rows: list[CheckpointRow]
    #: whose state the newest is
    worker: int

    def index(self, incarnation: int, number: int) -> int | None:
        """Return where that one is; None: it has gone."""
        for index, row in enumerate(self.rows):
            if (row.incarnation, row.number) == (incarnation, number):
                return index
        return None


class Checkpoints:
    """See the module.

    Args:
        state: shared.
    """

    def __init__(self, state: NodeState) -> None:
        self._state = state
        #: by the actor's creation
        self._kept: dict[bytes, _Kept] = {}
        #: large ones that have been announced; the first is on its way
        self._bulk: deque[CheckpointRow] = deque()

    # ---------------------------------------------------------------------------------- they come

    def came(self, worker: Worker, packet: Checkpointed, now_s: float) -> None:
        """An actor tells its state."""
        hosted = worker.actor
        attempt = None if hosted is None or not hosted.up else hosted.attempt
        if attempt is None or self._state.attempts.get(attempt.row.id) is not attempt:
            self._state.counters["stale_dropped"] += 1
            self._state.note(now_s, f"worker {worker.number} told the state of no actor")
            return
        row = CheckpointRow(
            attempt.row.id, attempt.row.attempt, packet.number, packet.payload, len(packet.payload)
        )
        kept = self._kept.get(row.id)
        if kept is None:
            kept = self._kept[row.id] = _Kept(attempt.kind.client, [], worker.number)
        kept.worker = worker.number
        # Those before it stay: this one may be refused.
        kept.rows.append(row)
        self._state.send(Checkpoint([self._told(row)]))
        self._send_next()

    def made(self, worker: Worker, attempt: Attempt) -> None:
        """An actor has been made of the checkpoint that came with its creation."""
        row = attempt.row
        if row.checkpoint is not None:
            self._kept[row.id] = _Kept(attempt.kind.client, [_base_of(attempt)], worker.number)

    def _told(self, row: CheckpointRow) -> CheckpointRow:
        """Return a row as it is sent."""
        payload = row.payload
        assert payload is not None, "it is whole here"
        if len(payload) <= self._state.settings.inline_bytes_max:
            return replace(row, size=0)
        self._bulk.append(row)
        return replace(row, payload=None)

    def _send_next(self) -> None:
        if len(self._bulk) == 1:
            self._send_first()

    def _send_first(self) -> None:
        row = self._bulk[0]
        assert row.payload is not None, "it is whole here"
        self._state.commands.append(SendBlob(row.id + CHECKPOINT, row.payload))

    # ------------------------------------------------------------------------------ they are there

    def are_kept(self, message: CheckpointsKept) -> None:
        """The scheduler has these: who told of large ones may tell of another."""
        for id_, incarnation, number in message.rows:
            first = self._bulk[0] if self._bulk else None
            is_first = first is not None and _is(first, id_, incarnation, number)
            if is_first:
                self._bulk.popleft()
                if self._bulk:
                    self._send_first()
            kept = self._kept.get(id_)
            index = None if kept is None else kept.index(incarnation, number)
            if kept is None or index is None:
                if not is_first:
                    self._state.counters["stale_dropped"] += 1
                continue
            del kept.rows[:index]
            if is_first and number and kept.rows[-1].incarnation == incarnation:
                self._tell_worker(kept.worker, number)

    def are_gone(self, message: CheckpointsGone) -> None:
        """Nobody needs these any more, and those had no room."""
        for id_, incarnation in message.rows:
            kept = self._kept.get(id_)
            if kept is not None:
                kept.rows = [row for row in kept.rows if row.incarnation > incarnation]
                if not kept.rows:
                    del self._kept[id_]
        for id_, incarnation, number in message.refused:
            kept = self._kept.get(id_)
            index = None if kept is None else kept.index(incarnation, number)
            if kept is None or index is None:
                continue
            # One before it is what the actor goes back to, and what the next scheduler has to know.
            del kept.rows[index]
            if not kept.rows:
                del self._kept[id_]
            self._tell_worker(kept.worker, number)

    def _tell_worker(self, number: int, checkpoint: int) -> None:
        """An actor may tell its state again."""
        worker = self._state.workers.get(number)
        if worker is not None and not worker.dropped:
            self._state.commands.append(SendWorker(number, CheckpointKept(checkpoint)))

    def forget_client(self, client: bytes) -> None:
        """A client has left, and its actors have ended."""
        self._kept = {id_: kept for id_, kept in self._kept.items() if kept.client != client}

    # -------------------------------------------------------------------------- the scheduler ends

    def tell_again(self) -> None:
        """Say to another scheduler what there is."""
        self._bulk.clear()
        rows = [self._told(row) for row in self._rows()]
        for start in range(0, len(rows), _ROWS_MAX):
            self._state.send(Checkpoint(rows[start : start + _ROWS_MAX]))
        if self._bulk:
            self._send_first()

    def _rows(self) -> Iterator[CheckpointRow]:
        for kept in self._kept.values():
            yield kept.rows[0]
        for attempt in self._state.attempts.values():
            # Those that are about to be made of what came with them: nobody else may have it.
            if attempt.row.checkpoint is not None and attempt.state != ARRIVING:
                yield _base_of(attempt)
        # Last those that may have no room: they are to take none from what had some.
        for kept in self._kept.values():
            yield from kept.rows[1:]

    def clear(self) -> None:
        """The scheduler has given this node up."""
        self._kept.clear()
        self._bulk.clear()

    # --------------------------------------------------------------------------------- for checking

    def sizes(self) -> dict[str, int]:
        """Return how many are kept, and how many are on their way."""
        count = sum(len(kept.rows) for kept in self._kept.values())
        return {"checkpoints": count, "checkpoints_sent": len(self._bulk)}


def _is(row: CheckpointRow, id_: bytes, incarnation: int, number: int) -> bool:
    return (row.id, row.incarnation, row.number) == (id_, incarnation, number)


def _base_of(attempt: Attempt) -> CheckpointRow:
    row = attempt.row
    assert row.checkpoint is not None, "it has one"
    return CheckpointRow(row.id, row.attempt, 0, row.checkpoint, len(row.checkpoint))
