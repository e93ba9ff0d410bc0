"""Memory segments: made here, found in other processes of this machine, mapped.

Never knows what lies in a segment, nor who needs it.

A segment is a file in memory, without a name, whose bytes and size can not change again (it is
sealed). It begins with a head, which tells whose bytes they are. As long as any process keeps a
descriptor of it, or a map, its memory is taken.

Where its maker keeps a map of its own, that one may write into it: but only when its object is
gone, and nobody has the file or a map any more (warm.py).
"""

import errno
import mmap
import os
import stat
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from .machine import allow_files
from .parcels import Hint

#: how much of a segment's file its head takes
HEAD_BYTES: Final = 64
#: where buffers begin: a line of the processors' caches, and what vector instructions like
_ALIGNED_BYTES: Final = 64
#: as people see it in /proc/PID/fd
NAME: Final = "drumbeat-segment"
#: magic, the id's length, the id, the size of the file
_HEAD: Final = struct.Struct("<16sB16sQ")
_ID_BYTES_MAX: Final = 16
#: descriptors that a process wants that has segments: each may take two
FILES_WANTED: Final = 8192
#: how often a file is opened that its maker has closed for a moment, and how long it is left
_OPEN_TRIES: Final = 5
#: and where nobody else has its bytes: the maker's thread may wait for its interpreter amid that
_FIND_TRIES: Final = 2_000
_OPEN_AGAIN_S: Final = 0.001
#: written in one call, between which an interrupt is heard
_STEP_BYTES: Final = 16 << 20
#: counts the uses of all segments of this process: see Segment.used
USES: Final = count(1)


_has_files = False


def want_files() -> None:
    """Allow this process the descriptors that many segments take, as far as the system does."""
    global _has_files  # noqa: PLW0603  # a process has one limit
    if not _has_files:
        _has_files = True
        with suppress(OSError, ValueError):
            allow_files(FILES_WANTED)


def are_to_be_had() -> bool:
    """Return whether this system has memory files that can be sealed, and be found by others."""
    if not hasattr(os, "memfd_create") or not os.path.isdir("/proc/self/fd"):
        return False
    # Not every system has them; and once there are no descriptors left, neither could be loaded.
    import fcntl
    import resource  # noqa: F401  # loaded for the others of this file

    return hasattr(fcntl, "F_ADD_SEALS")


def head_of(id_: bytes, size: int) -> bytes:
    """Return the head of the segment of that id, whose whole file has that size."""
    return _HEAD.pack(NAME.encode(), len(id_), id_, size).ljust(HEAD_BYTES, b"\0")


class Map(mmap.mmap):
    """A map of a segment."""

    #: the segment, where whoever has the map may want to pass that on
    segment: "Segment | None" = None
    #: where it is written to: for so much of it there is memory for sure
    written: int = 0
    #: and so much of it has been written to by way of this map
    touched: int = 0


class Segment:
    """One segment that this process keeps. Any thread may use it, also while another closes it."""

    __slots__ = ("fd", "id", "inode", "is_spilled", "memory", "size", "used")

    def __init__(
        self, id_: bytes, fd: int, size: int, inode: int, memory: Map | None = None
    ) -> None:
        self.id = id_
        #: -1 once it is closed
        self.fd = fd
        #: with the head; the file may be longer
        self.size = size
        self.inode = inode
        #: its whole file, where its maker alone may write what comes after it; see warm.py
        self.memory = memory
        #: it lies on disk by now; see spill.py
        self.is_spilled = False
        #: the larger, the later it was used
        self.used = 0

    @property
    def memory_bytes(self) -> int:
        """How much memory it takes; where that was used before, it may be more than the bytes."""
        memory = self.memory
        if memory is not None:
            return max(self.size, memory.written)
        return 0 if self.is_spilled else self.size

    def hint(self, machine: str) -> Hint:
        """Return where others of this machine may find it."""
        return Hint(machine, os.getpid(), self.fd, self.inode, self.size)

    def map(self, *, private: bool) -> Map:
        """Return its bytes, see `map_or_copy`.

        Raises:
            OSError: it is closed, or there is no memory.
        """
        fd = self.fd
        self.used = next(USES)
        found: Map | None = None
        try:
            if fd >= 0:
                found = self._mapped(fd, private=private)
        except (OSError, ValueError):
            if self.fd == fd:
                raise
        # Closed meanwhile: by then the number may have been another file's.
        if found is None or self.fd != fd:
            raise OSError(errno.EBADF, "the segment is closed")
        return found

    def _mapped(self, fd: int, *, private: bool) -> Map:
        if self.memory is None:
            return map_or_copy(fd, self.size, private=private)
        try:
            # Whoever reads opens it anew: by that the kernel knows whether anybody still does.
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            return _copy_of(fd, self.size)
        try:
            return map_or_copy(own, self.size, private=private)
        finally:
            os.close(own)

    def view(self) -> memoryview:
        """Return its bytes with the head, read-only; they stay when it is closed.

        Raises:
            OSError: it is closed, or there is no memory.
        """
        return memoryview(self.map(private=False)).toreadonly()

    def close(self) -> None:
        """Let go of it; who has mapped it keeps the bytes."""
        fd, self.fd, self.memory = self.fd, -1, None
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


