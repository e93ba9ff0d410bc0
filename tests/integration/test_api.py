"""The public functions, end to end on a real local cluster."""

import asyncio
import concurrent.futures
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.errors import GetTimeoutError, Infeasible, TaskCancelled, TaskError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=2, resources={"disk": 1}):
        yield


@drumbeat.remote
def double(x: int) -> int:
    return 2 * x


@drumbeat.remote
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@drumbeat.remote
def fail(text: str) -> None:
    raise ValueError(text)


# ---------------------------------------------------------------------------------------- get, wait


def test_values_come_back_in_order_with_duplicates() -> None:
    refs = [double.remote(i) for i in range(200)]
    assert drumbeat.get(refs, timeout=20) == [2 * i for i in range(200)]
    assert drumbeat.get([refs[3], refs[1], refs[3]], timeout=20) == [6, 2, 6]
    assert drumbeat.get(refs[7], timeout=20) == 14


def test_get_raises_what_the_task_raised_without_waiting_for_the_rest() -> None:
    slow = nap.remote(5)
    begun = time.monotonic()
    with pytest.raises(ValueError, match="no good") as caught:
        drumbeat.get([slow, fail.remote("no good")], timeout=20)
    assert time.monotonic() - begun < 3
    assert isinstance(caught.value, TaskError)
    drumbeat.cancel(slow, force=True)


def test_get_gives_up_in_time_and_the_task_goes_on() -> None:
    ref = nap.remote(0.4)
    with pytest.raises(GetTimeoutError):
        drumbeat.get(ref, timeout=0.05)
    assert drumbeat.get(ref, timeout=20) == 0.4


def test_wait_tells_the_ready_from_the_rest() -> None:
    quick, slow = double.remote(1), nap.remote(1)
    done, rest = drumbeat.wait([slow, quick], num_returns=1, timeout=10)
    assert (done, rest) == ([quick], [slow])
    assert drumbeat.wait([slow, fail.remote("x")], num_returns=2, timeout=20)[1] == []


def test_several_values_and_none() -> None:
    @drumbeat.remote(num_returns=2)
    def pair() -> tuple[int, int]:
        return 1, 2

    @drumbeat.remote(num_returns=0)
    def nothing() -> None:
        return None

    assert drumbeat.get(list(pair.remote()), timeout=20) == [1, 2]
    assert nothing.remote() is None


def test_results_as_they_are_completed() -> None:
    drumbeat.get([nap.remote(0.2) for _ in range(2)])  # a worker for each is there
    slow, quick = nap.remote(1.5), nap.remote(0.01)
    assert list(drumbeat.as_completed([slow, quick])) == [quick, slow]


def test_map_keeps_order() -> None:
    assert list(drumbeat.map(double, range(100))) == [2 * i for i in range(100)]


# -------------------------------------------------------------------------------- refs as arguments


def test_refs_as_arguments_are_passed_by_value_and_chains_work() -> None:
    ref = double.remote(1)
    for _ in range(20):
        ref = double.remote(ref)
    assert drumbeat.get(ref, timeout=20) == 2**21


def test_a_put_value_is_an_argument_large_or_small() -> None:
    @drumbeat.remote
    def length(text: bytes) -> int:
        return len(text)

    for size in (10, 100_000, 3_000_000):
        assert drumbeat.get(length.remote(drumbeat.put(b"x" * size)), timeout=20) == size


def test_large_arguments_and_results() -> None:
    @drumbeat.remote
    def echo(text: bytes) -> bytes:
        return text

    text = os.urandom(5_000_000)
    assert drumbeat.get(echo.remote(text), timeout=20) == text


def test_a_ref_inside_a_container_stays_a_ref() -> None:
    @drumbeat.remote
    def read(box: dict[str, Any]) -> int:
        assert isinstance(box["ref"], drumbeat.ObjectRef)
        value: int = drumbeat.get(box["ref"])
        return value

    assert drumbeat.get(read.remote({"ref": double.remote(21)}), timeout=20) == 42


