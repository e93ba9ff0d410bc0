"""Who cannot connect with a scheduler over TCP, or may not: told within seconds, in plain words.

One scheduler for all: none of this may be felt by it, and each test finds it as it was.
"""

import contextlib
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.protocol.cluster_file import read_address, write_address
from drumbeat.protocol.errors import KeyRefused, SchedulerUnreachable
from support.ports import own_port
from support.remote_cluster import SAYS_WITHIN_S, RemoteCluster
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteCluster]:
    """A scheduler for all tests here; afterwards nothing may be left."""
    cluster = RemoteCluster(tmp_path_factory.mktemp("remote"))
    try:
        cluster.start_scheduler()
        yield cluster
    finally:
        cluster.end()
    assert not psutil.Process().children(recursive=True), "processes were left behind"


@pytest.fixture
def cluster(running: RemoteCluster) -> Iterator[RemoteCluster]:
    """It, with nothing else beside it."""
    running.until_nodes()
    scheduler = running.processes[0]
    yield running
    drumbeat.shutdown()
    running.end(but=scheduler)
    assert scheduler.popen.poll() is None, scheduler.said()


def test_a_second_scheduler_in_the_same_directory_is_refused(cluster: RemoteCluster) -> None:
    listen = f"127.0.0.1:{own_port()}"
    said = cluster.command("scheduler", "--listen", listen, code=2).stderr
    assert "another scheduler runs with the directory" in said
    assert said.count("\n") == 1


def test_a_port_that_is_taken_is_said_to_be(cluster: RemoteCluster, tmp_path: Path) -> None:
    other = tmp_path / "other"
    flags = ("--directory", str(other), "--listen", f"127.0.0.1:{cluster.port}")
    said = cluster.command("scheduler", *flags, code=2).stderr
    assert f"cannot listen at tcp://127.0.0.1:{cluster.port}: Address already in use" in said


# -------------------------------------------------------------- what is wrong, within five seconds


Spoil = Callable[[RemoteCluster], str]

TROUBLES: dict[str, tuple[Spoil, str]] = {
    "a wrong key": (lambda c: c.spoiled(secret_key=bytes(range(32))), "key"),
    "another server's key": (
        lambda c: c.spoiled(server_key=read_other(c)),
        "not this cluster's scheduler",
    ),
    "nobody listening": (lambda c: c.spoiled(endpoint="tcp://127.0.0.1:9"), "refused"),
    "an unknown host": (lambda c: c.spoiled(endpoint="tcp://no.such.host.invalid:7788"), "host"),
}


def read_other(cluster: RemoteCluster) -> bytes:
    """The public key of another scheduler: a right one, of the wrong cluster."""
    other = RemoteCluster.__new__(RemoteCluster)
    other.__dict__.update(cluster.__dict__)
    other.directory = cluster.home / "other"
    done = cluster.start(
        *(sys.executable, "-m", "drumbeat.client.cli", "scheduler"),
        *("--directory", str(other.directory), "--listen", f"127.0.0.1:{own_port()}"),
        name="other",
    )
    done.until_it_says("listening at")
    assert done.end() == 0
    return read_address(other.file("node")).credentials.server_key


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_node_that_cannot_connect_says_within_five_seconds_why_and_keeps_trying(
    cluster: RemoteCluster, trouble: str
) -> None:
    spoil, words = TROUBLES[trouble]
    node = cluster.start_node("one", wait=False, DRUMBEAT_ADDRESS=spoil(cluster))
    assert node.until_it_says("cannot reach the scheduler at") < SAYS_WITHIN_S
    said = node.said()
    assert words in said
    assert "it keeps trying" in said
    assert said.count("\n") <= 2
    assert node.popen.poll() is None
    assert len([one for one in node.family() if one.status() != "zombie"]) >= 3


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_program_that_cannot_connect_is_told_why(cluster: RemoteCluster, trouble: str) -> None:
    spoil, words = TROUBLES[trouble]
    mine = cluster.home / "program.cluster"
    write_address(mine, read_address(Path(spoil(cluster)))._replace(role="client"))
    refused = trouble == "a wrong key"
    watch = Watch()
    with pytest.raises(KeyRefused if refused else SchedulerUnreachable, match=words):
        drumbeat.init(mine, connect_timeout_s=3.0)
    assert watch.own_s() < (2.0 if refused else 4.0)
    watch = Watch()
    said = cluster.command("status", "--address", str(mine), code=1).stderr
    assert watch.own_s() < SAYS_WITHIN_S
    assert words in said
    assert said.count("\n") == 1


