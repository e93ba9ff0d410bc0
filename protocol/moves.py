"""The words on a data connection, on which large payloads go straight from peer to peer.

Nothing here may hold behaviour. A word is one MessagePack array, as frames are
(protocol/frames.py), and one ZeroMQ part; but a piece's data may come as a second part, and does,
since then nobody has to copy it. docs/protocol.md says in which order words come.
"""

from typing import Annotated, Final

from msgspec import Meta

from .forms import Count, Message, PeerBytes

DATA_PROTOCOL_VERSION: Final = 2
#: A piece is so much shorter than the longest frame: its other fields take less, and the next one
#: begins where a page does.
PIECE_ROOM_BYTES: Final = 4096

#: names a payload; an object's id, say
Key = Annotated[bytes, Meta(min_length=1, max_length=32)]
Checksum = Annotated[int, Meta(ge=0, lt=1 << 32)]


class Greet(Message, tag="greet"):
    """Both ways, first: the dialler's, then the listener's, which answers it."""

    protocol: Count
    #: by which id the other one knows whoever says it
    peer: PeerBytes


class Have(Message, tag="have"):
    """Both ways: you will want this of me. From one that cannot be dialled."""

    key: Key
    size: Count


class Ask(Message, tag="ask"):
    """Receiver -> holder: send the bytes from `offset` on, before `until`.

    One that begins where the last one of that key has ended goes on with it; any other takes its
    place.
    """

    key: Key
    offset: Count
    until: Count


class Piece(Message, tag="piece"):
    """Holder -> receiver: some of what was asked for; pieces of a payload come in order."""

    key: Key
    offset: Count
    #: of the whole payload
    size: Count
    #: CRC-32 of `data`
    checksum: Checksum
    #: empty if it comes as a second part
    data: memoryview


class Gone(Message, tag="gone"):
    """Holder -> receiver: it is not to be had here, or no more."""

    key: Key
    reason: Annotated[str, Meta(max_length=1000)] = ""


class Enough(Message, tag="enough"):
    """Receiver -> holder: no more of this is needed."""

    key: Key


Move = Greet | Have | Ask | Piece | Gone | Enough


def piece_bytes(frame_bytes_max: int) -> int:
    """Return how much data one piece carries at most."""
    return max(frame_bytes_max - PIECE_ROOM_BYTES, frame_bytes_max // 2, 1)
