"""How far a worker may be ahead of its node with what it puts, in bytes that both count.

Never keeps a value, and never decides what there is room for: that the node says, by one word of
the worker's slot in the pulse page. So all that a worker says is read at any time, whatever it has
put before; the only one that ever waits for room is who puts.
"""

import time
from collections.abc import Callable
from typing import Final

from .page import GRANTED, Words

#: so much may be on its way, or wait for room, when more is put
AHEAD_BYTES_MAX: Final = 8 << 20
#: what is smaller is not counted: it travels in packets, which have bounds of their own
COUNTED_BYTES_MIN: Final = 64 << 10
#: who waits looks so often
_LOOK_S: Final = 0.001


def counted(payload: bytes | None) -> int:
    """Return how much a value that is put counts: worker and node must say the same."""
    size = len(payload or b"")
    return size if size >= COUNTED_BYTES_MIN else 0


class Puts:
    """The worker's side.

    Args:
        words: the worker's slot of the pulse page.
        flush: sends what was put, and what has gone since.
    """

    __slots__ = ("_bytes", "_flush", "_words")

    def __init__(self, words: Words, flush: Callable[[], None]) -> None:
        self._words = words
        self._flush = flush
        self._bytes = 0

    def wait(self, payload: bytes | None) -> None:
        """Wait until this may be put. In the main thread Interrupted may end it."""
        if not counted(payload):
            return
        # What has gone before it makes room for it only if the node hears of that first.
        self._flush()
        while self._is_ahead():
            time.sleep(_LOOK_S)

    def count(self, payload: bytes | None) -> None:
        """Count what is put now. Only one thread at a time does."""
        self._bytes += counted(payload)

    def _is_ahead(self) -> bool:
        return self._bytes - int(self._words[GRANTED]) > AHEAD_BYTES_MAX
