"""One stream of what a worker prints: a memory file that it appends to and the node reads.

Never blocks the worker and never grows without end: what is more than the bound is cut from the
front and counted, and what has been read is given back to the system.
"""

import os
from typing import Final

from ..protocol.stack_text import of_crash
from . import kernel

#: One piece of text to forward.
_PIECE_BYTES: Final = 64 << 10
#: Read text is given back in steps of this size, the newest part stays for the tail.
_HOLE_BYTES: Final = 1 << 20
_TAIL_BYTES: Final = 2 << 10
_TAIL_LINES: Final = 20
#: The stack that a dying interpreter writes is longer: the user's frames come first in it.
_CRASH_BYTES: Final = 16 << 10
_CRASH_FRAMES: Final = 12


class Output:
    """The file of one stream of a worker.

    Args:
        memory_files: memfd, file or auto.
        bytes_max: unread text above this is cut.
    """

    __slots__ = ("_bytes_max", "_emptied", "fd", "offset")

    def __init__(self, memory_files: str, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: so much has been read
        self.offset = 0
        self._emptied = 0
        self.fd = kernel.memory_file(memory_files, "drumbeat-output")
        kernel.append_only(self.fd)

    def read(self, *, whole: bool) -> list[tuple[bytes, int]]:
        """Return new text in pieces, each with the number of bytes cut before it.

        Args:
            whole: also what does not end in a newline yet.
        """
        size = os.fstat(self.fd).st_size
        if size == self.offset:
            return []
        if size < self.offset:
            self.offset = self._emptied = 0  # a task emptied the file
        dropped = max(0, size - self.offset - self._bytes_max)
        start = self.offset + dropped
        text = os.pread(self.fd, size - start, start)
        if not whole:
            # A line is forwarded when it is complete, unless it never will be.
            end = text.rfind(b"\n") + 1
            text = text[:end] if end or len(text) < _PIECE_BYTES else text
            if not text:
                return []
        self.offset = start + len(text)
        self._give_back()
        return _pieces(text, dropped)

    def tail(self, since: int = 0) -> str:
        """Return the last lines, read or not, of what was written from this offset on.

        Of an interpreter that died these are why, and where in the user's code.
        """
        size = os.fstat(self.fd).st_size
        if since > size:
            since = 0  # the file was emptied meanwhile
        start = max(since, size - _CRASH_BYTES)
        written = os.pread(self.fd, size - start, start)
        text = of_crash(written.decode("utf-8", "replace"), _CRASH_FRAMES)
        tail = text.encode("utf-8", "replace")[-_TAIL_BYTES:].decode("utf-8", "replace")
        return "\n".join(tail.splitlines()[-_TAIL_LINES:])

    def close(self) -> None:
        """Close the node's descriptor."""
        os.close(self.fd)

    def _give_back(self) -> None:
        keep_from = self.offset - _CRASH_BYTES
        if keep_from - self._emptied < _HOLE_BYTES:
            return
        self._emptied = keep_from
        if not kernel.punch_hole(self.fd, keep_from) and (
            os.fstat(self.fd).st_size == self.offset > self._bytes_max
        ):
            # Without holes: all at once, and what is written in this very moment is lost.
            os.ftruncate(self.fd, 0)
            self.offset = self._emptied = 0


def _pieces(text: bytes, dropped: int) -> list[tuple[bytes, int]]:
    pieces = []
    while text:
        end = len(text)
        if end > _PIECE_BYTES:
            end = text.rfind(b"\n", 0, _PIECE_BYTES) + 1 or _PIECE_BYTES
        pieces.append((text[:end], dropped))
        text, dropped = text[end:], 0
    return pieces
