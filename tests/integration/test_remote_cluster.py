"""A cluster over TCP, as its users start it: what of it may end, and what nobody may see.

What needs no cluster of its own is in test_remote_jobs.py and test_remote_troubles.py.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.protocol.cluster_file import read_address
from drumbeat.protocol.keys import show_address
from support.remote_cluster import SAYS_WITHIN_S, Process, RemoteCluster
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RemoteCluster]:
    """Nothing of it runs yet; afterwards nothing may be left."""
    cluster = RemoteCluster(tmp_path)
    yield cluster
    drumbeat.shutdown()
    cluster.end()
    assert not psutil.Process().children(recursive=True), "processes were left behind"


@pytest.fixture
def pair(cluster: RemoteCluster) -> RemoteCluster:
    """A scheduler and two nodes."""
    cluster.start_scheduler()
    for name in ("one", "two"):
        cluster.start_node(name, wait=False)
    for process in cluster.processes[1:]:
        process.until_it_says("connected to the scheduler")
    return cluster


@drumbeat.remote
def square(number: int) -> int:
    return number * number


@drumbeat.remote
def slow(number: int, seconds: float) -> int:
    time.sleep(seconds)
    return number


@drumbeat.remote
def seen() -> dict[str, str]:
    return dict(os.environ)


# ------------------------------------------------------------------------------------- what ends


def test_work_goes_on_when_the_scheduler_is_killed_and_started_again(pair: RemoteCluster) -> None:
    with drumbeat.init(pair.file("client")):
        refs = [slow.remote(number, 0.05) for number in range(200)]
        drumbeat.wait(refs, num_returns=20, timeout=30)
        assert pair.processes[0].end(signal.SIGKILL) == -signal.SIGKILL
        again = pair.start_scheduler()
        assert drumbeat.get(refs, timeout=60) == list(range(200))
    assert pair.asked("status")["epoch"] == 2
    assert again.end() == 0, "a scheduler that gets TERM ends well"
    pair.start_scheduler()
    pair.until_nodes("one", "two")


def test_a_daemon_that_is_killed_is_followed_by_one_that_joins_again(pair: RemoteCluster) -> None:
    node = pair.processes[1]
    daemon = daemon_of(node)
    os.kill(daemon, signal.SIGKILL)
    until(lambda: node.said().count("connected to the scheduler") == 2)
    assert daemon_of(node) != daemon
    pair.until_nodes("one", "two")


def test_a_node_whose_secret_is_gone_goes_on_and_ends_in_plain_words_with_its_daemon(
    cluster: RemoteCluster,
) -> None:
    cluster.start_scheduler()
    node = cluster.start_node("one")
    daemon = daemon_of(node)
    # The keeper's first child keeps the secret.
    safe = min(psutil.Process(node.pid).children(), key=lambda one: one.create_time())
    safe.kill()
    with drumbeat.init(cluster.file("client")):
        assert drumbeat.get(square.remote(4), timeout=20) == 16
    os.kill(daemon, signal.SIGKILL)
    assert node.popen.wait(20) == 69
    assert "start this node anew" in node.said()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_scheduler_and_nodes_in_peace(cluster: RemoteCluster, number: int) -> None:
    scheduler = cluster.start_scheduler()
    elsewhere = cluster.spoiled(endpoint="tcp://127.0.0.1:9")
    alone = cluster.start_node("alone", wait=False, DRUMBEAT_ADDRESS=elsewhere)
    alone.until_it_says("cannot reach")
    nodes = [cluster.start_node("one"), alone]
    assert [node.end(number) for node in nodes] == [0, 0]
    assert cluster.asked("nodes") == []
    assert scheduler.end(number) == 0
    assert not [one for one in cluster.processes if "Traceback" in one.said()]


def daemon_of(node: Process) -> int:
    """The process of a node that is connected with the scheduler."""
    (daemon,) = [one.pid for one in node.family() if one.net_connections("tcp")]
    return daemon


# -------------------------------------------------------------------------- what nobody may see


def test_a_local_cluster_opens_no_network_port(root: str) -> None:
    with drumbeat.init(num_cpus=1, nodes=2, runtime_directory=root):
        assert drumbeat.get(square.remote(3)) == 9
        processes = psutil.Process().children(recursive=True)
        assert len(processes) > 6
        for process in [psutil.Process(), *processes]:
            assert [one for one in process.net_connections("inet") if one.status == "LISTEN"] == []


@pytest.mark.parametrize("form", ["string", "file"])
@pytest.mark.parametrize("worker_start", ["fork", "spawn"])
def test_no_process_shows_a_secret_and_those_that_run_tasks_have_none(
    cluster: RemoteCluster, form: str, worker_start: str
) -> None:
    cluster.start_scheduler()
    environ = {"DRUMBEAT_WORKER_START": worker_start}
    if form == "string":
        environ["DRUMBEAT_ADDRESS"] = show_address(*read_address(cluster.file("node")))
    else:
        environ["DRUMBEAT_ADDRESS"] = str(cluster.file("node"))
    node = cluster.start_node("one", **environ)
    os.kill(daemon_of(node), signal.SIGKILL)  # its successor gets the secret in another way
    until(lambda: node.said().count("connected to the scheduler") == 2)
    with drumbeat.init(cluster.file("client")):
        inside = drumbeat.get(seen.remote(), timeout=20)
        secrets = cluster.secrets()
        assert not [one for one in secrets if one in repr(inside).encode()]
        assert "DRUMBEAT_ADDRESS" not in inside
        daemon = daemon_of(node)
        for root in cluster.processes:
            assert not [one for one in secrets if one in root.said().encode()]
            for process in root.family():
                for what in ("cmdline", "environ"):
                    shown = Path(f"/proc/{process.pid}/{what}").read_bytes()
                    assert not [one for one in secrets if one in shown], process
        holders = [one.pid for one in node.family() if holds_any(one.pid, secrets)]
        # The positive control, too: who must have the secret is seen to have it.
        assert daemon in holders
        (safe,) = [pid for pid in holders if pid != daemon]
        assert safe in [one.pid for one in psutil.Process(node.pid).children()]
        ends = descriptors(safe)
        others = [one.pid for one in node.family() if one.pid not in (safe, daemon)]
        for pid in others:
            assert not descriptors(pid) & ends, "a way to the secret is left open"


def holds_any(pid: int, secrets: list[bytes]) -> bool:
    """Whether a secret lies anywhere in a process's own memory."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            start, end, mode = re.match(r"(\w+)-(\w+) (\S+)", line).groups()  # type: ignore[union-attr]  # the kernel writes them so
            if mode.startswith("rw") and "[v" not in line:
                memory.seek(int(start, 16))
                try:
                    data = memory.read(int(end, 16) - int(start, 16))
                except OSError:
                    continue  # a part that is not there
                if any(one in data for one in secrets):
                    return True
    return False


