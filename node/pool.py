"""The daemon's end of the workers: starts, ends, carries packets, reads page and output.

Never decides: it does what the core's commands say and tells what came of it as events. It talks to
the keeper (births, deaths, signals) and to the template (forks), see the texts in keeper.py.
"""

import contextlib
import logging
import os
import select
from collections.abc import Callable
from signal import Signals
from typing import Any, Final

from ..protocol.clock import now_s
from ..protocol.codec import decoder, encode
from ..protocol.errors import RemoteProtocolError
from ..protocol.ids import PeerId
from ..protocol.machine import allow_files
from .apart import whole
from .channel import Channel, ClosedError, Data, Fds, buffer, channel_of, close_all
from .dumps import SIGNAL, Dumps
from .events import (
    Event,
    LookAt,
    Noticed,
    PacketsTaken,
    PageRead,
    Seen,
    StartWorker,
    StopAsked,
    WorkerExited,
    WorkerFailed,
    WorkerSpoke,
)  # fmt: skip
from .house import House
from .memory_kills import MemoryKills
from .packets import Setup, ToDaemon, ToWorker
from .page import BEAT, DAEMON_SLOT, ERRORS_AT, INTERRUPT, REASON, REASONS
from .pieces import pieces_of
from .probe import look
from .process import Process, signal_name
from .writings import NEVER_S, Writings, read_output

#: Packets taken from one worker in one turn: a loud one does not starve the others.
_PACKETS_PER_TURN: Final = 64
_FILES_A_WORKER: Final = 6
_READ: Final = int(select.EPOLLIN)
_WRITE: Final = int(select.EPOLLOUT)

_decode: Callable[[Any], ToDaemon] = decoder(ToDaemon)
_log = logging.getLogger("drumbeat.node")


