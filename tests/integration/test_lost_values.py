"""Large values and the nodes that had them: what is made again, and what is lost and says so."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.session import current
from support.machines import Machines
from support.process_table import is_daemon
from support.waiting import until

MIB = 1 << 20
#: with so little asked for at a time a large value takes seconds
SLOWLY = 16 << 10
LARGE = 48 * MIB
#: nobody waits for what is lost
PROMPT_S = 40.0
WHY = "gone with node one, whose it was: that lost its connection"


class Work:
    """What tasks do; made where it is used, so that it goes along with its code."""

    def __init__(self, log: Path) -> None:
        @drumbeat.remote
        def made(seed: int, size: int, after_s: float = 0.0) -> bytes:
            with log.open("a") as file:
                file.write(f"{drumbeat.current().node}\n")
            time.sleep(after_s)
            return bytes([seed % 256]) * size

        @drumbeat.remote
        def next_one(data: bytes) -> bytes:
            time.sleep(0.2)
            return bytes([data[0] + 1]) * len(data)

        @drumbeat.remote
        def summed(*data: bytes) -> tuple[str, int]:
            return drumbeat.current().node, sum(one[0] * len(one) for one in data)

        @drumbeat.remote
        def has_put(size: int) -> list[Any]:
            return [drumbeat.put(b"p" * size)]

        @drumbeat.remote
        def has_called(size: int) -> list[Any]:
            inner = made.remote(7, size)
            drumbeat.wait([inner])
            return [inner]

        @drumbeat.remote
        def calls() -> list[Any]:
            return [made.remote(7, 10, 600.0)]

        self.calls = calls
        self.made, self.next_one, self.summed = made, next_one, summed
        self.has_put, self.has_called = has_put, has_called


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where tasks say on which nodes they began."""
    path = tmp_path / "begun"
    path.touch()
    return path


def begun(log: Path) -> list[str]:
    return log.read_text().split()


def is_under_way(log: Path) -> None:
    """Wait until a task has begun, and its value is on its way."""
    until(lambda: bool(begun(log)))
    time.sleep(0.7)


def test_a_result_whose_node_dies_while_its_submitter_gets_it_is_made_again(
    machines: Machines, log: Path
) -> None:
    work = Work(log)
    machines.start("one")
    with machines.init(data_window_bytes=SLOWLY):
        ref = work.made.options(max_retries=1).remote(3, LARGE)
        is_under_way(log)
        machines.kill("one")
        machines.start("two")
        assert drumbeat.get(ref, timeout=120) == b"\3" * LARGE
        assert begun(log) == ["one", "two"]


def test_that_is_charged_and_without_a_retry_the_error_names_the_node_and_why(
    machines: Machines, log: Path
) -> None:
    work = Work(log)
    machines.start("one")
    with machines.init(data_window_bytes=SLOWLY):
        ref = work.made.options(max_retries=0).remote(3, LARGE)
        is_under_way(log)
        machines.kill("one")
        with pytest.raises(drumbeat.NodeLost, match="node 'one', which had made, lost its") as lost:
            drumbeat.get(ref, timeout=PROMPT_S)
        assert lost.value.node == "one"
        assert begun(log) == ["one"]


def test_a_chain_of_large_results_comes_right_though_nodes_are_killed_at_random(
    machines: Machines, log: Path
) -> None:
    work, random = Work(log), Random(6)
    machines.start("n0", "n1")
    with machines.init():
        ref = work.made.remote(1, 4 * MIB)
        for _ in range(10):
            ref = work.next_one.options(max_retries=8).remote(ref)
        for number in range(3):
            time.sleep(random.uniform(0.2, 0.8))
            name = random.choice(sorted(machines.nodes))
            machines.kill(name)
            del machines.nodes[name]
            machines.start(f"m{number}")
        assert drumbeat.get(ref, timeout=120) == bytes([11]) * (4 * MIB)


def test_a_task_with_many_large_arguments_gets_them_though_a_node_that_made_some_dies(
    machines: Machines, log: Path
) -> None:
    work = Work(log)
    machines.start("one", "two")
    machines.start("three", DRUMBEAT_DATA_WINDOW_BYTES=str(SLOWLY))
    with machines.init():
        refs = [
            work.made.options(node=("one", "two")[seed % 2]).remote(seed, 4 * MIB)
            for seed in range(20)
        ]
        drumbeat.wait(refs, num_returns=20)
        needs = work.summed.options(node="three").remote(*refs)
        time.sleep(0.3)
        machines.kill("one")
        assert drumbeat.get(needs, timeout=120) == ("three", sum(range(20)) * 4 * MIB)


