"""The frames that a connection carries, and the pieces in which long things travel.

Nothing here may hold behaviour. A frame is one ZeroMQ part and one MessagePack array; a `Batch`
holds messages (protocol/messages.py).
"""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Raw

from .forms import Count, Message, PeerBytes, Row

PROTOCOL_VERSION = 1

#: a public key of CURVE, or none
DataKey = Annotated[bytes, Meta(max_length=32)]
Endpoint = Annotated[str, Meta(max_length=300)]


class Role:
    """What a peer is to the scheduler, and what a key proves."""

    CLIENT = "client"
    NODE = "node"
    #: only ever proven by a key: an admin says Hello as a client
    ADMIN = "admin"


class Channel(IntEnum):
    """Which of a peer's two links a connection serves."""

    CONTROL = 0
    BULK = 1


class Hello(Message, tag="hello"):
    """Dialler -> scheduler, first on every new connection."""

    protocol: int
    role: str
    peer: PeerBytes
    channel: int
    #: the scheduler epoch this link last lived in; 0 on the first connection
    epoch: int
    #: number of the last batch received in that life
    received: Count
    #: "3.11"
    python: str
    #: the node's name, or the client program's
    name: str
    #: number of that link life; 0: none yet. Bulk: the life of the control link it belongs to
    life: Count = 0
    #: whoever says which machine it is on takes payloads as files of that machine, and gives them
    machine: str = ""
    #: over the network, where this peer can be dialled for what it keeps: "tcp://HOST:PORT"; "": it
    #: can only dial
    data: Endpoint = ""
    #: the public key of that socket, or the one it dials others with; empty: it gives nothing to
    #: others and takes nothing from them, all goes through the scheduler
    data_key: DataKey = b""


class Welcome(Message, tag="welcome"):
    """Scheduler -> dialler: the link is up."""

    epoch: int
    received: Count
    #: True: the same link goes on; both resend what the other has not received.
    #: False: a new link life; both number from 1 and the core registers anew.
    resumed: bool
    #: number of the link life, unique within the epoch
    life: Count = 0
    #: as in Hello
    machine: str = ""
    #: the public keys that the peer may let in at `Hello.data`; none: nothing goes past the
    #: scheduler
    admits: tuple[DataKey, ...] = ()


class Refused(Message, tag="refused"):
    """Scheduler -> dialler: you do not fit, in plain words; do not try again unchanged."""

    #: name of the error class to raise
    error: str
    reason: str


class Reset(Message, tag="reset"):
    """Scheduler -> whoever spoke before Hello: I do not know you; say Hello on a new connection."""


class Batch(Message, tag="batch"):
    """Both ways: messages, numbered from 1 in one link life; `ack` is the last batch received."""

    seq: Count
    ack: Count
    messages: list[Raw]


class Ack(Message, tag="ack"):
    """Both ways: nothing to say, but received up to here. Also the probe for a closed peer."""

    ack: Count
    #: number of the last batch sent, when acknowledgements of it are overdue; 0: not said
    sent: Count = 0
    #: batch ack + 1 is missing though a later one was sent: send again from there on
    missing: bool = False


Frame = Hello | Welcome | Refused | Reset | Batch | Ack


# ---------------------------------------------------------------------------------------- pieces


BlobKey = Annotated[bytes, Meta(min_length=14, max_length=24)]
DataId = Annotated[bytes, Meta(min_length=14, max_length=24)]


class Chunk(Message, tag="chunk"):
    """Both ways, on the bulk link only: part `index` of `count` of a payload."""

    key: BlobKey
    index: Count
    count: Annotated[int, Meta(ge=1)]
    data: bytes


class Lent(Message, tag="lent"):
    """Both ways, on the bulk link: a payload that lies in a memory file. Answered by Taken."""

    key: BlobKey
    #: rises by one from 1 in one link life
    number: Count
    #: which process has it open, and under which descriptor; segments.py says what is in it
    pid: Count
    fd: Count
    inode: Count
    #: of the whole file, its head included
    size: Count
    #: what its head says
    id: Annotated[bytes, Meta(min_length=1, max_length=16)]


class Taken(Message, tag="taken"):
    """Both ways, on the bulk link: the file that was lent under this number is not needed."""

    number: Count
    #: False: it could not be opened, and the payload is to be sent
    opened: bool


class Source(Row):
    """A peer that has a payload, or has got a part of it already."""

    peer: PeerBytes
    #: "": it cannot be dialled, and comes by itself
    endpoint: Endpoint
    key: DataKey


class Offered(Message, tag="offered"):
    """Peer -> scheduler, on the bulk link: a payload that it keeps for whoever needs it.

    Answered by Taken: nobody needs it any more, or (not opened) it is to be sent as it ever was.
    """

    key: BlobKey
    #: counts together with that of Lent
    number: Count
    size: Count
    #: by which others ask for it; the same id is the same payload wherever it lies
    id: DataId


class Pointed(Message, tag="pointed"):
    """Scheduler -> peer, on the bulk link: a payload that is to be got from another peer.

    Answered by Taken. After one that says that it could not be had comes another Pointed with the
    same number, or the payload in chunks.
    """

    key: BlobKey
    number: Count
    size: Count
    id: DataId
    #: to be tried in this order
    sources: tuple[Source, ...]


class Bring(Message, tag="bring"):
    """Scheduler -> peer, on the bulk link: offer what you keep to this one, which is to be dialled.

    What is not kept any more is left alone.
    """

    id: DataId
    to: Source


Bulk = Chunk | Lent | Taken | Offered | Pointed | Bring


class Part(Message, tag="part"):
    """Both ways, on the control link: a piece of a message that is too long for one frame.

    The pieces of one message follow one another; joined, they are its encoding.
    """

    data: bytes
    #: whether this is the message's last piece
    last: bool
