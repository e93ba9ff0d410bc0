"""The segments that a process keeps for whoever needs them, within a budget of memory.

Never knows what an object is needed for, nor who holds it. What has not been used for longest goes
to disk where the budget would be exceeded, and is found there by the same hints.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol, Self

from . import segments
from .errors import StoreFull
from .machine import Memory
from .segments import Segment
from .settings import Settings
from .spill import Disk

if TYPE_CHECKING:
    from .warm import Warm

#: the budget where none is set, as a share of the memory that this process may use
MEMORY_SHARE: Final = 0.3
#: who finds that all there is is being written waits so long at most, and looks so often
_WRITTEN_S: Final = 10.0
_LOOK_AGAIN_S: Final = 0.002


class Beside(Protocol):
    """What shares a store's budget; see stowage.py."""

    @property
    def bytes(self) -> int:
        """How much memory it takes."""

    @property
    def spilled_bytes(self) -> int:
        """How much of it lies on disk."""

    @property
    def why(self) -> str:
        """Why the last that was to go there could not; "": it could."""

    def spill_older(self, used: int | None) -> bool:
        """Write down one that was used before that, or any; return whether it could."""

    def close(self) -> None:
        """Keep nothing."""


class Store:
    """See the module. For any thread.

    Args:
        warm_bytes_max: so much memory of segments that are gone is kept a while for those to come.
        memory_bytes_max: so much memory they may take; 0: as much as there is.
        disk: where they go beyond that; None: nowhere.
    """

    __slots__ = ("_claims", "_disk", "_memory_bytes_max", "_segments", "_swapping", "_warm",
                 "beside", "spilling")  # fmt: skip

    def __init__(
        self, warm_bytes_max: int = 0, memory_bytes_max: int = 0, disk: Disk | None = None
    ) -> None:
        self._segments: dict[bytes, Segment] = {}
        self._memory_bytes_max = memory_bytes_max
        self._disk = disk
        #: what is being written and not kept yet -> the thread that does, and the bytes
        self._claims: dict[object, tuple[int, int]] = {}
        #: within the same budget; None: nothing is
        self.beside: Beside | None = None
        #: guards what may take long; a finalizer or a signal handler may put while it is held
        self.spilling = threading.RLock()
        #: guards against a file being closed while another takes its place; held for a moment
        self._swapping = threading.RLock()
        self._warm: Warm | None = None
        if warm_bytes_max and segments.are_to_be_had():
            from . import warm  # not every system has what it needs

            self._warm = warm.Warm(warm_bytes_max)

    @classmethod
    def of(cls, settings: Settings, *, is_trimmed: bool = True) -> Self:
        """Return a store as the settings want it.

        Args:
            settings: of this process.
            is_trimmed: somebody calls `trim` now and then.
        """
        memory_bytes_max = settings.store_bytes_max
        if not memory_bytes_max:
            memory_bytes_max = int(MEMORY_SHARE * Memory().total_bytes)
        disk_bytes_max = settings.spill_bytes_max
        disk = Disk(settings.spill_directory, disk_bytes_max) if disk_bytes_max else None
        warm_bytes_max = settings.segment_pool_bytes_max if is_trimmed else 0
        return cls(warm_bytes_max, memory_bytes_max, disk)

    @property
    def bytes_max(self) -> int:
        """How much memory may be taken; 0: as much as there is."""
        return self._memory_bytes_max

    def has_room(self, size: int) -> bool:
        """Return whether so much more stays within the budget."""
        most = self._memory_bytes_max
        if not most:
            return True
        claimed = sum([claimed for _, claimed in list(self._claims.values())])
        return self.all_bytes + claimed + size <= most

    @contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """As `make_room`; nobody else gets that room until what is written there is kept.

        Raises:
            StoreFull: see there.
        """
        claim = object()
        try:
            if self._claim(claim, size):
                yield
                return
            with self.spilling:
                while not self._claim(claim, size):
                    self.make_room(size)
            # Without it: who writes may wait for what somebody has who waits for it.
            yield
        finally:
            self._claims.pop(claim, None)

    def _claim(self, claim: object, size: int) -> bool:
        with self._swapping:
            if not self.has_room(size):
                return False
            self._claims[claim] = threading.get_ident(), size
            return True

    def fits(self, size: int) -> bool:
        """Return whether so much would be within the budget if nothing else were here."""
        return not self._memory_bytes_max or size <= self._memory_bytes_max

    def make_room(self, size: int) -> None:
        """Have so much more stay within the budget: what was not used for longest goes to disk.

        Raises:
            StoreFull: it would not, and there is nothing that can go to disk.
        """
        if not self.fits(size):
            raise self._full(size, "it alone is more than all that memory may have")
        with self.spilling:
            tried: set[bytes] = set()
            until_s = time.monotonic() + _WRITTEN_S
            while not self.has_room(size):
                segment, beside = self._least_used(tried), self.beside
                if beside is not None and beside.spill_older(segment.used if segment else None):
                    continue
                if segment is None and self._others_write() and time.monotonic() < until_s:
                    time.sleep(_LOOK_AGAIN_S)  # what they have written can go
                    continue
                if segment is None:
                    why = "" if beside is None else beside.why
                    told = f"no more can go there: {why}" if why else "nothing of that can go there"
                    raise self._full(size, told)
                tried.add(segment.id)
                try:
                    self._spill(segment)
                except (OSError, ValueError) as error:
                    if segment.fd < 0 or (beside is not None and beside.spill_older(None)):
                        continue  # it has gone meanwhile, or something less does
                    raise self._full(size, f"no more can go there: {error}") from None

    def _others_write(self) -> bool:
        thread = threading.get_ident()
        return any(other != thread for other, _ in list(self._claims.values()))

    def _full(self, size: int, why: str) -> StoreFull:
        kept, spilled, most = self.all_bytes, self.all_spilled_bytes, self._memory_bytes_max
        return StoreFull(
            f"there is no room for a large value of {size:,} bytes: this process keeps {kept:,} in "
            f"memory (store_bytes_max {most:,}) and {spilled:,} on disk, and {why}; let go of "
            "references that are not needed, or raise the setting",
            needed_bytes=size,
            memory_bytes=kept,
            spilled_bytes=spilled,
        )

    def _least_used(self, but: set[bytes]) -> Segment | None:
        found = [
            segment
            for segment in list(self._segments.values())
            if not segment.is_spilled and segment.fd >= 0 and segment.id not in but
        ]
        found.sort(key=lambda segment: segment.used)
        room = 0 if self._disk is None else self._disk.bytes_max - self.all_spilled_bytes
        found = [segment for segment in found if segment.size <= room] or found
        warm, first = self._warm, found[0] if found else None
        if warm is None:
            return first
        # To write down what somebody has mapped sets memory free only when he has ended.
        return next((segment for segment in found if warm.is_free(segment)), first)

    def spill_older(self, used: int | None) -> bool:
        """Write down one that was used before that, or any; return whether there is such a one.

        Raises:
            OSError, ValueError: it cannot be written down.
        """
        with self.spilling:
            segment = self._least_used(set())
            if segment is None or (used is not None and segment.used > used):
                return False
            try:
                self._spill(segment)
            except (OSError, ValueError):
                if segment.fd >= 0:  # else it has gone meanwhile
                    raise
            return True

    def written(self, source: int, size: int) -> int:
        """Return a descriptor of a new file on disk with the bytes of another one.

        Args:
            source: a descriptor of the other.
            size: how many bytes.

        Raises:
            OSError: they may not go there, or cannot; says why.
        """
        disk = self._disk
        if disk is None:
            raise OSError("nothing may go to disk (spill_bytes_max is 0)")
        if self.all_spilled_bytes + size > disk.bytes_max:
            raise OSError(f"spill_bytes_max is {disk.bytes_max:,}")
        return disk.copy(source, size)

    def _spill(self, segment: Segment) -> None:
        fd = segment.fd
        # One more reader: should it be closed meanwhile, its memory is not used again.
        source = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            file = self.written(source, segment.size)
        finally:
            os.close(source)
        try:
            left = Segment(segment.id, -1, segment.size, segment.inode)
            there = os.fstat(file)
            with self._swapping:
                if segment.fd != fd:
                    return  # it has gone meanwhile
                left.fd, left.memory = os.dup(fd), segment.memory
                try:
                    # Whoever was told of the descriptor finds the same bytes there as before.
                    os.dup2(file, fd, inheritable=False)
                finally:
                    # An interrupt comes before or after it. Its map is not its own after it, and
                    # not before: who maps it meanwhile is to be seen as a reader.
                    if os.path.samestat(os.fstat(fd), there):
                        segment.memory, segment.inode = None, there.st_ino
                        segment.is_spilled = True
        finally:
            os.close(file)
        self._let_go(left)

    def write(
        self, id_: bytes, buffers: Sequence[memoryview | bytes]
    ) -> tuple[Segment, list[tuple[int, int]]]:
        """Make a segment that is to be kept here, see segments.write.

        Raises:
            OSError: see there.
        """
        warm = self._warm
        return segments.write(id_, buffers) if warm is None else warm.write(id_, buffers)

    def put(self, segment: Segment) -> None:
        """Keep a segment from now on."""
        segment.used = next(segments.USES)
        self._segments[segment.id] = segment
        self._trim_to_budget(self._warm)

    def is_spilled(self, id_: bytes) -> bool:
        """Return whether a segment lies on disk."""
        segment = self._segments.get(id_)
        return segment is not None and segment.is_spilled

    def get(self, id_: bytes) -> Segment | None:
        """Return it, if it is kept."""
        segment = self._segments.get(id_)
        if segment is not None:
            segment.used = next(segments.USES)
        return segment

    def read_out(self, id_: bytes) -> memoryview | bytes | None:
        """Return its bytes with the head, to be sent; None: it is not kept.

        Without memory for that there are none: whoever gets them finds that they are no segment.
        """
        segment = self.get(id_)
        if segment is None:
            return None
        try:
            return segment.view()
        except (OSError, ValueError):
            return b""

    def pop(self, id_: bytes) -> None:
        """Close it, if it is kept."""
        with self._swapping:
            segment = self._segments.pop(id_, None)
            if segment is not None:
                self._let_go(segment)

    def _let_go(self, segment: Segment) -> None:
        warm = self._warm
        if warm is None:
            segment.close()
        else:
            warm.take_back(segment)
            self._trim_to_budget(warm)

    def _trim_to_budget(self, warm: "Warm | None") -> None:
        if warm is not None and len(warm) and self._memory_bytes_max:
            warm.keep_at_most(self._memory_bytes_max - self.all_bytes)

    def trim(self) -> None:
        """Give back to the system what memory nobody has needed for a while."""
        warm = self._warm
        if warm is not None and len(warm):
            warm.trim()

    def keep_none_warm(self) -> None:
        """Give it all back, and keep none from now on: nobody calls `trim` any more."""
        warm = self._warm
        if warm is not None:
            warm.close()

    def __len__(self) -> int:
        return len(self._segments)

    def close(self) -> None:
        """Close them all, and keep no memory of any. In a forked child too."""
        if self.beside is not None:
            self.beside.close()
        self.keep_none_warm()
        self._warm = None
        self._swapping = threading.RLock()  # a thread of the parent may have had the other
        for id_ in list(self._segments):
            self.pop(id_)

    @property
    def spilled_bytes(self) -> int:
        """How much of them lies on disk."""
        return sum([one.size for one in list(self._segments.values()) if one.is_spilled])

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return sum([one.memory_bytes for one in list(self._segments.values())])

    @property
    def all_bytes(self) -> int:
        """How much memory is taken of the budget."""
        return self.bytes + (0 if self.beside is None else self.beside.bytes)

    @property
    def all_spilled_bytes(self) -> int:
        """How much lies on disk of all that shares the budget."""
        return self.spilled_bytes + (0 if self.beside is None else self.beside.spilled_bytes)