class Pool:
    """All workers of a node. One thread, one descriptor to poll, `turn` when it is ready or due.

    Args:
        house: what the keeper handed to this daemon.
        peer: the node's id in this life.
        node: the node's name.
        memory_kills: where the kernel counts what it killed for want of memory.
    """

    def __init__(
        self, house: House, peer: PeerId, node: str, memory_kills: MemoryKills | None = None
    ) -> None:
        self._settings = house.settings
        self._page = house.page
        self._keeper = house.keeper
        self._lifeline = house.lifeline
        self._peer, self._node = peer, node
        self._buffer = buffer()
        self._epoll = select.epoll()
        self._epoll.register(self._keeper, select.EPOLLIN)
        self._epoll.register(self._lifeline, select.EPOLLIN)
        self._template: Channel | None = None
        self._workers: dict[int, Process] = {}
        self._by_fd: dict[int, Process] = {}
        self._by_pid: dict[int, Process] = house.workers
        self._by_ticket: dict[int, Process] = {}
        # No other life of the daemon uses the same tickets.
        self._last_ticket = os.getpid() << 32
        #: found between turns
        self._events: list[Event] = []
        self._reads: list[tuple[float, list[int]]] = []
        #: when `turn` is due though nothing is readable: never too late, but perhaps too early
        self.due_s = 0.0
        self._writings = Writings(house.page, self._workers)
        self._now_s = 0.0
        self._turns = 0
        self._beat = house.page.slot(DAEMON_SLOT)
        self._memory_kills = memory_kills or MemoryKills()
        self._keeper_fd = house.keeper.fileno()
        self.dumps = Dumps(house.page, lambda worker: self._signal(worker, "signal", SIGNAL))
        processes = house.settings.workers_max + house.settings.actors_max
        allow_files(processes * _FILES_A_WORKER + 256)

    # ------------------------------------------------------------------------------------- loop

    def fileno(self) -> int:
        """Return the descriptor that is readable when `turn` has something to do."""
        return self._epoll.fileno()

    def deadline_s(self) -> float | None:
        """Return when `turn` is due though nothing is readable; None: never."""
        return None if self.due_s == NEVER_S else self.due_s

    def turn(self, at_s: float, readable: bool = True) -> list[Event]:
        """Do what is ready and due; return what happened, in order.

        Args:
            at_s: the clock.
            readable: False: the descriptor was just polled, and nothing is ready.

        Raises:
            SystemExit: the keeper is gone.
        """
        self._now_s = at_s
        self._turns = turn = self._turns + 1
        events, self._events = self._events, []
        keeper_speaks = False
        for fd, mask in self._epoll.poll(0) if readable else ():
            worker = self._by_fd.get(fd)
            if worker is not None:
                if mask & _WRITE:
                    self._flush(worker)
                if mask != _WRITE:
                    # Who speaks turn after turn has more to say; of others one packet is likely
                    # all, and to ask for another would cost as much as to read it.
                    several = worker.heard == turn - 1 or mask != _READ
                    worker.heard = turn
                    self._hear(worker, events, _PACKETS_PER_TURN if several else 1)
            elif fd == self._lifeline:
                raise SystemExit("the keeper is gone")
            elif fd == self._keeper_fd:
                keeper_speaks = True
            elif self._template is not None and fd == self._template.fileno():
                self._flush_template()
        # Deaths come last: before one is told, everything else of that worker has been.
        if keeper_speaks:
            self._hear_keeper(events)
        if at_s >= self.due_s or self.dumps.awaited or self.dumps.done:
            self._do_due(at_s, events)
        return events

    def _do_due(self, at_s: float, events: list[Event]) -> None:
        writings, dumps = self._writings, self.dumps
        if self._reads:
            self._do_reads(at_s, events)
        if at_s >= writings.due_s:
            writings.look(at_s, events)
        if dumps.awaited or dumps.done:
            events += dumps.turn(at_s)
        times = [writings.due_s, dumps.due_s(), *(due_s for due_s, _ in self._reads)]
        self.due_s = 0.0 if self._events else min(times)

    def _happened(self, *events: Event) -> None:
        """Tell with the next turn of what has happened after the last one."""
        self._events += events
        self.due_s = 0.0

    def _expect_writings(self) -> None:
        self._writings.expect(now_s())
        self.due_s = min(self.due_s, self._writings.due_s)

    def beat(self) -> None:
        """Show the keeper that the daemon's loop turns."""
        beat = self._beat
        beat[BEAT] = (beat[BEAT] + 1) & 0xFFFF_FFFF_FFFF_FFFF

    def measure(self, at_s: float) -> None:
        """Look at what changes without being told; to be called every few seconds."""
        self._memory_kills.look(at_s)

    def close(self) -> None:
        """End all workers: ask the keeper, which does so anyway when the daemon ends."""
        for number in list(self._workers):
            self.signal(number, "KILL")

    # --------------------------------------------------------------------------------- commands

    def start(self, command: StartWorker) -> None:
        """Have a worker forked. What is sent to it meanwhile waits in its socket."""
        worker = Process(command, self._next_ticket())
        try:
            self._open(worker)
        except OSError as error:
            self._happened(WorkerFailed(command.worker, f"no worker: {error.strerror}"))
            return
        self._page.clear(command.page_slot)
        self._workers[command.worker] = worker
        self._by_ticket[worker.ticket] = worker
        setup = Setup(
            command.worker, self._peer, command.client, self._node, command.environment,
            command.same_machine, command.env_vars, command.working_dir, command.num_cpus,
            self._settings.value_bytes_max, self._settings.inline_bytes_max,
            self._settings.segment_bytes_min, command.machine,
        )  # fmt: skip
        self._post(worker, encode(setup))
        self._ask_template(worker)
        self._expect_writings()

    def send(self, number: int, packet: ToWorker) -> None:
        """Send a packet; it waits here while the worker's socket is full."""
        worker = self._workers.get(number)
        if worker is not None:
            if not self._writings.expects:
                self._expect_writings()
            self._post(worker, *pieces_of(packet), packet)

    def take_packets(self, number: int) -> None:
        """Take back what lies unread in a worker's socket; PacketsTaken says what it was.

        Definitions, answers and the like go back into the socket; only rows are taken.
        """
        worker = self._workers.get(number)
        if worker is None:
            return
        seqs, again = worker.take_rows()
        self._post_again(worker, again)
        if worker.unreached:
            self.signal(number, "KILL")
        self._happened(PacketsTaken(number, seqs))

    def write(self, number: int, word: int, value: int) -> None:
        """Write a word into a worker's slot of the page: one of those that are the node's."""
        worker = self._workers.get(number)
        if worker is not None:
            self._page.slot(worker.command.page_slot)[word] = value

    def read_page(self, numbers: list[int], after_s: float = 0.0) -> None:
        """Have PageRead say what these workers have started, not sooner than `after_s` from now."""
        self._reads.append((now_s() + after_s, numbers))
        self.due_s = min(self.due_s, self._reads[-1][0])

    def interrupt(self, number: int, seq: int, reason: str = "cancelled") -> None:
        """Raise Interrupted in the worker's main thread if it still runs `seq`."""
        worker = self._workers.get(number)
        if worker is not None:
            words = self._page.slot(worker.command.page_slot)
            words[REASON] = REASONS.index(reason)
            words[INTERRUPT] = seq
            self._signal(worker, "signal", Signals.SIGUSR1)

    def look_at(self, command: LookAt) -> Seen:
        """Look at workers, each as closely as said."""
        page, threads = self._page, command.threads
        found = [(w, depth) for number, depth in command.rows if (w := self._workers.get(number))]
        return Seen([look(page, w, depth, threads.get(w.command.worker, ())) for w, depth in found])

    def dump(self, numbers: list[int]) -> None:
        """Have workers write down where their threads are; Dumped says what came of it."""
        for number in numbers:
            self.dumps.ask(number, self._workers.get(number), now_s())
        self.due_s = min(self.due_s, self.dumps.due_s())

    def signal(self, number: int, name: str) -> None:
        """Signal the worker's process group: TERM or KILL."""
        worker = self._workers.get(number)
        if worker is not None:
            self._signal(worker, "group", Signals[f"SIG{name}"])

    def lease(self, number: int) -> None:
        """Tell the keeper that a worker is to end with this node's lease."""
        worker = self._workers.get(number)
        if worker is not None:
            # Before the worker is told what it is, so that it cannot act without.
            self._signal(worker, "lease", 0)

    def lease_until(self, until_s: float) -> None:
        """Show the keeper until when such workers may act."""
        self._page.lease(until_s)

    def _signal(self, worker: Process, word: str, number: int) -> None:
        worker.killed = worker.killed or number == Signals.SIGKILL
        if worker.pid:
            self.tell_keeper(f"{word} {worker.pid} {int(number)}")
        else:
            worker.pending.append((word, number))

    # ---------------------------------------------------------------------------------- workers

    def _next_ticket(self) -> int:
        self._last_ticket += 1
        return self._last_ticket

    def _open(self, worker: Process) -> None:
        worker.open(self._settings, self._buffer)
        worker.interest = _READ
        self._by_fd[worker.channel.fileno()] = worker
        self._epoll.register(worker.channel, select.EPOLLIN)

    def _close(self, worker: Process) -> None:
        self._epoll.unregister(worker.channel)
        del self._by_fd[worker.channel.fileno()]
        worker.close()

    def _forget(self, worker: Process) -> None:
        self.dumps.forget(worker)
        self._close(worker)
        del self._workers[worker.command.worker]
        self._by_ticket.pop(worker.ticket, None)
        self._by_pid.pop(worker.pid, None)

    def _post(
        self, worker: Process, data: Data, fds: Fds = (), packet: ToWorker | None = None
    ) -> None:
        if not worker.hand(data, fds) or worker.interest != _READ:
            self._show_interest(worker)
        if worker.unreached and packet is not None:
            self._happened(*worker.make_good(packet))
        if worker.unreached:
            self.signal(worker.command.worker, "KILL")

    def _post_again(self, worker: Process, packets: list[tuple[bytes, Fds]]) -> None:
        for data, fds in packets:
            self._post(worker, data, fds)
            close_all(fds)

    def _flush(self, worker: Process) -> None:
        if not worker.flush():
            self.signal(worker.command.worker, "KILL")
        self._show_interest(worker)

    def _show_interest(self, worker: Process) -> None:
        interest = _READ | _WRITE if worker.channel.waits else _READ
        if interest != worker.interest:
            worker.interest = interest
            self._epoll.modify(worker.channel, interest)

    def _hear(self, worker: Process, events: list[Event], packets_max: int) -> None:
        number = worker.command.worker
        for _ in range(packets_max):
            try:
                packet = worker.channel.receive(wait=False)
                if packet is None:
                    return
                message = whole(_decode, packet)
            except (RemoteProtocolError, OSError, EOFError) as error:
                # User code wrote into the socket, or there was no descriptor for what was said.
                _log.warning("worker %d of %s is ended: %s", number, self._node, error)
                worker.unreached = worker.unreached or str(error)
                self.signal(number, "KILL")
                return
            # What it printed before it spoke comes first.
            if worker.has_written():
                read_output(worker, events, whole=True)
            events.append(WorkerSpoke(number, message))

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

    def tell_keeper(self, text: str) -> None:
        """Say something to the keeper; see its module for what there is to say."""
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
                elif word == "overdue" and (late := self._by_pid.get(int(rest))):
                    late.overdue = late.killed = True
                elif word == "failed":
                    asked, _, reason = rest.partition(" ")
                    self._failed(int(asked), reason, events)
                elif word == "preload":
                    events.append(Noticed(rest))
                elif word == "stop":
                    events.append(StopAsked(int(rest)))
                elif word == "notice":
                    _log.warning("node %s: %s", self._node, rest)
        except ClosedError:
            raise SystemExit("the keeper is gone") from None

    def _born(self, ticket: int, pid: int) -> None:
        worker = self._by_ticket.pop(ticket, None)
        if worker is None:
            # Asked for by somebody who is gone, or asked for once more meanwhile.
            self.tell_keeper(f"group {pid} {Signals.SIGKILL.value}")
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
        before = -1
        while before != len(events):
            before = len(events)
            self._hear(worker, events, _PACKETS_PER_TURN)
        read_output(worker, events, whole=True)
        events.append(PageRead([self._sample(number)]))
        tail = worker.last_words(self._page.slot(worker.command.page_slot)[ERRORS_AT])
        self._forget(worker)
        kernels = status == -Signals.SIGKILL and not worker.killed
        hungry = kernels and self._memory_kills.claim(self._now_s)
        name, overdue = signal_name(status), worker.overdue
        events.append(WorkerExited(number, status, name, tail, hungry, overdue))

    # --------------------------------------------------------------------------------- template

    def _ask_template(self, worker: Process) -> None:
        if self._template is None:
            return  # asked as soon as there is one
        worker.sent = True
        text = f"fork {worker.ticket} {worker.command.page_slot}"
        try:
            self._template.post(text.encode(), worker.far_fds())
            self._epoll.modify(self._template, select.EPOLLOUT if self._template.waits else 0)
        except ClosedError:
            self._lose_template()
        except OSError as error:
            self._failed(worker.ticket, f"no worker: {error.strerror}", self._events)
            self.due_s = 0.0

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

    def _renew(self, worker: Process, events: list[Event]) -> None:
        """Give a worker that may or may not have been forked a socket of its own.

        Should it live after all, it finds its socket closed and ends.
        """
        del self._by_ticket[worker.ticket]
        waiting = worker.unread()
        self._close(worker)
        worker.ticket, worker.sent = self._next_ticket(), False
        try:
            self._open(worker)
        except OSError as error:
            for _, fds in waiting:
                close_all(fds)
            del self._workers[worker.command.worker]
            events.append(WorkerFailed(worker.command.worker, f"no worker: {error.strerror}"))
            return
        self._by_ticket[worker.ticket] = worker
        self._page.clear(worker.command.page_slot)
        self._post_again(worker, waiting)
