"""Where the large values lie that a task depends on: it goes there if there is room.

Never makes a task wait for a node: bytes that travel are better than a task that stands.
"""

from collections.abc import Iterable, Mapping

from ..protocol.ids import PeerId
from ..protocol.messages import ValueRow
from ..protocol.remotes import Remote
from .placement import Board
from .state import Node
from .tasks import TaskRecord


def nearest(
    record: TaskRecord, values: Iterable[ValueRow], nodes: Mapping[PeerId, Node], board: Board
) -> Node | None:
    """Return the node that has most of what a task needs and could take it now; None: none does.

    Args:
        record: a task whose values are there.
        values: what it depends on.
        nodes: all there are.
        board: knows what they could take.
    """
    kind = record.kind
    if kind.shape.spread:
        return None
    bytes_at: dict[PeerId, int] = {}
    for value in values:
        payload = value.payload
        if isinstance(payload, Remote):
            peer = payload.holder.peer
            bytes_at[peer] = bytes_at.get(peer, 0) + len(payload)
    # The first of those that have as much, so that a run replays.
    for peer in sorted(bytes_at, key=bytes_at.__getitem__, reverse=True):
        node = nodes.get(peer)
        if node is not None and board.could_take(node, kind):
            return node
    return None
