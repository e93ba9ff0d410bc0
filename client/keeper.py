"""The large parts of what a client packs: into memory segments, each an object of its own.

Never packs anything, and takes no memory before the bound on what is submitted allows it.
"""

from collections.abc import Callable, Sequence

from ..protocol import segments
from ..protocol.errors import StoreFull
from ..protocol.ids import ObjectId
from ..protocol.messages import Outcome, ValueRow
from ..protocol.references import ObjectRef
from ..protocol.session import Keeper, Keeping, Kept, Session
from ..protocol.settings import Settings
from ..protocol.store import Store


def are_wanted(settings: Settings) -> bool:
    """Return whether there are to be segments, and can be."""
    return bool(settings.segment_bytes_min) and segments.are_to_be_had()


class SegmentKeeper:
    """Keeps the buffers of calls for one session.

    Args:
        session: whose objects the segments become.
        settings: of this process.
        machine: the one on which they can be found.
        store: takes the segments.
        wait_for_room: called with a number of bytes before they are taken.
        append: leaves an object to the core, before whatever names it; fails if the session ended.
        settle: waits a moment for something to hold, while it becomes known what is not needed any
            more here, or (if told so) elsewhere either; None: that is known at once.
    """

    def __init__(
        self,
        session: Session,
        settings: Settings,
        machine: str,
        store: Store,
        wait_for_room: Callable[[int], None],
        append: Callable[[ValueRow], None],
        settle: Callable[[Callable[[], bool], bool], None] | None = None,
    ) -> None:
        self.bytes_min = settings.segment_bytes_min
        #: the same for what is put: that is no task, and waits for none
        self.at_once: Keeper = _Keeper(self.bytes_min, self._keep)
        #: and for what can be divided: no more at once than other machines can be sent
        self.sendable: Keeper = _Keeper(self.bytes_min, self._keep_sendable)
        self._bytes_max = settings.segment_bytes_max
        self._sendable_max = settings.value_bytes_max
        self._session = session
        self._machine = machine
        self._store = store
        self._wait_for_room = wait_for_room
        self._append = append
        self._settle = settle

    def __call__(self, buffers: Sequence[memoryview]) -> Kept | None:
        """See protocol.session.Keeper; StoreFull: neither memory nor disk has room."""
        size = _size_of(buffers)
        if size <= self._bytes_max:
            self._wait_for_room(size)
        return self._keep(buffers)

    def _keep_sendable(self, buffers: Sequence[memoryview]) -> Kept | None:
        # What is sent is the whole file: with a head, and each buffer aligned.
        file_bytes = _size_of(buffers) + segments.HEAD_BYTES * (len(buffers) + 1)
        return None if file_bytes > self._sendable_max else self(buffers)

    def _keep(self, buffers: Sequence[memoryview]) -> Kept | None:
        if _size_of(buffers) > self._bytes_max:
            return None
        segments.want_files()
        size = _size_of(buffers)
        self._make_room(size)
        with self._store.room_for(size):
            return self._kept(buffers)

    def _kept(self, buffers: Sequence[memoryview]) -> Kept | None:
        id_ = ObjectId(self._session.new_id())
        try:
            segment, spans = self._store.write(id_, buffers)
        except OSError:
            return None  # no memory for it, or no descriptor: it travels as what is small does
        hint = segment.hint(self._machine)
        try:
            # Whoever is told of the object may ask for its bytes at once.
            self._store.put(segment)
            # The one hold of the object, made before it: should Ctrl-C come anywhere here, the
            # core is told that it went, after the row, or of what it has never heard of.
            ref: ObjectRef[None] = ObjectRef(id_, self._session)
            self._append(ValueRow(id_, Outcome.VALUE, None, segment.size))
            return Kept(id_, hint, tuple(spans), ref)
        except BaseException:
            self._store.pop(id_)
            raise

    def _make_room(self, size: int) -> None:
        store = self._store
        if store.has_room(size):
            return
        settle = self._settle
        if settle is None:
            store.make_room(size)
            return
        settle(lambda: store.has_room(size), False)
        try:
            store.make_room(size)
        except StoreFull:
            if not store.fits(size):
                raise
            # What workers have read is let go of by them when its task has ended, and told then.
            settle(lambda: store.has_room(size), True)
            store.make_room(size)


class _Keeper:
    """See protocol.session.Keeper."""

    def __init__(self, bytes_min: int, keep: Callable[[Sequence[memoryview]], Kept | None]) -> None:
        self.bytes_min = bytes_min
        self._keep = keep

    def __call__(self, buffers: Sequence[memoryview]) -> Kept | None:
        return self._keep(buffers)


def _size_of(buffers: Sequence[memoryview]) -> int:
    return sum([buffer.nbytes for buffer in buffers])


def for_puts(keeper: Keeping | None) -> Keeping | None:
    """Return the keeper for what is put."""
    return keeper.at_once if isinstance(keeper, SegmentKeeper) else keeper


def for_divisible(keeper: Keeping | None) -> Keeping | None:
    """Return the keeper for what is divided where it is refused as too large."""
    return keeper.sendable if isinstance(keeper, SegmentKeeper) else keeper
