"""The loops around the three cores, turned by the virtual clock instead of a poll.

Each process wakes a moment after something came or when a deadline is due, tells its core all that
came, lets it turn once, carries out what it commands, and flushes its links; as the real services
do. Here processes are paused, crash and come back. Never decides about a task.
"""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from drumbeat.client import events as client_events
from drumbeat.client.core import ClientCore
from drumbeat.node import events as node_events
from drumbeat.node.core import NodeCore
from drumbeat.protocol import transport
from drumbeat.protocol.drain import Draining
from drumbeat.protocol.frames import Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Environment, Join, Leave
from drumbeat.protocol.payload_files import may_be_file
from drumbeat.protocol.recovery import Registered
from drumbeat.protocol.remotes import Remote
from drumbeat.protocol.standstill import Deadlock
from drumbeat.scheduler import doubts
from drumbeat.scheduler import events as scheduler_events
from drumbeat.scheduler.core import SchedulerCore
from drumbeat.scheduler.deeds import Deed
from drumbeat.scheduler.gathering import Gathering

from . import data_wire
from .data_wire import MoverPlace, open_carriage
from .pool import FakePool
from .process import Process
from .segments import Store
from .wire import Place, dial, listen

#: worlds are small: what takes several turns in a large one is to do so here as well
doubts.JUDGED_A_TURN = 3

if TYPE_CHECKING:
    from .world import World


