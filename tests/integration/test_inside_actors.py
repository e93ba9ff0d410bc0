"""Inside the methods of real actors: progress, details, shield, current, and Interrupted."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.ids import show
from support.told import begun, write
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=4):
        yield


@drumbeat.remote(max_restarts=3)
class Store:
    """Knows its life."""

    def __init__(self) -> None:
        self.made = drumbeat.current()

    def life(self) -> tuple[Any, ...]:
        call = drumbeat.current()
        return self.made.actor_id, self.made.fence, call.actor_id, call.fence, call.task_id

    def in_a_thread(self) -> tuple[Any, ...]:
        found: list[Any] = []

        def look() -> None:
            drumbeat.progress(1)
            found.append(drumbeat.current())

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return found[0].actor_id, found[0].task_id

    def work(self, path: Path) -> list[Any]:
        try:
            with drumbeat.shield():
                write(path)
                time.sleep(0.5)
                drumbeat.progress(1)
            return ["not interrupted"]
        except drumbeat.Interrupted as interrupted:
            return [interrupted.reason]


def test_an_actors_fence_rises_with_each_of_its_lives() -> None:
    store = Store.remote()
    call = store.life.remote()
    actor, fence, same, same_fence, task = drumbeat.get(call, timeout=20)
    assert (actor, fence) == (same, same_fence)
    assert task == show(call.id)
    assert drumbeat.get(store.in_a_thread.remote(), timeout=20)[0] == actor
    drumbeat.kill(store, no_restart=False)
    # It returns at once: the old life may yet answer a call or two.
    lives = [(actor, fence, same, same_fence, task)]

    def lives_again() -> bool:
        found = life_of(store)
        lives.extend([] if found is None else [found])
        return lives[-1][1] > fence

    until(lives_again)
    assert {life[0] for life in lives} == {actor}
    assert all(life[1] == life[3] for life in lives)
    assert [life[1] for life in lives] == sorted(life[1] for life in lives)


def test_what_a_call_of_an_actor_told_reaches_its_next_attempt() -> None:
    @drumbeat.remote(max_restarts=1, max_task_retries=1)
    class Dies:
        def now(self) -> list[Any]:
            call = drumbeat.current()
            if call.attempt == 1:
                drumbeat.progress(1, 2, details=call.fence)
                os.kill(os.getpid(), signal.SIGKILL)
            return [call.last_details, call.fence]

    told, fence = drumbeat.get(Dies.remote().now.remote(), timeout=30)
    assert told < fence


@drumbeat.remote
class Several:
    """Has calls that run beside each other."""

    async def meet(self, number: int, all_are_here: int) -> list[Any]:
        drumbeat.progress(number, all_are_here, details=number)
        self.here = getattr(self, "here", 0) + 1
        while self.here < all_are_here:
            await asyncio.sleep(0.01)
        call = drumbeat.current()
        return [call.task_id, call.actor_id]

    async def shielded(self, path: Path) -> list[str]:
        steps = []
        try:
            with drumbeat.shield():
                write(path)
                for _ in range(50):
                    await asyncio.sleep(0.01)
                    drumbeat.progress(1)
                steps.append("to its end")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("cancelled")
        return steps


def test_calls_on_one_event_loop_each_know_who_they_are() -> None:
    several = Several.remote()
    refs = [several.meet.remote(number, 20) for number in range(20)]
    found = drumbeat.get(refs, timeout=30)
    assert [task for task, _ in found] == [show(ref.id) for ref in refs]
    assert len({actor for _, actor in found}) == 1


def test_a_shield_holds_the_cancel_of_a_coroutine_back(tmp_path: Path) -> None:
    several = Several.remote()
    ref = several.shielded.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    drumbeat.cancel(ref)
    assert drumbeat.get(ref, timeout=20) == ["to its end", "cancelled"]


def life_of(store: Any) -> tuple[Any, ...] | None:
    try:
        return drumbeat.get(store.life.remote(), timeout=20)
    except drumbeat.ActorError:
        return None


def test_a_call_of_an_actor_is_shielded_and_interrupted_alike(tmp_path: Path) -> None:
    store = Store.remote()
    ref = store.work.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    drumbeat.cancel(ref)
    assert drumbeat.get(ref, timeout=20) == ["cancelled"]
    assert drumbeat.get(store.life.remote(), timeout=20)
