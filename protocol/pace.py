"""How much of a payload is asked for ahead on one connection: little at first.

Never the clock. A piece counts only once all of it has come, and a source of which nothing comes
for long is given up; so none may be larger than what the link carries in a part of that time.
"""

from typing import Final

#: asked for on a connection that is not known yet
FIRST_BYTES: Final = 16 << 10
#: no ask is for less, unless the payload ends there; else many would cost its holder more than its
#: asker
ASK_BYTES_MIN: Final = 4 << 10
#: of the time after which a source is given up, what the bytes that are asked for ahead may take
_AHEAD_PART: Final = 8
#: and what one piece may take before all that was known of the link is held for outdated
_LATE_PART: Final = 4
#: links let the first bytes after a pause pass at once: no more than so many times as much is
#: asked for next
_GROWTH: Final = 2


class Pace:
    """See the module.

    Args:
        piece_bytes_max: most data of one piece.
        bytes_max: never is more asked for ahead, and at least one ask's least.
        silence_s: a source that gives nothing for so long is given up.
    """

    __slots__ = ("_bytes", "_first", "_most", "_silence_s", "_took_s", "ahead")

    def __init__(self, piece_bytes_max: int, bytes_max: int, silence_s: float) -> None:
        self._most = bytes_max
        self._first = min(FIRST_BYTES, piece_bytes_max, bytes_max)
        self._silence_s = silence_s
        # What has come of late, and in which time.
        self._bytes = 0.0
        self._took_s = 0.0
        #: so many bytes of a payload are asked for ahead of what has come
        self.ahead = self._first

    def came(self, length: int, took_s: float) -> None:
        """A piece has come.

        Args:
            length: of its data.
            took_s: since the one before, or since it was asked for.
        """
        if took_s * _LATE_PART > self._silence_s:
            self._bytes = self._took_s = 0.0
        self._bytes += length
        self._took_s += took_s
        most = min(self._most, self.ahead * _GROWTH)
        if self._took_s > 0.0:
            carried = self._bytes / self._took_s * self._silence_s / _AHEAD_PART
            most = int(min(most, carried))
        self.ahead = max(self._first, most)
        if self._took_s > self._silence_s:
            self._bytes /= 2
            self._took_s /= 2

    @property
    def is_first(self) -> bool:
        """Whether no less could be asked for."""
        return self.ahead == self._first


def ask_bytes_min(piece_bytes_max: int) -> int:
    """Return the least that may be asked for, unless the payload ends there."""
    return min(ASK_BYTES_MIN, piece_bytes_max)
