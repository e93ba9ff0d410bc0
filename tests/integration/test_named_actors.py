"""Actors by name: made once, found from everywhere in their namespace."""

import os
import signal
import threading

import drumbeat
import pytest
from support.waiting import until

pytestmark = pytest.mark.integration


@drumbeat.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, amount: int = 1) -> int:
        self.count += amount
        return self.count

    def own_name(self, name: str) -> int:
        """Call itself by its name, and do not wait for that."""
        drumbeat.get_actor(name).add.remote(100)
        return self.count


@drumbeat.remote
def adds(name: str) -> int:
    return drumbeat.get(drumbeat.get_actor(name).add.remote())


@drumbeat.remote
def gets_or_makes(name: str, start: int, of: int) -> int:
    counter = Counter.options(name=name, get_if_exists=True).remote(start)
    value = drumbeat.get(counter.add.remote())
    # Whoever made it keeps it until all have come.
    until(lambda: drumbeat.get(counter.add.remote(0)) == start + of)
    return value


def test_a_named_actor_is_found_in_the_program_and_in_its_tasks(root: str) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root):
        counter = Counter.options(name="counter").remote(5)
        found = drumbeat.get_actor("counter")
        assert found == counter
        assert drumbeat.get(found.add.remote(), timeout=20) == 6
        assert drumbeat.get(adds.remote("counter"), timeout=20) == 7
        assert drumbeat.get(counter.own_name.remote("counter"), timeout=20) == 7
        until(lambda: drumbeat.get(counter.add.remote(0)) == 107)


def test_a_name_is_one_actors_until_that_has_ended_for_good(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        counter = Counter.options(name="counter").remote()
        with pytest.raises(ValueError, match=r"there is an actor named 'counter'.* already"):
            Counter.options(name="counter").remote()
        same = Counter.options(name="counter", get_if_exists=True).remote(50)
        assert same == counter
        drumbeat.kill(counter)
        with pytest.raises(drumbeat.ActorDied):
            drumbeat.get(counter.add.remote(), timeout=20)
        with pytest.raises(ValueError, match="no actor named 'counter'"):
            drumbeat.get_actor("counter")
        again = Counter.options(name="counter").remote(7)
        assert drumbeat.get(again.add.remote(), timeout=20) == 8


def test_a_handle_by_name_keeps_no_actor_that_its_creator_lets_go(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        counter = Counter.options(name="counter").remote()
        assert drumbeat.get(counter.add.remote(), timeout=20) == 1
        del counter

        def gone() -> bool:
            try:
                drumbeat.get_actor("counter")
            except ValueError:
                return True
            return False

        until(gone, 10.0)


def test_a_name_may_be_the_same_in_another_namespace(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, namespace="here"):
        here = Counter.options(name="counter").remote(10)
        there = Counter.options(name="counter", namespace="there").remote(20)
        assert drumbeat.get_actor("counter") == here
        assert drumbeat.get_actor("counter", namespace="there") == there
        assert drumbeat.get([here.add.remote(), there.add.remote()], timeout=20) == [11, 21]
        with pytest.raises(ValueError, match="no actor named 'counter' in namespace 'nowhere'"):
            drumbeat.get_actor("counter", "nowhere")


def test_of_many_who_want_the_same_name_at_once_one_makes_the_actor(root: str) -> None:
    with drumbeat.init(num_cpus=4, runtime_directory=root):
        values = drumbeat.get([gets_or_makes.remote("c", 0, 4) for _ in range(4)], timeout=40)
        assert sorted(values) == [1, 2, 3, 4]
        made: list[object] = []

        def make() -> None:
            try:
                made.append(Counter.options(name="mine").remote())
            except ValueError as error:
                made.append(error)

        threads = [threading.Thread(target=make) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(isinstance(one, ValueError) for one in made) == 7


def test_a_name_is_free_again_if_the_actor_could_not_be_submitted(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        with pytest.raises(drumbeat.Infeasible):
            Counter.options(name="counter", num_cpus=1000).remote()
        counter = Counter.options(name="counter").remote()
        assert drumbeat.get(counter.add.remote(), timeout=20) == 1


def test_names_are_known_again_when_the_scheduler_was_killed(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        counter = Counter.options(name="counter").remote()
        assert drumbeat.get(counter.add.remote(), timeout=20) == 1
        os.kill(cluster.processes["scheduler"], signal.SIGKILL)
        found = drumbeat.get_actor("counter")
        assert found == counter
        assert drumbeat.get(found.add.remote(), timeout=30) == 2


def test_actors_by_name_in_one_process(root: str) -> None:
    assert root
    drumbeat.init(inline=True)
    try:
        counter = Counter.options(name="counter", get_if_exists=True).remote(1)
        assert drumbeat.get_actor("counter") == counter
        assert drumbeat.get(adds.remote("counter")) == 2
        with pytest.raises(ValueError, match="already"):
            Counter.options(name="counter").remote()
        del counter
        with pytest.raises(ValueError, match="no actor named"):
            drumbeat.get_actor("counter")
        kept = Counter.options(name="kept", namespace="n", lifetime="detached").remote()
        del kept
        assert drumbeat.get(drumbeat.get_actor("kept", "n").add.remote()) == 1
    finally:
        drumbeat.shutdown()
