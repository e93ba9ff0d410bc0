"""Jobs on a cluster over TCP: one of two nodes, which its users meet by file and by string."""

import os
import re
import sys
import textwrap
import time
from collections.abc import Iterator

import drumbeat
import psutil
import pytest
from drumbeat.protocol.cluster_file import read_address
from drumbeat.protocol.keys import show_address
from support.remote_cluster import RemoteCluster
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteCluster]:
    """A scheduler and two nodes for all tests here; afterwards nothing may be left."""
    cluster = RemoteCluster(tmp_path_factory.mktemp("remote"))
    try:
        cluster.start_scheduler()
        for name in ("one", "two"):
            cluster.start_node(name, wait=False)
        for process in cluster.processes[1:]:
            process.until_it_says("connected to the scheduler")
        yield cluster
    finally:
        cluster.end()
    assert not psutil.Process().children(recursive=True), "processes were left behind"


@pytest.fixture
def pair(running: RemoteCluster) -> Iterator[RemoteCluster]:
    """It, as each test finds it and leaves it."""
    running.until_nodes("one", "two")
    yield running
    drumbeat.shutdown()


@drumbeat.remote
def slow(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


PROGRAM = """
import drumbeat

@drumbeat.remote(spread=True)
def work(number):
    print("at work on", number)
    return number * number, drumbeat.current().node if hasattr(drumbeat, "current") else ""

with drumbeat.init() as cluster:
    print(sum(value for value, _ in drumbeat.get([work.remote(n) for n in range(20)])))
"""


@pytest.mark.parametrize("form", ["string", "file", "directory"])
def test_a_program_runs_its_job_on_two_nodes_and_what_they_print_comes_home(
    pair: RemoteCluster, form: str
) -> None:
    program = pair.home / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    address = {
        "string": show_address(*read_address(pair.file("client"))),
        "file": str(pair.file("client")),
        "directory": str(pair.directory),
    }[form]
    out = pair.run(sys.executable, str(program), DRUMBEAT_ADDRESS=address).stdout
    assert "2470" in out
    printed = re.findall(r"\(work pid=\d+ node=(\w+)\) at work on (\d+)", out)
    assert sorted(int(number) for _, number in printed) == list(range(20))
    assert {node for node, _ in printed} == {"one", "two"}


def test_a_large_value_goes_there_and_back(pair: RemoteCluster) -> None:
    @drumbeat.remote
    def turned(data: bytes) -> bytes:
        return data[::-1]

    with drumbeat.init(pair.file("client")):
        data = os.urandom(5 << 20)
        assert drumbeat.get(turned.remote(data), timeout=30) == data[::-1]


def test_commands_see_and_steer_a_job(pair: RemoteCluster) -> None:
    with drumbeat.init(pair.file("client")) as mine:
        assert mine.address == f"drumbeat://127.0.0.1:{pair.port}"
        refs = [slow.remote(number, 60) for number in range(6)]
        until(lambda: pair.asked("status")["tasks"]["assigned"] == 4)
        assert sorted(row["name"] for row in pair.asked("nodes")) == ["one", "two"]
        tasks = pair.asked("tasks")
        assert sorted(row["state"] for row in tasks) == ["queued"] * 2 + ["running"] * 4
        assert "slow" in pair.command("tasks", "--address", str(pair.file("client"))).stdout
        out = pair.command("cancel", *(row["id"] for row in tasks)).stdout
        assert out.count("is being cancelled") == 6
        for ref in refs:
            with pytest.raises(drumbeat.TaskCancelled):
                drumbeat.get(ref, timeout=20)
        assert pair.asked("tasks") == []


def test_what_a_program_keeps_is_told_on_the_schedulers_machine(pair: RemoteCluster) -> None:
    with drumbeat.init(pair.file("client")):
        value, ref = drumbeat.put(bytes(3 << 20)), slow.remote(1, 0)
        drumbeat.wait([ref])
        answer = pair.asked("objects")
        assert [(row["sort"], row["name"]) for row in answer["objects"]] == [
            ("put", ""),
            ("result", "slow"),
        ]
        assert answer["objects"][0]["size_bytes"] > 3 << 20
        assert {home["pid"] for home in answer["homes"]} == {os.getpid()}
        assert answer["silent"] == []
        del value, ref
        until(lambda: not pair.asked("objects")["objects"])


def test_a_scheduler_on_the_network_listens_at_its_port_and_each_node_at_one_for_data(
    pair: RemoteCluster,
) -> None:
    scheduler = pair.processes[0]
    listening = [
        (root.pid, one.laddr.port)
        for root in pair.processes
        for process in root.family()
        for one in process.net_connections("inet")
        if one.status == "LISTEN"
    ]
    assert sorted(pid for pid, _ in listening) == sorted(root.pid for root in pair.processes)
    assert (scheduler.pid, pair.port) in listening
    assert pair.port not in [port for pid, port in listening if pid != scheduler.pid]
