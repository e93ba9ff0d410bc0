"""ActorPool end to end: a fixed set of actors, fed with work."""

import time
from collections.abc import Iterator
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from support.stalls import Watch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2) as one:
        yield one


@drumbeat.remote
class Doubler:
    def __init__(self) -> None:
        self.calls = 0

    def double(self, value: float) -> float:
        self.calls += 1
        return 2 * value

    def slowly(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def fail(self, text: str) -> None:
        raise LookupError(text)

    def count(self) -> int:
        return self.calls


def double(actor: Any, value: float) -> Any:
    return actor.double.remote(value)


def slowly(actor: Any, value: float) -> Any:
    return actor.slowly.remote(value)


def test_map_gives_results_in_order_and_every_actor_does_its_part() -> None:
    actors = [Doubler.remote() for _ in range(3)]
    pool = drumbeat.ActorPool(actors)
    assert list(pool.map(double, range(50))) == [2 * n for n in range(50)]
    counts = drumbeat.get([actor.count.remote() for actor in actors], timeout=10)
    assert sum(counts) == 50
    assert all(counts)


def test_map_unordered_gives_results_as_they_come() -> None:
    pool = drumbeat.ActorPool([Doubler.remote() for _ in range(2)])
    list(pool.map(double, range(4)))  # both are there
    assert list(pool.map_unordered(slowly, [1.0, 0.1, 0.2])) == [0.1, 0.2, 1.0]


def test_an_actor_whose_result_nobody_has_fetched_goes_on_with_what_waits() -> None:
    pool = drumbeat.ActorPool([Doubler.remote() for _ in range(2)])
    list(pool.map(double, range(4)))
    watch = Watch()
    assert list(pool.map(slowly, [1.0, 0.2, 0.2, 0.2, 0.2])) == [1.0, 0.2, 0.2, 0.2, 0.2]
    assert watch.own_s() < 1.7


def test_what_finds_no_actor_idle_waits_for_one() -> None:
    pool = drumbeat.ActorPool([Doubler.remote()])
    assert pool.has_free()
    for value in (1, 2, 3):
        pool.submit(double, value)
    assert pool.has_next()
    assert not pool.has_free()
    assert [pool.get_next(), pool.get_next(), pool.get_next_unordered()] == [2, 4, 6]
    assert not pool.has_next()
    assert pool.has_free()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_a_result_that_is_late_stays_unless_it_is_to_be_given_up() -> None:
    pool = drumbeat.ActorPool([Doubler.remote()])
    pool.submit(slowly, 0.7)
    for fetch in (pool.get_next, pool.get_next_unordered):
        with pytest.raises(TimeoutError, match="no result of the pool"):
            fetch(timeout=0.01)
    assert pool.get_next(timeout=10) == 0.7
    pool.submit(slowly, 0.7)
    with pytest.raises(drumbeat.GetTimeoutError, match="given up"):
        pool.get_next_unordered(timeout=0.01, ignore_if_timedout=True)
    assert not pool.has_next()
    pool.submit(double, 4)
    assert pool.get_next(timeout=10) == 8


def test_a_call_that_raises_raises_where_its_result_is_fetched_and_the_pool_goes_on() -> None:
    pool = drumbeat.ActorPool([Doubler.remote()])
    pool.submit(lambda actor, text: actor.fail.remote(text), "no such thing")
    pool.submit(double, 5)
    with pytest.raises(LookupError, match="no such thing"):
        pool.get_next(timeout=10)
    assert pool.get_next(timeout=10) == 10


def test_actors_can_be_taken_out_and_put_in() -> None:
    one, other = Doubler.remote(), Doubler.remote()
    pool = drumbeat.ActorPool([one])
    assert pool.pop_idle() == one
    assert pool.pop_idle() is None
    pool.submit(double, 1)
    with pytest.raises(ValueError, match="has no actors"):
        pool.get_next()
    pool.push(other)
    assert pool.get_next(timeout=10) == 2
    with pytest.raises(ValueError, match="is in this pool"):
        pool.push(other)
    with pytest.raises(TypeError, match="holds handles of actors"):
        pool.push("no actor")  # type: ignore[arg-type]
    pool.push(one)
    assert sorted(pool.map_unordered(double, [1, 2])) == [2, 4]


def test_what_is_no_reference_is_refused_and_its_actor_stays_idle() -> None:
    pool = drumbeat.ActorPool([Doubler.remote()])
    with pytest.raises(TypeError, match="must return the reference of a call"):
        pool.submit(lambda _actor, value: value, 1)  # type: ignore[arg-type,return-value]
    assert pool.has_free()


def test_map_drops_what_was_submitted_before_and_not_fetched() -> None:
    pool = drumbeat.ActorPool([Doubler.remote(), Doubler.remote()])
    for value in (10, 11, 12):
        pool.submit(double, value)
    assert list(pool.map(double, [1, 2, 3])) == [2, 4, 6]
