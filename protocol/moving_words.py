"""What goes into the core of data connections and what comes out: events and commands.

Nothing here may hold behaviour.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from .moves import Move

#: One connection: above zero if it was dialled here, below if it has come.
Connection = Annotated[int, Meta(description="never 0")]


class Source(NamedTuple):
    """Where a payload is to be had, or is to be offered."""

    peer: bytes
    #: where it listens; "": nowhere, that peer comes here and says Have
    endpoint: str
    #: of its data socket
    public_key: bytes


# ------------------------------------------------------------------------------------- events


class Pull(Struct, gc=False):
    """A payload is wanted; it is to be had there, in order of liking."""

    key: bytes
    size: int
    sources: Sequence[Source]


class Offer(Struct, gc=False):
    """Let this peer know that it can have this payload, which is served here."""

    key: bytes
    to: Source


class Serve(Struct, gc=False):
    """A payload may be asked for here from now on."""

    key: bytes
    size: int


class Unserve(Struct, gc=False):
    """It may not any more."""

    key: bytes


class Cancel(Struct, gc=False):
    """It is not wanted any more, whether it has come or not."""

    key: bytes


class Heard(Struct):
    """A word came on a connection."""

    connection: Connection
    word: Move


class Junk(Struct, gc=False):
    """What came on a connection was no word."""

    connection: Connection
    reason: str


class Down(Struct, gc=False):
    """A connection has ended, or could not be made."""

    connection: Connection
    reason: str


class Sent(Struct, gc=False):
    """The piece that was to be sent on a connection is on its way."""

    connection: Connection


class Full(Struct, gc=False):
    """It is not: the other end has not taken what was sent before."""

    connection: Connection


class Unread(Struct, gc=False):
    """It is not: its bytes cannot be read here."""

    connection: Connection


class Unwritten(Struct, gc=False):
    """There is no room here for what came of a payload."""

    key: bytes
    reason: str


class Tick(Struct, gc=False):
    """Nothing but time has passed."""


Event = (
    Pull | Offer | Serve | Unserve | Cancel | Heard | Junk | Down | Sent | Full | Unread
    | Unwritten | Tick
)  # fmt: skip


# ----------------------------------------------------------------------------------- commands


class Dial(Struct, gc=False):
    """Make a connection; answered by Down if that fails."""

    connection: Connection
    source: Source


class SayTo(Struct, gc=False):
    """Say a word on a connection; in order, and never dropped as long as that stands."""

    connection: Connection
    word: Move


class Send(Struct, gc=False):
    """Send a piece. Answered by Sent, Full or Unread; until then no other one is named."""

    connection: Connection
    key: bytes
    offset: int
    length: int
    #: of the whole payload
    size: int


class Write(Struct):
    """Keep these bytes of a payload; they come in order, without gaps."""

    key: bytes
    offset: int
    data: memoryview
    #: of the whole payload
    size: int
    #: of these bytes, as it came
    checksum: int


class Finished(Struct, gc=False):
    """All of it has come. It may still be asked for, until Dropped."""

    key: bytes


class Failed(Struct, gc=False):
    """It is not to be had from anybody."""

    key: bytes
    #: who was asked last; b"": nobody
    peer: bytes
    reason: str


class Dropped(Struct, gc=False):
    """What is here of this payload is not needed any more."""

    key: bytes


class Close(Struct, gc=False):
    """End a connection; nothing more of it is told or said."""

    connection: Connection


Command = Dial | SayTo | Send | Write | Finished | Failed | Dropped | Close


# ------------------------------------------------------------- what the owner of a mover is told


class Moved(NamedTuple):
    """A payload has come."""

    key: bytes
    payload: bytes


class NotMoved(NamedTuple):
    """A payload is not to be had."""

    key: bytes
    reason: str
    #: who was asked last; b"": nobody
    peer: bytes
