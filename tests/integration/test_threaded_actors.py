"""Actors whose plain methods run in threads, end to end."""

import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.running import running, runs, stack_of
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2) as one:
        yield one


@drumbeat.remote(num_cpus=0)
def _later(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


@drumbeat.remote
class Threads:
    """Plain methods only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.barrier = threading.Barrier(3, timeout=20)
        self.seen: list[Any] = []
        self.begun = threading.Event()
        self.now = self.most = 0

    def sleep(self, seconds: float) -> float:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self.lock:
            self.now -= 1
        return seconds

    def most_at_once(self) -> int:
        return self.most

    def meet(self) -> int:
        return self.barrier.wait()

    def note(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def fail(self, text: str) -> None:
        raise LookupError(text)

    def add_up(self, refs: list[Any]) -> Any:
        return sum(drumbeat.get(refs, timeout=10))

    def submit(self, value: Any) -> Any:
        return drumbeat.get(_later.remote(0.01, value), timeout=10)

    def spin(self, seconds: float) -> str:
        end_s = time.monotonic() + seconds
        try:
            self.begun.set()
            while time.monotonic() < end_s:
                sum(range(100))
        except drumbeat.Interrupted as error:
            self.seen.append(error.reason)
            raise
        return "spun"

    def one_has_begun(self) -> bool:
        """Wait until one is where it can be interrupted."""
        return self.begun.wait(20)

    def wait_for(self, refs: list[Any]) -> Any:
        return drumbeat.get(refs[0])

    def shielded(self, seconds: float) -> str:
        with drumbeat.shield():
            self.begun.set()
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                sum(range(100))
            self.seen.append("shielded")
        return "never"

    def all_seen(self) -> list[Any]:
        return self.seen

    def me(self) -> tuple[str, str | None]:
        call = drumbeat.current()
        return call.name, call.actor_id

    def backtrack(self) -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")

    def start_and_terminate(self) -> int:
        child = subprocess.Popen(["sleep", "60"])
        try:
            child.terminate()
            return child.wait(10)
        finally:
            child.kill()

    def leave(self) -> None:
        drumbeat.exit_actor()


def test_plain_methods_run_in_threads_when_max_concurrency_says_so() -> None:
    actor = Threads.options(max_concurrency=3).remote()
    assert sorted(drumbeat.get([actor.meet.remote() for _ in range(3)], timeout=20)) == [0, 1, 2]
    assert drumbeat.get([actor.sleep.remote(0.1) for _ in range(9)], timeout=10) == [0.1] * 9
    assert drumbeat.get(actor.most_at_once.remote(), timeout=10) == 3
    alone = Threads.remote()
    drumbeat.get([alone.sleep.remote(0.02) for _ in range(5)], timeout=10)
    assert drumbeat.get(alone.most_at_once.remote(), timeout=10) == 1


def test_threads_get_others_values_and_tell_of_errors() -> None:
    actor = Threads.options(max_concurrency=4).remote()
    refs = [_later.remote(0.05, number) for number in range(4)]
    sums = [actor.add_up.remote(refs) for _ in range(4)]
    assert drumbeat.get(sums, timeout=20) == [6] * 4
    assert drumbeat.get([actor.submit.remote(n) for n in range(8)], timeout=20) == list(range(8))
    with pytest.raises(LookupError, match="broken"):
        drumbeat.get(actor.fail.remote("broken"), timeout=10)
    assert drumbeat.get(actor.me.remote(), timeout=10)[0] == "Threads.me"


def test_a_thread_is_interrupted_and_others_are_not() -> None:
    actor = Threads.options(max_concurrency=4).remote()
    beside = [actor.sleep.remote(1.0) for _ in range(2)]
    doomed = actor.spin.remote(60)
    assert drumbeat.get(actor.one_has_begun.remote(), timeout=30)
    drumbeat.cancel(doomed)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    assert drumbeat.get(beside, timeout=10) == [1.0, 1.0]
    assert drumbeat.get(actor.all_seen.remote(), timeout=10) == ["cancelled"]


def test_a_thread_that_waits_for_a_value_is_interrupted_there() -> None:
    actor = Threads.options(max_concurrency=4).remote()
    never = _later.remote(60, None)
    doomed = actor.wait_for.remote([never])
    until(lambda: runs("Threads.wait_for"))
    drumbeat.cancel(doomed)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    drumbeat.cancel(never)
    assert drumbeat.get(actor.note.remote(1), timeout=10) == 1


def test_a_shield_in_a_thread_lets_it_end_what_it_began() -> None:
    actor = Threads.options(max_concurrency=2).remote()
    doomed = actor.shielded.remote(3.0)  # a beat comes meanwhile
    assert drumbeat.get(actor.one_has_begun.remote(), timeout=30)
    drumbeat.cancel(doomed)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    assert drumbeat.get(actor.all_seen.remote(), timeout=10) == ["shielded"]


def test_exit_actor_in_a_thread_ends_the_actor() -> None:
    actor = Threads.options(max_concurrency=2).remote()
    beside = actor.sleep.remote(60)
    until(lambda: runs("Threads.sleep"))
    assert drumbeat.get(actor.leave.remote(), timeout=10) is None
    with pytest.raises(drumbeat.ActorCallLost, match="ended itself"):
        drumbeat.get(beside, timeout=10)
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(actor.note.remote(1), timeout=10)


def test_what_a_call_in_a_thread_starts_can_be_terminated() -> None:
    actor = Threads.options(max_concurrency=2).remote()
    assert drumbeat.get(actor.start_and_terminate.remote(), timeout=20) == -signal.SIGTERM


def test_a_limit_ends_a_call_in_a_thread() -> None:
    actor = Threads.options(max_concurrency=3).remote()
    beside = actor.sleep.remote(2.0)
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(actor.spin.options(timeout=0.6).remote(60), timeout=10)
    assert caught.value.verdict not in ("importing", "unpickling"), "its code runs"
    assert drumbeat.get(beside, timeout=10) == 2.0
    assert drumbeat.get(actor.all_seen.remote(), timeout=10) == ["timed_out"]


@drumbeat.remote
class Loop:
    """On an event loop."""

    async def backtrack(self) -> None:
        re.match(r"(a+)+$", "a" * 60 + "b")

    async def ready(self) -> bool:
        return True


def test_a_limit_ends_a_call_that_keeps_the_interpreter_from_its_beginning() -> None:
    threads = Threads.options(max_concurrency=3, max_restarts=1).remote()
    loop = Loop.options(max_restarts=1).remote()
    threads.sleep.remote(60)
    until(lambda: runs("Threads.sleep"))
    drumbeat.get(loop.ready.remote(), timeout=20)
    calls = [actor.backtrack.options(timeout=0.5).remote() for actor in (threads, loop)]
    for call in calls:
        with pytest.raises(drumbeat.TaskTimedOut):
            drumbeat.get(call, timeout=30)
    assert drumbeat.get(threads.note.remote(1), timeout=20) == 1
    assert drumbeat.get(loop.ready.remote(), timeout=20)


def test_stack_says_which_thread_runs_which_call(cluster: Cluster) -> None:
    actor = Threads.options(max_concurrency=3).remote()
    refs = [actor.sleep.remote(30), actor.spin.remote(30)]
    until(lambda: runs("Threads.spin"))
    pid = next(row["pid"] for row in running("Threads.spin"))
    shown = stack_of(cluster, pid)
    assert re.search(r"thread of Threads\.sleep", shown)
    assert re.search(r"thread of Threads\.spin", shown)
    drumbeat.kill(actor)
    assert len(drumbeat.wait(refs, num_returns=2, timeout=10)[0]) == 2


@drumbeat.remote
class Locks:
    """Two methods that lock each other out."""

    def __init__(self) -> None:
        self.first, self.second = threading.Lock(), threading.Lock()
        self.meets = threading.Barrier(2, timeout=20)

    def there(self) -> None:
        with self.first:
            self.meets.wait()
            with self.second:
                pass

    def back(self) -> None:
        with self.second:
            self.meets.wait()
            self.take_first()

    def take_first(self) -> None:
        with self.first:
            pass

    def spin(self, seconds: float) -> None:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            pass


def _verdicts() -> dict[str, dict[str, Any]]:
    names = ("Locks.there", "Locks.back", "Locks.spin")
    return {name: row for name in names for row in running(name)}


def test_a_deadlock_of_two_threads_is_told_of_by_what_each_of_them_does(cluster: Cluster) -> None:
    actor = Locks.options(max_concurrency=3).remote()
    spins = actor.spin.remote(60)  # its main thread and others say nothing of these two
    calls = [actor.there.remote(), actor.back.options(timeout=6.0).remote()]
    until(
        lambda: [
            row["verdict"] for name, row in _verdicts().items() if name != "Locks.spin"
        ] == ["blocked", "blocked"]
    )  # fmt: skip
    told = _verdicts()
    assert told["Locks.there"]["where"] == told["Locks.back"]["where"] == "futex"
    assert "its thread: no CPU and no IO" in told["Locks.there"]["evidence"]
    assert "2 of 3 calls that the actor has wait for locks" in told["Locks.there"]["evidence"]
    assert told["Locks.spin"]["verdict"] != "blocked"
    shown = stack_of(cluster, told["Locks.back"]["id"]).splitlines()
    assert shown[0].startswith(f"Locks.back {told['Locks.back']['id']} ")
    assert shown[1].strip() == f"thread of Locks.back {told['Locks.back']['id']}:"
    assert re.search(r"test_threaded_actors\.py:\d+ take_first", shown[2])
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(calls[1], timeout=30)
    assert str(caught.value.verdict).startswith("blocked: its thread: no CPU")
    assert re.match(r"test_threaded_actors\.py:\d+ take_first < ", str(caught.value.stack))
    drumbeat.wait([spins], timeout=5)
    with pytest.raises(drumbeat.ActorError):
        drumbeat.get(calls[0], timeout=30)
