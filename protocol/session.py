"""What a process can ask of the cluster: the one face of driver, worker and inline.

Never more than a face. The public functions (drumbeat.client.api) and `ObjectRef` speak to the
process's current session: in a driver it is a ClusterSession (client/session.py), in a worker a
WorkerSession (node/nested.py), with init(inline=True) an InlineSession (client/inline.py).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from .actors import ActorName
from .ids import ObjectId, TaskId
from .messages import Options, ValueRow
from .parcels import Hint, Parcel
from .payload_files import Filing


class Packed(NamedTuple):
    """Arguments, or a value, ready to travel."""

    #: pickled bytes, or None for a call without arguments
    payload: bytes | None
    #: top-level refs, each once, in the order of their placeholders
    deps: tuple[ObjectId, ...] = ()
    #: refs that lie deeper inside, and the memory segments with the bytes of what is large
    contained: tuple[ObjectId, ...] = ()
    #: ObjectRefs of segments made for it: these go when this goes, whoever else holds them by then
    keeps: tuple[Any, ...] = ()


class Kept(NamedTuple):
    """What a keeper made of buffers: one memory segment with all of them."""

    #: the segment is an object with this id
    id: bytes
    #: where it can be found on this machine
    hint: Hint
    #: offset and size of each buffer, in their order
    spans: tuple[tuple[int, int], ...]
    #: an ObjectRef, the one hold of the segment
    ref: Any


class Keeper(Protocol):
    """Puts large buffers into memory segments; what is packed then only names these."""

    #: buffers smaller than this are not worth one
    bytes_min: int

    def __call__(self, buffers: Sequence[memoryview]) -> Kept | None:
        """Keep these bytes, in one segment; None: it cannot, they travel as they always did.

        Raises:
            Backpressure: no room for them, and the caller is an event loop.
            StoreFull: neither memory nor disk has room for them.
        """


#: what does something with large buffers: a client's keeper, or a worker's files
Keeping = Keeper | Filing


class FunctionDefinition:
    """A function as it is sent: pickled once, named by its hash.

    Identity matters: a session remembers by object which kinds it has announced.
    """

    __slots__ = ("__weakref__", "hash", "name", "payload")

    def __init__(self, name: str, hash_: bytes, payload: bytes) -> None:
        self.name = name
        self.hash = hash_
        self.payload = payload


class Kind:
    """A function with its options, as a session submits it; made once per RemoteFunction."""

    __slots__ = ("__weakref__", "function", "name", "number", "options", "session")

    def __init__(self, function: FunctionDefinition, options: Options, name: str) -> None:
        self.function = function
        self.options = options
        self.name = name
        #: given by the session that first submitted it
        self.number = -1
        self.session: Session | None = None


class Session(Protocol):
    """See the module. All methods may be called from any thread unless said otherwise."""

    #: False once shut down
    alive: bool
    #: where the names of actors are looked up
    namespace: str
    #: a blocking call of the main thread lends the task's CPUs (true in a worker)
    lends: bool
    #: keeps the large parts of what is packed for this session; None: they are packed with the rest
    keeper: Keeping | None

    def new_id(self) -> TaskId:
        """Return an id for a task that is to be submitted by it."""

    def submit(self, kind: Kind, packed: Packed, task: TaskId | None = None) -> list[ObjectId]:
        """Queue one call; return the ids of its values (num_returns many), each held once.

        With `task` it has that id: a new one, or that of a detached actor.

        Raises:
            Infeasible: no node could ever run it.
            Backpressure: submit_buffer_max is reached and the caller is an event loop.
        """

    def put(self, packed: Packed) -> ObjectId:
        """Keep a value as an object, held once."""

    def get(self, ids: Sequence[ObjectId], timeout_s: float | None) -> list[ValueRow]:
        """Wait for all, or for the first that is not a VALUE; rows in the order of ids.

        When one is not a VALUE, the list ends with that row.

        Raises:
            GetTimeoutError: not in time.
        """

    def wait(self, ids: Sequence[ObjectId], count: int, timeout_s: float | None) -> set[ObjectId]:
        """Wait until `count` are ready or the time is over; return those that are ready."""

    def peek(self, id_: ObjectId) -> ValueRow | None:
        """Return the row if it is here, without waiting."""

    def when_ready(self, id_: ObjectId, callback: Callable[[ValueRow], Any]) -> None:
        """Call `callback(row)` once, from any thread, as soon as the row is here."""

    def cancel(self, ids: Sequence[ObjectId], force: bool, recursive: bool) -> None:
        """Cancel the tasks of these objects; returns at once."""

    def cancel_queued(self, ids: Sequence[ObjectId]) -> list[bool]:
        """Cancel those that have not started, and say for each whether it now never will."""

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        """Kill the actor of this creation, for good or to be restarted; returns at once."""

    def hold(self, id_: ObjectId) -> None:
        """One more ObjectRef to this object lives in this process (unpickled or copied)."""

    def drop(self, id_: ObjectId) -> None:
        """One ObjectRef less. Called from `__del__`: only appends to a deque, takes no lock."""

    def read(self, task: TaskId, count: int, *, over: bool) -> None:
        """Of what a task yields so many were read by now; `over`: nobody will read more.

        Called from `__del__`: takes no lock.
        """

    def pin(self, id_: ObjectId) -> None:
        """A ref was pickled outside Drumbeat: keep its value until this process leaves."""

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Return the pickle stream of a parcel, and its buffers in their order.

        Args:
            parcel: what names them.
            until_s: how long to wait for bytes from elsewhere, by time.monotonic; None: no limit.

        Raises:
            ObjectLost: the bytes of a segment are gone.
            GetTimeoutError: they were not here in time.
            RemoteProtocolError: what the parcel says of a segment does not fit it.
        """

    def query(
        self, what: str, limit: int = 100, match: str = "", *, named: ActorName | None = None
    ) -> Any:
        """Ask the scheduler for "status", "nodes" or "tasks"; plain data."""

    def free_name(self, named: ActorName) -> None:
        """Let a name go that was, or may have been, taken for an actor that will not be.

        Returns at once, and waits for nobody.
        """


_current: Session | None = None


def current() -> Session | None:
    """Return the session of this process, or None."""
    return _current


def set_current(session: Session | None) -> None:
    """Make `session` the session of this process."""
    global _current  # noqa: PLW0603  # the process's one session is a process-wide fact
    _current = session
