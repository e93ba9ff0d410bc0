"""How a process gets at a segment: its own, one that it can map, or bytes that it asks for.

Never opens a pickle, and keeps nothing: what it hands out lives as long as somebody uses it.
"""

import contextlib
import mmap
import os
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary, finalize

from .errors import RemoteProtocolError
from .ids import show
from .parcels import Hint, Parcel, Part
from .segments import HEAD_BYTES, Store, anonymous, find, head_of, map_or_copy


class Segments:
    """Gives the bytes behind parcels. Any thread may ask; asking may wait for another machine.

    Whoever maps a segment holds it: its home may not use its memory for anything else.
    """

    def __init__(
        self,
        store: Store,
        machine: str,
        fetch: Callable[[bytes], Any],
        hold: Callable[[bytes], None],
        drop: Callable[[bytes], None],
    ) -> None:
        """Do not map anything yet.

        Args:
            store: what this process keeps itself.
            machine: this one; see machine.identity.
            fetch: waits for an object, and returns its bytes: a segment's whole file.
            hold: one more hold of an object.
            drop: one less. Called amid anything: takes no lock.
        """
        self._store = store
        self._machine = machine
        self._fetch = fetch
        self._hold = hold
        self._drop = drop
        #: read-only, so that whoever wants the same can have the same
        self._live: WeakValueDictionary[bytes, mmap.mmap] = WeakValueDictionary()

    def buffers(self, parcel: Parcel) -> tuple[memoryview | bytes, list[memoryview]]:
        """Return the pickle stream and the buffers that belong to it.

        A map lives as long as one of its buffers, or of what is made of them.

        Raises:
            RemoteProtocolError: the parcel does not fit its segments.
            DrumbeatError: bytes had to be asked for, and are lost, or not here in time.
            OSError: no memory.
        """
        whole: dict[bytes, memoryview] = {}
        views: list[memoryview] = []
        for part in parcel.parts:
            view = whole.get(part.segment)
            if view is None:
                view = whole[part.segment] = self._whole(part.segment, parcel)
            views.append(_cut(view, part))
        if parcel.stream is None:
            return views[0], views[1:]
        return parcel.stream, views

    def _whole(self, id_: bytes, parcel: Parcel) -> memoryview:
        if not parcel.frozen:
            return memoryview(self._mapped(id_, parcel.hints.get(id_), private=True))
        mapping = self._live.get(id_)
        if mapping is None:
            mapping = self._mapped(id_, parcel.hints.get(id_), private=False)
            self._live[id_] = mapping
        return memoryview(mapping).toreadonly()

    def _mapped(self, id_: bytes, hint: Hint | None, *, private: bool) -> mmap.mmap:
        self._hold(id_)
        is_held = True
        try:
            mapping = self._here(id_, hint, private=private)
            if mapping is None:
                return self._fetched(id_)
            is_held = False
            finalize(mapping, self._drop, id_).atexit = False
            return mapping
        finally:
            if is_held:
                self._drop(id_)

    def _here(self, id_: bytes, hint: Hint | None, *, private: bool) -> mmap.mmap | None:
        own = self._store.get(id_)
        if own is not None:
            with contextlib.suppress(OSError, ValueError):
                return own.map(private=private)
        # Two machines that have no name are not the same one.
        if hint is None or not hint.machine or hint.machine != self._machine:
            return None
        fd = find(hint, id_)
        if fd is None:
            return None
        try:
            return map_or_copy(fd, hint.size, private=private)
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def _fetched(self, id_: bytes) -> mmap.mmap:
        data = memoryview(self._fetch(id_))
        size = data.nbytes
        if size < HEAD_BYTES or data[:HEAD_BYTES] != head_of(id_, size):
            raise RemoteProtocolError(
                f"the object {show(id_)} is no segment of its {size:,} bytes, though a large "
                "value says that it lies there"
            )
        memory = anonymous(size)
        with memoryview(memory) as view:
            view[:] = data
        return memory


def _cut(whole: memoryview, part: Part) -> memoryview:
    end = part.offset + part.size
    if end > whole.nbytes:
        raise RemoteProtocolError(
            f"Parcel.parts: one ends at {end:,}, and its segment {show(part.segment)} has "
            f"{whole.nbytes:,} bytes"
        )
    view = whole[part.offset : end]
    return view.toreadonly() if part.read_only else view
