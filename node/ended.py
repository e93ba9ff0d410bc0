"""What has ended here: told to the scheduler, and kept until its submitters have it.

Never lets go of a row, its payloads or the refs inside before the scheduler says that the row was
handed over, or that nobody waits for it: the scheduler itself may end at any time. Never knows why
an attempt ended.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from ..protocol.ids import TaskId, home_of, show
from ..protocol.messages import Done, DoneRow
from ..protocol.recovery import InventoryRow, Phase
from .state import NodeState, refs_in

#: rows in one Done message: what cannot be divided on its way must not become too long for it
DONE_ROWS_MAX = 512


#: what one Done message told, large payloads included; refs inside the rows' values, pinned; and
#: those inside what the attempts had yielded before
_Told = tuple[list[DoneRow], tuple[bytes, ...], tuple[bytes, ...]]


class Ended:
    """All that has ended here and is not handed over yet."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._last_number = 0
        #: by the number of their message in this life of the link
        self._told: dict[int, _Told] = {}
        #: told to a scheduler that is no more: kept until the next one asks for it, or stops it
        self._former: dict[bytes, DoneRow] = {}

    def tell(self) -> None:
        """Tell the scheduler what has ended in this turn."""
        state = self._state
        rows, state.done = state.done, []
        rare, state.rare = state.rare, []
        left = state.streams.let_go() if state.streams.left else ()
        if not rare and len(rows) <= DONE_ROWS_MAX:
            self._send(rows, rows, (), left)
            return
        sent = rows.copy()
        for place in rare:
            values = tuple(
                state.outgoing(value, rows[place].attempt) for value in rows[place].values
            )
            sent[place] = replace(rows[place], values=values)
        for start in range(0, len(rows), DONE_ROWS_MAX):
            end = start + DONE_ROWS_MAX
            refs = [id_ for place in rare if start <= place < end for id_ in refs_in(rows[place])]
            behind = left if end >= len(rows) else ()
            self._send(rows[start:end], sent[start:end], tuple(refs), behind)

    def _send(
        self,
        rows: list[DoneRow],
        sent: list[DoneRow],
        refs: tuple[bytes, ...],
        left: tuple[bytes, ...],
    ) -> None:
        self._last_number = number = self._last_number + 1
        self._told[number] = rows, refs, left
        self._state.send(Done(sent, number))

    def handed_over(self, numbers: Iterable[int]) -> None:
        """The submitters have what these Done messages told."""
        for number in numbers:
            told = self._told.pop(number, None)
            if told is None:
                self._state.counters["stale_dropped"] += 1
            elif told[1] or told[2]:
                self._state.objects.unpin(told[1] + told[2])

    def restarted(self) -> None:
        """The scheduler is another: what was told, or was about to be, counts as not told."""
        state = self._state
        rows = [row for told, _, _ in self._told.values() for row in told]
        for _, _, left in self._told.values():
            state.objects.unpin(left)
        rows += state.done
        self._told, state.done, state.rare = {}, [], []
        self._last_number = 0
        for row in rows:
            known = self._former.get(row.id)
            if known is not None and known.attempt > row.attempt:
                state.objects.unpin(refs_in(row))
                continue
            if known is not None:
                state.objects.unpin(refs_in(known))
            self._former[row.id] = row
        # Whoever goes on with a task here has been told what came of its attempts before.
        for task in [task for task in self._former if task in state.attempts]:
            self._forget(task)

    def inventory(self) -> list[InventoryRow]:
        """Return what the scheduler may ask for."""
        return [InventoryRow(row.id, row.attempt, Phase.ENDED) for row in self._former.values()]

    def report(self, rows: Iterable[tuple[bytes, int]], now_s: float) -> None:
        """A submitter waits for these: tell them anew."""
        for task, attempt in rows:
            row = self._former.get(task)
            if row is None or row.attempt != attempt:
                self._state.counters["reports_unanswered"] += 1
                self._state.note(now_s, f"cannot report attempt {attempt} of {show(task)}")
                continue
            del self._former[task]
            self._state.ended(row)

    def stop(self, task: bytes, attempt: int) -> bool:
        """Nobody waits for an attempt; return whether it had ended in a former life."""
        row = self._former.get(task)
        if row is None or row.attempt != attempt:
            return False
        self._forget(task)
        return True

    def forget_client(self, client: bytes) -> None:
        """A client has left: it waits for nothing."""
        for task in [task for task in self._former if home_of(TaskId(task)) == client]:
            self._forget(task)

    def clear(self) -> None:
        """The scheduler has given this node up; its pins go with all others."""
        self._told, self._former = {}, {}
        self._state.done, self._state.rare = [], []
        self._last_number = 0

    def _forget(self, task: bytes) -> None:
        self._state.objects.unpin(refs_in(self._former.pop(task)))

    # -------------------------------------------------------------------------------- for checking

    def sizes(self) -> dict[str, int]:
        """Return how many messages are not handed over, and how many rows are not asked for."""
        return {"held": len(self._told), "ended": len(self._former)}

    def pins(self) -> list[tuple[bytes, ...]]:
        """Return the refs that are pinned for these rows."""
        pins = [refs + left for _, refs, left in self._told.values()]
        pins += [refs_in(row) for row in self._former.values()]
        return pins + [refs_in(self._state.done[place]) for place in self._state.rare]
