"""Somebody stands still: what waits for it piles up to a bound, and nobody else is held up.

The times are a tenth of those of `tests/nemesis/seen.py reader`, which takes a minute.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.client.local import Cluster
from support.readers import PROGRAM, RESULT_BYTES

pytestmark = pytest.mark.integration

TASKS = 2500
#: all results together are 18 times as much
BACKLOG_BYTES = 8 << 20
#: beside what waits: what the link has under way, and what is in two places for a moment
MEMORY_BYTES = BACKLOG_BYTES + (40 << 20)
STOPPED_S = 6.0


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    settings = {"results_backlog_bytes_max": BACKLOG_BYTES, "runtime_directory": root}
    with drumbeat.init(num_cpus=2, **settings) as made:
        yield made


@drumbeat.remote
def double(number: int) -> int:
    return 2 * number


def test_a_client_that_stands_still_fills_no_memory_holds_up_nobody_and_loses_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.touch()
    scheduler = psutil.Process(cluster.processes["scheduler"])
    assert drumbeat.get(double.remote(1)) == 2
    before_bytes = scheduler.memory_info().rss
    client = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, cluster.address, str(log), str(TASKS)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "submitted\n"
        os.kill(client.pid, signal.SIGSTOP)
        end_s = time.monotonic() + STOPPED_S
        peak_bytes = rounds = 0
        while time.monotonic() < end_s:
            numbers = range(20)
            assert drumbeat.get([double.remote(n) for n in numbers]) == [2 * n for n in numbers]
            peak_bytes = max(peak_bytes, scheduler.memory_info().rss)
            rounds += 1
        executed = log.stat().st_size
        assert peak_bytes - before_bytes < MEMORY_BYTES
        assert BACKLOG_BYTES < executed * RESULT_BYTES < TASKS * RESULT_BYTES / 2
        assert rounds > 5
        os.kill(client.pid, signal.SIGCONT)
        assert client.stdout.readline() == f"True {TASKS * RESULT_BYTES}\n"
        assert client.wait(20.0) == 0
        assert log.stat().st_size == TASKS
    finally:
        client.kill()
        client.communicate()


# ------------------------------------------------------------------------ slow, or not there at all

#: arguments of all tasks together are twelve times as much
CREDIT_BYTES = 8 << 20
ARGUMENT_BYTES = 60_000
MANY = 1600


@drumbeat.remote(max_retries=0)
def noted(log: str, number: int, load: bytes) -> tuple[int, int]:
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"x")
    os.close(descriptor)
    return number, len(load)


@pytest.fixture
def tight(root: str) -> Iterator[Cluster]:
    settings = {
        "submit_credit_bytes": CREDIT_BYTES,
        "results_backlog_bytes_max": BACKLOG_BYTES,
        "runtime_directory": root,
    }
    with drumbeat.init(num_cpus=2, **settings) as made:
        yield made


def submit_many(log: Path) -> list[drumbeat.ObjectRef[tuple[int, int]]]:
    log.touch()
    drumbeat.get(noted.remote(os.devnull, 0, b""))
    load = b"l" * ARGUMENT_BYTES
    return [noted.remote(str(log), number, load) for number in range(MANY)]


def all_right(refs: list[drumbeat.ObjectRef[tuple[int, int]]], log: Path) -> None:
    values = drumbeat.get(refs, timeout=60)
    assert values == [(number, ARGUMENT_BYTES) for number in range(MANY)]
    assert log.stat().st_size == MANY, "each was executed once"


def test_a_scheduler_that_stands_still_again_and_again_is_slow_and_loses_nothing(
    tight: Cluster, tmp_path: Path
) -> None:
    scheduler, log = tight.processes["scheduler"], tmp_path / "log"
    refs = submit_many(log)
    end_s, stops = time.monotonic() + STOPPED_S / 2, 0
    try:
        while time.monotonic() < end_s:
            os.kill(scheduler, signal.SIGSTOP)
            time.sleep(0.15)
            os.kill(scheduler, signal.SIGCONT)
            time.sleep(0.05)
            stops += 1
    finally:
        os.kill(scheduler, signal.SIGCONT)
    assert stops > 5
    all_right(refs, log)


def test_a_node_that_stands_still_leaves_work_with_its_submitter_and_loses_nothing(
    tight: Cluster, tmp_path: Path
) -> None:
    scheduler = psutil.Process(tight.processes["scheduler"])
    (node,) = drumbeat.nodes()
    before_bytes, peak_bytes, log = scheduler.memory_info().rss, 0, tmp_path / "log"
    os.kill(node["pid"], signal.SIGSTOP)
    try:
        log.touch()
        load = b"l" * ARGUMENT_BYTES
        refs = [noted.remote(str(log), number, load) for number in range(MANY)]
        end_s = time.monotonic() + STOPPED_S / 2
        while time.monotonic() < end_s:
            peak_bytes = max(peak_bytes, scheduler.memory_info().rss)
            time.sleep(0.02)
        assert log.stat().st_size < MANY / 2
    finally:
        os.kill(node["pid"], signal.SIGCONT)
    # Its credit, what a link has under way, and what is in two places for a moment.
    assert peak_bytes - before_bytes < CREDIT_BYTES + (40 << 20) < MANY * ARGUMENT_BYTES
    all_right(refs, log)
