"""More large results than memory may have: the rest lies on disk, reads the same, and goes."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import pytest
from support.large_files import files_on, memory_bytes, needs_memory_files, processes
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    needs_memory_files,
]

MIB = 1 << 20
BUDGET = 64 * MIB
BYTES = 4 * MIB
RESULTS = 60


@drumbeat.remote
def make(number: int, size: int = BYTES) -> Any:
    return np.full(size // 8, number, dtype=np.int64)


@drumbeat.remote
def look(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values.sum())


@drumbeat.remote
def overwrite(values: Any) -> int:
    values[:] = 1
    return int(values.sum())


@drumbeat.remote(num_returns="streaming", stream_buffer_max=4)
def make_many(count: int) -> Any:
    for number in range(count):
        yield np.full(BYTES // 8, number, dtype=np.int64)


def test_results_that_memory_has_no_room_for_lie_on_disk_and_all_read_right(
    root: str, disk: Path
) -> None:
    settings = {"store_bytes_max": BUDGET, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        refs = [make.remote(number) for number in range(RESULTS)]
        drumbeat.wait(refs, num_returns=RESULTS)
        # When the others have let go of what they handed on, no more is there than may be.
        until(lambda: memory_bytes(processes()) <= BUDGET, 30.0)
        assert files_on(disk, [os.getpid()]) >= RESULTS - BUDGET // BYTES
        assert not list(disk.iterdir()), "they have no names"
        for number, ref in enumerate(refs):
            assert (drumbeat.get(ref) == number).all()
        told = drumbeat.get([look.remote(ref) for ref in refs], timeout=60)
        assert told == [(number, number * (BYTES // 8)) for number in range(RESULTS)]
        # Who writes to what lies on disk writes to memory of its own.
        assert drumbeat.get(overwrite.remote(refs[0])) == BYTES // 8
        assert (drumbeat.get(refs[0]) == 0).all()
        del refs, ref
        gc.collect()
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)


def test_what_is_put_and_what_has_come_share_one_budget(root: str, disk: Path) -> None:
    settings = {"store_bytes_max": BUDGET // 4, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        made = [make.remote(number) for number in range(8)]
        drumbeat.wait(made, num_returns=8)
        put = [drumbeat.put(np.full(BYTES // 8, number)) for number in range(8)]
        more = [make.remote(number) for number in range(8)]
        assert [int(values[0]) for refs in (made, put, more) for values in drumbeat.get(refs)] == [
            *range(8), *range(8), *range(8)
        ]  # fmt: skip
        until(lambda: memory_bytes(processes()) <= BUDGET // 4, 30.0)
        items = list(make_many.remote(12))
        assert [int(drumbeat.get(ref)[-1]) for ref in items] == list(range(12))
        until(lambda: memory_bytes(processes()) <= BUDGET // 4, 30.0)


def test_a_result_for_which_neither_memory_nor_disk_has_room_is_told_of_and_no_other_is_lost(
    root: str, disk: Path
) -> None:
    settings = {"store_bytes_max": 5 * BYTES, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, spill_bytes_max=4 * BYTES, **settings):
        refs = [make.remote(number) for number in range(20)]
        drumbeat.wait(refs, num_returns=20)
        kept = {}
        for number, ref in enumerate(refs):
            try:
                kept[number] = int(drumbeat.get(ref)[-1])
            except drumbeat.StoreFull as error:
                told = error
        # A file has a head too, so neither holds quite as many as it looks.
        assert 6 <= len(kept) < 10
        assert all(number == value for number, value in kept.items())
        assert "spill_bytes_max is 16,777,216" in str(told)
        assert told.needed_bytes >= BYTES
        # A small one has room, and what is let go of makes room for others.
        assert drumbeat.get(look.remote(make.remote(7, 4096))) == (7, 7 * 512)
        del refs, ref
        gc.collect()
        assert int(drumbeat.get(make.remote(3))[0]) == 3


@drumbeat.remote
def make_and_say(number: int, log: str) -> Any:
    with Path(log).open("a", encoding="utf-8") as file:
        file.write("x")
    time.sleep(0.01)  # no faster than the scheduler looks, however busy the machine
    return np.full(BYTES // 8, number, dtype=np.int64)


def test_results_come_no_faster_than_the_disk_takes_them_and_tasks_wait_for_that(
    root: str, disk: Path
) -> None:
    log = disk / "log"
    log.touch()
    settings = {"store_bytes_max": BUDGET // 4, "results_backlog_bytes_max": BUDGET // 8}
    with drumbeat.init(num_cpus=2, runtime_directory=root, spill_directory=str(disk), **settings):
        store = drumbeat.put(b"")._session._store
        with store.spilling:  # a disk that takes nothing for a while
            refs = [make_and_say.remote(number, str(log)) for number in range(300)]
            drumbeat.wait(refs, num_returns=1)
            counts = [-1, 0]
            while counts[-1] != counts[-2]:
                time.sleep(2.0)
                counts.append(log.stat().st_size)
            assert BUDGET // 4 // BYTES < counts[-1] < 200
        for number, ref in enumerate(refs[:20]):
            assert (drumbeat.get(ref) == number).all()
        drumbeat.cancel(refs[20:])


KILLED = """
import sys, numpy, drumbeat
drumbeat.init(sys.argv[1], store_bytes_max=8 << 20, spill_directory=sys.argv[2])
make = drumbeat.remote(lambda number: numpy.full(1 << 19, number))
refs = [make.remote(number) for number in range(24)]
drumbeat.get(refs[6])
print("come", flush=True)
sys.stdin.read()
"""


def test_a_program_that_is_killed_while_results_come_leaves_nothing(root: str, disk: Path) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        words = [sys.executable, "-c", KILLED, cluster.address, str(disk)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"come\n"
            other.send_signal(signal.SIGKILL)
        until(lambda: not list(disk.iterdir()), 5.0)
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)
