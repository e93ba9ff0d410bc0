"""The scheduler's core: who is there, what each may say, and the turn that decides.

Never waits, sends or looks at a clock: events in, commands out. `handle` takes in what happened;
`turn`, once after all events of a loop turn, places tasks and says what is to be sent, one
message a peer and kind. So what a task costs does not depend on how the wire cut its rows.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..protocol.actors import ActorsGone, ActorsUp
from ..protocol.checkpoints import Checkpoint
from ..protocol.drain import Drain, Draining, Emptied
from ..protocol.frames import Role
from ..protocol.ids import PeerId, TaskId
from ..protocol.liveness import NEVER_S
from ..protocol.messages import (
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
    Stock,
    Submit,
    TakenBack,
    Values,
)
from ..protocol.recovery import Holding, Inventory, Registered
from ..protocol.running import Stacks
from ..protocol.settings import Settings
from ..protocol.standstill import Looked
from . import events
from .attempts import Attempts
from .bounds import Bounds
from .claims import Ended
from .deeds import Will
from .deliveries import Deliveries
from .drains import Drains
from .inquiries import Inquiries
from .invariants import check_actors, check_work
from .kinds import Kinds
from .objects import Objects
from .placement import Board
from .presence import Presence
from .queries import Queries
from .recovery import Recovery
from .roster import Roster
from .standstill import Standstill
from .state import Node, Peer, PeerError, State
from .submissions import Submissions
from .texts import Texts
from .values import values_came
from .wards import Wards
from .work import Work
from .yields import Yields

if TYPE_CHECKING:
    from random import Random

#: what a peer may send of large payloads ahead of the rows that name them
EARLY_VALUES_MAX: Final = 4

#: so much of what happened is told with a bug
STORY_LINES: Final = 500
Handler = Callable[[Peer, Any], None]


class SchedulerCore:
    """Decides everything that the scheduler does.

    Args:
        settings: the scheduler's.
        epoch: number of this life of the scheduler.
        rng: chance; draws the jitter of retries.
        expected: names of the nodes that were there in the life before; they are waited for.
        gone: submitters that the life before had given up, with what they had submitted.
        daemons: ids of the nodes that are expected; none: they are not known.
        closed: the last life in which nodes that had not come back were given up.
        wills: detached actors that the life before has left.
        acting: actors whose last incarnation may still act, each with its node and its keeper.
    """

    __slots__ = (
        "_attempts", "_board", "_bounds", "_by_role", "_deliveries", "_drains", "_handlers",
        "_inquiries", "_kinds", "_objects", "_out", "_presence", "_queries", "_rate", "_recovery",
        "_roster", "_standstill", "_state", "_texts", "_wards", "_work",
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        epoch: int,
        rng: "Random",
        expected: Sequence[str] = (),
        gone: Sequence[str] = (),
        daemons: Sequence[str] = (),
        closed: int = 0,
        wills: Sequence[Will] = (),
        acting: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        self._state = state = State(settings, epoch, rng)
        self._out = state.out
        self._board = Board(settings)
        self._kinds = Kinds(state, self._board)
        self._objects = Objects(state)
        parts = state, self._board, self._kinds, self._objects
        self._deliveries = Deliveries(state)
        self._work = Work(*parts, self._deliveries)
        self._attempts = Attempts(*parts, self._work, self._deliveries)
        left = self._deliveries, expected, gone, daemons, closed, acting
        self._roster = roster = Roster(state, *left)
        self._recovery = recovery = Recovery(
            *parts[:2], self._work, self._attempts, self._objects, roster, self._deliveries
        )
        submissions = Submissions(state, self._board, self._objects, self._work, recovery)
        self._standstill = Standstill(*parts[:2], self._work, self._attempts, self._objects)
        self._wards = Wards(state, *parts[2:], self._work, submissions, recovery, wills)
        self._drains = drains = Drains(state, self._board, roster)
        self._queries = Queries(state, self._work, self._attempts, recovery, drains)
        self._texts, self._rate = Texts(state), self._queries.rate
        self._inquiries = Inquiries(state, self._queries, self._objects)
        self._bounds = bounds = Bounds(state)
        self._presence = presence = Presence(
            state, self._board, self._kinds, self._objects, self._work, self._attempts,
            self._deliveries, bounds, recovery, roster, drains,
        )  # fmt: skip
        self._by_role = self._doors(submissions)
        recovery.say_again = self._take_in
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.Received: self._on_received,
            events.BlobReceived: self._on_blob,
            events.PeerHeard: presence.heard,
            events.PeerJoined: presence.joined,
            events.PeerReturned: presence.returned,
            events.PeerDisconnected: presence.disconnected,
            events.PeerLags: bounds.lags,
            events.Reached: lambda event: self._deliveries.reached(event.peer, event.marks),
            events.MessageRejected: self._on_rejected,
            events.DoorTold: self._queries.door_told,
            events.Relays: bounds.relays,
            events.PayloadOrphaned: self._objects.orphans.found,
            events.Unread: drains.unread,
            events.TimePassed: presence.was_late,
            events.ClockRead: lambda event: state.chronicle.clock_read(event.wall_s, state.now_s),
            events.Kept: self._wards.kept,
        }

    def _doors(self, submissions: Submissions) -> dict[str, dict[type, Handler]]:
        """Return who hears what each may say, by role."""
        presence, recovery, attempts = self._presence, self._recovery, self._attempts
        checkpoints, fences = self._state.hosts.checkpoints, self._state.hosts.fences
        inquiries = self._inquiries
        yields = Yields(self._state)
        either: dict[type, Handler] = {
            Leave: presence.leave,
            Define: self._on_define,
            Forget: lambda peer, message: self._kinds.forget(peer, message.kinds),
            Submit: submissions.submit,
            Cancel: self._on_cancel,
            Values: partial(values_came, self._state, self._objects, self._work.arrived),
            Fetch: lambda peer, message: self._objects.fetch(peer.id, message.ids),
            Release: lambda peer, said: self._out.released_all(peer.id, said.rows),
            Query: inquiries.asked,
            Stock: inquiries.stock.told,
            Holding: recovery.holding,
            Registered: recovery.registered,
            **yields.said_by_all,
        }
        return {
            Role.CLIENT: {
                **either,
                Enter: presence.enter,
                Submit: self._bounds.within(either[Submit]),
                Drain: self._drains.asked,
            },
            Role.NODE: {
                **either,
                Join: presence.join,
                Beat: self._on_beat,
                Stacks: lambda peer, said: inquiries.stacks.told(_node_of(peer), said),
                Done: attempts.done,
                Blocked: lambda peer, said: attempts.blocked(_node_of(peer), said),
                TakenBack: lambda peer, said: attempts.taken_back(_node_of(peer), said),
                Output: self._texts.output,
                **yields.said_by_nodes,
                Inventory: recovery.inventory,
                Ended: lambda peer, said: attempts.end(_node_of(peer), [said.row], said.arrival),
                Looked: lambda peer, said: self._standstill.looked(_node_of(peer), said),
                ActorsGone: lambda peer, _: self._work.look_again(fences.proved_dead(peer.id)),
                Checkpoint: lambda peer, said: checkpoints.came(_node_of(peer), said),
                ActorsUp: lambda peer, up: self._work.actors.up(_node_of(peer), up.rows),
                Draining: lambda peer, said: self._drains.heard(_node_of(peer), said),
                Emptied: lambda peer, said: self._drains.emptied(_node_of(peer), said),
            },
        }

    # ------------------------------------------------------------------------------------ the doors

    def handle(self, event: events.Event, now_s: float) -> list[events.Command]:
        """Take in an event. What it leads to is said by `turn`; only a peer is dropped at once."""
        state = self._state
        state.now_s = now_s
        if state.started_s is None:
            state.started_s = now_s
            self._wards.revive()
        self._handlers[type(event)](event)
        return self._out.take_drops() if self._out.drops else []

    def turn(self, now_s: float) -> list[events.Command]:
        """Decide, after all events of a loop turn, and return all that is to be sent, in order."""
        state = self._state
        state.now_s = now_s
        # What has nothing to do is not called: most turns are about one task.
        work, attempts, presence = self._work, self._attempts, self._presence
        if (
            presence.late_s or now_s >= presence.nodes_alive.due_s
            or now_s >= presence.clients_alive.due_s or now_s >= presence.strangers_due_s
        ):  # fmt: skip
            presence.judge()
        if self._recovery.open:
            self._recovery.turn()
        if work.backoffs or work.deadlines.watched:
            work.wake()
        if work.asks.open:
            work.asks.expire(now_s)
        if self._drains.pending:
            presence.shapes_changed |= self._drains.turn()
        hosts, starving = state.hosts, attempts.starving
        if not state.recovering and (
            work.queue.size or hosts.active or starving.shapes or starving.kept_out
            or self._board.several or presence.shapes_changed
        ):  # fmt: skip
            self._place()
        first: list[events.Command] = []
        if hosts.wards or hosts.courses or hosts.regranted or hosts.names.dying:
            first = self._see_to_actors()
        finished = state.counters["finished"]
        if finished != self._rate.total:
            self._rate.note(finished, now_s)
        if self._inquiries.are_open:
            self._inquiries.turn()
        self._texts.forwarded.clear()
        deliveries, out, last = self._deliveries, self._out, []
        if deliveries.has_news or now_s >= deliveries.due_s or (deliveries.ready and out.assigns):
            last = deliveries.turn()
        commands = out.flush()
        if self._standstill.watching or self._standstill.told:
            commands += self._standstill.turn(commands)
        if self._roster.changed:
            first = self._roster.commands() + first
        return [*first, *commands, *last] if first or last else commands

    def _place(self) -> None:
        """Give nodes what they can take, and see to what they cannot."""
        state, attempts, queue = self._state, self._attempts, self._work.queue
        if queue.size:
            attempts.place()
        if state.hosts.active:
            attempts.place_calls()
        if attempts.starving.shapes or attempts.starving.kept_out:
            attempts.starving.turn()
        if self._board.several and (not queue.size or state.held_back):
            attempts.take_back()
        if self._presence.shapes_changed:
            self._presence.tell_shapes()

    def _see_to_actors(self) -> list[events.Command]:
        """Return what is to be written of detached actors before anything is sent."""
        hosts = self._state.hosts
        if hosts.regranted:
            self._bounds.grant_again()
        if hosts.names.dying:
            hosts.names.expire()
        return self._wards.turn()

    def deadline_s(self) -> float | None:
        """Return when `turn` is to be called though nothing happens; None: never."""
        presence, due_s = self._presence, NEVER_S
        for one_s in (
            presence.nodes_alive.due_s, presence.clients_alive.due_s, presence.strangers_due_s,
            self._deliveries.due_s, self._standstill.due_s, self._state.hosts.due_s,
        ):  # fmt: skip
            if one_s < due_s:
                due_s = one_s
        if self._recovery.open:
            due_s = min(due_s, self._recovery.due_s())
        if self._work.backoffs:
            due_s = min(due_s, self._work.backoffs[0][0])
        if self._work.asks.open:
            due_s = min(due_s, self._work.asks.due_s())
        if self._work.deadlines.watched:
            due_s = min(due_s, self._work.deadlines.due_s())
        if self._inquiries.are_open:
            due_s = min(due_s, self._inquiries.due_s())
        if self._state.recovering:
            return due_s
        starving = self._attempts.starving
        if starving.shapes or starving.kept_out or self._board.several:
            other_s = self._attempts.due_s()
            if other_s is not None and other_s < due_s:
                due_s = other_s
        return None if due_s == NEVER_S else due_s

    # -------------------------------------------------------------------------------------- insight

    @property
    def story(self) -> list[tuple[float, str]]:
        """The last rare events, with the time, and why."""
        return self._state.chronicle.lines(STORY_LINES)

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted since the start."""
        return self._state.counters

    def at_rest(self) -> dict[str, int]:
        """Return the sizes of all maps that hold work: all 0 when no peer has any left.

        Peers, nodes and the kinds they have named are not work; see `registered`.
        """
        peers = self._state.peers.values()
        sizes = {
            "tasks": sum(len(peer.tasks) for peer in peers),
            "early_blobs": sum(len(peer.early) for peer in peers),
            "expected_blobs": sum(len(peer.expected) for peer in peers),
        }
        for part in (
            self._work, self._attempts, self._deliveries, self._bounds, self._recovery,
            self._standstill, self._drains, self._wards, self._inquiries, self._objects,
            self._state.holders,
        ):  # fmt: skip
            sizes |= part.sizes()
        return sizes

    def registered(self) -> dict[str, int]:
        """Return the sizes of all maps that hold who is there: all 0 when nobody is."""
        return {
            "peers": len(self._state.peers),
            "nodes": len(self._state.nodes),
            **self._presence.sizes(),
            **self._kinds.sizes(),
            **self._state.hosts.registered(),
        }

    def check_invariants(self) -> None:
        """Assert that all indexes agree."""
        check_work(self._work, self._state)
        check_actors(self._state)
        for part in (
            self._state, self._kinds, self._objects, self._attempts, self._deliveries,
            self._presence, self._recovery, self._drains, self._wards,
        ):  # fmt: skip
            part.check_invariants()

    # --------------------------------------------------------------------------------------- events

    def _on_received(self, event: events.Received) -> None:
        peer = self._state.peers.get(event.peer)
        if peer is None:
            # Said before it was dropped.
            self._state.counters["stale_dropped"] += 1
            return
        if self._standstill.watching and peer.node is not None:
            self._standstill.heard(type(event.message))
        if not self._recovery.open or not peer.entered or not self._is_held(peer, event.message):
            self._take_in(peer, event.message)

    def _is_held(self, peer: Peer, message: Any) -> bool:
        """Return whether a message is kept for later, or will never be taken in."""
        try:
            return self._recovery.holds(peer, message)
        except PeerError as reason:
            self._presence.give_up(peer, str(reason))
            return True

    def _take_in(self, peer: Peer, message: Any) -> None:
        handler = self._by_role[peer.role].get(type(message))
        try:
            if handler is None:
                raise PeerError(f"a {peer.role} may not say {type(message).__name__}")
            if not peer.entered and type(message) not in (Enter, Join, Leave):
                raise PeerError(f"it said {type(message).__name__} before it introduced itself")
            handler(peer, message)
        except PeerError as reason:
            self._presence.refuse(peer, str(reason))

    def _on_rejected(self, event: events.MessageRejected) -> None:
        self._texts.rejected(event)
        self._presence.rejected(event)

    def _on_blob(self, event: events.BlobReceived) -> None:
        peer = self._state.peers.get(event.peer)
        if peer is None:
            self._state.counters["stale_dropped"] += 1
            return
        settings = self._state.settings
        limit_bytes = EARLY_VALUES_MAX * settings.value_bytes_max
        if self._recovery.open:
            # The rows may be held back, or kept until their task is named.
            limit_bytes = settings.recovery_bytes_max
            self._recovery.heard(peer)
        try:
            peer.received(event.key, event.payload, limit_bytes)
        except PeerError as reason:
            if self._recovery.open:
                self._presence.give_up(peer, str(reason))
            else:
                self._presence.refuse(peer, str(reason))

    # ------------------------------------------------------------------------------------- messages

    def _on_define(self, peer: Peer, message: Define) -> None:
        client = PeerId(message.client)
        if peer.node is None and client != peer.id:
            raise PeerError("it defined code for another client")
        if peer.node is None and not peer.works:
            peer.works = True
            self._state.came_or_went(peer, "entered")
        self._kinds.define(peer, client, message.rows)

    def _on_cancel(self, peer: Peer, message: Cancel) -> None:
        asks = message.request != 0
        if peer.node is None and not asks:
            self._state.ordered(peer, message)
        if self._recovery.open and not asks:
            self._recovery.cancel(peer, message)
        if peer.node is not None and not self._state.claims.open:
            message.ids = [id_ for id_ in message.ids if self._may_cancel(peer.node, id_)]
        if message.exit or message.restart:
            self._work.actors.asked(message.ids, ends=message.exit)
            dropped: list[bool | None] = [False] * len(message.ids)
        else:
            dropped = self._work.cancel(message.ids, message.force, message.recursive, asks)
        if asks:
            self._work.asks.ask(peer, message.request, message.ids, dropped, self._state.now_s)

    def _may_cancel(self, node: Node, id_: bytes) -> bool:
        """Return whether a task is not of a client whose work this node never had."""
        record = self._state.find(TaskId(id_))
        if record is None or record.owner.id in self._state.hosts.wards:
            return True  # whoever has a handle may kill a detached actor
        return node.knows(record.kind.client)

    def _on_beat(self, peer: Peer, message: Beat) -> None:
        node = _node_of(peer)
        node.beat_s = self._state.now_s
        node.lag_s = message.lag_s
        node.workers = message.workers
        node.workers_blocked = message.blocked
        node.memory_bytes = message.memory_bytes
        node.used = message.cpu
        node.running = message.running
        if message.running or node.told:
            node.told = self._state.chronicle.watch(
                self._state.now_s, node.name, node.told, message.running, node.name_of
            )
        node.still = message.still
        if message.still:
            self._standstill.beat(node)
        if self._work.asks.open:
            for row in message.running:
                self._work.asks.known(row.id, False)


def _node_of(peer: Peer) -> Node:
    assert peer.node is not None, "only a node that has joined gets here"
    return peer.node
