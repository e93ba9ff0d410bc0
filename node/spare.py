"""Keeps a descriptor in reserve: a process that has used up its own still gets a packet.

Never serves anything else, and never says who used them up. One reserve a process: a fork has its
own copy. Packets of work and results need the reserve for a moment only, see node/channel.py.
"""

import contextlib
import errno
import os
from typing import Final

#: errors that mean: neither this process nor any other can open anything more
NO_ROOM: Final = (errno.EMFILE, errno.ENFILE)

_kept: Final[list[int]] = []


def keep(count: int = 1) -> bool:
    """Have so many descriptors in reserve; return whether there are."""
    try:
        while len(_kept) < count:
            _kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def make_room(count: int) -> bool:
    """Give up the reserve if so many can be opened then; `keep` is to be called afterwards."""
    if not keep(count):
        return False
    with contextlib.suppress(IndexError):  # another thread may want room, too
        while True:
            os.close(_kept.pop())
    return True


def no_room(what: str) -> OSError:
    """Return the error of a process that has no descriptor left for something."""
    limit: object = "?"
    with contextlib.suppress(ImportError):
        import resource  # not on every system

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OSError(
        errno.EMFILE,
        f"Too many open files: no descriptor for {what}, the limit is {limit} a process "
        "(raise it: ulimit -n, or LimitNOFILE= of the service)",
    )
