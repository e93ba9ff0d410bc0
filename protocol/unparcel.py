"""How a process gets at a segment: its own, one that it can map, or bytes that it asks for.

Never opens a pickle, and keeps nothing: what it hands out lives as long as somebody uses it.
"""

import mmap
import os
import time
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary, finalize

from .absent import reason_of
from .errors import GetTimeoutError, ObjectLost, RemoteProtocolError
from .ids import show
from .parcels import Hint, Parcel, Part
from .payload_files import file_of
from .segments import HEAD_BYTES, anonymous, find, head_of, map_or_copy
from .store import Store


class Segments:
    """Gives the bytes behind parcels. Any thread may ask; asking may wait for another machine.

    Whoever maps a segment holds it: its home may not use its memory for anything else.
    """

    def __init__(
        self,
        store: Store,
        machine: str,
        fetch: Callable[[bytes, float | None], Any],
        hold: Callable[[bytes], None],
        drop: Callable[[bytes], None],
        *,
        keeps_fetched: bool = False,
    ) -> None:
        """Do not map anything yet.

        Args:
            store: what this process keeps itself.
            machine: this one; see machine.identity.
            fetch: waits for an object, so many seconds at most, and returns its bytes: a segment's
                whole file. None: however long it takes.
            hold: one more hold of an object.
            drop: one less. Called amid anything: takes no lock.
            keeps_fetched: what was fetched stays with its object anyway, so who may not write to it
                needs no copy.
        """
        self._store = store
        self._machine = machine
        self._fetch = fetch
        self._hold = hold
        self._drop = drop
        self._keeps_fetched = keeps_fetched
        #: read-only, so that whoever wants the same can have the same
        self._live: WeakValueDictionary[bytes, mmap.mmap] = WeakValueDictionary()

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[memoryview | bytes, list[memoryview]]:
        """Return the pickle stream and the buffers that belong to it.

        A map lives as long as one of its buffers, or of what is made of them.

        Args:
            parcel: what names them.
            until_s: see Session.buffers.

        Raises:
            RemoteProtocolError: the parcel does not fit its segments.
            GetTimeoutError: bytes had to be asked for, and were not here in time.
            DrumbeatError: they are lost.
            OSError: no memory.
        """
        whole: dict[bytes, memoryview] = {}
        views: list[memoryview] = []
        for part in parcel.parts:
            view = whole.get(part.segment)
            if view is None:
                view = whole[part.segment] = self._whole(part.segment, parcel, until_s)
            views.append(_cut(view, part))
        if parcel.stream is None:
            return views[0], views[1:]
        return parcel.stream, views

    def _whole(self, id_: bytes, parcel: Parcel, until_s: float | None) -> memoryview:
        hint, frozen = parcel.hints.get(id_), parcel.frozen
        found = self._live.get(id_) if frozen else None
        if found is not None:
            return memoryview(found).toreadonly()
        self._hold(id_)
        is_held = True
        try:
            mapping = self._here(id_, hint, private=not frozen)
            if mapping is None:
                data = self._fetched(id_, until_s)
                file = file_of(data)
                if frozen and (self._keeps_fetched or file is not None):
                    return data.toreadonly()
                if file is not None:
                    # A segment's whole file lies in another one, behind the head of that.
                    return memoryview(file.map(private=True))[HEAD_BYTES:]
                mapping = _copied(data)
            else:
                is_held = False
                finalize(mapping, self._drop, id_).atexit = False
        finally:
            if is_held:
                self._drop(id_)
        if not frozen:
            return memoryview(mapping)
        self._live[id_] = mapping
        return memoryview(mapping).toreadonly()

    def _here(self, id_: bytes, hint: Hint | None, *, private: bool) -> mmap.mmap | None:
        own = self._store.get(id_)
        if own is not None:
            try:
                return own.map(private=private)
            except OSError:
                if own.fd >= 0:
                    raise  # it is here, and nowhere else: to ask for it would not help
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

    def _fetched(self, id_: bytes, until_s: float | None) -> memoryview:
        try:
            timeout_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            data = memoryview(self._fetch(id_, timeout_s))
        except GetTimeoutError:
            raise GetTimeoutError(
                "the value is there, but its bytes, which lie elsewhere, were not here in time"
            ) from None
        if reason := reason_of(data):
            text = f"the bytes of a large value, {show(id_)}, are lost: {reason}"
            raise ObjectLost(text, object=show(id_))
        size = data.nbytes
        if size < HEAD_BYTES or data[:HEAD_BYTES] != head_of(id_, size):
            raise RemoteProtocolError(
                f"the object {show(id_)} is no segment of its {size:,} bytes, though a large "
                "value says that it lies there"
            )
        return data


def _copied(data: memoryview) -> mmap.mmap:
    memory = anonymous(data.nbytes)
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
