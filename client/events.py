"""What the client core may be told, and what it may ask for.

Never behaviour. Columnar: one object a loop turn, holding rows.
"""

from msgspec import Struct

from ..protocol.drain import Drain
from ..protocol.ids import ObjectId, TaskId
from ..protocol.messages import AnyMessage, KindRow, Options, Query, Stock, TaskRow, ValueRow
from ..protocol.stowage import Fullness

# ------------------------------------------------------------------------------------------ events


class Connected(Struct, gc=False, frozen=True):
    """The link is up. Not resumed: a new link life, so everything is to be told again."""

    epoch: int
    resumed: bool


class Disconnected(Struct, gc=False, frozen=True):
    """The connection closed; the link tries again."""


class Received(Struct, gc=False, frozen=True):
    """A message came from the scheduler."""

    message: AnyMessage


class BlobReceived(Struct, gc=False, frozen=True):
    """A large payload has come in whole, perhaps before the row that names it."""

    key: bytes
    payload: bytes


class Call(Struct, gc=False):
    """One call as the caller's thread left it (hot: one per task)."""

    row: TaskRow
    options: Options


class Submitted(Struct, gc=False, frozen=True):
    """Caller threads submitted these since the last turn. Each value starts with one local ref.

    New kinds come first; their payload is always given (the core knows what the scheduler has).
    """

    kinds: list[KindRow]
    calls: list[Call]


class Put(Struct, gc=False, frozen=True):
    """Caller threads put these values; each starts with one local ref.

    One without a payload, but with a size, is a memory segment, which the shell has by then.
    """

    rows: list[ValueRow]


class RefsChanged(Struct, gc=False, frozen=True):
    """ObjectRefs came to life (+1) or went (-1) in this process since the last turn, in order."""

    changes: list[tuple[ObjectId, int]]


class Pinned(Struct, gc=False, frozen=True):
    """Refs were pickled outside Drumbeat: keep their values."""

    ids: list[ObjectId]


class Awaited(Struct, gc=False, frozen=True):
    """Somebody waits for these objects: fetch those whose home is elsewhere."""

    ids: list[ObjectId]


class CancelAsked(Struct, gc=False, frozen=True):
    """The user cancels. request != 0: wants to know which had not started.

    exit, restart: see messages.Cancel.
    """

    ids: list[TaskId]
    force: bool
    recursive: bool
    request: int = 0
    exit: bool = False
    restart: bool = False


class Asked(Struct, gc=False, frozen=True):
    """The user asks the scheduler something; the message has the number of the request."""

    message: Query | Drain


class KindsDropped(Struct, gc=False, frozen=True):
    """The program has no RemoteFunction any more for these kind numbers."""

    kinds: list[int]


class ItemsRead(Struct, gc=False, frozen=True):
    """Of what these tasks yield so many were read since they began; True: nobody will read more."""

    rows: list[tuple[TaskId, int, bool]]


class RoomLeft(Struct, gc=False, frozen=True):
    """Memory and disk are full but for that much: a larger value that comes is refused."""

    fullness: Fullness | None


class Leaving(Struct, gc=False, frozen=True):
    """The session shuts down: say Leave."""


class TimePassed(Struct, gc=False, frozen=True):
    """Nothing but time."""


Event = (
    Connected | Disconnected | Received | BlobReceived | Submitted | Put | RefsChanged | Pinned
    | Awaited | CancelAsked | Asked | KindsDropped | ItemsRead | RoomLeft | Leaving | TimePassed
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


class SendSegment(Struct, gc=False, frozen=True):
    """Send the bytes of a memory segment of ours on the bulk link; its id is the key."""

    id: ObjectId


class Resolve(Struct, gc=False, frozen=True):
    """These objects have their final rows, payloads complete: store them, wake who waits."""

    rows: list[ValueRow]


class Stow(Struct, gc=False, frozen=True):
    """These objects' payloads lie in files: they count towards what memory may have."""

    rows: list[tuple[ObjectId, ValueRow]]


class TellStock(Send, frozen=True):
    """Send this, once it says which memory segments lie on disk."""

    message: Stock


class Free(Struct, gc=False, frozen=True):
    """Nobody holds these any more: forget their rows, and close their memory segments."""

    ids: list[ObjectId]


class Reply(Struct, gc=False, frozen=True):
    """The answer to a CancelAsked or Asked."""

    request: int
    data: object


class Print(Struct, gc=False, frozen=True):
    """Text from workers, or a notice: show it to the user."""

    message: AnyMessage


class ShapesKnown(Struct, gc=False, frozen=True):
    """The nodes there are."""

    message: AnyMessage


Command = Send | SendBlob | SendSegment | Resolve | Stow | Free | Reply | Print | ShapesKnown
