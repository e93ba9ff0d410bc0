"""What the node core may be told, and what it may ask for.

Never behaviour. Columnar: one object a peer and loop turn, holding rows.
"""

from msgspec import Struct, field

from ..protocol.ids import ObjectId, PeerId
from ..protocol.messages import AnyMessage, Environment, ValueRow
from ..protocol.stowage import Fullness
from .packets import ToDaemon, ToWorker

# ------------------------------------------------------------------------------------------ events


class Connected(Struct, gc=False, frozen=True):
    """The link to the scheduler is up. Not resumed: a new link life; the node joins anew."""

    epoch: int
    resumed: bool


class Disconnected(Struct, gc=False, frozen=True):
    """The connection to the scheduler closed; the link tries again."""


class Received(Struct, gc=False, frozen=True):
    """A message came from the scheduler."""

    message: AnyMessage


class Confirmed(Struct, gc=False, frozen=True):
    """The scheduler has acknowledged what was sent up to then."""

    sent_s: float


class SchedulerLags(Struct, gc=False, frozen=True):
    """So many bytes wait for the scheduler, which is away or does not read; 0: no longer."""

    queued_bytes: int


class BlobReceived(Struct, gc=False, frozen=True):
    """A large payload has come in whole, perhaps before the row that names it."""

    key: bytes
    payload: bytes


class WorkerSpoke(Struct, gc=False, frozen=True):
    """A packet came from a worker."""

    worker: int
    packet: ToDaemon


class WorkerExited(Struct, gc=False, frozen=True):
    """A worker's process ended and all its packets have been told before this."""

    worker: int
    #: exit code, or -signal number
    status: int
    #: name of the signal, or ""
    signal_name: str
    #: the last lines it wrote to stderr since it started what it ran
    stderr_tail: str
    #: killed by the kernel for want of memory, as far as that can be known
    out_of_memory: bool = False
    #: killed by the keeper at the end of the lease
    overdue: bool = False


class WorkerFailed(Struct, gc=False, frozen=True):
    """A worker could not be started (fork failed, no descriptors)."""

    worker: int
    reason: str


class PacketsTaken(Struct, gc=False, frozen=True):
    """The answer to TakePackets: seqs of RunRows that lay unread in the worker's socket."""

    worker: int
    seqs: list[int]


class PageRead(Struct, gc=False, frozen=True):
    """The answer to ReadPage: per worker (its number, seq it started last, still running it)."""

    samples: list[tuple[int, int, bool]]


class Spoke(Struct, gc=False, frozen=True):
    """Workers wrote text: (worker, text, bytes dropped before it)."""

    rows: list[tuple[int, bytes, int]]
    #: 1: stdout, 2: stderr
    stream: int = 1


class Noticed(Struct, gc=False, frozen=True):
    """Something that every client of this node should read: a module could not be preloaded."""

    text: str
    #: what it is about, where the name of a task is in a line of output
    label: str = "preload"


class Measured(Struct, gc=False, frozen=True):
    """What the shell sees of the machine for the next beat."""

    lag_s: float
    memory_bytes: int
    #: how busy the processors were, from 0 to 1; -1: unknown
    cpu: float = -1.0
    #: left of the memory that this node may use, and of how much; 0 of 0: unknown
    free_bytes: int = 0
    total_bytes: int = 0


#: how closely to look: at the page, at the process, at each of its threads
PAGE, PROCESS, THREADS = range(3)
#: what all threads of a process do: wait for a lock; that, but for some that had a processor; else.
#: "" is unknown
FUTEX, IN_CPU, OTHER = "futex", "running", "other"


class ThreadSeen(Struct, gc=False, frozen=True):
    """What a look at one thread of a worker has shown."""

    thread: int
    #: the letter of its state
    state: str
    cpu_s: float
    #: read and written; -1: unknown
    io_bytes: int
    #: the system call in which it sleeps; "": none, or unknown
    where: str


class Evidence(Struct, gc=False, frozen=True):
    """What a look at a worker has shown; of its process only where that was asked for."""

    worker: int
    beat: int
    #: seq of the row that runs; 0: none
    running: int
    phase: int
    #: since that row began
    elapsed_s: float = 0.0
    #: how often it has said that it progresses
    progress: int = 0
    #: the letter of its main thread's state; "": not looked
    state: str = ""
    #: of all threads
    cpu_s: float = 0.0
    #: read and written; -1: unknown
    io_bytes: int = -1
    #: FUTEX, IN_CPU or OTHER
    threads: str = ""
    #: the system call in which the main thread sleeps; "": none, or unknown
    where: str = ""
    #: how far the row is by its last progress(), and of how much (-1: it did not say)
    done: float = 0.0
    total: float = -1.0
    #: resident; 0: unknown
    memory_bytes: int = 0
    #: seq of the row that it started last
    started: int = 0
    #: for so long its event loop has not come round; -1: it has none
    loop_s: float = -1.0
    #: of the threads that were to be looked at, those that are there
    calls: tuple[ThreadSeen, ...] = ()


