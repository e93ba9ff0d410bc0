"""Looks at the processes of workers: what the kernel says of them.

Never judges, and never looks longer than a few files take: whom to look at, and how closely, is the
core's to say. Where the system has no /proc, psutil tells what it can, and the rest is unknown.
"""

import os
import platform
import time
from collections.abc import Sequence
from typing import Final

from .events import FUTEX, IN_CPU, OTHER, PAGE, THREADS, Evidence, ThreadSeen
from .page import HEALTH_CHECK, WITNESS, PulsePage
from .process import Process

#: with more threads than this a process is not looked at closely enough to say what all of them do
THREADS_MAX: Final = 64
#: what a worker says of its progress may be anything
COUNT_MAX: Final = 1e300
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_TICKS_S: Final = 1.0 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01

#: machine -> number -> name, of calls in which a process may sleep for long
_CALLS: Final = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 19: "readv", 20: "writev", 23: "select", 34: "pause",
        35: "nanosleep", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg",
        47: "recvmsg", 61: "wait4", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync",
        128: "rt_sigtimedwait", 130: "rt_sigsuspend", 202: "futex", 230: "clock_nanosleep",
        232: "epoll_wait", 247: "waitid", 257: "openat", 270: "pselect6", 271: "ppoll",
        281: "epoll_pwait", 288: "accept4", 299: "recvmmsg", 441: "epoll_pwait2", 449: "futex",
    },
    "aarch64": {
        22: "epoll_pwait", 25: "fcntl", 32: "flock", 56: "openat", 63: "read", 64: "write",
        65: "readv", 66: "writev", 72: "pselect6", 73: "ppoll", 82: "fsync", 83: "fdatasync",
        95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep",
        133: "rt_sigsuspend", 137: "rt_sigtimedwait", 202: "accept", 203: "connect",
        206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 242: "accept4",
        243: "recvmmsg", 260: "wait4", 441: "epoll_pwait2", 449: "futex",
    },
}  # fmt: skip
_NAMES: Final = _CALLS.get(platform.machine(), {})
_LETTERS: Final = {
    "running": "R", "disk-sleep": "D", "stopped": "T", "tracing-stop": "t", "zombie": "Z",
}  # fmt: skip
#: what a thread is found doing: has a processor, or what it does cannot be known
_ON_CPU: Final = "running"
_UNKNOWN: Final = ""
_UNSEEN: Final = ("", 0.0, 0)
_HAS_PROC: Final = os.path.exists("/proc/self/stat")


def look(page: PulsePage, worker: Process, depth: int, threads: Sequence[int] = ()) -> Evidence:
    """Return what there is to see of a worker; of a process not born, or gone, the page only."""
    number, pid = worker.command.worker, worker.pid
    seen = page.look(worker.command.page_slot)
    beat, running, phase, began_s, progress, done, total, started, loop = seen
    loop_s = max(0.0, time.perf_counter() - loop) if loop > 0.0 else 0.0 if loop else -1.0
    elapsed_s = max(0.0, time.perf_counter() - began_s) if running or phase == HEALTH_CHECK else 0.0
    done, total = (done if abs(done) <= COUNT_MAX else 0.0), (total if total <= COUNT_MAX else -1.0)
    if depth == PAGE or not pid:
        return Evidence(
            number,
            beat,
            running,
            phase,
            elapsed_s,
            progress,
            done=done,
            total=total,
            started=started,
            loop_s=loop_s,
        )
    state, cpu_s, memory_bytes = process(pid)
    io_bytes = io_of(pid) if state else -1
    doing, where = "", ""
    if state not in ("R", ""):
        where = call_of(pid, pid)
    if state and depth == THREADS:
        doing = all_threads(pid, page.slot(worker.command.page_slot)[WITNESS])
    calls = tuple(found for one in threads if (found := thread(pid, one)) is not None)
    return Evidence(
        number, beat, running, phase, elapsed_s, progress, state, cpu_s, io_bytes, doing,
        "" if where == _ON_CPU else where[:32], done, total, memory_bytes, started, loop_s,
        calls,
    )  # fmt: skip


