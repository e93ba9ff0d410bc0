"""The forms that all words on the wire share: rows, messages, and the types of their fields.

Nothing here may hold behaviour, or know any one message.
"""

from typing import Annotated

from msgspec import Meta, Struct

PeerBytes = Annotated[bytes, Meta(min_length=6, max_length=6)]
TaskBytes = Annotated[bytes, Meta(min_length=14, max_length=14)]
ObjectBytes = Annotated[bytes, Meta(min_length=14, max_length=16)]
ParentBytes = Annotated[bytes, Meta(max_length=14)]
HashBytes = Annotated[bytes, Meta(min_length=16, max_length=16)]
#: far more than anything counts to, and more can be added before it no longer fits the wire
COUNT_MAX = 1 << 62
Count = Annotated[int, Meta(ge=0, le=COUNT_MAX)]
#: finite: it is counted in whole units
AMOUNT_MAX = 1e15
Amount = Annotated[float, Meta(ge=0, le=AMOUNT_MAX)]
#: a time, at most three hundred years; -1 where there is none
SECONDS_MAX = 1e10
Seconds = Annotated[float, Meta(ge=-1, le=SECONDS_MAX)]


class Row(Struct, array_like=True, gc=False):
    """A part of a message: an array without a tag."""


class Message(Struct, array_like=True, gc=False):
    """What crosses a process boundary: an array whose first element is its tag."""
