"""What the scheduler remembers of one task, and the one table of what may become of it.

Never decides anything: records, their states, and the arithmetic of retries. One record stands
for one task from its submission to its outcome, so each field is paid for a million times.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from ..protocol.attempt_text import attempt_text
from ..protocol.ids import PeerId, TaskId, show
from ..protocol.labels import show_asked
from ..protocol.limits import NO_LIMITS
from ..protocol.messages import (
    CAUSES_MAX,
    Failure,
    Options,
    Outcome,
    StopMode,
    TaskRow,
    ValueRow,
)
from ..protocol.resources import UNITS, units

if TYPE_CHECKING:
    from ..protocol.actors import ActorOptions
    from .hosts import Actor
    from .state import Node, Peer

# States: plain integers, since an enum's member costs a lookup on the hot path.
WAITING: Final = 0  # for values of other tasks, or for arguments still on their way
QUEUED: Final = 1  # ready, at the scheduler
ASSIGNED: Final = 2  # at a node
DELIVERING: Final = 3  # ended; its large values are still on their way from the node
BACKOFF: Final = 4  # to be tried again, later
FINISHED: Final = 5  # its outcome is told; forgotten

STATE_NAMES: Final = ("waiting", "queued", "assigned", "delivering", "backoff", "finished")

# Steps.
READY: Final = 0  # all it waits for is there
ASSIGN: Final = 1  # given to a node
DELIVER: Final = 2  # the node reported the end, the values follow
RETURN: Final = 3  # the node gave it back unstarted
RETRY: Final = 4  # this attempt is lost and charged, another one is allowed
END: Final = 5  # it has its outcome
CLAIM: Final = 6  # it is at a node that has it over from an earlier life of the scheduler
LACK: Final = 7  # back from there or queued, but what it needs, or needs to be known, is missing

_NO: Final = -1

#: TaskRecord.assigned_s: not at all in this life of the scheduler
NOT_YET: Final = -1.0
#: in an earlier one, and still at that node
FROM_BEFORE: Final = -2.0

#: NEXT[state][step] is the state after; -1: cannot happen
NEXT: Final = (
    # READY ASSIGN DELIVER RETURN RETRY END CLAIM LACK
    (QUEUED, _NO, _NO, _NO, BACKOFF, FINISHED, ASSIGNED, _NO),  # WAITING
    (_NO, ASSIGNED, _NO, _NO, _NO, FINISHED, ASSIGNED, WAITING),  # QUEUED
    (_NO, _NO, DELIVERING, QUEUED, BACKOFF, FINISHED, ASSIGNED, WAITING),  # ASSIGNED
    (_NO, _NO, _NO, _NO, BACKOFF, FINISHED, _NO, WAITING),  # DELIVERING
    (QUEUED, _NO, _NO, _NO, _NO, FINISHED, ASSIGNED, WAITING),  # BACKOFF
    (_NO, _NO, _NO, _NO, _NO, _NO, _NO, _NO),  # FINISHED
)


class Shape:
    """What decides where tasks can go: those of one shape stand in one queue.

    Interned, so compared by identity. The client is part of it: what one client's tasks wait
    for is told to that client.
    """

    __slots__ = (
        "client",
        "cpu",
        "creates",
        "feasible",
        "feasible_version",
        "kinds",
        "labels",
        "node",
        "noticed",
        "others",
        "serial",
        "simple",
        "spread",
        "starved_since_s",
        "wait_for_nodes",
    )

    def __init__(self, serial: int, client: PeerId, options: Options) -> None:
        self.serial = serial
        self.client = client
        asked: dict[str, int] = {}
        for name, amount in (
            ("CPU", options.num_cpus), ("GPU", options.num_gpus), *options.resources
        ):  # fmt: skip
            asked[name] = asked.get(name, 0) + units(amount)
        self.cpu = asked.pop("CPU")
        self.others = tuple((name, amount) for name, amount in asked.items() if amount)
        self.node = options.node
        self.labels = options.node_labels
        self.spread = options.spread
        self.wait_for_nodes = options.wait_for_nodes
        #: its tasks are actors, which stay for life
        self.creates = options.creates is not None
        #: nothing but CPUs, anywhere
        self.simple = not (self.others or self.node or self.labels or self.spread or self.creates)
        #: how many kinds have it
        self.kinds = 0
        self.feasible = False
        self.feasible_version = -1
        #: since when no node could run it though tasks wait; None: some could
        self.starved_since_s: float | None = None
        self.noticed = False

    def describe(self) -> str:
        """Return what it asks for, as people say it."""
        parts = [f"CPU {self.cpu / UNITS:g}"] if self.cpu else []
        parts += [f"{name} {amount / UNITS:g}" for name, amount in self.others]
        if self.node:
            parts.append(f"node {self.node!r}")
        if self.labels:
            parts.append(f"a node with {show_asked(self.labels)}")
        return ", ".join(parts) or "nothing"


class Function:
    """The pickled code of a function, kept once for each client that uses it."""

    __slots__ = ("client", "hash", "kinds", "payload", "size", "waiting")

    def __init__(self, client: PeerId, hash_: bytes) -> None:
        self.client = client
        self.hash = hash_
        #: None while it is still on its way
        self.payload: bytes | None = None
        self.size = 0
        #: how many kinds use it
        self.kinds = 0
        #: called once the payload is there: no node is told of a function before it is whole
        self.waiting: list[Callable[[], None]] = []


class Kind:
    """A function with its options, known by one number for as long as it is used."""

    __slots__ = (
        "average_s",
        "client",
        "creates",
        "function",
        "host",
        "is_plain",
        "is_special",
        "is_timed",
        "limits",
        "name",
        "number",
        "options",
        "priority",
        "ramp",
        "shape",
        "uses",
    )

    def __init__(
        self, number: int, name: str, options: Options, function: Function, shape: Shape
    ) -> None:
        self.number = number
        self.name = name
        self.options = options
        self.function = function
        self.shape = shape
        self.client = function.client
        self.priority = options.priority
        #: moving average of what an execution takes; -1: none has ended yet
        self.average_s = -1.0
        #: tasks that may queue at a node for each slot, doubling while they are quick
        self.ramp = 1
        #: numbers given to it by peers, and tasks
        self.uses = 0
        #: its tasks create actors
        self.creates: ActorOptions | None = options.creates
        #: its tasks are calls of this actor
        self.host: Actor | None = None
        #: one of the two
        self.is_special = options.creates is not None or options.actor != b""
        self.limits = options.limits or NO_LIMITS
        #: the scheduler has a limit of theirs to watch; how long an actor lives has none
        self.is_timed = options.creates is None and bool(
            self.limits.queue_timeout_s or self.limits.total_timeout_s
        )
        #: its tasks end with one value, and with them nothing else does
        self.is_plain = options.num_returns == 1 and options.creates is None


class TaskRecord(Struct, gc=False, eq=False):
    """One task, from its submission to its outcome."""

    row: TaskRow
    kind: Kind
    #: the peer that submitted it
    owner: "Peer"
    #: the task whose code submitted it; empty from a client
    parent: TaskId
    depth: int
    #: running number of the submission
    order: int
    submitted_s: float
    state: int = WAITING
    #: number of the current or next attempt: attempts charged + 1
    attempt: int = 1
    #: attempts that ended together with their worker
    deaths: int = 0
    #: how many values it still waits for
    unmet: int = 0
    node: "Node | None" = None
    #: what it is counted for in its node's work
    expected_s: float = 0.0
    #: when it was last given to a node; NOT_YET, FROM_BEFORE
    assigned_s: float = NOT_YET
    #: it waits in get() and lends its CPUs
    blocked: bool = False
    #: cancelled while at a node: its end is awaited
    stopping: bool = False
    #: cancelled without what it has submitted, which goes on
    spares_children: bool = False
    #: DELIVERING: its values as the node named them
    values: tuple[ValueRow, ...] = ()

    @property
    def id(self) -> TaskId:
        """The task's id."""
        return TaskId(self.row.id)

    @property
    def which(self) -> str:
        """Which attempt of how many the current or next one is, in words."""
        return attempt_text(self.attempt, self.kind.options.max_retries)


