"""The door to calls that not every system has, each with what is done where it is missing.

Never decides: callers say what they want, this room says whether it could be had. The settings
`socket_kind` and `memory_files` force a fallback, so that it can be tried on any system.

    adopting orphans    Linux only; elsewhere a grandchild that left its group outlives its worker
    dying with parent   Linux only; elsewhere the end of the lifeline pipe says so
    SOCK_SEQPACKET      else SOCK_DGRAM: no end of file, so the keeper alone tells of a death
    memory files        else an unlinked file in /dev/shm or the directory for temporary files
    punching holes      else the file keeps what was read until it is emptied
"""

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

#: in /proc/PID/stat, counted from the state on
_STARTED = 19

#: Whether a process can become the parent of its orphaned descendants.
ADOPTS_ORPHANS = sys.platform == "linux"

#: A packet of this length fits the buffer of any socket of ours.
SOCKET_BUFFER_BYTES = 256 << 10


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _prctl(option: int, value: int) -> bool:
    libc = _libc()
    return libc is not None and libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0


def name_process(role: str) -> None:
    """Have `ps` and `top` show what this process is, where they can: "drum:worker"."""
    libc = _libc()
    if libc is not None:
        libc.prctl(_PR_SET_NAME, f"drum:{role}".encode(), 0, 0, 0)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> bool:
    """Have the kernel signal this process when `parent` ends; at once if that has already.

    It follows the parent's thread that made this process: for parents with one thread only.
    """
    done = _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)
    return done


@contextlib.contextmanager
def ends_if_it_fails() -> Iterator[None]:
    """End this worker if what is done here fails: somebody waits for what is lost with it.

    Its node sees that at once, and its task is tried again elsewhere as after any death.
    """
    try:
        yield
    except OSError as error:
        with contextlib.suppress(OSError):
            os.write(2, f"drumbeat: a worker cannot hand over what it made: {error}\n".encode())
        os._exit(1)


def outlive_parent() -> None:
    """Undo `die_with_parent`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def has_ended(pipe: int, within_s: float = 0.0) -> bool:
    """Return whether nobody can write into a pipe any more, or soon cannot."""
    poll = select.poll()
    poll.register(pipe, 0)  # a hang-up is always told
    return bool(poll.poll(within_s * 1000))


def spawns(worker_start: str) -> bool:
    """Return whether each worker is to be a fresh interpreter: spawn, fork or auto."""
    # Elsewhere a process may be forked too, but system libraries do not bear it.
    return worker_start == "spawn" or (worker_start == "auto" and sys.platform != "linux")


def socket_pair(kind: str = "auto") -> tuple[socket.socket, socket.socket]:
    """Return two joined sockets that keep the bounds of packets: seqpacket, dgram or auto."""
    if kind != "dgram":
        try:
            return _sized(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        except (AttributeError, OSError):
            if kind == "seqpacket" or not hasattr(socket, "AF_UNIX"):
                raise
    return _sized(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))


def _sized(pair: tuple[socket.socket, socket.socket]) -> tuple[socket.socket, socket.socket]:
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
    return pair


def memory_file(kind: str = "auto", name: str = "drumbeat") -> int:
    """Return a descriptor of an empty file without a name, in memory: memfd, file or auto."""
    if kind != "file":
        try:
            return os.memfd_create(name, os.MFD_CLOEXEC)
        except (AttributeError, OSError):
            if kind == "memfd":
                raise
    import tempfile  # seldom needed, and it loads slowly

    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir()
    try:
        # It has a name at no time: whoever is killed amid this leaves nothing.
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):  # not every system and not every file system can do that
        fd, path = tempfile.mkstemp(prefix="drumbeat-", dir=directory)
        os.unlink(path)
        return fd


class Bell:
    """Wakes a thread of another process that reads `fd` there. Nothing is lost if nobody hears.

    Raises:
        OSError: no descriptor is free.
    """

    __slots__ = ("_ring_fd", "fd")

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._ring_fd = os.eventfd(0)
            return
        self.fd, self._ring_fd = os.pipe()
        os.set_blocking(self._ring_fd, False)

    def ring(self) -> None:
        """Wake it."""
        with contextlib.suppress(BlockingIOError):  # it has not heard for very long
            os.write(self._ring_fd, (1).to_bytes(8, sys.byteorder))

    def close(self) -> None:
        """Close this end."""
        os.close(self.fd)
        if self._ring_fd != self.fd:
            os.close(self._ring_fd)


def append_only(fd: int) -> None:
    """Let every write to this open file go to its end."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def punch_hole(fd: int, length: int) -> bool:
    """Give back the memory of a file's first `length` bytes; its size and the rest stay."""
    libc = _libc()
    if libc is None:
        return False
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    return bool(libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(length)) == 0)


def process_state(pid: int) -> str:
    """Return the letter of a process's state (T: stopped, t: traced, Z: dead), "" if unknown."""
    stat = _stat(pid)
    return stat[0] if stat else ""


def catches(pid: int, number: int) -> bool | None:
    """Return whether a process has a handler for a signal; None: the system does not tell."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            _, _, rest = file.read().partition(b"SigCgt:")
        return bool(int(rest.split(None, 1)[0], 16) >> (number - 1) & 1)
    except (OSError, IndexError, ValueError):
        return None


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`; [] where the system does not tell."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        pass
    try:
        everyone = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [one for one in everyone if (stat := _stat(one)) and int(stat[1]) == pid]


def carriers(mark: bytes, pipe: int) -> list[int]:
    """Return the other processes that were started with `mark` or have `pipe` open.

    The mark is a part of their environment; [] where the system does not tell.
    """
    ours = f"pipe:[{os.fstat(pipe).st_ino}]"
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in pids if pid != os.getpid() and _carries(pid, mark, ours)]


def _carries(pid: int, mark: bytes, pipe: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            if mark in file.read():
                return True
        return any(
            os.readlink(f"/proc/{pid}/fd/{fd}") == pipe for fd in os.listdir(f"/proc/{pid}/fd")
        )
    except OSError:
        return False  # gone meanwhile, or somebody else's


def _stat(pid: int) -> list[str]:
    # The name stands in brackets and may hold anything, brackets and blanks too.
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return []


def started_s(pid: int) -> float | None:
    """Return when a process was started, by our clock; None where the system does not tell."""
    stat = _stat(pid)
    if not stat or not hasattr(time, "CLOCK_BOOTTIME"):
        return None  # what the system counts is that clock
    return int(stat[_STARTED]) / os.sysconf("SC_CLK_TCK")


def signal_to(pid: int, number: int) -> None:
    """Signal a process; 0: nobody."""
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or another user's
            os.kill(pid, number)


def signal_group(pid: int, number: int) -> None:
    """Signal the group that a process leads."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        signal_to(pid, number)  # it is gone, or has not yet made its group


def empty(fd: int) -> None:
    """Read all there is in a pipe that does not block."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def flush_output() -> None:
    """Write out what Python's own streams hold, so that no fork writes it a second time."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):  # a log on a full disk ends no node
                stream.flush()
