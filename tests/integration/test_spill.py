"""More large values than memory may have: the rest lies on disk, reads the same, and goes."""

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import pytest
from drumbeat.protocol.segments import NAME
from support.large_files import needs_memory_files
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    needs_memory_files,
]

MIB = 1 << 20
BUDGET = 8 * MIB
OBJECTS = 64


def array(number: int) -> Any:
    return np.full(MIB // 8, number, dtype=np.int64)


@drumbeat.remote
def look(values: Any) -> tuple[int, int, bool]:
    return int(values[0]), int(values.sum()), bool(values.flags.writeable)


@drumbeat.remote
def overwrite(values: Any) -> int:
    values[:] = 1
    return int(values.sum())


def files_of(pid: int, disk: Path) -> tuple[int, int]:
    """Return how many files of values a process has open in memory, and how many on disk."""
    memory = spilled = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(fd)
        except OSError:
            continue  # closed meanwhile
        memory += NAME in name
        spilled += name.startswith(str(disk))
    return memory, spilled


def test_what_memory_has_no_room_for_lies_on_disk_and_all_of_it_reads_right(
    root: str, disk: Path
) -> None:
    settings = {"store_bytes_max": BUDGET, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        refs = [drumbeat.put(array(number)) for number in range(OBJECTS)]
        _, spilled = files_of(os.getpid(), disk)
        assert spilled >= OBJECTS - BUDGET // MIB
        assert not list(disk.iterdir()), "they have no names"
        for number, ref in enumerate(refs):
            assert (drumbeat.get(ref) == array(number)).all()
        told = drumbeat.get([look.remote(ref) for ref in refs], timeout=60)
        wanted = [(number, number * (MIB // 8), False) for number in range(OBJECTS)]
        assert told == wanted
        # Who writes to what lies on disk writes to memory of its own.
        boxed = drumbeat.put({"values": array(3)})
        assert (
            drumbeat.get([overwrite.remote(array(5)) for _ in range(24)], timeout=60)
            == [MIB // 8] * 24
        )
        assert (drumbeat.get(boxed)["values"] == array(3)).all()
        assert (drumbeat.get(refs[0]) == array(0)).all()
        del refs, ref, boxed
        gc.collect()
        until(lambda: files_of(os.getpid(), disk) == (0, 0))


def filled() -> tuple[list[Any], str]:
    """Put values until there is no room; return them, and what was told then."""
    refs: list[Any] = []
    try:
        while len(refs) < OBJECTS:
            refs.append(drumbeat.put(array(len(refs))))
    except drumbeat.StoreFull as error:
        return refs, str(error)
    return refs, ""


def test_when_both_are_full_it_is_told_and_there_is_room_again_when_something_goes(
    root: str, disk: Path
) -> None:
    settings = {"spill_directory": str(disk), "spill_bytes_max": 4 * MIB}
    with drumbeat.init(num_cpus=2, runtime_directory=root, store_bytes_max=BUDGET, **settings):
        kept, error = filled()
        assert "spill_bytes_max is 4,194,304" in error
        assert 8 <= len(kept) <= 12
        with pytest.raises(drumbeat.StoreFull):
            look.remote(array(1))
        told = drumbeat.get([look.remote(ref) for ref in kept], timeout=60)
        assert [first for first, _, _ in told] == list(range(len(kept)))
        # What is let go of makes room at once, though nobody has told so yet.
        del kept[:4]
        for number in range(30):
            assert (drumbeat.get(drumbeat.put(array(number))) == array(number)).all()


def test_what_a_task_has_read_makes_room_before_anything_is_refused(root: str) -> None:
    """That its worker has let go of it is told a moment after its result."""
    bounds = {"store_bytes_max": 12 * MIB, "spill_bytes_max": 0}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **bounds):
        for number in range(30):
            ref = drumbeat.put(np.full(MIB, number))
            told, _, _ = drumbeat.get(look.remote(ref), timeout=60)
            assert told == number
            del ref


KILLED = """
import sys, numpy, drumbeat
drumbeat.init(sys.argv[1], store_bytes_max=4 << 20, spill_directory=sys.argv[2])
refs = [drumbeat.put(numpy.full(1 << 17, n)) for n in range(16)]
print("put", flush=True)
sys.stdin.read()
"""


def test_a_program_that_is_killed_leaves_nothing_on_disk(root: str, disk: Path) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        words = [sys.executable, "-c", KILLED, cluster.address, str(disk)]
        before = set(disk.iterdir())
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"put\n"
            assert files_of(other.pid, disk)[1] >= 12
            other.send_signal(signal.SIGKILL)
        assert set(disk.iterdir()) == before
