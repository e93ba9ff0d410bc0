"""A fake pool of worker processes: carries out what a node core commands, in virtual time.

A worker here is a generator where the real one is a process: it reads packets, writes its page,
runs scripts, is stopped, interrupted, killed. Packets go through their encoding both ways.

Never decides what a node should do.
"""

from collections.abc import Callable
from random import Random

import msgspec
from drumbeat.node import events
from drumbeat.node.packets import Answered, Exit, Run, ToDaemon, ToWorker
from drumbeat.node.page import IDLE, RUNNING_CODE

from .clock import Clock
from .oracle import Oracle
from .worker import Worker

_encode = msgspec.msgpack.Encoder().encode
_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_to_daemon = msgspec.msgpack.Decoder(ToDaemon).decode

SIGNALS = {"TERM": 15, "KILL": 9, "SEGV": 11}


class FakePool:
    """The workers of one life of a node daemon.

    Args:
        tell: takes an event for the node core.
        record: takes the bytes of every packet, for the digest.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        oracle: Oracle,
        peer: bytes,
        node: str,
        tell: Callable[[events.Event], None],
        record: Callable[[bytes], None],
    ) -> None:
        self.clock = clock
        self.random = random
        self.oracle = oracle
        self.peer = peer
        self.node = node
        self.workers: dict[int, Worker] = {}
        #: being forked -> the signal that ended it before it was there
        self._forking: dict[int, str] = {}
        self.fork_fails_until_s = 0.0
        self.alive = True
        #: the keeper's part of the lease, in the world's time
        self._lease_until_s = 0.0
        self._leased: dict[int, None] = {}
        self._tell = tell
        self._record = record
        self._last_s: dict[int, float] = {}
        #: what these workers say is held back until then
        self._late_until_s: dict[int, float] = {}

    # -------------------------------------------------------------------------------- commands

    def carry_out(self, command: events.Command) -> bool:
        """Do what the core commands; False if it is not for the pool."""
        match command:
            case events.SendWorker():
                self._send(command.worker, command.packet)
            case events.StartWorker():
                self.oracle.count("worker started")
                self._forking[command.worker] = ""
                delay_s = self.random.uniform(0.002, 0.03)
                self.clock.after(delay_s, self._start, command)
            case events.TakePackets():
                self._take_packets(command.worker)
            case events.Revoke():
                worker = self.workers.get(command.worker)
                if worker is not None:
                    worker.revoked = command.seq
                    self.oracle.count("worker revoked")
            case events.ReadPage():
                self.clock.after(max(command.after_s, 1e-6), self._read_page, list(command.workers))
            case events.LookAt():
                self.clock.after(1e-6, self._look_at, list(command.rows))
            case events.Dump():
                for number in command.workers:
                    dumped = events.Dumped(number, "", "nobody can look into it")
                    self.clock.after(self._hop_s(), self._deliver, dumped)
            case events.Interrupt():
                worker = self.workers.get(command.worker)
                if worker is not None:
                    worker.interrupt_seq = command.seq
                self.clock.after(
                    self._hop_s(), self._interrupt, command.worker, command.seq, command.reason
                )
            case events.Signal():
                self.clock.after(self._hop_s(), self.signal, command.worker, command.name)
            case events.Lease():
                self._leased[command.worker] = None
                self.lease_until(self._lease_until_s)
            case _:
                return False
        return True

    def lease_until(self, until_s: float) -> None:
        """The daemon has written into its page until when its actors may act."""
        self._lease_until_s = until_s
        if until_s and self._leased:
            self.clock.at(max(until_s, self.clock.now_s), self._look_at_lease, until_s)

    def _look_at_lease(self, until_s: float) -> None:
        """The keeper looks: it does so even while the daemon stands still.

        Of a host that stands still as a whole the actors do nothing, and die before they go on.
        """
        if not self.alive or self._lease_until_s > until_s:
            return
        leased, self._leased = self._leased, {}
        for number in leased:
            worker = self.workers.get(number)
            if worker is not None and worker.is_alive:
                self.oracle.reaped(self.peer, self.node)
                worker.die(-9, "SIGKILL", overdue=True)

    def _look_at(self, rows: list[tuple[int, int]]) -> None:
        seen = []
        for number, depth in rows:
            worker = self.workers.get(number)
            if worker is None:
                continue
            # Stopped ones have not pulsed since; the others are never seen to hang here.
            stopped = self.clock.now_s < worker.stopped_until_s
            beat = 0 if stopped else int(4 * self.clock.now_s)
            phase = RUNNING_CODE if worker.running else IDLE
            state = "" if depth == events.PAGE else "T" if stopped else "R"
            run = worker.execution
            elapsed_s = 0.0 if run is None else self.clock.now_s - run.began_s
            seen.append(
                events.Evidence(number, beat, worker.running, phase, elapsed_s, state=state)
            )
        self._tell(events.Seen(seen))

    def _hop_s(self) -> float:
        return self.random.uniform(1e-5, 1e-4)

    def _start(self, command: events.StartWorker) -> None:
        if not self.alive:
            return
        signal = self._forking.pop(command.worker)
        if self.clock.now_s < self.fork_fails_until_s:
            self.oracle.count("fork failed")
            self._tell(events.WorkerFailed(command.worker, "fork: no memory"))
            return
        if command.worker in self.workers:
            self.oracle.wrong(f"{self.node} started worker {command.worker} twice")
        worker = self.workers[command.worker] = Worker(self, command)
        if signal:
            worker.die(-SIGNALS[signal], f"SIG{signal}")

    def _send(self, number: int, packet: ToWorker) -> None:
        worker = self.workers.get(number)
        encoded = _encode(packet)
        self._record(encoded)
        if worker is not None and worker.is_alive:
            worker.arrive(_to_worker(encoded))
        elif number in self._forking:
            self.oracle.wrong(f"{self.node} sends to worker {number} before it is ready")

    def _take_packets(self, number: int) -> None:
        """Read back what lies unread; what is not work goes back in."""
        worker = self.workers.get(number)
        seqs: list[int] = []
        if worker is not None:
            kept: list[ToWorker] = []
            for packet in worker.socket:
                if isinstance(packet, Run):
                    seqs += [row.seq for row in packet.rows]
                    packet = Run(packet.definitions, [])  # rows alone are taken
                kept.append(packet)
            worker.socket.clear()
            worker.socket.extend(kept)
        if seqs:
            self.oracle.count("packets taken back")
        self.clock.after(self._hop_s(), self._deliver, events.PacketsTaken(number, seqs))

    def _read_page(self, numbers: list[int]) -> None:
        samples = [
            (number, worker.started, worker.running == worker.started and worker.running != 0)
            for number in numbers
            if (worker := self.workers.get(number)) is not None
        ]
        self._tell(events.PageRead(samples))

    def _interrupt(self, number: int, seq: int, reason: str) -> None:
        worker = self.workers.get(number)
        if worker is not None and worker.running == seq:
            self.oracle.limited.judged(worker.execution, reason)
            worker.interrupt()

    def signal(self, number: int, name: str) -> None:
        """Signal a worker; a deaf task does not hear TERM."""
        worker = self.workers.get(number)
        if worker is None and number in self._forking:
            self._forking[number] = name
        if worker is None or not worker.is_alive:
            return
        if name == "TERM" and worker.is_deaf:
            self.oracle.count("deaf to TERM")
            return
        self.oracle.count(f"worker got {name}")
        worker.die(-SIGNALS[name], f"SIG{name}")

    # -------------------------------------------------------------------------- from the workers

    def spoke(self, worker: Worker, packet: ToDaemon) -> None:
        """A worker sends a packet."""
        encoded = _encode(packet)
        self._record(encoded)
        self._in_order(worker.number, events.WorkerSpoke(worker.number, _to_daemon(encoded)))

    def wrote(self, worker: Worker, text: bytes) -> None:
        """A worker printed."""
        self._in_order(worker.number, events.Spoke([(worker.number, text, 0)]))

    def exited(
        self, worker: Worker, status: int, signal_name: str, no_memory: bool, overdue: bool = False
    ) -> None:
        """A worker's process ended: its page is told, then its end."""
        started, running = worker.started, worker.running
        if not self.alive:
            return
        number = worker.number
        sample = (number, started, running == started and running != 0)
        self._in_order(number, events.PageRead([sample]), self.random.uniform(0.0005, 0.01))
        words = "the last words"
        self._in_order(
            number,
            events.WorkerExited(number, status, signal_name, words, no_memory, overdue),
        )
        self.clock.at(self._last_s[number], self._reaped, number)

    def _reaped(self, number: int) -> None:
        self.workers.pop(number, None)
        self._last_s.pop(number, None)
        self._late_until_s.pop(number, None)

    def _in_order(self, number: int, event: events.Event, delay_s: float = 0.0) -> None:
        when_s = max(self.clock.now_s + delay_s, self._late_until_s.get(number, 0.0))
        when_s += self._hop_s()
        self._last_s[number] = when_s = max(when_s, self._last_s.get(number, 0.0))
        self.clock.at(when_s, self._deliver, event)

    def _deliver(self, event: events.Event) -> None:
        if self.alive:
            self._tell(event)

    # -------------------------------------------------------------------------------- faults

    def kill_all(self) -> None:
        """The daemon is gone: the keeper kills every worker."""
        self.alive = False
        for worker in list(self.workers.values()):
            worker.die(-9, "SIGKILL")
        self.workers.clear()

    def hold_back(self, worker: Worker, for_s: float) -> None:
        """The worker goes on, but what it says comes late."""
        self.oracle.count("worker held back")
        self._late_until_s[worker.number] = self.clock.now_s + for_s

    def stop_all(self, for_s: float) -> None:
        """The whole host stands still."""
        for worker in self.workers.values():
            worker.stop(for_s)

    def pick(self, number: int) -> Worker | None:
        """Return one of the living workers, busy ones first."""
        living = [worker for worker in self.workers.values() if worker.is_alive]
        busy = [worker for worker in living if worker.running]
        chosen = busy or living
        return chosen[number % len(chosen)] if chosen else None


__all__ = ["Answered", "Exit", "FakePool", "Run"]
