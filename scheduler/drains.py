"""Nodes that are drained: they get nothing new, and go when nobody needs them any more.

Never ends anything that runs: the node does, if it is told to hurry. Never lets a node go that a
next life of the scheduler would wait for.

    Drain of an admin     the nodes are told, and off the board from that moment
    Draining              answered: the node itself knows, so a restart of anybody changes nothing
    Emptied               nothing is at the node: unless it is in a hurry, those who are getting
                          large values there are waited for
    Unread                nobody is: it is struck out of the roster, then told Farewell
"""

from typing import Any, Final

from ..protocol.drain import Drain, Draining, DrainNode, Emptied
from ..protocol.frames import Role
from ..protocol.ids import PeerId
from ..protocol.messages import Answer
from . import events
from .placement import Board
from .roster import Roster
from .state import Node, Peer, PeerError, State

#: so many requests may be unanswered; more are refused
ASKS_MAX: Final = 1000
#: of the values that others hold, so many are looked at to say who does
LOOK_AT: Final = 1000


class _Ask:
    """A request of an admin that is not answered yet."""

    __slots__ = ("begun", "message", "nodes", "peer", "unknown")

    def __init__(self, peer: Peer, message: Drain) -> None:
        self.peer = peer
        self.message = message
        self.begun = False
        self.nodes: list[Node] = []
        #: what names no node
        self.unknown: list[str] = []