class Condemned(NamedTuple):
    """What a cancelled task ends as, should no node that comes back have it."""

    rows: list[ValueRow]
    force: bool


def move(record: TaskRecord, step: int) -> None:
    """Take a step of the table; a step that is not in it is a bug of ours."""
    state = NEXT[record.state][step]
    if state < 0:
        raise AssertionError(
            f"task {show(record.row.id)} cannot take step {step} when {STATE_NAMES[record.state]}"
        )
    record.state = state


def stop_mode(kind: Kind, force: bool) -> StopMode:
    """Return how an attempt is stopped where it is."""
    if kind.is_special:
        # An actor that is idle notices nothing gentle; its calls never take it along.
        force = kind.creates is not None
    return StopMode.FORCE if force else StopMode.SOFT


def backoff_s(options: Options, charged: int, limit_s: float, chance: float) -> float:
    """Return the pause before the next attempt.

    Args:
        options: the task's.
        charged: attempts charged so far, at least 1.
        limit_s: the longest pause.
        chance: drawn evenly from 0 to 1; takes up to half of the pause away, so that
            what failed together does not come back together.
    """
    pause_s: float = min(options.retry_backoff_s * 2.0 ** min(charged - 1, 60), limit_s)
    return pause_s * (1.0 - chance / 2.0)


