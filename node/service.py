"""The node daemon: the loop around the core, between the scheduler's link and the workers.

Never decides: whatever the core asks for is done in order, and what comes of it is told as events.
An exception out of the core is a bug: story and event are dumped, and the process ends with 70.
"""

import contextlib
import gc
import os
import random
import signal
import socket
import traceback
from collections.abc import Mapping
from types import FrameType, MappingProxyType
from typing import NamedTuple

from ..protocol.carriage import Carriage, carriage_of
from ..protocol.clock import now_s
from ..protocol.complaints import Complaints
from ..protocol.errors import ConfigError, KeyRefused, VersionMismatch
from ..protocol.frames import Role
from ..protocol.ids import PEER_BYTES, PeerId
from ..protocol.keys import Credentials
from ..protocol.lines import say
from ..protocol.machine import Memory, Processors, identity
from ..protocol.messages import (
    Leave,
)
from ..protocol.notify import HealthFile
from ..protocol.payload_files import machine_of
from ..protocol.settings import Settings
from ..protocol.sizes import say_sizes
from ..protocol.transport import (
    Blob,
    DialHappening,
    DialShell,
    Down,
    Message,
    Poller,
    Refused,
    Rejected,
    Unreachable,
    Up,
)
from . import events, kernel
from .core import NodeCore
from .events import Event, Received, Send, SendWorker, Spoke
from .house import House
from .keeper import EXIT_BUG, EXIT_REFUSED
from .lease import STEP, lasts_s
from .page import REVOKED
from .pool import Pool
from .room import Room

#: the loop comes round at least so often, so that the keeper sees the daemon's beat
TURN_MAX_S = 1.0
#: garbage is collected when there is nothing to do, at most so often
COLLECT_S = 5.0
#: and at the latest after so long
COLLECT_LATEST_S = 60.0
#: a daemon that begins so long after its node is not its first
STARTS_S = 30.0
#: a connection that has lasted for so long is none that is refused
STANDS_S = 2.0
#: the beat that the keeper looks for, and the like, at most so often
CHORES_S = 0.1
#: for what is still to be said to the scheduler at the end
LINGER_S = 0.2

#: a breach of the protocol may be this daemon's own bug, which the next one may not come across
EXIT_DROPPED = 1
#: refusals that a further daemon here meets with as well, until somebody does something about it
FINAL = (ConfigError.__name__, KeyRefused.__name__, VersionMismatch.__name__)


class Plan(NamedTuple):
    """What a daemon is told by whoever starts it."""

    endpoint: str
    name: str
    #: "CPU", "GPU" and custom resources -> amount
    resources: dict[str, float]
    labels: Mapping[str, str] = MappingProxyType({})
    #: what to come with over the network
    credentials: Credentials | None = None


class _CoreFailedError(Exception):
    """The core has raised: its state cannot be trusted any more."""


