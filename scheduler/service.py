"""The scheduler's process: the loop between the links and the core.

Never decides: it tells the core what happened, carries out what the core commands, in order, and
sleeps until something is due. An exception out of the core is a bug: story and event are dumped,
and the process ends with 70.
"""

import contextlib
import gc
import os
import random
import signal
import time
import traceback
from types import FrameType
from typing import Final

from ..protocol.clock import now_s
from ..protocol.complaints import Complaints
from ..protocol.keys import Door
from ..protocol.lines import say
from ..protocol.notify import HealthFile, ServiceManager
from ..protocol.payload_files import machine_of
from ..protocol.settings import Settings
from ..protocol.sizes import say_sizes
from ..protocol.transport import (
    Blob,
    Disconnected,
    Heard,
    Joined,
    Lags,
    ListenHappening,
    ListenShell,
    Message,
    Orphaned,
    Poller,
    Reached,
    Rejected,
    Relays,
    Returned,
    Unread,
)
from . import events
from .core import SchedulerCore
from .deed_files import DeedFiles
from .deed_writer import DeedWriter
from .gathering import Gathering
from .statefile import StateFile

EXIT_BUG: Final = 70
#: the loop comes round at least so often
TURN_MAX_S: Final = 1.0
#: later than that is worth telling the core
LATE_S: Final = 0.1
#: garbage is collected when there is nothing to do, at most so often
COLLECT_S: Final = 5.0
#: a turn that waited for so long and heard of nothing had nothing to do
IDLE_S: Final = 0.01
#: the core is told what the clock on the wall shows
CLOCK_S: Final = 60.0
#: what could not be written is tried again after
WRITE_AGAIN_S: Final = 1.0
#: for what is still to be said at the end
LINGER_S: Final = 0.2
#: for what is still to be written down at the end
DEEDS_S: Final = 3.0


class _CoreFailedError(Exception):
    """The core has raised: its state cannot be trusted any more."""


