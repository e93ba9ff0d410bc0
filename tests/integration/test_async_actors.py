"""Actors that run several calls at once, end to end: on an event loop, and in threads."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.running import running, runs, stack_of
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, cancel_grace_s=1.0, term_grace_s=1.0) as one:
        yield one


@drumbeat.remote(num_cpus=0)
def _later(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


@drumbeat.remote
class Loop:
    """All kinds of methods, on one event loop."""

    def __init__(self, path: str = "") -> None:
        self.path = path
        self.seen: list[Any] = []
        self.now = self.most = 0
        self.event = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    async def note(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def plain(self) -> list[Any]:
        """No coroutine, and on the loop all the same."""
        assert asyncio.get_running_loop() is self.loop
        assert threading.current_thread() is threading.main_thread()
        return self.seen

    async def sleep(self, seconds: float) -> float:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1
        return seconds

    async def most_at_once(self) -> int:
        return self.most

    async def wait(self) -> str:
        self.now += 1
        await self.event.wait()
        self.now -= 1
        return "woken"

    async def wake(self) -> None:
        self.event.set()

    async def fail(self, text: str) -> None:
        await asyncio.sleep(0)
        raise LookupError(text)

    async def two(self) -> tuple[int, int]:
        return 1, 2

    async def await_all(self, refs: list[Any]) -> list[Any]:
        return list(await asyncio.gather(*refs))

    async def get_all(self, refs: list[Any]) -> list[Any]:
        return drumbeat.get(refs, timeout=10)

    async def call(self, handle: Any, method: str, *args: Any) -> Any:
        return await getattr(handle[0], method).remote(*args)

    async def submit(self, value: Any) -> Any:
        return await _later.remote(0.01, value)

    async def clean_up(self, seconds: float) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
            self.seen.append("cleaned up")
            raise
        return "slept"

    async def best_so_far(self) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "so far"
        return "all"

    async def shielded(self, seconds: float) -> str:
        with drumbeat.shield():
            await asyncio.sleep(seconds)
        self.seen.append("after the shield")
        await asyncio.sleep(60)
        return "never"

    async def spin(self, seconds: float) -> str:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            pass
        return "spun"

    async def begin_behind(self) -> None:
        self.event.set()
        await asyncio.sleep(60)

    async def stubborn(self) -> None:
        """Keep the loop once another call has begun, and heed nothing."""
        await self.event.wait()
        while True:
            try:
                await self.spin(60)
            except BaseException as error:  # noqa: BLE001  # that is what makes it stubborn
                self.seen.append(error)

    async def me(self) -> tuple[str, str | None]:
        await asyncio.sleep(0.01)
        call = drumbeat.current()
        return call.name, call.actor_id

    async def report(self, count: int) -> int:
        for number in range(count):
            drumbeat.progress(number, count)
            await asyncio.sleep(0.05)
        return count

    async def leave(self) -> None:
        await asyncio.sleep(0.05)
        drumbeat.exit_actor()

    async def die(self) -> None:
        os._exit(3)

    def start_task(self) -> None:
        self.task = self.loop.create_task(self._background())

    async def _background(self) -> None:
        while True:
            self.now += 1
            await asyncio.sleep(0.01)

    async def ticks(self) -> int:
        return self.now

    def stop_iteration(self) -> Any:
        return next(iter([]))

    async def pid(self) -> int:
        return os.getpid()


# ----------------------------------------------------------------------------------- on the loop


def test_calls_with_an_async_def_method_run_at_once_and_end_in_any_order() -> None:
    actor = Loop.remote()
    waits = [actor.wait.remote() for _ in range(200)]
    # All of them wait, and those that come later end before them.
    assert drumbeat.get([actor.sleep.remote(0.01) for _ in range(200)], timeout=10) == [0.01] * 200
    until(lambda: drumbeat.get(actor.ticks.remote(), timeout=10) == 200)
    assert drumbeat.wait(waits, timeout=0)[0] == []
    drumbeat.get(actor.wake.remote(), timeout=10)
    assert drumbeat.get(waits, timeout=10) == ["woken"] * 200


def test_calls_begin_in_the_order_in_which_they_were_made() -> None:
    actor = Loop.remote()
    refs = [actor.note.remote(number) for number in range(3000)]
    assert drumbeat.get(refs, timeout=30) == list(range(3000))
    assert drumbeat.get(actor.plain.remote(), timeout=10) == list(range(3000))


def test_max_concurrency_bounds_what_runs_at_once() -> None:
    actor = Loop.options(max_concurrency=3).remote()
    assert drumbeat.get([actor.sleep.remote(0.05) for _ in range(12)], timeout=10) == [0.05] * 12
    assert drumbeat.get(actor.most_at_once.remote(), timeout=10) == 3
    one = Loop.options(max_concurrency=1).remote()
    drumbeat.get([one.sleep.remote(0.02) for _ in range(5)], timeout=10)
    assert drumbeat.get(one.most_at_once.remote(), timeout=10) == 1


def test_what_a_coroutine_raises_is_its_callers_without_the_frames_of_the_loop() -> None:
    actor = Loop.remote()
    with pytest.raises(LookupError, match="broken") as caught:
        drumbeat.get(actor.fail.remote("broken"), timeout=10)
    text = caught.value.traceback_text
    assert "in fail" in text
    assert "asyncio" not in text
    assert "several" not in text
    with pytest.raises(drumbeat.TaskError, match="StopIteration"):
        drumbeat.get(actor.stop_iteration.remote(), timeout=10)
    assert drumbeat.get(actor.note.remote(1), timeout=10) == 1


def test_several_values_and_awaiting_and_getting_others_values() -> None:
    actor = Loop.remote()
    first, second = actor.two.options(num_returns=2).remote()
    assert drumbeat.get([first, second], timeout=10) == [1, 2]
    refs = [_later.remote(0.05, number) for number in range(5)]
    assert drumbeat.get(actor.await_all.remote(refs), timeout=20) == [0, 1, 2, 3, 4]
    assert drumbeat.get(actor.get_all.remote(refs), timeout=20) == [0, 1, 2, 3, 4]
    assert drumbeat.get([actor.submit.remote(n) for n in range(8)], timeout=20) == list(range(8))


def test_two_actors_that_await_each_other_do_not_block() -> None:
    one, other = Loop.remote(), Loop.remote()
    assert drumbeat.get(one.call.remote([other], "call", [one], "note", 7), timeout=20) == 7


def test_its_own_tasks_go_on_between_calls() -> None:
    actor = Loop.remote()
    drumbeat.get(actor.start_task.remote(), timeout=10)
    until(lambda: drumbeat.get(actor.ticks.remote(), timeout=10) > 10)


def test_a_call_can_ask_what_it_is_while_others_run() -> None:
    actor = Loop.remote()
    names = drumbeat.get([actor.me.remote() for _ in range(3)], timeout=10)
    assert len(set(names)) == 1
    assert names[0][0] == "Loop.me"
    assert names[0][1]


def test_a_cancelled_coroutine_may_clean_up_and_nothing_else_is_harmed() -> None:
    actor = Loop.remote()
    others = [actor.sleep.remote(1.0) for _ in range(20)]
    doomed = actor.clean_up.remote(0.1)
    until(lambda: runs("Loop.clean_up"))
    drumbeat.cancel(doomed)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    assert drumbeat.get(actor.plain.remote(), timeout=10) == ["cleaned up"]
    assert drumbeat.get(others, timeout=10) == [1.0] * 20


def test_a_cancelled_coroutine_may_return_its_best_so_far() -> None:
    actor = Loop.remote()
    doomed = actor.best_so_far.remote()
    until(lambda: runs("Loop.best_so_far"))
    drumbeat.cancel(doomed)
    assert drumbeat.get(doomed, timeout=10) == "so far"


def test_many_calls_can_be_cancelled_at_once() -> None:
    actor = Loop.remote()
    refs = [actor.sleep.remote(60) for _ in range(30)]
    until(lambda: drumbeat.get(actor.most_at_once.remote(), timeout=10) == 30)
    for ref in refs[::2]:
        drumbeat.cancel(ref)
    for ref in refs[::2]:
        with pytest.raises(drumbeat.TaskCancelled):
            drumbeat.get(ref, timeout=10)
    assert drumbeat.wait(refs[1::2], num_returns=1, timeout=0.2)[0] == []
    drumbeat.kill(actor)


def test_a_shield_holds_a_cancel_back_from_its_own_call_only() -> None:
    actor = Loop.remote()
    doomed, other = actor.shielded.remote(1.0), actor.sleep.remote(60)
    until(lambda: runs("Loop.shielded"))
    drumbeat.cancel(doomed)
    drumbeat.cancel(other)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(other, timeout=10)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    assert drumbeat.get(actor.plain.remote(), timeout=10) == ["after the shield"]


def test_a_coroutine_that_never_awaits_is_interrupted_where_it_is() -> None:
    actor = Loop.remote()
    doomed = actor.spin.remote(60)
    until(lambda: runs("Loop.spin"))
    drumbeat.cancel(doomed)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(doomed, timeout=10)
    assert drumbeat.get(actor.note.remote(1), timeout=10) == 1


def test_exit_actor_ends_it_and_what_ran_beside_is_lost() -> None:
    actor = Loop.remote()
    beside = actor.sleep.remote(60)
    until(lambda: runs("Loop.sleep"))
    assert drumbeat.get(actor.leave.remote(), timeout=10) is None
    with pytest.raises(drumbeat.ActorCallLost, match="ended itself") as caught:
        drumbeat.get(beside, timeout=10)
    assert caught.value.maybe_executed
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(actor.note.remote(1), timeout=10)


def test_when_its_process_dies_all_that_ran_is_lost_and_what_had_not_begun_runs_again() -> None:
    actor = Loop.options(max_restarts=1, max_concurrency=4).remote()
    begun = [actor.sleep.remote(60) for _ in range(3)]
    pid = drumbeat.get(actor.pid.remote(), timeout=10)
    begun.append(actor.sleep.remote(60))
    queued = [actor.note.remote(number) for number in range(5)]
    until(lambda: len(running("Loop.sleep")) == 4)
    os.kill(pid, signal.SIGKILL)
    for ref in begun:
        with pytest.raises(drumbeat.ActorCallLost):
            drumbeat.get(ref, timeout=20)
    assert drumbeat.get(queued, timeout=20) == list(range(5))
    assert drumbeat.get(actor.plain.remote(), timeout=10) == list(range(5))


def test_an_actor_ends_when_nobody_holds_it_and_its_calls_are_done() -> None:
    pid = drumbeat.get(Loop.remote().pid.remote(), timeout=10)
    until(lambda: not Path(f"/proc/{pid}").exists())


def test_a_limit_ends_one_of_many_and_the_others_go_on() -> None:
    actor = Loop.remote()
    beside = [actor.sleep.remote(4.0) for _ in range(10)]
    limited = [actor.sleep.options(timeout=0.6).remote(60) for _ in range(3)]
    for ref in limited:
        with pytest.raises(drumbeat.TaskTimedOut, match=r"timeout of 0\.6 s") as caught:
            drumbeat.get(ref, timeout=10)
        assert re.match(
            r"tasks\.py:\d+ sleep < test_async_actors\.py:\d+ sleep", caught.value.stack
        )
    assert drumbeat.wait(beside, timeout=0)[0] == []
    assert drumbeat.get(beside, timeout=10) == [4.0] * 10


def test_one_that_heeds_nothing_ends_its_actor_and_those_beside_it_are_lost() -> None:
    actor = Loop.options(max_restarts=1).remote()
    beside = [actor.sleep.remote(60) for _ in range(3)]
    until(lambda: runs("Loop.sleep"))
    stubborn = actor.stubborn.options(timeout=2.0).remote()
    after = actor.begin_behind.remote()
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(stubborn, timeout=20)
    assert re.search(r"cancel, no effect in \d[\d.]* s · SIGTERM", caught.value.actions)
    for ref in beside:
        with pytest.raises(drumbeat.ActorCallLost):
            drumbeat.get(ref, timeout=20)
    with pytest.raises(drumbeat.ActorCallLost):
        drumbeat.get(after, timeout=20)
    assert drumbeat.get(actor.note.remote("again"), timeout=20) == "again"


def test_of_calls_beside_each_other_only_the_one_that_does_not_progress_is_hung() -> None:
    actor = Loop.options(heartbeat_timeout=1.0).remote()
    good, bad = actor.report.remote(50), actor.sleep.remote(60)
    with pytest.raises(drumbeat.TaskHung):
        drumbeat.get(bad, timeout=10)
    assert drumbeat.get(good, timeout=20) == 50


def test_status_shows_each_call_that_runs_for_a_while() -> None:
    actor = Loop.remote()
    refs = [actor.sleep.remote(30) for _ in range(3)]
    until(lambda: len(running("Loop.sleep")) == 3)
    drumbeat.kill(actor)
    assert len(drumbeat.wait(refs, num_returns=3, timeout=10)[0]) == 3


# ------------------------------------------------------------------------------------ the example


def test_the_crawler_finds_every_page_and_gives_up_the_one_that_never_answers() -> None:
    root = Path(__file__).parents[2]
    given = [sys.executable, str(root / "examples" / "crawler.py"), "--pages", "60", "--limit", "1"]
    done = subprocess.run(given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "\n200: 60\n" in done.stdout
    assert "\ntimed out: 1\n" in done.stdout
    most = re.search(r"at most (\d+) at a time", done.stdout)
    assert most is not None
    assert int(most[1]) > 1


# ----------------------------------------------------------------------------------------- stacks


def test_stack_shows_where_each_coroutine_is(cluster: Cluster) -> None:
    actor = Loop.remote()
    refs = [actor.sleep.remote(30), actor.clean_up.remote(0.0)]
    until(lambda: runs("Loop.clean_up"))
    shown = stack_of(cluster, drumbeat.get(actor.pid.remote(), timeout=10))
    assert re.search(r"coroutine of Loop\.sleep .*:\n(.*\n)?.*tasks\.py:\d+ sleep\n.* sleep", shown)
    assert re.search(r"coroutine of Loop\.clean_up", shown)
    assert "main thread" in shown
    drumbeat.kill(actor)
    assert len(drumbeat.wait(refs, num_returns=2, timeout=10)[0]) == 2


@drumbeat.remote
class Blocked:
    """An actor whose own tasks may keep its loop."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()
        self.tasks: list[Any] = []

    async def block(self, after_s: float, told: str = os.devnull) -> None:
        """Have the loop wait for a lock for ever, when this call is over; a file tells of it."""

        async def hang() -> None:
            await asyncio.sleep(after_s)
            with open(told, "w"):
                self.lock.acquire(timeout=1e6)

        self.tasks.append(asyncio.get_running_loop().create_task(hang()))

    async def answer(self) -> int:
        return 42

    async def wait(self) -> None:
        await asyncio.sleep(3600)


