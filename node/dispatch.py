"""Who runs what: starts workers, hands out packets in queue order, takes back what lies unread.

Never lets more run than the slots hold, never mixes the keys of workers, and never lets a later
attempt take what an earlier one waits for.
"""

from bisect import bisect_left
from collections import deque

from ..protocol.messages import Environment
from .attempts import GONE, NOT_STOPPED, SENT, Attempt, Crew, Demand, Shape, Worker, WorkerKey
from .events import ReadPage, Revoke, SendWorker, Signal, StartWorker, TakePackets
from .packets import Exit, KindDefinition, Run, RunRow
from .slots import CPU, GPU
from .state import NodeState
from .waits import Waits

#: packets in a worker's hands: one that it works on, one that hides the way here and back
PACKETS_IN_FLIGHT_MAX = 2
#: starts of one key that may fail in a row before its attempts fail
START_FAILURES_MAX = 6
START_BACKOFF_S = 0.1
START_BACKOFF_MAX_S = 5.0
#: a revoked worker sees the page before it starts anything else after this long
PAGE_DELAY_S = 0.002
#: workers started before anything is queued for them
PRESTART_MAX = 4


class Dispatch:
    """The workers of this node and what they are given."""

    def __init__(self, state: NodeState, waits: Waits, host: str) -> None:
        self._state = state
        self._waits = waits
        self._host = host
        self.environments: dict[bytes, Environment] = {}
        self.crews: dict[WorkerKey, Crew] = {}
        self.shapes: dict[tuple[WorkerKey, Demand], Shape] = {}
        #: longest idle first
        self.idle: dict[int, Worker] = {}
        #: not Ready yet
        self.starting: dict[int, Worker] = {}
        #: told to exit
        self.exiting: dict[int, Worker] = {}
        #: have rows that could run elsewhere if the first one takes too long
        self._watched: dict[int, Worker] = {}
        self._last_number = 0
        self._free_pages: list[int] = []
        self._last_page = 0
        # Workers that may start at once: forking is quick, but a machine has so many cores.
        self._starting_max = max(4, self._state.slots.capacity[CPU] // 10_000)
        # Of one turn: resources that an earlier shape waits for; what is kept for starting workers.
        self._closed: dict[str, Shape] = {}
        self._promised: list[tuple[Demand, tuple[int, ...]]] = []
        self._pause_until_s: float | None = None

    # --------------------------------------------------------------------------------- the records

    def shape(self, key: WorkerKey, demand: Demand) -> Shape:
        """Return the shape of these attempts."""
        shape = self.shapes.get((key, demand))
        if shape is None:
            shape = self.shapes[key, demand] = Shape(self._crew(key), demand)
        return shape

    def _crew(self, key: WorkerKey) -> Crew:
        crew = self.crews.get(key)
        if crew is None:
            crew = self.crews[key] = Crew(key)
        return crew

    def prestart(self, key: WorkerKey, now_s: float) -> None:
        """Start a few workers before the first attempts come."""
        crew = self._crew(key)
        cpus = self._state.slots.capacity[CPU] // max(1, Demand(int(key.num_cpus * 10_000), 0, ())[0])
        for _ in range(min(cpus, PRESTART_MAX) - crew.members):
            if len(self._state.workers) < self._state.settings.workers_max:
                self._start(crew, now_s)

    def forget_client(self, client: bytes) -> None:
        """A client has left: its shapes are empty, its workers are being killed."""
        self.environments.pop(client, None)
        self.shapes = {key: shape for key, shape in self.shapes.items() if key[0].client != client}
        self.crews = {key: crew for key, crew in self.crews.items() if key.client != client}

    # ------------------------------------------------------------------------------ once every turn

    def turn(self, now_s: float) -> None:
        """Hand out what can be handed out; call back what takes too long; end who idles."""
        self._call_back_overdue(now_s)
        self._pause_until_s = None
        queue = self._state.queue
        if queue.waiting:
            self._closed = {}
            if self._waits.regaining:
                # A get() that is over has its CPUs back before anything new starts.
                worker = self._state.workers[self._waits.regaining[0].worker]
                assert worker.shape is not None
                self._closed[CPU] = worker.shape
            active = list(queue.waiting)
            while active:
                shape = active[0] if len(active) == 1 else min(active, key=Shape.head)
                if not self._serve(shape, now_s):
                    active.remove(shape)
                elif not shape.count:
                    queue.emptied(shape)
                    active.remove(shape)
            for demand, gpus in self._promised:
                self._state.slots.give(demand, gpus)
            self._promised.clear()
        self._end_idle(now_s)
        self._check_starts(now_s)

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        settings = self._state.settings
        times = [
            worker.until_s + settings.packet_overdue_s
            for worker in self._watched.values()
            if not worker.revoked
        ]
        if self.idle:
            times.append(next(iter(self.idle.values())).since_s + settings.worker_idle_s)
        times += [w.started_s + settings.start_timeout_s for w in self.starting.values()]
        times += [w.exiting_since_s + settings.term_grace_s for w in self.exiting.values()]
        if self._pause_until_s is not None:
            times.append(self._pause_until_s)
        return min(times, default=None)

    def _serve(self, shape: Shape, now_s: float) -> bool:
        # Gives one worker one packet. Spreading comes first: idle workers, then new ones, and only
        # then a second packet for those that have one.
        crew, slots, closed = shape.crew, self._state.slots, self._closed
        if closed and self._is_closed(shape):
            return False
        if crew.idle:
            takers = slots.count(shape.demand, len(crew.idle))
            gpus = slots.take(shape.demand) if takers > 0 else None
            if gpus is not None:
                worker = crew.idle.popitem()[1]
                del self.idle[worker.number]
                worker.shape, worker.gpus = shape, gpus
                shape.workers[worker.number] = worker
                self._send(worker, shape, -(-shape.count // takers), now_s)
                return True
            for name in slots.lacking(shape.demand):
                closed.setdefault(name, shape)
        else:
            self._start_for(shape, now_s)
        hungry = [worker for worker in shape.workers.values() if self._hungry(worker, shape)]
        if not hungry:
            return False
        self._send(hungry[0], shape, -(-shape.count // len(hungry)), now_s)
        return True

    def _is_closed(self, shape: Shape) -> bool:
        closed, demand = self._closed, shape.demand
        if demand.cpus and closed.get(CPU, shape) is not shape:
            return True
        if demand.gpus and closed.get(GPU, shape) is not shape:
            return True
        return any(closed.get(name, shape) is not shape for name, _ in demand.others)

    def _hungry(self, worker: Worker, shape: Shape) -> bool:
        # May it have another packet behind the one it works on?
        if len(worker.packets) >= PACKETS_IN_FLIGHT_MAX or worker.long or worker.revoked:
            return False
        if worker.exiting or worker.dropped or worker.main is not None:
            return False
        lane = shape.lane()
        if lane is None:
            return False
        return 0.0 <= lane[0].row.expected_s <= self._state.settings.packet_overdue_s

    # -------------------------------------------------------------------------------------- packets

    def _send(self, worker: Worker, shape: Shape, share: int, now_s: float) -> None:
        settings = self._state.settings
        room = min(share, settings.packet_tasks_max)
        budget_s = settings.packet_s
        rows: list[RunRow] = []
        definitions: list[KindDefinition] = []
        flight, defined, gpus = worker.flight, worker.defined, worker.gpus or None
        number, seq, expected_all_s, last = worker.number, worker.seq, 0.0, False
        while room > 0 and not last:
            lane = shape.lane()
            if lane is None:
                break
            attempt = lane[0]
            row, kind = attempt.row, attempt.kind
            expected_s = row.expected_s
            if rows and (expected_s < 0.0 or expected_s > budget_s):
                break
            lane.popleft()
            shape.count -= 1
            seq += 1
            room -= 1
            attempt.state, attempt.worker, attempt.seq = SENT, number, seq
            flight[seq] = attempt
            if kind.number not in defined:
                defined.add(kind.number)
                assert kind.definition is not None
                definitions.append(kind.definition)
            rows.append(
                RunRow(seq, row.id, row.attempt, kind.number, row.depth, row.args, row.values, gpus)
            )
            if expected_s < 0.0:
                worker.long = last = True
            else:
                budget_s -= expected_s
                expected_all_s += expected_s
            if kind.max_calls:
                calls = worker.calls[kind.number] = worker.calls.get(kind.number, 0) + 1
                last = last or calls >= kind.max_calls
                worker.exiting = worker.exiting or calls >= kind.max_calls
        if expected_all_s > settings.packet_overdue_s:
            worker.long = True
        if not worker.packets:
            worker.since_s = worker.until_s = now_s
        worker.seq = seq
        worker.packets.append(seq)
        worker.until_s = max(worker.until_s, now_s) + expected_all_s
        if len(flight) > 1:
            self._watched[number] = worker
        self._state.commands.append(SendWorker(number, Run(definitions, rows)))
        if worker.exiting:
            self._exit(worker, now_s)

    def ended(self, worker: Worker, last_seq: int, now_s: float) -> None:
        """Rows up to `last_seq` have ended, in order."""
        packets = worker.packets
        while packets and packets[0] <= last_seq:
            packets.popleft()
        worker.since_s = now_s
        if len(worker.flight) <= 1:
            self._watched.pop(worker.number, None)
            if not worker.flight:
                self._release(worker, now_s)
        elif worker.revoked:
            self._clear_revoked(worker, now_s)

    def left(self, worker: Worker, now_s: float) -> None:
        """Rows have left the worker's hands in another way than by their end."""
        flight = worker.flight
        worker.packets = deque((next(reversed(flight)),)) if flight else deque()
        if len(flight) <= 1:
            self._watched.pop(worker.number, None)
        if not flight:
            self._release(worker, now_s)
        elif worker.revoked:
            self._clear_revoked(worker, now_s)

    def _release(self, worker: Worker, now_s: float) -> None:
        # The worker has nothing: its resources are free, and it is idle unless it must not be.
        worker.packets.clear()
        worker.long = False
        self._watched.pop(worker.number, None)
        shape = worker.shape
        if shape is not None:
            self._state.slots.give(shape.demand, worker.gpus or (), worker.lent)
            self._waits.released(worker)
            del shape.workers[worker.number]
            worker.shape = worker.gpus = None
        if worker.revoked:
            self._clear_revoked(worker, now_s)
        else:
            self._rest(worker, now_s)

    def _rest(self, worker: Worker, now_s: float) -> None:
        if not worker.ready or worker.exiting or worker.dropped or worker.flight:
            return
        worker.since_s = now_s
        worker.crew.idle[worker.number] = worker
        self.idle[worker.number] = worker

    # --------------------------------------------------------------------------------- taking back

    def take_unread(self, worker: Worker) -> None:
        """Have the packets that lie unread in the worker's socket read back."""
        worker.taking += 1
        self._state.commands.append(TakePackets(worker.number))

    def call_back(self, worker: Worker, seq: int) -> None:
        """Get back every row from `seq` on that the worker has not started."""
        commands = self._state.commands
        self.take_unread(worker)
        if not worker.revoked or seq < worker.revoked:
            worker.revoked = seq
            commands.append(Revoke(worker.number, seq))
        worker.reading += 1
        commands.append(ReadPage([worker.number], PAGE_DELAY_S))

    def packets_taken(self, worker: Worker, seqs: list[int], now_s: float) -> None:
        """These rows lay unread in the worker's socket and do so no more."""
        worker.taking = max(0, worker.taking - 1)
        self.returned(worker, seqs, now_s)

    def returned(self, worker: Worker, seqs: list[int], now_s: float) -> None:
        """The worker does not have these rows any more and has not started them."""
        taken = [worker.flight.pop(seq) for seq in seqs if seq in worker.flight]
        for seq in seqs:
            worker.ghosts.pop(seq, None)
        for attempt in taken:
            self._state.requeue(attempt)
        self.left(worker, now_s)

    def page_read(self, worker: Worker, started: int, now_s: float) -> None:
        """What the worker has started last; once it has seen `revoked`, the rest is ours again."""
        worker.started = started
        worker.reading = max(0, worker.reading - 1)
        if worker.reading or not worker.revoked:
            return
        first = max(worker.revoked, started + 1)
        for seq in [seq for seq in worker.flight if seq >= first]:
            worker.ghosts[seq] = None
            self._state.requeue(worker.flight.pop(seq))
        self.left(worker, now_s)

    def _clear_revoked(self, worker: Worker, now_s: float) -> None:
        # The page may say "go on" again only when the worker has none of the revoked rows: it would
        # start them.
        if worker.ghosts or worker.reading or worker.taking:
            return
        if worker.flight and next(reversed(worker.flight)) >= worker.revoked:
            if len(worker.flight) > 1 or next(iter(worker.flight)) != worker.started:
                return
        worker.revoked = 0
        self._state.commands.append(Revoke(worker.number, 0))
        self._rest(worker, now_s)

    def _call_back_overdue(self, now_s: float) -> None:
        late_s = self._state.settings.packet_overdue_s
        for worker in list(self._watched.values()):
            if worker.revoked or now_s < worker.until_s + late_s:
                continue
            first = next(iter(worker.flight))
            text = f"worker {worker.number} is overdue with {worker.flight[first].kind.name}"
            self._state.note(now_s, f"{text}: {len(worker.flight) - 1} rows are called back")
            self.call_back(worker, first + 1)

    # ------------------------------------------------------------------------ starting and ending

    def _start_for(self, shape: Shape, now_s: float) -> None:
        # No worker of this key is idle: start as many as could run something now, and keep those
        # resources from shapes that are later in line.
        state, crew = self._state, shape.crew
        slots = state.slots
        need = slots.count(shape.demand, min(shape.count, self._starting_max))
        if need <= 0:
            for name in slots.lacking(shape.demand):
                self._closed.setdefault(name, shape)
            return
        if now_s < crew.pause_until_s:
            until_s = crew.pause_until_s
            self._pause_until_s = min(self._pause_until_s or until_s, until_s)
            return
        wanted = min(need - crew.starting, self._starting_max - len(self.starting))
        for _ in range(wanted):
            if len(state.workers) < state.settings.workers_max:
                self._start(crew, now_s)
            elif len(self.exiting) < wanted:
                self._make_room(now_s)
        for _ in range(min(need, max(1, crew.starting))):
            gpus = slots.take(shape.demand)
            if gpus is None:
                break
            self._promised.append((shape.demand, gpus))
        if shape.demand.cpus and not slots.free[CPU]:
            self._closed.setdefault(CPU, shape)

    def _start(self, crew: Crew, now_s: float) -> None:
        state, key = self._state, crew.key
        self._last_number += 1
        if self._free_pages:
            page = self._free_pages.pop(0)
        else:
            self._last_page = page = self._last_page + 1
        worker = Worker(self._last_number, page, crew, now_s)
        state.workers[worker.number] = self.starting[worker.number] = worker
        crew.starting += 1
        crew.members += 1
        environment = self.environments.get(key.client) or Environment()
        state.counters["workers_started"] += 1
        state.commands.append(
            StartWorker(
                worker.number, page, key.client, environment, key.env_vars,  # type: ignore[arg-type]
                key.working_dir, key.num_cpus, environment.host == self._host,
            )
        )  # fmt: skip

    def ready(self, worker: Worker, pid: int, now_s: float) -> None:
        """A worker is set up."""
        worker.pid = pid
        if worker.ready or worker.number not in self.starting:
            return
        worker.ready = True
        del self.starting[worker.number]
        worker.crew.starting -= 1
        worker.crew.failures = 0
        self._rest(worker, now_s)

    def unfit(self, worker: Worker, error: str, now_s: float) -> None:
        """A worker could not be set up as its key asks: no other could."""
        self._state.note(now_s, f"worker {worker.number} could not be set up: {error}")
        self._fail_crew(worker.crew, "TaskError", f"a worker could not be set up: {error}")
        worker.crew.failures = 0
        worker.exiting = True
        worker.exiting_since_s = now_s
        self.exiting[worker.number] = worker

    def remove(self, worker: Worker) -> None:
        """A worker's process is gone, and its rows have been dealt with."""
        assert not worker.flight
        del self._state.workers[worker.number]
        insert = bisect_left(self._free_pages, worker.page_slot)
        self._free_pages.insert(insert, worker.page_slot)
        if self.starting.pop(worker.number, None) is not None:
            worker.crew.starting -= 1
        worker.crew.members -= 1
        self.exiting.pop(worker.number, None)
        self.idle.pop(worker.number, None)
        worker.crew.idle.pop(worker.number, None)

    def start_failed(self, worker: Worker, reason: str, now_s: float) -> None:
        """A worker ended, or could not be made, before it was ready."""
        crew = worker.crew
        crew.failures += 1
        self._state.counters["workers_failed"] += 1
        self._state.note(now_s, f"worker {worker.number} did not start: {reason}")
        pause_s = START_BACKOFF_S * 2.0 ** (crew.failures - 1)
        crew.pause_until_s = now_s + min(pause_s, START_BACKOFF_MAX_S)
        if crew.failures >= START_FAILURES_MAX and crew.members <= crew.starting:
            crew.failures = 0
            self._fail_crew(crew, "WorkerDied", f"no worker could be started: {reason}")

    def _fail_crew(self, crew: Crew, error: str, text: str) -> None:
        for shape in [shape for shape in self._state.queue.waiting if shape.crew is crew]:
            for attempt in shape.queued():
                where = f"{attempt.kind.name} did not run on node {self._state.name}"
                self._state.fail(attempt, error, f"{where}: {text}")

    def drop(self, worker: Worker, now_s: float) -> None:
        """Kill a worker whose client, or whose scheduler, is gone; forget what it had."""
        worker.dropped = True
        self.idle.pop(worker.number, None)
        worker.crew.idle.pop(worker.number, None)
        self._watched.pop(worker.number, None)
        for attempt in worker.flight.values():
            if attempt.state != GONE:
                self._state.forget(attempt)
        worker.flight = {}
        worker.packets.clear()
        self._waits.gone(worker)
        self._state.objects.worker_gone(worker)
        self._state.commands.append(Signal(worker.number, "KILL"))
        self._state.note(now_s, f"worker {worker.number} is killed: its client is gone")

    def release_dead(self, worker: Worker) -> None:
        """Free what an ended worker held."""
        shape = worker.shape
        if shape is not None:
            self._state.slots.give(shape.demand, worker.gpus or (), worker.lent)
            self._waits.released(worker)
            del shape.workers[worker.number]
            worker.shape = None
        self._watched.pop(worker.number, None)

    def _exit(self, worker: Worker, now_s: float) -> None:
        worker.exiting = True
        worker.exiting_since_s = now_s
        if not worker.flight:
            self.exiting[worker.number] = worker
        self.idle.pop(worker.number, None)
        worker.crew.idle.pop(worker.number, None)
        self._state.commands.append(SendWorker(worker.number, Exit()))

    def _make_room(self, now_s: float) -> None:
        # workers_max is reached and another key needs a worker: the longest idle one goes.
        if self.idle:
            self._exit(next(iter(self.idle.values())), now_s)

    def _end_idle(self, now_s: float) -> None:
        while self.idle:
            worker = next(iter(self.idle.values()))
            if now_s < worker.since_s + self._state.settings.worker_idle_s:
                return
            self._exit(worker, now_s)

    def _check_starts(self, now_s: float) -> None:
        settings = self._state.settings
        for worker in self.starting.values():
            if not worker.dropped and now_s >= worker.started_s + settings.start_timeout_s:
                worker.started_s = now_s
                self._kill(worker, "not ready in time", now_s)
        for worker in self.exiting.values():
            if now_s >= worker.exiting_since_s + settings.term_grace_s:
                worker.exiting_since_s = now_s
                self._kill(worker, "told to exit and did not", now_s)

    def _kill(self, worker: Worker, why: str, now_s: float) -> None:
        self._state.note(now_s, f"worker {worker.number} is killed: {why}")
        self._state.commands.append(Signal(worker.number, "KILL"))

    # -------------------------------------------------------------------------------- for checking

    def check_invariants(self) -> None:
        """Check that workers, crews, shapes and slots agree."""
        state = self._state
        used = dict.fromkeys(state.slots.capacity, 0)
        for worker in state.workers.values():
            crew, shape = worker.crew, worker.shape
            idle = worker.number in self.idle
            assert idle == (worker.number in crew.idle), worker.number
            assert not (idle and (shape or worker.flight or not worker.ready)), worker.number
            assert worker.ready != (worker.number in self.starting), worker.number
            assert worker.dropped or bool(worker.flight) == (shape is not None), worker.number
            for seq, attempt in worker.flight.items():
                assert attempt.state == SENT and attempt.seq == seq, (worker.number, seq)
                assert state.attempts[attempt.row.id] is attempt, (worker.number, seq)
                assert attempt.kind.shape is shape or attempt.stop != NOT_STOPPED or shape
            if shape is not None:
                assert shape.workers[worker.number] is worker
                used[CPU] += shape.demand.cpus - worker.lent
                used[GPU] += shape.demand.gpus
                for name, amount in shape.demand.others:
                    used[name] += amount
        for name, total in state.slots.capacity.items():
            assert 0 <= used[name] <= total, (name, used[name], total)
            assert state.slots.free[name] == total - used[name], (name, used, state.slots.free)
        assert sum(state.slots.gpus) == state.slots.free[GPU]
        for shape in state.queue.waiting:
            assert shape.count == len(shape.queued()) > 0
        pages = [worker.page_slot for worker in state.workers.values()]
        assert len(set(pages)) == len(pages)
