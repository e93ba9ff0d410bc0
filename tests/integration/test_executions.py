"""How often a task is executed when both its worker and the scheduler die."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import drumbeat
import pytest
from drumbeat.protocol.errors import PoisonTask, WorkerDied
from support.waiting import until

pytestmark = pytest.mark.integration


@drumbeat.remote(retry_backoff_s=0.01)
def linger(folder: str) -> None:
    """Leave a file for each execution, with the process, and run until killed."""
    (Path(folder) / f"{time.monotonic_ns()}").write_text(str(os.getpid()))
    time.sleep(60)


@pytest.mark.parametrize("max_retries", [0, 1, 2])
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_a_task_is_executed_at_most_once_more_than_it_may_be_retried_whoever_dies(
    root: str, tmp_path: Path, max_retries: int, scheduler_first: bool
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()

    def executions() -> list[int]:
        texts = [file.read_text() for file in sorted(notes.iterdir())]
        return [int(text) for text in texts if text]

    def ran(count: int) -> bool:
        return len(executions()) >= count

    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        ref = linger.options(max_retries=max_retries).remote(str(notes))
        for count in range(1, max_retries + 2):
            until(partial(ran, count))
            until(lambda: cluster.processes.get("scheduler"))
            both = [cluster.processes["scheduler"], executions()[-1]]
            for pid in both if scheduler_first else reversed(both):
                os.kill(pid, signal.SIGKILL)
        with pytest.raises((WorkerDied, PoisonTask)):
            drumbeat.get(ref, timeout=30)
        time.sleep(0.3)
        assert len(executions()) == 1 + max_retries
