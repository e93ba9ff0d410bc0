"""The networks of these tests are what they claim to be, seen with plain sockets."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from network.hosts import NAMED, Host, Network, call, sweep
from network.links import Links
from support.waiting import until

pytestmark = pytest.mark.integration

TESTS = str(Path(__file__).parents[1])

#: says back every datagram and every stream; writes "ready" first
ECHO = """
import socket, threading
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("", 4000))
tcp = socket.create_server(("", 4000))
def streams():
    while True:
        stream = tcp.accept()[0]
        total = 0
        while data := stream.recv(65536):
            total += len(data)
        stream.sendall(b"%d" % total)
        stream.close()
threading.Thread(target=streams, daemon=True).start()
print("ready", flush=True)
while True:
    data, sender = udp.recvfrom(100)
    udp.sendto(data, sender)
"""
#: sends datagrams until a time has passed; prints how many came back
ASK = """
import socket, sys, time
address, count = sys.argv[1], int(sys.argv[2])
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.settimeout(0.05)
back = 0
for number in range(count):
    udp.sendto(b"%d" % number, (address, 4000))
    try:
        udp.recv(100)
        back += 1
    except TimeoutError:
        pass
print(back)
"""
#: sends so many bytes over TCP; prints how long it took until all had arrived
STREAM = """
import socket, sys, time
begun = time.monotonic()
stream = socket.create_connection((sys.argv[1], 4000), timeout=20)
stream.sendall(bytes(int(sys.argv[2])))
stream.shutdown(socket.SHUT_WR)
assert int(stream.recv(100)) == int(sys.argv[2])
print(time.monotonic() - begun)
"""


@contextmanager
def echo(host: Host) -> Iterator[None]:
    words = host.command(sys.executable, "-c", ECHO)
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        process.kill()


def run_on(host: Host, program: str, *words: object) -> float:
    return float(host.call(sys.executable, "-c", program, *map(str, words)))


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network(["one", "two", "three"]) as made, echo(made["one"]):
        yield made


@pytest.fixture(scope="module")
def all_links(network: Network) -> Links:
    return Links(network)


@pytest.fixture
def links(all_links: Links) -> Iterator[Links]:
    yield all_links
    all_links.heal()


def test_hosts_hear_each_other_and_this_machine_is_another_one(
    network: Network, links: Links
) -> None:
    one, two = network["one"], network["two"]
    assert run_on(two, ASK, one.address, 20) == 20
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.settimeout(0.1)
        with contextlib.suppress(OSError):  # perhaps there is no way to any such address
            outside.sendto(b"?", (one.address, 4000))
        with pytest.raises(TimeoutError):
            outside.recv(10)


@pytest.mark.parametrize("way", ["both", "there", "back"])
def test_a_cut_link_is_silent_and_all_others_are_not(
    network: Network, links: Links, way: str
) -> None:
    one, two, three = network.hosts
    before = links.dropped(one), links.dropped(two)
    if way == "both":
        links.cut(one, two)
    else:
        links.cut_one_way(*((two, one) if way == "there" else (one, two)))
    assert run_on(two, ASK, one.address, 3) == 0
    assert run_on(three, ASK, one.address, 3) == 3
    dropped = links.dropped(one) - before[0], links.dropped(two) - before[1]
    assert dropped == ((0, 3) if way == "back" else (3, 0))
    links.heal()
    assert run_on(two, ASK, one.address, 3) == 3


def test_an_isolated_host_hears_itself_alone(network: Network, links: Links) -> None:
    one, two, _ = network.hosts
    links.isolate(one)
    assert run_on(two, ASK, one.address, 2) == 0
    assert run_on(one, ASK, one.address, 2) == 2
    assert run_on(one, ASK, "127.0.0.1", 2) == 2


def test_a_stream_survives_a_cut_and_goes_on(network: Network, links: Links) -> None:
    one, two, _ = network.hosts
    links.slow(two)
    words = two.command(sys.executable, "-c", STREAM, one.address, "200000")
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        until(lambda: _sends(two))
        links.cut(one, two)
        time.sleep(0.5)
        assert process.poll() is None
        links.heal()
        assert process.wait(20) == 0


def _sends(host: Host) -> bool:
    return host.address in host.call("ss", "-Htn", "state", "established")


def test_a_slow_link_is_slow_and_a_lossy_one_loses(network: Network, links: Links) -> None:
    one, two, _ = network.hosts
    assert run_on(two, STREAM, one.address, 100_000) < 0.5
    links.slow(two)
    assert 0.5 < run_on(two, STREAM, one.address, 100_000) < 3.0
    links.heal()
    links.lose(30)
    # Lost on either way: about half come back; the odds against these bounds are beyond reckoning.
    assert 4 <= run_on(two, ASK, one.address, 60) <= 56
    assert run_on(one, ASK, "127.0.0.1", 20) == 20
    links.heal()
    assert run_on(two, ASK, one.address, 20) == 20


def test_what_a_killed_run_leaves_is_swept_and_what_a_living_one_has_is_not(
    network: Network,
) -> None:
    program = (
        "import subprocess, sys; from network.hosts import Network; n = Network(['only']);"
        "subprocess.Popen(n['only'].command('sleep', '1000'));"
        "print(*n.namespaces(), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, cwd=TESTS, text=True) as run:
        assert run.stdout is not None
        names = run.stdout.readline().split()
        assert len(names) == 2
        until(lambda: sleepers(names))
        assert not set(sweep()) & set(names)
        assert sleepers(names)
        left = sleepers(names)
        run.send_signal(signal.SIGKILL)
    assert set(sweep()) >= set(names)
    assert not any((NAMED / name).exists() for name in names)
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in left))
    assert all((NAMED / name).exists() for name in network.namespaces())


def sleepers(names: list[str]) -> list[int]:
    return [int(pid) for name in names for pid in call("ip", "netns", "pids", name).split()]
