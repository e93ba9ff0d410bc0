"""Files on disk for what memory has no room for: without a name, so none is left behind.

Never a file in memory under another name: a directory that lies in memory is refused, and said so.

What is spilled is read as it was before, by a map of the file: the kernel brings its pages back,
and lets them go where memory is needed for something else.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

#: file systems that are memory
IN_MEMORY: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"})
#: where temporary files go that are to stay for longer, often on disk where the others are not
_SECOND: Final = "/var/tmp"  # no name is ever made there
#: copied in one call, between which an interrupt is heard
_STEP_BYTES: Final = 16 << 20
_MOUNTS: Final = Path("/proc/self/mountinfo")


class Disk:
    """Where spilled bytes go.

    Args:
        directory: "": the system's for temporary files; if that lies in memory, /var/tmp.
        bytes_max: so much may lie there at a time.
    """

    __slots__ = ("_directory", "bytes_max")

    def __init__(self, directory: str, bytes_max: int) -> None:
        self._directory = directory
        self.bytes_max = bytes_max

    def copy(self, source: int, size: int) -> int:
        """Return the descriptor of a new file with the first bytes of another one.

        Args:
            source: a descriptor of the other, from which can be read.
            size: how many bytes.

        Raises:
            OSError: no room, no directory, or one that lies in memory; says which.
        """
        fd = self._opened()
        try:
            # What is promised now is there later: a full disk would else be told after the fact.
            os.posix_fallocate(fd, 0, size)
            done = 0
            while done < size:
                count = os.sendfile(fd, source, done, min(_STEP_BYTES, size - done))
                if not count:
                    raise OSError(errno.EIO, "the file to be spilled is shorter than it should be")
                done += count
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _opened(self) -> int:
        import tempfile  # seldom needed

        directory = self._directory or tempfile.gettempdir()
        if not self._directory and kind_of(directory) in IN_MEMORY:
            directory = _SECOND
        kind = kind_of(directory)
        if kind in IN_MEMORY:
            text = f"{directory} lies in memory ({kind}); name another spill_directory"
            raise OSError(errno.EINVAL, text)
        if hasattr(os, "O_TMPFILE"):
            with suppress(OSError):  # not every file system can
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fd, path = tempfile.mkstemp(dir=directory)
        try:
            os.unlink(path)
        except BaseException:
            os.close(fd)
            raise
        return fd


def kind_of(directory: str, mounts: Path = _MOUNTS) -> str:
    """Return the kind of the file system that a directory lies on; "": it is not known."""
    try:
        device = os.stat(directory).st_dev
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        words = line.split()
        if len(words) > 2 and words[2] == number and "-" in words:
            return words[words.index("-") + 1]
    return ""
