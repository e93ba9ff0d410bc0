"""Tasks that yield their values, while scheduler and nodes are killed: none lost, none doubled."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.waiting import until

pytestmark = pytest.mark.integration

LARGE = 2 << 20


@drumbeat.remote(num_returns="streaming", stream_buffer_max=8, retry_backoff_s=0.01)
def count(path: str, number: int, pause_s: float = 0.002) -> Iterator[Any]:
    """Yield numbers, each hundredth of them with much behind it."""
    with open(path, "a", encoding="utf-8") as paper:
        paper.write("begun\n")
    for index in range(number):
        time.sleep(pause_s)
        yield (index, bytes(LARGE)) if index % 100 == 99 else index


def begun(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").split()) if path.exists() else 0


def number_of(ref: Any) -> int:
    value = drumbeat.get(ref, timeout=30)
    if isinstance(value, tuple):
        assert len(value[1]) == LARGE
        return int(value[0])
    return int(value)


def kill_scheduler(cluster: Cluster) -> None:
    os.kill(until(lambda: cluster.processes.get("scheduler")), signal.SIGKILL)


def test_a_scheduler_that_is_killed_costs_no_value_doubles_none_and_nothing_begins_anew(
    root: str, tmp_path: Path
) -> None:
    path = tmp_path / "paper"
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        generator = count.options(max_retries=0).remote(str(path), 1000)
        found = []
        for index, ref in enumerate(generator):
            found.append(number_of(ref))
            if index in (50, 400, 700):
                kill_scheduler(cluster)
        assert found == list(range(1000))
        assert begun(path) == 1


def test_a_task_that_waits_for_its_reader_over_a_restart_goes_on(root: str, tmp_path: Path) -> None:
    path = tmp_path / "paper"
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        generator = count.options(max_retries=0).remote(str(path), 60, 0.0)
        refs = [next(generator) for _ in range(8)]
        time.sleep(0.3)
        kill_scheduler(cluster)
        # Read while there is no scheduler.
        refs.append(next(generator))
        refs += list(generator)
        assert [number_of(ref) for ref in refs] == list(range(60))
        assert begun(path) == 1


def test_a_node_that_is_killed_costs_no_value_and_doubles_none(root: str, tmp_path: Path) -> None:
    path = tmp_path / "paper"
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        generator = count.remote(str(path), 400)
        refs = [next(generator) for _ in range(150)]
        session = drumbeat.client.api._session()
        (running,) = until(lambda: [row for row in session.query("tasks") if row["node"]])
        name = running["node"]
        os.kill(cluster.processes[name], signal.SIGKILL)
        refs += list(generator)
        assert [number_of(ref) for ref in refs] == list(range(400))
        assert begun(path) == 2


@drumbeat.remote(max_retries=0)
def reads(path: str, number: int) -> list[int]:
    return [number_of(ref) for ref in count.options(max_retries=0).remote(path, number)]


def test_a_task_that_reads_outlives_the_scheduler(root: str, tmp_path: Path) -> None:
    path = tmp_path / "paper"
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        ref = reads.remote(str(path), 600)
        for _ in range(2):
            until(lambda: begun(path))
            time.sleep(0.4)
            kill_scheduler(cluster)
        assert drumbeat.get(ref, timeout=40) == list(range(600))
        assert begun(path) == 1


def test_a_program_that_leaves_ends_what_yields_for_it(root: str, tmp_path: Path) -> None:
    path = tmp_path / "paper"
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        generator = count.remote(str(path), 1 << 30, 0.0)
        assert number_of(next(generator)) == 0
