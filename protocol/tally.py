"""Counts what a home keeps, and finds the largest of it.

Never looks at a value, only at how large it is.
"""

from collections.abc import Callable
from heapq import nlargest
from operator import itemgetter
from typing import Final

from .ids import show
from .messages import Outcome, ValueRow
from .payload_files import file_of, may_be_file
from .stock import (
    DISK,
    FAILED,
    MEMORY,
    NOWHERE,
    PENDING,
    READY,
    SHARED,
    STOCK_ROWS_MAX,
    WANTED,
    Stock,
    TakeStock,
)

#: so many objects are looked at, those that have been there longest: nobody is held up for more
LOOK_AT: Final = 50_000

#: size in bytes, and id
Found = tuple[int, bytes]


def found_in(
    message: TakeStock,
    own: list[Found],
    copies: list[int],
    peer: bytes,
    name_of: Callable[[bytes], str],
) -> tuple[Stock, list[Found]]:
    """Return the answer, and of what its rows are to tell: the largest first, then as they came.

    Args:
        message: what is asked for.
        own: what has its home here.
        copies: sizes of the values of others' objects; with a match, nobody asks for them.
        peer: of this home, with which the ids of its objects begin.
        name_of: returns the name of one that is its own.
    """
    match = message.match
    if match:
        may_be_id = peer.hex().startswith(match[: 2 * len(peer)])
        own = [
            one
            for one in own
            if name_of(one[1]).startswith(match) or (may_be_id and show(one[1]).startswith(match))
        ]
        copies = []
    size_bytes, copies_bytes = sum([size for size, _ in own]), sum(copies)
    stock = Stock(message.number, [], len(own), size_bytes, len(copies), copies_bytes)
    return stock, nlargest(min(message.limit, STOCK_ROWS_MAX), own, key=itemgetter(0))


def size_of(row: ValueRow | None) -> int:
    """Return how many bytes a value has; 0: there is none yet."""
    if row is None:
        return 0
    return row.size if row.payload is None else len(row.payload)


def is_segment(row: ValueRow | None) -> bool:
    """Return whether an object is a memory segment of this process, whose bytes no row has."""
    if row is None or row.payload is not None or row.outcome != Outcome.VALUE:
        return False
    return row.size > 0


def place_of(row: ValueRow | None) -> str:
    """Return where a value lies."""
    if not size_of(row):
        return NOWHERE
    if row is None or (row.payload is not None and not may_be_file(row.payload)):
        return MEMORY
    file = file_of(row.payload)
    return DISK if file is not None and file.is_spilled else SHARED


def state_of(row: ValueRow | None, *, wanted: bool) -> str:
    """Return what has become of an object.

    Args:
        row: what is known of its value.
        wanted: the scheduler waits for that.
    """
    if row is None:
        return WANTED if wanted else PENDING
    return READY if row.outcome == Outcome.VALUE else FAILED
