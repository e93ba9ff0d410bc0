"""Large values that have come, in files of memory: within the budget of a store.

Never decides what is kept here, and never drops any. What has not been used for longest is written
down, by a thread of its own, and its row has a payload then that lies on disk: with the same bytes,
so that nobody need know.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from queue import SimpleQueue
from typing import Final, NamedTuple

from . import clock
from .ids import ObjectId
from .messages import Failure, Outcome, ValueRow
from .payload_files import file_of, written_to
from .segments import Segment
from .store import Store

#: where nothing could go to disk, it is tried again after so long
AGAIN_S: Final = 1.0


class Fullness(NamedTuple):
    """What there is room for where nothing more can go to disk."""

    #: so much more may lie in memory
    room_bytes: int
    memory_bytes: int
    spilled_bytes: int
    #: why no more is there, and what to do; for people
    why: str

    def refusal(self, id_: ObjectId, size: int) -> ValueRow:
        """Return what stands for a value of that size, for which there is no room."""
        text = f"there is no room for this value of {size:,} bytes: {self.why}"
        details: dict[str, str | int | float | bool | None] = {
            "needed_bytes": size,
            "memory_bytes": self.memory_bytes,
            "spilled_bytes": self.spilled_bytes,
        }
        return ValueRow(id_, Outcome.FAILURE, failure=Failure("StoreFull", text, details))


class _Kept:
    """A row whose payload lies in a file."""

    __slots__ = ("id", "is_spilled", "row", "size")

    def __init__(self, id_: ObjectId, row: ValueRow, file: Segment) -> None:
        self.id = id_
        self.row = row
        self.size = file.size
        self.is_spilled = file.is_spilled


class Stowage:
    """See the module. For any thread, amid anything; only what is said so waits for the disk.

    Args:
        store: whose budget it is.
        wake: called by another thread when `admits` or `turn` might answer otherwise than before.
        who: has that store, for people.
    """

    def __init__(self, store: Store, wake: Callable[[], None], who: str = "this process") -> None:
        self._store = store
        self._wake = wake
        self._who = who
        self._bytes_max = store.bytes_max
        #: held for a moment only
        self._lock = threading.RLock()
        self._kept: dict[ObjectId, _Kept] = {}
        self._bytes = self._spilled_bytes = 0
        #: admitted in this turn; and what waits for room to be admitted, as asked in this turn
        self._coming_bytes = self._wanted_bytes = 0
        self._is_asked = False
        #: why the last could not go to disk
        self.why = ""
        #: nothing can, since when; and whether that was told
        self._full_since_s: float | None = None
        self._full_why = ""
        self._is_told = False
        self._thread: threading.Thread | None = None
        # None: look what there is to do; payloads: let go of them; False: end. The one kind of
        # queue that may be filled amid anything, a finalizer included.
        self._due: SimpleQueue[bytes | bool | None] = SimpleQueue()
        self._failure: BaseException | None = None
        self._is_closed = False
        store.beside = self

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """How much memory they take."""
        return self._bytes

    @property
    def spilled_bytes(self) -> int:
        """How much of them lies on disk."""
        return self._spilled_bytes

    # -------------------------------------------------------------------- what comes and goes

    def keep(self, rows: Iterable[tuple[ObjectId, ValueRow]]) -> None:
        """Count these from now on: the home of these ids has them, and their payloads are files."""
        with self._lock:
            for id_, row in rows:
                file = file_of(row.payload)
                if file is None or self._is_closed or id_ in self._kept:
                    continue
                kept = self._kept[id_] = _Kept(id_, row, file)
                self._count(kept, 1)
        self._look()

    def free(self, ids: Collection[ObjectId]) -> None:
        """Nobody holds these any more: neither what lies in the store, nor what came."""
        store = self._store
        if count := len(store):
            for id_ in ids:
                store.pop(id_)
            if len(store) < count:
                self._has_room_again()
        if self._kept:
            self.forget(ids)

    def forget(self, ids: Iterable[ObjectId]) -> None:
        """Nobody holds these any more, of what came."""
        has_gone = False
        with self._lock:
            for id_ in ids:
                kept = self._kept.pop(id_, None)
                if kept is None:
                    continue
                has_gone = True
                self._count(kept, -1)
                if kept.is_spilled and self._thread is not None:
                    # To let go of a file on disk takes its time.
                    self._due.put(kept.row.payload)
        if has_gone:
            self._has_room_again()

    def _has_room_again(self) -> None:
        # What waits is to be looked at once more.
        with self._lock:
            self._full_since_s = None
            if self._wanted_bytes:
                self._wake()

    def admits(self, size: int) -> bool:
        """Return whether a value may come in now; if not, room is made, and `wake` called then.

        Where none can be made it may come, to be refused: see `turn`. Asked again in each turn.

        Args:
            size: of its file, in bytes. What is admitted counts until the next `turn`.
        """
        most = self._bytes_max
        if not most or self._is_closed:
            return True
        with self._lock:
            if not self._is_asked:
                self._is_asked, self._wanted_bytes = True, 0
            taken = self._store.all_bytes + self._coming_bytes
            if self._is_told or taken + size <= most or not taken:
                self._coming_bytes += size
                return True
            self._wanted_bytes = max(size, self._wanted_bytes)
        self._look()
        return False

    def turn(self) -> Fullness | None:
        """A turn of the loop ends: return how full it is; None: there is room, as far as is known.

        All that had gone by this turn is known to have gone: only now it is told that there is no
        room for more. What has ended the thread is raised, since nothing would go to disk again.
        """
        if self._failure is not None:
            raise self._failure
        if not (self._coming_bytes or self._wanted_bytes or self._full_since_s is not None):
            self._is_told = self._is_asked = False
            return None
        with self._lock:
            self._coming_bytes = 0
            if not self._is_asked:
                self._wanted_bytes = 0  # its link is over
            self._is_asked = False
            full_since_s = self._full_since_s
            if full_since_s is not None and clock.now_s() - full_since_s > AGAIN_S:
                full_since_s = self._full_since_s = None
            self._is_told = full_since_s is not None
            told = self._fullness() if self._is_told else None
        if self._wanted_bytes and not self._look():
            self._wake()
        return told

    @property
    def is_exceeded(self) -> bool:
        """Whether more lies in memory than may."""
        return bool(self._bytes_max) and self._store.all_bytes > self._bytes_max

    def _fullness(self) -> Fullness:
        store, most = self._store, self._bytes_max
        memory, spilled = store.all_bytes, store.all_spilled_bytes
        why = (
            f"{self._who} keeps {memory:,} in memory (store_bytes_max {most:,}) and {spilled:,} "
            f"on disk, and no more can go there: {self._full_why}; let go of references that are "
            "not needed, or raise the setting, and call it again"
        )
        return Fullness(max(0, most - memory), memory, spilled, why)

    def _count(self, kept: _Kept, sign: int) -> None:
        if kept.is_spilled:
            self._spilled_bytes += sign * kept.size
        else:
            self._bytes += sign * kept.size

    # ----------------------------------------------------------------------- what goes to disk

    def spill_older(self, used: int | None) -> bool:
        """Write down one that was used before that, or any; return whether it could.

        Waits for the disk. What does not fit there may be larger than others that do.
        """
        bytes_max: int | None = None
        self.why = ""
        with self._store.spilling:
            for kept, file in self._in_order():
                if used is not None and file.used > used:
                    return False
                if bytes_max is not None and kept.size >= bytes_max:
                    continue
                try:
                    self._spill(kept, file)
                except (OSError, ValueError) as error:
                    self.why, bytes_max = str(error), kept.size
                else:
                    return True
        return False

    def _in_order(self) -> list[tuple[_Kept, Segment]]:
        found = []
        for kept in list(self._kept.values()):
            file = None if kept.is_spilled else file_of(kept.row.payload)
            if file is not None:
                found.append((kept, file))
        found.sort(key=lambda one: one[1].used)
        return found

    def _spill(self, kept: _Kept, file: Segment) -> None:
        payload = written_to(self._store.written(file.fd, file.size), file)
        with self._lock:
            if self._kept.get(kept.id) is not kept:
                return  # nobody needs it any more
            self._count(kept, -1)
            kept.row.payload, kept.is_spilled = payload, True
            self._count(kept, 1)

    def _spill_one(self) -> bool:
        """Write down what was used least of all within the budget; return whether it could."""
        store, why = self._store, ""
        with store.spilling:
            found = self._in_order()
            oldest = found[0][1].used if found else None
            # What was used later goes where nothing older can.
            for spill, used in (
                (store.spill_older, oldest), (self.spill_older, None), (store.spill_older, None)
            ):  # fmt: skip
                try:
                    if spill(used):
                        return True
                except (OSError, ValueError) as error:
                    why = str(error)
            self.why = self.why or why
        return False

    def _is_over(self) -> bool:
        """Return whether something is to be written down, and could be as far as is known."""
        with self._lock:
            if self._full_since_s is not None or self._is_closed or not self._bytes_max:
                return False
            taken = self._store.all_bytes
            return taken > 0 and taken + self._wanted_bytes > self._bytes_max

    def _look(self) -> bool:
        """Have the thread write down what is to be; return whether there is anything."""
        if not self._is_over():
            return False
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="drumbeat-spill", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads, or the interpreter ends
                    self._is_full(str(error))
                    return False
                self._thread = thread
        self._due.put(None)
        return True

    def _work(self) -> None:
        try:
            while (gone := self._due.get()) is not False:
                del gone
                while self._is_over():
                    before = self._store.all_bytes
                    if not self._spill_one() and self._store.all_bytes >= before:
                        self._is_full(self.why or "what is there cannot be written down")
                    self._wake()
        except BaseException as error:  # noqa: BLE001  # raised in the owner's thread
            self._failure = error
            self._wake()

    def _is_full(self, why: str) -> None:
        self._full_why, self._full_since_s = why, clock.now_s()

    def close(self) -> None:
        """Keep nothing more within the budget. In a forked child too."""
        self._lock = threading.RLock()  # a thread of the parent may have had the other
        self._is_closed = True
        self._kept.clear()
        self._bytes = self._spilled_bytes = 0
        if self._thread is not None:
            self._due.put(False)
