"""Who comes and who goes: links that begin, introductions, judgements, farewells.

Never places a task. A peer that is gone is forgotten in one place, with all that it had.
"""

from typing import TYPE_CHECKING

from ..protocol.drain import Draining
from ..protocol.frames import Role
from ..protocol.ids import PeerId
from ..protocol.liveness import NEVER_S, Life, Liveness
from ..protocol.messages import Enter, Join, Leave, Shape, Shapes
from . import events
from .state import Node, Peer, PeerError, State

if TYPE_CHECKING:
    from .attempts import Attempts
    from .bounds import Bounds
    from .deliveries import Deliveries
    from .drains import Drains
    from .kinds import Kinds
    from .objects import Objects
    from .placement import Board
    from .recovery import Recovery
    from .roster import Roster
    from .work import Work


class Presence:
    """Everybody who is there."""

    __slots__ = (
        "_attempts", "_board", "_bounds", "_deliveries", "_drains", "_kinds", "_met", "_objects",
        "_out", "_pythons", "_recovery", "_roster", "_serial", "_state", "_strangers", "_work",
        "clients_alive", "late_s", "nodes_alive", "shapes_changed", "strangers_due_s",
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
        drains: "Drains",
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
        self._drains = drains
        self._serial = 0
        #: how many links have begun
        self._met = 0
        #: who has introduced itself, by version of Python
        self._pythons: dict[str, dict[PeerId, Peer]] = {}
        #: who has said Hello and not who it is -> since when, longest first
        self._strangers: dict[PeerId, float] = {}
        #: when some of them may have to go
        self.strangers_due_s = NEVER_S
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
            settings.self_doubt_s,
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
                old = None
        if hello.role not in (Role.CLIENT, Role.NODE):
            self._out.drop(event.peer, "RemoteProtocolError", f"nobody is a {hello.role!r} here")
            return
        mismatch = self._mismatch(hello.role, hello.python)
        if mismatch:
            self._out.drop(event.peer, "VersionMismatch", mismatch)
            if old is not None:
                self.forget(old, "runs another Python")
            return
        if old is not None:
            # It never heard of the life that ends here: it comes again as it came before.
            old.here = False
            self._no_stranger(old)
            self._watch(old).forget(old.id)
            self._deliveries.forget(old.id)
            self._bounds.forget(old)
        peer = self._state.peers[event.peer] = Peer(event.peer, hello, event.proven)
        peer.met = self._met = self._met + 1
        self._strangers[peer.id] = self._state.now_s
        self._look_at_strangers()
        self._out.meet(peer.id)
        self._recovery.met(peer, hello.epoch)
        self._watch(peer).heard(peer.id, self._state.now_s)

    def _mismatch(self, role: str, python: str) -> str:
        """Return what is wrong with a version of Python, or ""; strangers do not count.

        Nodes are judged by nodes alone: a refused node ends for good, and it is not for a program,
        `drumbeat status` on somebody's laptop say, to keep all nodes of a cluster away.
        """
        for other in self._of_other_pythons(python):
            if role != Role.NODE or other.role == Role.NODE:
                return _two_pythons(python, other)
        return ""

    def _of_other_pythons(self, python: str) -> list[Peer]:
        if not python or not self._pythons.keys() - {python}:
            return []
        others = [peers for version, peers in self._pythons.items() if version != python]
        return [peer for peers in others for peer in peers.values()]

    def _fits(self, peer: Peer) -> bool:
        """Take a peer in that says who it is, unless another was quicker whom it does not fit."""
        mismatch = self._mismatch(peer.role, peer.python)
        if mismatch:
            self._out.drop(peer.id, "VersionMismatch", mismatch)
            self.forget(peer, "runs another Python")
            return False
        for client in self._of_other_pythons(peer.python):
            self._out.drop(client.id, "VersionMismatch", _two_pythons(client.python, peer))
            self.forget(client, "runs another Python")
        peer.entered = True
        self._no_stranger(peer)
        if peer.python:
            self._pythons.setdefault(peer.python, {})[peer.id] = peer
        return True

    def _no_stranger(self, peer: Peer) -> None:
        del self._strangers[peer.id]
        if self.strangers_due_s < NEVER_S:
            self._look_at_strangers()

    def _look_at_strangers(self) -> None:
        settings = self._state.settings
        self.strangers_due_s = NEVER_S
        if len(self._strangers) > settings.strangers_max // 2:
            since_s = next(iter(self._strangers.values()))
            self.strangers_due_s = since_s + settings.enter_timeout_s

    def _dismiss_strangers(self) -> None:
        """Too many have not said who they are: those who had the time to are dropped.

        They are told no reason, so that they may come again: one may be in need and merely slow.
        """
        state = self._state
        before_s = state.now_s - state.settings.enter_timeout_s
        strangers = self._strangers
        while len(strangers) > state.settings.strangers_max // 2:
            peer_id = next(iter(strangers))
            if strangers[peer_id] > before_s:
                break
            if peer_id in state.claims.telling:
                # It is known to have work here, and has the time of those who register.
                del strangers[peer_id]
                strangers[peer_id] = state.now_s
                continue
            self._out.drop(peer_id)
            self.forget(state.peers[peer_id], "did not say who it is")
        self._look_at_strangers()

    def returned(self, event: events.PeerReturned) -> None:
        """A connection is back within its link life."""
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = True
            self._watch(peer).returned(peer.id, self._state.now_s)
            if peer.node is not None:
                self._state.hosts.touch(peer.node)

    def disconnected(self, event: events.PeerDisconnected) -> None:
        """A connection closed."""
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = False
            self._watch(peer).closed(peer.id, self._state.now_s)
            if peer.entered:
                self._state.came_or_went(peer, "disconnected")

    def rejected(self, event: events.MessageRejected) -> None:
        """A message of a peer made no sense: as an introduction that is not good enough."""
        peer = self._state.peers.get(event.peer)
        if peer is not None and not peer.entered:
            self.refuse(peer, f"it did not say who it is: {event.reason}")

    def was_late(self, event: events.TimePassed) -> None:
        """The scheduler itself was away."""
        self.late_s = max(self.late_s, event.late_s)
        self._work.deadlines.was_late(event.late_s)
        if self._recovery.open:
            self._recovery.was_late(event.late_s)

    # ----------------------------------------------------------------------------------- judgements

    def _watch(self, peer: Peer) -> Liveness:
        return self.nodes_alive if peer.role == Role.NODE else self.clients_alive

    def judge(self) -> None:
        """See who has become suspect, well again, or lost."""
        if self._state.now_s >= self.strangers_due_s:
            self._dismiss_strangers()
        now_s, late_s, self.late_s = self._state.now_s, self.late_s, 0.0
        doubted = self.nodes_alive.doubts_itself
        for watch in (self.nodes_alive, self.clients_alive):
            for peer_id, life in watch.verdicts(now_s, late_s):
                peer = self._state.peers.get(peer_id)
                if peer is None:
                    continue
                if life is Life.LOST:
                    why = "was silent for too long" if peer.connected else "lost its connection"
                    self.give_up(peer, why)
                elif peer.node is not None:
                    peer.node.suspect = life is Life.SUSPECT
                    self._board.touch(peer.node)
                    self._state.hosts.touch(peer.node)
                    self._state.came_or_went(peer, f"is {life.name.lower()}")

        if self.nodes_alive.doubts_itself and not doubted:
            text = "more than half of the nodes are silent: this scheduler may be cut off itself"
            text = f"{text}, and gives up none of them before self_doubt_s have passed"
            self._state.tell(text, "self-doubt", "warning")

    def give_up(self, peer: Peer, why: str) -> None:
        """Drop a peer that may come again."""
        self._out.drop(peer.id)
        if peer.entered or peer.id in self._state.claims.telling:
            # Of others there is nothing, and the list of those of whom there is has an end.
            self._roster.lost(peer.id)
        self.forget(peer, why)

    def refuse(self, peer: Peer, reason: str) -> None:
        """Drop a peer that broke the protocol."""
        self._state.counters["peers_dropped"] += 1
        self._out.drop(peer.id, "RemoteProtocolError", f"{peer.role} {peer.name!r}: {reason}")
        self.forget(peer, f"broke the protocol: {reason}")

    def forget(self, peer: Peer, why: str, *, is_dead: bool = False) -> None:
        """A peer is gone: with its work, its values, its holds and its numbers."""
        state, node = self._state, peer.node
        until_s = 0.0 if is_dead or node is None else self._acts_until_s(peer)
        if peer.entered:
            state.came_or_went(peer, why)
            if peer.python:
                same = self._pythons[peer.python]
                del same[peer.id]
                if not same:
                    del self._pythons[peer.python]
        else:
            state.counters["strangers_gone"] += 1
            self._no_stranger(peer)
        if state.claims.open and (peer.entered or peer.epoch):
            state.claims.home_gone(peer.id)
        del state.peers[peer.id]
        peer.here = False
        # Lists that are tidied late may name it for long: what it sent is not kept until then.
        peer.early.clear()
        peer.expected.clear()
        self._watch(peer).forget(peer.id)
        self._out.forget(peer.id)
        if node is not None:
            del state.nodes[peer.id]
            self._board.remove(node)
            self.shapes_changed = True
            state.counters["nodes_drained" if node.drain.active else "nodes_lost"] += 1
            self._roster.left(peer.id)
        if peer.entered or self._recovery.open:
            for row in self._objects.forget_peer(peer.id, f"{peer.role} {peer.name}", why):
                self._work.arrived(row)
        if node is not None:
            self._attempts.lose(node, why, until_s)
            self._work.forget_submitter(peer)
        elif peer.entered:
            state.counters["clients_gone"] += 1
            self._work.forget_client(peer)
        state.hosts.forget_peer(peer.id)
        self._kinds.forget_peer(peer)
        if node is None and peer.entered:
            self._kinds.forget_client(peer.id)
        if self._recovery.open:
            self._recovery.forget(peer, until_s)
        self._drains.forget(peer)
        # What was written to it meanwhile.
        self._out.forget(peer.id)
        self._deliveries.forget(peer.id)
        self._bounds.forget(peer)

    def _acts_until_s(self, peer: Peer) -> float:
        """Return when the actors of a node that is not heard of any more act no longer."""
        settings = self._state.settings
        lost_after_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        return self.nodes_alive.heard_s(peer.id) + lost_after_s + settings.lease_margin_s

    # -------------------------------------------------------------------------------- introductions

    def leave(self, peer: Peer, _message: Leave) -> None:
        """A peer takes its leave."""
        self._out.drop(peer.id)
        self.forget(peer, "left")

    def enter(self, peer: Peer, message: Enter) -> None:
        """A client says who it is."""
        if peer.entered:
            raise PeerError("it said Enter twice")
        if not self._fits(peer):
            return
        peer.name = message.name
        peer.environment = message.environment
        self._judge_behind(peer, message.settled)
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
            # One that is drained may have its successor beside it already.
            if node.name != message.name or node.drain.active:
                continue
            # The same keeper has ended all that its last daemon had.
            is_next = node.keeper == message.keeper != ""
            if is_next and peer.met < node.peer.met:
                # Its own words come late: it had said Hello before its keeper started this one.
                self._out.drop(peer.id)
                self.forget(peer, "has a successor already")
                return
            if node.peer.connected and not node.suspect and not is_next:
                text = (
                    f"there is a node named {message.name!r} already, on host {node.host!r} (pid "
                    f"{node.pid}), and nothing is wrong with it; give this one another name, or end"
                    " that one"
                )
                self._out.drop(peer.id, "ConfigError", text)
                self.forget(peer, "has the name of another node")
                return
            text = f"another daemon, on host {message.host!r}, has joined as {message.name!r}"
            self._out.drop(node.id, "ConfigError", text)
            self.forget(node.peer, "was replaced by a daemon of the same name", is_dead=is_next)
        if not self._fits(peer):
            return
        fences = self._state.hosts.fences
        if message.keeper:
            self._work.look_again(fences.proved_dead(peer.id, message.keeper, peer.met))
        self._work.look_again(fences.back(peer.id))
        peer.name = message.name
        self._judge_behind(peer, message.settled)
        self._serial += 1
        node = Node(peer, message, self._serial, self._state.now_s)
        peer.node = self._state.nodes[peer.id] = node
        self._board.add(node)
        if message.draining:
            self._drains.heard(node, Draining(cancel=False))
        tells = peer.id in self._state.claims.telling
        self._roster.join(peer.id, node.name, tells=tells)
        if peer.epoch in (0, self._state.epoch):
            self._roster.counts(peer.id)
        if self._recovery.open:
            self._recovery.came(peer)
        self.shapes_changed = True
        self._state.came_or_went(peer, "joined")

    def _judge_behind(self, peer: Peer, settled: int) -> None:
        """See whether a submitter of an earlier life was away when nodes were struck out."""
        if peer.epoch not in (0, self._state.epoch) and settled < self._roster.closed_before:
            peer.behind = True
            self._state.tell(
                f"{peer.role} {peer.name!r} has not settled since epoch {settled}, and nodes were "
                f"given up in epoch {self._roster.closed_before}"
            )

    def tell_shapes(self) -> None:
        """Tell all clients which nodes there are."""
        self.shapes_changed = False
        shapes = self._shapes()
        for peer in self._state.peers.values():
            if peer.role == Role.CLIENT and peer.entered:
                self._out.letter(peer.id, shapes)

    def _shapes(self) -> Shapes:
        nodes = [node for node in self._state.nodes.values() if not node.drain.active]
        return Shapes([Shape(node.name, node.id, node.resources, node.labels) for node in nodes])

    # --------------------------------------------------------------------------------------- inside

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "watched": len(self.nodes_alive) + len(self.clients_alive),
            "strangers": len(self._strangers),
        }

    def check_invariants(self) -> None:
        """Assert that all who are there are watched, and nobody else."""
        watched = len(self.nodes_alive) + len(self.clients_alive)
        assert watched == len(self._state.peers)
        known = [peer for peer in self._state.peers.values() if peer.entered]
        assert len(known) + len(self._strangers) == len(self._state.peers)
        assert all(not self._state.peers[peer_id].entered for peer_id in self._strangers)
        pythons = {version: list(peers) for version, peers in self._pythons.items()}
        assert sorted(id_ for ids in pythons.values() for id_ in ids) == sorted(
            peer.id for peer in known if peer.python
        )
        assert (self.strangers_due_s < NEVER_S) <= bool(self._strangers)


def _two_pythons(python: str, other: Peer) -> str:
    return (
        f"this process runs Python {python} and {other.role} {other.name!r} Python {other.python};"
        " all of a cluster have to run the same minor version"
    )
