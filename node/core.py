"""The node's mind: what is assigned here, what workers do, and what each is told of it.

Never touches a clock, a socket or a process: events come in, commands go out. `handle` takes in
what has happened; `turn`, once after all events of a loop turn, hands out work and tells the
scheduler everything at once.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ..protocol import messages
from ..protocol.actors import ActorsGone
from ..protocol.checkpoints import CheckpointsGone, CheckpointsKept
from ..protocol.drain import DrainNode, Farewell
from ..protocol.ids import PeerId
from ..protocol.messages import Blocked, Join, StopMode, Values
from ..protocol.recovery import HandedOver, Recovered, Report
from ..protocol.running import Stack
from ..protocol.settings import Settings
from ..protocol.standstill import Deadlock, Look
from ..protocol.yields import HowFar, ItemsTaken
from . import events, invariants
from .actors import Actors
from .attempts import SENT, Worker
from .beats import Beats
from .children import Children
from .dispatch import Dispatch
from .drain import Drain
from .ended import Ended
from .events import Command, Event
from .hangs import Hangs
from .intake import Intake
from .inventory import Registration
from .limits import LimitsOf
from .lives import Lives
from .packets import (
    ActorMade,
    Ask,
    Begun,
    CallsTold,
    CancelTasks,
    Checkpointed,
    Finished,
    Health,
    Item,
    ItemsRead,
    Progressed,
    Ready,
    Refs,
    Returned,
    Submitted,
    Want,
    WantOver,
)  # fmt: skip
from .pressure import Pressure
from .reports import Reports
from .returns import Returns
from .stacks import StackAsks
from .state import NEVER_S, NodeState
from .stops import Stops
from .texts import Texts
from .waits import Waits


class NodeCore:
    """The pure core of a node daemon; see the module.

    Args:
        settings: as loaded.
        peer: this life of the daemon.
        name: the node's name, the same over all its lives.
        host: the machine's name, for people.
        resources: "CPU", "GPU" and custom resources -> amount.
        pid: the daemon's process id, told to the scheduler.
        labels: what it carries, for tasks that ask for it.
        machine: whose files it sees; clients there share their sys.path with our workers.
        keeper: names the process that starts this daemon, and the one before it.
    """

    def __init__(
        self,
        settings: Settings,
        peer: PeerId,
        name: str,
        host: str,
        resources: dict[str, float],
        pid: int = 0,
        labels: Mapping[str, str] | None = None,
        machine: str = "",
        keeper: str = "",
    ) -> None:
        self._settings = settings
        self._joining = Join(name, host, pid, dict(resources), dict(labels or {}), keeper=keeper)
        self._state = state = NodeState(settings, peer, name, resources)
        self._waits = Waits(state)
        self._processes = Lives(state, self._waits, machine)
        self._dispatch = Dispatch(state, self._waits, self._processes)
        self._actors = Actors(state, self._processes, self._dispatch)
        self._intake = Intake(state, self._processes, self._dispatch, self._actors)
        self._stops = Stops(state, self._dispatch, self._actors)
        self._children = Children(state)
        self._ended = Ended(state)
        self._registration = Registration(
            state, self._processes, self._actors, self._children, self._ended
        )
        parts = self._processes, self._dispatch, self._intake, self._stops
        self._drain = Drain(state, *parts, self._ended)
        self._texts = Texts(state, pid)
        self._reports = Reports(
            state, self._waits, self._processes, self._dispatch, self._actors, self._children,
            self._drain, self._stops, self._texts,
        )  # fmt: skip
        self._returns = Returns(state, self._dispatch)
        self._limits = LimitsOf(state, self._stops.judged, self._stops.runs_away)
        self._pressure = Pressure(state, self._stops.judged, self._stops.runs_away)
        self._hangs = Hangs(state, self._stops.hung, self._limits.look)
        self._stack_asks = StackAsks(state)
        self._beats = Beats(state, self._waits, *parts, self._returns, self._hangs)
        rooms = self._dispatch, self._processes, self._waits, self._stops, self._drain
        #: what waits for a time; each says so by `state.due_by`, or has something open
        self._rooms = (*rooms, self._hangs, self._stack_asks)
        #: the scheduler's, when the link's life began; 0: there was none
        self._epoch = 0
        #: the scheduler is to be told when all that it had given up here is dead
        self._clears = False
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.Connected: self._on_connected,
            events.Disconnected: self._on_disconnected,
            events.Received: self._on_received,
            events.Confirmed: self._on_confirmed,
            events.BlobReceived: lambda event, _: self._intake.blob(event),
            events.WorkerSpoke: self._on_spoke_up,
            events.WorkerExited: self._reports.exited,
            events.WorkerFailed: self._reports.failed,
            events.PacketsTaken: self._reports.packets_taken,
            events.PageRead: self._on_page_read,
            events.Spoke: lambda event, _: self._texts.spoke(event),
            events.SchedulerLags: lambda event, _: self._texts.lags(event),
            events.Noticed: lambda event, _: self._texts.noticed(event),
            events.Seen: self._on_seen,
            events.Dumped: self._on_dumped,
            events.Measured: self._on_measured,
            events.StopAsked: lambda event, now: self._drain.asked(event.times > 1, now),
            events.RoomLeft: lambda event, _: self._state.objects.has_room(event.fullness),
            events.TimePassed: lambda _, __: None,
        }
        self._messages = self._message_handlers()
        self._packets = self._packet_handlers()

    def _message_handlers(self) -> dict[type, Callable[[Any, float], None]]:
        objects, ended = self._state.objects, self._ended
        return {
            messages.Prepare: self._prepare,
            messages.Discard: self._discard,
            messages.Assign: self._intake.assign,
            messages.Stop: self._stop,
            HandedOver: lambda message, _: ended.handed_over(message.numbers),
            Report: lambda message, now: ended.report(message.rows, now),
            Recovered: lambda _, __: self._registration.recovered(self._epoch),
            messages.TakeBack: lambda message, _: self._returns.take_back(message),
            messages.Results: lambda message, _: self._intake.values(message.rows, mine=True),
            messages.Retried: lambda message, _: self._children.retried(message),
            Values: lambda message, _: self._intake.values(message.rows, mine=False),
            messages.Cancelled: lambda message, _: self._children.answered(message),
            messages.Answer: lambda message, _: self._children.answered(message),
            messages.Wanted: lambda message, _: objects.want(message.ids),
            messages.Shared: lambda message, _: objects.share(message.ids),
            messages.Unshared: lambda message, _: objects.unshare(message.ids),
            Look: lambda message, _: self._beats.asked.append(message.number),
            Deadlock: lambda message, now: self._waits.deadlock(message.rows, now),
            DrainNode: lambda message, now: self._drain.asked(message.cancel, now),
            Farewell: lambda message, _: self._drain.farewell(message),
            Stack: self._stack_asks.asked,
            messages.TakeStock: lambda message, _: self._children.take_stock(message),
            CheckpointsKept: lambda message, _: self._actors.checkpoints.are_kept(message),
            CheckpointsGone: lambda message, _: self._actors.checkpoints.are_gone(message),
            ItemsTaken: lambda message, _: self._state.streams.taken(message),
            HowFar: lambda message, _: self._state.how_far(message),
        }

    def _packet_handlers(self) -> dict[type, Callable[[Worker, Any, float], None]]:
        return {
            Finished: self._reports.finished,
            Ready: self._reports.ready,
            ActorMade: self._reports.made,
            Begun: self._actors.begun,
            CallsTold: self._on_calls_told,
            Progressed: self._reports.progressed,
            Returned: self._reports.returned,
            Submitted: self._reports.submitted,
            Want: self._reports.want,
            WantOver: lambda worker, packet, _: self._waits.want_over(worker, packet),
            Refs: self._reports.refs,
            CancelTasks: lambda worker, packet, _: self._children.cancel(worker, packet),
            Ask: lambda worker, packet, _: self._children.ask(worker, packet),
            Checkpointed: self._actors.checkpoints.came,
            Health: self._stops.health,
            Item: self._reports.yielded,
            ItemsRead: lambda worker, packet, _: self._children.read(worker, packet),
        }

    # ---------------------------------------------------------------------------------- the face

    @property
    def story(self) -> list[tuple[float, str]]:
        """The last rare events and why, oldest first."""
        return list(self._state.story)

    @property
    def counters(self) -> dict[str, int]:
        """What has been counted since this core began."""
        return self._state.counters

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take in what has happened. What follows from it may come with `turn` only."""
        self._handlers[type(event)](event, now_s)
        state = self._state
        commands, state.commands = state.commands, []
        return commands

    def turn(self, now_s: float) -> list[Command]:
        """Act on all that was handled: once after all events of a loop turn.

        Only rooms with something to do are entered: most turns are about one task, and what costs
        most of such a turn is code that is touched for nothing.
        """
        state, actors = self._state, self._actors
        is_due = now_s >= state.due_s
        is_rare = bool(
            self._stops.due or self._stops.stuck or self._intake.later or self._waits.open
            or state.objects.satisfied or self._returns.waiting or self._drain.active
            or self._stack_asks.open
        )  # fmt: skip
        if is_rare:
            self._go_on(now_s)
        if state.queue.waiting or is_due:
            self._dispatch.turn(now_s)
        if actors.due or actors.refused:
            actors.turn(now_s)
        if is_due:
            if now_s >= state.look_due_s:
                self._hangs.turn(now_s)
            self._processes.turn(now_s)
        self._flush(now_s)
        if is_due or is_rare:
            state.due_s = self._first_due_s()
        commands, state.commands = state.commands, []
        return commands

    def _go_on(self, now_s: float) -> None:
        """Go on with what is open and looked at in every turn."""
        if self._stops.due:
            self._stops.turn(now_s)
        if self._stops.stuck:
            self._reports.stuck(now_s)
        if self._intake.later:
            self._stop(messages.Stop(self._intake.assign_later(now_s)), now_s)
        if self._waits.open or self._state.objects.satisfied:
            self._waits.settle(now_s)
        if self._returns.waiting:
            self._returns.turn()
        if self._drain.active:
            self._drain.turn(now_s)
        if self._stack_asks.open:
            self._stack_asks.turn(now_s)

    def deadline_s(self) -> float | None:
        """Return when `turn` is to be called at the latest; None: when something happens.

        That may be too early, never too late: the turn then finds out when it really is.
        """
        due_s = self._state.due_s
        return None if due_s == NEVER_S else due_s

    def _first_due_s(self) -> float:
        first_s = self._beats.due_s if self._state.connected else NEVER_S
        dues_s = [due_s for room in self._rooms if (due_s := room.deadline_s()) is not None]
        return min([first_s, *dues_s])

    def at_rest(self) -> dict[str, int]:
        """Return the sizes of all maps that are empty when there is nothing to do."""
        state = self._state
        return {
            "attempts": len(state.attempts),
            "queued": state.queue.count(),
            "busy_workers": sum(worker.shape is not None for worker in state.workers.values()),
            "actors": sum(worker.actor is not None for worker in state.workers.values()),
            "objects": len(state.objects.entries),
            "calls": len(state.objects.calls),
            "waits": self._waits.count(),
            "lenders": len(self._waits.lenders),
            "requests": len(self._children.requests),
            "blobs": self._intake.blobs.count() + len(self._state.objects.ahead),
            "later": self._intake.later_count,
            "stops": self._stops.count(),
            "take_backs": len(self._returns.waiting),
            **self._actors.checkpoints.sizes(),
            **self._ended.sizes(),
            **state.streams.sizes(),
        }

    def check_invariants(self) -> None:
        """Assert that all records agree. For tests and the simulator, between turns."""
        assert self._state.due_s <= self._first_due_s(), "somebody waits for a time and hides it"
        self._dispatch.check_invariants()
        self._actors.check_invariants()
        self._waits.check_invariants()
        invariants.check(self._state, self._intake, self._ended)

    # ------------------------------------------------------------------------------- the scheduler

    def _on_connected(self, event: events.Connected, now_s: float) -> None:
        state = self._state
        state.connected = True
        self._beats.soon(now_s + self._settings.heartbeat_interval_s)
        if event.resumed:
            self._children.resumed()
            return
        former, self._epoch = self._epoch, event.epoch
        if former in (0, event.epoch):
            if former:
                state.note(now_s, "the scheduler had given this node up: everything is dropped")
                state.counters["restarts"] += 1
                self._drop_everything(now_s)
            self._join(former)
            return
        state.note(now_s, f"the scheduler has been restarted, its epoch is {event.epoch}")
        state.counters["scheduler_restarts"] += 1
        self._start_anew()
        self._join(former)
        self._registration.tell()

    def _join(self, former: int) -> None:
        self._joining.draining = self._drain.active
        self._registration.join(self._joining, former, self._epoch)
        self._drain.reconnected()

    def _on_disconnected(self, _event: events.Disconnected, now_s: float) -> None:
        self._state.connected = False
        self._state.note(now_s, "the connection to the scheduler closed")

    def _on_confirmed(self, event: events.Confirmed, now_s: float) -> None:
        lease = self._state.lease
        if lease.confirmed(event.sent_s):
            self._state.commands.append(events.LeaseUntil(lease.until_s))
            self._actors.heard(now_s)

    def _on_received(self, event: events.Received, now_s: float) -> None:
        handler = self._messages.get(type(event.message))
        if handler is None:
            self._state.note(now_s, f"not for a node: {type(event.message).__name__}")
            return
        handler(event.message, now_s)

    def _start_anew(self) -> None:
        # What it drops and has not seen dead yet is named in no inventory.
        self._clears = True
        # What was to be said to the scheduler that is no more is void; all that is here goes on.
        self._state.restarted()
        self._beats.asked.clear()
        self._returns.waiting.clear()
        self._stack_asks.clear()
        self._intake.restarted()
        self._actors.restarted()
        self._ended.restarted()
        self._children.restarted()

    def _drop_everything(self, now_s: float) -> None:
        state = self._state
        self._clears = True
        for worker in state.workers.values():
            if not worker.dropped:
                self._processes.drop(worker, now_s)
        for attempt in list(state.attempts.values()):
            state.forget(attempt)
        self._stops.clear()
        self._pressure.clear()
        self._hangs.clear()
        self._stack_asks.clear()
        self._children.clear()
        self._intake.clear()
        self._returns.waiting.clear()
        self._texts.clear()
        self._dispatch.clear()
        self._actors.clear()
        self._processes.clear()
        state.clear()
        self._ended.clear()
        self._beats.asked.clear()

    def _prepare(self, message: messages.Prepare, now_s: float) -> None:
        self._intake.prepare(message, now_s)
        self._texts.meet(message.kinds)

    def _discard(self, message: messages.Discard, now_s: float) -> None:
        for number in message.kinds:
            self._intake.forget_kind(number)
        for client in message.clients:
            self._forget_client(client, now_s)

    def _forget_client(self, client: bytes, now_s: float) -> None:
        state = self._state
        for worker in state.workers.values():
            if worker.crew.key.client == client and not worker.dropped:
                self._processes.drop(worker, now_s)
                self._children.worker_gone(worker)
        for attempt in [a for a in state.attempts.values() if a.kind.client == client]:
            is_held = attempt.kind.actor and attempt.state == SENT
            if is_held and not state.workers[attempt.worker].dropped:
                # Its actor outlives the client: what it has begun comes to its end.
                row = (attempt.row.id, attempt.row.attempt, int(StopMode.UNSTARTED))
                self._stop(messages.Stop([row]), now_s)
            else:
                state.forget(attempt)
        self._intake.forget_client(client)
        self._ended.forget_client(client)
        state.objects.client_left(client)
        self._children.forget_client(client)
        self._dispatch.forget_client(client)
        self._processes.forget_client(client)
        self._actors.checkpoints.forget_client(client)
        self._texts.forget_client(client)

    def _stop(self, message: messages.Stop, now_s: float) -> None:
        for task, number, mode in message.rows:
            if self._intake.later and self._intake.stops_later(task, number, mode):
                continue
            if mode == StopMode.FORCE and self._ended.stop(task, number):
                continue
            if self._stops.stop(task, number, mode, now_s, message.reason):
                self._beats.named[task] = None  # it tells that the attempt runs
                self._beats.soon(now_s)

    # --------------------------------------------------------------------------------- the workers

    def _on_spoke_up(self, event: events.WorkerSpoke, now_s: float) -> None:
        state, packet = self._state, event.packet
        worker = state.workers.get(event.worker)
        if worker is None or worker.dropped:
            state.counters["stale_dropped"] += 1
            return
        self._packets[type(packet)](worker, packet, now_s)

    def _on_seen(self, event: events.Seen, now_s: float) -> None:
        self._beats.seen(event, now_s)
        self._pressure.seen(event, now_s)

    def _on_measured(self, event: events.Measured, now_s: float) -> None:
        self._beats.measured(event)
        self._pressure.measured(event, now_s)

    def _on_dumped(self, event: events.Dumped, now_s: float) -> None:
        self._stack_asks.dumped(event)
        self._stops.dumped(event, now_s)

    def _on_calls_told(self, worker: Worker, packet: CallsTold, _now_s: float) -> None:
        self._stack_asks.told(worker, packet)
        self._stops.told(worker, packet)

    def _on_page_read(self, event: events.PageRead, now_s: float) -> None:
        for number, started, _running in event.samples:
            worker = self._state.workers.get(number)
            if worker is not None and not worker.dropped:
                self._reports.page_read(worker, started, now_s)
                self._stops.page_read(worker, now_s)

    # ------------------------------------------------------------------------------- the outboxes

    def _flush(self, now_s: float) -> None:
        state, objects = self._state, self._state.objects
        if self._texts.rows:
            self._texts.flush()  # before the results of what wrote it
        if self._children.forgotten:
            self._children.flush()
        if self._actors.ups:
            self._actors.tell()
        if self._clears and not any(worker.dropped for worker in state.workers.values()):
            self._clears = False
            state.send(ActorsGone())
        if state.blocked:
            rows, state.blocked = state.blocked, []
            state.send(Blocked(rows))
        if state.streams.said or state.streams.asked:
            state.streams.tell()  # before the end of what yielded it
        if state.done:
            self._ended.tell()
        elif state.streams.left:
            objects.unpin(state.streams.let_go())
        if objects.values or objects.fetches or objects.takings.news:
            state.tell_objects()
        if objects.loose:
            self._children.sweep()
        if self._drain.active:
            self._drain.look(bool(self._epoch))
        if self._beats.asked:
            self._beats.answer()
        if state.connected and now_s >= self._beats.due_s:
            self._beats.beat(now_s)
