"""Errors that need a cluster in a certain plight: each is raised, in time, and work goes on."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import drumbeat
import pytest

pytestmark = pytest.mark.integration


@drumbeat.remote
def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@drumbeat.remote
def descend(depth: int) -> int:
    """Wait for a task that waits for a task, so many deep."""
    return 0 if depth == 0 else 1 + drumbeat.get(descend.remote(depth - 1))


@drumbeat.remote
def zeros(size: int) -> bytes:
    return bytes(size)


@drumbeat.remote
def work_until_told_to_stop(started: str) -> str:
    try:
        Path(started).touch()
        time.sleep(60)
    except drumbeat.Interrupted as interrupted:
        return f"the best so far, {interrupted.reason}"
    return "all of it"


def wait_for(path: Path) -> None:
    deadline_s = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline_s, f"{path} never came"
        time.sleep(0.01)


@drumbeat.remote
def held_up_by(gate: Path) -> float:
    wait_for(gate)
    return 0.2


def test_an_event_loop_is_not_blocked_but_told_of_backpressure(tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    async def submit_without_end() -> None:
        refs = [held_up_by.remote(gate) for _ in range(10)]
        with pytest.raises(drumbeat.Backpressure, match="submit_buffer_max"):
            sleep.remote(0.2)
        gate.touch()
        assert await refs[0] == 0.2
        assert await sleep.remote(0.0) == 0.0

    with drumbeat.init(num_cpus=2, submit_buffer_max=10):
        asyncio.run(submit_without_end())


def test_when_all_wait_and_nothing_can_run_the_youngest_get_says_which_setting_to_raise() -> None:
    with drumbeat.init(num_cpus=1, workers_blocked_max=3):
        assert drumbeat.get(descend.remote(3), timeout=30) == 3
        with pytest.raises(drumbeat.ResourceDeadlock, match="workers_blocked_max"):
            drumbeat.get(descend.remote(6), timeout=30)
        assert drumbeat.get(sleep.remote(0.0), timeout=30) == 0.0


def test_a_node_that_is_killed_loses_what_may_not_be_retried_and_nothing_else(
    tmp_path: Path,
) -> None:
    with drumbeat.init(num_cpus=2) as cluster:
        (keeper,) = (pid for name, pid in cluster.processes.items() if name != "scheduler")
        started = tmp_path / "started"
        once = work_until_told_to_stop.options(max_retries=0).remote(str(started))
        again = sleep.remote(0.5)
        wait_for(started)

        os.kill(keeper, signal.SIGKILL)

        with pytest.raises(drumbeat.NodeLost):
            drumbeat.get(once, timeout=20)
        assert drumbeat.get(again, timeout=20) == 0.5


def test_get_gives_up_in_time_with_an_error_that_is_a_timeout() -> None:
    with drumbeat.init(num_cpus=1):
        ref = sleep.remote(0.5)
        with pytest.raises(TimeoutError) as caught:
            drumbeat.get(ref, timeout=0.05)
        assert isinstance(caught.value, drumbeat.GetTimeoutError)
        assert drumbeat.get(ref, timeout=20) == 0.5


def test_a_task_that_is_cancelled_may_still_give_its_best_so_far(tmp_path: Path) -> None:
    with drumbeat.init(num_cpus=1):
        started = tmp_path / "started"
        ref = work_until_told_to_stop.remote(str(started))
        wait_for(started)

        drumbeat.cancel(ref)

        assert drumbeat.get(ref, timeout=20) == "the best so far, cancelled"


def test_the_value_of_a_program_that_has_left_is_lost_and_not_waited_for() -> None:
    program = (
        "import drumbeat, pickle, sys\n"
        "with drumbeat.init(sys.argv[1]):\n"
        "    ref = drumbeat.put('mine')\n"
        "    sys.stdout.buffer.write(pickle.dumps(ref))\n"
    )
    with drumbeat.init(num_cpus=1) as cluster:
        done = subprocess.run(
            [sys.executable, "-c", program, cluster.address],
            check=True,
            capture_output=True,
            timeout=30,
        )
        with pytest.raises(drumbeat.ObjectLost):
            drumbeat.get(pickle.loads(done.stdout), timeout=20)


def test_more_than_can_be_sent_is_refused_with_size_and_limit() -> None:
    with drumbeat.init(num_cpus=1, value_bytes_max=1 << 20, segment_bytes_min=0):
        with pytest.raises(drumbeat.MessageTooLarge) as caught:
            drumbeat.put(bytes(2 << 20))
        assert caught.value.size_bytes > caught.value.limit_bytes == 1 << 20
        with pytest.raises(drumbeat.MessageTooLarge, match="1,048,576"):
            drumbeat.get(zeros.remote(2 << 20), timeout=20)
        assert drumbeat.get(zeros.remote(1 << 19), timeout=20) == bytes(1 << 19)
