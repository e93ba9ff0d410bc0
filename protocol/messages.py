"""What clients, scheduler and nodes say to each other; docs/protocol.md explains it.

Messages are plain MessagePack arrays: a tag, then the fields in order. Rows are arrays without a
tag; a message carries as many rows as were ready. Fields are only ever appended, with a default.

A payload (pickled bytes) of at most `inline_bytes_max` rides in its row. A larger one leaves the
row's payload empty (None), states its `size`, and follows in chunks on the peer's second link under
the row's blob key (protocol/frames.py).

Nothing here may hold behaviour, and nothing here is ever a pickle to be opened by scheduler or
node.
"""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from .actors import ActorOptions, ActorsGone, ActorsUp
from .cancels import Cancel as Cancel
from .cancels import Cancelled as Cancelled
from .cancels import Stop as Stop
from .cancels import StopMode as StopMode
from .checkpoints import Checkpoint, CheckpointsGone, CheckpointsKept
from .drain import Drain, Draining, DrainNode, Emptied, Farewell
from .forms import (
    SECONDS_MAX,
    Amount,
    Count,
    HashBytes,
    Message,
    ObjectBytes,
    ParentBytes,
    PeerBytes,
    Row,
    Seconds,
    TaskBytes,
)
from .labels import AskedLabels, Labels
from .limits import Details as Details
from .limits import Limits as Limits
from .questions import Answer as Answer
from .questions import Query as Query
from .recovery import HandedOver, Holding, Inventory, Recovered, Registered, Report
from .running import RunningRow, Stack, Stacks
from .standstill import Deadlock, Look, Looked
from .stock import Stock as Stock
from .stock import TakeStock as TakeStock
from .yields import HowFar, ItemsTaken, Yielded

# -------------------------------------------------------------------------------------- definitions


class Options(Struct, array_like=True, gc=False, frozen=True):
    """How a task is run: what scheduler and node must know of it. Hashable."""

    num_cpus: Amount = 1.0
    num_gpus: Amount = 0.0
    #: sorted (name, amount) pairs
    resources: tuple[tuple[str, Amount], ...] = ()
    num_returns: Annotated[int, Meta(ge=0, le=65_536)] = 1
    max_retries: Count = 3
    #: the worker holds the types and judges; here only: is there anything to judge
    retry_exceptions: bool = False
    retry_backoff_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 0.1
    wait_for_nodes: bool = False
    priority: int = 0
    #: name or hexadecimal id of the only node that may run it; "" for any
    node: str = ""
    spread: bool = False
    max_calls: Count = 0
    #: sorted (name, value) pairs
    env_vars: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    #: workers of different pools are never shared (an Executor with an initializer is one)
    pool: str = ""
    #: labels that a node must carry to run it
    node_labels: AskedLabels = ()
    #: the task is the creation of an actor: it ends when that does
    creates: ActorOptions | None = None
    #: the task is a call of this actor, named by its creation; empty: it is not
    actor: ParentBytes = b""
    #: None: it has none
    limits: Limits | None = None
    #: it yields its values (num_returns is 0), so many ahead of whoever reads them; 0: it does not
    stream_buffer_max: Annotated[int, Meta(ge=0, le=65_535)] = 0


class KindRow(Row):
    """A function together with its options, and the number that stands for both on this link."""

    number: Count
    #: BLAKE2b-16 of the function's payload
    function: HashBytes
    #: for people: `resize`
    name: str
    options: Options
    #: the pickled function; None with size 0: sent earlier in this link life
    payload: bytes | None = None
    size: Count = 0


class Define(Message, tag="define"):
    """Client or node -> scheduler: kinds that later rows will name by number."""

    #: the client whose code it is
    client: PeerBytes
    rows: list[KindRow]


class Forget(Message, tag="forget"):
    """Client or node -> scheduler: kinds that this peer will not use again in this link life."""

    kinds: list[int]


