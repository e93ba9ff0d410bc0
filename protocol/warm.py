"""Memory that segments leave behind: the next ones are written into it as fast as a copy.

Never hands out memory that anybody may still read: the kernel says whether somebody does.

Fresh memory costs some thirty times what a copy into it does. So a segment of which nobody has the
file or a map any more leaves its memory here, for a while. What tells is a lease: the kernel grants
one on a file only while nobody else has it open, and whoever maps a segment has opened it himself.
Then the segment's head is wiped out, and it is asked for again. So who opens the file later finds
no head in it, and who opened it before is seen.
"""

import errno
import fcntl
import mmap
import os
import resource
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Final

from . import clock
from .segments import HEAD_BYTES, NAME, Map, Segment, fill, head_of, laid_out
from .segments import write as write_once

#: what lies here unused for so long is given back to the system
IDLE_S: Final = 3.0
#: memory is made in steps of this share of its size, so that the next one of its kind fits
_STEPS: Final = 8
_PAGE_BYTES: Final = 4096
#: copied in one go, between which an interrupt is heard, and other threads come to run
_STEP_BYTES: Final = 4 << 20
#: no file and no map that is opened later can be written to (Linux 5.1)
_F_SEAL_FUTURE_WRITE: Final = 0x10
_MADV_POPULATE_WRITE: Final = 23
_F_SETOWN_EX: Final = 15
_F_OWNER_PGRP: Final = 2


