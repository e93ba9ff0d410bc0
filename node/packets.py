"""Every word between a node daemon and its workers; they never leave the machine.

MessagePack arrays like those of protocol.messages; one packet is one message. A packet that is too
long for the socket travels in a memory file whose descriptor the packet carries (node/channel.py).
"""

from typing import Any

from msgspec import field

from ..protocol.actors import ActorName
from ..protocol.forms import (
    Count,
    HashBytes,
    Message,
    ObjectBytes,
    ParentBytes,
    Row,
    Seconds,
    TaskBytes,
)
from ..protocol.messages import Details, Environment, Options, TaskRow, ValueRow
from ..protocol.running import Progress

# ------------------------------------------------------------------------------ daemon -> worker


class KindDefinition(Row):
    """A kind that the worker has not seen: numbers are the node's own."""

    number: int
    name: str
    #: the pickled (function, retry_exceptions)
    payload: bytes
    num_returns: int
    max_retries: int
    #: it makes the actor that the worker is for from then on
    creates: bool = False
    #: so many calls of that may run at once; 0: what its class says, see `ActorMade`
    concurrency: int = 0
    #: it tells its state after so many calls, and so many seconds after it did last; 0: never
    checkpoint_every_calls: int = 0
    checkpoint_interval_s: float = 0.0
    #: it is asked whether it is well so long after it was last, if it can say; 0: never
    health_check_interval_s: float = 0.0
    #: it yields its values: so many ahead of whoever reads them; 0: it does not
    stream: int = 0


class Setup(Message, tag="setup"):
    """First packet: who you are. Applied before any task."""

    #: the worker's number at this node and its ids' ordinal; never its slot in the pulse page,
    #: which goes with the fork
    worker: int
    peer: bytes
    client: bytes
    node: str
    environment: Environment
    #: True: the client sees the same files; take its sys_path and directory
    same_machine: bool
    env_vars: tuple[tuple[str, str], ...]
    working_dir: str
    num_cpus: float
    #: settings.value_bytes_max: larger results are errors of their task
    value_bytes_max: int
    #: settings.inline_bytes_max: larger checkpoints are waited for
    inline_bytes_max: int = 64 << 10
    #: settings.segment_bytes_min: larger buffers of results go by file; 0: none do
    segment_bytes_min: int = 0
    #: the word of the node's machine, see protocol.machine.identity
    machine: str = ""


class RunRow(Row):
    """One attempt for this worker; `seq` rises by one from 1 over the worker's life."""

    seq: int
    id: bytes
    attempt: int
    kind: int
    depth: int
    args: bytes | None
    values: tuple[ValueRow, ...]
    #: GPU indexes for CUDA_VISIBLE_DEVICES; None: the task asks for none
    gpus: tuple[int, ...] | None = None
    #: what an earlier attempt told last with progress(), pickled; None: nothing
    details: bytes | None = None
    #: of a creation: the state that the actor is to have; None: it is made by its class
    checkpoint: bytes | None = None


class Run(Message, tag="run"):
    """Run these in order; calls of an actor once it is made."""

    definitions: list[KindDefinition]
    rows: list[RunRow]


class Answered(Message, tag="answered"):
    """The answer to the worker's request of that number.

    For Want: `rows` are those ready (a get that fails early holds the failed one last; none when
    it was given up).
    For Ask, CancelQueued and a Want with `reads`: `data`.
    """

    request: int
    rows: list[ValueRow] = field(default_factory=list)
    timed_out: bool = False
    data: Any = None
    #: name of an error class to raise instead, with its text; ResourceDeadlock without a text: ask
    #: anew, and say whether the main thread waits
    error: str = ""
    text: str = ""


class Exit(Message, tag="exit"):
    """Exit when the packets before this are done. The row of an actor's creation ends with that."""


class StopCalls(Message, tag="stop_calls"):
    """Interrupt these calls, each for its reason, of an actor that runs several at once."""

    rows: list[tuple[Count, str]]


class TellCalls(Message, tag="tell_calls"):
    """Tell where the calls are that run; answered by CallsTold of that number."""

    number: Count


class CheckpointKept(Message, tag="checkpoint_kept"):
    """The large checkpoint of that number is where it is safe: another one may be sent."""

    number: Count


ToWorker = Setup | Run | Answered | Exit | StopCalls | TellCalls | CheckpointKept

# ------------------------------------------------------------------------------ worker -> daemon


class Ready(Message, tag="ready"):
    """The worker has applied Setup; `error`: it could not (a bad working_dir), and exits."""

    pid: int
    error: str = ""
    #: what every client should read: modules that could not be preloaded here
    notices: list[str] = field(default_factory=list)


class FinishedRow(Row):
    """One attempt's end; see messages.DoneRow."""

    seq: Count
    values: tuple[ValueRow, ...]
    duration_s: Seconds
    retry: bool = False