def descriptors(pid: int) -> set[str]:
    """What a process has open, by its kernel's name, without files."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            name = os.readlink(f"/proc/{pid}/fd/{fd}")
        except OSError:
            continue  # closed meanwhile
        if name.startswith(("pipe:", "socket:", "/memfd:")):
            found.add(name)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_cluster_file_of_another_user_is_refused(cluster: RemoteCluster) -> None:
    cluster.start_scheduler()
    for role in ("node", "client", "admin"):
        os.chown(cluster.file(role), 12345, -1)
    said = cluster.command("node", "--cluster", str(cluster.file("node")), code=2).stderr
    assert "belongs to user 12345" in said
    with pytest.raises(drumbeat.ConfigError, match="belongs to user 12345"):
        drumbeat.init(cluster.file("client"))
    assert "belongs to user 12345" in cluster.command("status", code=3).stderr


# -------------------------------------------------------------- what is wrong, within five seconds


def test_a_node_that_was_there_first_joins_when_the_scheduler_starts(
    cluster: RemoteCluster,
) -> None:
    assert cluster.start_scheduler().end() == 0
    node = cluster.start_node("one", wait=False)
    assert node.until_it_says("cannot reach") < SAYS_WITHIN_S
    cluster.start_scheduler()
    node.until_it_says("connected to the scheduler", within_s=10.0)
    cluster.until_nodes("one")


# --------------------------------------------------------------------------------- the quick start


README = Path(__file__).parents[2] / "README.md"


def quick_start() -> list[list[str]]:
    """The blocks of commands below README's heading of that name."""
    section = README.read_text().partition("\n## Several machines\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [[line.strip() for line in block.splitlines()] for block in blocks]


def test_the_quick_start_of_the_readme_works_as_it_is_printed(cluster: RemoteCluster) -> None:
    scheduler, node, program, *_ = ["\n".join(block) for block in quick_start()]
    assert scheduler.count("\n") == 0
    assert node.count("\n") == 1, "two lines to paste"
    # On this one machine `scp` has no other to copy from; all else is as it is printed.
    tools = cluster.home / "tools"
    tools.mkdir()
    for name, does in (
        ("scp", 'cp "$HOME/${1#*:}" "$2"'),
        ("drumbeat", f'exec {sys.executable} -m drumbeat.client.cli "$@"'),
        ("python", f'exec {sys.executable} "$@"'),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o700)
    for machine in ("second", "third"):
        (cluster.home / machine).mkdir()
    path = f"{tools}:{os.environ['PATH']}"

    first = cluster.start("sh", "-ec", f"exec {scheduler}", name="first", PATH=path)
    first.until_it_says("listening at")
    second = cluster.start("sh", "-ec", f"cd $HOME/second\n{node}", name="second-node", PATH=path)
    second.until_it_says("connected to the scheduler")
    ten_lines = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[0]
    (cluster.home / "third" / "program.py").write_text(ten_lines)
    third = f"cd $HOME/third\n{program}"
    assert "285" in cluster.run("sh", "-ec", third, PATH=path).stdout
    # the shell stands between us and the node
    for process in second.family()[1:2]:
        process.terminate()
    assert second.popen.wait(20) == 0