class Environment(Row):
    """What a client's workers need to find its code."""

    #: name of the host where the client runs, for people
    host: str = ""
    directory: str = ""
    sys_path: tuple[str, ...] = ()
    pid: int = 0
    python: str = ""
    #: whose files it sees: its workers take sys_path and directory only where it is the same
    machine: str = ""
    #: where the names of its actors are looked up
    namespace: str = ""


class Enter(Message, tag="enter"):
    """Client -> scheduler, first in a new link life."""

    name: str
    environment: Environment
    #: the last epoch of the scheduler in which it knew what became of all that it had submitted
    settled: Count = 0


class Leave(Message, tag="leave"):
    """Client or node -> scheduler: I am going; cancel what is mine and forget me."""


# ------------------------------------------------------------------------------------ tasks, values

#: a failure names the first cause of a chain, not all of it
CAUSES_MAX = 8


class Failure(Row):
    """Why the system could not give a value: becomes the error class of that name."""

    #: name of a class in protocol.errors
    error: str
    text: str
    #: that class's attributes
    details: dict[str, str | int | float | bool | None] = {}  # noqa: RUF012  # msgspec copies it
    #: DependencyFailed: why the dependency failed, when that was a failure too
    cause: "Failure | None" = None

    def __post_init__(self) -> None:
        """Refuse at decode what is nested deeper than any cause is: it could not be passed on."""
        cause, depth = self.cause, 0
        while cause is not None:
            cause, depth = cause.cause, depth + 1
            if depth > CAUSES_MAX:
                raise ValueError(f"more than {CAUSES_MAX} causes within each other")


class Outcome(IntEnum):
    """What became of a task."""

    #: payload is the pickled value
    VALUE = 0
    #: payload is a pickled error report: the user's code raised
    ERROR = 1
    #: failure says why; for DependencyFailed a payload may hold the dependency's error report
    FAILURE = 2


class ValueRow(Row):
    """An object's value, or why there is none. Blob key: id."""

    id: ObjectBytes
    outcome: Annotated[int, Meta(ge=0, le=2)]
    payload: bytes | None = None
    size: Count = 0
    #: objects whose refs lie inside the payload
    contained: tuple[ObjectBytes, ...] = ()
    failure: Failure | None = None


class TaskRow(Row):
    """One call. Blob key of the arguments: id + b"a"."""

    id: TaskBytes
    kind: Count
    #: pickled (args, kwargs) with a placeholder for each dependency; None and size 0: no arguments
    args: bytes | None = None
    size: Count = 0
    #: objects to be passed by value, in the order of their placeholders, no duplicates
    deps: tuple[ObjectBytes, ...] = ()
    #: objects whose refs lie inside args
    contained: tuple[ObjectBytes, ...] = ()
    #: values of deps that the submitter has at hand and that are small
    values: tuple[ValueRow, ...] = ()


class Submit(Message, tag="submit"):
    """Client or node -> scheduler: new tasks. An id that is already known is a no-op."""

    client: PeerBytes
    #: the task whose code submitted these; empty from a client
    parent: ParentBytes
    #: 0 from a client, parent's + 1 from a worker
    depth: Count
    rows: list[TaskRow]
    #: empty: all are new. Else one for each row: 0, it is new; n, it was submitted to an earlier
    #: life of the scheduler, and its n-th attempt is the last that its submitter was told of
    attempts: list[Count] = []  # noqa: RUF012  # msgspec copies it


class Results(Message, tag="results"):
    """Scheduler -> submitter: final outcomes (a failure, or no value at all: id of the task)."""

    rows: list[ValueRow]


class Retried(Message, tag="retried"):
    """Scheduler -> submitter: attempts were charged; with each task the number of its next one.

    It leaves before that attempt does, so the submitter knows what may have started.
    """

    rows: list[tuple[TaskBytes, Count]]


class Values(Message, tag="values"):
    """Home -> scheduler -> whoever fetched: values of objects."""

    rows: list[ValueRow]


