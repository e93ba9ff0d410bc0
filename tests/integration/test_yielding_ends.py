"""What is yielded comes whole to whoever reads it, however the task or its reader ends."""

import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.reading import read, settled
from support.waiting import until

pytestmark = pytest.mark.integration

LARGE = 3 << 20


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, cancel_grace_s=5.0) as made:
        yield made


@drumbeat.remote(num_returns="streaming")
def count(number: int) -> Iterator[int]:
    yield from range(number)


def pages(number: int) -> Iterator[bytes]:
    for index in range(number):
        yield bytes([index]) * LARGE


@drumbeat.remote(num_returns="streaming")
def exits_after(number: int) -> Iterator[bytes]:
    yield from pages(number)
    sys.exit(3)


class Leaver:
    @drumbeat.method(num_returns="streaming")
    def pages(self, number: int) -> Iterator[bytes]:
        yield from pages(number)
        drumbeat.exit_actor()


def test_nothing_is_missing_before_an_exit_of_the_process_or_of_the_actor() -> None:
    found = read(exits_after.remote(6))
    assert [page[0] for page in found[:-1]] == list(range(6))
    assert isinstance(found[-1], drumbeat.TaskError)
    leaver = drumbeat.remote(Leaver).remote()
    assert [page[0] for page in read(leaver.pages.remote(6))] == list(range(6))
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(next(leaver.pages.remote(1)), timeout=20)


@drumbeat.remote(num_returns="streaming", stream_buffer_max=4)
def goes_on(path: str) -> Iterator[int]:
    """Yield numbers, whatever is said to it."""
    for index in range(50):
        try:
            yield index
        except drumbeat.Interrupted:
            Path(path).touch()


def test_what_is_yielded_in_spite_of_a_cancel_comes_in_order_each_once(tmp_path: Path) -> None:
    path = tmp_path / "interrupted"
    generator = goes_on.remote(str(path))
    session = drumbeat.client.api._session()
    until(lambda: any(row.get("verdict") == "yielding" for row in session.query("tasks")))
    generator.cancel()
    until(path.exists)
    assert read(generator) == list(range(50))


def test_threads_that_read_at_the_same_time_are_refused_and_nothing_is_lost() -> None:
    generator, found = count.remote(300), []

    def reads() -> None:
        while True:
            try:
                ref = generator.next(timeout=20)
            except ValueError:
                time.sleep(0)  # another reads
                continue
            if ref is None:
                return
            found.append(drumbeat.get(ref, timeout=20))

    threads = [threading.Thread(target=reads) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    assert not any(thread.is_alive() for thread in threads)
    assert sorted(found) == list(range(300))


@drumbeat.remote(num_returns="streaming")
def waits_long() -> Iterator[int]:
    yield 0
    time.sleep(60.0)


def closed_amid_a_wait() -> list[object]:
    generator = waits_long.remote()
    assert drumbeat.get(next(generator)) == 0
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(next(generator, "the end")))
    thread.start()
    time.sleep(0.2)
    generator.close()
    thread.join(20.0)
    return found


def test_a_thread_that_waits_finds_the_end_when_another_closes_it() -> None:
    assert closed_amid_a_wait() == ["the end"]
    within = drumbeat.remote(closed_amid_a_wait)
    assert drumbeat.get(within.remote(), timeout=30) == ["the end"]
    until(settled)


def test_at_rest_nothing_is_left_of_what_was_yielded() -> None:
    until(settled)
    core = drumbeat.client.api._session()._service.core
    assert len(list(count.remote(1))) == 1
    until(lambda: not core.at_rest()["streams"])


@drumbeat.remote(num_returns="streaming", max_retries=0)
def has_no_descriptor_left(pause_s: float) -> Iterator[Any]:
    yield 1
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
    time.sleep(pause_s)
    yield bytes(LARGE)
    time.sleep(pause_s)
    yield 3


@pytest.mark.parametrize("pause_s", [0.0, 0.3])
def test_a_value_that_cannot_be_handed_over_ends_its_worker_and_nobody_waits_for_it(
    pause_s: float,
) -> None:
    generator = has_no_descriptor_left.remote(pause_s)
    assert drumbeat.get(next(generator), timeout=20) == 1
    with pytest.raises(drumbeat.WorkerDied, match=r"cannot hand over what it made: .*descriptor"):
        drumbeat.get(next(generator), timeout=20)
