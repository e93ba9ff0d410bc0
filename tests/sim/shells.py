"""The loops around the three cores, turned by the virtual clock instead of a poll.

Each process wakes a moment after something came or when a deadline is due, tells its core all that
came, lets it turn once, carries out what it commands, and flushes its links; as the real services
do. Here processes are paused, crash and come back. Never decides about a task.
"""

import traceback
from abc import ABC, abstractmethod
from random import Random
from typing import TYPE_CHECKING, Any

from drumbeat.client import events as client_events
from drumbeat.client.core import ClientCore
from drumbeat.node import events as node_events
from drumbeat.node.core import NodeCore
from drumbeat.protocol.frames import Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Environment, Join
from drumbeat.scheduler import events as scheduler_events
from drumbeat.scheduler.core import SchedulerCore

from .pool import FakePool
from .wire import Place, dial, listen, simulated

if TYPE_CHECKING:
    from .world import World

TURN_DELAY_S = 3e-5
IDLE_S = 1.0


class Process(ABC):
    """One loop with a core inside."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.name = name
        self.clock = world.clock
        self.random = Random(f"{world.scenario.seed} {name} {world.next_number()}")
        self.is_alive = True
        self.paused_until_s = 0.0
        self.core: Any = None
        self.shell: Any = None
        self.turns = 0
        self._wake_s = float("inf")
        self._due_s = float("inf")
        self._told: list[Any] = []

    def tell(self, event: Any) -> None:
        """Give the core an event in its next turn."""
        self._told.append(event)
        self.wake()

    def wake(self) -> None:
        """Turn in a moment."""
        self._turn_at(self.clock.now_s + TURN_DELAY_S * (0.3 + self.random.random()))

    def pause(self, for_s: float) -> None:
        """Stand still (SIGSTOP), and go on later."""
        self.paused_until_s = max(self.paused_until_s, self.clock.now_s + for_s)

    def _turn_at(self, when_s: float) -> None:
        if when_s < self._wake_s:
            self._wake_s = when_s
            self.clock.at(when_s, self._woken, when_s)

    def _woken(self, when_s: float) -> None:
        if when_s != self._wake_s or not self.is_alive:
            return
        self._wake_s = float("inf")
        now_s = self.clock.now_s
        if now_s < self.paused_until_s:
            self._turn_at(self.paused_until_s)
            return
        self.turns += 1
        try:
            self._turn(now_s)
            if self.turns % self.world.scenario.audit_each == 0:
                self.core.check_invariants()
        except Exception:  # noqa: BLE001  # whatever it is, it is a finding
            self.world.oracle.wrong(f"{self.name} crashed:\n{traceback.format_exc(limit=-6)}")
            self.is_alive = False
            return
        if not self.is_alive:
            return
        self._due_s = now_s + IDLE_S
        for due_s in (self.core.deadline_s(), self.shell.deadline_s()):
            if due_s is not None and due_s < self._due_s:
                self._due_s = due_s
        self._due_s = max(self._due_s, now_s + 1e-6)
        self._turn_at(self._due_s)

    def _turn(self, now_s: float) -> None:
        for event in self._happenings(now_s):
            self._carry_out(self.core.handle(event, now_s))
        told, self._told = self._told, []
        for event in told:
            self._carry_out(self.core.handle(event, now_s))
        if now_s >= self._due_s:
            late_s = now_s - self._due_s
            self._carry_out(self.core.handle(self._time_passed(late_s), now_s))
        self._carry_out(self.core.turn(now_s))
        self.shell.flush(now_s)

    @abstractmethod
    def _happenings(self, now_s: float) -> list[Any]:
        """Return the events of what has come."""

    @abstractmethod
    def _time_passed(self, late_s: float) -> Any:
        """Return the event that says so."""

    @abstractmethod
    def _carry_out(self, commands: list[Any]) -> None:
        """Do what the core commands."""


class SchedulerProcess(Process):
    """The scheduler."""

    def __init__(self, world: "World") -> None:
        super().__init__(world, "scheduler")
        settings = world.settings
        self.place = Place(world.network, self.name, self.wake)
        self.place.record = world.record
        self.shell = listen(self.place, settings, epoch=1)
        self.core = SchedulerCore(settings, 1, Random(f"{world.scenario.seed} core"))
        self._joined: dict[PeerId, None] = {}
        self.wake()

    @property
    def listener(self) -> Any:
        """What connections lead to."""
        return self.place.sockets[0]

    def _happenings(self, now_s: float) -> list[Any]:
        events: list[Any] = []
        for one in self.shell.turn(now_s):
            match one:
                case simulated.Message():
                    if isinstance(one.message, Join):
                        self.world.oracle.joined_s.setdefault(one.message.name, now_s)
                    events.append(scheduler_events.Received(one.peer, one.message))
                case simulated.Blob():
                    self.world.oracle.count("blob")
                    events.append(scheduler_events.BlobReceived(one.peer, one.key, one.payload))
                case simulated.Heard():
                    events.append(scheduler_events.PeerHeard(one.peers))
                case simulated.Joined():
                    if one.peer in self._joined:
                        self.world.oracle.life_lost(one.peer)
                    self._joined[one.peer] = None
                    events.append(scheduler_events.PeerJoined(one.peer, one.hello))
                case simulated.Returned():
                    self.world.oracle.count("link resumed")
                    events.append(scheduler_events.PeerReturned(one.peer))
                case simulated.Disconnected():
                    events.append(scheduler_events.PeerDisconnected(one.peer))
                case simulated.Reached():
                    events.append(scheduler_events.Reached(one.peer, one.marks))
                case simulated.Lags():
                    events.append(scheduler_events.PeerLags(one.peer, one.queued_bytes))
                case simulated.Rejected():
                    self.world.oracle.wrong(f"the scheduler rejects {one.reason}")
        return events

    def _time_passed(self, late_s: float) -> Any:
        return scheduler_events.TimePassed(late_s)

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            match command:
                case scheduler_events.Send():
                    self.world.oracle.retry_told(command.message, 1)
                    self.shell.send(command.peer, command.message)
                case scheduler_events.Mark():
                    self.shell.mark(command.peer, command.mark)
                case scheduler_events.SendBlob():
                    self.shell.send_blob(command.peer, command.key, command.payload)
                case scheduler_events.Drop():
                    if command.error:
                        text = f"the scheduler drops a peer: {command.error} {command.reason}"
                        self.world.oracle.count(f"dropped with {command.error}")
                        if command.error == "RemoteProtocolError":
                            self.world.oracle.wrong(text)
                    self.world.oracle.life_lost(command.peer)
                    self.shell.drop(command.peer, command.error, command.reason)


class _DiallingProcess(Process):
    """A node or a client."""

    events: Any

    def __init__(self, world: "World", name: str, role: str) -> None:
        super().__init__(world, name)
        self.peer = PeerId(self.random.randbytes(6))
        self.is_refused = False
        self.has_been_up = False
        self.place = Place(world.network, name, self.wake, world.scheduler.listener)
        self.place.record = world.record
        self.shell = dial(self.place, role, self.peer, world.settings, Random(self.peer))

    def crash(self) -> None:
        """The process is gone; its kernel sends on what it had taken, or not."""
        self.is_alive = False
        self.world.oracle.life_lost(self.peer)
        lost = self.random.random() < 0.5
        for socket in list(self.place.sockets):
            socket.connection.die_at_dialler(lost)

    def _happenings(self, now_s: float) -> list[Any]:
        kinds = self.events
        events: list[Any] = []
        for one in self.shell.turn(now_s):
            match one:
                case simulated.Message():
                    self.world.oracle.retry_told(one.message, -1)
                    events.append(kinds.Received(one.message))
                case simulated.Blob():
                    events.append(kinds.BlobReceived(one.key, one.payload))
                case simulated.Up():
                    if self.has_been_up and not one.resumed:
                        self.world.oracle.count("new link life")
                        self.world.oracle.life_lost(self.peer)
                    self.has_been_up = True
                    events.append(kinds.Connected(one.epoch, one.resumed))
                case simulated.Down():
                    events.append(kinds.Disconnected())
                case simulated.Refused():
                    self.is_refused = True
                    self.world.oracle.wrong(f"{self.name} is refused: {one.error} {one.reason}")
                case simulated.Rejected():
                    self.world.oracle.wrong(f"{self.name} rejects {one.reason}")
        return events

    def _time_passed(self, late_s: float) -> Any:
        return self.events.TimePassed()


class NodeProcess(_DiallingProcess):
    """A node daemon with its workers."""

    events = node_events

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name, Role.NODE)
        self.core = NodeCore(
            world.settings,
            self.peer,
            name,
            f"host of {name}",
            dict(world.scenario.nodes[name]),
        )
        self.pool = FakePool(
            self.clock, self.random, world.oracle, self.peer, name, self.tell, world.record
        )
        self.wake()

    def crash(self) -> None:
        """The daemon is gone, so its keeper kills the workers."""
        super().crash()
        self.pool.kill_all()

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            if self.pool.carry_out(command):
                continue
            if isinstance(command, node_events.Send):
                self.shell.send(command.message)
            elif isinstance(command, node_events.SendBlob):
                self.shell.send_blob(command.key, command.payload)
            else:
                self.world.oracle.wrong(f"{self.name} commands {command!r}")


class ClientProcess(_DiallingProcess):
    """A client's I/O loop."""

    events = client_events

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name, Role.CLIENT)
        environment = Environment(host="host of n0", directory="/", pid=1, python="3.11")
        self.core = ClientCore(world.settings, self.peer, name, environment)
        self.user: Any = None
        self._leaves = False
        self.wake()

    def leave(self) -> None:
        """Say goodbye; the process ends a moment after."""
        self._leaves = True
        self.wake()

    def _turn(self, now_s: float) -> None:
        self._told += self.user.taken()
        super()._turn(now_s)
        if self._leaves:
            self._carry_out(self.core.handle(client_events.Leaving(), now_s))
            self._carry_out(self.core.turn(now_s))
            self.shell.flush(now_s)
            self.is_alive = False
            self.clock.after(0.01, self.shell.close)

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            match command:
                case client_events.Send():
                    self.shell.send(command.message)
                case client_events.SendBlob():
                    self.shell.send_blob(command.key, command.payload)
                case client_events.Resolve():
                    self.user.resolved(command.rows)
                case client_events.Free():
                    self.user.freed(command.ids)
                case client_events.Reply():
                    self.user.replied(command.request, command.data)
                case client_events.Print():
                    self.world.oracle.count("printed")
                case client_events.ShapesKnown():
                    self.world.oracle.count("shapes known")
