"""The records that the node's rooms share: kinds, shapes, attempts, crews, workers.

Never a decision: rules live in the rooms that use these (slots, dispatch, waits, stops, core).

    Kind     a function with its options, as the scheduler defined it
    Shape    all queued attempts that any worker of one crew could run with the same resources
    Crew     the workers of one key: nobody else's attempts ever run in them
    Attempt  one try of one task, from Assign to Done
    Hosted   an actor in its worker, with the calls that are here for it
    Worker   one process
"""

from bisect import insort
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from ..protocol.attempt_text import attempt_text
from ..protocol.messages import AssignRow, NodeKindRow, Options
from ..protocol.resources import units
from .cases import Case
from .packets import KindDefinition
from .page import HEALTH_CHECK

if TYPE_CHECKING:
    from .call_threads import ThreadWatch

# what an attempt is doing
ARRIVING = 0  # a part of it (arguments, a value, its function) is still on the bulk link
QUEUED = 1
SENT = 2  # in a worker's hands, or in its socket
GONE = 3
CALLED = 4  # a call that waits at its actor

# how far a running attempt's end has been asked for
NOT_STOPPED = 0
ASKED = 1  # its packets are being called back; it may not have started
INTERRUPTED = 2
TERMINATED = 3
KILLED = 4


class Demand(NamedTuple):
    """What one attempt holds while it runs, in units."""

    cpus: int
    gpus: int
    #: sorted (name, units) pairs
    others: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, options: Options) -> "Demand":
        """Return what a task with these options asks for."""
        others = tuple((name, units(amount)) for name, amount in options.resources if amount > 0)
        return cls(units(options.num_cpus), units(options.num_gpus), others)


class WorkerKey(NamedTuple):
    """Whose a worker is: it serves one key for life."""

    client: bytes
    env_vars: tuple[tuple[str, str], ...]
    working_dir: str
    num_cpus: float
    pool: str
    #: each becomes an actor, and is that for life
    hosts: bool = False

    @classmethod
    def of(cls, client: bytes, options: Options) -> "WorkerKey":
        """Return the key of a task's workers."""
        hosts = options.creates is not None
        env_vars, directory, cpus = options.env_vars, options.working_dir, options.num_cpus
        return cls(client, env_vars, directory, cpus, options.pool, hosts)


class Function:
    """A function's pickled code, shared by the kinds that use it."""

    __slots__ = ("kinds", "payload", "waiting")

    def __init__(self) -> None:
        self.payload: bytes | None = None
        #: how many kinds use it
        self.kinds = 0
        #: attempts that wait for it to arrive
        self.waiting: list[Attempt] = []


class Kind:
    """A function with its options, as the scheduler defined it for this node."""

    __slots__ = (
        "actor", "client", "creates", "function", "hash", "max_calls", "name", "number", "options",
        "rank", "shape",
    )  # fmt: skip

    def __init__(self, number: int, row: NodeKindRow, shape: "Shape", function: Function) -> None:
        #: towards workers; the scheduler's own goes with its life
        self.number = number
        self.client = row.client
        self.name = row.name
        self.hash = row.function
        self.function = function
        self.options = row.options
        #: it makes actors
        self.creates = row.options.creates is not None
        #: the actor that its tasks are calls of, or b""
        self.actor = row.options.actor
        #: a worker becomes one actor
        self.max_calls = 1 if self.creates else row.options.max_calls
        self.shape = shape
        #: order among ranks: smaller first; the depth of a task is subtracted
        self.rank = -row.options.priority << 32

    def definition(self, health_check_interval_s: float = 0.0) -> KindDefinition:
        """Return what a worker must know of it; its function must have arrived.

        Args:
            health_check_interval_s: of actors whose options do not say.
        """
        options, payload = self.options, self.function.payload
        assert payload is not None
        creates = options.creates
        definition = KindDefinition(
            self.number, self.name, payload, options.num_returns, options.max_retries, self.creates,
            stream=options.stream_buffer_max,
        )  # fmt: skip
        if creates is not None:
            definition.concurrency = creates.max_concurrency
            definition.checkpoint_every_calls = creates.checkpoint_every_calls
            definition.checkpoint_interval_s = creates.checkpoint_interval_s
            if creates.health_check_interval_s >= 0.0:
                health_check_interval_s = creates.health_check_interval_s
            definition.health_check_interval_s = health_check_interval_s
        return definition