class _Blank:
    """Memory without a segment, and the only descriptor of its file."""

    __slots__ = ("fd", "inode", "memory", "since_s")

    def __init__(self, segment: Segment, memory: Map) -> None:
        self.fd = -1
        self.inode = segment.inode
        self.memory = memory
        self.since_s = clock.now_s()
        self.fd, segment.fd, segment.memory = segment.fd, -1, None

    def __del__(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Warm:
    """The memory of segments that are gone. Any thread may use it, amid anything: nobody waits.

    Args:
        bytes_max: so much is kept at most; 0: none.
    """

    __slots__ = ("_asking", "_blanks", "_bytes_max", "_pid")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: by inode; the last is the latest
        self._blanks: dict[int, _Blank] = {}
        self._pid = os.getpid()
        #: held by who asks the kernel; never waited for
        self._asking = threading.Lock()

    def __len__(self) -> int:
        return len(self._blanks)

    def write(
        self, id_: bytes, buffers: Sequence[memoryview | bytes]
    ) -> tuple[Segment, list[tuple[int, int]]]:
        """Make a segment of these bytes, see segments.write, in memory that lies here if it fits.

        Raises:
            OSError: no memory, no such files here, or so few descriptors that others need them.
        """
        views, spans, size = laid_out(id_, buffers)
        if size > self._bytes_max or self._pid != os.getpid() or not can_be():
            return write_once(id_, buffers)
        blank = self._take(size)
        if blank is None:
            segment = _made(id_, size, views, spans)
            return write_once(id_, buffers) if segment is None else (segment, spans)
        memory = blank.memory
        if size > memory.written:
            # To write where there is no memory yet would be an error if there is none; of a map
            # it would be the end of the program.
            os.posix_fallocate(blank.fd, memory.written, size - memory.written)
            memory.written = size
        for view, (offset, _) in zip(views, spans, strict=True):
            for at in range(0, view.nbytes, _STEP_BYTES):
                step, begin = view[at : at + _STEP_BYTES], offset + at
                _touch(memory, begin, begin + step.nbytes)
                memory[begin : begin + step.nbytes] = step
        # The last: what has no head is no segment, whatever else is in it.
        memory[:HEAD_BYTES] = head_of(id_, size)
        segment = Segment(id_, -1, size, blank.inode, memory)
        segment.fd, blank.fd = blank.fd, -1  # at no moment both have it: an interrupt closes both
        return segment, spans

    def take_back(self, segment: Segment) -> None:
        """Close a segment; its memory stays here if nobody reads it any more."""
        memory = segment.memory
        if memory is None or segment.fd < 0 or self._pid != os.getpid():
            segment.close()
            return
        blank = _Blank(segment, memory)
        if not self._is_alone(blank.fd):
            return  # and who reads may need the head yet, to pass it on
        memory[:HEAD_BYTES] = bytes(HEAD_BYTES)
        if not self._is_alone(blank.fd):
            return
        self._blanks[blank.inode] = blank
        self.keep_at_most(self._bytes_max)

    def is_free(self, segment: Segment) -> bool:
        """Return whether nobody reads a segment, as far as that can be known."""
        return segment.memory is None or self._is_alone(segment.fd)

    def _is_alone(self, fd: int) -> bool:
        # Of two who ask at once, one gives the lease of the other back, and whom it told nothing.
        if not self._asking.acquire(blocking=False):
            return False
        try:
            return _is_alone(fd)
        finally:
            self._asking.release()

    def keep_at_most(self, bytes_max: int) -> None:
        """Give back what is more than that, the oldest first."""
        while self._blanks and self.bytes > bytes_max:
            self._drop_oldest()

    def trim(self) -> None:
        """Give back to the system what has not been used for a while."""
        until_s = clock.now_s() - IDLE_S
        for inode, blank in list(self._blanks.items()):
            if blank.since_s <= until_s:
                self._blanks.pop(inode, None)

    @property
    def bytes(self) -> int:
        """How much memory lies here."""
        return sum([len(blank.memory) for blank in list(self._blanks.values())])

    def close(self) -> None:
        """Give back all of it, and keep nothing from now on."""
        self._bytes_max = 0
        self._blanks.clear()

    def _drop_oldest(self) -> None:
        with suppress(KeyError, RuntimeError, StopIteration):  # another thread was quicker
            del self._blanks[next(iter(self._blanks))]

    def _take(self, size: int) -> _Blank | None:
        fitting = sorted(
            (len(blank.memory), inode)
            for inode, blank in list(self._blanks.items())
            if size <= len(blank.memory) <= 2 * size
        )
        for _, inode in fitting:
            blank = self._blanks.pop(inode, None)
            if blank is not None:
                return blank
        return None


def _made(
    id_: bytes, size: int, views: Sequence[memoryview], spans: Sequence[tuple[int, int]]
) -> Segment | None:
    """Return a segment in fresh memory that can be used again; None: better not.

    Raises:
        OSError: no memory.
    """
    fd = _opened()
    try:
        # It takes twice as many descriptors: one is its map's.
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit != resource.RLIM_INFINITY and fd >= limit // 4:
            return None
        step = max(_PAGE_BYTES, (1 << size.bit_length() - 1) // _STEPS)
        os.ftruncate(fd, -(-size // step) * step)
        fill(fd, head_of(id_, size), views, spans)
        try:
            memory = _sealed(fd)
        except OSError:  # no descriptor for the map
            return None
        memory.written = size
        segment = Segment(id_, -1, size, os.fstat(fd).st_ino, memory)
        segment.fd, fd = fd, -1
        return segment
    finally:
        if fd >= 0:
            os.close(fd)


def _opened() -> int:
    first = os.memfd_create(NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        # What opens it by its name counts as one who has it open; the first descriptor does not.
        return os.open(f"/proc/self/fd/{first}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(first)


def _sealed(fd: int) -> Map:
    """Return the one map of a file that can be written to, and seal the file."""
    memory = Map(fd, 0)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return memory


def _tell_nobody(fd: int) -> None:
    """Have the kernel tell nobody that somebody else wants a file on which we have a lease.

    It would tell us, by a signal that ends a program. But it tells a group of processes if one is
    named, and a thread that is no process leads none. When a lease is given back, it forgets that.

    Raises:
        OSError: this kernel does not, or no thread can be named.
    """
    process, thread = os.getpid(), threading.get_native_id()
    if thread == process:
        found = (one.native_id for one in threading.enumerate())
        thread = next((one for one in found if one not in {None, process}), None) or 0
    if thread:
        fcntl.fcntl(fd, _F_SETOWN_EX, struct.pack("ii", _F_OWNER_PGRP, thread))
        return
    told: list[bool] = []

    def name() -> None:
        with suppress(OSError):  # told below
            _tell_nobody(fd)
            told.append(True)

    other = threading.Thread(target=name, daemon=True)
    try:
        other.start()
    except RuntimeError as error:  # no more threads, or the interpreter ends
        raise OSError(errno.EAGAIN, str(error)) from None
    other.join()
    if not told:
        raise OSError(errno.ENOSYS, "the kernel tells no group of leases")


def _touch(memory: Map, begin: int, end: int) -> None:
    """Have a map show its pages at once, where it has not yet: one by one it takes long."""
    first = max(begin, memory.touched) // _PAGE_BYTES * _PAGE_BYTES
    if end > memory.touched:
        memory.touched = end
        with suppress(OSError):  # Linux 5.14
            memory.madvise(_MADV_POPULATE_WRITE, first, end - first)


def _is_alone(fd: int) -> bool:
    """Return whether nobody has a file open, or a map of it, but by this descriptor's opening."""
    try:
        _tell_nobody(fd)
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        finally:  # also if Ctrl-C comes between: nobody could open it
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


@cache
def can_be() -> bool:
    """Return whether this kernel tells who reads a file in memory, as it is tried out here."""
    try:
        fd = _opened()
    except (OSError, AttributeError):
        return False
    try:
        os.ftruncate(fd, _PAGE_BYTES)
        memory = _sealed(fd)
        reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            seen = [not _is_alone(fd)]
            read = Map(reader, _PAGE_BYTES, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        finally:
            os.close(reader)
        seen.append(not _is_alone(fd))
        read.close()
        return all(seen) and _is_alone(fd) and len(memory) == _PAGE_BYTES
    except (OSError, ValueError, AttributeError):
        return False
    finally:
        os.close(fd)
