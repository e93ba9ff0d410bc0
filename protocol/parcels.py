"""A large value as it travels: a small parcel that names the segments with its bytes.

Never opens a segment (segments.py and unparcel.py do), nor a pickle stream (payload.py does).

A segment is an object with an id of its own, and whoever sends a parcel names its segments among
the objects that the row contains. So a segment lives as long as a value that needs it, and whoever
cannot map it asks for its bytes as for any other object's. A hint is only ever a hint.
"""

from collections.abc import Callable
from typing import Final

from .codec import decoder, encode
from .errors import RemoteProtocolError
from .forms import COUNT_MAX, Count, ObjectBytes, Row

#: 0xC1 begins no MessagePack, and no pickle; the digit is the parcel's form
MARK: Final = b"\xc1P1"
_MARK_BYTES: Final = len(MARK)


class Part(Row):
    """A stretch of a segment."""

    segment: ObjectBytes
    #: counted from the begin of the segment's file, its head included
    offset: Count
    size: Count
    #: what is made of these bytes may not be written to: it was so where it came from
    read_only: bool


class Hint(Row):
    """Where a segment may be found without asking anybody: a descriptor of a process."""

    #: see machine.identity
    machine: str
    pid: Count
    fd: Count
    inode: Count
    #: of the segment, its head included; the file may be longer
    size: Count


class Parcel(Row):
    """A pickled value, some of whose bytes lie in segments."""

    #: None: it is the first part
    stream: bytes | None
    #: the rest are the buffers of pickle 5, in order
    parts: tuple[Part, ...]
    #: by segment
    hints: dict[ObjectBytes, Hint]
    #: nobody may write to what is made of its parts, so that all readers can share one memory
    frozen: bool


_decode: Callable[[bytes], Parcel] = decoder(Parcel)


def is_parcel(payload: bytes | None) -> bool:
    """Return whether a payload is a parcel, of whatever form."""
    return payload is not None and payload[:1] == b"\xc1"


def seal(parcel: Parcel) -> bytes:
    """Return the parcel as a payload."""
    return MARK + encode(parcel)


def opened(payload: bytes) -> Parcel:
    """Return the parcel that a payload is.

    Raises:
        RemoteProtocolError: it is none, or damaged; names the field.
    """
    mark = bytes(payload[:_MARK_BYTES])
    if mark != MARK:
        raise RemoteProtocolError(
            f"a large value came in a form that is not known here: it begins with {mark!r}, not "
            f"{MARK!r}; use one version of drumbeat everywhere"
        )
    parcel = _decode(payload[_MARK_BYTES:])
    if parcel.stream is None and not parcel.parts:
        raise RemoteProtocolError("Parcel.parts: none, and the stream is to be the first of them")
    return parcel


def bytes_behind(payload: bytes | None) -> int:
    """Return how many bytes of segments a payload stands for; 0: it is all there is."""
    if payload is None or payload[:1] != b"\xc1":
        return 0
    try:
        parts = opened(payload).parts
    except RemoteProtocolError:
        return 0  # who opens it will say so
    return min(COUNT_MAX, sum([part.size for part in parts]))
