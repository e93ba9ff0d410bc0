"""The daemon's end of the workers: starts, ends, carries packets, reads page and output.

Never decides: it does what the core's commands say and tells what came of it as events. It talks to
the keeper (births, deaths, signals) and to the template (forks), see the texts in keeper.py.
"""

import contextlib
import logging
import os
import resource
import select
from collections import deque
from collections.abc import Callable
from signal import Signals
from typing import Any, Final

from ..protocol.clock import now_s
from ..protocol.codec import decoder, encode
from ..protocol.errors import RemoteProtocolError
from ..protocol.ids import PeerId
from .channel import Channel, ClosedError, buffer, channel_of, channel_pair
from .events import (
    Event,
    Noticed,
    PacketsTaken,
    PageRead,
    Spoke,
    StartWorker,
    WorkerExited,
    WorkerFailed,
    WorkerSpoke,
)  # fmt: skip
from .keeper import House
from .output import Output
from .packets import Run, Setup, ToDaemon, ToWorker
from .page import IDLE, INTERRUPT, REVOKED

#: Packets taken from one worker in one turn: a loud one does not starve the others.
_PACKETS_PER_TURN: Final = 64
#: So often the output of busy workers is read though they say nothing.
_OUTPUT_S: Final = 0.25
_FILES_A_WORKER: Final = 4

_decode: Callable[[Any], ToDaemon] = decoder(ToDaemon)
_decode_own: Callable[[Any], ToWorker] = decoder(ToWorker)
_log = logging.getLogger("drumbeat.node")


class _Worker:
    """A worker from its start to the report of its exit."""

    __slots__ = (
        "channel", "command", "far", "interest", "output", "pending", "pid", "sent", "ticket",
    )  # fmt: skip

    def __init__(self, command: StartWorker, ticket: int) -> None:
        self.command = command
        #: names this request for a fork
        self.ticket = ticket
        self.channel: Channel
        #: a duplicate of the worker's end: what lies unread there can be taken back
        self.far: Channel
        self.output: Output
        #: 0: not born yet
        self.pid = 0
        #: the template has been asked
        self.sent = False
        self.interest = select.EPOLLIN
        #: signals to be sent when it is born
        self.pending: list[tuple[str, Signals]] = []


