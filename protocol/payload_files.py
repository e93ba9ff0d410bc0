"""Large payloads in memory files: processes of one machine hand on the file, not the bytes.

Never sends anything, and never opens a pickle. Whoever knows nothing of files reads such a payload
as bytes like any other's, and may send it as such: it is a memoryview, of a map of the file.

A payload of this kind begins with its sizes, then come the pickle stream and its buffers, each
where a line of the processors' caches begins. So values are made of the file's pages in place.
"""

import errno
import os
import struct
from collections.abc import Sequence
from typing import Any, Final, cast

from .machine import identity
from .segments import (
    HEAD_BYTES,
    NAME,
    Map,
    Segment,
    aligned,
    anonymous,
    are_to_be_had,
    found_at,
    is_for_others,
    map_of,
    taken,
    want_files,
    write,
)  # fmt: skip
from .settings import Settings

#: what a segment's file begins with
_SEGMENT: Final = NAME.encode()
#: 0xC1 begins no MessagePack, and no pickle; the digit is the form
MARK: Final = b"\xc1F1"
#: of the id by which a file is told from every other one, on whatever machine
ID_BYTES: Final = 16
_COUNT: Final = struct.Struct("<3sI")
#: one size: shifted, the last bit says that nobody may write to it
_SIZE: Final = struct.Struct("<Q")


class Filing:
    """Makes files of what is large in values that are packed. One a worker.

    Args:
        bytes_min: what is smaller stays with the rest.
    """

    __slots__ = ("bytes_min", "has_made")

    def __init__(self, bytes_min: int) -> None:
        self.bytes_min = bytes_min
        #: there are, or were, such files
        self.has_made = False

    def __call__(
        self, stream: bytes, buffers: Sequence[memoryview], *, frozen: bool = False
    ) -> bytes | None:
        """Return the payload of a pickle; None: there is no room, or no such files here.

        Args:
            stream: the pickle.
            buffers: those that lie outside of it.
            frozen: nobody may write to what is made of them.
        """
        views = [memoryview(stream), *buffers]
        sizes = [_SIZE.pack(view.nbytes << 1 | (frozen or view.readonly)) for view in views]
        index = b"".join((_COUNT.pack(MARK, len(views)), *sizes))
        try:
            segment, _ = write(os.urandom(ID_BYTES), [memoryview(index), *views])
            payload = payload_in(segment)
        except (OSError, ValueError):
            return None
        self.has_made = True
        return payload


def file_of(payload: Any) -> Segment | None:
    """Return the file that a payload lies in; None: it lies in none."""
    if type(payload) is not memoryview:
        return None
    mapping = payload.obj
    return mapping.segment if isinstance(mapping, Map) else None


def may_be_file(payload: Any) -> bool:
    """Say quickly whether a payload may lie in a file."""
    return type(payload) is memoryview


def place_of(segment: Segment) -> tuple[int, int, int, int, bytes]:
    """Return where others of this machine find a file, as long as this process keeps it.

    Returns:
        (pid, descriptor, inode, size of the whole file, id)
    """
    return os.getpid(), segment.fd, segment.inode, segment.size, segment.id


def opened_at(pid: int, fd: int, inode: int, size: int, id_: bytes) -> bytes | None:
    """Return the payload that a process has there; None: it is not there, or there is no room."""
    want_files()
    found = found_at(pid, fd, inode, size, id_)
    return None if found is None else handed(found, from_disk=True)


def handed(fd: int, *, from_disk: bool = False) -> bytes | None:
    """Return the payload in a file that was handed over, which is taken; None: no payload is.

    It is a copy where descriptors are few.

    Args:
        fd: of the file.
        from_disk: it may lie there, where who hands it over could cut it off.
    """
    want_files()
    try:
        segment = taken(fd, from_disk=from_disk)
        payload = bytes(payload_in(segment)) if is_for_others(fd) else payload_in(segment)
    except (OSError, ValueError):
        return None
    return payload if is_file_like(payload) else None


def machine_of(settings: Settings) -> str:
    """Return the word of this machine for those whose files are opened here; "": nobody's are."""
    if not settings.segment_bytes_min or not are_to_be_had():
        return ""
    return settings.machine or identity()


def is_filed(payload: bytes) -> bool:
    """Return whether a payload is of this kind, wherever it lies."""
    return payload[:3] == MARK


def is_file_like(payload: bytes | memoryview) -> bool:
    """Return whether a payload is of a kind that lies in files: this one, or a whole segment."""
    return payload[:3] == MARK or payload[: len(_SEGMENT)] == _SEGMENT


def parts_of(payload: bytes) -> tuple[memoryview, list[memoryview]]:
    """Return the pickle stream of such a payload, and its buffers in their order.

    What they are made of is this caller's alone: it may write to it, and nobody sees that.

    Raises:
        ValueError: it is damaged.
        OSError: no memory.
    """
    sizes = _sizes(memoryview(payload))
    segment = file_of(payload)
    if segment is not None:
        whole = memoryview(segment.map(private=True))[HEAD_BYTES:]
    elif all(size & 1 for size in sizes):
        whole = memoryview(payload)
    else:
        memory = memoryview(anonymous(len(payload)))
        memory[:] = payload
        whole = memory
    views: list[memoryview] = []
    at = _COUNT.size + len(sizes) * _SIZE.size
    for size in sizes:
        # In the file, which has a head, everything is aligned.
        begin = aligned(HEAD_BYTES + at) - HEAD_BYTES
        at = begin + (size >> 1)
        view = whole[begin:at]
        if view.nbytes != size >> 1:
            raise ValueError(f"it ends at {len(payload):,}, and one of its buffers at {at:,}")
        views.append(view.toreadonly() if size & 1 else view)
    return views[0], views[1:]


def _sizes(payload: memoryview) -> list[int]:
    try:
        mark, count = _COUNT.unpack_from(payload)
        if mark != MARK or not count:
            raise ValueError("it is of a form that is not known here")
        if count > len(payload) // _SIZE.size:
            raise ValueError(f"it names {count:,} buffers, more than it has room for")
        return [_SIZE.unpack_from(payload, _COUNT.size + i * _SIZE.size)[0] for i in range(count)]
    except struct.error as error:
        raise ValueError(str(error)) from None


def payload_in(segment: Segment) -> bytes:
    """Return the payload that lies in a file, as all that read it take it.

    Raises:
        OSError: no memory.
    """
    return _seen_through(segment.map(private=False), segment)


def written_to(file: int, segment: Segment) -> bytes:
    """Return the payload of a segment whose bytes lie in a file on disk too: the one there.

    Args:
        file: a descriptor, which is taken.
        segment: in memory.

    Raises:
        OSError: no memory, or no descriptor for a map.
    """
    there = Segment(segment.id, file, segment.size, os.fstat(file).st_ino)
    there.is_spilled = True
    if is_for_others(file):
        raise OSError(errno.EMFILE, "so few descriptors are left that others need them")
    return _seen_through(map_of(file, there.size, private=False), there)


def _seen_through(mapping: Map, segment: Segment) -> bytes:
    mapping.segment = segment
    # Whoever has only bytes to do with gets along with it; types could not say so.
    return cast("bytes", memoryview(mapping)[HEAD_BYTES:].toreadonly())