def _row_of(name: str) -> dict[str, Any]:
    return next(iter(running(name)), {})


def test_calls_of_an_actor_whose_loop_is_blocked_end_by_their_limits(
    cluster: Cluster, tmp_path: Path
) -> None:
    actor, told = Blocked.remote(), tmp_path / "told"
    drumbeat.get(actor.block.remote(0.0, str(told)), timeout=20)
    until(told.exists)  # one that came sooner would begin, and what has begun is ended otherwise
    unlimited = actor.answer.options(name="unlimited").remote()
    queued = actor.answer.options(name="queued", queue_timeout=2.5).remote()
    timed = actor.answer.options(name="timed", timeout=2.0).remote()
    until(lambda: _row_of("unlimited").get("verdict") == "loop-blocked")
    row = _row_of("unlimited")
    assert "its event loop has not come round for" in row["evidence"]
    shown = stack_of(cluster, row["pid"])
    assert re.search(r"test_async_actors\.py:\d+ hang", shown)
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(timed, timeout=15)
    assert caught.value.limit == "timeout"
    assert str(caught.value.verdict).startswith("loop-blocked: ")
    assert "hang" in str(caught.value.stack), caught.value.actions
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(queued, timeout=15)
    assert caught.value.limit == "queue_timeout"
    assert "loop-blocked" in str(caught.value.verdict)
    for _ in range(2):  # those that come later as well
        with pytest.raises(drumbeat.TaskTimedOut, match="though it was its turn"):
            drumbeat.get(actor.answer.options(timeout=0.5).remote(), timeout=10)
    assert not drumbeat.wait([unlimited], timeout=0.0)[0]
    drumbeat.kill(actor)


def test_a_call_that_waits_while_something_else_keeps_the_loop_is_told_of_so() -> None:
    actor = Blocked.options(max_restarts=1).remote()
    waits = actor.wait.options(timeout=3.0).remote()
    drumbeat.get(actor.block.remote(0.5), timeout=20)
    until(lambda: _row_of("Blocked.wait").get("verdict") == "loop-blocked")
    with pytest.raises(drumbeat.TaskTimedOut):
        drumbeat.get(waits, timeout=20)
    assert drumbeat.get(actor.answer.remote(), timeout=20) == 42, "it began anew"
