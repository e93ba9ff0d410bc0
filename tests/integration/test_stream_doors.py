"""Unix sockets that are dialled in vain, listeners that are full, and what is left at the end."""

import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.excuses import Stage
from drumbeat.protocol.poller import Poller
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.stream_ends import StreamDialing
from support.stalls import Watch
from support.stream_bench import (
    DEALER_SAYS,
    MIB,
    ROUTER_SAYS,
    SETTINGS,
    Bench,
    frame,
    sleeps,
)

pytestmark = pytest.mark.integration


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ------------------------------------------------------------------------------ whoever dials


def test_a_dialler_is_told_at_once_that_nobody_listens(bench: Bench) -> None:
    for said in ("No such file", "refused"):
        dialing = StreamDialing(bench.endpoint, SETTINGS, bench.pollers[1])
        assert dialing.ready
        assert bench.pollers[1].wait(5.0) == []
        assert not bench.pollers[1].slept, "there is something to be told"
        assert not dialing.send(b"a")
        assert dialing.receive() == []
        assert said in dialing.closing()
        assert not dialing.closing()
        assert dialing.stage is Stage.BEGUN
        assert sleeps(bench.pollers[1])
        dialing.close()
        with socket.socket(socket.AF_UNIX) as dead:
            Path(bench.path).unlink(missing_ok=True)
            dead.bind(bench.path)


def test_a_dialler_does_not_wait_for_a_listener_that_lets_nobody_in(bench: Bench) -> None:
    bench.raw_listener(0)
    dialing: list[StreamDialing] = []
    watch = Watch()
    while not dialing or not dialing[-1].closing():
        assert len(dialing) < 10
        dialing.append(StreamDialing(bench.endpoint, SETTINGS, bench.pollers[1]))
    assert watch.own_s() < 2.0
    for one in dialing:
        one.close()


def test_frames_wait_until_the_other_end_has_said_what_it_is(bench: Bench) -> None:
    listener = bench.raw_listener()
    dialing = bench.dial()
    assert dialing.send(b"first")
    assert dialing.send(b"second")
    other, _ = listener.accept()
    with other:
        other.setblocking(False)
        other.sendall(ROUTER_SAYS[:-1])
        bench.until(lambda: sleeps(bench.pollers[1]))
        assert other.recv(1000) == DEALER_SAYS
        other.sendall(ROUTER_SAYS[-1:])
        bench.until(lambda: dialing.stage is Stage.OPEN)
        assert dialing.send(b"third")
        assert other.recv(1000) == frame(b"first") + frame(b"second") + frame(b"third")


@pytest.mark.parametrize(
    ("said", "stage", "word"),
    [
        (b"", Stage.HUNG_UP, "disconnected"),
        (ROUTER_SAYS[:20], Stage.HUNG_UP, "disconnected"),
        (b"HTTP/1.1 400 Bad Request", Stage.STRANGER, "does not speak"),
        (DEALER_SAYS, Stage.STRANGER, "DEALER"),
        (ROUTER_SAYS, Stage.OPEN, "disconnected"),
    ],
)
@pytest.mark.parametrize("reads", [True, False])
def test_a_dialler_knows_how_far_it_came(
    bench: Bench, said: bytes, stage: Stage, word: str, reads: bool
) -> None:
    listener = bench.raw_listener()
    dialing = bench.dial()
    other, _ = listener.accept()
    with other:
        if reads:
            assert other.recv(1000) == DEALER_SAYS
        other.sendall(said)
    ends: list[str] = []
    bench.until(lambda: (dialing.ready and ends.append(dialing.closing())) or any(ends))
    assert word in ends[-1]
    assert dialing.stage is stage


# ----------------------------------------------------------------------------- no room for more


def test_without_descriptors_there_is_no_socket_to_dial_with(bench: Bench) -> None:
    bench.listen()
    with no_descriptors():
        assert StreamDialing.try_to(bench.endpoint, SETTINGS, bench.pollers[1]) is None
    assert sleeps(bench.pollers[1])
    made = StreamDialing.try_to(bench.endpoint, SETTINGS, bench.pollers[1])
    assert made is not None
    made.close()


def test_without_descriptors_the_listener_goes_on_and_lets_in_who_waits_once_there_are_some(
    bench: Bench,
) -> None:
    listening, dialing, route = bench.open()
    waiting = socket.socket(socket.AF_UNIX)
    bench.raws.append(waiting)
    with no_descriptors():
        waiting.connect(bench.path)
        waiting.sendall(DEALER_SAYS + frame(b"late"))
        bench.until(lambda: listening.counters["door_shut"])
        assert listening.has_news
        bench.until(lambda: sleeps(bench.pollers[0]))
        for _ in range(10):
            bench.turn()
        assert listening.counters["door_shut"] == 1
        dialing.send(b"still here")
        bench.until(lambda: bench.came)
        assert bench.came == [(route, b"still here")]
        assert listening.connections == 1
    bench.until(lambda: b"late" in bench.frames())
    assert listening.connections == 2
    bench.raw(DEALER_SAYS + frame(b"later"))
    bench.until(lambda: b"later" in bench.frames())


