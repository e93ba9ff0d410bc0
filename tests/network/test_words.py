"""Who does not come through to the scheduler's host: it says why, and comes when it can.

What can be seen on one machine is in integration/test_remote_troubles.py.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from drumbeat.protocol.cluster_file import name_of, read_private, write_private
from drumbeat.protocol.keys import ROLES, show_key
from drumbeat.protocol.sockets import new_keys
from network.hosts import INTERFACE
from network.lab import JOINS_WITHIN_S, LAB, Lab

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with closing(Lab(tmp_path)) as lab:
        yield lab


class Fault(NamedTuple):
    """Why nobody comes through; what is said of it has the HOST:PORT for {where}."""

    harm: Callable[[Lab], object]
    says: str
    mend: Callable[[Lab], object]


SILENT = "no answer from {where} within "
SUBNET = ("10.77.0.0/24", "dev", INTERFACE)


FAULTS = {
    "no route": Fault(
        lambda lab: lab.ways("route", "del", *SUBNET),
        "there is no way to {where} (Network is unreachable): no route",
        lambda lab: lab.ways("route", "add", *SUBNET),
    ),
    "a route that says no": Fault(
        lambda lab: lab.ways("route", "add", "unreachable", lab.network[LAB].address),
        "there is no way to {where} (No route to host): that machine is off or",
        lambda lab: lab.ways("route", "del", "unreachable", lab.network[LAB].address),
    ),
    "dropped there": Fault(lambda lab: lab.cut(there=True), SILENT, lambda lab: lab.links.heal()),
    "dropped here": Fault(lambda lab: lab.cut(there=False), SILENT, lambda lab: lab.links.heal()),
    "a pulled cable": Fault(lambda lab: lab.plug("down"), SILENT, lambda lab: lab.plug("up")),
    "nobody there": Fault(
        lambda lab: lab.cluster.processes[0].end(),
        "nobody listens at {where} (connection refused)",
        lambda lab: lab.start_scheduler(),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_who_does_not_come_through_says_within_five_seconds_why_and_comes_when_it_can(
    lab: Lab, fault: str
) -> None:
    harm, says, mend = FAULTS[fault]
    lab.start_scheduler()
    harm(lab)
    try:
        started = [lab.start_node(), lab.start_program()]
        for process in started:
            after_s = process.until_it_says("cannot reach the scheduler at " + lab.where)
            assert after_s < lab.says_within_s, process.said()
            assert says.format(where=lab.where) in process.said()
            assert process.said().count("\n") <= 2
        time.sleep(0.5)
        assert [process.popen.poll() for process in started] == [None, None]
    finally:
        mend(lab)
    started[0].until_it_says("connected to the scheduler", JOINS_WITHIN_S)
    started[1].until_it_says("got 49", JOINS_WITHIN_S)
    assert started[1].popen.wait(JOINS_WITHIN_S) == 0


def with_other_keys(text: str) -> str:
    """Return a scheduler's own file in which all keys that it admits are others."""
    fields = json.loads(text)
    return json.dumps({**fields, "keys": {role: show_key(new_keys()[0]) for role in ROLES}})


def test_a_node_whose_key_is_not_admitted_says_so_and_joins_when_it_is(lab: Lab) -> None:
    cluster = lab.cluster
    first = lab.start_scheduler()
    assert first.end() == 0
    own = cluster.directory / name_of("scheduler")
    right = read_private(own)
    kept = {path: read_private(path) for path in cluster.files() if path != own}
    for path in kept:
        path.unlink()
    write_private(own, with_other_keys(right))
    second = lab.start_scheduler()
    for path, text in kept.items():
        write_private(path, text)
    started = [lab.start_node(), lab.start_program()]
    for process in started:
        assert process.until_it_says("does not admit this key") < lab.says_within_s
    assert started[1].popen.wait(JOINS_WITHIN_S) != 0, "a program is not let wait for that"
    assert "KeyRefused" in started[1].said()
    assert started[0].popen.poll() is None
    assert second.end() == 0
    write_private(own, right)
    lab.start_scheduler()
    started[0].until_it_says("connected to the scheduler", JOINS_WITHIN_S)
