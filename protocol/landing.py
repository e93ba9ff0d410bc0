"""Where a payload is put that comes in pieces: a memory file if others open it as one.

Never knows where the pieces come from; they come in order, without gaps.
"""

import errno
import os
from contextlib import suppress
from io import BytesIO

from .payload_files import ID_BYTES, is_file_like, payload_in
from .segments import (
    HEAD_BYTES,
    Segment,
    are_to_be_had,
    blank,
    map_of,
    seal,
    want_files,
    write_part,
)


class Landing:
    """One payload that comes.

    Args:
        size: of the whole payload.
    """

    __slots__ = ("_bytes", "_have", "_is_broken", "_is_unseen", "_seen", "_segment", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._have = 0
        self._is_broken = False
        self._segment: Segment | None = None
        self._bytes: BytesIO | None = None
        # A map of the file, once others want what has come so far.
        self._seen: memoryview | None = None
        self._is_unseen = False

    def write(self, data: memoryview) -> None:
        """Keep what comes next.

        Raises:
            OSError, MemoryError: there is no room.
        """
        if self._is_broken:
            raise OSError(errno.ENOSPC, "a piece of it is missing")
        self._is_broken = True  # unless all that follows is done
        if self._segment is None and self._bytes is None:
            self._open(data)
        if self._segment is not None:
            write_part(self._segment, HEAD_BYTES + self._have, data)
        elif self._bytes is not None:
            self._bytes.seek(self._have)
            self._bytes.write(data)
        self._have += len(data)
        self._is_broken = False

    def read(self, offset: int, length: int) -> memoryview:
        """Return some of what has come; it stays what it is.

        Raises:
            OSError: it cannot be read.
        """
        if self._segment is not None:
            return self._read(self._segment, HEAD_BYTES + offset, length)
        if self._bytes is None:
            return memoryview(b"")
        with self._bytes.getbuffer() as view:
            return memoryview(bytes(view[offset : offset + length]))

    def _read(self, segment: Segment, offset: int, length: int) -> memoryview:
        if self._seen is None and not self._is_unseen:
            try:
                seen = map_of(segment.fd, segment.size, private=False)
            except (OSError, ValueError):
                self._is_unseen = True  # no descriptor for a map: what is read is copied
            else:
                self._seen = memoryview(seen).toreadonly()
        if self._seen is not None:
            return self._seen[offset : offset + length]
        return memoryview(os.pread(segment.fd, length, offset))

    def finish(self) -> bytes:
        """Return the payload, of which all has come.

        Raises:
            OSError, MemoryError: there is no room.
        """
        if self._is_broken or self._have < self._size:
            raise OSError(errno.ENOSPC, "a piece of it is missing")
        if self._segment is not None:
            seal(self._segment)
            return payload_in(self._segment)
        return b"" if self._bytes is None else self._bytes.getvalue()

    def drop(self) -> None:
        """It is not needed."""
        if self._segment is not None:
            self._segment.close()

    def _open(self, first: memoryview) -> None:
        # Only payloads of these kinds can be opened by others as files.
        if is_file_like(first) and are_to_be_had():
            want_files()
            with suppress(OSError):
                self._segment = blank(os.urandom(ID_BYTES), HEAD_BYTES + self._size)
                return
        self._bytes = BytesIO()