class Daemon:
    """One life of a node daemon."""

    def __init__(self, house: House, plan: Plan) -> None:
        self._settings = settings = house.settings
        rng = random.Random(os.urandom(16))  # jitter, no secrets
        peer = PeerId(os.urandom(PEER_BYTES))
        self._core = NodeCore(
            settings, peer, plan.name, socket.gethostname(), plan.resources, os.getpid(),
            plan.labels, settings.machine or identity(), house.mark,
        )  # fmt: skip
        self._name, self._keeper_pid = plan.name, house.keeper_pid
        self._pool = Pool(house, peer, plan.name)
        self._endpoint, self._is_remote = plan.endpoint, plan.credentials is not None
        self._shell = DialShell(
            plan.endpoint, Role.NODE, peer, plan.name, settings, rng, plan.credentials,
            machine_of(settings), _asked_s(house.keeper_pid),
            _carriage(settings, peer, plan),
        )  # fmt: skip
        self._poller = Poller()
        self._pool_fd = self._pool.fileno()
        self._poller.add(self._pool_fd)
        self._shell.attach(self._poller)
        self._stop_read, self._stop_write = os.pipe()
        os.set_blocking(self._stop_read, False)
        os.set_blocking(self._stop_write, False)
        self._poller.add(self._stop_read)
        self._room = Room(settings, plan.name, self._pool.write, self._wake)
        self._shell.admits = self._room.admits
        self._stopping = False
        #: how often TERM came, and was told to the core; None: this daemon ends with the first
        self._terms: int | None = 0 if house.drains else None
        self._terms_told = 0
        #: somebody wants to know how much of what there is here
        self._asked = False
        self._refused: Refused | None = None
        self._complaints = Complaints()
        self._health = HealthFile(settings.health_file)
        self._connected = False
        #: it has been refused before: what it says of the connection waits until that has stood
        self._hushed = house.hushed
        self._up_s = 0.0
        #: the last batch that the scheduler has acknowledged was sent then
        self._confirmed_s = 0.0
        #: and the core is told of a later one from then on: more often makes no difference to it
        self._confirm_due_s = 0.0
        self._confirm_each_s = STEP * lasts_s(settings)
        self._lag_s = 0.0
        self._measure_due_s = 0.0
        self._processors, self._memory = Processors(), Memory()
        self._turn_max_s = min(TURN_MAX_S, settings.heartbeat_interval_s)
        self._worked = True
        #: whether more waits for the scheduler than should
        self._lags = False
        self._collected_s = self._chores_due_s = 0.0
        #: when the last turn ended
        self._ended_s = now_s()

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        signal.set_wakeup_fd(self._stop_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGUSR2, self._on_usr2)
        gc.disable()
        gc.collect()
        gc.freeze()
        self._ended_s = now_s()
        try:
            while not self._stopping and self._refused is None:
                self._turn()
        except _CoreFailedError:
            return EXIT_BUG
        finally:
            self._health.gone()
        if self._refused is not None:
            reason = self._refused.reason
            if self._refused.error in FINAL:
                self._pool.tell_keeper(f"refused {reason}")
                return EXIT_REFUSED
            say(f"drumbeat node: the scheduler refuses this node: {reason}")
            return EXIT_DROPPED
        self._shell.send(Leave())
        self._shell.flush(now_s())
        self._shell.close(LINGER_S)
        self._pool.close()
        return 0

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        if os.getppid() != self._keeper_pid:
            # So the kernel tells of the keeper's death: this node is lost, and takes no leave as
            # one that ends in order would. The lifeline has ended too, and with it the next turn.
            return
        if self._terms is None:
            self._stopping = True
        else:
            self._terms += 1

    def _on_usr2(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    # --------------------------------------------------------------------------------- one turn

    def _turn(self) -> None:
        pool, shell, before_s = self._pool, self._shell, self._ended_s
        due_s = self._due_s(before_s)
        wait_s = due_s - before_s
        readable = self._wait(max(0.0, wait_s))
        at_s = now_s()
        if self._asked:
            self._say_sizes()
        if self._terms:
            self._tell_terms(self._terms, at_s)
        late_s = at_s - due_s if wait_s > 0.0 else at_s - before_s
        if late_s > self._lag_s:
            self._lag_s = late_s
        happened = pool.turn(at_s, self._pool_fd in readable)
        for event in happened:
            self._tell_of_worker(event, at_s)
        heard = shell.turn(at_s)
        if at_s >= self._confirm_due_s and shell.confirmed_s > self._confirmed_s:
            self._confirmed_s = shell.confirmed_s
            self._confirm_due_s = self._confirmed_s + self._confirm_each_s
            self._tell(events.Confirmed(self._confirmed_s), at_s)
        for happening in heard:
            self._worked = True
            if type(happening) is Message:
                self._tell(Received(happening.message), at_s)
            else:
                self._hear(happening, at_s)
        if at_s >= self._measure_due_s:
            self._measure(at_s)
        self._act(at_s)
        shell.flush(at_s)
        if happened:
            self._worked = True
        if at_s >= self._chores_due_s:
            self._do_chores(at_s, idle=not happened and at_s - before_s > 0.01)
        # Work that took long kept others waiting just as a late awakening does.
        self._ended_s = ended_s = now_s()
        if ended_s - at_s > self._lag_s:
            self._lag_s = ended_s - at_s

    def _tell_of_worker(self, event: Event, at_s: float) -> None:
        if type(event) is Spoke:
            self._judge_lag(at_s)
        self._tell(event, at_s)
        if self._room.fullness is not None:
            # What a worker has let go of makes room for what it puts next, perhaps in this turn.
            self._act(at_s)

    def _wait(self, wait_s: float) -> list[int]:
        readable = self._poller.wait(wait_s)
        if self._stop_read in readable:
            # Before anybody looks at what it was about: what comes after that wakes it anew.
            self._hush()
        return readable

    def _due_s(self, at_s: float) -> float:
        due_s = min(at_s + self._turn_max_s, self._pool.due_s)
        core_s, shell_s = self._core.deadline_s(), self._shell.deadline_s()
        if core_s is not None and core_s < due_s:
            due_s = core_s
        return due_s if shell_s is None or due_s < shell_s else shell_s

    def _do_chores(self, at_s: float, *, idle: bool) -> None:
        """Do what has no hurry: a turn is often about a single task, which somebody waits for."""
        self._chores_due_s = at_s + CHORES_S
        self._pool.beat()
        if self._connected:
            self._health.alive(at_s)
        if at_s - self._collected_s > COLLECT_S:
            self._collect(at_s, idle=idle)

    def _hear(self, happening: DialHappening, at_s: float) -> None:
        match happening:
            case Blob():
                self._tell(events.BlobReceived(happening.key, happening.payload), at_s)
            case Up():
                self._connected, self._up_s = True, at_s
                self._chores_due_s = at_s
                self._say_of_connection("connected to")
                self._tell(events.Connected(happening.epoch, happening.resumed), at_s)
            case Down():
                self._connected = False
                self._health.gone()
                self._say_of_connection("has lost the connection to", f": {happening.reason}")
                self._tell(events.Disconnected(), at_s)
            case Unreachable():
                self._say_of_connection("cannot reach", f": {happening.reason}; it keeps trying")
            case Refused():
                self._refused = happening
            case Rejected():
                text = f"drumbeat node: refused what the scheduler sent: {happening}"
                for line in self._complaints.lines(text, at_s):
                    say(line)

    def _say_of_connection(self, what: str, more: str = "") -> None:
        """Tell whoever started this node on a machine of the network how it fares."""
        if self._is_remote and not self._hushed:
            where = self._endpoint.removeprefix("tcp://")
            say(f"drumbeat node: {self._name} {what} the scheduler at {where}{more}")

    def _judge_lag(self, at_s: float) -> None:
        """Find out whether output would but wait for a scheduler that does not read."""
        queued_bytes, lagged = self._shell.queued_bytes, self._lags
        self._lags = queued_bytes > self._settings.output_backlog_bytes_max
        if self._lags or lagged:
            self._tell(events.SchedulerLags(queued_bytes if self._lags else 0), at_s)

    def _measure(self, at_s: float) -> None:
        self._measure_due_s = at_s + self._settings.heartbeat_interval_s
        self._pool.measure(at_s)
        if self._hushed and self._connected and at_s >= self._up_s + STANDS_S:
            self._hushed = False
            self._say_of_connection("connected to")
        used = self._processors.used()
        used_bytes, *left = self._memory.look()
        self._tell(events.Measured(self._lag_s, used_bytes, used, *left), at_s)
        self._lag_s = 0.0

    def _tell_terms(self, terms: int, at_s: float) -> None:
        if terms > self._terms_told:
            self._terms_told = terms
            self._hush()
            self._tell(events.StopAsked(terms), at_s)

    def _wake(self) -> None:
        """End the sleep of the loop, from another thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._stop_write, b"\0")

    def _hush(self) -> None:
        """Take in what a signal, or a thread, woke the loop with."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._stop_read, 4096)

    def _say_sizes(self) -> None:
        self._asked = False
        self._hush()
        say_sizes(f"node {self._name}", self._core.at_rest(), {})

    def _collect(self, at_s: float, *, idle: bool) -> None:
        # The collector stops the loop for as long as there are objects to look at, so it runs when
        # nobody waits; what is long-lived was frozen at the start.
        passed_s = at_s - self._collected_s
        if passed_s > COLLECT_LATEST_S or (idle and self._worked and passed_s > COLLECT_S):
            self._collected_s = at_s
            self._worked = False
            gc.collect()

    # --------------------------------------------------------------------------------- the core

    def _tell(self, event: Event, at_s: float) -> None:
        try:
            commands = self._core.handle(event, at_s)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is our bug
            self._dump(error, event)
            raise _CoreFailedError from None
        if commands:
            self._do(commands)

    def _act(self, at_s: float) -> None:
        try:
            commands = self._core.turn(at_s)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is our bug
            self._dump(error, None)
            raise _CoreFailedError from None
        if commands:
            self._do(commands)
        if self._room.turn():
            self._tell(events.RoomLeft(self._room.fullness), at_s)

    def _do(self, commands: list[events.Command]) -> None:
        for command in commands:
            if type(command) is SendWorker:
                self._pool.send(command.worker, command.packet)
            elif type(command) is Send:
                self._shell.send(command.message)
            else:
                self._do_rare(command)

    def _do_rare(self, command: events.Command) -> None:
        pool = self._pool
        match command:
            case events.SendBlob():
                self._shell.send_blob(command.key, command.payload, command.id)
            case events.StartWorker():
                pool.start(command)
            case events.TakePackets():
                pool.take_packets(command.worker)
            case events.Revoke():
                pool.write(command.worker, REVOKED, command.seq)
            case events.ReadPage():
                pool.read_page(command.workers, command.after_s)
            case events.LookAt():
                self._tell(pool.look_at(command), now_s())
            case events.Dump():
                pool.dump(command.workers)
            case events.Interrupt():
                pool.interrupt(command.worker, command.seq, command.reason)
            case events.Signal():
                pool.signal(command.worker, command.name)
            case events.Lease():
                pool.lease(command.worker)
            case _:
                self._do_apart(command)

    def _do_apart(self, command: events.Command) -> None:
        """Do what is about no one worker's process."""
        match command:
            case events.Stow():
                self._room.stow(command.rows)
            case events.Brought():
                self._room.brought(command.worker, command.bytes)
            case events.LeaseUntil():
                self._pool.lease_until(command.until_s)
            case events.Drains():
                self._pool.tell_keeper("drains")
            case events.Finish():
                self._stopping = True

    def _dump(self, error: Exception, event: Event | None) -> None:
        lines = [f"drumbeat node: a bug in the node core: {error!r}"]
        lines += [f"  {when_s:.3f} {text}" for when_s, text in self._core.story]
        lines.append(f"the event: {event!r}"[:4096])
        lines += traceback.format_exception(error)
        say("\n".join(lines))


def _carriage(settings: Settings, peer: PeerId, plan: Plan) -> Carriage | None:
    """Return what brings large payloads past the scheduler, if there is and can be anything."""
    try:
        return carriage_of(settings, peer, plan.credentials, listens=True)
    except ConfigError as error:
        say(f"drumbeat node: large values go through the scheduler, which is slower: {error}")
        return None


def _asked_s(keeper_pid: int) -> float | None:
    """Return when this node was started, if that is what somebody waits for."""
    started_s = kernel.started_s(keeper_pid)
    return started_s if started_s is not None and now_s() < started_s + STARTS_S else None


def main(house: House, plan: Plan) -> int:
    """Be the node daemon; return the exit code."""
    return Daemon(house, plan).run()
