"""A client that stands still: its results pile up to a bound, and nobody else is held up."""

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

pytestmark = pytest.mark.integration

TASKS = 2500
RESULT_BYTES = 60_000
#: all results together are 18 times as much
BACKLOG_BYTES = 8 << 20
#: beside what waits: what the link has under way, and what is in two places for a moment
MEMORY_BYTES = BACKLOG_BYTES + (40 << 20)
STOPPED_S = 3.0

PROGRAM = f"""
import os, sys, time
import drumbeat

@drumbeat.remote
def large(number):
    time.sleep(0.001)
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND)
    os.write(log, b"x")
    os.close(log)
    return number.to_bytes(4, "big") * {RESULT_BYTES // 4}

LOG = sys.argv[2]
with drumbeat.init(sys.argv[1]):
    refs = [large.remote(number) for number in range({TASKS})]
    print("submitted", flush=True)
    values = drumbeat.get(refs)
    right = all(value[:4] == n.to_bytes(4, "big") for n, value in enumerate(values))
    print(right, sum(map(len, values)), flush=True)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {"results_backlog_bytes_max": BACKLOG_BYTES, "runtime_directory": str(tmp_path)}
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
        [sys.executable, "-c", PROGRAM, cluster.address, str(log)],
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