class Attempt(Struct, gc=False, eq=False):
    """One try of one task, from Assign to Done (hot: one per task)."""

    row: AssignRow
    kind: Kind
    rank: int
    state: int = QUEUED
    worker: int = 0
    seq: int = 0
    #: parts still to arrive
    missing: int = 0
    stop: int = NOT_STOPPED
    force: bool = False
    #: to be dropped should it come back from its worker unstarted; else it goes on
    unwanted: bool = False
    #: it is to end because its node is drained, not because anybody cancelled it
    drained: bool = False
    #: why it is to end and what was done about it, if anything beyond an interruption was
    case: Case | None = None
    #: refs inside its arguments and values, held while it is here
    pins: tuple[bytes, ...] = ()
    #: what it told last with progress(), pickled
    details: bytes | None = None

    @property
    def which(self) -> str:
        """Which one of how many it is, in words."""
        return attempt_text(self.row.attempt, self.kind.options.max_retries)


class Shape:
    """Queued attempts of one crew and one demand, in lanes of equal rank, first come first."""

    __slots__ = ("count", "crew", "demand", "fits", "lanes", "ranks", "workers")

    def __init__(self, crew: "Crew", demand: Demand, *, fits: bool = True) -> None:
        self.crew = crew
        self.demand = demand
        #: this node is large enough for it
        self.fits = fits
        self.lanes: dict[int, deque[Attempt]] = {}
        #: ranks that have a lane, sorted
        self.ranks: list[int] = []
        #: attempts QUEUED; lanes may still hold some that are GONE
        self.count = 0
        #: workers that hold this demand now
        self.workers: dict[int, Worker] = {}

    def push(self, attempt: Attempt) -> None:
        """Queue an attempt at its place."""
        attempt.state = QUEUED
        self.count += 1
        lane = self.lanes.get(attempt.rank)
        if lane is None:
            insort(self.ranks, attempt.rank)
            self.lanes[attempt.rank] = deque((attempt,))
            return
        order = attempt.row.order
        if not lane or lane[-1].row.order < order:
            lane.append(attempt)
        elif order < lane[0].row.order:
            lane.appendleft(attempt)
        else:
            place = next(i for i, other in enumerate(lane) if other.row.order >= order)
            lane.insert(place, attempt)

    def lane(self) -> deque[Attempt] | None:
        """Return the first lane, its first attempt QUEUED; None when nothing is queued."""
        if not self.count:
            self.lanes.clear()
            self.ranks.clear()
            return None
        while True:
            lane = self.lanes[self.ranks[0]]
            while lane:
                if lane[0].state == QUEUED:
                    return lane
                lane.popleft()
            del self.lanes[self.ranks.pop(0)]

    def head(self) -> tuple[int, int]:
        """Return (rank, order) of the first attempt; something must be queued."""
        lane = self.lane()
        assert lane is not None
        return lane[0].rank, lane[0].row.order

    def drop(self, attempt: Attempt) -> None:
        """Take a queued attempt out; its place in the lane is cleared away when its turn comes."""
        attempt.state = GONE
        self.count -= 1
        if not self.count:
            self.lane()

    def tidy(self) -> None:
        """Clear the places of those that are not queued any more."""
        for rank, lane in self.lanes.items():
            self.lanes[rank] = deque(attempt for attempt in lane if attempt.state == QUEUED)

    def queued(self) -> list[Attempt]:
        """Return all that is queued, in order."""
        return [
            attempt
            for rank in self.ranks
            for attempt in self.lanes[rank]
            if attempt.state == QUEUED
        ]


