"""Actors of whole clusters: many on a node, nodes that are lost, and nothing left of any."""

import os
import signal
import time

import drumbeat
import psutil
import pytest
from support.running import runs
from support.waiting import until

pytestmark = pytest.mark.integration


@drumbeat.remote
class Place:
    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.calls = 0

    def call(self, seconds: float = 0.0) -> tuple[int, int]:
        time.sleep(seconds)
        self.calls += 1
        return self.number, self.calls

    def pid(self) -> int:
        return os.getpid()

    def daemon(self) -> int:
        """Return which node it lives on, by the process that workers are children of."""
        return os.getppid()


def test_nothing_is_left_of_actors_idle_and_busy_after_shutdown(root: str) -> None:
    drumbeat.init(num_cpus=1, runtime_directory=root)
    places = [Place.remote(n) for n in range(10)]
    pids = drumbeat.get([place.pid.remote() for place in places], timeout=30)
    _busy = [place.call.remote(60.0) for place in places[:5]]
    drumbeat.shutdown()
    until(lambda: not any(map(psutil.pid_exists, pids)))


def test_a_hundred_actors_live_on_one_cpu_beside_its_tasks(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, workers_max=2):
        places = [Place.remote(n) for n in range(100)]
        refs = [place.call.remote() for _ in range(3) for place in places]
        found = drumbeat.get(refs, timeout=60)
        assert found == [(n, turn) for turn in (1, 2, 3) for n in range(100)]
        pids = drumbeat.get([place.pid.remote() for place in places], timeout=30)
        assert len(set(pids)) == 100
        del places
        until(lambda: not any(map(psutil.pid_exists, pids)), 20.0)


def test_more_actors_than_a_node_takes_wait_for_others_to_end(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, actors_max=2):
        places = [Place.remote(n) for n in range(3)]
        first = [place.call.remote() for place in places]
        done, rest = drumbeat.wait(first, num_returns=2, timeout=20)
        assert (len(done), len(rest)) == (2, 1)
        assert drumbeat.wait(rest, timeout=0.5) == ([], rest)
        drumbeat.kill(places[first.index(done[0])])
        assert drumbeat.get(rest[0], timeout=20)[1] == 1


@pytest.mark.parametrize("who", ["daemon", "keeper"])
def test_an_actor_of_a_node_that_dies_begins_anew_and_the_call_it_ran_is_lost(
    root: str, who: str
) -> None:
    with drumbeat.init(
        nodes=2, num_cpus=1, runtime_directory=root, lost_after_intervals=5, lease_margin_s=0.5
    ):
        places = [Place.options(max_restarts=1).remote(n) for n in range(4)]
        nodes = drumbeat.get([place.daemon.remote() for place in places], timeout=20)
        assert len(set(nodes)) == 2, "they are spread"
        there = [place for place, node in zip(places, nodes, strict=True) if node == nodes[0]]
        refs = [there[0].call.remote(60.0), there[0].call.remote()]
        until(lambda: runs("Place.call"))
        keeper = psutil.Process(nodes[0])
        daemon = next(node["pid"] for node in drumbeat.nodes() if _is_of(node["pid"], keeper))
        os.kill(daemon if who == "daemon" else keeper.pid, signal.SIGKILL)
        for ref in refs:  # nobody can tell that the second one had not begun
            with pytest.raises(drumbeat.ActorCallLost):
                drumbeat.get(ref, timeout=30)
        for place in places:
            assert drumbeat.get(place.call.remote(), timeout=30)[1] >= 1


def _is_of(daemon: int, keeper: psutil.Process) -> bool:
    return psutil.Process(daemon).ppid() == keeper.pid
