"""Large values between hosts of their own, at a fifth of the times: right, whatever is cut."""

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from network.data_lab import MIB, PROGRAM, QUICK, SCHEDULER, DataLab, memory_of
from support.waiting import until

pytestmark = pytest.mark.integration

NAMES = ("n1", "n2", "n3")


@pytest.fixture(scope="module")
def started() -> Iterator[DataLab]:
    with (
        tempfile.TemporaryDirectory(prefix="nd-") as home,
        closing(DataLab(Path(home), *NAMES)) as lab,
    ):
        yield lab


@pytest.fixture
def lab(started: DataLab) -> Iterator[DataLab]:
    yield started
    started.links.heal()
    started.program.do("drop")


def test_one_put_read_by_all_nodes_leaves_its_host_about_once(lab: DataLab) -> None:
    size = 24 * MIB
    lab.program.do("put", "shared", size)
    before = lab.sent(PROGRAM)
    for name in NAMES:
        lab.program.do("read", f"by {name}", name, "shared")
    assert lab.program.do("get", *(f"by {name}" for name in NAMES))[1] == [
        lab.has("shared", size)
    ] * len(NAMES)
    assert lab.sent(PROGRAM) - before < 1.5 * size
    assert lab.relays() == []


def test_arguments_results_and_results_of_other_nodes_are_right(lab: DataLab) -> None:
    size = 8 * MIB
    for name, other in zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True):
        lab.program.do("give", f"to {name}", name, size)
        lab.program.do("make", f"from {name}", name, size)
        lab.program.do("read", f"{name} at {other}", other, f"from {name}")
    for name, other in zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True):
        asked = (f"to {name}", f"from {name}", f"{name} at {other}")
        made = lab.has(f"from {name}", size)
        assert lab.program.do("get", *asked)[1] == [lab.has(f"to {name}", size), made, made]
    assert lab.relays() == []


# Once it has been told of two nodes it is not told again: each way has two of its own.
@pytest.mark.parametrize(
    ("way", "holder", "reader"), [("both", "n1", "n2"), ("there", "n2", "n3"), ("back", "n3", "n1")]
)
def test_what_one_node_cannot_get_from_another_goes_through_the_scheduler_and_is_told(
    lab: DataLab, way: str, holder: str, reader: str
) -> None:
    size, name = 6 * MIB, f"cut {way}"
    before, (one, two) = len(lab.relays()), (lab.network[holder], lab.network[reader])
    if way != "back":
        lab.links.cut_one_way(two, one)
    if way != "there":
        lab.links.cut_one_way(one, two)
    lab.program.do("make", name, holder, size)
    lab.program.do("read", "over there", reader, name)
    assert lab.program.do("get", "over there")[1] == [lab.has(name, size)]
    told = lab.relays()[before:]
    assert len(told) == 1
    assert f"node '{reader}' cannot get at large values of node '{holder}'" in told[0]


def test_what_a_program_and_a_node_cannot_give_each_other_goes_through_the_scheduler(
    lab: DataLab,
) -> None:
    size, before = 6 * MIB, len(lab.relays())
    lab.links.cut_one_way(lab.network[PROGRAM], lab.network["n1"])
    lab.program.do("give", "given", "n1", size)
    lab.program.do("make", "made", "n1", size)
    digests = lab.program.do("get", "given", "made")[1]
    assert digests == [lab.has("given", size), lab.has("made", size)]
    assert len(lab.relays()) - before == 2
    # They are waited for in vain once, not with each value.
    begun_s = time.monotonic()
    for number in range(6):
        assert brought(lab, f"later {number}", size)
    assert time.monotonic() - begun_s < 6 * QUICK["data_silence_s"]
    lab.links.heal()
    until(lambda: not brought(lab, "healed", size), 40.0)


def brought(lab: DataLab, name: str, size: int) -> bool:
    """Give the first node a value; return whether it went through the scheduler."""
    before = lab.sent(SCHEDULER)
    lab.program.do("give", name, "n1", size)
    assert lab.program.do("get", name)[1] == [lab.has(name, size)]
    return lab.sent(SCHEDULER) - before > size