def write(
    id_: bytes, buffers: Sequence[memoryview | bytes]
) -> tuple[Segment, list[tuple[int, int]]]:
    """Make a segment of these bytes; return it with the offset and size of each buffer.

    Buffers are contiguous. Offsets count from the begin of the file and are aligned.

    Raises:
        OSError: no memory, no such files here, or so few descriptors that others need them.
    """
    views, spans, size = laid_out(id_, buffers)
    segment = blank(id_, size)
    try:
        for view, (offset, _) in zip(views, spans, strict=True):
            _write_at(segment.fd, view, offset)
        seal(segment)
    except BaseException:
        segment.close()
        raise
    return segment, spans


def laid_out(
    id_: bytes, buffers: Sequence[memoryview | bytes]
) -> tuple[list[memoryview], list[tuple[int, int]], int]:
    """Return the buffers as bytes, offset and size of each in a segment, and the size of that."""
    if not 0 < len(id_) <= _ID_BYTES_MAX:
        raise ValueError(f"an object's id has up to {_ID_BYTES_MAX} bytes, not {len(id_)}")
    views = [_flat(buffer) for buffer in buffers]
    spans: list[tuple[int, int]] = []
    size = HEAD_BYTES
    for view in views:
        offset = aligned(size)
        spans.append((offset, view.nbytes))
        size = offset + view.nbytes
    return views, spans, size