def test_no_more_are_let_in_than_may_be_and_who_waits_comes_when_somebody_has_gone(
    bench: Bench,
) -> None:
    listening = bench.listen(Settings(connections_max=4))
    inside = [bench.raw(DEALER_SAYS + frame(b"a")) for _ in range(4)]
    bench.until(lambda: len(bench.came) == 4)
    bench.raw(DEALER_SAYS + frame(b"b"))
    bench.raw(DEALER_SAYS + frame(b"c"))
    bench.until(lambda: listening.counters["door_shut"] == 1)
    for _ in range(20):
        bench.turn()
    assert (listening.connections, len(bench.came)) == (4, 4)
    assert sleeps(bench.pollers[0])
    inside[0].close()
    bench.until(lambda: bench.frames()[4:] == [b"b"])
    inside[1].close()
    bench.until(lambda: bench.frames()[4:] == [b"b", b"c"])
    assert listening.connections == 4
    for one in inside[2:]:
        one.close()
    bench.until(lambda: listening.connections == 2)
    bench.raw(DEALER_SAYS + frame(b"d"))
    bench.until(lambda: bench.frames()[6:] == [b"d"])


def test_a_door_that_is_shut_is_closed_and_attached_as_any(bench: Bench) -> None:
    listening = bench.listen(Settings(connections_max=1))
    first = bench.raw(DEALER_SAYS + frame(b"a"))
    bench.raw(DEALER_SAYS + frame(b"b"))
    bench.until(lambda: listening.counters["door_shut"] == 1)
    new = Poller()
    listening.attach(new)
    bench.pollers = new, bench.pollers[1]
    first.close()
    bench.until(lambda: bench.frames() == [b"a", b"b"])
    bench.raw(DEALER_SAYS + frame(b"c"))
    for _ in range(20):
        bench.turn()
    assert listening.counters["door_shut"] == 1, "it was never open meanwhile"
    assert listening.connections == 1


# -------------------------------------------------------------------------- the end, and the file


def test_what_was_not_sent_is_sent_before_the_end_for_as_long_as_that_may_take(
    bench: Bench,
) -> None:
    listening, dialing, route = bench.open()
    sent = [bytes((number,)) * MIB for number in range(8)]
    for one in sent:
        listening.send(route, one)
        dialing.send(one)

    def read() -> None:
        while not dialing.closing():
            bench.pollers[1].wait(0.05)
            bench.went.extend(dialing.receive())

    reading = threading.Thread(target=read)
    reading.start()
    listening.close(20.0)
    bench.listening = None
    reading.join(20.0)
    assert bench.went == sent


def test_nobody_waits_longer_than_that_nor_for_one_that_has_gone(bench: Bench) -> None:
    listening, dialing, route = bench.open()
    for _ in range(8):
        dialing.send(bytes(MIB))
        listening.send(route, bytes(MIB))
    began_s = time.monotonic()
    dialing.close(0.05)
    bench.dialing = None
    assert 0.05 <= time.monotonic() - began_s < 5.0
    listening.close(30.0)
    bench.listening = None
    assert time.monotonic() - began_s < 10.0


def test_the_file_goes_with_its_listener(bench: Bench) -> None:
    listening = bench.listen()
    assert Path(bench.path).is_socket()
    listening.close()
    bench.listening = None
    assert not Path(bench.path).exists()


def test_a_file_that_is_anothers_by_then_stays(bench: Bench) -> None:
    first = bench.listen()
    bench.listen()
    first.close()
    assert Path(bench.path).is_socket()
    bench.raw(DEALER_SAYS + frame(b"a"))
    bench.until(lambda: bench.came)


def test_a_file_that_has_gone_is_missed_by_nobody(bench: Bench) -> None:
    listening = bench.listen()
    Path(bench.path).unlink()
    listening.close()
    bench.listening = None


def test_a_listener_takes_the_place_of_one_that_died(bench: Bench) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(bench.path)
    assert Path(bench.path).is_socket()
    _, dialing, _ = bench.open()
    assert dialing.stage is Stage.OPEN


def test_where_nobody_can_listen_that_is_said_in_words(bench: Bench) -> None:
    Path(bench.path).mkdir()
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(ConfigError, match=f"cannot listen at {bench.endpoint}"):
        bench.listen()
    assert len(os.listdir("/dev/fd")) == before


def test_at_the_end_no_descriptor_is_left(bench: Bench) -> None:
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        listening, dialing, _ = bench.open()
        bench.raw()
        bench.until(lambda: listening.connections == 2)  # noqa: B023  # of this round
        dialing.close()
        listening.close()
        bench.raws.pop().close()
        bench.listening = bench.dialing = None
    assert len(os.listdir("/dev/fd")) == before
