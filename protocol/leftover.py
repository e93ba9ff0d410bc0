"""What would be left in the file system: sockets and directories that nobody owns any more.

Never removes a socket that somebody else has made meanwhile. Never touches a directory whose owner
lives, nor one that no local cluster has locked: the owner holds a lock on the file in it as long
as it lives.
"""

import fcntl
import os
from typing import Final

LOCK: Final = "lock"


class SocketFile:
    """The file of a socket that this process has bound."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._identity = self._look()

    def remove(self) -> None:
        """Remove it, if it is still the same."""
        if self._identity is not None and self._look() == self._identity:
            os.unlink(self._path)

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return (found.st_dev, found.st_ino)


def remove_if_orphaned(directory: str) -> bool:
    """Remove a local cluster's directory if its owner is gone; say whether it was."""
    try:
        lock_fd = os.open(os.path.join(directory, LOCK), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        from shutil import rmtree  # loads every compressor: at the end only

        rmtree(directory, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(lock_fd)
    return True
