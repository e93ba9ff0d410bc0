"""More than memory may have of what tasks put, and of results of calls that tasks make."""

import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import psutil
import pytest
from drumbeat.node.puts import AHEAD_BYTES_MAX
from support.large_files import files_on, memory_bytes, needs_memory_files, processes
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    needs_memory_files,
]

MIB = 1 << 20
BUDGET = 64 * MIB
BYTES = 4 * MIB
VALUES = 60


def array(number: int) -> Any:
    return np.full(BYTES // 8, number, dtype=np.int64)


@drumbeat.remote
def make(number: int) -> Any:
    return array(number)


@drumbeat.remote
def look(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values.sum())


@drumbeat.remote
def put_and_read(count: int) -> tuple[int, list[Any]]:
    """Return how many read right, and the refs."""
    refs = [drumbeat.put(array(number)) for number in range(count)]
    return sum(bool((drumbeat.get(ref) == at).all()) for at, ref in enumerate(refs)), refs


@drumbeat.remote
def call_and_read(count: int) -> int:
    """Return how many results of its calls read right."""
    refs = [make.remote(number) for number in range(count)]
    drumbeat.wait(refs, num_returns=count)
    return sum(bool((drumbeat.get(ref) == at).all()) for at, ref in enumerate(refs))


def test_what_tasks_put_and_memory_has_no_room_for_lies_on_disk_and_all_read_right(
    root: str, disk: Path
) -> None:
    settings = {"store_bytes_max": BUDGET, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        asked, most = put_and_read.remote(VALUES), 0
        while not drumbeat.wait([asked], timeout=0.02)[0]:
            most = max(most, memory_bytes(processes()))
        right, refs = drumbeat.get(asked)
        assert right == VALUES
        # What is on its way, what is being made, and what the worker has mapped.
        assert most <= BUDGET + AHEAD_BYTES_MAX + 3 * BYTES
        until(lambda: memory_bytes(processes()) <= BUDGET, 30.0)
        assert files_on(disk, processes()) >= VALUES - BUDGET // BYTES
        assert not list(disk.iterdir()), "they have no names"
        # Others read them too: workers, and the program, to which they are lent.
        told = drumbeat.get([look.remote(ref) for ref in refs], timeout=60)
        assert told == [(number, number * (BYTES // 8)) for number in range(VALUES)]
        assert [int(drumbeat.get(ref)[-1]) for ref in refs] == list(range(VALUES))
        del asked, refs
        gc.collect()
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)


def test_results_of_calls_that_tasks_make_share_their_nodes_budget(root: str, disk: Path) -> None:
    settings = {"store_bytes_max": BUDGET, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        asked, spilled = call_and_read.remote(VALUES), 0
        while not drumbeat.wait([asked], timeout=0.02)[0]:
            spilled = max(spilled, files_on(disk, processes()))
        assert drumbeat.get(asked) == VALUES
        assert spilled >= VALUES - 2 * (BUDGET // BYTES)
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)


@drumbeat.remote
def put_until_full(count: int) -> tuple[dict[int, int], str, int, int]:
    """Return what of it was kept, what was told of the rest, and what has room afterwards."""
    refs = [drumbeat.put(array(number)) for number in range(count)]
    kept, told = {}, ""
    for number, ref in enumerate(refs):
        try:
            kept[number] = int(drumbeat.get(ref)[-1])
        except drumbeat.StoreFull as error:
            told = str(error)
    small = int(drumbeat.get(drumbeat.put(np.full(512, 7)))[0])
    del refs, ref
    gc.collect()
    return kept, told, small, int(drumbeat.get(drumbeat.put(array(3)))[0])


def test_what_is_put_where_neither_memory_nor_disk_has_room_is_told_of_and_no_other_is_lost(
    root: str, disk: Path
) -> None:
    settings = {"store_bytes_max": 5 * BYTES, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=2, runtime_directory=root, spill_bytes_max=4 * BYTES, **settings):
        kept, told, small, again = drumbeat.get(put_until_full.remote(30), timeout=60)
        # So much has room; and of what was put before it was known some more.
        assert 6 <= len(kept) <= 10 + AHEAD_BYTES_MAX // BYTES
        assert all(number == value for number, value in kept.items())
        assert "node" in told
        assert "spill_bytes_max is 16,777,216" in told
        assert (small, again) == (7, 3)
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)


@drumbeat.remote
def put_for_ever(log: str) -> None:
    kept = [drumbeat.put(array(number)) for number in range(24)]
    Path(log).write_text(f"{os.getpid()}\n", encoding="utf-8")
    while kept:
        drumbeat.put(array(0))


@pytest.mark.parametrize("whom", ["daemon", "worker"])
def test_who_is_killed_while_tasks_put_leaves_nothing(root: str, disk: Path, whom: str) -> None:
    log = disk / "log"
    settings = {"store_bytes_max": 16 * MIB, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **settings):
        ref = put_for_ever.options(max_retries=0).remote(str(log))
        until(lambda: log.exists() and log.read_text().endswith("\n"), 60.0)
        assert files_on(disk, processes()) > 0
        (node,) = drumbeat.nodes()
        os.kill(node["pid"] if whom == "daemon" else int(log.read_text()), signal.SIGKILL)
        with pytest.raises(drumbeat.DrumbeatError):
            drumbeat.get(ref, timeout=60)
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)
        assert list(disk.iterdir()) == [log]


@drumbeat.remote
def put_then_say(count: int, log: str) -> int:
    refs = [drumbeat.put(array(number)) for number in range(count)]
    Path(log).touch()
    time.sleep(600)
    return len(refs)


def test_who_waits_for_room_can_be_cancelled(root: str, disk: Path) -> None:
    log = disk / "log"
    settings = {"store_bytes_max": 16 * MIB, "spill_directory": str(disk)}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **settings):
        ref = put_then_say.remote(1 << 10, str(log))
        until(lambda: files_on(disk, processes()) > 0, 60.0)
        drumbeat.cancel(ref)
        with pytest.raises(drumbeat.TaskCancelled):
            drumbeat.get(ref, timeout=60)
        assert not log.exists()
        until(lambda: memory_bytes(processes()) == files_on(disk, processes()) == 0, 30.0)
        assert psutil.pid_exists(drumbeat.nodes()[0]["pid"])
