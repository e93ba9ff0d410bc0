"""What the scheduler core may be told, and what it may ask for.

Never behaviour. Columnar: one object a peer and loop turn, holding messages with their rows.
"""

from msgspec import Struct

from ..protocol.frames import Channel, Hello, Role
from ..protocol.ids import PeerId
from ..protocol.messages import (
    AnyMessage,
)
from ..protocol.remotes import Remote
from .deeds import Course, Deed

# ------------------------------------------------------------------------------------------ events


class PeerJoined(Struct, gc=False, frozen=True):
    """A peer said Hello and a new link life began (not a resumed one)."""

    peer: PeerId
    hello: Hello
    #: what its key has proven it to be; who comes by a Unix socket may do all
    proven: str = Role.ADMIN


class PeerReturned(Struct, gc=False, frozen=True):
    """A peer's connection came back within its link life; nothing was lost."""

    peer: PeerId


class PeerDisconnected(Struct, gc=False, frozen=True):
    """A peer's connection closed. It may return."""

    peer: PeerId


class PeerHeard(Struct, gc=False, frozen=True):
    """Frames came from these peers in this turn: signs of life."""

    peers: list[PeerId]


class Received(Struct, gc=False, frozen=True):
    """A message came from a peer. Valid in form; the core judges whether it is in place."""

    peer: PeerId
    message: AnyMessage


class BlobReceived(Struct, gc=False, frozen=True):
    """A large payload has come from a peer in whole, perhaps before the row that names it."""

    peer: PeerId
    key: bytes
    payload: bytes


class PeerLags(Struct, gc=False, frozen=True):
    """So many bytes wait for a peer that does not read; 0: it has caught up."""

    peer: PeerId
    queued_bytes: int
    #: BULK: of large payloads
    channel: int = Channel.CONTROL


class Reached(Struct, gc=False, frozen=True):
    """A peer has received all that was sent to it before these marks (`Mark`)."""

    peer: PeerId
    marks: list[int]


class Relays(Struct, gc=False, frozen=True):
    """So many bytes go through the scheduler, since a peer cannot reach the one that has them."""

    holder: PeerId
    reader: PeerId
    size: int


class PayloadOrphaned(Struct, gc=False, frozen=True):
    """A peer needs a large payload whose holder has gone. Answered by Restore."""

    payload: Remote


class Unread(Struct, gc=False, frozen=True):
    """Nobody is getting anything any more that this peer has offered; answers Leaves."""

    peer: PeerId


class MessageRejected(Struct, gc=False, frozen=True):
    """What a peer sent made no sense and was dropped."""

    peer: PeerId
    reason: str


class DoorTold(Struct, gc=False, frozen=True):
    """What connections said that no peer stands behind was refused: how much so far, and why."""

    counts: dict[str, int]
    reason: str


class TimePassed(Struct, gc=False, frozen=True):
    """Nothing but time; `late_s` is how much later than asked the shell came round."""

    late_s: float = 0.0


class ClockRead(Struct, gc=False, frozen=True):
    """What the clock on the wall shows at this moment: for people to read, never to decide by."""

    wall_s: float


class Kept(Struct, gc=False, frozen=True):
    """A Keep was carried out; or, without an id, what a life before has kept cannot be read."""

    id: bytes
    #: why it could not be; ""
    error: str = ""


Event = (
    PeerJoined | PeerReturned | PeerDisconnected | PeerHeard | Received | BlobReceived | PeerLags
    | Reached | Relays | PayloadOrphaned | Unread | MessageRejected | DoorTold | TimePassed
    | ClockRead | Kept
)  # fmt: skip

# ---------------------------------------------------------------------------------------- commands


class Send(Struct, gc=False, frozen=True):
    """Send a message on a peer's control link."""

    peer: PeerId
    message: AnyMessage


class SendBlob(Struct, gc=False, frozen=True):
    """Send a large payload on a peer's bulk link."""

    peer: PeerId
    key: bytes
    payload: bytes


class Restore(Struct, gc=False, frozen=True):
    """The bytes of what has lost its holder are there again; None: they are lost."""

    orphan: Remote
    payload: bytes | None


class Leaves(Struct, gc=False, frozen=True):
    """A peer would leave: tell (`Unread`) when nobody is getting what it has offered."""

    peer: PeerId


class Drop(Struct, gc=False, frozen=True):
    """Forget a peer's links and close its connections, telling it why if there is a reason."""

    peer: PeerId
    #: name of an error class, or "" when it left by itself
    error: str = ""
    reason: str = ""


class Mark(Struct, gc=False, frozen=True):
    """Tell (`Reached`) when the peer has received all that was sent to it before this."""

    peer: PeerId
    mark: int


class Remember(Struct, gc=False, frozen=True):
    """Write down, safe from any crash, what the next life has to know."""

    #: names of the nodes that it is to wait for
    nodes: list[str]
    #: ids of submitters that were given up, as hexadecimal text: what they had submitted may have
    #: run
    gone: list[str] = []
    #: ids of the nodes: another daemon of the same name has nothing of what that one had
    daemons: list[str] = []
    #: the last epoch in which nodes were struck out that had not come back: submitters that have
    #: not settled since do not know what may have run there
    closed: int = 0
    #: actors whose last incarnation may still act, as hexadecimal text: the actor and its node; and
    #: the node's keeper
    acting: list[tuple[str, str, str]] = []


class Keep(Struct, gc=False, frozen=True):
    """Write down, safe from any crash, what a detached actor is made of; answered by Kept."""

    deed: Deed


class KeepCourse(Struct, gc=False, frozen=True):
    """Write down how far a detached actor has come, before what follows is sent."""

    id: bytes
    course: Course


class Unkeep(Struct, gc=False, frozen=True):
    """A detached actor has ended for good: remove what was written of it."""

    id: bytes


Command = Send | SendBlob | Restore | Leaves | Drop | Mark | Remember | Keep | KeepCourse | Unkeep
