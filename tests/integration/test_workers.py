"""Workers on a whole local cluster: how they start, what users read of it, whose the CPUs are."""

import os
import time
from itertools import pairwise
from pathlib import Path

import drumbeat
import pytest
from drumbeat.protocol.errors import ConfigError, Interrupted, TaskCancelled, WorkerDied

pytestmark = pytest.mark.integration


def log(path: Path, name: str, began_s: float) -> None:
    with path.open("a") as file:
        file.write(f"{name} {began_s} {time.monotonic()}\n")


def spans(path: Path) -> list[tuple[float, float, str]]:
    """Return what ran when: (begin, end, name), in order."""
    if not path.exists():
        return []
    rows = [line.split() for line in path.read_text().splitlines()]
    return sorted((float(begin), float(end), name) for name, begin, end in rows)


@drumbeat.remote
def slow_to_stop(path: Path) -> None:
    began_s = time.monotonic()
    path.with_suffix(".begun").touch()
    try:
        time.sleep(30)
    except Interrupted:
        time.sleep(0.5)
        raise
    finally:
        log(path, "child", began_s)


@drumbeat.remote
def briefly(path: Path) -> None:
    began_s = time.monotonic()
    time.sleep(0.05)
    log(path, "other", began_s)


@drumbeat.remote
def parent(path: Path) -> None:
    began_s = time.monotonic()
    refs = [slow_to_stop.remote(path), briefly.remote(path)]
    log(path, "parent", began_s)
    try:
        drumbeat.get(refs)
    except Interrupted:
        began_s = time.monotonic()
        time.sleep(0.3)
        log(path, "parent", began_s)
        raise


def test_a_task_that_is_cancelled_in_get_goes_on_only_when_its_cpu_is_free_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spans"
    with drumbeat.init(num_cpus=1):
        ref = parent.remote(path)
        until_s = time.monotonic() + 20
        while not path.with_suffix(".begun").exists():
            assert time.monotonic() < until_s
            time.sleep(0.01)
        others = [briefly.remote(path) for _ in range(5)]
        drumbeat.cancel(ref)
        with pytest.raises(TaskCancelled):
            drumbeat.get(ref, timeout=20)
        drumbeat.get(others, timeout=20)
    ran = spans(path)
    assert [name for _, _, name in ran][:3] == ["parent", "child", "parent"], "ahead of new work"
    assert len(ran) >= 8
    for (_, end, one), (begin, _, other) in pairwise(ran):
        assert end <= begin, f"{one} and {other} ran at once"


@drumbeat.remote
def command_line() -> list[str]:
    return Path("/proc/self/cmdline").read_text().split("\0")


@drumbeat.remote
def total(count: int) -> int:
    return sum(drumbeat.get([square.remote(number) for number in range(count)]))


@drumbeat.remote
def square(number: int) -> int:
    return number * number


@drumbeat.remote(max_retries=0)
def leave() -> None:
    os._exit(3)


def test_workers_may_be_fresh_interpreters() -> None:
    with drumbeat.init(num_cpus=2, worker_start="spawn"):
        assert drumbeat.get([square.remote(number) for number in range(50)], timeout=60) == [
            number * number for number in range(50)
        ]
        assert "drumbeat.node.worker" in drumbeat.get(command_line.remote(), timeout=60)
        assert drumbeat.get(total.remote(10), timeout=60) == 285
        with pytest.raises(WorkerDied):
            drumbeat.get(leave.remote(), timeout=60)
        assert drumbeat.get(square.remote(7), timeout=60) == 49


def test_another_way_to_start_workers_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="worker_start"):
        drumbeat.init(num_cpus=1, worker_start="thread")


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_a_module_that_cannot_be_preloaded_is_named_once_to_the_user(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with drumbeat.init(num_cpus=2, worker_start=way, preload=["no_such_module", "json"]):
        assert drumbeat.get([square.remote(number) for number in range(3)], timeout=60) == [0, 1, 4]
        until_s = time.monotonic() + 20
        shown = ""
        while "no_such_module could not be preloaded" not in shown:
            assert time.monotonic() < until_s
            time.sleep(0.02)
            shown += capsys.readouterr().out
    shown += capsys.readouterr().out
    assert shown.count("no_such_module could not be preloaded") == 1
    assert "(preload pid=" in shown
    assert "ModuleNotFoundError: No module named 'no_such_module'" in shown