class Drains:
    """See the module.

    Args:
        state: shared.
        board: the nodes that get work.
        roster: the nodes that a next life would wait for.
    """

    __slots__ = (
        "_asks", "_board", "_emptied", "_news", "_roster", "_state", "_unread", "pending",
    )  # fmt: skip

    def __init__(self, state: State, board: Board, roster: Roster) -> None:
        self._state = state
        self._board = board
        self._roster = roster
        self._asks: list[_Ask] = []
        #: nodes that say that nothing is left there -> how often they have said so
        self._emptied: dict[PeerId, int] = {}
        #: of those that have nothing by our account either -> whether it is known that nobody is
        #: getting what they have offered; it was asked
        self._unread: dict[PeerId, bool] = {}
        #: nodes that clients know of get no work any more
        self._news = False
        #: whether `turn` may have something to do
        self.pending = False

    # ------------------------------------------------------------------------------- how it begins

    def asked(self, peer: Peer, message: Drain) -> None:
        """Somebody wants nodes drained."""
        if peer.proven != Role.ADMIN:
            text = f"{peer.name!r} may not drain nodes: that takes the cluster file of an admin"
            self._state.out.letter(peer.id, Answer(message.request, {"error": text}))
        elif len(self._asks) >= ASKS_MAX:
            text = f"{ASKS_MAX} requests to drain nodes are not answered yet"
            self._state.out.letter(peer.id, Answer(message.request, {"error": text}))
        else:
            self._asks.append(_Ask(peer, message))
            self.pending = True

    def heard(self, node: Node, message: Draining) -> None:
        """A node knows that it is drained, whoever has told it."""
        self.begin(node, message.cancel)
        node.drain.heard = True
        node.drain.hurry_heard = node.drain.hurry_heard or message.cancel

    def begin(self, node: Node, cancel: bool) -> None:
        """A node gets nothing new from here on."""
        drain = node.drain
        if not drain.active:
            drain.active = True
            self._board.retire(node)
            self._news = self.pending = True
            text = f"node {node.name!r} is drained, with {len(node.assigned)} attempts"
            self._state.tell(text, "node drains", node=node.name)
        self._state.hosts.touch(node)  # they go elsewhere
        if cancel and not drain.hurries:
            drain.hurries = True
            text = f"node {node.name!r} ends what it runs"
            self._state.tell(text, "node drains", node=node.name)

    # ------------------------------------------------------------------------------------ each turn

    def turn(self) -> bool:
        """Tell nodes of it, answer who has asked, and let go who has nothing left.

        Returns whether fewer nodes take work than before.
        """
        for ask in list(self._asks):
            # Nodes of a life before may be on their way back.
            if not ask.begun and not self._state.recovering:
                self._begin(ask)
            if ask.begun and all(self._has_heard(node, ask) for node in ask.nodes):
                self._asks.remove(ask)
                self._state.out.letter(ask.peer.id, Answer(ask.message.request, self._rows(ask)))
        for peer_id, number in list(self._emptied.items()):
            node = self._state.nodes[peer_id]
            if self._has_nothing(node) and self._is_unread(node):
                del self._emptied[peer_id]
                self._unread.pop(peer_id, None)
                self._roster.depart(peer_id, number)
        self.pending = bool(self._asks or self._emptied)
        news, self._news = self._news, False
        return news

    def _begin(self, ask: _Ask) -> None:
        ask.begun = True
        cancel = ask.message.cancel
        for name in dict.fromkeys(ask.message.nodes):
            named = [n for n in self._state.nodes.values() if name in (n.name, n.id.hex())]
            for node in named:
                if node not in ask.nodes:
                    ask.nodes.append(node)
                self.begin(node, cancel)
                if not self._has_heard(node, ask):
                    self._state.out.letter(node.id, DrainNode(cancel))
            if not named:
                ask.unknown.append(name)

    def _has_heard(self, node: Node, ask: _Ask) -> bool:
        if not node.peer.here:
            return True
        return node.drain.hurry_heard if ask.message.cancel else node.drain.heard

    @staticmethod
    def _rows(ask: _Ask) -> list[dict[str, str]]:
        rows = [
            {
                "name": node.name,
                "id": node.id.hex(),
                "state": "draining" if node.peer.here else "lost",
            }
            for node in ask.nodes
        ]
        return rows + [{"name": name, "id": "", "state": "unknown"} for name in ask.unknown]

    # --------------------------------------------------------------------------------- how it ends

    def emptied(self, node: Node, message: Emptied) -> None:
        """A node says that nothing is left there."""
        if not node.drain.active:
            raise PeerError("it said that it is empty and is not drained")
        self._emptied[node.id] = message.number
        self._unread.pop(node.id, None)
        self.pending = True

    def unread(self, event: events.Unread) -> None:
        """Nobody is getting what a node has offered."""
        if event.peer in self._unread:
            self._unread[event.peer] = self.pending = True

    def _is_unread(self, node: Node) -> bool:
        """Return whether nobody is getting what a node has offered, or it does not wait for that.

        Results too: they would come from their submitters then, but perhaps slowly, or not at all,
        where those cannot be reached. Whoever does not read is waited for until the node hurries
        (`drain_timeout_s`).
        """
        if node.drain.hurries:
            return True
        if node.id not in self._unread:
            self._unread[node.id] = False
            self._state.out.leaves(node.id)
        return self._unread[node.id]

    def _has_nothing(self, node: Node) -> bool:
        """Return whether a node has nothing by our account either.

        What was on its way to it when it said so comes back, and it says so again.
        """
        claims = self._state.claims
        return not (
            node.assigned
            or node.calls
            or node.delivering
            or (claims.size and any(claim.node is node for claim in claims.all()))
        )

    def forget(self, peer: Peer) -> None:
        """A peer is gone."""
        self._emptied.pop(peer.id, None)
        self._unread.pop(peer.id, None)
        if self._asks:
            self._asks = [ask for ask in self._asks if ask.peer is not peer]

    # -------------------------------------------------------------------------------------- insight

    def waits_for(self, node: Node) -> list[str]:
        """Return what a node that is drained still has, for people."""
        waits = []
        if node.assigned:
            waits.append(_count(len(node.assigned), "task", "at it"))
        if node.calls:
            waits.append(_count(len(node.calls), "call", "of actors at it"))
        if node.delivering:
            waits.append(_count(len(node.delivering), "result", "on its way from it"))
        if node.peer.tasks:
            waits.append(_count(len(node.peer.tasks), "call", "of its tasks"))
        held: dict[PeerId, int] = {}
        for object_id in self._state.holders.of_home(node.id)[:LOOK_AT]:
            for holder in self._state.holders.holders_of(object_id):
                held[holder] = held.get(holder, 0) + 1
        for holder, count in held.items():
            peer = self._state.peers.get(holder)
            if peer is not None and holder != node.id:
                waits.append(_count(count, "value", f"that {peer.role} {peer.name!r} holds"))
        if not waits and self._roster.departs(node.id):
            waits.append("all others to hear that it goes")
        if not waits and not self._unread.get(node.id, True):
            waits.append("large values that others are getting there")
        return waits or ["results to be handed over"]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "drain_asks": len(self._asks),
            "emptied": len(self._emptied),
            "unread": len(self._unread),
        }

    def check_invariants(self) -> None:
        """Assert that who is drained is off the board, and that all who ask are there."""
        for node in self._state.nodes.values():
            assert node.drain.active != self._board.has(node)
            assert node.drain.active >= max(node.drain.heard, node.drain.hurries)
        assert all(self._state.nodes[peer_id].drain.active for peer_id in self._emptied)
        assert self._unread.keys() <= self._emptied.keys()
        assert all(ask.peer.here for ask in self._asks)


def status_of(node: Node) -> str:
    """Return a node's state in a word."""
    if node.drain.active:
        return "draining"
    return "suspect" if node.suspect else "alive"


def add_to(row: dict[str, Any], node: Node, drains: Drains) -> dict[str, Any]:
    """Add to a node's row what it waits for, if it is drained."""
    if node.drain.active:
        row["waits_for"] = drains.waits_for(node)
    return row


def _count(count: int, what: str, where: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'} {where}"
