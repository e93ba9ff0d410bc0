"""Large values between machines: they go straight from one to the other, past the scheduler."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import drumbeat
import psutil
import pytest
from support.remote_cluster import Process, RemoteCluster
from support.waiting import until

MIB = 1 << 20
LARGE = 24 * MIB


class Machines:
    """A scheduler, two nodes and this program, each on a machine of its own, as far as it knows."""

    def __init__(self, cluster: RemoteCluster) -> None:
        self.cluster = cluster
        self.scheduler = cluster.start_scheduler()
        self.nodes: dict[str, Process] = {}

    def start(self, *names: str, **environ: str) -> None:
        for name in names:
            where = ("--cluster", str(self.cluster.file("node")))
            self.nodes[name] = self.cluster.start_node(
                name, *where, DRUMBEAT_MACHINE=f"machine of {name}", **environ
            )

    def kill(self, name: str) -> None:
        """Kill all processes of a node."""
        for process in self.nodes[name].family():
            with suppress(psutil.NoSuchProcess):  # the death of its keeper may have ended it
                process.kill()

    def init(self, **settings: Any) -> Any:
        return drumbeat.init(self.cluster.file("client"), machine="that of the program", **settings)

    def most_memory(self) -> int:
        """Return the most memory that the scheduler's processes have had at once, of each."""
        return max(_most_memory(one) for one in self.scheduler.family())

    def relays(self) -> list[str]:
        events = self.cluster.asked("events")
        return [row["text"] for row in events if row["kind"] == "relay"]


def _most_memory(process: psutil.Process) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmHWM:")[2].split()[0]) << 10


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    cluster = RemoteCluster(tmp_path)
    try:
        yield Machines(cluster)
    finally:
        drumbeat.shutdown()
        cluster.end()


class Work:
    """What tasks do; made where it is used, so that it goes along with its code."""

    def __init__(self) -> None:
        @drumbeat.remote
        def summed(data: bytes) -> tuple[str, str]:
            found = hashlib.md5(data, usedforsecurity=False).hexdigest()
            return drumbeat.current().node, found

        @drumbeat.remote
        def made(seed: int, size: int) -> bytes:
            return bytes([seed % 256]) * size

        @drumbeat.remote
        def from_within(size: int) -> Any:
            return drumbeat.put(b"w" * size), made.remote(7, size)

        self.summed, self.made, self.from_within = summed, made, from_within


def digest(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def test_arguments_and_results_of_any_size_never_pass_through_the_scheduler(
    machines: Machines,
) -> None:
    work = Work()
    machines.start("one", "two")
    with machines.init():
        data = os.urandom(LARGE)
        ref = drumbeat.put(data)
        by_ref = [work.summed.options(node=name).remote(ref) for name in ("one", "two")]
        assert drumbeat.get(by_ref) == [("one", digest(data)), ("two", digest(data))]
        assert drumbeat.get(work.summed.options(node="one").remote(data))[1] == digest(data)
        results = [work.made.options(node="two").remote(seed, LARGE) for seed in range(4)]
        across = work.summed.options(node="one").remote(results[3])
        for seed, value in enumerate(drumbeat.get(results)):
            assert value == bytes([seed]) * LARGE
        assert drumbeat.get(across)[1] == digest(bytes([3]) * LARGE)
        put, nested = drumbeat.get(work.from_within.options(node="two").remote(LARGE))
        assert drumbeat.get(put) == b"w" * LARGE
        assert drumbeat.get(nested) == bytes([7]) * LARGE
        assert drumbeat.get(work.summed.options(node="one").remote(put))[1] == digest(b"w" * LARGE)
        middling = os.urandom(100 << 10)
        assert drumbeat.get(work.summed.remote(middling))[1] == digest(middling)
    assert machines.relays() == []
    assert machines.most_memory() < 64 * MIB + LARGE


def test_results_that_died_with_their_node_are_made_again(machines: Machines) -> None:
    work = Work()
    machines.start("one")
    with machines.init():
        refs = [work.made.options(max_retries=5).remote(seed, 4 * MIB) for seed in range(40)]
        drumbeat.wait(refs, num_returns=5)
        machines.start("two")
        machines.kill("one")
        for seed, value in enumerate(drumbeat.get(refs, timeout=60)):
            assert value == bytes([seed]) * (4 * MIB)


def test_what_one_node_has_lost_with_its_death_others_get_from_the_program(
    machines: Machines,
) -> None:
    work = Work()
    machines.start("one")
    with machines.init():
        ref = work.made.remote(9, 4 * MIB)
        assert len(drumbeat.get(ref)) == 4 * MIB
        machines.start("two")
        machines.kill("one")
        assert drumbeat.get(work.summed.remote(ref), timeout=60) == (
            "two",
            digest(b"\t" * (4 * MIB)),
        )


def test_a_task_that_waited_for_it_before_that_gets_it_from_the_program_too(
    machines: Machines,
) -> None:
    work = Work()
    machines.start("one")
    with machines.init():
        ref = work.made.remote(9, 4 * MIB)
        needs = work.summed.options(node="two", wait_for_nodes=True).remote(ref)
        assert len(drumbeat.get(ref)) == 4 * MIB
        machines.kill("one")
        machines.start("two")
        assert drumbeat.get(needs, timeout=60) == ("two", digest(b"\t" * (4 * MIB)))


def test_where_one_cannot_reach_the_other_it_goes_through_the_scheduler_which_says_so(
    machines: Machines,
) -> None:
    work = Work()
    # an address that is nobody's here
    machines.start("one", "two", DRUMBEAT_DATA_HOST="255.255.255.255")
    with machines.init():
        data = os.urandom(4 * MIB)
        started_s = time.monotonic()
        assert drumbeat.get(work.summed.remote(drumbeat.put(data)), timeout=60)[1] == digest(data)
        assert drumbeat.get(work.made.remote(5, 4 * MIB), timeout=60) == bytes([5]) * (4 * MIB)
        assert time.monotonic() - started_s < 60
        until(lambda: bool(machines.relays()))
        assert "cannot get at large values of" in machines.relays()[0]


def test_what_a_program_has_put_is_lost_with_it_and_nobody_waits(machines: Machines) -> None:
    work = Work()
    machines.start("one", "two")
    with machines.init():
        for _ in range(3):
            drumbeat.put(os.urandom(4 * MIB))
    with machines.init():
        assert drumbeat.get(work.made.remote(1, 2 * MIB)) == b"\1" * (2 * MIB)
    rest = [row for row in machines.cluster.asked("nodes") if row["state"] == "alive"]
    assert len(rest) == 2