def test_a_task_returns_refs_to_its_own_tasks() -> None:
    @drumbeat.remote
    def spread(n: int) -> list[Any]:
        return [double.remote(i) for i in range(n)]

    refs = drumbeat.get(spread.remote(5), timeout=20)
    assert drumbeat.get(refs, timeout=20) == [0, 2, 4, 6, 8]


def test_what_depends_on_a_failed_task_fails_with_its_cause() -> None:
    with pytest.raises(drumbeat.DependencyFailed):
        drumbeat.get(double.remote(fail.remote("first")), timeout=20)


# ------------------------------------------------------------------------------- cancel, infeasible


def test_a_running_task_is_cancelled() -> None:
    ref = nap.remote(30)
    time.sleep(0.3)
    drumbeat.cancel(ref)
    with pytest.raises(TaskCancelled):
        drumbeat.get(ref, timeout=20)


def test_a_queued_task_never_starts_once_cancelled() -> None:
    blockers = [nap.remote(0.6) for _ in range(2)]
    queued = [nap.remote(30) for _ in range(5)]
    for ref in queued:
        drumbeat.cancel(ref)
    for ref in queued:
        with pytest.raises(TaskCancelled):
            drumbeat.get(ref, timeout=20)
    assert drumbeat.get(blockers, timeout=20) == [0.6, 0.6]


def test_an_impossible_request_is_refused_at_submit() -> None:
    with pytest.raises(Infeasible, match="CPU 64"):
        double.options(num_cpus=64).remote(1)
    with pytest.raises(Infeasible, match="disk 2"):
        double.options(resources={"disk": 2}).remote(1)
    assert drumbeat.get(double.options(resources={"disk": 1}).remote(1), timeout=20) == 2


# -------------------------------------------------------------------------- threads, futures, loops


def test_many_threads_use_one_session() -> None:
    found: list[list[int]] = []

    def work() -> None:
        found.append([drumbeat.get(double.remote(i), timeout=20) for i in range(30)])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [[2 * i for i in range(30)]] * 6


def test_refs_are_awaited_and_are_futures() -> None:
    async def gather() -> list[int]:
        return await asyncio.gather(*[double.remote(i) for i in range(20)])

    assert asyncio.run(gather()) == [2 * i for i in range(20)]
    futures = [double.remote(i).future() for i in range(5)]
    concurrent.futures.wait(futures, timeout=20)
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8]


def test_an_executor_runs_what_the_standard_one_runs() -> None:
    with drumbeat.Executor(max_workers=2) as executor:
        assert list(executor.map(pow, range(10), [2] * 10)) == [i * i for i in range(10)]
        assert executor.submit(max, 3, 4).result(timeout=20) == 4


def test_output_of_tasks_is_forwarded(capfd: pytest.CaptureFixture[str]) -> None:
    @drumbeat.remote
    def speak() -> None:
        print("hello from afar", flush=True)

    drumbeat.get(speak.remote(), timeout=20)
    text, end_s = "", time.monotonic() + 5
    while "hello from afar" not in text and time.monotonic() < end_s:
        time.sleep(0.02)
        text += capfd.readouterr().out
    assert "speak pid=" in text
    assert "hello from afar" in text


def test_nested_calls_give_their_slot_back() -> None:
    @drumbeat.remote
    def fib(n: int) -> int:
        if n < 2:
            return n
        return sum(drumbeat.get([fib.remote(n - 1), fib.remote(n - 2)]))

    assert drumbeat.get(fib.remote(8), timeout=60) == 21


def test_values_are_freed_when_their_refs_are_gone() -> None:
    from drumbeat.protocol.session import current

    session: Any = current()
    refs = [double.remote(i) for i in range(100)]
    drumbeat.get(refs, timeout=20)
    del refs
    end_s = time.monotonic() + 5
    while session._board.results and time.monotonic() < end_s:
        time.sleep(0.02)
    left = len(session._board.results)
    assert left < 20, f"{left} values are kept"
