"""Values that peers send because somebody waits for them.

Never keeps one: what nobody waits for any more is dropped and counted.
"""

from collections.abc import Callable
from functools import partial

from ..protocol.ids import ObjectId, home_of
from ..protocol.messages import ValueRow, Values
from .objects import Objects
from .state import Peer, PeerError, State, ignore


def values_came(
    state: State,
    objects: Objects,
    arrived: Callable[[ValueRow], None],
    peer: Peer,
    message: Values,
) -> None:
    """Take in the values of a home.

    Raises:
        PeerError: they are not its own.
    """
    for row in message.rows:
        if home_of(ObjectId(row.id)) != peer.id:
            raise PeerError("it sent a value whose home it is not")
        large = row.payload is None and row.size > 0
        if not objects.awaits(ObjectId(row.id)):
            if objects.orphans.told(peer, row):
                continue
            # Whoever wanted it has gone meanwhile.
            state.counters["stale_dropped"] += 1
            if large:
                peer.expect(row.id, ignore)
        elif large:
            peer.expect(row.id, partial(_complete, row, arrived))
        else:
            arrived(row)


def _complete(row: ValueRow, then: Callable[[ValueRow], None], payload: bytes) -> None:
    row.payload = payload
    then(row)