class Pool:
    """All workers of a node. One thread, one descriptor to poll, `turn` when it is ready or due.

    Args:
        house: what the keeper handed to this daemon.
        peer: the node's id in this life.
        node: the node's name.
    """

    def __init__(self, house: House, peer: PeerId, node: str) -> None:
        self._settings = house.settings
        self._page = house.page
        self._keeper = house.keeper
        self._lifeline = house.lifeline
        self._peer = peer
        self._node = node
        self._buffer = buffer()
        self._epoll = select.epoll()
        self._epoll.register(self._keeper, select.EPOLLIN)
        self._epoll.register(self._lifeline, select.EPOLLIN)
        self._template: Channel | None = None
        self._workers: dict[int, _Worker] = {}
        self._by_fd: dict[int, _Worker] = {}
        self._by_pid: dict[int, _Worker] = {}
        self._by_ticket: dict[int, _Worker] = {}
        # No other life of the daemon uses the same tickets.
        self._last_ticket = os.getpid() << 32
        #: found between turns
        self._events: deque[Event] = deque()
        self._reads: list[tuple[float, list[int]]] = []
        self._output_due_s: float | None = None
        self._busy = False
        self._now_s = 0.0
        self._allow_files()

    def _allow_files(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self._settings.workers_max * _FILES_A_WORKER + 256
        if hard != resource.RLIM_INFINITY:
            wanted = min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    # ------------------------------------------------------------------------------------- loop

    def fileno(self) -> int:
        """Return the descriptor that is readable when `turn` has something to do."""
        return self._epoll.fileno()

    def deadline_s(self) -> float | None:
        """Return when `turn` is due though nothing is readable; None: never."""
        if self._events:
            return self._now_s
        due = [due_s for due_s, _ in self._reads]
        if self._output_due_s is not None:
            due.append(self._output_due_s)
        elif self._busy:
            due.append(self._now_s + _OUTPUT_S)
        return min(due, default=None)

    def turn(self, at_s: float) -> list[Event]:
        """Do what is ready and due; return what happened, in order.

        Raises:
            SystemExit: the keeper is gone.
        """
        self._now_s = at_s
        events: list[Event] = list(self._events)
        self._events.clear()
        keeper_speaks = False
        for fd, mask in self._epoll.poll(0):
            worker = self._by_fd.get(fd)
            if worker is not None:
                if mask & select.EPOLLOUT:
                    self._flush(worker)
                if mask & ~select.EPOLLOUT:
                    self._hear(worker, events, _PACKETS_PER_TURN)
            elif fd == self._lifeline:
                raise SystemExit("the keeper is gone")
            elif fd == self._keeper.fileno():
                keeper_speaks = True
            elif self._template is not None and fd == self._template.fileno():
                self._flush_template()
        # Deaths come last: before one is told, everything else of that worker has been.
        if keeper_speaks:
            self._hear_keeper(events)
        if self._reads:
            self._do_reads(at_s, events)
        self._look_at_output(at_s, events)
        return events

    def beat(self) -> None:
        """Show the keeper that the daemon's loop turns."""
        self._page.beat()

    def close(self) -> None:
        """End all workers: ask the keeper, which does so anyway when the daemon ends."""
        for worker in list(self._workers.values()):
            self.signal(worker.command.worker, "KILL")

    # --------------------------------------------------------------------------------- commands

    def start(self, command: StartWorker) -> None:
        """Have a worker forked. What is sent to it meanwhile waits in its socket."""
        worker = _Worker(command, self._next_ticket())
        try:
            self._open(worker)
        except OSError as error:
            self._events.append(WorkerFailed(command.worker, f"no worker: {error.strerror}"))
            return
        self._page.clear(command.page_slot)
        self._workers[command.worker] = worker
        self._by_ticket[worker.ticket] = worker
        self._post(
            worker,
            encode(
                Setup(
                    command.worker,
                    self._peer,
                    command.client,
                    self._node,
                    command.environment,
                    command.same_host,
                    command.env_vars,
                    command.working_dir,
                    command.num_cpus,
                    self._settings.value_bytes_max,
                )
            ),
        )
        self._ask_template(worker)
        self._busy = True

    def send(self, number: int, packet: ToWorker) -> None:
        """Send a packet; it waits here while the worker's socket is full."""
        worker = self._workers.get(number)
        if worker is not None:
            self._busy = True
            self._post(worker, encode(packet))

    def take_packets(self, number: int) -> None:
        """Take back what lies unread in a worker's socket; PacketsTaken says what it was.

        Definitions, answers and the like go back into the socket; only rows are taken.
        """
        worker = self._workers.get(number)
        if worker is None:
            return
        seqs: list[int] = []
        again: list[bytes] = []
        for data in (*self._unread(worker), *worker.channel.take_waiting()):
            packet = _decode_own(data)
            if type(packet) is not Run:
                again.append(data)
                continue
            seqs += [row.seq for row in packet.rows]
            if packet.definitions:
                again.append(encode(Run(packet.definitions, [])))
        for data in again:
            self._post(worker, data)
        self._events.append(PacketsTaken(number, seqs))

    def revoke(self, number: int, seq: int) -> None:
        """Write into the page: start nothing from this seq on (0: all may be started)."""
        worker = self._workers.get(number)
        if worker is not None:
            self._page.slot(worker.command.page_slot)[REVOKED] = seq

    def read_page(self, numbers: list[int], after_s: float = 0.0) -> None:
        """Have PageRead say what these workers have started, not sooner than `after_s` from now."""
        self._reads.append((now_s() + after_s, numbers))

    def interrupt(self, number: int, seq: int) -> None:
        """Raise Interrupted in the worker's main thread if it still runs `seq`."""
        worker = self._workers.get(number)
        if worker is not None:
            self._page.slot(worker.command.page_slot)[INTERRUPT] = seq
            self._signal(worker, "signal", Signals.SIGUSR1)

    def signal(self, number: int, name: str) -> None:
        """Signal the worker's process group: TERM or KILL."""
        worker = self._workers.get(number)
        if worker is not None:
            self._signal(worker, "group", Signals[f"SIG{name}"])

    def _signal(self, worker: _Worker, word: str, number: Signals) -> None:
        if worker.pid:
            self._tell_keeper(f"{word} {worker.pid} {number.value}")
        else:
            worker.pending.append((word, number))

    # ---------------------------------------------------------------------------------- workers

    def _next_ticket(self) -> int:
        self._last_ticket += 1
        return self._last_ticket

    def _open(self, worker: _Worker) -> None:
        settings = self._settings
        worker.output = Output(settings.memory_files, settings.output_bytes_max)
        try:
            near, far = channel_pair(settings.socket_kind, settings.memory_files, self._buffer)
        except OSError:
            worker.output.close()
            raise
        worker.channel, worker.far = near, far
        worker.interest = select.EPOLLIN
        self._by_fd[near.fileno()] = worker
        self._epoll.register(near, select.EPOLLIN)

    def _close(self, worker: _Worker) -> None:
        self._epoll.unregister(worker.channel)
        del self._by_fd[worker.channel.fileno()]
        worker.channel.close()
        worker.far.close()
        worker.output.close()

    def _forget(self, worker: _Worker) -> None:
        self._close(worker)
        del self._workers[worker.command.worker]
        self._by_ticket.pop(worker.ticket, None)
        self._by_pid.pop(worker.pid, None)

    def _unread(self, worker: _Worker) -> list[bytes]:
        unread = []
        while packet := worker.far.receive(wait=False):
            unread.append(bytes(packet.data))
        return unread

    def _post(self, worker: _Worker, data: bytes) -> None:
        worker.channel.post(data)
        self._show_interest(worker)

    def _flush(self, worker: _Worker) -> None:
        worker.channel.flush()
        self._show_interest(worker)

    def _show_interest(self, worker: _Worker) -> None:
        interest = select.EPOLLIN | (select.EPOLLOUT if worker.channel.waits else 0)
        if interest != worker.interest:
            worker.interest = interest
            self._epoll.modify(worker.channel, interest)

    def _hear(self, worker: _Worker, events: list[Event], packets_max: int) -> None:
        number = worker.command.worker
        for _ in range(packets_max):
            try:
                packet = worker.channel.receive(wait=False)
                if packet is None:
                    return
                message = _decode(packet.data)
            except (RemoteProtocolError, OSError, EOFError) as error:
                # User code wrote into the socket: nothing it says can be trusted any more.
                _log.warning("worker %d of %s is ended: %s", number, self._node, error)
                self.signal(number, "KILL")
                return
            # What it printed before it spoke comes first.
            self._read_output(worker, events, whole=True)
            events.append(WorkerSpoke(number, message))

    def _read_output(self, worker: _Worker, events: list[Event], *, whole: bool) -> None:
        pieces = worker.output.read(whole=whole)
        if pieces:
            number = worker.command.worker
            events.append(Spoke([(number, text, dropped) for text, dropped in pieces]))

    def _look_at_output(self, at_s: float, events: list[Event]) -> None:
        """Four times a second read what busy workers have printed; idle ones cost nothing."""
        if self._output_due_s is None:
            if self._busy:
                self._output_due_s = at_s + _OUTPUT_S
        elif at_s >= self._output_due_s:
            self._busy = False
            for worker in self._workers.values():
                self._read_output(worker, events, whole=False)
                if self._page.sample(worker.command.page_slot).phase != IDLE:
                    self._busy = True
            self._output_due_s = at_s + _OUTPUT_S if self._busy else None

    def _do_reads(self, at_s: float, events: list[Event]) -> None:
        due = [numbers for due_s, numbers in self._reads if due_s <= at_s]
        self._reads = [read for read in self._reads if read[0] > at_s]
        for numbers in due:
            samples = [self._sample(number) for number in numbers if number in self._workers]
            events.append(PageRead(samples))

    def _sample(self, number: int) -> tuple[int, int, bool]:
        sample = self._page.sample(self._workers[number].command.page_slot)
        return (number, sample.started, sample.running == sample.started != 0)

    # ----------------------------------------------------------------------------------- keeper

    def _tell_keeper(self, text: str) -> None:
        with contextlib.suppress(ClosedError):  # the lifeline says the same
            self._keeper.post(text.encode())

    def _hear_keeper(self, events: list[Event]) -> None:
        try:
            self._keeper.flush()
            while packet := self._keeper.receive(wait=False):
                word, _, rest = bytes(packet.data).decode().partition(" ")
                if word == "template":
                    self._met_template(channel_of(packet.fds[0], shared=self._buffer), events)
                elif word == "born":
                    ticket, pid = map(int, rest.split(" "))
                    self._born(ticket, pid)
                elif word == "exited":
                    pid, status = map(int, rest.split(" "))
                    self._exited(pid, status, events)
                elif word == "failed":
                    asked, _, reason = rest.partition(" ")
                    self._failed(int(asked), reason, events)
                elif word == "preload":
                    events.append(Noticed(rest))
                elif word == "notice":
                    _log.warning("node %s: %s", self._node, rest)
        except ClosedError:
            raise SystemExit("the keeper is gone") from None

    def _born(self, ticket: int, pid: int) -> None:
        worker = self._by_ticket.pop(ticket, None)
        if worker is None:
            # Asked for by somebody who is gone, or asked for once more meanwhile.
            self._tell_keeper(f"group {pid} {Signals.SIGKILL.value}")
            return
        worker.pid = pid
        self._by_pid[pid] = worker
        for word, number in worker.pending:
            self._signal(worker, word, number)

    def _failed(self, ticket: int, reason: str, events: list[Event]) -> None:
        worker = self._by_ticket.get(ticket)
        if worker is not None:
            self._forget(worker)
            events.append(WorkerFailed(worker.command.worker, reason))

    def _exited(self, pid: int, status: int, events: list[Event]) -> None:
        worker = self._by_pid.get(pid)
        if worker is None:
            return
        number = worker.command.worker
        before = len(events)
        while True:
            self._hear(worker, events, _PACKETS_PER_TURN)
            if len(events) == before:
                break
            before = len(events)
        self._read_output(worker, events, whole=True)
        events.append(PageRead([self._sample(number)]))
        name = ""
        if status < 0:
            try:
                name = Signals(-status).name
            except ValueError:
                name = f"signal {-status}"
        tail = worker.output.tail()
        self._forget(worker)
        events.append(WorkerExited(number, status, name, tail))

    # --------------------------------------------------------------------------------- template

    def _ask_template(self, worker: _Worker) -> None:
        if self._template is None:
            return  # asked as soon as there is one
        worker.sent = True
        text = f"fork {worker.ticket} {worker.command.page_slot}"
        try:
            self._template.post(text.encode(), (worker.far.fileno(), worker.output.fd))
        except ClosedError:
            self._lose_template()
            return
        mask = select.EPOLLOUT if self._template.waits else 0
        self._epoll.modify(self._template, mask)

    def _flush_template(self) -> None:
        assert self._template is not None
        try:
            self._template.flush()
        except ClosedError:
            self._lose_template()
            return
        if self._template.waits:
            return
        try:
            self._epoll.modify(self._template, 0)
            if self._template.receive(wait=False) is None:
                return
        except ClosedError:
            self._lose_template()

    def _lose_template(self) -> None:
        if self._template is not None:
            self._epoll.unregister(self._template)
            self._template.close()
            self._template = None

    def _met_template(self, template: Channel, events: list[Event]) -> None:
        """A new template: it is asked again for what the one before has not answered."""
        self._lose_template()
        self._template = template
        self._epoll.register(template, 0)
        for worker in list(self._by_ticket.values()):
            if worker.sent:
                self._renew(worker, events)
            if worker.command.worker in self._workers:
                self._ask_template(worker)

    def _renew(self, worker: _Worker, events: list[Event]) -> None:
        """Give a worker that may or may not have been forked a socket of its own.

        Should it live after all, it finds its socket closed and ends.
        """
        del self._by_ticket[worker.ticket]
        waiting = [*self._unread(worker), *worker.channel.take_waiting()]
        self._close(worker)
        worker.ticket, worker.sent = self._next_ticket(), False
        try:
            self._open(worker)
        except OSError as error:
            del self._workers[worker.command.worker]
            reason = f"no worker: {error.strerror}"
            events.append(WorkerFailed(worker.command.worker, reason))
            return
        self._by_ticket[worker.ticket] = worker
        self._page.clear(worker.command.page_slot)
        for data in waiting:
            self._post(worker, data)