def test_a_result_that_a_third_node_is_getting_while_its_maker_dies_comes_from_its_submitter(
    machines: Machines, log: Path
) -> None:
    work = Work(log)
    machines.start("one")
    machines.start("two", DRUMBEAT_DATA_WINDOW_BYTES=str(SLOWLY))
    with machines.init():
        ref = work.made.options(node="one").remote(5, LARGE)
        drumbeat.wait([ref])
        needs = work.summed.options(node="two", max_retries=0).remote(ref)
        time.sleep(0.7)
        machines.kill("one")
        assert drumbeat.get(needs, timeout=120) == ("two", 5 * LARGE)
        assert begun(log) == ["one"]


def inner_of(machines: Machines, work: Work, how: str, size: int) -> Any:
    """Return a ref to what lived at node one alone, which is dead now."""
    if how == "calls":
        (inner,) = drumbeat.get(work.calls.options(node="one").remote(), timeout=60)
    else:
        make = work.has_put if how == "put" else work.has_called
        (inner,) = drumbeat.get(make.options(node="one").remote(size), timeout=60)
    machines.kill("one")
    return inner


def is_lost_with_the_node(get: Callable[[], Any]) -> None:
    began_s = time.monotonic()
    with pytest.raises(drumbeat.ObjectLost, match=WHY) as lost:
        get()
    assert lost.value.node == "one"
    assert time.monotonic() - began_s < PROMPT_S


@pytest.mark.parametrize(
    ("how", "size"),
    [("put", 10), ("put", 4 * MIB), ("called", 10), ("called", 4 * MIB), ("calls", 10)],
)
def test_what_only_a_dead_node_had_is_lost_and_the_error_names_it_and_why(
    machines: Machines, log: Path, how: str, size: int
) -> None:
    work = Work(log)
    machines.start("one", "two")
    with machines.init():
        inner = inner_of(machines, work, how, size)
        is_lost_with_the_node(lambda: drumbeat.get(inner, timeout=60))
        # again, and for those who wait, or pass it on
        is_lost_with_the_node(lambda: drumbeat.get(inner, timeout=60))
        assert drumbeat.wait([inner], timeout=60) == ([inner], [])
        with pytest.raises(drumbeat.DependencyFailed, match=WHY) as failed:
            drumbeat.get(work.summed.remote(inner), timeout=60)
        assert isinstance(failed.value.cause, drumbeat.ObjectLost)
        assert failed.value.cause.node == "one"


def test_who_waits_for_it_while_the_node_dies_is_told(machines: Machines, log: Path) -> None:
    work = Work(log)
    machines.start("one")
    with machines.init():
        (inner,) = drumbeat.get(work.has_put.options(node="one").remote(4 * MIB), timeout=60)
        machines.start("two", DRUMBEAT_DATA_WINDOW_BYTES=str(SLOWLY))
        (slow,) = drumbeat.get(work.has_put.options(node="one").remote(LARGE), timeout=60)
        needs = work.summed.options(node="two").remote(slow)
        time.sleep(0.7)
        machines.kill("one")
        ready, _ = drumbeat.wait([inner, needs], num_returns=2, timeout=PROMPT_S)
        assert ready == [inner, needs]
        is_lost_with_the_node(lambda: drumbeat.get(inner, timeout=60))
        with pytest.raises(drumbeat.ObjectLost, match="one"):
            drumbeat.get(needs, timeout=60)


def test_a_drained_node_stays_until_another_one_has_what_it_is_getting_there(
    machines: Machines, log: Path
) -> None:
    work = Work(log)
    machines.start("one")
    machines.start("two", DRUMBEAT_DATA_WINDOW_BYTES=str(SLOWLY))
    (daemon,) = [each.pid for each in machines.nodes["two"].family() if is_daemon(each.pid)]
    with machines.init():
        # To pickle it for the first time takes as long as the program is large. What is submitted
        # once the value has been made might get it from the program, and keeps no node.
        assert drumbeat.get(work.summed.options(node="two").remote(b"\1")) == ("two", 1)
        ref = work.made.options(node="one").remote(5, LARGE, 1.0)
        needs = work.summed.options(node="two", max_retries=0).remote(ref)
        until(lambda: "two" in [row["node"] for row in current().query("tasks")])  # type: ignore[union-attr]
        # For as long as it stands still it does not get it all.
        os.kill(daemon, signal.SIGSTOP)
        one = machines.nodes["one"].popen
        one.terminate()

        def waits_for() -> list[str]:
            return [why for row in drumbeat.nodes() for why in row.get("waits_for", ())]

        until(lambda: "large values that others are getting there" in waits_for())
        os.kill(daemon, signal.SIGCONT)
        assert drumbeat.get(needs, timeout=120) == ("two", 5 * LARGE)
        assert one.wait(60) == 0
        assert machines.relays() == []