def failed(
    record: TaskRecord, error: str, text: str, *, node: str = "", deaths: int | None = None
) -> ValueRow:
    """Return the one row of a task that the system could not give a value for."""
    details: dict[str, str | int | float | None] = {
        "name": record.kind.name,
        "task": show(record.row.id),
        "node": node,
        "attempt": record.attempt if node else record.attempt - 1,
    }
    if deaths is not None:
        details["deaths"] = deaths
    return ValueRow(
        id=record.row.id,
        outcome=Outcome.FAILURE,
        failure=Failure(error=error, text=text, details=details),
    )


#: failures of attempts that were cut short: what they had submitted is cancelled
CUT_SHORT: Final = frozenset(
    {"TaskCancelled", "TaskTimedOut", "TaskHung", "WorkerDied", "WorkerOutOfMemory", "NodeLost",
     "PoisonTask", "ActorDied", "ActorCallLost", "ActorUnhealthy"}
)  # fmt: skip


def poisoned(record: TaskRecord, last: ValueRow) -> ValueRow:
    """Return the row of a task that has taken too many workers along."""
    why = "" if last.failure is None else f"; the last one: {last.failure.text}"
    text = (
        f"{record.deaths} attempts of {record.kind.name} ended with their worker, so it seems to "
        f"be the task that ends it (memory, os._exit, a fault in native code?){why}"
    )
    row = failed(record, "PoisonTask", text, deaths=record.deaths)
    if row.failure is not None and last.failure is not None:
        row.failure.details = {**last.failure.details, **row.failure.details}
    return row


def lost(id_: bytes, text: str, **details: str) -> ValueRow:
    """Return the row of an object that is gone."""
    failure = Failure(error="ObjectLost", text=text, details={"object": show(id_), **details})
    return ValueRow(id=id_, outcome=Outcome.FAILURE, failure=failure)


def dependency_failed(record: TaskRecord, dependency: ValueRow) -> ValueRow:
    """Return the row of a task that needed a value that failed.

    In a chain of such failures each names the first, so that no row grows along the chain.
    """
    cause = dependency.failure
    payload: bytes | None = None
    contained: tuple[bytes, ...] = ()
    if dependency.outcome == Outcome.ERROR or (
        cause is not None and cause.error == "DependencyFailed"
    ):
        cause = None if cause is None else cause.cause
        payload, contained = dependency.payload, dependency.contained
    text = f"{record.kind.name} needs the value of {show(dependency.id)}, which failed"
    if cause is not None and cause.text and not payload:
        text = f"{text}: {cause.text.splitlines()[0]}"
    else:
        text = f"{text}: see the cause"
    row = failed(record, "DependencyFailed", text)
    assert row.failure is not None
    row.failure.cause = as_cause(cause)
    row.payload, row.contained = payload, contained
    return row


def as_cause(failure: Failure | None) -> Failure | None:
    """Return a failure as the cause of another one, without what lies too deep in it.

    Calls of actors that cannot begin for the end of other actors name one cause more each, and
    nobody takes a message with more than so many within each other.
    """
    chain: list[Failure] = []
    one = failure
    while one is not None and len(chain) < CAUSES_MAX:
        chain.append(one)
        one = one.cause
    if one is None:
        return failure
    cause: Failure | None = None
    for one in reversed(chain):
        cause = Failure(one.error, one.text, one.details, cause)
    return cause
