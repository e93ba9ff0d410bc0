"""What tasks yield: passed on to their submitters, and back how far those have read.

Never counts and never keeps an item: that is for the ends. What an attempt says that is not the
current one is dropped and counted; an item is no outcome, and changes nothing of its task.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..protocol.ids import OBJECT_BYTES, PeerId, TaskId, task_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.remotes import Remote
from ..protocol.yields import HowFar, ItemsTaken, Yielded, YieldRow
from .state import Node, Peer, PeerError, State, ignore
from .tasks import ASSIGNED, TaskRecord


class Yields:
    """See the module."""

    __slots__ = ("_state", "said_by_all", "said_by_nodes")

    def __init__(self, state: State) -> None:
        self._state = state
        #: what everybody may say, and what nodes alone may
        self.said_by_all: dict[type, Callable[[Peer, Any], None]] = {ItemsTaken: self.taken}
        self.said_by_nodes: dict[type, Callable[[Peer, Any], None]] = {
            Yielded: self.came,
            HowFar: self.asked,
        }

    def came(self, peer: Peer, message: Yielded) -> None:
        """Attempts of a node have yielded items."""
        node = peer.node
        assert node is not None, "only a node that has joined says so"
        for row in message.rows:
            if len(row.id) != OBJECT_BYTES:
                raise PeerError("it said that a task had yielded what is no item")
            record = _current(node, row)
            is_large = row.payload is None and row.size > 0
            if record is None:
                self._state.counters["stale_dropped"] += 1
                if is_large:
                    peer.expect(row.id, ignore)
            elif is_large:
                peer.expect(row.id, partial(self._large_came, node, row))
            else:
                self._pass_on(record, row)

    def _large_came(self, node: Node, row: YieldRow, payload: bytes) -> None:
        record = _current(node, row)
        if record is None:
            self._state.counters["stale_dropped"] += 1
            return
        row.payload = payload
        if isinstance(payload, Remote):
            payload.is_told = True
        self._pass_on(record, row)

    def _pass_on(self, record: TaskRecord, row: YieldRow) -> None:
        out, owner = self._state.out, record.owner
        if owner.here:
            value = ValueRow(row.id, Outcome.VALUE, row.payload, 0, row.contained)
            out.results.setdefault(owner.id, []).append(out.packed(owner.id, value))

    def taken(self, peer: Peer, message: ItemsTaken) -> None:
        """A submitter has received and read items: whoever runs the task is told."""
        nodes: dict[PeerId, list[tuple[bytes, int, int]]] = {}
        for row in message.rows:
            record = peer.tasks.get(TaskId(row[0]))
            # Of another it has no news that will not be asked for.
            if record is not None and record.state == ASSIGNED and record.node is not None:
                nodes.setdefault(record.node.id, []).append(row)
        for node, rows in nodes.items():
            self._state.out.letter(node, ItemsTaken(rows))

    def asked(self, peer: Peer, message: HowFar) -> None:
        """A node asks how far the submitters of what it runs have read."""
        node = peer.node
        assert node is not None, "only a node that has joined says so"
        owners: dict[PeerId, list[bytes]] = {}
        for id_ in message.ids:
            record = node.find(id_)
            if record is not None and record.owner.here:
                owners.setdefault(record.owner.id, []).append(id_)
        for owner, ids in owners.items():
            self._state.out.letter(owner, HowFar(ids))


def _current(node: Node, row: YieldRow) -> TaskRecord | None:
    """Return the task of an item, if it is of the attempt that counts."""
    record = node.find(task_of(row.id))  # type: ignore[arg-type]  # an object's id, at this place
    if record is None or record.attempt != row.attempt or not record.kind.options.stream_buffer_max:
        return None
    return record