class Fetch(Message, tag="fetch"):
    """Client or node -> scheduler: send me these objects' values when there are any."""

    ids: list[ObjectBytes]


class Wanted(Message, tag="wanted"):
    """Scheduler -> home: send me these objects' values (Values) as soon as you have them."""

    ids: list[ObjectBytes]


# ------------------------------------------------------------------------------------------ holders


class Shared(Message, tag="shared"):
    """Scheduler -> home: others hold these now; keep them though you hold none yourself."""

    ids: list[ObjectBytes]


class Unshared(Message, tag="unshared"):
    """Scheduler -> home: nobody else holds these any more."""

    ids: list[ObjectBytes]


class Release(Message, tag="release"):
    """Holder -> scheduler: I hold these no more; with each the number of deliveries it had."""

    rows: list[tuple[ObjectBytes, Count]]


# -------------------------------------------------------------------------------------------- nodes


class Join(Message, tag="join"):
    """Node -> scheduler, first in a new link life."""

    #: "lab3": stays the same over the lives of the daemon
    name: str
    host: str
    pid: int
    #: "CPU", "GPU" and custom resources -> amount
    resources: dict[str, Amount]
    labels: Labels = {}  # noqa: RUF012  # msgspec copies it
    #: it starts nothing any more: it was being drained when it came back
    draining: bool = False
    #: as in Enter, of what its workers submitted
    settled: Count = 0
    #: its keeper, of which there is but one: it ends all of a daemon's workers before it starts the
    #: next
    keeper: str = ""


class Beat(Message, tag="beat"):
    """Node -> scheduler, each interval."""

    #: how late the daemon's loop has been at worst since the last beat
    lag_s: Seconds
    workers: Count
    blocked: Count
    #: at most RUNNING_ROWS_MAX, those that have run longest
    running: list[RunningRow]
    memory_bytes: Count = 0
    #: whether nothing moves there (see `Looked`)
    still: bool = False
    #: how busy its machine's processors were since the last beat, from 0 to 1; -1: unknown
    cpu: Annotated[float, Meta(ge=-1, le=1)] = -1.0


class EnvironmentRow(Row):
    """A client and its environment."""

    client: PeerBytes
    environment: Environment


class NodeKindRow(Row):
    """A kind as a node knows it; numbers belong to the link between scheduler and node."""

    number: Count
    client: PeerBytes
    function: HashBytes
    name: str
    options: Options
    #: None with size 0: this function was sent earlier in this link life
    payload: bytes | None = None
    size: Count = 0


class Prepare(Message, tag="prepare"):
    """Scheduler -> node: clients and kinds that later rows will name. Blob key: function."""

    clients: list[EnvironmentRow]
    kinds: list[NodeKindRow]


class Discard(Message, tag="discard"):
    """Scheduler -> node: kinds that are not used any more; clients that have left (kill theirs)."""

    kinds: list[int]
    clients: list[PeerBytes]


class AssignRow(Row):
    """One attempt to run. Blob key of the arguments: id + b"a"; of a value: its id."""

    id: TaskBytes
    attempt: Count
    kind: Count
    #: the scheduler's running number: the node's queue has the order (-priority, -depth, order)
    order: Count
    depth: Count
    #: expected duration, or -1: unknown
    expected_s: Seconds
    args: bytes | None = None
    size: Count = 0
    contained: tuple[ObjectBytes, ...] = ()
    #: one for each dependency, in the order of the placeholders
    values: tuple[ValueRow, ...] = ()
    #: what an earlier attempt told last with progress(), pickled; None: nothing
    details: Details | None = None
    #: an actor is made of this state; None with size 0: by its class. Blob key: id + b"c"
    checkpoint: bytes | None = None
    checkpoint_size: Count = 0


class Assign(Message, tag="assign"):
    """Scheduler -> node: run these, as your resources allow."""

    rows: list[AssignRow]


