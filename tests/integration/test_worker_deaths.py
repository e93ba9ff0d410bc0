"""What a user is told of a worker's death, and who is charged for it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=1):
        yield


@drumbeat.remote(max_retries=0)
def quick(number: int, last: int) -> int:
    """End the worker at the last one."""
    if number == last:
        os._exit(5)
    return number


@drumbeat.remote(max_retries=0)
def talk_and_wait(path: str) -> None:
    print("not these words" * 3, file=sys.stderr)
    print("these words", file=sys.stderr, flush=True)
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def test_only_what_had_started_is_charged_when_a_worker_dies() -> None:
    # Known to be quick, many are sent to the worker at once.
    assert drumbeat.get([quick.remote(n, -1) for n in range(500)], timeout=30) == list(range(500))
    refs = [quick.remote(n, 100) for n in range(400)]
    drumbeat.wait(refs, num_returns=len(refs), timeout=30)
    assert drumbeat.get(refs[101:], timeout=5) == list(range(101, 400))
    with pytest.raises(drumbeat.WorkerDied) as caught:
        drumbeat.get(refs[100], timeout=5)
    assert caught.value.exit_code == 5
    died = [n for n, ref in enumerate(refs[:101]) if ref.exception(timeout=5) is not None]
    # Those just before it had run as well, and their results may have gone with the worker.
    assert died == list(range(101 - len(died), 101))


def test_a_kill_from_outside_is_told_with_signal_process_node_and_last_words(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pid"
    ref = talk_and_wait.remote(str(path))
    end_s = time.monotonic() + 20
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    pid = int(path.read_text())
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(drumbeat.WorkerDied) as caught:
        drumbeat.get(ref, timeout=20)
    error = caught.value
    assert (error.signal_name, error.exit_code, error.pid) == ("SIGKILL", None, pid)
    assert error.stderr_tail.splitlines()[-1] == "these words"
    assert error.node
    assert str(pid) in str(error)
    assert "SIGKILL" in str(error)
    assert "these words" in str(error)
    assert not isinstance(error, drumbeat.WorkerOutOfMemory), "nobody was short of memory"