def process(pid: int) -> tuple[str, float, int]:
    """Return (letter of the main thread's state, CPU seconds of all, resident bytes of its own).

    The letter is "" if it is gone, or cannot be seen now; bytes are 0 where they are not known.
    Its own are none that lie in a file or in shared memory: ten readers of a value would each
    answer for the whole of it.
    """
    try:
        stat = _read(f"/proc/{pid}/stat")
        pages = _read(f"/proc/{pid}/statm").split()
    except OSError:
        # Gone; or this process has no descriptor left, and could load nothing either.
        return _UNSEEN if _HAS_PROC else _process_elsewhere(pid)
    # The name stands in brackets and may hold anything, brackets and blanks too.
    fields = stat.rpartition(b")")[2].split()
    cpu_s = (int(fields[11]) + int(fields[12])) * _TICKS_S
    # The kernel counts both now and then only: shared ones may for a moment be more than all.
    memory_bytes = max(0, int(pages[1]) - int(pages[2])) * _PAGE_BYTES
    return fields[0].decode("ascii"), cpu_s, memory_bytes


def thread(pid: int, number: int) -> ThreadSeen | None:
    """Return what one thread of a process does; None: it is gone, or cannot be seen."""
    place = f"/proc/{pid}/task/{number}"
    try:
        fields = _read(f"{place}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    state, cpu_s = fields[0].decode("ascii"), (int(fields[11]) + int(fields[12])) * _TICKS_S
    where = "" if state == "R" else call_of(pid, number)
    return ThreadSeen(
        number, state, cpu_s, io_of(f"{pid}/task/{number}"), "" if where == _ON_CPU else where[:32]
    )


def threads(pid: int) -> tuple[int, bool]:
    """Return how many threads a process has, and whether all of them are known to sleep."""
    try:
        numbers = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return 1, False
    for number in numbers[:THREADS_MAX]:
        try:
            stat = _read(f"/proc/{pid}/task/{number}/stat")
        except OSError:
            continue  # it has just ended
        if stat.rpartition(b")")[2].split(None, 1)[0] not in (b"S", b"D"):
            return len(numbers), False
    return len(numbers), len(numbers) <= THREADS_MAX


def switches(pid: int, number: int) -> int:
    """Return how often a thread has given up its processor of its own accord; -1: unknown."""
    try:
        status = _read(f"/proc/{pid}/task/{number}/status")
        return int(status.partition(b"\nvoluntary_ctxt_switches:")[2].split(None, 1)[0])
    except (OSError, IndexError, ValueError):
        return -1


def _process_elsewhere(pid: int) -> tuple[str, float, int]:
    import psutil  # type: ignore[import-untyped]  # needed on other systems only

    try:
        seen = psutil.Process(pid)
        times, memory = seen.cpu_times(), seen.memory_info()
        memory_bytes = max(0, memory.rss - getattr(memory, "shared", 0))
        return _LETTERS.get(seen.status(), "S"), times.user + times.system, memory_bytes
    except (psutil.Error, OSError):
        return "", 0.0, 0


def io_of(pid: int | str) -> int:
    """Return what a process (or PID/task/THREAD) has read and written, in bytes; -1: unknown."""
    try:
        words = _read(f"/proc/{pid}/io").split()
        return int(words[1]) + int(words[3])
    except (OSError, IndexError, ValueError):
        return -1


def call_of(pid: int, thread: int) -> str:
    """Return the system call that a thread is in, _ON_CPU if in none, _UNKNOWN if hidden.

    The kernel shows the call only to whoever may trace the process; where it sleeps it shows more
    freely, and the two must not contradict each other.
    """
    call = _named_call(f"/proc/{pid}/task/{thread}/syscall")
    if call == _ON_CPU:
        return call
    try:
        place = _read(f"/proc/{pid}/task/{thread}/wchan").decode("ascii", "replace")
    except OSError:
        place = ""
    if place in ("", "0"):
        return call
    if not call or (call == FUTEX and not place.startswith(FUTEX)):
        return FUTEX if place.startswith(FUTEX) else place
    return call


def _named_call(path: str) -> str:
    try:
        number, _, _ = _read(path).partition(b" ")
    except OSError:
        return _UNKNOWN
    if number.strip() == b"running":
        return _ON_CPU
    try:
        return _NAMES.get(int(number), f"call {int(number)}" if int(number) >= 0 else _UNKNOWN)
    except ValueError:
        return _UNKNOWN


def all_threads(pid: int, witness: int = 0) -> str:
    """Return what all threads of a process do: FUTEX, IN_CPU, OTHER, or "" where that is hidden.

    Args:
        pid: the process.
        witness: one of its threads, which counts only while it does not wait for the node.
    """
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return ""
    if len(threads) > THREADS_MAX:
        return ""
    found = FUTEX
    for thread in threads:
        call = call_of(pid, int(thread))
        if call == _ON_CPU:
            found = IN_CPU
        elif call == _UNKNOWN:
            return ""
        elif call != FUTEX and int(thread) != witness:
            return OTHER
    return found


def _read(path: str) -> bytes:
    # open() would look for the encoding and make a buffer: this is a third of the time.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)
