"""Who comes and who goes: links that begin, introductions, judgements, farewells.

Never places a task. A peer that is gone is forgotten in one place, with all that it had.
"""

from typing import TYPE_CHECKING

from ..protocol.frames import Role
from ..protocol.liveness import NEVER_S, Life, Liveness
from ..protocol.messages import Enter, Join, Leave, Shape, Shapes
from . import events
from .state import Node, Peer, PeerError, State

if TYPE_CHECKING:
    from .attempts import Attempts
    from .bounds import Bounds
    from .deliveries import Deliveries
    from .kinds import Kinds
    from .objects import Objects
    from .placement import Board
    from .recovery import Recovery
    from .roster import Roster
    from .work import Work


class Presence:
    """Everybody who is there."""

    __slots__ = (
        "_attempts", "_board", "_bounds", "_deliveries", "_kinds", "_objects", "_out", "_recovery",
        "_roster", "_serial", "_state", "_work", "clients_alive", "late_s", "nodes_alive",
        "shapes_changed",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        board: "Board",
        kinds: "Kinds",
        objects: "Objects",
        work: "Work",
        attempts: "Attempts",
        deliveries: "Deliveries",
        bounds: "Bounds",
        recovery: "Recovery",
        roster: "Roster",
    ) -> None:
        self._state = state
        self._out = state.out
        self._board = board
        self._kinds = kinds
        self._objects = objects
        self._work = work
        self._attempts = attempts
        self._deliveries = deliveries
        self._bounds = bounds
        self._recovery = recovery
        self._roster = roster
        self._serial = 0
        self.shapes_changed = False
        #: how late this process was since it last judged
        self.late_s = 0.0
        settings = state.settings
        interval_s = settings.heartbeat_interval_s
        self.nodes_alive = Liveness(
            settings.suspect_after_intervals * interval_s,
            settings.lost_after_intervals * interval_s,
            settings.connection_lost_s,
            interval_s,
        )
        # A client is judged by its connection: silence makes it suspect, which changes nothing.
        self.clients_alive = Liveness(
            settings.client_silence_s,
            settings.client_silence_s,
            settings.client_grace_s,
            interval_s,
        )

    # ---------------------------------------------------------------------------------------- links

    def heard(self, event: events.PeerHeard) -> None:
        """Frames came from these peers."""
        peers, now_s = self._state.peers, self._state.now_s
        for peer_id in event.peers:
            peer = peers.get(peer_id)
            if peer is not None:
                watch = self.nodes_alive if peer.role == Role.NODE else self.clients_alive
                watch.heard(peer_id, now_s)

    def joined(self, event: events.PeerJoined) -> None:
        """A link life begins."""
        old, hello = self._state.peers.get(event.peer), event.hello
        if old is not None:
            same = (old.role, old.python) == (hello.role, hello.python)
            if old.entered or not same or hello.epoch in (0, self._state.epoch):
                self.forget(old, "began a new life of its link")
            else:
                # It never heard of the life that ends here: it comes again as it came before.
                old.here = False
                self._watch(old).forget(old.id)
                self._deliveries.forget(old.id)
                self._bounds.forget(old)
        if hello.role not in (Role.CLIENT, Role.NODE):
            self._out.drop(event.peer, "RemoteProtocolError", f"nobody is a {hello.role!r} here")
            return
        for other in self._state.peers.values():
            if other.python and hello.python and other.python != hello.python:
                text = (
                    f"this process runs Python {hello.python} and {other.role} {other.name!r} "
                    f"Python {other.python}; all of a cluster have to run the same minor version"
                )
                self._out.drop(event.peer, "VersionMismatch", text)
                return
        peer = self._state.peers[event.peer] = Peer(event.peer, hello)
        self._out.meet(peer.id)
        self._recovery.met(peer, hello.epoch)
        self._watch(peer).heard(peer.id, self._state.now_s)

    def returned(self, event: events.PeerReturned) -> None:
        """A connection is back within its link life."""
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = True
            self._watch(peer).returned(peer.id, self._state.now_s)

    def disconnected(self, event: events.PeerDisconnected) -> None:
        """A connection closed."""
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = False
            self._watch(peer).closed(peer.id, self._state.now_s)
            self._state.tell(f"{peer.role} {peer.name!r} disconnected")

    def was_late(self, event: events.TimePassed) -> None:
        """The scheduler itself was away."""
        self.late_s = max(self.late_s, event.late_s)
        if self._recovery.open:
            self._recovery.was_late(event.late_s)

    # ----------------------------------------------------------------------------------- judgements

    def _watch(self, peer: Peer) -> Liveness:
        return self.nodes_alive if peer.role == Role.NODE else self.clients_alive

    def judge(self) -> None:
        """See who has become suspect, well again, or lost."""
        now_s, late_s, self.late_s = self._state.now_s, self.late_s, 0.0
        for watch in (self.nodes_alive, self.clients_alive):
            for peer_id, life in watch.verdicts(now_s, late_s):
                peer = self._state.peers.get(peer_id)
                if peer is None:
                    continue
                if life is Life.LOST:
                    why = "was silent for too long" if peer.connected else "lost its connection"
                    self._out.drop(peer_id)
                    self._roster.lost(peer_id)
                    self.forget(peer, why)
                elif peer.node is not None:
                    peer.node.suspect = life is Life.SUSPECT
                    self._board.touch(peer.node)
                    self._state.tell(f"node {peer.name!r} is {life.name.lower()}")

    def due_s(self) -> float:
        """Return when somebody is to be judged at the latest."""
        due_s = self.nodes_alive.due_s
        return min(due_s, self.clients_alive.due_s, NEVER_S)

    def refuse(self, peer: Peer, reason: str) -> None:
        """Drop a peer that broke the protocol."""
        self._state.counters["peers_dropped"] += 1
        self._out.drop(peer.id, "RemoteProtocolError", f"{peer.role} {peer.name!r}: {reason}")
        self.forget(peer, f"broke the protocol: {reason}")

    def forget(self, peer: Peer, why: str) -> None:
        """A peer is gone: with its work, its values, its holds and its numbers."""
        state, node = self._state, peer.node
        if state.claims.open:
            state.claims.gone[peer.id] = None
        state.tell(f"{peer.role} {peer.name!r} {why}")
        del state.peers[peer.id]
        peer.here = False
        self._watch(peer).forget(peer.id)
        self._out.forget(peer.id)
        if node is not None:
            del state.nodes[peer.id]
            self._board.remove(node)
            self.shapes_changed = True
            state.counters["nodes_lost"] += 1
            self._roster.left(peer.id)
        for row in self._objects.forget_peer(peer.id):
            self._work.arrived(row)
        if node is not None:
            self._attempts.lose(node, why)
            self._work.forget_submitter(peer)
        elif peer.entered:
            state.counters["clients_gone"] += 1
            self._work.forget_client(peer)
        self._kinds.forget_peer(peer)
        if node is None:
            self._kinds.forget_client(peer.id)
        if self._recovery.open:
            self._recovery.forget(peer)
        # What was written to it meanwhile.
        self._out.forget(peer.id)
        self._deliveries.forget(peer.id)
        self._bounds.forget(peer)

    # -------------------------------------------------------------------------------- introductions

    def leave(self, peer: Peer, _message: Leave) -> None:
        """A peer takes its leave."""
        self._out.drop(peer.id)
        self.forget(peer, "left")

    def enter(self, peer: Peer, message: Enter) -> None:
        """A client says who it is."""
        if peer.entered:
            raise PeerError("it said Enter twice")
        peer.entered = True
        peer.name = message.name
        peer.environment = message.environment
        self._state.tell(f"client {peer.name!r} entered")
        if peer.epoch in (0, self._state.epoch):
            # It counts by itself what this very scheduler had stopped.
            self._roster.counts(peer.id)
        if self._recovery.open:
            self._recovery.came(peer)
        if self._state.recovering:
            self.shapes_changed = True  # it is told with all others, when they are known
        else:
            self._out.letter(peer.id, self._shapes())
        self._bounds.grant(peer)

    def join(self, peer: Peer, message: Join) -> None:
        """A node says who it is."""
        if peer.entered:
            raise PeerError("it said Join twice")
        for node in list(self._state.nodes.values()):
            if node.name != message.name:
                continue
            if node.peer.connected and node.host != message.host:
                text = (
                    f"there is a node named {message.name!r} on host {node.host!r} already; "
                    "give this one another name"
                )
                self._out.drop(peer.id, "ConfigError", text)
                self.forget(peer, "has the name of another node")
                return
            # The same daemon in its next life.
            text = f"another daemon on this host has joined as {message.name!r}"
            self._out.drop(node.id, "ConfigError", text)
            self.forget(node.peer, "was replaced by a daemon of the same name")
        peer.entered = True
        peer.name = message.name
        self._serial += 1
        node = Node(peer, message, self._serial, self._state.now_s)
        peer.node = self._state.nodes[peer.id] = node
        self._board.add(node)
        tells = peer.id in self._state.claims.telling
        self._roster.join(peer.id, node.name, tells=tells)
        if peer.epoch in (0, self._state.epoch):
            self._roster.counts(peer.id)
        if self._recovery.open:
            self._recovery.came(peer)
        self.shapes_changed = True
        self._state.tell(f"node {node.name!r} joined")

    def tell_shapes(self) -> None:
        """Tell all clients which nodes there are."""
        self.shapes_changed = False
        shapes = self._shapes()
        for peer in self._state.peers.values():
            if peer.role == Role.CLIENT and peer.entered:
                self._out.letter(peer.id, shapes)

    def _shapes(self) -> Shapes:
        nodes = self._state.nodes.values()
        return Shapes([Shape(node.name, node.id, node.resources) for node in nodes])

    # --------------------------------------------------------------------------------------- inside

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"watched": len(self.nodes_alive) + len(self.clients_alive)}

    def check_invariants(self) -> None:
        """Assert that all who are there are watched, and nobody else."""
        watched = len(self.nodes_alive) + len(self.clients_alive)
        assert watched == len(self._state.peers)
