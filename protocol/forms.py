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
Count = Annotated[int, Meta(ge=0)]


class Row(Struct, array_like=True, gc=False):
    """A part of a message: an array without a tag."""


class Message(Struct, array_like=True, gc=False):
    """What crosses a process boundary: an array whose first element is its tag."""
