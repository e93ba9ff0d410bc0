"""Python loads this at start from PYTHONPATH: what the system does seldom, or to root never.

FAULT_NO_FORK=FILE       forks fail while the file is there
FAULT_NO_START=FILE      a worker that is a fresh interpreter removes it, and never begins
FAULT_STOP=FILE          a scheduler removes it and stops, amid a turn that sees to its health file
FAULT_CLOCKS=DIRECTORY   clocks of scheduler and nodes jump, see support/clocks.py
"""

import errno
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Callable

_switch = os.environ.get("FAULT_NO_FORK", "")
_hangs = os.environ.get("FAULT_NO_START", "")
_stop = os.environ.get("FAULT_STOP", "")
_clocks = os.environ.get("FAULT_CLOCKS", "")
_fork, _utime = os.fork, os.utime


def fork() -> int:
    """Fork, unless the file is there."""
    if os.path.exists(_switch):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()


def begin_never() -> None:
    """Stand still for good, if nobody else has."""
    try:
        os.unlink(_hangs)
    except FileNotFoundError:
        return
    time.sleep(1e6)


def utime_and_stop(file: int) -> None:
    """Touch the file, and stop until somebody lets us go on."""
    _utime(file)
    try:
        os.unlink(_stop)
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)


def let_jump(path: str) -> None:
    """Have the clocks of this process, and of what it forks, be as far ahead as a file says."""
    with open(path, "r+b") as file:
        ahead = mmap.mmap(file.fileno(), 16)
    real, read = time.time, time.clock_gettime

    def jumped(clock: int) -> float:
        if clock == time.CLOCK_REALTIME:
            return read(clock) + float(struct.unpack_from("d", ahead, 0)[0])
        if clock == time.CLOCK_BOOTTIME:
            return read(clock) + float(struct.unpack_from("d", ahead, 8)[0])
        return read(clock)

    def wall() -> float:
        return real() + float(struct.unpack_from("d", ahead, 0)[0])

    def wall_ns() -> int:
        return int(wall() * 1e9)

    made: tuple[Callable[[int], float], Callable[[], float], Callable[[], int]]
    made = jumped, wall, wall_ns
    time.clock_gettime, time.time, time.time_ns = made


if _switch:
    os.fork = fork
if _stop and "drumbeat.scheduler" in sys.orig_argv:
    os.utime = utime_and_stop
if _hangs and "drumbeat.node.worker" in sys.orig_argv:
    begin_never()
if _clocks:
    for _side in ("scheduler", "node"):
        if f"drumbeat.{_side}" in sys.orig_argv:
            let_jump(os.path.join(_clocks, _side))
