"""Actors end to end: called in order, ended in every way, and nothing left of them."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drumbeat
import psutil
import pytest
from drumbeat.client.local import Cluster
from support.running import runs
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2) as one:
        yield one


@drumbeat.remote
class Counter:
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def fail(self, text: str) -> None:
        raise LookupError(text)

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.count

    def end_by(self, way: str) -> None:
        if way == "exit":
            sys.exit(4)
        elif way == "os._exit":
            os._exit(4)
        elif way == "segfault":
            ctypes.string_at(0)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def leave(self) -> None:
        drumbeat.exit_actor()

    def once(self, path: str) -> int:
        """Die the first time that it is called, whoever calls."""
        if not Path(path).exists():
            Path(path).touch()
            os._exit(9)
        return self.add()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# ------------------------------------------------------------------------------------------- calls


def test_an_actor_keeps_its_state_between_calls_that_run_in_order() -> None:
    counter = Counter.remote(5)
    refs = [counter.add.remote(1) for _ in range(1000)]
    assert drumbeat.get(refs, timeout=30) == list(range(6, 1006))


def test_arguments_are_awaited_and_hold_back_what_the_same_caller_calls_later() -> None:
    counter = Counter.remote()
    slow = _slowly.remote(0.3, 10)
    refs = [counter.add.remote(slow), counter.add.remote(1)]
    assert drumbeat.get(refs, timeout=10) == [10, 11]


@drumbeat.remote(num_cpus=0)
def _slowly(seconds: float, value: int) -> int:
    time.sleep(seconds)
    return value


def test_a_large_argument_overtakes_nothing_and_is_overtaken_by_nothing() -> None:
    keeper = Keeper.remote()
    large = b"x" * 3_000_000
    refs = [keeper.keep.remote(value) for value in (b"1", large, b"2", large, b"3")]
    assert drumbeat.get(refs, timeout=20) == [1, 3_000_000, 1, 3_000_000, 1]
    assert drumbeat.get(keeper.sizes.remote(), timeout=10) == [1, 3_000_000, 1, 3_000_000, 1]


@drumbeat.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(value)

    def sizes(self) -> list[int]:
        return [len(value) for value in self.kept]

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of what was kept last."""
        return drumbeat.get(getattr(self.kept[-1][0], method).remote(*args), timeout=10)


def test_an_idle_actor_takes_no_cpu_from_tasks() -> None:
    counters = [Counter.remote() for _ in range(4)]
    drumbeat.get([counter.add.remote() for counter in counters], timeout=10)
    assert drumbeat.get([_slowly.options(num_cpus=1).remote(0.01, n) for n in range(8)]) == [
        *range(8)
    ]


def test_two_callers_of_one_actor_do_not_wait_for_each_others_arguments() -> None:
    counter = Counter.remote()
    never = _slowly.remote(1e6, 100)
    blocked = counter.add.remote(never)
    assert drumbeat.get(_call_it.remote([counter], "add", 1), timeout=20) == 1
    drumbeat.cancel([blocked, never])


@drumbeat.remote
def _call_it(handles: list[Any], method: str, *args: Any) -> Any:
    return drumbeat.get(getattr(handles[0], method).remote(*args), timeout=10)


# ------------------------------------------------------------------------------------------ errors


def test_an_error_in_a_method_is_its_callers_with_the_traceback_and_the_actor_goes_on() -> None:
    counter = Counter.remote()
    with pytest.raises(LookupError, match="broken") as caught:
        drumbeat.get(counter.fail.remote("broken"), timeout=10)
    assert "in fail" in str(caught.value)
    assert "raise LookupError(text)" in str(caught.value)
    assert drumbeat.get(counter.add.remote(), timeout=10) == 1


def test_sys_exit_in_a_method_is_an_error_like_any_other() -> None:
    counter = Counter.remote()
    with pytest.raises(drumbeat.TaskError, match="SystemExit"):
        drumbeat.get(counter.end_by.remote("exit"), timeout=10)
    assert drumbeat.get(counter.add.remote(), timeout=10) == 1


@drumbeat.remote
class Unmade:
    def __init__(self, why: str) -> None:
        if why == "raises":
            raise LookupError("never made")
        os._exit(6)

    def speak(self) -> None:
        pass


def test_a_constructor_that_raises_is_why_all_calls_fail_with_its_traceback() -> None:
    unmade = Unmade.remote("raises")
    for _ in range(2):
        with pytest.raises(drumbeat.ActorDied, match="constructor raised") as caught:
            drumbeat.get(unmade.speak.remote(), timeout=10)
        assert isinstance(caught.value.__cause__, LookupError)
        assert 'raise LookupError("never made")' in str(caught.value.__cause__)


