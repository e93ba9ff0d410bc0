"""Limits on real calls: the wait for a turn, one attempt, all attempts; tasks and actors."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.errors import TaskTimedOut
from drumbeat.protocol.session import current
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration

#: a verdict is told so long after its limit at the latest, on a machine with other work
SLACK_S = 1.5


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=2, cancel_grace_s=0.5, term_grace_s=0.5):
        warm_up()
        yield


@drumbeat.remote
def sleep(for_s: float, path: str = "") -> int:
    if path:
        Path(path).touch()
    time.sleep(for_s)
    return os.getpid()


def warm_up() -> None:
    """Have a worker for each CPU that has loaded this file."""
    refs = [sleep.remote(0.2) for _ in range(2)]
    while len(set(drumbeat.get(refs, timeout=30))) < 2:
        refs = [sleep.remote(0.2) for _ in range(2)]


@drumbeat.remote
def spin() -> None:
    while True:
        pass


@drumbeat.remote
def swallow(path: str) -> None:
    while True:
        try:
            Path(path).touch()
            time.sleep(1000)
        except BaseException:  # noqa: BLE001  # that is what this one does
            continue


@drumbeat.remote
def die_after(for_s: float, path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    time.sleep(for_s)
    os._exit(3)


@drumbeat.remote
def parent(path: str) -> Any:
    return drumbeat.get(sleep.remote(60, path))


@drumbeat.remote(max_restarts=3)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    @drumbeat.method(timeout=0.5)
    def nap(self, for_s: float) -> int:
        time.sleep(for_s)
        return self.count

    def hold(self, for_s: float) -> None:
        time.sleep(for_s)


def ends(ref: Any, not_before_s: float = 0.0) -> tuple[TaskTimedOut, float]:
    """Wait for a call that is to time out; return its error, and how long that took of its own.

    Args:
        ref: of a call that has just been made.
        not_before_s: the least that it may take at all.
    """
    watch = Watch()
    with pytest.raises(TaskTimedOut) as caught:
        drumbeat.get(ref, timeout=30)
    assert watch.all_s() > not_before_s
    return caught.value, watch.own_s()


@pytest.fixture
def busy() -> Iterator[None]:
    """Both CPUs are taken."""
    blockers = [sleep.remote(60), sleep.remote(60)]
    time.sleep(0.3)
    yield
    for blocker in blockers:
        drumbeat.cancel(blocker)
    warm_up()


@pytest.mark.usefixtures("busy")
def test_what_gets_no_turn_in_its_queue_timeout_never_runs(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    error, took_s = ends(sleep.options(queue_timeout=0.5).remote(0, str(mark)), 0.3)
    assert took_s < 0.5 + SLACK_S
    assert (error.limit, error.limit_s, error.name) == ("queue_timeout", 0.5, "sleep")
    assert "did not start within its queue_timeout of 0.5 s" in str(error)
    assert not mark.exists()


@pytest.mark.usefixtures("busy")
def test_the_total_timeout_ends_what_waits() -> None:
    error, took_s = ends(sleep.options(total_timeout=0.5).remote(0))
    assert took_s < 0.5 + SLACK_S
    assert (error.limit, error.limit_s, error.node) == ("total_timeout", 0.5, "")


def test_the_total_timeout_ends_what_runs() -> None:
    error, took_s = ends(sleep.options(total_timeout=2.0).remote(60), 1.5)
    assert took_s < 2.0 + SLACK_S
    assert (error.limit, error.attempt, error.attempts) == ("total_timeout", 1, 4)
    assert error.pid
    assert error.node
    assert "sleep" in error.stack


def test_what_started_in_time_is_not_ended_by_its_queue_timeout() -> None:
    assert drumbeat.get(sleep.options(queue_timeout=0.3).remote(1.0), timeout=30)


def test_the_total_timeout_counts_over_all_attempts(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    given = {"total_timeout": 2.0, "max_retries": 50, "retry_backoff_s": 0.01}
    error, took_s = ends(die_after.options(**given).remote(0.4, str(mark)), 1.5)
    assert took_s < 2.0 + SLACK_S
    assert error.limit == "total_timeout"
    ran = len(mark.read_text())
    assert 2 <= ran <= 6
    time.sleep(0.6)
    assert len(mark.read_text()) == ran


@pytest.mark.parametrize("task", [sleep, spin])
def test_an_attempt_that_takes_too_long_is_ended_and_not_tried_again(task: Any) -> None:
    arguments = (60,) if task is sleep else ()
    error, took_s = ends(task.options(timeout=0.5, max_retries=5).remote(*arguments))
    assert took_s < 0.5 + SLACK_S
    assert (error.limit, error.limit_s, error.attempt) == ("timeout", 0.5, 1)
    assert task.name in error.stack


def test_the_timeout_is_that_of_each_attempt_alone(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    given = {"timeout": 1.5, "max_retries": 2, "retry_backoff_s": 0.01}
    with pytest.raises(drumbeat.TaskError) as caught:
        drumbeat.get(die_after.options(**given).remote(0.7, str(mark)), timeout=30)
    assert not isinstance(caught.value, TaskTimedOut)
    assert mark.read_text() == "xxx"


def test_who_swallows_everything_is_ended_all_the_same(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    error, took_s = ends(swallow.options(timeout=0.5).remote(str(mark)))
    assert took_s < 0.5 + 0.5 + 0.5 + SLACK_S
    assert re.search(r"cancel, no effect in \d[\d.]* s", error.actions)


def test_what_a_timed_out_task_had_submitted_is_cancelled(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    ref = parent.options(timeout=5.0).remote(str(mark))  # longer than any worker takes to start
    until(mark.exists)
    ends(ref)
    session = current()
    assert session is not None
    until(lambda: not session.query("tasks"))


def test_a_call_of_an_actor_times_out_and_the_actor_keeps_its_state() -> None:
    counter = Counter.remote()
    assert drumbeat.get(counter.add.remote()) == 1
    slow, later = counter.nap.remote(60), counter.add.remote()
    error, took_s = ends(slow)
    assert took_s < 0.5 + SLACK_S
    assert (error.limit, error.name) == ("timeout", "Counter.nap")
    assert drumbeat.get(later, timeout=30) == 2


def test_a_call_that_waits_for_its_actor_too_long_ends_and_the_others_go_on() -> None:
    counter = Counter.remote()
    drumbeat.get(counter.add.remote())
    held = counter.hold.remote(2.0)
    late = counter.add.options(queue_timeout=0.5).remote()
    after = counter.add.remote()
    error, took_s = ends(late)
    assert took_s < 0.5 + SLACK_S
    assert error.limit == "queue_timeout"
    drumbeat.get(held, timeout=30)
    assert drumbeat.get(after, timeout=30) == 2
