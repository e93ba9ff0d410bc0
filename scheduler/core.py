"""The scheduler's core: who is there, what each may say, and the turn that decides.

Never waits, sends or looks at a clock: events in, commands out. `handle` takes in what happened;
`turn`, once after all events of a loop turn, places tasks and says what is to be sent, one
message a peer and kind. So what a task costs does not depend on how the wire cut its rows.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..protocol.frames import Role
from ..protocol.ids import ObjectId, PeerId, home_of
from ..protocol.liveness import NEVER_S, Life, Liveness
from ..protocol.messages import (
    Answer,
    Beat,
    Blocked,
    Cancel,
    Define,
    Done,
    Enter,
    Fetch,
    Forget,
    Join,
    Leave,
    Output,
    Query,
    Release,
    Shape,
    Shapes,
    Submit,
    TakenBack,
    ValueRow,
    Values,
)
from ..protocol.settings import Settings
from . import events
from .attempts import Attempts
from .deliveries import Deliveries
from .kinds import Kinds
from .objects import Objects
from .placement import Board
from .queries import Queries
from .state import Node, Peer, PeerError, State, ignore
from .texts import Texts
from .work import Work

if TYPE_CHECKING:
    from random import Random

#: what a peer may send of large payloads ahead of the rows that name them
EARLY_VALUES_MAX: Final = 4

Handler = Callable[[Peer, Any], None]


class SchedulerCore:
    """Decides everything that the scheduler does.

    Args:
        settings: the scheduler's.
        epoch: number of this life of the scheduler.
        rng: chance; draws the jitter of retries.
    """

    __slots__ = (
        "_attempts", "_board", "_by_role", "_clients_alive", "_deliveries", "_handlers", "_kinds",
        "_late_s", "_nodes_alive", "_objects", "_out", "_queries", "_questions", "_rate", "_serial",
        "_shapes_changed", "_state", "_texts", "_work",
    )  # fmt: skip

    def __init__(self, settings: Settings, epoch: int, rng: "Random") -> None:
        self._state = state = State(settings, epoch, rng)
        self._out = state.out
        self._board = Board(settings)
        self._kinds = Kinds(state, self._board)
        self._objects = Objects(state)
        parts = state, self._board, self._kinds, self._objects
        self._work = Work(*parts)
        self._deliveries = Deliveries(state)
        self._attempts = Attempts(*parts, self._work, self._deliveries)
        self._queries = Queries(state, self._work, self._attempts)
        self._texts = Texts(state)
        self._rate = self._queries.rate
        #: asked in this turn, answered at its end
        self._questions: list[tuple[Peer, Query]] = []
        self._serial = 0
        self._shapes_changed = False
        self._late_s = 0.0
        interval_s = settings.heartbeat_interval_s
        self._nodes_alive = Liveness(
            settings.suspect_after_intervals * interval_s,
            settings.lost_after_intervals * interval_s,
            settings.connection_lost_s,
            interval_s,
        )
        # A client is judged by its connection: silence makes it suspect, which changes nothing.
        self._clients_alive = Liveness(
            settings.client_silence_s,
            settings.client_silence_s,
            settings.client_grace_s,
            interval_s,
        )
        either: dict[type, Handler] = {
            Leave: self._on_leave,
            Define: self._on_define,
            Forget: lambda peer, message: self._kinds.forget(peer, message.kinds),
            Submit: self._work.submit,
            Cancel: self._on_cancel,
            Values: self._on_values,
            Fetch: lambda peer, message: self._objects.fetch(peer.id, message.ids),
            Release: self._on_release,
            Query: self._on_query,
        }
        self._by_role: dict[str, dict[type, Handler]] = {
            Role.CLIENT: {**either, Enter: self._on_enter},
            Role.NODE: {
                **either,
                Join: self._on_join,
                Beat: self._on_beat,
                Done: self._on_done,
                Blocked: self._on_blocked,
                TakenBack: self._on_taken_back,
                Output: self._texts.output,
            },
        }
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.Received: self._on_received,
            events.BlobReceived: self._on_blob,
            events.PeerHeard: self._on_heard,
            events.PeerJoined: self._on_joined,
            events.PeerReturned: self._on_returned,
            events.PeerDisconnected: self._on_disconnected,
            events.PeerLags: self._texts.lags,
            events.Reached: lambda event: self._deliveries.reached(event.peer, event.marks),
            events.MessageRejected: self._texts.rejected,
            events.TimePassed: self._on_time,
        }

    # ------------------------------------------------------------------------------------ the doors

    def handle(self, event: events.Event, now_s: float) -> list[events.Command]:
        """Take in an event. What it leads to is said by `turn`; only a peer is dropped at once."""
        state = self._state
        state.now_s = now_s
        if state.started_s is None:
            state.started_s = now_s
        self._handlers[type(event)](event)
        return self._out.take_drops() if self._out.drops else []

    def turn(self, now_s: float) -> list[events.Command]:
        """Decide, after all events of a loop turn, and return all that is to be sent, in order."""
        state = self._state
        state.now_s = now_s
        # What has nothing to do is not called: most turns are about one task.
        work, attempts = self._work, self._attempts
        if self._late_s or now_s >= self._nodes_alive.due_s or now_s >= self._clients_alive.due_s:
            self._judge()
        if work.backoffs:
            work.wake()
        if work.asks.open:
            work.asks.expire(now_s)
        queue = work.queue
        if queue.size:
            attempts.place()
        if attempts.starved:
            attempts.complain()
        if not queue.size and len(state.nodes) > 1:
            attempts.take_back()
        if self._shapes_changed:
            self._shapes_changed = False
            shapes = self._shapes()
            for peer in state.peers.values():
                if peer.role == Role.CLIENT and peer.entered:
                    self._out.letter(peer.id, shapes)
        finished = state.counters["finished"]
        if finished != self._rate.total:
            self._rate.note(finished, now_s)
        if self._questions:
            self._answer()
        self._texts.forwarded.clear()
        last = self._deliveries.turn() if self._deliveries.active else []
        return self._out.flush() + last

    def deadline_s(self) -> float | None:
        """Return when `turn` is to be called though nothing happens; None: never."""
        due_s = self._nodes_alive.due_s
        if self._clients_alive.due_s < due_s:
            due_s = self._clients_alive.due_s
        if self._work.backoffs:
            due_s = min(due_s, self._work.backoffs[0][0])
        if self._work.asks.open:
            due_s = min(due_s, self._work.asks.due_s())
        if self._deliveries.due_s < due_s:
            due_s = self._deliveries.due_s
        if self._attempts.starved or len(self._state.nodes) > 1:
            other_s = self._attempts.due_s()
            if other_s is not None and other_s < due_s:
                due_s = other_s
        return None if due_s == NEVER_S else due_s

    # -------------------------------------------------------------------------------------- insight

    @property
    def story(self) -> list[tuple[float, str]]:
        """The last rare events, with the time, and why."""
        return list(self._state.story)

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted since the start."""
        return self._state.counters

    def at_rest(self) -> dict[str, int]:
        """Return the sizes of all maps that hold work: all 0 when no peer has any left.

        Peers, nodes and the kinds they have named are not work; see `registered`.
        """
        peers = self._state.peers.values()
        return {
            "tasks": sum(len(peer.tasks) for peer in peers),
            "early_blobs": sum(len(peer.early) for peer in peers),
            "expected_blobs": sum(len(peer.expected) for peer in peers),
            "questions": len(self._questions),
            **self._work.sizes(),
            **self._attempts.sizes(),
            **self._deliveries.sizes(),
            **self._objects.sizes(),
            **self._state.holders.sizes(),
        }

    def registered(self) -> dict[str, int]:
        """Return the sizes of all maps that hold who is there: all 0 when nobody is."""
        return {
            "peers": len(self._state.peers),
            "nodes": len(self._state.nodes),
            "watched": len(self._nodes_alive) + len(self._clients_alive),
            **self._kinds.sizes(),
        }

    def check_invariants(self) -> None:
        """Assert that all indexes agree."""
        self._state.check_invariants()
        self._kinds.check_invariants()
        self._objects.check_invariants()
        self._work.check_invariants()
        self._attempts.check_invariants()
        self._deliveries.check_invariants()
        watched = len(self._nodes_alive) + len(self._clients_alive)
        assert watched == len(self._state.peers)

    # --------------------------------------------------------------------------------------- events

    def _on_received(self, event: events.Received) -> None:
        state, message = self._state, event.message
        peer = state.peers.get(event.peer)
        if peer is None:
            # Said before it was dropped.
            state.counters["stale_dropped"] += 1
            return
        handler = self._by_role[peer.role].get(type(message))
        try:
            if handler is None:
                raise PeerError(f"a {peer.role} may not say {type(message).__name__}")
            if not peer.entered and type(message) not in (Enter, Join, Leave):
                raise PeerError(f"it said {type(message).__name__} before it introduced itself")
            handler(peer, message)
        except PeerError as reason:
            self._refuse(peer, str(reason))

    def _on_blob(self, event: events.BlobReceived) -> None:
        peer = self._state.peers.get(event.peer)
        if peer is None:
            self._state.counters["stale_dropped"] += 1
            return
        limit = EARLY_VALUES_MAX * self._state.settings.value_bytes_max
        try:
            peer.received(event.key, event.payload, limit)
        except PeerError as reason:
            self._refuse(peer, str(reason))

    def _on_heard(self, event: events.PeerHeard) -> None:
        peers, now_s = self._state.peers, self._state.now_s
        for peer_id in event.peers:
            peer = peers.get(peer_id)
            if peer is not None:
                watch = self._nodes_alive if peer.role == Role.NODE else self._clients_alive
                watch.heard(peer_id, now_s)

    def _on_joined(self, event: events.PeerJoined) -> None:
        old = self._state.peers.get(event.peer)
        if old is not None:
            self._forget(old, "began a new life of its link")
        hello = event.hello
        if hello.role not in self._by_role:
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
        self._watch(peer).heard(peer.id, self._state.now_s)

    def _on_returned(self, event: events.PeerReturned) -> None:
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = True
            self._watch(peer).returned(peer.id, self._state.now_s)

    def _on_disconnected(self, event: events.PeerDisconnected) -> None:
        peer = self._state.peers.get(event.peer)
        if peer is not None:
            peer.connected = False
            self._watch(peer).closed(peer.id, self._state.now_s)
            self._state.tell(f"{peer.role} {peer.name!r} disconnected")

    def _on_time(self, event: events.TimePassed) -> None:
        self._late_s = max(self._late_s, event.late_s)

    # ------------------------------------------------------------------------------ who comes, goes

    def _watch(self, peer: Peer) -> Liveness:
        return self._nodes_alive if peer.role == Role.NODE else self._clients_alive

    def _judge(self) -> None:
        """See who has become suspect, well again, or lost."""
        now_s, late_s, self._late_s = self._state.now_s, self._late_s, 0.0
        for watch in (self._nodes_alive, self._clients_alive):
            for peer_id, life in watch.verdicts(now_s, late_s):
                peer = self._state.peers.get(peer_id)
                if peer is None:
                    continue
                if life is Life.LOST:
                    why = "was silent for too long" if peer.connected else "lost its connection"
                    self._out.drop(peer_id)
                    self._forget(peer, why)
                elif peer.node is not None:
                    peer.node.suspect = life is Life.SUSPECT
                    self._board.touch(peer.node)
                    self._state.tell(f"node {peer.name!r} is {life.name.lower()}")

    def _refuse(self, peer: Peer, reason: str) -> None:
        """Drop a peer that broke the protocol."""
        self._state.counters["peers_dropped"] += 1
        self._out.drop(peer.id, "RemoteProtocolError", f"{peer.role} {peer.name!r}: {reason}")
        self._forget(peer, f"broke the protocol: {reason}")

    def _forget(self, peer: Peer, why: str) -> None:
        """A peer is gone: with its work, its values, its holds and its numbers."""
        state, node = self._state, peer.node
        state.tell(f"{peer.role} {peer.name!r} {why}")
        del state.peers[peer.id]
        peer.here = False
        self._watch(peer).forget(peer.id)
        self._out.forget(peer.id)
        if node is not None:
            del state.nodes[peer.id]
            self._board.remove(node)
            self._shapes_changed = True
            state.counters["nodes_lost"] += 1
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
        # What was written to it meanwhile.
        self._out.forget(peer.id)
        self._deliveries.forget(peer.id)

    def _on_leave(self, peer: Peer, _message: Leave) -> None:
        self._out.drop(peer.id)
        self._forget(peer, "left")

    def _on_enter(self, peer: Peer, message: Enter) -> None:
        if peer.entered:
            raise PeerError("it said Enter twice")
        peer.entered = True
        peer.name = message.name
        peer.environment = message.environment
        self._state.tell(f"client {peer.name!r} entered")
        self._out.letter(peer.id, self._shapes())

    def _on_join(self, peer: Peer, message: Join) -> None:
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
                self._forget(peer, "has the name of another node")
                return
            # The same daemon in its next life.
            text = f"another daemon on this host has joined as {message.name!r}"
            self._out.drop(node.id, "ConfigError", text)
            self._forget(node.peer, "was replaced by a daemon of the same name")
        peer.entered = True
        peer.name = message.name
        self._serial += 1
        node = Node(peer, message, self._serial, self._state.now_s)
        peer.node = self._state.nodes[peer.id] = node
        self._board.add(node)
        self._shapes_changed = True
        self._state.tell(f"node {node.name!r} joined")

    def _shapes(self) -> Shapes:
        nodes = self._state.nodes.values()
        return Shapes([Shape(node.name, node.id, node.resources) for node in nodes])

    # ------------------------------------------------------------------------------------- messages

    def _on_define(self, peer: Peer, message: Define) -> None:
        client = PeerId(message.client)
        if peer.node is None and client != peer.id:
            raise PeerError("it defined code for another client")
        self._kinds.define(peer, client, message.rows)

    def _on_cancel(self, peer: Peer, message: Cancel) -> None:
        asks = message.request != 0
        dropped = self._work.cancel(message.ids, message.force, message.recursive, asks)
        if asks:
            self._work.asks.ask(peer, message.request, message.ids, dropped, self._state.now_s)

    def _on_values(self, peer: Peer, message: Values) -> None:
        for row in message.rows:
            if home_of(ObjectId(row.id)) != peer.id:
                raise PeerError("it sent a value whose home it is not")
            large = row.payload is None and row.size > 0
            if not self._objects.awaits(ObjectId(row.id)):
                # Whoever wanted it has gone meanwhile.
                self._state.counters["stale_dropped"] += 1
                if large:
                    peer.expect(row.id, ignore)
            elif large:
                peer.expect(row.id, partial(_complete, row, self._work.arrived))
            else:
                self._work.arrived(row)

    def _on_release(self, peer: Peer, message: Release) -> None:
        for id_, count in message.rows:
            self._out.released(ObjectId(id_), peer.id, count)

    def _on_query(self, peer: Peer, message: Query) -> None:
        # At the end of the turn, so that the answer knows of all that was said before it.
        self._questions.append((peer, message))

    def _answer(self) -> None:
        for peer, query in self._questions:
            if peer.here:
                self._out.letter(peer.id, Answer(query.request, self._queries.answer(query)))
        self._questions.clear()

    def _on_beat(self, peer: Peer, message: Beat) -> None:
        node = _node_of(peer)
        node.beat_s = self._state.now_s
        node.lag_s = message.lag_s
        node.workers = message.workers
        node.workers_blocked = message.blocked
        node.memory_bytes = message.memory_bytes
        node.running = message.running
        if self._work.asks.open:
            for id_, _, _ in message.running:
                self._work.asks.known(id_, False)

    def _on_done(self, peer: Peer, message: Done) -> None:
        self._attempts.done(_node_of(peer), message)

    def _on_blocked(self, peer: Peer, message: Blocked) -> None:
        self._attempts.blocked(_node_of(peer), message)

    def _on_taken_back(self, peer: Peer, message: TakenBack) -> None:
        self._attempts.taken_back(_node_of(peer), message)


def _complete(row: ValueRow, then: Callable[[ValueRow], None], payload: bytes) -> None:
    row.payload = payload
    then(row)


def _node_of(peer: Peer) -> Node:
    assert peer.node is not None, "only a node that has joined gets here"
    return peer.node