class SchedulerProcess(Process):
    """The scheduler."""

    def __init__(
        self,
        world: "World",
        epoch: int = 1,
        expected: Sequence[str] = (),
        gone: Sequence[str] = (),
        daemons: Sequence[str] = (),
        closed: int = 0,
        acting: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        super().__init__(world, "scheduler")
        settings = world.settings
        self.epoch = epoch
        self.place = Place(world.network, self.name, self.wake, world.door)
        self.place.record = world.record
        keys = data_wire.KEYS if world.scenario.data else ()
        self.shell = listen(self.place, settings, epoch, keys)
        rng = Random(f"{world.scenario.seed} core {epoch}")
        self._gathering = Gathering(self.shell.fetch, self._keep)
        wills = world.oracle.acts.deeds.wills()
        left = expected, gone, daemons, closed, wills, acting
        self.core = SchedulerCore(settings, epoch, rng, *left)
        #: names of nodes, and peers, that have told all of a life before
        self.registered: dict[str | PeerId, None] = {}
        self._names: dict[PeerId, str] = {}
        self._joined: dict[PeerId, None] = {}
        self._dies_in_turn = False
        self.wake()

    def crash(self, mid_turn: bool) -> None:
        """Die; `mid_turn`: in the next turn, before what was decided has been sent."""
        if mid_turn:
            self._dies_in_turn = True
            self.wake()
            return
        self.is_alive = False
        self.place.sockets[0].die(self.random)
        self.world.scheduler_died()

    def _flush(self, now_s: float) -> None:
        if self._dies_in_turn:
            self.crash(mid_turn=False)
        else:
            super()._flush(now_s)

    def _happenings(self, now_s: float) -> list[Any]:
        events: list[Any] = []
        for one in self.shell.turn(now_s):
            match one:
                case transport.Message():
                    self._note(one.peer, one.message)
                    events.append(scheduler_events.Received(one.peer, one.message))
                case transport.Blob():
                    offered = isinstance(one.payload, Remote)
                    self.world.oracle.count("payload offered" if offered else "blob")
                    events.append(scheduler_events.BlobReceived(one.peer, one.key, one.payload))
                case transport.Heard():
                    events.append(scheduler_events.PeerHeard(one.peers))
                case transport.Joined():
                    if one.peer in self._joined and self.world.knows(one.peer, self.epoch):
                        self.world.oracle.life_lost(one.peer)
                    self._joined[one.peer] = None
                    events.append(scheduler_events.PeerJoined(one.peer, one.hello))
                case transport.Returned():
                    self.world.oracle.count("link resumed")
                    events.append(scheduler_events.PeerReturned(one.peer))
                case transport.Disconnected():
                    events.append(scheduler_events.PeerDisconnected(one.peer))
                case transport.Reached():
                    events.append(scheduler_events.Reached(one.peer, one.marks))
                case transport.Lags():
                    lags = scheduler_events.PeerLags(one.peer, one.queued_bytes, one.channel)
                    events.append(lags)
                case transport.Rejected():
                    self.world.oracle.wrong(f"the scheduler rejects {one.reason}")
                case _:
                    events.append(self._of_remotes(one))
        return events

    def _of_remotes(self, happening: Any) -> Any:
        """Return what the core is told of payloads that are elsewhere."""
        match happening:
            case transport.Relays(holder, reader, size):
                self.world.oracle.count("payload relayed")
                return scheduler_events.Relays(holder, reader, size)
            case transport.Orphaned(payload):
                self.world.oracle.count("payload orphaned")
                return scheduler_events.PayloadOrphaned(payload)
            case transport.Unread(holder):
                return scheduler_events.Unread(holder)

    def _keep(self, deed: Deed) -> None:
        """Write down an actor that is whole; the core hears of it in the next turn."""
        self.world.oracle.acts.deeds.keep(deed)
        self._told.append(scheduler_events.Kept(deed.id))
        self.wake()

    def _note(self, peer: PeerId, message: Any) -> None:
        """Know who has come, and who has come back."""
        if isinstance(message, Join):
            self._names[peer] = message.name
            self.world.oracle.joined_s.setdefault(message.name, self.clock.now_s)
        elif isinstance(message, Registered):
            self.world.oracle.count("registered anew")
            if self.world.given_up.get(peer, self.epoch) < self.epoch:
                # Who was given up by a life before comes to this one with what it still has: what
                # was said of its calls meanwhile was said to others alone, and is void.
                del self.world.given_up[peer]
                self.world.oracle.count("returned after it was given up")
                self.world.oracle.life_lost(peer)
            self.registered[self._names.get(peer, peer)] = None

    def _time_passed(self, late_s: float) -> Any:
        return scheduler_events.TimePassed(late_s)

    def _says(self, command: Any) -> bool:
        """Carry out what is for the links alone; return whether it was."""
        match command:
            case scheduler_events.Mark():
                self.shell.mark(command.peer, command.mark)
            case scheduler_events.SendBlob():
                self.shell.send_blob(command.peer, command.key, command.payload)
            case scheduler_events.Restore():
                self.shell.restore(command.orphan, command.payload)
            case scheduler_events.Leaves():
                self.shell.leaves(command.peer)
            case _:
                return False
        return True

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            if self._says(command):
                continue
            match command:
                case scheduler_events.Send():
                    if isinstance(command.message, Deadlock):
                        self.world.oracle.deadlock(command.message, calm=not self.world.faults)
                    self.shell.send(command.peer, command.message)
                case scheduler_events.Remember():
                    self.world.remember(self, command)
                case scheduler_events.Keep():
                    self._gathering.keep(command.deed)
                case scheduler_events.KeepCourse():
                    self.world.oracle.acts.deeds.keep_course(command.id, command.course)
                case scheduler_events.Unkeep():
                    self._gathering.withdraw([command.id])
                    self.world.oracle.acts.deeds.drop(command.id)
                case scheduler_events.Drop():
                    if command.error:
                        text = f"the scheduler drops a peer: {command.error} {command.reason}"
                        self.world.oracle.count(f"dropped with {command.error}")
                        if command.error == "RemoteProtocolError":
                            self.world.oracle.wrong(text)
                    if not command.error and not self.world.may_be_given_up(command.peer):
                        text = f"{command.peer.hex()} is given up, and nothing is wrong with it"
                        self.world.oracle.wrong(text)
                    self.world.oracle.life_lost(command.peer)
                    self.world.given_up[command.peer] = self.epoch
                    self.shell.drop(command.peer, command.error, command.reason)


class _DiallingProcess(Process):
    """A node or a client."""

    events: Any

    def __init__(self, world: "World", name: str, role: str) -> None:
        super().__init__(world, name)
        self.peer = PeerId(self.random.randbytes(6))
        self.is_refused = False
        self.has_been_up = False
        #: of the scheduler that it was last connected with
        self.epoch = 0
        self.place = Place(world.network, name, self.wake, world.door)
        self.place.record = world.record
        self.mover_place: MoverPlace | None = None
        self.carriage: Any = None
        if world.scenario.data:
            self.mover_place = MoverPlace(self)
            self.carriage = open_carriage(self, self.mover_place, role, self.peer)
        self.shell = dial(
            self.place, role, self.peer, world.settings, Random(self.peer), self.carriage
        )

    def crash(self) -> None:
        """The process is gone; its kernel sends on what it had taken, or not."""
        self.is_alive = False
        self.world.oracle.life_lost(self.peer)
        lost = self.random.random() < 0.5
        for socket in list(self.place.sockets):
            socket.connection.die_at_dialler(lost)
        if self.mover_place is not None:
            self.mover_place.crash()

    def data_sizes(self) -> dict[str, int]:
        """Return what is under way past the scheduler."""
        if self.mover_place is None:
            return {}
        return data_wire.carriage_sizes(self.carriage) | self.mover_place.sizes()

    def _happenings(self, now_s: float) -> list[Any]:
        kinds = self.events
        events: list[Any] = []
        for one in self.shell.turn(now_s):
            match one:
                case transport.Message():
                    events.append(kinds.Received(one.message))
                case transport.Blob():
                    events.append(kinds.BlobReceived(one.key, one.payload))
                case transport.Up():
                    if not self.has_been_up:
                        self.world.welcomed(self, one.epoch)
                    if self.has_been_up and not one.resumed:
                        if one.epoch == self.epoch:
                            self.world.oracle.count("new link life")
                            self.world.oracle.life_lost(self.peer)
                        else:
                            self.world.oracle.count("new life of the scheduler")
                    self.has_been_up = True
                    self.epoch = one.epoch
                    events.append(kinds.Connected(one.epoch, one.resumed))
                case transport.Down():
                    events.append(kinds.Disconnected())
                case transport.Refused():
                    self.is_refused = True
                    self.world.oracle.wrong(f"{self.name} is refused: {one.error} {one.reason}")
                case transport.Rejected():
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
            keeper=f"keeper of {name}",
        )
        self.pool = FakePool(
            self.clock, self.random, world.oracle, self.peer, name, self.tell, world.record
        )
        #: when it has been drained, it is started again so much later
        self.back_s = 0.0
        #: the last batch that the scheduler has acknowledged was sent then
        self._confirmed_s = float("-inf")
        #: Reports that it could not answer: whoever waits for those would wait for ever
        self._unanswered = 0
        self._finishes = False
        #: what counts towards the budget of memory
        self._stowed: dict[bytes, None] = {}
        self.wake()

    def crash(self) -> None:
        """The daemon is gone, so its keeper kills the workers."""
        super().crash()
        self.pool.kill_all()

    def _happenings(self, now_s: float) -> list[Any]:
        events = super()._happenings(now_s)
        confirmed_s = self.shell.confirmed_s
        if confirmed_s > self._confirmed_s:
            self._confirmed_s = confirmed_s
            events.insert(0, node_events.Confirmed(confirmed_s))
        return events

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            if self.pool.carry_out(command):
                continue
            if isinstance(command, node_events.Send):
                if isinstance(command.message, Draining) and command.message.cancel:
                    self.world.oracle.count("drained in a hurry")
                    self.world.oracle.life_lost(self.peer)
                self.shell.send(command.message)
            elif isinstance(command, node_events.SendBlob):
                self.shell.send_blob(command.key, command.payload, command.id)
            elif isinstance(command, node_events.LeaseUntil):
                self.pool.lease_until(self.host_clock.true_s(command.until_s))
            elif isinstance(command, node_events.Stow):
                for id_, row in command.rows:
                    self._stowed.pop(id_, None)
                    self._stowed |= {} if row is None else {id_: None}
            elif isinstance(command, node_events.Brought):
                self.world.oracle.count("put and waited for room")
            elif isinstance(command, node_events.Drains):
                self.world.oracle.drain_begun(self.name, self.peer)
            elif isinstance(command, node_events.Finish):
                self._finishes = True
            else:
                self.world.oracle.wrong(f"{self.name} commands {command!r}")

    def _turn(self, now_s: float) -> None:
        super()._turn(now_s)
        entries = self.core._state.objects.entries.items()
        filed = {id_ for id_, one in entries if one.row and may_be_file(one.row.payload)}
        if filed != self._stowed.keys():
            self.world.oracle.wrong(f"{self.name} counts {self._stowed}, and has {filed}")
        unanswered = self.core.counters["reports_unanswered"]
        if unanswered != self._unanswered:
            self._unanswered = unanswered
            said = [text for _, text in self.core.story if text.startswith("cannot report")]
            self.world.oracle.wrong(f"{self.name} has not what a Report asks for: {said[-1:]}")
        if self._finishes:
            self.shell.send(Leave())
            self._flush(now_s)
            self.is_alive = False
            self.clock.after(0.01, self.shell.close)
            self.world.drained(self)


