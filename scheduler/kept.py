"""What nodes say for clients that have yet to come back: kept in order, and said again then.

Never decides whether a client will come, nor how much is too much: `Recovery` does.
"""

from typing import Final

from ..protocol.ids import PeerId
from ..protocol.messages import Define, Forget, Submit
from .state import Peer

Said = Define | Submit | Forget

#: what a row takes beside its arguments, values or code
ROW_BYTES: Final = 256


class Kept:
    """All that is kept, by client."""

    __slots__ = ("_by_client", "_by_peer", "_bytes", "_numbers")

    def __init__(self) -> None:
        self._by_client: dict[PeerId, list[tuple[Peer, Said]]] = {}
        #: how much of a node is kept
        self._by_peer: dict[PeerId, int] = {}
        self._bytes: dict[PeerId, int] = {}
        #: whose kinds a node's numbers are, as far as their definition or calls of them are kept
        self._numbers: dict[tuple[PeerId, int], PeerId] = {}

    def add(self, client: PeerId, peer: Peer, message: Said) -> int:
        """Keep a message for a client; return how many bytes are kept of that node now."""
        self._by_client.setdefault(client, []).append((peer, message))
        self._by_peer[peer.id] = self._by_peer.get(peer.id, 0) + 1
        for number in _numbers_of(message):
            self._numbers[peer.id, number] = client
        self._bytes[peer.id] = kept_bytes = self._bytes.get(peer.id, 0) + _bytes_of(message)
        return kept_bytes

    def add_forget(self, peer: Peer, message: Forget) -> bool:
        """Keep the numbers that are kept otherwise, leave the others; return if none is left."""
        left = []
        for number in message.kinds:
            client = self._numbers.get((peer.id, number))
            if client is None:
                left.append(number)
            else:
                self.add(client, peer, Forget([number]))
        message.kinds = left
        return not left

    def take(self, client: PeerId) -> list[tuple[Peer, Said]]:
        """Return what was kept for a client, in order."""
        taken = [(peer, said) for peer, said in self._by_client.pop(client, ()) if peer.here]
        for peer, said in taken:
            self._by_peer[peer.id] -= 1
            self._bytes[peer.id] -= _bytes_of(said)
            if not self._by_peer[peer.id]:
                del self._by_peer[peer.id], self._bytes[peer.id]
            for number in _numbers_of(said):
                self._numbers.pop((peer.id, number), None)
        return taken

    def clients(self) -> list[PeerId]:
        """Return the clients for which anything is kept."""
        return list(self._by_client)

    def has_of(self, peer: PeerId) -> bool:
        """Return whether anything of a node is kept."""
        return peer in self._by_peer

    def forget(self, peer: PeerId) -> None:
        """A node is gone: what is kept of it is of no use."""
        if self._by_peer.pop(peer, None) is None:
            return
        del self._bytes[peer]
        for client, said in list(self._by_client.items()):
            left = [one for one in said if one[0].id != peer]
            if left:
                self._by_client[client] = left
            else:
                del self._by_client[client]
        for key in [key for key in self._numbers if key[0] == peer]:
            del self._numbers[key]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "kept_for_clients": len(self._by_client),
            "kept_of_nodes": len(self._by_peer),
            "kept_numbers": len(self._numbers),
        }

    def check_invariants(self) -> None:
        """Assert that the counts are true."""
        counts: dict[PeerId, int] = {}
        for said in self._by_client.values():
            for peer, _ in said:
                if peer.here:
                    counts[peer.id] = counts.get(peer.id, 0) + 1
        assert counts == self._by_peer
        assert self._bytes.keys() == self._by_peer.keys()


def _numbers_of(message: Said) -> list[int]:
    """Return the kinds that must not be forgotten before the message is said again."""
    if isinstance(message, Define):
        return [row.number for row in message.rows]
    if isinstance(message, Submit):
        # Their definition may have been taken in: the client was here then, and came once more.
        return [row.kind for row in message.rows]
    return []


def _bytes_of(message: Said) -> int:
    if isinstance(message, Forget):
        return ROW_BYTES
    if isinstance(message, Define):
        return sum(ROW_BYTES + len(kind.payload or b"") for kind in message.rows)
    return sum(
        ROW_BYTES + len(row.args or b"") + sum(len(value.payload or b"") for value in row.values)
        for row in message.rows
    )