def test_a_constructor_that_ends_its_process_is_tried_again_as_often_as_allowed() -> None:
    unmade = Unmade.options(max_restarts=1).remote("ends")
    with pytest.raises(drumbeat.ActorDied, match="exit code 6") as caught:
        drumbeat.get(unmade.speak.remote(), timeout=20)
    assert "max_restarts=1 allows no further" in str(caught.value)
    assert "incarnation 1" in str(caught.value)


# ------------------------------------------------------------------------------------------ deaths


@pytest.mark.parametrize("way", ["os._exit", "segfault", "kill"])
def test_a_call_that_ends_its_process_is_lost_and_so_is_the_actor(way: str) -> None:
    counter = Counter.remote()
    lost, queued = counter.end_by.remote(way), counter.add.remote()
    with pytest.raises(drumbeat.ActorCallLost) as caught:
        drumbeat.get(lost, timeout=10)
    assert caught.value.maybe_executed
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(queued, timeout=10)
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(counter.add.remote(), timeout=10)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_a_killed_process_is_replaced_and_calls_that_wait_run_in_the_next_one_in_order(
    busy: bool,
) -> None:
    counter = Counter.options(max_restarts=1).remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    drumbeat.get(counter.add.remote(100), timeout=10)
    refs = []
    if busy:
        lost = counter.sleep.remote(60)
        until(lambda: runs("Counter.sleep"))
        refs = [counter.add.remote() for _ in range(50)]
    os.kill(pid, signal.SIGKILL)
    if busy:
        with pytest.raises(drumbeat.ActorCallLost):
            drumbeat.get(lost, timeout=10)
    else:
        until(lambda: is_gone(pid))
    refs += [counter.add.remote() for _ in range(50)]
    assert drumbeat.get(refs, timeout=20) == list(range(1, len(refs) + 1)), "it is made anew"
    assert drumbeat.get(counter.pid.remote(), timeout=10) != pid


def test_a_call_that_may_be_repeated_is_replayed_before_those_behind_it(tmp_path: Path) -> None:
    counter = Counter.options(max_restarts=1, max_task_retries=1).remote()
    refs = [counter.once.remote(str(tmp_path / "died")), counter.add.remote(10)]
    assert drumbeat.get(refs, timeout=20) == [1, 11]


def test_after_its_last_restart_an_actor_is_dead_and_says_what_killed_it() -> None:
    counter = Counter.options(max_restarts=2).remote()
    for _ in range(3):
        with pytest.raises(drumbeat.ActorCallLost):
            drumbeat.get(counter.end_by.remote("kill"), timeout=20)
    with pytest.raises(drumbeat.ActorDied, match="SIGKILL"):
        drumbeat.get(counter.add.remote(), timeout=10)


# -------------------------------------------------------------------------------------------- ends


def test_an_actor_that_exits_answers_that_call_with_none_and_no_later_one() -> None:
    counter = Counter.options(max_restarts=3).remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    left, later = counter.leave.remote(), counter.add.remote()
    assert drumbeat.get(left, timeout=10) is None
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(later, timeout=10)
    until(lambda: is_gone(pid))


def test_a_killed_actor_is_dead_at_once_with_all_its_calls() -> None:
    counter = Counter.options(max_restarts=3).remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    running = counter.sleep.remote(60)
    time.sleep(0.1)
    queued = counter.add.remote()
    drumbeat.kill(counter)
    with pytest.raises(drumbeat.ActorError):
        drumbeat.get(running, timeout=10)
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(queued, timeout=10)
    until(lambda: is_gone(pid))


def test_one_killed_to_be_restarted_is() -> None:
    counter = Counter.options(max_restarts=1).remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    drumbeat.get(counter.add.remote(5), timeout=10)
    drumbeat.kill(counter, no_restart=False)
    until(lambda: is_gone(pid))
    assert drumbeat.get(counter.add.remote(), timeout=20) == 1


def test_the_last_handle_that_goes_ends_the_process_after_what_was_called() -> None:
    counter = Counter.remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    last = counter.sleep.remote(0.5)
    del counter
    assert drumbeat.get(last, timeout=10) == 0
    until(lambda: is_gone(pid), 5.0)


def test_a_cancelled_call_is_interrupted_and_the_actor_goes_on() -> None:
    counter = Counter.remote()
    drumbeat.get(counter.add.remote(), timeout=10)
    running = counter.sleep.remote(60)
    queued, kept = counter.add.remote(), counter.add.remote()
    time.sleep(0.2)
    drumbeat.cancel(queued)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(queued, timeout=10)
    drumbeat.cancel(running)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(running, timeout=10)
    assert drumbeat.get(kept, timeout=10) == 2