class DoneRow(Row):
    """What became of one attempt. Blob key: id + index of the value, see `values`."""

    id: TaskBytes
    attempt: Count
    #: one for each of num_returns (none for 0); or just one with the task's id: ERROR or FAILURE
    values: tuple[ValueRow, ...]
    #: start to end in the worker; -1: it never started
    duration_s: Seconds
    #: an ERROR that the task's retry_exceptions asks to be tried again
    retry: bool = False
    #: it ended with its worker's death, or its result did
    died: bool = False
    #: died: it had come to its end before, and another attempt ran when the worker died
    bystander: bool = False
    #: no value and no error: what it told last with progress(), pickled, for the next attempt
    details: Details | None = None


class Done(Message, tag="done"):
    """Node -> scheduler: ended attempts. The node keeps the rows until `HandedOver`."""

    rows: list[DoneRow]
    #: counts the Done messages of this link life, from 1
    number: Count = 0


class Blocked(Message, tag="blocked"):
    """Node -> scheduler: attempts that wait in get() and lend their CPUs (True), or took them."""

    rows: list[tuple[TaskBytes, Count, bool]]


class TakeBack(Message, tag="take_back"):
    """Scheduler -> node: give back up to so many attempts that have not started, the last first."""

    count: Count


class TakenBack(Message, tag="taken_back"):
    """Node -> scheduler: these will not start here. Always answers a TakeBack, if need be empty."""

    rows: list[tuple[TaskBytes, Count]]


class OutputRow(Row):
    """Text that a worker wrote to stdout or stderr."""

    name: str
    pid: int
    node: str
    text: bytes
    #: bytes that were cut off before this text
    dropped: Count = 0
    #: 1: stdout, 2: stderr
    stream: int = 1


class Output(Message, tag="output"):
    """Node -> scheduler -> client: what the client's workers printed."""

    client: PeerBytes
    rows: list[OutputRow]


# ----------------------------------------------------------------------------------- what users see


class Shape(Row):
    """What one node could give to a task if it were idle."""

    name: str
    id: PeerBytes
    resources: dict[str, Amount]
    labels: Labels = {}  # noqa: RUF012  # msgspec copies it


class Shapes(Message, tag="shapes"):
    """Scheduler -> client: the nodes there are, whenever that changes."""

    rows: list[Shape]


class Notice(Message, tag="notice"):
    """Scheduler -> client: something the user should read."""

    text: str


class Credit(Message, tag="credit"):
    """Scheduler -> client, after Enter: so much it may have unfinished; more waits with it.

    It may submit a task while it has fewer tasks than that, and fewer bytes of arguments.
    """

    tasks: Count
    bytes: Count


#: what a client may have unfinished before it is told its credit
FIRST_CREDIT = Credit(10_000, 8 << 20)


ToScheduler = (
    Define | Forget | Enter | Leave | Submit | Cancel | Values | Fetch | Release | Join | Beat
    | Done | Blocked | TakenBack | Output | Query | Holding | Registered | Inventory | Looked
    | Drain | Draining | Emptied | Stacks | ActorsUp | ActorsGone | Checkpoint | Stock
    | Yielded | ItemsTaken | HowFar
)  # fmt: skip
ToClient = (
    Results | Retried | Cancelled | Values | Wanted | Shared | Unshared | Output | Shapes | Notice
    | Answer | Recovered | Credit | TakeStock | HowFar
)  # fmt: skip
ToNode = (
    Prepare | Discard | Assign | Stop | TakeBack | Results | Retried | Cancelled | Values
    | Wanted | Shared | Unshared | Answer | Recovered | HandedOver | Report | Look | Deadlock
    | DrainNode | Farewell | Stack | CheckpointsKept | CheckpointsGone | TakeStock | ItemsTaken
    | HowFar
)  # fmt: skip
AnyMessage = ToScheduler | ToClient | ToNode
