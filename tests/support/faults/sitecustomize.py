"""Python loads this at start from PYTHONPATH: forks fail while a certain file is there.

A user who is root has no limit of processes, so the system's refusal is said in its place.
"""

import errno
import os

_switch = os.environ.get("FAULT_NO_FORK", "")
_fork = os.fork


def fork() -> int:
    """Fork, unless the file is there."""
    if os.path.exists(_switch):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()


if _switch:
    os.fork = fork
