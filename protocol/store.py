"""The segments that a process keeps for whoever needs them, by id.

Never knows what an object is needed for, nor who holds it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import segments
from .segments import Segment

if TYPE_CHECKING:
    from .warm import Warm


class Store:
    """See the module. For any thread.

    Args:
        warm_bytes_max: so much memory of segments that are gone is kept a while for those to come.
    """

    __slots__ = ("_segments", "_warm")

    def __init__(self, warm_bytes_max: int = 0) -> None:
        self._segments: dict[bytes, Segment] = {}
        self._warm: Warm | None = None
        if warm_bytes_max and segments.are_to_be_had():
            from . import warm  # not every system has what it needs

            self._warm = warm.Warm(warm_bytes_max)

    def write(
        self, id_: bytes, buffers: Sequence[memoryview | bytes]
    ) -> tuple[Segment, list[tuple[int, int]]]:
        """Make a segment that is to be kept here, see segments.write.

        Raises:
            OSError: see there.
        """
        make = segments.write if self._warm is None else self._warm.write
        return make(id_, buffers)

    def put(self, segment: Segment) -> None:
        """Keep a segment from now on."""
        self._segments[segment.id] = segment

    def get(self, id_: bytes) -> Segment | None:
        """Return it, if it is kept."""
        return self._segments.get(id_)

    def read_out(self, id_: bytes) -> memoryview | bytes | None:
        """Return its bytes with the head, to be sent; None: it is not kept.

        Without memory for that there are none: whoever gets them finds that they are no segment.
        """
        segment = self._segments.get(id_)
        if segment is None:
            return None
        try:
            return segment.view()
        except (OSError, ValueError):
            return b""

    def pop(self, id_: bytes) -> None:
        """Close it, if it is kept."""
        segment = self._segments.pop(id_, None)
        if segment is None:
            return
        if self._warm is None:
            segment.close()
        else:
            self._warm.take_back(segment)

    def trim(self) -> None:
        """Give back to the system what memory nobody has needed for a while."""
        if self._warm is not None and len(self._warm):
            self._warm.trim()

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return sum([segment.size for segment in list(self._segments.values())])

    def __len__(self) -> int:
        return len(self._segments)

    def close(self) -> None:
        """Close them all, and keep no memory of any."""
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.close()
        for id_ in list(self._segments):
            self.pop(id_)
