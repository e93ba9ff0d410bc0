"""The scheduler is killed and comes back: nothing is lost, and nothing runs twice."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.client.runtime import SOCKET
from support.waiting import until

pytestmark = pytest.mark.integration


class Log:
    """An append-only file with a line for each execution."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        path.touch()

    def write(self, word: object) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, f"{word}\n".encode())
        finally:
            os.close(fd)

    def words(self) -> list[str]:
        return Path(self.path).read_text().split()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


def kill_scheduler(cluster: Cluster) -> int:
    """Kill it; return its process id."""
    pid = until(lambda: cluster.processes.get("scheduler"))
    os.kill(pid, signal.SIGKILL)
    return int(pid)


def bound_at(cluster: Cluster) -> int:
    """Return when the scheduler's socket was made, or 0 while there is none."""
    try:
        return (Path(cluster.address) / SOCKET).stat().st_ctime_ns
    except FileNotFoundError:
        return 0


def bound_again(cluster: Cluster, before: int) -> float:
    """Wait until the next life listens; `before` tells the socket of the last one."""
    until(lambda: bound_at(cluster) not in (0, before))
    return time.monotonic()


@drumbeat.remote
def work(log: Log, number: int, seconds: float = 0.005) -> int:
    log.write(number)
    time.sleep(seconds)
    return 3 * number


def test_two_thousand_tasks_outlive_three_kills_and_each_runs_once(root: str, log: Log) -> None:
    count = 2000
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        once = work.options(max_retries=0)
        refs = [(once if i % 2 else work).remote(log, i) for i in range(count)]
        for part in (1, 2, 3):
            until(lambda part=part: len(log.words()) >= part * count // 6, 60.0)
            kill_scheduler(cluster)
        assert drumbeat.get(refs, timeout=60) == [3 * i for i in range(count)]
        executions = Counter(log.words())
        assert {word: n for word, n in executions.items() if n > 1} == {}
        assert len(executions) == count


def test_three_kills_in_a_row_find_it_recovering_and_nothing_is_lost(root: str, log: Log) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        once = work.options(max_retries=0)
        refs = [(once if i % 2 else work).remote(log, i, 0.02) for i in range(200)]
        until(lambda: len(log.words()) >= 20)
        for _ in range(3):
            before = bound_at(cluster)
            kill_scheduler(cluster)
            bound_again(cluster, before)
        assert drumbeat.get(refs, timeout=60) == [3 * i for i in range(200)]
        assert Counter(log.words()) == {str(i): 1 for i in range(200)}


@drumbeat.remote(max_retries=0)
def parent(log: Log, children: int) -> int:
    log.write("parent")
    refs = [child.remote(log, number) for number in range(children)]
    log.write("waits")
    return sum(drumbeat.get(refs))


@drumbeat.remote(max_retries=0)
def child(log: Log, number: int) -> int:
    log.write(f"child-{number}")
    time.sleep(0.3)
    return number


def test_a_parent_that_waits_in_get_has_the_results_of_all_its_children(
    root: str, log: Log
) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        ref = parent.remote(log, 12)
        until(lambda: "waits" in log.words() and len(log.words()) >= 4)
        kill_scheduler(cluster)
        assert drumbeat.get(ref, timeout=30) == sum(range(12))
        executions = Counter(log.words())
        assert executions == {"parent": 1, "waits": 1, **{f"child-{i}": 1 for i in range(12)}}


@drumbeat.remote
def put_there(count: int) -> list[drumbeat.ObjectRef]:
    return [drumbeat.put(bytes([number]) * 100_000) for number in range(count)]


@drumbeat.remote(max_retries=0)
def get_later(log: Log, refs: list[drumbeat.ObjectRef], when: str) -> int:
    log.write("holds")
    while not os.path.exists(when):
        time.sleep(0.01)
    return sum(len(value) for value in drumbeat.get(refs))


def test_refs_to_what_another_process_put_are_good_after_a_restart(root: str, log: Log) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        refs = drumbeat.get(put_there.remote(5), timeout=20)
        for _ in range(2):
            before = bound_at(cluster)
            kill_scheduler(cluster)
            bound_again(cluster, before)
        assert drumbeat.get(work.remote(log, 1), timeout=20) == 3  # it has recovered
        values = drumbeat.get(refs, timeout=20)
        assert values == [bytes([number]) * 100_000 for number in range(5)]


def test_what_this_program_put_is_kept_for_a_task_that_holds_it_over_a_restart(
    root: str, log: Log, tmp_path: Path
) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as cluster:
        refs = [drumbeat.put(b"x" * 100_000) for _ in range(3)]
        later = get_later.remote(log, refs, str(tmp_path / "go"))
        del refs
        until(lambda: "holds" in log.words())
        kill_scheduler(cluster)
        assert drumbeat.get(work.remote(log, 1), timeout=20) == 3  # it has recovered
        (tmp_path / "go").touch()
        assert drumbeat.get(later, timeout=20) == 300_000
        assert log.words().count("holds") == 1


@drumbeat.remote(max_retries=0)
def begun_at(log: Log) -> float:
    log.write("begun")
    return time.monotonic()


def test_work_is_dispatched_within_two_seconds_of_the_bind(root: str, log: Log) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root) as cluster:
        drumbeat.get([begun_at.remote(log) for _ in range(10)], timeout=20)
        for _ in range(2):
            before = bound_at(cluster)
            killed_s = time.monotonic()
            kill_scheduler(cluster)
            ref = begun_at.remote(log)
            bound_s = bound_again(cluster, before)
            begun_s = drumbeat.get(ref, timeout=20)
            print(f"bound after {bound_s - killed_s:.3f} s, begun {begun_s - bound_s:.3f} s later")
            assert begun_s - bound_s < 2.0


def test_a_cancel_before_the_restart_counts_after_it(root: str, log: Log) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        busy = work.remote(log, 1, 1.0)
        until(lambda: "1" in log.words())
        queued = [work.remote(log, number) for number in range(2, 6)]
        for ref in queued[:2]:
            ref.cancel()
        kill_scheduler(cluster)
        for ref in queued[2:]:
            ref.cancel()
        for ref in queued:
            with pytest.raises(drumbeat.TaskCancelled):
                drumbeat.get(ref, timeout=20)
        assert drumbeat.get(busy, timeout=20) == 3
        assert log.words() == ["1"]