class Crew:
    """The workers of one key."""

    __slots__ = (
        "crashes", "failing_since_s", "failures", "idle", "key", "members", "pause_until_s",
        "starting", "taken",
    )  # fmt: skip

    def __init__(self, key: WorkerKey) -> None:
        self.key = key
        #: longest idle first
        self.idle: dict[int, Worker] = {}
        self.starting = 0
        self.members = 0
        #: of those, actors: they will run nothing else
        self.taken = 0
        #: rounds of starts that failed since one succeeded; those that are tried at once are one
        self.failures = 0
        #: of those, rounds in which a process was made and ended
        self.crashes = 0
        self.failing_since_s = 0.0
        self.pause_until_s = 0.0


class Waiter(Struct, eq=False):
    """A worker's get or wait that is not answered yet."""

    worker: int
    request: int
    #: seq of the attempt whose main thread waits; 0: another thread
    seq: int
    #: distinct, in the order asked
    ids: tuple[bytes, ...]
    count: int
    values: bool
    deadline_s: float | None
    #: of ids, how many are ready
    ready: int = 0
    timed_out: bool = False
    #: name and text of an error to raise instead
    error: str = ""
    text: str = ""
    #: no longer waits for objects, only for its CPUs
    over: bool = False
    #: its worker was interrupted and will not look at the answer
    given_up: bool = False
    #: lends nothing, and its worker's main thread waits as well
    stuck: bool = False
    #: waits for no objects, but for the reader of this task's items, see `Want.reads`
    stream: bytes = b""
    reads: tuple[int, int] = (0, 0)


class Underway(NamedTuple):
    """A call that runs beside others, as it has been told of."""

    began_s: float
    #: how often it has said that it progresses, and when that was told last
    progress: int
    progressed_s: float
    #: how far it is; total -1: it did not say
    done: float
    total: float
    #: the thread that runs it, see BegunRow
    thread: int = 0
    ident: int = 0


class Hosted:
    """An actor in its worker, from the moment that its creation is sent."""

    __slots__ = (
        "attempt", "back", "begun", "concurrency", "exits", "hand", "in_threads", "leaves",
        "looked_s", "threads", "turns", "up", "waiting",
    )  # fmt: skip

    def __init__(self, attempt: Attempt) -> None:
        #: of its creation, first and only in its worker's flight
        self.attempt = attempt
        #: its constructor has returned
        self.up = False
        #: it is to end as soon as it has nothing to do: nobody needs it; this node is drained
        self.exits = self.leaves = False
        #: calls, in order; ARRIVING, CALLED, or GONE meanwhile
        self.waiting: deque[Attempt] = deque()
        #: calls sent to the worker and not ended, by seq, rising
        self.hand: dict[int, Attempt] = {}
        #: calls that came back from it while others may yet: they go before those that wait
        self.back: dict[int, Attempt] = {}
        #: it runs so many calls at once; 0: one after the other
        self.concurrency = 0
        self.in_threads = False
        #: what is known of calls that have run for a while beside others, by seq
        self.begun: dict[int, Underway] = {}
        #: of these, what is seen of the threads that run them
        self.threads: dict[int, ThreadWatch] = {}
        #: calls that could run and are not begun, by task: since when, as their limits count
        self.turns: dict[bytes, float] = {}
        #: when their limits were looked at last
        self.looked_s = 0.0