def test_a_program_that_waits_long_is_told_meanwhile_why(cluster: RemoteCluster) -> None:
    mine = cluster.home / "program.cluster"
    nobody = read_address(cluster.file("client"))._replace(endpoint="tcp://127.0.0.1:9")
    write_address(mine, nobody)
    code = f"import drumbeat; drumbeat.init({str(mine)!r}, connect_timeout_s=60.0)"
    program = cluster.start(sys.executable, "-c", code, name="program")
    assert program.until_it_says("cannot reach the scheduler at") < SAYS_WITHIN_S
    said = program.said()
    assert "connection refused" in said
    assert said.count("\n") == 1


def test_a_node_that_is_not_let_in_tries_a_few_times_a_second_from_the_start_on(
    cluster: RemoteCluster,
) -> None:
    lasts_s, count = 1.5, 0
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        cluster.start_node("one", wait=False, DRUMBEAT_ADDRESS=cluster.spoiled(endpoint=endpoint))
        server.settimeout(20.0)
        server.accept()[0].close()
        end_s = time.monotonic() + lasts_s
        while (left_s := end_s - time.monotonic()) > 0:
            server.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                server.accept()[0].close()
                count += 1
    # One attempt each 0.1 to 0.3 s, and a question each second.
    assert 2 <= count <= lasts_s / 0.1 + 2


@pytest.mark.parametrize(("role", "proves"), [("client", "node"), ("node", "client")])
def test_a_key_is_good_for_its_own_role_only(
    cluster: RemoteCluster, role: str, proves: str
) -> None:
    credentials = read_address(cluster.file(proves)).credentials
    address = read_address(cluster.file(role))._replace(credentials=credentials)
    path = cluster.home / "changed.cluster"
    write_address(path, address)
    if role == "client":
        with pytest.raises(KeyRefused):
            drumbeat.init(path, connect_timeout_s=5.0)
    else:
        node = cluster.start_node("one", wait=False, DRUMBEAT_ADDRESS=str(path))
        until(lambda: "the scheduler refuses this node" in node.said())
        assert node.popen.poll() is None, "it keeps trying"


OTHER_NODE = """
import os, socket, sys
from drumbeat.protocol import dialer
{change}
from drumbeat.node.__main__ import main
read, write = os.pipe()
os.write(write, open(sys.argv[1], "rb").read())
os.close(write)
sys.exit(main(["--cluster-fd", str(read), "--name", "one", "--num-cpus", "1"]))
"""


@pytest.mark.parametrize(
    ("change", "says", "is_taken_later"),
    [
        ("dialer.PROTOCOL_VERSION = 99", "version", False),
        ("", "there is a node named 'one' already, on host", True),
    ],
    ids=["another version", "a name that is taken"],
)
def test_a_node_that_does_not_fit_says_so_within_five_seconds_and_keeps_trying(
    cluster: RemoteCluster, change: str, says: str, is_taken_later: bool
) -> None:
    first = cluster.start_node("one")
    code = OTHER_NODE.format(change=change)
    words = (sys.executable, "-c", code, str(cluster.file("node")))
    node = cluster.start(*words, name="another")
    assert node.until_it_says("the scheduler refuses this node") < SAYS_WITHIN_S
    assert says in node.said()
    cluster.until_nodes("one")
    assert first.said().count("\n") == 1, "the first one has not noticed"
    assert first.end() == 0
    if is_taken_later:
        until(lambda: "connected to the scheduler" in node.said(), 20)
        cluster.until_nodes("one")
    assert node.popen.poll() is None
    assert node.said().count("refuses") == 1, "that is said once"
