"""Tasks that yield their values: read as they come, waited for, cut short, tried again."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.yields import ITEMS_MAX
from support.reading import read, settled
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, cancel_grace_s=1.0, term_grace_s=1.0) as made:
        yield made


@drumbeat.remote(num_returns="streaming")
def count(number: int) -> Iterator[int]:
    yield from range(number)


@drumbeat.remote(num_returns="streaming", stream_buffer_max=4)
def count_on_paper(path: str, number: int = 1 << 30) -> Iterator[int]:
    """Write down each number before it is yielded, and how it ended."""
    with open(path, "a", encoding="utf-8", buffering=1) as paper:
        paper.write("begun\n")
        try:
            for index in range(number):
                paper.write(f"{index}\n")
                yield index
        except drumbeat.Interrupted as asked:
            paper.write(f"{asked.reason}\n")
            raise


@drumbeat.remote
def triple(number: int) -> int:
    return 3 * number


def words(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split() if path.exists() else []


# ------------------------------------------------------------------------------------------ reading


def test_a_thousand_values_come_in_order_each_once() -> None:
    generator = count.remote(1000)
    refs = list(generator)
    assert drumbeat.get(refs, timeout=20) == list(range(1000))
    assert len({ref.id for ref in refs}) == 1000
    with pytest.raises(StopIteration):
        next(generator)


def test_a_task_that_yields_nothing_ends_at_once() -> None:
    assert list(count.remote(0)) == []


def test_a_value_is_there_before_the_task_has_ended(tmp_path: Path) -> None:
    generator = count_on_paper.remote(str(tmp_path / "paper"))
    assert drumbeat.get(next(generator), timeout=20) == 0
    assert drumbeat.get(next(generator), timeout=20) == 1
    assert not settled()
    generator.close()


@drumbeat.remote(num_returns="streaming", stream_buffer_max=3)
def pages(number: int) -> Iterator[bytes]:
    for index in range(number):
        yield bytes([index]) * (3 << 20 if index % 2 else 100_000)


def test_large_values_come_whole_and_in_order_among_smaller_ones() -> None:
    for index, ref in enumerate(pages.remote(9)):
        page = drumbeat.get(ref, timeout=20)
        assert (page[0], page[-1], len(page)) == (index, index, 3 << 20 if index % 2 else 100_000)


def test_references_are_good_when_the_task_and_its_generator_are_gone() -> None:
    generator = count.remote(20)
    refs = [next(generator) for _ in range(3)]
    generator.close()
    assert list(generator) == []
    assert drumbeat.get(refs, timeout=20) == [0, 1, 2]


def test_what_is_yielded_goes_into_other_tasks_while_it_is_made() -> None:
    refs = [triple.remote(ref) for ref in count.remote(50)]
    assert drumbeat.get(refs, timeout=20) == [3 * index for index in range(50)]
    sizes = [drumbeat.remote(len).remote(ref) for ref in pages.remote(4)]
    assert drumbeat.get(sizes, timeout=20) == [100_000, 3 << 20, 100_000, 3 << 20]


def test_an_event_loop_reads_it_too() -> None:
    async def total() -> int:
        return sum([await ref async for ref in count.remote(60)])

    assert asyncio.run(total()) == sum(range(60))


@drumbeat.remote(num_returns="streaming")
def slow_ones() -> Iterator[int]:
    for index in range(2):
        time.sleep(0.5)
        yield index


def test_a_wait_for_the_next_value_may_have_an_end() -> None:
    generator = slow_ones.remote()
    with pytest.raises(drumbeat.GetTimeoutError):
        generator.next(timeout=0.05)
    first = generator.next(timeout=20)
    assert first is not None
    assert drumbeat.get(first) == 0
    assert read(generator) == [1]
    assert generator.next(timeout=1) is None


@drumbeat.remote(num_returns="streaming")
def put_each(number: int) -> Iterator[list[drumbeat.ObjectRef]]:
    for index in range(number):
        yield [drumbeat.put(index)]


def test_references_inside_what_is_yielded_are_held() -> None:
    inside = [drumbeat.get(ref)[0] for ref in put_each.remote(40)]
    assert drumbeat.get(inside, timeout=20) == list(range(40))


# ------------------------------------------------------------------------------------- backpressure


def test_a_task_waits_while_so_many_are_not_read_and_its_cpu_is_lent(tmp_path: Path) -> None:
    path = tmp_path / "paper"
    generators = [count_on_paper.remote(str(path.with_suffix(f".{n}"))) for n in range(2)]
    papers = [path.with_suffix(f".{n}") for n in range(2)]
    until(lambda: all(len(words(paper)) == 5 for paper in papers))
    # Both CPUs are theirs, and others run nevertheless.
    assert drumbeat.get([triple.remote(n) for n in range(20)], timeout=20) == list(range(0, 60, 3))
    assert [len(words(paper)) for paper in papers] == [5, 5]
    for _ in range(10):
        next(generators[0])
    until(lambda: len(words(papers[0])) > 10)
    time.sleep(0.1)
    assert len(words(papers[0])) <= 1 + 10 + 4
    assert len(words(papers[1])) == 5
    for generator in generators:
        generator.close()


def test_a_task_that_waits_for_its_reader_is_told_of_as_that(tmp_path: Path) -> None:
    generator = count_on_paper.options(heartbeat_timeout=0.6).remote(str(tmp_path / "paper"))
    session = drumbeat.client.api._session()
    until(lambda: any(row.get("verdict") == "yielding" for row in session.query("tasks")))
    time.sleep(1.5)
    # No sign of life was given for long, and none was owed.
    assert drumbeat.get(next(generator), timeout=20) == 0
    assert [drumbeat.get(next(generator), timeout=20) for _ in range(9)] == list(range(1, 10))
    generator.close()


def test_the_timeout_counts_while_it_waits_for_its_reader(tmp_path: Path) -> None:
    generator = count_on_paper.options(timeout=1.0).remote(str(tmp_path / "paper"))
    time.sleep(2.0)
    found = read(generator)
    assert found[:4] == [0, 1, 2, 3]
    assert isinstance(found[-1], drumbeat.TaskTimedOut)
    assert "timed_out" in words(tmp_path / "paper")


# --------------------------------------------------------------------------------------- its end


@drumbeat.remote(num_returns="streaming")
def fails_after(number: int) -> Iterator[int]:
    yield from range(number)
    raise LookupError("no more")


def test_an_error_comes_behind_all_that_was_yielded_before_it() -> None:
    found = read(fails_after.remote(100))
    assert found[:-1] == list(range(100))
    assert isinstance(found[-1], LookupError)


@drumbeat.remote(num_returns="streaming")
def unpicklable() -> Iterator[Any]:
    yield 1
    yield lambda: (yield)  # a function is sent by value
    yield (one for one in ())


def test_what_cannot_be_sent_is_an_error_that_names_it() -> None:
    found = read(unpicklable.remote())
    assert found[0] == 1
    assert isinstance(found[-1], drumbeat.NotPicklable)


@drumbeat.remote(num_returns="streaming")
def no_generator() -> int:
    return 3


@drumbeat.remote(num_returns="streaming")
async def asynchronous() -> AsyncIterator[int]:
    yield 3


def test_what_yields_nothing_or_not_in_that_way_is_an_error_that_says_so() -> None:
    with pytest.raises(TypeError, match="must be a generator"):
        drumbeat.get(next(no_generator.remote()), timeout=20)
    with pytest.raises(TypeError, match="async generator"):
        drumbeat.get(next(asynchronous.remote()), timeout=20)


def test_a_cancelled_task_ends_where_it_yields_and_what_it_yielded_can_be_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "paper"
    generator = count_on_paper.remote(str(path))
    until(lambda: len(words(path)) == 5)
    drumbeat.cancel(generator)
    until(lambda: words(path)[-1] == "cancelled")
    found = read(generator)
    assert found[:4] == [0, 1, 2, 3]
    assert isinstance(found[-1], drumbeat.TaskCancelled)


def test_a_task_whose_reader_is_gone_is_cancelled(tmp_path: Path) -> None:
    path = tmp_path / "paper"
    generator = count_on_paper.remote(str(path))
    next(generator)
    del generator
    until(lambda: words(path)[-1] == "cancelled")
    until(settled)


def test_a_task_that_nobody_reads_does_not_begin(tmp_path: Path) -> None:
    blockers = [count_on_paper.remote(str(tmp_path / f"paper{n}")) for n in range(2)]
    path = tmp_path / "paper"
    sleepers = [drumbeat.remote(time.sleep).remote(1.0) for _ in range(2)]
    generator = count_on_paper.remote(str(path))
    generator.close()
    drumbeat.get(sleepers, timeout=20)
    for blocker in blockers:
        blocker.close()
    until(settled)
    assert not path.exists()


# ------------------------------------------------------------------------------------ tried again


@drumbeat.remote(num_returns="streaming", stream_buffer_max=4, retry_backoff_s=0.01)
def dies_once(path: str, at: int, number: int) -> Iterator[int]:
    with open(path, "a", encoding="utf-8", buffering=1) as paper:
        paper.write("begun\n")
    for index in range(number):
        if index == at and len(words(Path(path))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield index


@pytest.mark.parametrize("at", [0, 3, 30])
def test_a_worker_that_dies_costs_no_value_and_doubles_none(tmp_path: Path, at: int) -> None:
    path = tmp_path / "paper"
    generator = dies_once.remote(str(path), at, 60)
    assert read(generator) == list(range(60))
    assert words(path) == ["begun", "begun"]


def test_references_that_were_handed_out_outlive_the_worker_that_made_their_values(
    tmp_path: Path,
) -> None:
    path = tmp_path / "paper"
    generator = dies_once.remote(str(path), 10, 20)
    refs = [next(generator) for _ in range(8)]
    refs += list(generator)
    assert words(path) == ["begun", "begun"]
    assert drumbeat.get(refs, timeout=20) == list(range(20))


def test_where_no_retry_is_left_the_death_is_the_last_reference(tmp_path: Path) -> None:
    path = tmp_path / "paper"
    found = read(dies_once.options(max_retries=0).remote(str(path), 3, 20))
    assert found[:-1] == list(range(len(found) - 1))
    assert isinstance(found[-1], drumbeat.WorkerDied)


@drumbeat.remote(num_returns="streaming", retry_exceptions=[KeyError], retry_backoff_s=0.01)
def raises_once(path: str) -> Iterator[int]:
    first = not Path(path).exists()
    Path(path).touch()
    yield from range(5)
    if first:
        raise KeyError("again")
    yield 5


def test_an_exception_that_is_tried_again_is_not_seen_by_the_reader(tmp_path: Path) -> None:
    assert read(raises_once.remote(str(tmp_path / "flag"))) == list(range(6))


# ------------------------------------------------------------------------------- actors, and others


class Ticker:
    def __init__(self) -> None:
        self.total = 0

    @drumbeat.method(num_returns="streaming", stream_buffer_max=2)
    def ticks(self, number: int) -> Iterator[int]:
        for _ in range(number):
            self.total += 1
            yield self.total

    def now(self) -> int:
        return self.total


def test_a_method_of_an_actor_yields_and_the_next_call_waits_for_its_end() -> None:
    ticker = drumbeat.remote(Ticker).remote()
    generator = ticker.ticks.remote(10)
    behind = ticker.now.remote()
    assert drumbeat.get(next(generator), timeout=20) == 1
    assert not behind.done()
    assert read(generator) == list(range(2, 11))
    assert drumbeat.get(behind, timeout=20) == 10
    with pytest.raises(ValueError, match="never kills one"):
        drumbeat.cancel(ticker.ticks.remote(1), force=True)


def test_a_cancelled_method_leaves_its_actor_alive() -> None:
    ticker = drumbeat.remote(Ticker).remote()
    generator = ticker.ticks.remote(1000)
    next(generator)
    generator.close()
    assert 1 <= drumbeat.get(ticker.now.remote(), timeout=20) < 1000


def test_an_actor_that_runs_several_calls_at_once_refuses_to_yield() -> None:
    ticker = drumbeat.remote(max_concurrency=2)(Ticker).remote()
    with pytest.raises(TypeError, match="several calls at once"):
        drumbeat.get(next(ticker.ticks.remote(3)), timeout=20)
    assert drumbeat.get(ticker.now.remote(), timeout=20) == 0


def test_a_generator_stays_in_its_process() -> None:
    generator = count.remote(3)
    with pytest.raises(drumbeat.NotPicklable, match="stays in the process that made it"):
        triple.remote(generator)
    generator.close()


# ------------------------------------------------------------------------------------ within tasks


@drumbeat.remote
def reads(number: int, at_most: int = -1) -> list[int]:
    found = []
    for ref in count.remote(number):
        found.append(drumbeat.get(ref))
        if len(found) == at_most:
            break
    return found


def test_a_task_reads_what_another_yields() -> None:
    assert drumbeat.get([reads.remote(100) for _ in range(3)], timeout=30) == [[*range(100)]] * 3
    assert drumbeat.get(reads.remote(0), timeout=20) == []


@drumbeat.remote
def reads_large_ones() -> list[int]:
    return [len(drumbeat.get(ref)) for ref in list(pages.remote(6))]


@drumbeat.remote
def reads_the_error() -> str:
    *refs, last = fails_after.remote(30)
    assert drumbeat.get(refs) == list(range(30))
    try:
        drumbeat.get(last)
    except LookupError as error:
        return str(error)
    return ""


def test_large_values_and_errors_come_to_a_task_as_to_a_program() -> None:
    assert drumbeat.get(reads_large_ones.remote(), timeout=20) == [100_000, 3 << 20] * 3
    assert "no more" in drumbeat.get(reads_the_error.remote(), timeout=20)


@drumbeat.remote
def passes_on(number: int) -> list[int]:
    return drumbeat.get([triple.remote(ref) for ref in count.remote(number)])


@drumbeat.remote
def hands_back(number: int) -> list[drumbeat.ObjectRef]:
    return list(count.remote(number))


def test_references_that_a_task_has_read_go_anywhere() -> None:
    assert drumbeat.get(passes_on.remote(40), timeout=30) == [3 * index for index in range(40)]
    refs = drumbeat.get(hands_back.remote(40), timeout=20)
    assert drumbeat.get(refs, timeout=20) == list(range(40))


@drumbeat.remote
def leaves(path: str) -> int:
    generator = count_on_paper.remote(path)
    first: int = drumbeat.get(next(generator))
    return first


@drumbeat.remote(max_retries=0)
def reads_and_dies(path: str) -> None:
    next(count_on_paper.remote(path))
    os._exit(3)


def test_a_task_that_reads_no_more_ends_what_it_read(tmp_path: Path) -> None:
    assert drumbeat.get(leaves.remote(str(tmp_path / "left")), timeout=20) == 0
    until(lambda: words(tmp_path / "left")[-1] == "cancelled")
    with pytest.raises(drumbeat.WorkerDied):
        drumbeat.get(reads_and_dies.remote(str(tmp_path / "died")), timeout=20)
    until(lambda: words(tmp_path / "died")[-1] == "cancelled")
    until(settled)


@drumbeat.remote
def reads_in_a_loop(number: int) -> int:
    async def total() -> int:
        return sum([await ref async for ref in count.remote(number)])

    return asyncio.run(total())


@drumbeat.remote
def reads_what_dies_once(path: str) -> list[int]:
    return drumbeat.get(list(dies_once.remote(path, 30, 60)))


def test_a_task_reads_in_an_event_loop_and_over_the_death_of_what_it_reads(tmp_path: Path) -> None:
    assert drumbeat.get(reads_in_a_loop.remote(50), timeout=30) == sum(range(50))
    found = drumbeat.get(reads_what_dies_once.remote(str(tmp_path / "paper")), timeout=30)
    assert found == list(range(60))


@drumbeat.remote(num_returns="streaming", stream_buffer_max=ITEMS_MAX)
def endless() -> Iterator[None]:
    while True:
        yield


def test_one_more_than_there_may_be_is_an_error() -> None:
    generator, last, read_so_far = endless.remote(), None, 0
    while (ref := generator.next(timeout=20)) is not None:
        last, read_so_far = ref, read_so_far + 1
    assert read_so_far == ITEMS_MAX + 1
    with pytest.raises(ValueError, match="no more are possible"):
        drumbeat.get(last, timeout=20)


def test_at_rest_nothing_is_left_of_what_was_yielded() -> None:
    assert drumbeat.get(triple.remote(1), timeout=20) == 3
    until(settled)
    core = drumbeat.client.api._session()._service.core
    until(lambda: drumbeat.get(triple.remote(1), timeout=20) and not core.at_rest()["streams"])
