"""Every way to wait inside a task on a node of one CPU: it lends, or says that it cannot."""

import asyncio
import concurrent.futures
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.errors import DrumbeatError, ResourceDeadlock, WorkerDied

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True, scope="module")
def one_cpu() -> Iterator[None]:
    with drumbeat.init(num_cpus=1):
        yield


@drumbeat.remote
def child(number: int) -> int:
    return number + 1


def with_a_future() -> Any:
    return [child.remote(1).future().result(), child.remote(2).future().exception()]


def with_an_executor() -> Any:
    with drumbeat.Executor(1) as executor:
        return [executor.submit(abs, -1).result(), *executor.map(abs, range(-3, 0))]


def with_the_end_of_an_executor() -> Any:
    with drumbeat.Executor(2) as executor:
        futures = [executor.submit(abs, -number) for number in range(5)]
    return [future.result(timeout=5) for future in futures]


async def with_await() -> Any:
    return [await child.remote(1), await child.remote(2)]


def with_a_loop_of_its_own() -> Any:
    async def gather() -> list[int]:
        timer = asyncio.create_task(asyncio.sleep(0.05, 0))
        return [*await asyncio.gather(*map(child.remote, range(5))), await timer]

    return asyncio.run(gather())


WAYS = {
    with_a_future: [2, None],
    with_an_executor: [1, 3, 2, 1],
    with_the_end_of_an_executor: [0, 1, 2, 3, 4],
    with_await: [2, 3],
    with_a_loop_of_its_own: [1, 2, 3, 4, 5, 0],
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_wait_in_the_main_thread_lends_the_cpu(way: Any) -> None:
    assert drumbeat.get(drumbeat.remote(way).remote(), timeout=20) == WAYS[way]


def test_a_task_that_awaits_can_be_cancelled_and_its_worker_goes_on() -> None:
    @drumbeat.remote(num_cpus=2)
    def never() -> None: ...

    @drumbeat.remote
    async def wait() -> None:
        await never.options(wait_for_nodes=True).remote()

    ref = wait.remote()
    time.sleep(0.5)
    drumbeat.cancel(ref)
    with pytest.raises(DrumbeatError, match="cancelled"):
        drumbeat.get(ref, timeout=10)
    assert drumbeat.get(child.remote(1), timeout=10) == 2


@drumbeat.remote
def joins_a_thread() -> list[str]:
    ended = []

    def get() -> None:
        try:
            drumbeat.get(child.remote(1))
        except ResourceDeadlock:
            ended.append("told")

    thread = threading.Thread(target=get)
    thread.start()
    thread.join()
    return ended


@drumbeat.remote
def waits_as_the_library_does() -> list[str]:
    future = child.remote(1).future()
    concurrent.futures.wait([future])
    return [type(future.exception()).__name__]


@pytest.mark.parametrize("task", [joins_a_thread, waits_as_the_library_does])
def test_a_wait_that_can_lend_nothing_is_told_that_it_is_for_ever(task: Any) -> None:
    assert drumbeat.get(task.remote(), timeout=20) in (["told"], ["ResourceDeadlock"])


def test_a_task_that_works_on_with_a_future_open_is_not_disturbed() -> None:
    @drumbeat.remote
    def work() -> int:
        future = child.remote(1).future()
        time.sleep(2.5)
        return future.result()

    assert drumbeat.get(work.remote(), timeout=20) == 2


# --------------------------------------------------------------------------------------- output


def test_what_is_printed_keeps_to_its_stream_and_its_line(
    capfd: pytest.CaptureFixture[str],
) -> None:
    @drumbeat.remote
    def speak(number: int) -> None:
        print("half a line", number, end="")
        print("wrong", number, file=sys.stderr)

    drumbeat.get([speak.remote(number) for number in range(20)], timeout=20)
    shown = errors = ""
    end_s = time.monotonic() + 5
    while shown.count("\n") + errors.count("\n") < 40 and time.monotonic() < end_s:
        time.sleep(0.02)
        captured = capfd.readouterr()
        shown, errors = shown + captured.out, errors + captured.err
    ends = [line.rpartition(") ")[2] for line in shown.splitlines()]
    assert ends == [f"half a line {number}" for number in range(20)]
    ends = [line.rpartition(") ")[2] for line in errors.splitlines()]
    assert ends == [f"wrong {number}" for number in range(20)]


def test_the_last_words_of_a_worker_are_those_of_the_task_that_died() -> None:
    @drumbeat.remote
    def complain() -> None:
        print("of another task", file=sys.stderr)

    @drumbeat.remote(max_retries=0)
    def die() -> None:
        print("on stdout", flush=True)
        print("mine", file=sys.stderr)
        os._exit(3)

    drumbeat.get([complain.remote() for _ in range(5)], timeout=20)
    with pytest.raises(WorkerDied) as caught:
        drumbeat.get(die.remote(), timeout=20)
    assert caught.value.stderr_tail == "mine"
