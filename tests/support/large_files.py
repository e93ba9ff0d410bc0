"""What files of large values the processes of a test have open, in memory and on disk."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from drumbeat.protocol.segments import NAME, are_to_be_had

needs_memory_files = pytest.mark.skipif(
    not are_to_be_had(), reason="this system has no memory files that can be sealed"
)


def processes() -> list[int]:
    """Return this process and all that it has started, and they."""
    process = psutil.Process()
    return [process.pid, *(child.pid for child in process.children(recursive=True))]


def memory_bytes(pids: Iterable[int]) -> int:
    """Return how much memory the files of large values take that these processes have open."""
    found: dict[int, int] = {}
    for pid in pids:
        with suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if NAME in os.readlink(fd):
                        stat = os.stat(fd)
                        found[stat.st_ino] = stat.st_blocks * 512
    return sum(found.values())


def files_on(disk: Path, pids: Iterable[int]) -> int:
    """Return how many different files on disk these processes have open."""
    found = set()
    for pid in pids:
        with suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if os.readlink(fd).startswith(str(disk)):
                        found.add(os.stat(fd).st_ino)
    return len(found)