class Worker:
    """One process, from StartWorker to WorkerExited."""

    __slots__ = (
        "actor", "asked", "calls", "crew", "defined", "dropped", "exiting", "exiting_since_s",
        "flight", "ghosts", "gpus", "holds", "lent", "long", "main", "name", "nested", "number",
        "packets", "page_slot", "pid", "put_bytes", "reading", "ready", "revoked", "seq", "shape",
        "since_s", "started", "started_s", "taking", "unkillable", "until_s", "waits",
    )  # fmt: skip

    def __init__(self, number: int, page_slot: int, crew: Crew, now_s: float) -> None:
        self.number = number
        self.page_slot = page_slot
        self.crew = crew
        self.started_s = now_s
        self.pid = 0
        self.ready = False
        #: told to exit; gets no more work
        self.exiting = False
        self.exiting_since_s = 0.0
        #: killed because its client or the link's life ended: whatever it says is ignored
        self.dropped = False
        #: no signal reaches it: what it had is told of, its process is still there
        self.unkillable = False
        #: rows sent and not ended, by seq, rising
        self.flight: dict[int, Attempt] = {}
        #: last seq and expected duration of each packet in flight
        self.packets: deque[tuple[int, float]] = deque()
        self.seq = 0
        #: when all that is in flight should be done
        self.until_s = 0.0
        #: since when the first row in flight may be running; idle: since when it is
        self.since_s = 0.0
        #: what it runs is long or unknown: nothing waits behind it
        self.long = False
        #: the shape whose demand it holds
        self.shape: Shape | None = None
        self.gpus: tuple[int, ...] | None = None
        #: CPU units of its demand that are lent out
        self.lent = 0
        self.defined: set[int] = set()
        #: calls sent, of kinds with max_calls
        self.calls: dict[int, int] = {}
        #: objects whose refs live in it
        self.holds: dict[bytes, None] = {}
        #: its kind numbers -> ours towards the scheduler
        self.nested: dict[int, int] = {}
        #: so much of it was put, as `puts.counted` counts
        self.put_bytes = 0
        self.waits: dict[int, Waiter] = {}
        #: the wait of its main thread
        self.main: Waiter | None = None
        #: last seq seen as started in its page; -1: never looked
        self.started = -1
        #: answers to ReadPage and TakePackets outstanding
        self.reading = 0
        self.taking = 0
        #: what its page says: start nothing from here on
        self.revoked = 0
        #: seqs taken from it by the page that it has not returned yet
        self.ghosts: dict[int, None] = {}
        #: function that it ran last
        self.name = ""
        #: what it hosts, if it is for actors and has become one
        self.actor: Hosted | None = None
        #: that has said that it is asked how it is, and has not been seen at anything else
        self.asked = False

    @property
    def is_up(self) -> bool:
        """Whether it is an actor that takes calls."""
        return self.actor is not None and self.actor.up

    @property
    def is_busy(self) -> bool:
        """Whether it runs something, or is about to."""
        hosted = self.actor
        return bool(self.flight) and (hosted is None or not hosted.up or bool(hosted.hand))

    @property
    def is_watched(self) -> bool:
        """Whether it is to be looked at: it runs something, or is asked how it is."""
        return (self.asked or self.is_busy) and not self.dropped

    def sees(self, running: int, phase: int) -> bool:
        """Take in what its page says; return whether there is anything to be judged."""
        self.asked = self.asked and not running and phase == HEALTH_CHECK
        return self.is_watched

    def rows(self) -> dict[int, Attempt]:
        """Return what it runs in order: the calls of an actor, or what it was sent."""
        hosted = self.actor
        return self.flight if hosted is None or not hosted.up else hosted.hand

    def about(self, seq: int) -> Attempt | None:
        """Return what is watched under this seq; 0: the actor itself, which is asked how it is."""
        if seq or not self.asked or self.actor is None:
            return self.rows().get(seq)
        return self.actor.attempt if self.flight else None

    def is_next(self, attempt: Attempt) -> bool:
        """Return whether an attempt in its hands is what it runs, or will run next."""
        if attempt.kind.actor and self.actor is not None and self.actor.concurrency:
            return attempt.seq <= self.started
        rows = self.rows() if attempt.kind.actor else self.flight
        return next(iter(rows), 0) == attempt.seq

    def has(self, seq: int) -> Attempt | None:
        """Return what was sent under this seq and has not ended."""
        attempt = self.flight.get(seq)
        if attempt is None and self.actor is not None:
            attempt = self.actor.hand.get(seq)
        return attempt
