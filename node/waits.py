"""Workers that wait in get(): they lend their CPUs, and have them back before get returns.

Never lends GPUs or custom resources, and never more than workers_blocked_max at a time. Whether
gets wait for ever is known to the scheduler, who says so. Waits of other threads, which lend
nothing, are judged here: their worker knows whether its main thread waits for them.
"""

from collections import deque

from ..protocol.ids import ObjectId
from .attempts import Waiter, Worker
from .packets import Answered, Want, WantOver
from .slots import CPU
from .state import NodeState

#: workers with waits of other threads are asked after this long, when all wait and nothing can run
QUIET_AFTER_S = 1.0


class Waits:
    """All gets and waits of this node's workers."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        #: workers that lend CPUs now, and those that wait (or want to go on) without lending
        self.lenders: dict[int, Worker] = {}
        self.keepers: dict[int, Worker] = {}
        #: gets that are over and want their CPUs back, in order
        self.regaining: deque[Waiter] = deque()
        #: all that are not answered
        self.open: dict[tuple[int, int], Waiter] = {}
        #: waiters with a deadline
        self._timed: dict[tuple[int, int], Waiter] = {}
        #: waiters without one that are no main thread's: their tasks keep their CPUs
        self._quiet: dict[tuple[int, int], Waiter] = {}
        self._stuck_since_s: float | None = None

    def want(self, worker: Worker, packet: Want, now_s: float) -> None:
        """A worker waits for objects."""
        ids = tuple(dict.fromkeys(packet.ids))
        # What a signal's handler waits for amid a get: that has lent the CPUs already.
        amid = packet.lends and worker.main is not None
        attempt = worker.has(packet.seq) if packet.lends and not amid else None
        waiter = Waiter(
            worker=worker.number,
            request=packet.request,
            seq=packet.seq if attempt is not None else 0,
            ids=ids,
            count=len(ids) if packet.values else min(packet.count, len(ids)),
            values=packet.values,
            deadline_s=None if packet.timeout_s is None else now_s + packet.timeout_s,
            stuck=packet.stuck,
        )
        worker.waits[waiter.request] = self.open[worker.number, waiter.request] = waiter
        if packet.reads is not None:
            self._state.streams.wait(waiter, worker.has(packet.seq), packet.reads)
        elif not ids or waiter.count <= 0:
            waiter.over = True
            self._state.objects.satisfied.append(waiter)
        self._state.objects.wait(waiter)
        if waiter.over:
            return
        if waiter.deadline_s is not None:
            self._timed[worker.number, waiter.request] = waiter
        elif attempt is None and not amid and packet.reads is None:
            self._quiet[worker.number, waiter.request] = waiter
        if attempt is not None:
            worker.main = waiter
            self._lend(worker)

    def want_over(self, worker: Worker, packet: WantOver) -> None:
        """A worker was interrupted in its get: it goes on when its CPUs are its own again.

        No waiter of that number: the answer is on its way, and CPUs with it.
        """
        waiter = worker.waits.get(packet.request)
        if waiter is not None:
            waiter.given_up = True
            self._over(waiter)

    def settle(self, now_s: float) -> None:
        """Answer what is over, as far as CPUs are free; lend; ask who may wait for ever.

        To be called once a turn, while anybody waits.
        """
        if self._timed:
            for waiter in [w for w in self._timed.values() if (w.deadline_s or 0.0) <= now_s]:
                waiter.timed_out = not waiter.over
                self._over(waiter)
        satisfied = self._state.objects.satisfied
        while satisfied:
            waiters, satisfied[:] = satisfied[:], []
            for waiter in waiters:
                self._over(waiter)
        if self.regaining:
            self._regain()
        if self.keepers:
            self._lend_more()
        if self._quiet:
            self._look_at_quiet(now_s)

    def deadlock(self, rows: list[tuple[bytes, int, str]], now_s: float) -> None:
        """The scheduler has found that these wait for ever."""
        for task, number, text in rows:
            attempt = self._state.attempts.get(task)
            worker = self._state.workers.get(attempt.worker) if attempt is not None else None
            waiter = worker.main if worker is not None else None
            if (
                attempt is None
                or worker is None
                or attempt.row.attempt != number
                or waiter is None
                or (waiter.seq != attempt.seq and worker.actor is None)
                or waiter.over
            ):
                self._state.counters["stale_dropped"] += 1
                continue
            waiter.error = "ResourceDeadlock"
            waiter.text = text
            self._state.counters["deadlocks"] += 1
            self._state.note(now_s, f"deadlock: worker {waiter.worker} is told ({text})")
            self._over(waiter)

    def ended(self, worker: Worker, seq: int) -> None:
        """The attempt ended although its main thread had a get open."""
        waiter = worker.main
        if waiter is not None and waiter.seq == seq:
            self._forget(worker, waiter)

    def released(self, worker: Worker) -> None:
        """A worker holds no resources any more, so it lends none."""
        worker.lent = 0
        self.lenders.pop(worker.number, None)

    def gone(self, worker: Worker) -> None:
        """A worker has ended, or is about to: nobody waits in it."""
        for waiter in list(worker.waits.values()):
            self._forget(worker, waiter)

    def deadline_s(self) -> float | None:
        """Return when `settle` is next due for time alone."""
        if not self._timed and self._stuck_since_s is None:
            return None
        times = [w.deadline_s for w in self._timed.values() if w.deadline_s is not None]
        if self._stuck_since_s is not None:
            times.append(self._stuck_since_s + QUIET_AFTER_S)
        return min(times, default=None)

    def count(self) -> int:
        """Return how many waits are open."""
        return len(self.open)

    # ------------------------------------------------------------------------------------ inside

    def _lend(self, worker: Worker) -> None:
        shape = worker.shape
        if shape is None or not shape.demand.cpus:
            return
        if len(self.lenders) >= self._state.settings.workers_blocked_max:
            self.keepers[worker.number] = worker
            return
        self._lend_out(worker, shape.demand.cpus)

    def _lend_out(self, worker: Worker, cpus: int) -> None:
        self.keepers.pop(worker.number, None)
        worker.lent = cpus
        self.lenders[worker.number] = worker
        self._state.slots.lend(cpus)
        self._tell(worker, True)

    def _lend_more(self) -> None:
        # A get that is over counts as a lender until it has its CPUs, and may have to wait for
        # those of a worker that keeps its own: that one lends in its place.
        spare = self._state.settings.workers_blocked_max - len(self.lenders)
        spare += len(self.regaining)
        for worker in list(self.keepers.values())[: max(0, spare)]:
            self._lend_in_place(worker)
        self._regain()
        if self.regaining and self._all_wait():
            # One in its place was too small, and nothing else will end: nothing but that get can
            # use what more of them lend.
            for worker in list(self.keepers.values()):
                if not self.regaining:
                    break
                self._lend_in_place(worker)
                self._regain()

    def _lend_in_place(self, worker: Worker) -> None:
        shape = worker.shape
        if worker.main is not None and not worker.main.over and shape is not None:
            self._lend_out(worker, shape.demand.cpus)

    def _all_wait(self) -> bool:
        workers = self._state.workers.values()
        return all(worker.main is not None for worker in workers if worker.is_busy)

    def _regain(self) -> None:
        while self.regaining:
            waiter = self.regaining[0]
            worker = self._state.workers[waiter.worker]
            if not self._state.slots.regain(worker.lent):
                return
            self.regaining.popleft()
            worker.lent = 0
            del self.lenders[worker.number]
            self._tell(worker, False)
            self._answer(worker, waiter)

    def _over(self, waiter: Waiter) -> None:
        worker = self._state.workers.get(waiter.worker)
        if worker is None or worker.waits.get(waiter.request) is not waiter:
            return
        waiter.over = True
        self._timed.pop((worker.number, waiter.request), None)
        if worker.main is waiter and worker.lent:
            if waiter not in self.regaining:
                self.regaining.append(waiter)
        else:
            self._answer(worker, waiter)

    def _answer(self, worker: Worker, waiter: Waiter) -> None:
        unread = waiter.error or waiter.given_up
        rows = [] if unread else self._state.objects.rows_for(waiter)
        self._forget(worker, waiter)
        data = self._state.streams.reads_of(waiter.stream) if waiter.stream else None
        answered = Answered(waiter.request, rows, waiter.timed_out, data, waiter.error, waiter.text)
        self._state.answer(worker, answered)

    def _forget(self, worker: Worker, waiter: Waiter) -> None:
        self._state.objects.leave(waiter)
        if waiter.stream:
            self._state.streams.leave(waiter)
        worker.waits.pop(waiter.request, None)
        self.open.pop((worker.number, waiter.request), None)
        self._timed.pop((worker.number, waiter.request), None)
        self._quiet.pop((worker.number, waiter.request), None)
        if not self._quiet:
            self._stuck_since_s = None
        if worker.main is waiter:
            worker.main = None
            self.keepers.pop(worker.number, None)
        if waiter in self.regaining:
            self.regaining.remove(waiter)

    def _tell(self, worker: Worker, blocked: bool) -> None:
        waiter = worker.main
        attempt = worker.has(waiter.seq) if waiter is not None else None
        if attempt is not None and worker.actor is not None:
            attempt = worker.actor.attempt  # its CPUs are what a call lends
        if attempt is not None:
            self._state.blocked.append((attempt.row.id, attempt.row.attempt, blocked))

    def _stuck(self) -> bool:
        # Every worker that has work waits, and what is queued finds no room.
        state = self._state
        quiet = {number for number, _ in self._quiet}
        for number, worker in state.workers.items():
            waits = worker.main is not None or number in quiet
            if not worker.ready or (worker.is_busy and not waits):
                return False
        held = [worker.shape for worker in self.keepers.values() if worker.shape is not None]
        shapes = [*state.queue.waiting, *held]
        if not shapes and state.slots.free[CPU]:
            return False
        return all(state.slots.count(shape.demand, 1) == 0 for shape in shapes)

    def _look_at_quiet(self, now_s: float) -> None:
        if not self._stuck():
            self._stuck_since_s = None
            return
        if self._stuck_since_s is None:
            self._stuck_since_s = now_s
        if now_s >= self._stuck_since_s + QUIET_AFTER_S:
            # They are but asked at first, and know more than is known here.
            self._stuck_since_s = None
            self._suspect_quiet(now_s)

    def _suspect_quiet(self, now_s: float) -> None:
        """Ask each worker with a wait that lends nothing whether it can go on; else tell one."""
        youngest = {waiter.worker: waiter for waiter in self._quiet.values()}
        sure = all(waiter.stuck for waiter in youngest.values())
        for waiter in list(youngest.values())[-1:] if sure else youngest.values():
            waiter.error = "ResourceDeadlock"
            if sure:
                waiter.text = (
                    f"all CPUs of node {self._state.name} are held by tasks that wait, and what "
                    "they wait for cannot run; a future or another thread lends no CPUs: wait in "
                    "the main thread, or give the node more CPUs"
                )
                self._state.note(now_s, f"worker {waiter.worker} waits for ever: {waiter.text}")
            self._over(waiter)

    # -------------------------------------------------------------------------------- for checking

    def check_invariants(self) -> None:
        """Check that lenders, keepers and waits agree."""
        for number, worker in self.lenders.items():
            assert worker.lent, number
            assert number in self._state.workers, number
            assert number not in self.keepers, number
        for worker in self._state.workers.values():
            assert bool(worker.lent) == (worker.number in self.lenders), worker.number
            assert worker.main is None or worker.main.request in worker.waits, worker.number
            for waiter in worker.waits.values():
                assert self.open[worker.number, waiter.request] is waiter, worker.number
                for id_ in waiter.ids:
                    entry = self._state.objects.entries[ObjectId(id_)]
                    assert any(other is waiter for other in entry.waiters)
        assert len(self.open) == sum(len(w.waits) for w in self._state.workers.values())
        for waiter in self.regaining:
            assert self._state.workers[waiter.worker].main is waiter