class Service:
    """One life of the scheduler.

    Args:
        endpoint: where to listen.
        settings: the scheduler's.
        state: the file that is kept over the scheduler's lives.
        owner_fd: a pipe of whoever started it, at whose end it ends too; -1: none.
        door: who may come over the network; None: it listens on a Unix socket.
    """

    def __init__(
        self,
        endpoint: str,
        settings: Settings,
        state: StateFile,
        owner_fd: int = -1,
        door: Door | None = None,
    ) -> None:
        rng = random.Random(os.urandom(16))  # jitter, no secrets
        self._state = state
        # Before anybody can hear of it, this life's number is safe: none is ever used twice.
        memory = state.begin()
        epoch = memory.epoch
        #: detached actors, beside the state
        self._deeds = DeedFiles(state.path.with_name(state.path.name + ".actors"))
        wills = self._deeds.load()
        self._writer = DeedWriter(self._deeds)
        self._core = SchedulerCore(
            settings, epoch, rng, memory.nodes, memory.gone, memory.daemons, memory.closed, wills,
            memory.acting,
        )  # fmt: skip
        #: what could not be written down yet
        self._unwritten: events.Remember | None = None
        self._write_again_s = 0.0
        self._shell = ListenShell(endpoint, settings, epoch, door, machine_of(settings))
        self._gathering = Gathering(self._shell.fetch, self._writer.keep)
        self._poller = Poller()
        self._shell.attach(self._poller)
        self._owner_fd = owner_fd
        if owner_fd >= 0:
            self._poller.add(owner_fd)
        self._stop_read, self._stop_write = os.pipe()
        os.set_blocking(self._stop_read, False)
        os.set_blocking(self._stop_write, False)
        self._poller.add(self._stop_read)
        self._poller.add(self._writer.wake_fd)
        self._stopping = False
        #: somebody wants to know how much of what there is here
        self._asked = False
        self._complaints = Complaints()
        self._manager = ServiceManager.of_environment()
        self._health = HealthFile(settings.health_file)
        #: what came from nobody that the core knows, and was refused: as last told
        self._refusals = 0
        #: when something is due by the clock alone
        self._seldom_due_s = 0.0
        self._worked = True
        self._collected_s = 0.0
        self._clock_due_s = 0.0
        #: when the clock was read last, and what it may be late for that without having been away
        self._read_s, self._interval_s = now_s(), settings.heartbeat_interval_s
        # The descriptor wakes the poll, whatever it is that the signal interrupts.
        signal.set_wakeup_fd(self._stop_write, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_term)
        signal.signal(signal.SIGUSR2, self._on_usr2)

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        for complaint in self._deeds.complaints:
            self._complain(complaint, now_s())
            self._tell(events.Kept(b"", complaint), now_s())
        gc.disable()
        gc.collect()
        gc.freeze()
        try:
            while not self._stopping:
                self._turn()
        except _CoreFailedError:
            return EXIT_BUG
        finally:
            self._health.gone()
        self._manager.stopping()
        self._shell.close(LINGER_S)
        # What was begun beside the loop is carried through: the next life goes by what is there.
        self._look_at(self._writer.close(DEEDS_S))
        return 0

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _on_usr2(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    # ------------------------------------------------------------------------------ one turn

    def _turn(self) -> None:
        core, shell = self._core, self._shell
        before_s = now_s()
        due_s = before_s + TURN_MAX_S
        core_s, shell_s = core.deadline_s(), shell.deadline_s()
        if core_s is not None and core_s < due_s:
            due_s = core_s
        if shell_s is not None and shell_s < due_s:
            due_s = shell_s
        wait_s = due_s - before_s
        ready = self._poller.wait(wait_s)
        at_s = now_s()
        if ready and self._woken(ready, at_s):
            return
        if self._asked:
            self._say_sizes()
        if at_s >= self._seldom_due_s:
            self._see_to_the_rest(at_s)
        happenings = shell.turn(at_s)
        if shell.may_have_refused:
            self._look_at_the_door(at_s)
        late_s = at_s - due_s if wait_s > 0.0 else at_s - before_s
        if before_s - self._read_s >= self._interval_s:
            # Stopped amid the last turn, it has heard nobody since either.
            late_s = max(0.0, late_s) + before_s - self._read_s
        self._read_s = at_s
        if late_s > LATE_S:
            self._tell(events.TimePassed(late_s), at_s)
        if happenings:
            self._worked = True
            self._hear(happenings, at_s)
        try:
            commands = core.turn(at_s)
        except Exception as bug:
            raise self._failed("in its turn") from bug
        if commands:
            self._carry_out(commands)
        shell.flush(at_s)
        if self._worked and not happenings and at_s - before_s > IDLE_S:
            self._collect(at_s)

    def _see_to_the_rest(self, at_s: float) -> None:
        """Do what is due by the clock alone, and seldom."""
        if at_s >= self._clock_due_s:
            self._clock_due_s = at_s + CLOCK_S
            self._tell(events.ClockRead(time.time()), at_s)
            self._deeds.drop_again()
        self._manager.alive(at_s)
        self._health.alive(at_s)
        self._seldom_due_s = min(self._clock_due_s, self._manager.due_s, self._health.due_s)
        if self._unwritten is not None:
            if at_s >= self._write_again_s:
                self._remember(self._unwritten)
            self._seldom_due_s = min(self._seldom_due_s, self._write_again_s)

    def _hear(self, happenings: list[ListenHappening], at_s: float) -> None:
        """Tell the core what happened on the links."""
        handle = self._core.handle
        for happening in happenings:
            if type(happening) is not Message:
                if type(happening) is Rejected:
                    self._complain(f"refused from {happening.peer.hex()}: {happening.reason}", at_s)
                self._tell(_event_of(happening), at_s)
                continue
            event = events.Received(happening.peer, happening.message)
            try:
                commands = handle(event, at_s)
            except Exception as bug:
                raise self._failed(f"while it handled {event!r}") from bug
            if commands:
                self._carry_out(commands)

    def _look_at_the_door(self, at_s: float) -> None:
        shell = self._shell
        shell.may_have_refused = False
        if shell.refusals != self._refusals:
            self._refusals = shell.refusals
            self._tell(events.DoorTold(shell.counters, shell.last_refusal), at_s)

    def _tell(self, event: events.Event, at_s: float) -> None:
        try:
            commands = self._core.handle(event, at_s)
        except Exception as bug:
            raise self._failed(f"while it handled {event!r}") from bug
        if commands:
            self._carry_out(commands)

    def _failed(self, where: str) -> _CoreFailedError:
        self._dump(where[:20_000])
        return _CoreFailedError()

    def _woken(self, ready: list[int], at_s: float) -> bool:
        """See to what is no socket; return whether this is the end."""
        if self._owner_fd in ready and not os.read(self._owner_fd, 4096):
            self._stopping = True
            return True
        if self._writer.wake_fd in ready:
            self._hear_of_deeds(at_s)
        return False

    def _hear_of_deeds(self, at_s: float) -> None:
        """Tell the core which detached actors are written down."""
        kept, troubles = self._writer.take()
        for id_, why in kept:
            self._tell(events.Kept(id_, why), at_s)
        for why in troubles:
            self._look_at(why)

    def _carry_out(self, commands: list[events.Command]) -> None:
        shell = self._shell
        is_written = False
        for command in commands:
            # A peer whose link has ended meanwhile is told nothing; the core will hear of it.
            if type(command) is events.Send:
                shell.send(command.peer, command.message)
            elif isinstance(command, events.Mark):
                shell.mark(command.peer, command.mark)
            elif isinstance(command, events.SendBlob):
                shell.send_blob(command.peer, command.key, command.payload)
            elif isinstance(command, events.Restore):
                shell.restore(command.orphan, command.payload)
            elif isinstance(command, events.Leaves):
                shell.leaves(command.peer)
            elif isinstance(command, events.Remember):
                self._remember(command)
            elif isinstance(command, events.Keep):
                self._gathering.keep(command.deed)
            elif isinstance(command, (events.KeepCourse, events.Unkeep)):
                if not is_written:
                    is_written = True
                    self._write_all(commands)
            elif isinstance(command, events.Drop):
                if command.error:
                    self._complain(f"dropped: {command.reason}", now_s())
                shell.drop(command.peer, command.error, command.reason)

    def _write_all(self, commands: list[events.Command]) -> None:
        """Write what of a turn has to be on the disk before anything is sent: small files."""
        courses = {one.id: one.course for one in commands if isinstance(one, events.KeepCourse)}
        if courses:
            self._look_at(self._deeds.keep_courses(courses))
        dropped = [one.id for one in commands if isinstance(one, events.Unkeep)]
        if dropped:
            self._gathering.withdraw(dropped)
            written, why = self._writer.withdraw(dropped)
            self._look_at(why)
            if written:
                self._look_at(self._deeds.drop(written))

    def _remember(self, command: events.Remember) -> None:
        """Write down what the next life must know; try again where that fails: work goes on."""
        try:
            self._state.remember(
                command.nodes, command.gone, command.daemons, command.closed, command.acting
            )
        except OSError as error:
            self._unwritten = command
            self._write_again_s = now_s() + WRITE_AGAIN_S
            self._seldom_due_s = min(self._seldom_due_s, self._write_again_s)
            self._complain(f"cannot write down which nodes there are: {error}", now_s())
        else:
            self._unwritten = None

    def _look_at(self, why: str) -> None:
        if why:
            self._complain(f"cannot write down how a detached actor fares: {why}", now_s())

    def _complain(self, text: str, at_s: float) -> None:
        for line in self._complaints.lines(text, at_s):
            say(line)

    def _say_sizes(self) -> None:
        self._asked = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._stop_read, 4096)  # what woke us
        say_sizes("scheduler", self._core.at_rest(), self._core.registered())

    def _collect(self, at_s: float) -> None:
        """Collect garbage, now that it keeps nobody waiting; not too often."""
        if at_s - self._collected_s >= COLLECT_S:
            self._worked = False
            self._collected_s = at_s
            gc.collect()

    def _dump(self, where: str) -> None:
        """Write down what there is to find the bug by."""
        lines = [f"drumbeat scheduler: a bug {where}", traceback.format_exc(), "what came before:"]
        lines += [f"  {at_s:.3f} {line}" for at_s, line in self._core.story]
        say("\n".join(lines))


def _event_of(happening: ListenHappening) -> events.Event:
    """Return what the core is told of a happening."""
    match happening:
        case Message(message, peer):  # the loop does not come here with it: there are too many
            return events.Received(peer, message)
        case Heard(peers):
            return events.PeerHeard(peers)
        case Blob(key, payload, peer):
            return events.BlobReceived(peer, key, payload)
        case Joined(peer, hello, proven):
            return events.PeerJoined(peer, hello, proven)
        case Returned(peer):
            return events.PeerReturned(peer)
        case Disconnected(peer):
            return events.PeerDisconnected(peer)
        case Rejected(reason, peer):
            return events.MessageRejected(peer, reason)
        case Reached(peer, marks):
            return events.Reached(peer, marks)
        case Lags(peer, queued_bytes, channel):
            return events.PeerLags(peer, queued_bytes, channel)
        case Relays(holder, reader, size):
            return events.Relays(holder, reader, size)
        case Orphaned(payload):
            return events.PayloadOrphaned(payload)
        case Unread(peer):
            return events.Unread(peer)