class ClientProcess(_DiallingProcess):
    """A client's I/O loop."""

    events = client_events

    def __init__(self, world: "World", name: str) -> None:
        super().__init__(world, name, Role.CLIENT)
        environment = Environment(host="host of n0", directory="/", pid=1, python="3.11")
        self.core = ClientCore(
            world.settings, self.peer, name, environment, moves=world.scenario.data
        )
        self.user: Any = None
        self.store = Store(self)
        self._leaves = False
        self.wake()

    def leave(self) -> None:
        """Say goodbye; the process ends a moment after."""
        self._leaves = True
        self.wake()

    def _turn(self, now_s: float) -> None:
        self._told += self.user.taken()
        super()._turn(now_s)
        self.store.check()
        if self._leaves:
            self._carry_out(self.core.handle(client_events.Leaving(), now_s))
            self._carry_out(self.core.turn(now_s))
            self._flush(now_s)
            self.is_alive = False
            self.clock.after(0.01, self.shell.close)

    def _carry_out(self, commands: list[Any]) -> None:
        for command in commands:
            match command:
                case client_events.Send():
                    self.shell.send(command.message)
                case client_events.SendBlob():
                    self.shell.send_blob(command.key, command.payload, command.id)
                case client_events.Resolve():
                    self.user.resolved(command.rows)
                case client_events.SendSegment():
                    self.store.send(command.id)
                case client_events.Free():
                    self.user.freed(command.ids)
                    self.store.close(command.ids)
                case client_events.Reply():
                    self.user.replied(command.request, command.data)
                case client_events.Print():
                    self.world.oracle.count("printed")
                case client_events.ShapesKnown():
                    self.world.oracle.count("shapes known")