def test_a_node_that_dies_while_others_read_from_it_is_replaced_by_who_has_the_value(
    lab: DataLab,
) -> None:
    # The second has not waited for the first in vain in a test before: that it remembers a while.
    size = 50 * MIB
    lab.program.do("put", "chained", size)
    lab.links.slow(lab.network["n3"], "20mbit")
    lab.program.do("read", "first", "n3", "chained")
    lab.until_sent(PROGRAM, 4 * MIB)
    lab.program.do("read", "second", "n2", "chained")
    lab.until_sent("n3", 4 * MIB)
    lab.kill(lab.nodes["n3"])
    assert lab.program.do("get", "second")[1] == [lab.has("chained", size)]
    lab.links.heal()
    lab.start_node("n3")
    assert lab.program.do("get", "first")[1] == [lab.has("chained", size)]


def test_a_result_whose_node_dies_while_it_is_read_is_made_again(lab: DataLab) -> None:
    size = 50 * MIB
    lab.links.slow(lab.network["n2"], "100mbit")
    lab.program.do("make", "halved", "n2", size)
    lab.until_sent("n2", 8 * MIB)
    lab.kill(lab.nodes["n2"])
    lab.links.heal()
    lab.start_node("n2")
    assert lab.program.do("get", "halved")[1] == [lab.has("halved", size)]


def test_a_scheduler_that_dies_and_comes_back_amid_transfers_loses_none(lab: DataLab) -> None:
    size = 50 * MIB
    lab.links.slow(lab.network["n3"], "100mbit")
    lab.program.do("make", "resumed", "n3", size)
    lab.program.do("give", "regiven", "n3", 20 * MIB)
    lab.until_sent("n3", 8 * MIB)
    lab.kill(lab.scheduler)
    lab.start_scheduler()
    digests = lab.program.do("get", "resumed", "regiven")[1]
    assert digests == [lab.has("resumed", size), lab.has("regiven", 20 * MIB)]


def test_a_program_that_is_stopped_for_longer_than_a_silence_gets_all_that_came_meanwhile(
    lab: DataLab,
) -> None:
    size, count = 4 * MIB, 36
    before = len(lab.relays())
    names = [f"result {number}" for number in range(count)]
    for number, name in enumerate(names):
        lab.program.do("make", name, NAMES[number % 3], size)
    os.kill(lab.program.popen.pid, signal.SIGSTOP)
    time.sleep(3 * QUICK["data_silence_s"])
    most = max(memory_of(one) for one in [lab.scheduler, *lab.nodes.values()])
    os.kill(lab.program.popen.pid, signal.SIGCONT)
    assert lab.program.do("get", *names)[1] == [lab.has(name, size) for name in names]
    assert most < 100 * MIB
    assert lab.relays()[before:] == []


def test_a_slow_link_to_one_node_does_not_delay_what_others_are_sent(lab: DataLab) -> None:
    lab.links.slow(lab.network["n3"])
    lab.program.do("give", "slowly", "n3", MIB)
    lab.until_sent(PROGRAM, 32 << 10)
    size = 4 * MIB
    for number in range(4):
        for name, other in (("n1", "n2"), ("n2", "n1")):
            lab.program.do("give", f"to {name}", name, size)
            lab.program.do("make", f"{number} from {name}", name, size)
            lab.program.do("read", f"at {other}", other, f"{number} from {name}")
            digests = lab.program.do("get", f"to {name}", f"at {other}")[1]
            assert digests == [lab.has(f"to {name}", size), lab.has(f"{number} from {name}", size)]
    assert not lab.program.do("is_ready", "slowly")[1]
    lab.links.heal()
    assert lab.program.do("get", "slowly")[1] == [lab.has("slowly", MIB)]


@pytest.mark.parametrize("way", ["make", "give"])
def test_a_value_comes_over_a_link_that_carries_little_of_it_within_a_silence(
    lab: DataLab, way: str
) -> None:
    # Whole, it would take four times as long as a silence may. The program and this node have not
    # been cut off from each other in a test before: that is remembered a while.
    size, before = MIB, len(lab.relays())
    lab.links.slow(lab.network["n2"], "1mbit")
    lab.program.do(way, f"trickles by {way}", "n2", size)
    assert lab.program.do("get", f"trickles by {way}")[1] == [lab.has(f"trickles by {way}", size)]
    assert lab.relays()[before:] == []
