"""Who runs what: hands out packets in the order of the queue, takes back what lies unread.

Never lets more run than the slots hold, never mixes the keys of workers, and never lets a later
attempt take what an earlier one waits for.
"""

from collections import deque
from operator import attrgetter

from .attempts import QUEUED, SENT, Attempt, Crew, Demand, Hosted, Shape, Worker, WorkerKey
from .events import Lease, ReadPage, Revoke, SendWorker, TakePackets
from .lives import Lives
from .packets import KindDefinition, Run, RunRow
from .slots import CPU, GPU
from .state import LOOK_S, NEVER_S, NodeState
from .waits import Waits

#: packets in a worker's hands: one that it works on, one that hides the way here and back
PACKETS_IN_FLIGHT_MAX = 2
#: what takes longer than so many windows has nothing behind it: the way here and back is nothing
#: to it, and what waits would wait too long
AHEAD_WINDOWS = 2
#: a revoked worker sees the page before it starts anything else after this long
PAGE_DELAY_S = 0.002

_UNTIL_S = attrgetter("until_s")


class Dispatch:
    """The workers of this node and what they are given."""

    def __init__(self, state: NodeState, waits: Waits, lives: Lives) -> None:
        self._state = state
        self._waits = waits
        self._lives = lives
        self._shapes: dict[tuple[WorkerKey, Demand], Shape] = {}
        #: have rows that could run elsewhere if the first one takes too long
        self._watched: dict[int, Worker] = {}
        #: hold nothing, and rest as soon as the page may say "go on" again
        self._clearing: dict[int, Worker] = {}
        # Of one turn: resources that an earlier shape waits for; what is kept for starting workers.
        self._closed: dict[str, Shape | None] = {}
        self._promised: list[tuple[Demand, tuple[int, ...]]] = []
        self._pause_until_s: float | None = None

    # --------------------------------------------------------------------------------- the records

    def shape(self, key: WorkerKey, demand: Demand) -> Shape:
        """Return the shape of these attempts."""
        shape = self._shapes.get((key, demand))
        if shape is None:
            fits = self._state.slots.could(demand)
            shape = Shape(self._lives.crew(key), demand, fits=fits)
            self._shapes[key, demand] = shape
        return shape

    def forget_client(self, client: bytes) -> None:
        """A client has left: nothing of its shapes is queued."""
        self._shapes = {
            key: shape for key, shape in self._shapes.items() if key[0].client != client
        }

    def clear(self) -> None:
        """The link's life is over."""
        self._shapes.clear()

    # ------------------------------------------------------------------------------ once every turn

    def turn(self, now_s: float) -> None:
        """Hand out what can be handed out; call back what takes too long."""
        if self._watched:
            self._call_back_overdue(now_s)
        self._pause_until_s = None
        waiting = self._state.queue.waiting
        if not waiting:
            return
        if self._closed:
            self._closed = {}
        if self._waits.regaining:
            # A get() that is over has its CPUs back before anything new starts.
            self._closed[CPU] = None
        active = list(waiting)
        while active:
            shape = active[0] if len(active) == 1 else min(active, key=Shape.head)
            if self._serve(shape, now_s):
                if shape.count:
                    continue
                del waiting[shape]
            active.remove(shape)
        if self._promised:
            for demand, gpus in self._promised:
                self._state.slots.give(demand, gpus)
            self._promised.clear()

    @property
    def rests(self) -> bool:
        """Whether the next turn hands out nothing if nothing else happens."""
        pauses = self._pause_until_s is not None and self._state.queue.waiting
        return not (self._clearing or pauses)

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        if not self._watched:
            return self._pause_until_s
        settings = self._state.settings
        times = [
            worker.until_s + settings.packet_overdue_s
            for worker in self._watched.values()
            if not worker.revoked
        ]
        if self._pause_until_s is not None:
            times.append(self._pause_until_s)
        return min(times, default=None)

    def _serve(self, shape: Shape, now_s: float) -> bool:
        # Gives one worker one packet. Spreading comes first: idle workers, then new ones, and only
        # then a second packet for those that have one.
        crew, slots, closed = shape.crew, self._state.slots, self._closed
        if closed and self._is_closed(shape):
            return False
        if crew.key.hosts and not self._state.lease.delivers(now_s):
            return False  # another node may be told to make it
        if crew.idle:
            takers = 1 if shape.count == 1 else slots.count(shape.demand, len(crew.idle))
            gpus = slots.take(shape.demand) if takers > 0 else None
            if gpus is not None:
                number, worker = crew.idle.popitem()
                del self._lives.idle[number]
                worker.shape, worker.gpus = shape, gpus
                shape.workers[number] = worker
                self._send(worker, shape, -(-shape.count // takers), now_s)
                return True
            for name in slots.lacking(shape.demand):
                closed.setdefault(name, shape)
        else:
            self._start_for(shape, now_s)
        if crew.key.hosts:
            return False  # those that have something are actors
        workers = shape.workers.values()
        hungry = [worker for worker in workers if self._hungry(worker, shape, now_s)]
        if not hungry:
            return False
        # Whoever has least left comes to it first.
        next_one = hungry[0] if len(hungry) == 1 else min(hungry, key=_UNTIL_S)
        self._send(next_one, shape, -(-shape.count // len(hungry)), now_s)
        return True

    def _is_closed(self, shape: Shape) -> bool:
        closed, demand = self._closed, shape.demand
        if demand.cpus and closed.get(CPU, shape) is not shape:
            return True
        if demand.gpus and closed.get(GPU, shape) is not shape:
            return True
        return any(closed.get(name, shape) is not shape for name, _ in demand.others)

    def _hungry(self, worker: Worker, shape: Shape, now_s: float) -> bool:
        # May it have another packet behind the one it works on?
        if len(worker.packets) >= PACKETS_IN_FLIGHT_MAX or worker.long or worker.revoked:
            return False
        if worker.exiting or worker.dropped or worker.main is not None:
            return False
        lane = shape.lane()
        if lane is None:
            return False
        expected_s, settings = lane[0].row.expected_s, self._state.settings
        left_s, late_s = worker.until_s - now_s, settings.packet_overdue_s
        if left_s <= -late_s:
            return False  # what lay behind it has been called back, and would be again
        if expected_s <= late_s:
            # A short one is sooner begun by whoever is free first than behind a longer one.
            return expected_s >= 0.0 and left_s <= late_s
        # And the last one is left to whoever that is.
        others = len(shape.workers) > 1
        return expected_s <= AHEAD_WINDOWS * settings.window_s and shape.count > others

    # -------------------------------------------------------------------------------------- packets

    def _send(self, worker: Worker, shape: Shape, share: int, now_s: float) -> None:
        settings = self._state.settings
        room, budget_s = min(share, settings.packet_tasks_max), settings.packet_s
        lane: deque[Attempt] | None = None
        rows: list[RunRow] = []
        definitions: list[KindDefinition] = []
        flight, defined, gpus = worker.flight, worker.defined, worker.gpus or None
        number, seq, expected_all_s, last = worker.number, worker.seq, 0.0, False
        while room > 0 and not last:
            if not lane or lane[0].state != QUEUED:
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
                definitions.append(kind.definition(settings.health_check_interval_s))
            rows.append(RunRow(
                seq, row.id, row.attempt, kind.number, row.depth, row.args, row.values, gpus,
                row.details, row.checkpoint,
            ))  # fmt: skip
            if expected_s < 0.0:
                worker.long = last = True
            else:
                budget_s -= expected_s
                expected_all_s += expected_s
            if kind.max_calls:
                calls = worker.calls[kind.number] = worker.calls.get(kind.number, 0) + 1
                if calls < kind.max_calls:
                    continue
                last = True
                self._use_up(worker, attempt)
        if expected_all_s > AHEAD_WINDOWS * settings.window_s:
            worker.long = True
        if not worker.packets:
            worker.since_s = worker.until_s = now_s
        worker.seq = seq
        worker.packets.append((seq, expected_all_s))
        worker.until_s = max(worker.until_s, now_s) + expected_all_s
        if len(flight) > 1:
            self._watch(worker)
        state = self._state
        if state.look_due_s == NEVER_S:
            state.look_due_s = now_s + LOOK_S
            state.due_by(state.look_due_s)
        state.commands.append(SendWorker(number, Run(definitions, rows)))
        if worker.exiting:
            self._lives.exit(worker, now_s)

    def _use_up(self, worker: Worker, creation: Attempt) -> None:
        """Note that a worker is given its last: it is to become an actor, or to end."""
        if not creation.kind.creates:
            worker.exiting = True
            return
        worker.actor = Hosted(creation)
        worker.long = True
        worker.crew.taken += 1
        options = creation.kind.options.creates
        if options is not None and not options.waits_on_partition:
            self._state.commands.append(Lease(worker.number))

    def ended(self, worker: Worker, last_seq: int, now_s: float) -> None:
        """Rows up to `last_seq` have ended, in order."""
        worker.since_s = now_s
        if not worker.flight:
            self._settle(worker, now_s)
            return
        packets = worker.packets
        if packets and packets[0][0] <= last_seq:
            while packets and packets[0][0] <= last_seq:
                packets.popleft()
            worker.until_s = now_s + sum(expected_s for _, expected_s in packets)
        if len(worker.flight) == 1:
            self._watched.pop(worker.number, None)
        elif worker.revoked:
            self._clear_revoked(worker, now_s)
        else:
            self._watch(worker)

    def left(self, worker: Worker, now_s: float) -> None:
        """Rows have left the worker's hands in another way than by their end."""
        flight = worker.flight
        expected_s = sum(max(0.0, attempt.row.expected_s) for attempt in flight.values())
        worker.packets = deque(((next(reversed(flight)), expected_s),) if flight else ())
        if len(flight) <= 1:
            self._watched.pop(worker.number, None)
        if not flight:
            self._settle(worker, now_s)
        elif worker.revoked:
            self._clear_revoked(worker, now_s)

    def _watch(self, worker: Worker) -> None:
        # What lies behind the first row is called back if that takes too long.
        self._watched[worker.number] = worker
        self._state.due_by(worker.until_s + self._state.settings.packet_overdue_s)

    def release(self, worker: Worker) -> None:
        """Free what a worker held: it has nothing to do, or has ended."""
        if worker.packets:
            worker.packets.clear()
        worker.long = False
        number, shape = worker.number, worker.shape
        if number in self._watched:
            del self._watched[number]
        if number in self._clearing:
            del self._clearing[number]
        if shape is not None:
            self._state.slots.give(shape.demand, worker.gpus or (), worker.lent)
            if worker.lent:
                self._waits.released(worker)
            del shape.workers[number]
            worker.shape = worker.gpus = None

    def _settle(self, worker: Worker, now_s: float) -> None:
        # It has nothing in its hands: it rests, unless it may still return rows.
        self.release(worker)
        if worker.actor is not None:
            worker.actor = None  # it never began to be one
            worker.crew.taken -= 1
        if worker.revoked:
            self._clearing[worker.number] = worker
            self._clear_revoked(worker, now_s)
        else:
            self._lives.rest(worker, now_s)

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
            return
        worker.revoked = 0
        self._state.commands.append(Revoke(worker.number, 0))
        if len(worker.flight) > 1:
            self._watch(worker)
        if not worker.flight:
            self._clearing.pop(worker.number, None)
            self._lives.rest(worker, now_s)

    def _call_back_overdue(self, now_s: float) -> None:
        late_s = self._state.settings.packet_overdue_s
        for worker in list(self._watched.values()):
            if len(worker.flight) <= 1:
                del self._watched[worker.number]
                continue
            if worker.revoked or now_s < worker.until_s + late_s:
                continue
            first = next(iter(worker.flight))
            text = f"worker {worker.number} is overdue with {worker.flight[first].kind.name}"
            self._state.note(now_s, f"{text}: {len(worker.flight) - 1} rows are called back")
            self.call_back(worker, first + 1)

    def _start_for(self, shape: Shape, now_s: float) -> None:
        # No worker of this key is idle: start as many as could run something now, and keep those
        # resources from shapes that are later in line.
        slots, lives, crew = self._state.slots, self._lives, shape.crew
        need = slots.count(shape.demand, min(shape.count, lives.starting_max))
        if need <= 0:
            for name in slots.lacking(shape.demand):
                self._closed.setdefault(name, shape)
            return
        if now_s < crew.pause_until_s:
            until_s = crew.pause_until_s
            self._pause_until_s = min(self._pause_until_s or until_s, until_s)
            self._state.due_by(until_s)
            return
        coming = crew.starting + self._soon_idle(crew)
        wanted = min(need - coming, lives.starting_max - len(lives.starting))
        for _ in range(wanted):
            if lives.has_room(crew):
                lives.start(crew, now_s)
            elif len(lives.exiting) < wanted:
                lives.make_room(crew, now_s)
        for _ in range(min(need, max(1, coming))):
            gpus = slots.take(shape.demand)
            if gpus is None:
                break
            self._promised.append((shape.demand, gpus))
        if need < shape.count:
            for name in slots.lacking(shape.demand):
                self._closed.setdefault(name, shape)

    def _soon_idle(self, crew: Crew) -> int:
        # Only what this daemon itself will answer is waited for: a page read, packets taken. A
        # worker that has yet to return rows may be stuck, and another takes its place.
        return sum(
            worker.crew is crew and not (worker.ghosts or worker.exiting or worker.dropped)
            for worker in self._clearing.values()
        )

    # -------------------------------------------------------------------------------- for checking

    def check_invariants(self) -> None:
        """Check that workers, crews, shapes and slots agree."""
        state = self._state
        used = dict.fromkeys(state.slots.capacity, 0)
        for worker in state.workers.values():
            crew, shape = worker.crew, worker.shape
            idle = worker.number in self._lives.idle
            assert idle == (worker.number in crew.idle), worker.number
            assert not (idle and (shape or worker.flight or not worker.ready)), worker.number
            assert worker.ready != (worker.number in self._lives.starting), worker.number
            assert worker.dropped or bool(worker.flight) == (shape is not None), worker.number
            assert not (worker.number in self._clearing and (idle or shape)), worker.number
            for seq, attempt in worker.flight.items():
                assert (attempt.state, attempt.seq) == (SENT, seq), worker.number
                assert state.attempts[attempt.row.id] is attempt, (worker.number, seq)
            if shape is not None:
                assert shape.workers[worker.number] is worker
                used[CPU] += shape.demand.cpus - worker.lent
                used[GPU] += shape.demand.gpus
                for name, amount in shape.demand.others:
                    used[name] += amount
        assert all(state.workers[number] is worker for number, worker in self._clearing.items())
        for name, total in state.slots.capacity.items():
            assert 0 <= used[name] <= total, (name, used[name], total)
            assert state.slots.free[name] == total - used[name], (name, used, state.slots.free)
        assert sum(state.slots.gpus) == state.slots.free[GPU]
        for shape in state.queue.waiting:
            assert shape.count == len(shape.queued()) > 0
        pages = [worker.page_slot for worker in state.workers.values()]
        assert len(set(pages)) == len(pages)