def blank(id_: bytes, size: int) -> Segment:
    """Make a segment whose bytes are still to be written, behind its head: until `seal` is called.

    Args:
        id_: of the segment.
        size: of the whole file, the head included.

    Raises:
        OSError: no memory, no such files here, or so few descriptors that others need them.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "this system has no memory files")
    fd = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if is_for_others(fd):
            raise OSError(errno.EMFILE, "so few descriptors are left that others need them")
        os.ftruncate(fd, size)  # where memory is promised only if it is there, this says no
        _write_at(fd, memoryview(head_of(id_, size)), 0)
        segment = Segment(id_, -1, size, os.fstat(fd).st_ino)
    except BaseException:
        os.close(fd)
        raise
    segment.fd = fd
    return segment


def write_part(segment: Segment, offset: int, data: memoryview) -> None:
    """Write some bytes of a segment that is not sealed yet.

    Args:
        segment: made by `blank`.
        offset: from the begin of the file.
        data: contiguous bytes.

    Raises:
        OSError: no memory.
    """
    _write_at(segment.fd, data, offset)


def seal(segment: Segment) -> None:
    """All bytes of a segment are written: neither they nor its size ever change again.

    Raises:
        OSError: somebody has mapped it to write.
    """
    import fcntl  # not every system has it

    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, seals)


def fill(
    fd: int, head: bytes, views: Sequence[memoryview], spans: Sequence[tuple[int, int]]
) -> None:
    """Write a segment's head and its buffers into a file.

    Raises:
        OSError: no memory.
    """
    _write_at(fd, memoryview(head), 0)
    for view, (offset, _) in zip(views, spans, strict=True):
        _write_at(fd, view, offset)


def aligned(offset: int) -> int:
    """Return where a buffer begins before which so many bytes are taken."""
    return -(-offset // _ALIGNED_BYTES) * _ALIGNED_BYTES


def find(hint: Hint, id_: bytes) -> int | None:
    """Return a descriptor of a segment of this machine; None: it is not there, or not to be had.

    Whatever else lies there now is left alone. The caller compares the machine, and closes the
    descriptor. It may take seconds.
    """
    return found_at(hint.pid, hint.fd, hint.inode, hint.size, id_, _FIND_TRIES)


def found_at(
    pid: int, fd: int, inode: int, size: int, id_: bytes, tries: int = _OPEN_TRIES
) -> int | None:
    """As `find`: of a process of this machine, its descriptor `fd`."""
    path = f"/proc/{pid}/fd/{fd}"
    try:
        # First looked at only: to open a pipe or a device may block, or set something going.
        if not _may_be(os.stat(path), size):
            return None
        found = _opened(path, tries)
    except (OSError, ValueError):
        return None
    try:
        believed = not is_for_others(found) and _is_it(found, inode, size, id_)
    except (OSError, ValueError, struct.error):
        believed = False
    except BaseException:
        os.close(found)
        raise
    if not believed:
        os.close(found)
        return None
    return found


def taken(fd: int, *, from_disk: bool = False) -> Segment:
    """Return the segment whose descriptor was handed over: it is ours from now on.

    Args:
        fd: of its file.
        from_disk: it may lie there too, see `_is_it`: who hands it over might end us anyway.

    Raises:
        ValueError: it is none.
        OSError: it cannot be looked at.
    """
    try:
        found = os.fstat(fd)
        head = os.pread(fd, _HEAD.size, 0) if stat.S_ISREG(found.st_mode) else b""
        if len(head) < _HEAD.size:
            raise ValueError("what was handed over is no file")
        _, length, id_, _ = _HEAD.unpack(head)
        id_, size = id_[:length], found.st_size
        is_spilled = from_disk and _seals_of(fd) is None
        believed = _is_own(found) if is_spilled else bool(_seals_of(fd))
        if not id_ or not believed or os.pread(fd, HEAD_BYTES, 0) != head_of(id_, size):
            raise ValueError("the file that was handed over is no segment")
    except BaseException:
        os.close(fd)
        raise
    segment = Segment(id_, fd, size, found.st_ino)
    segment.is_spilled = is_spilled
    return segment


def map_of(fd: int, size: int, *, private: bool) -> Map:
    """Return a map of a segment's whole file.

    Args:
        fd: may be closed afterwards.
        size: of the file.
        private: it can be written to, and nobody else sees that; else it is read-only.

    Raises:
        OSError: no memory, or no descriptor: a map takes one.
        ValueError: the file is shorter.
    """
    if private:
        return Map(fd, size, access=mmap.ACCESS_COPY)
    # Memory is shared all the same, as nobody writes. Kernels before 6.7 refuse MAP_SHARED here.
    return Map(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)


def map_or_copy(fd: int, size: int, *, private: bool) -> Map:
    """Return a map of a segment's whole file, see `map_of`, or a copy if it cannot be mapped.

    A map takes a descriptor: one of those that others need is not taken for it. A copy can be
    written to in either case.

    Raises:
        OSError: no memory.
        ValueError: the file is shorter.
    """
    try:
        if _has_one_more(fd):
            return map_of(fd, size, private=private)
    except OSError as error:
        if error.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
    return _copy_of(fd, size)


def _copy_of(fd: int, size: int) -> Map:
    memory = anonymous(size)
    view = memoryview(memory)
    done = 0
    while done < size:
        count = os.preadv(fd, (view[done : done + _STEP_BYTES],), done)
        if not count:
            raise ValueError("the file is shorter than its segment")
        done += count
    return memory


def anonymous(size: int) -> Map:
    """Return memory of this process alone that can be written to; it takes no descriptor.

    Raises:
        OSError: no memory.
    """
    return Map(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _flat(buffer: memoryview | bytes) -> memoryview:
    view = memoryview(buffer)
    # An empty one of several dimensions is the one thing that cannot be cast.
    return view.cast("B") if view.nbytes else memoryview(b"")


def _write_at(fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < view.nbytes:
        done += os.pwrite(fd, view[done : done + _STEP_BYTES], offset + done)


def _opened(path: str, tries: int) -> int:
    """Return a descriptor of a file.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    for _ in range(tries - 1):
        try:
            return os.open(path, flags)
        except BlockingIOError:
            time.sleep(_OPEN_AGAIN_S)  # its maker asks whether it has readers
    return os.open(path, flags)


def _may_be(found: os.stat_result, size: int) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_size >= size >= HEAD_BYTES


def _is_it(fd: int, inode: int, size: int, id_: bytes) -> bool:
    """Return whether a file is the segment that was looked for."""
    found = os.fstat(fd)
    if not _may_be(found, size) or os.pread(fd, HEAD_BYTES, 0) != head_of(id_, size):
        return False
    seals = _seals_of(fd)
    if seals is None:
        # On disk, where it is another file than it was, and nothing keeps its owner from cutting
        # it off, which would end who reads it. But it has no name: nobody else gets at it than
        # this user, who may end the reader anyway.
        return _is_own(found)
    return found.st_ino == inode and bool(seals)


def _is_own(found: os.stat_result) -> bool:
    return not found.st_nlink and found.st_uid == os.geteuid()


def _seals_of(fd: int) -> int | None:
    """Return the seal against shrinking of a file in memory, or 0; None: it lies elsewhere."""
    import fcntl  # not every system has it

    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return None


def _has_one_more(fd: int) -> bool:
    """Return whether a duplicate of a descriptor would be none of those that others need.

    Raises:
        OSError: there is none at all.
    """
    duplicate = os.dup(fd)
    try:
        return not is_for_others(duplicate)
    finally:
        os.close(duplicate)


def is_for_others(fd: int) -> bool:
    """Return whether a descriptor is one of the last quarter, which is never taken by segments.

    The system hands out the lowest number that is free.
    """
    import resource  # not every system has it

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit != resource.RLIM_INFINITY and fd >= limit - limit // 4