class Seen(Struct, gc=False, frozen=True):
    """The answer to LookAt."""

    rows: list[Evidence]


class Dumped(Struct, gc=False, frozen=True):
    """The answer to Dump: the stacks of a worker's threads, or why there are none."""

    worker: int
    text: str
    why: str = ""
    #: the time of day, for people: "14:04:12"
    at: str = ""


class StopAsked(Struct, gc=False, frozen=True):
    """Whoever runs this node wants it to end: once, it is drained; again, what runs is ended."""

    times: int


class RoomLeft(Struct, gc=False, frozen=True):
    """Memory and disk are full but for that much: a larger value is refused; None: there is room.

    It is so until told otherwise.
    """

    fullness: Fullness | None


class TimePassed(Struct, gc=False, frozen=True):
    """Nothing but time."""


Event = (
    Connected | Disconnected | Received | Confirmed | SchedulerLags | BlobReceived | WorkerSpoke
    | WorkerExited | WorkerFailed | PacketsTaken | PageRead | Spoke | Noticed | Measured | StopAsked
    | Seen | Dumped | RoomLeft | TimePassed
)  # fmt: skip

# ---------------------------------------------------------------------------------------- commands


class Send(Struct, gc=False, frozen=True):
    """Send a message on the control link."""

    message: AnyMessage


class SendBlob(Struct, gc=False, frozen=True):
    """Send a large payload on the bulk link, or have others get it here."""

    key: bytes
    payload: bytes
    #: names it wherever it lies; empty: the scheduler itself needs it
    id: bytes = b""


class Stow(Struct, gc=False, frozen=True):
    """Objects' payloads lie in files: they count towards what memory may have; None: it is gone."""

    rows: list[tuple[ObjectId, ValueRow | None]]


class Brought(Struct, gc=False, frozen=True):
    """A worker has put so many bytes since it began: tell it when there is room for more."""

    worker: int
    bytes: int


class StartWorker(Struct, gc=False, frozen=True):
    """Fork a worker. `worker` is a fresh number; `page_slot` a free slot of the pulse page."""

    worker: int
    page_slot: int
    client: PeerId
    environment: Environment
    env_vars: tuple[tuple[str, str], ...]
    working_dir: str
    num_cpus: float
    same_machine: bool
    #: the word of this machine, see protocol.machine.identity
    machine: str = ""


class SendWorker(Struct, gc=False, frozen=True):
    """Send a packet to a worker."""

    worker: int
    packet: ToWorker


class TakePackets(Struct, gc=False, frozen=True):
    """Read back what lies unread in the worker's socket; answered by PacketsTaken."""

    worker: int


class Revoke(Struct, gc=False, frozen=True):
    """Write into the page: start nothing from this seq on (0: all may be started)."""

    worker: int
    seq: int


class ReadPage(Struct, gc=False, frozen=True):
    """Answered by PageRead, not sooner than `after_s` from now."""

    workers: list[int]
    after_s: float = 0.0


class LookAt(Struct, gc=False, frozen=True):
    """Look at workers, each as closely as said (PAGE, PROCESS, THREADS); answered by Seen."""

    rows: list[tuple[int, int]]
    #: worker -> threads of its that are to be looked at as well
    threads: dict[int, list[int]] = field(default_factory=dict)


class Dump(Struct, gc=False, frozen=True):
    """Have workers write down where their threads are; each is answered by Dumped."""

    workers: list[int]


class Interrupt(Struct, gc=False, frozen=True):
    """Raise drumbeat.Interrupted in the worker's main thread if it still runs `seq`."""

    worker: int
    seq: int
    #: one of page.REASONS
    reason: str = "cancelled"


class Signal(Struct, gc=False, frozen=True):
    """Signal the worker's process group: "TERM" or "KILL"."""

    worker: int
    name: str


class Lease(Struct, gc=False, frozen=True):
    """A worker is to end with this node's lease; carried out before what is sent to it later."""

    worker: int


class LeaseUntil(Struct, gc=False, frozen=True):
    """Leased workers may act until then: show it to the keeper, which kills them."""

    until_s: float


class Drains(Struct, gc=False, frozen=True):
    """From now on this node is drained: should this daemon end, no other is to take its place."""


class Finish(Struct, gc=False, frozen=True):
    """All is done: say Leave, and end."""


Command = (
    Send | SendBlob | StartWorker | SendWorker
    | TakePackets | Revoke | ReadPage | LookAt | Dump | Interrupt | Signal | Lease
    | LeaseUntil | Drains | Finish | Stow | Brought
)  # fmt: skip
