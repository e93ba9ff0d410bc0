"""By which address others come to a scheduler that was given none: what it says of it is true."""

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from drumbeat.protocol.cluster_file import read_address
from network.hosts import INTERFACE
from network.lab import CLIENT, JOINS_WITHIN_S, LAB, NODE, PROGRAM, SECOND, SECOND_ADDRESSES, Lab

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(tmp_path)) as lab:
        yield lab


def written(lab: Lab) -> str:
    """Return the HOST:PORT in all cluster files."""
    files = [lab.cluster.file(role) for role in ("node", "client", "admin")]
    (endpoint,) = {read_address(file).endpoint for file in files}
    return endpoint.removeprefix("tcp://")


def test_with_one_address_and_no_way_out_others_come_by_what_the_scheduler_has_printed(
    lab: Lab,
) -> None:
    said = lab.start_scheduler().said()
    assert f"others reach it at {lab.where}\n" in said
    assert "name another with --advertise HOST if that is wrong" in said
    assert written(lab) == lab.where
    (command,) = re.findall(r"^  (drumbeat scheduler .* --show node)$", said, re.MULTILINE)
    export, start, words = lab.on_a_terminal(command)
    assert words.startswith("paste both lines on each machine that is to run tasks")
    node = lab.type(NODE, f"{export}\n{start}")
    node.until_it_says("connected to the scheduler", JOINS_WITHIN_S)
    export, words = lab.on_a_terminal(command.replace("--show node", "--show client"))
    assert words.startswith("paste this where programs or commands run")
    program = lab.type(CLIENT, f"{export}\n{shlex.join(['python', '-c', PROGRAM])}")
    program.until_it_says("got 49", JOINS_WITHIN_S)


def test_of_two_networks_without_a_way_out_none_is_guessed_and_the_one_that_is_named_serves(
    lab: Lab,
) -> None:
    lab.add_second_network()
    alone = f"127.0.0.1:{lab.port}"
    first = lab.start_scheduler()
    assert f"this machine alone reaches it at {alone}\n" in first.said()
    choice = f"{lab.network[LAB].address} or {SECOND_ADDRESSES[0]}"
    assert f"name one with --advertise HOST ({choice})\n" in first.said()
    assert "another machine" not in first.said()
    assert written(lab) == alone
    # Who takes the file to another machine all the same is told what is wrong with it.
    lost = lab.start_node()
    assert lost.until_it_says(f"nobody listens at {alone}") < lab.says_within_s
    assert "to be started with --advertise" in lost.said()
    *_, words = lab.on_a_terminal("drumbeat scheduler --show node")
    assert words.startswith("that is good on this machine alone")
    assert (lost.end(), first.end()) == (0, 0)
    again = lab.start_scheduler("--advertise", SECOND_ADDRESSES[0])
    where = f"{SECOND_ADDRESSES[0]}:{lab.port}"
    assert f"others reach it at {where}\n  that was {alone} before" in again.said()
    assert written(lab) == where
    lab.start_node().until_it_says("connected to the scheduler", JOINS_WITHIN_S)


@pytest.mark.parametrize("out", [INTERFACE, SECOND])
def test_of_two_networks_the_one_that_leads_out_is_taken_and_the_other_named(
    lab: Lab, out: str
) -> None:
    lab.add_second_network()
    lab.network[LAB].call("ip", "route", "add", "default", "dev", out)
    addresses = [lab.network[LAB].address, SECOND_ADDRESSES[0]]
    taken, other = addresses if out == INTERFACE else reversed(addresses)
    said = lab.start_scheduler().said()
    assert f"others reach it at {taken}:{lab.port}\n" in said
    assert f"name that with --advertise HOST ({other})\n" in said
    assert written(lab) == f"{taken}:{lab.port}"
    # The node is in both networks.
    lab.start_node().until_it_says("connected to the scheduler", JOINS_WITHIN_S)


def test_a_machine_without_a_network_says_that_it_is_alone_and_works_for_itself(lab: Lab) -> None:
    lab.network[LAB].call("ip", "link", "set", INTERFACE, "down")
    said = lab.start_scheduler().said()
    assert f"this machine alone reaches it at 127.0.0.1:{lab.port}\n" in said
    assert "this machine has no address for others" in said
    assert "name one with --advertise HOST\n" in said
    assert "another machine" not in said
    lab.start_node(LAB).until_it_says("connected to the scheduler", JOINS_WITHIN_S)


def test_a_scheduler_that_cannot_reach_itself_says_what_is_missing(lab: Lab) -> None:
    lab.network[LAB].call("ip", "link", "set", "lo", "down")
    process = lab.type(LAB, "exec drumbeat scheduler")
    assert process.popen.wait(JOINS_WITHIN_S) == 2
    assert "is its loopback interface down" in process.said()
    assert process.said().count("\n") == 1