# ------------------------------------------------------------------------------ actors and tasks


def test_a_handle_passed_to_a_task_and_to_an_actor_is_the_same_actor() -> None:
    counter, keeper = Counter.remote(), Keeper.remote()
    assert drumbeat.get(_call_it.remote([counter], "add", 1), timeout=10) == 1
    drumbeat.get(keeper.keep.remote([counter]), timeout=10)
    assert drumbeat.get(keeper.call.remote("add", 2), timeout=10) == 3
    assert drumbeat.get(counter.add.remote(0), timeout=10) == 3


def test_an_actor_lives_as_long_as_another_holds_its_handle() -> None:
    counter, keeper = Counter.remote(), Keeper.remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    drumbeat.get(keeper.keep.remote([counter]), timeout=10)
    del counter
    time.sleep(0.3)
    assert drumbeat.get(keeper.call.remote("add", 2), timeout=10) == 2
    del keeper
    until(lambda: is_gone(pid), 5.0)


@drumbeat.remote
class Boss:
    """Calls tasks, and makes actors."""

    def __init__(self) -> None:
        self.crew: list[Any] = []

    def sum_of(self, count: int) -> int:
        return sum(drumbeat.get([_slowly.options(num_cpus=1).remote(0.0, n) for n in range(count)]))

    def hire(self, count: int) -> list[int]:
        self.crew = [Counter.remote(n) for n in range(count)]
        return drumbeat.get([one.pid.remote() for one in self.crew])

    def work(self) -> list[int]:
        return drumbeat.get([one.add.remote() for one in self.crew])

    def dismiss(self) -> None:
        self.crew.clear()


def test_an_actor_calls_tasks_and_waits_for_them_and_lends_its_cpus_meanwhile() -> None:
    bosses = [Boss.options(num_cpus=1).remote() for _ in range(2)]
    refs = [boss.sum_of.remote(20) for boss in bosses]
    assert drumbeat.get(refs, timeout=20) == [190, 190]


def test_an_actor_makes_actors_that_end_when_it_lets_them_go_or_ends() -> None:
    boss = Boss.remote()
    pids = drumbeat.get(boss.hire.remote(3), timeout=20)
    assert drumbeat.get(boss.work.remote(), timeout=10) == [1, 2, 3]
    drumbeat.get(boss.dismiss.remote(), timeout=10)
    until(lambda: all(map(is_gone, pids)), 5.0)
    pids = drumbeat.get(boss.hire.remote(3), timeout=20)
    drumbeat.kill(boss)
    until(lambda: all(map(is_gone, pids)), 5.0)


def test_a_task_makes_an_actor_and_hands_it_on() -> None:
    counter = drumbeat.get(_make.remote(7), timeout=10)
    assert drumbeat.get(counter.add.remote(), timeout=10) == 8
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    del counter
    until(lambda: is_gone(pid), 5.0)


@drumbeat.remote
def _make(count: int) -> Any:
    return Counter.remote(count)


def test_threads_of_one_process_call_at_once_and_no_call_is_lost() -> None:
    counter = Counter.remote()
    counts: list[int] = []

    def call() -> None:
        counts.extend(drumbeat.get([counter.add.remote() for _ in range(100)], timeout=20))

    in_threads([call] * 4)
    assert sorted(counts) == list(range(1, 401))


def in_threads(targets: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# -------------------------------------------------------------------------------- the whole cluster


def test_state_outlives_a_kill_of_the_scheduler_and_no_call_runs_twice(cluster: Cluster) -> None:
    counter = Counter.remote()
    before = [counter.add.remote() for _ in range(200)]
    drumbeat.get(before[50], timeout=10)
    os.kill(int(cluster.processes["scheduler"]), signal.SIGKILL)
    after = [counter.add.remote() for _ in range(200)]
    assert drumbeat.get([*before, *after], timeout=30) == list(range(1, 401))


def test_an_actor_that_died_while_no_scheduler_was_there_is_replaced(cluster: Cluster) -> None:
    counter = Counter.options(max_restarts=1).remote()
    pid = drumbeat.get(counter.pid.remote(), timeout=10)
    os.kill(int(cluster.processes["scheduler"]), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    assert drumbeat.get(counter.add.remote(), timeout=30) == 1
    assert drumbeat.get(counter.pid.remote(), timeout=10) != pid
