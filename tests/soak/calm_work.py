"""The tasks and actors of the calm trials: what programs do with which nothing is wrong.

Each notes that it begins, so that an execution too many, or one that was cut off, cannot hide.
"""

import gc
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import drumbeat


def note(path: str, word: str, key: str) -> None:
    """Write a line that no other process tears."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, f"{word} {key} {os.getpid()} {time.monotonic_ns()}\n".encode())
    finally:
        os.close(file)


def square(path: str, key: str, number: int) -> int:
    """Do next to nothing."""
    note(path, "S", key)
    return number * number


def works(path: str, key: str, seconds: float) -> tuple[str, int, int]:
    """Sleep and tell of it; return (node, pid, attempt)."""
    note(path, "S", key)
    end_s, count = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        count += 1
        drumbeat.progress(count)
        time.sleep(0.05)
    here = drumbeat.current()
    return here.node, os.getpid(), here.attempt


def spins(path: str, key: str, seconds: float) -> tuple[str, int, int]:
    """Keep a processor busy and tell of it."""
    note(path, "S", key)
    end_s, count = time.monotonic() + seconds, 0
    while time.monotonic() < end_s:
        count += 1
        if not count % 20_000:
            drumbeat.progress(count)
    here = drumbeat.current()
    return here.node, os.getpid(), here.attempt


class _Knot:
    """Garbage that only the collector finds."""

    def __init__(self, other: "_Knot | None") -> None:
        self.other, self.own = other, self


def litters(path: str, key: str, seconds: float, count: int) -> tuple[str, int, int]:
    """Have the collector go through many objects again and again, with the GIL held."""
    note(path, "S", key)
    end_s, turns, kept = time.monotonic() + seconds, 0, None
    while time.monotonic() < end_s:
        last = None
        for _ in range(count):
            last = _Knot(last)
        kept = last
        gc.collect()
        turns += 1
        drumbeat.progress(turns)
    del kept
    here = drumbeat.current()
    return here.node, os.getpid(), here.attempt


def churns(path: str, key: str, seconds: float, size: int) -> tuple[str, int, int]:
    """Write memory to disk, drop it and read it back, as swapping does: sleeps in the kernel."""
    note(path, "S", key)
    end_s, turns, block = time.monotonic() + seconds, 0, os.urandom(1 << 20)
    with tempfile.TemporaryFile() as file:
        while time.monotonic() < end_s:
            file.seek(0)
            for _ in range(size >> 20):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            while file.read(1 << 20):
                pass
            turns += 1
            drumbeat.progress(turns)
    here = drumbeat.current()
    return here.node, os.getpid(), here.attempt


def takes(path: str, key: str, value: bytes) -> bytes:
    """Take a value and give it back."""
    note(path, "S", key)
    return value


class Quiet:
    """An actor with a state that nobody could make anew."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name
        self.count = 0
        note(path, "S", name)

    def add(self) -> tuple[int, int]:
        """Return (pid, how often this was called)."""
        self.count += 1
        return os.getpid(), self.count

    def works(self, seconds: float) -> tuple[int, int]:
        """Sleep and tell of it, and count."""
        end_s, count = time.monotonic() + seconds, 0
        while time.monotonic() < end_s:
            count += 1
            drumbeat.progress(count)
            time.sleep(0.05)
        return self.add()

    def takes(self, value: bytes) -> bytes:
        """Take a value and give it back."""
        return value

    def litters(self, seconds: float, count: int) -> Any:
        """Let the collector work."""
        litters(self.path, f"{self.name}.litters", seconds, count)
        return self.add()


#: ways to take long over an import: asleep, with the GIL held and asleep, with it held and busy
SLOW: dict[str, str] = {
    "asleep": "time.sleep({seconds})",
    "held": "ctypes.PyDLL(None).poll(None, 0, int({seconds} * 1000))",
    "busy": "end_s = time.monotonic() + {seconds}\n    while time.monotonic() < end_s:"
    " sum(range(20_000_000))",
}

_MODULE = """import ctypes, os, sys, time
if sys.argv[0] == "drumbeat-worker":
    {way}
def work():
    return "{name}"
class Actor:
    def work(self):
        return "{name}"
    def pid(self):
        return os.getpid()
"""


def write_modules(directory: Path, seconds: float) -> list[str]:
    """Write a module for each way of importing slowly; return their names."""
    names = []
    for way, words in SLOW.items():
        name = f"imported_{way}"
        text = _MODULE.format(way=words.format(seconds=seconds), name=name)
        (directory / f"{name}.py").write_text(text)
        names.append(name)
    return names