class ActorMade(Message, tag="actor_made"):
    """The constructor of the actor that this worker is for has returned; its row does not end."""

    #: of the row of its creation
    seq: Count
    #: as in Finished
    held: list[ObjectBytes] = field(default_factory=list)
    #: it runs so many calls at once, and ends them in any order; 0: one after the other
    concurrency: Count = 0
    #: in threads; else on one event loop, where a call that does not run awaits something
    in_threads: bool = False


class BegunRow(Row):
    """A call that runs beside others."""

    seq: Count
    #: since it started
    elapsed_s: Seconds
    #: how often it has said that it progresses, and how far it is; total -1: it did not say
    progress: Count = 0
    done: Progress = 0.0
    total: Progress = -1.0
    #: the thread that runs it, as the kernel and as the interpreter call it; 0: an event loop does
    thread: Count = 0
    ident: Count = 0


class Begun(Message, tag="begun"):
    """Calls that have run for a while beside others; each is told of once, and as it progresses."""

    rows: list[BegunRow]


class CallsTold(Message, tag="calls_told"):
    """Where calls are: text in the form that `faulthandler` writes."""

    number: Count
    text: str


class Progressed(Message, tag="progressed"):
    """What a running row told with progress(), pickled: the last one, and before its result."""

    seq: Count
    details: Details


class Checkpointed(Message, tag="checkpointed"):
    """The pickled state of the actor that lives here, before the result of the call after which.

    After one that does not ride in its row on the wire the next waits for CheckpointKept.
    """

    #: rises by one from 1
    number: Count
    payload: bytes


class Health(Message, tag="health"):
    """The actor that lives here is asked whether it is well; `fault`: it is not, and ends."""

    #: what its `__health__` did
    fault: str = ""
    #: the traceback of what that raised
    text: str = ""


class Item(Message, tag="item"):
    """What a row has yielded: a value whose id is the task's with the item's index."""

    seq: Count
    value: ValueRow


class ItemsRead(Message, tag="items_read"):
    """Of what a task yields that was submitted here so many were read; `over`: no more will be.

    The first so many items have a ref in this process each, as what is submitted has.
    """

    task: TaskBytes
    count: Count
    over: bool


class Finished(Message, tag="finished"):
    """Ended attempts, in order. `held`: refs that now live in this process and did not before."""

    rows: list[FinishedRow]
    held: list[ObjectBytes] = field(default_factory=list)


class Returned(Message, tag="returned"):
    """All rows from this seq on (of those received) have not been started and will not be."""

    seqs: list[Count]


class Submitted(Message, tag="submitted"):
    """Calls made by the running task. Kind numbers are the worker's own, defined before use."""

    #: the submitting task
    parent: ParentBytes
    #: of the calls: one more than the submitting task's own
    depth: Count
    kinds: list["NestedKind"]
    rows: list[TaskRow]
    #: puts: rows with outcome VALUE
    puts: list[ValueRow] = field(default_factory=list)


class NestedKind(Row):
    """A kind as a worker defines it to its node."""

    number: Count
    function: HashBytes
    name: str
    options: Options
    payload: bytes | None


class Want(Message, tag="want"):
    """The main thread waits; `rest` has been returned before. Lends the task's CPUs meanwhile.

    `count` rows that are ready end it (a get: all, or the first that is no VALUE).
    """

    request: int
    seq: Count
    ids: list[ObjectBytes]
    count: Count
    timeout_s: float | None
    #: True: get, send the rows' payloads and end at the first failure. False: wait, ids only.
    values: bool
    #: False: from another thread of the user's; lends nothing
    lends: bool = True
    #: one that lends nothing, asked anew: the main thread waits as well
    stuck: bool = False
    #: no objects: until so many items of the row's were received, and so many read; answered with
    #: data, both numbers
    reads: tuple[Count, Count] | None = None


class WantOver(Message, tag="want_over"):
    """The main thread was interrupted and gives up its Want of that number.

    It goes on when that request is answered, which is once its CPUs are its own again.
    """

    request: int


class Refs(Message, tag="refs"):
    """Refs that came to life in this process for the first time, and that went for good."""

    held: list[ObjectBytes]
    dropped: list[ObjectBytes]


class CancelTasks(Message, tag="cancel_tasks"):
    """The running task cancels others."""

    ids: list[TaskBytes]
    force: bool
    recursive: bool
    #: not 0: answered with data = list of bools
    request: int = 0
    #: actors are killed as if they had died
    restart: bool = False


class Ask(Message, tag="ask"):
    """A query to the scheduler; answered with data."""

    #: 0, of one that lets a name go: nobody waits for an answer
    request: int
    what: str
    limit: Count
    match: str
    #: name: of an actor
    named: ActorName | None = None


ToDaemon = (
    Ready | ActorMade | Begun | CallsTold | Progressed | Finished | Returned | Submitted | Want
    | WantOver | Refs | CancelTasks | Ask | Checkpointed | Health | Item | ItemsRead
)  # fmt: skip
