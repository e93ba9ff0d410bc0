"""Connections within one machine over Unix sockets, partly with ZeroMQ's library at the far end."""

import errno
import os
import socket
import threading
import time

import pytest
import zmq
from drumbeat.protocol import zmtp
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.ends import BYTES_PER_TURN, FRAMES_PER_TURN_MAX
from drumbeat.protocol.excuses import Stage
from drumbeat.protocol.poller import Poller
from drumbeat.protocol.streams import Stream
from support.stream_bench import (
    DEALER_SAYS,
    MIB,
    SETTINGS,
    Bench,
    ended,
    frame,
    sleeps,
    stands_still,
)
from support.waiting import until as hold_until

pytestmark = pytest.mark.integration


# -------------------------------------------------------- ZeroMQ's own library at the other end


def test_a_dealer_of_zeromqs_talks_with_the_listener(bench: Bench) -> None:
    listening = bench.listen()
    dealer = bench.foreign(zmq.DEALER)
    sent = [b"", b"a", b"b" * 255, b"c" * 256, bytes(65_536), os.urandom(MIB), b"end"]
    for one in sent:
        dealer.send(one)
    bench.until(lambda: len(bench.came) == len(sent))
    assert bench.frames() == sent
    (route,) = {route for route, _ in bench.came}
    for one in sent:
        assert listening.send(route, one)
    got: list[bytes] = []
    while len(got) < len(sent):
        bench.turn()
        if dealer.poll(5):
            got.append(dealer.recv())
    assert got == sent
    assert set(listening.counters.values()) == {0}
    dealer.close()
    bench.until(listening.closed)
    assert not listening.send(route, b"too late")


def test_the_dialler_talks_with_a_router_of_zeromqs(bench: Bench) -> None:
    router = bench.foreign(zmq.ROUTER)
    dialing = bench.dial()
    assert dialing.stage is Stage.CONNECTED
    sent = [b"", b"a", b"b" * 256, os.urandom(MIB), b"end"]
    for one in sent:
        assert dialing.send(one)
    got: list[list[bytes]] = []
    while len(got) < len(sent):
        bench.turn()
        if router.poll(5):
            got.append(router.recv_multipart())
    assert [one for _, one in got] == sent
    for one in sent:
        router.send_multipart([got[0][0], one])
    bench.until(lambda: len(bench.went) == len(sent))
    assert bench.went == sent
    assert dialing.stage is Stage.OPEN
    router.close()
    bench.until(dialing.closing)
    assert dialing.stage is Stage.OPEN


#: whoever is not answered for so long hangs up: longer than a busy machine keeps us waiting
SILENCE_S = 2.0
BEATS = {"HEARTBEAT_IVL": 50, "HEARTBEAT_TIMEOUT": int(SILENCE_S * 1000)}


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.ROUTER], ids=["dealer", "router"])
def test_who_asks_whether_we_are_alive_is_answered_as_long_as_we_are(
    bench: Bench, kind: int
) -> None:
    if kind == zmq.DEALER:
        bench.listen()
        other = bench.foreign(kind, **BEATS)
        monitor = other.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        other.send(b"hello")
        bench.until(lambda: bench.came)
    else:
        other = bench.foreign(kind, **BEATS)
        monitor = other.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        bench.dial().send(b"hello")
        bench.until(lambda: other.poll(0))
    began_s = time.monotonic()
    bench.until(lambda: time.monotonic() - began_s > 1.5 * SILENCE_S)
    assert not monitor.poll(0)
    hold_until(lambda: monitor.poll(0))  # nobody answers any more: so it did ask
    other.disable_monitor()
    monitor.close()


def test_a_message_of_many_parts_is_dropped_and_counted(bench: Bench) -> None:
    listening = bench.listen()
    dealer = bench.foreign(zmq.DEALER)
    dealer.send(b"before")
    dealer.send_multipart([b"many", b"", b"parts"])
    dealer.send(b"after")
    bench.until(lambda: len(bench.came) == 2)
    assert bench.frames() == [b"before", b"after"]
    assert listening.junk_dropped == listening.counters["junk_dropped"] == 1
    assert listening.refusals == 1


def test_names_that_dealers_choose_are_nobodys_routes(bench: Bench) -> None:
    listening = bench.listen()
    dealers = [bench.foreign(zmq.DEALER, ROUTING_ID=b"the same") for _ in range(2)]
    for number, dealer in enumerate(dealers):
        dealer.send(b"%d" % number)
    bench.until(lambda: len(bench.came) == 2)
    routes = {frame: route for route, frame in bench.came}
    for number, dealer in enumerate(dealers):
        assert listening.send(routes[b"%d" % number], b"for %d" % number)
        assert dealer.recv() == b"for %d" % number
    assert not listening.send(b"the same", b"nobody")


def test_a_dealer_that_wants_keys_is_not_let_in(bench: Bench) -> None:
    listening = bench.listen()
    public, secret = zmq.curve_keypair()
    dealer = bench.foreign(
        zmq.DEALER, CURVE_SERVERKEY=public, CURVE_PUBLICKEY=public, CURVE_SECRETKEY=secret
    )
    bench.until(lambda: listening.counters["handshakes_failed"])
    dealer.close()
    subscriber = bench.foreign(zmq.SUB)
    bench.until(lambda: listening.counters["handshakes_failed"] > 1)
    subscriber.close()
    assert not bench.came


# ------------------------------------------------------------------------ whoever stands still


def test_what_is_sent_to_one_that_stands_still_is_kept_and_arrives_in_order(bench: Bench) -> None:
    listening, _, route = bench.open()
    sent = [bytes((number,)) * size for number in range(8) for size in (MIB, 10, 20_000, 0)]
    for one in sent:
        assert listening.send(route, one)
    assert stands_still(bench.pollers[0], lambda: listening.receive(now_s()))
    bench.until(lambda: len(bench.went) == len(sent))
    assert bench.went == sent
    bench.until(lambda: sleeps(bench.pollers[0]))


def test_what_the_dialler_sends_to_one_that_stands_still_arrives_in_order(bench: Bench) -> None:
    _, dialing, _ = bench.open()
    sent = [bytes((number,)) * size for number in range(8) for size in (MIB, 10, 20_000, 0)]
    for one in sent:
        assert dialing.send(one)
    assert stands_still(bench.pollers[1], dialing.receive)
    bench.until(lambda: len(bench.came) == len(sent))
    assert bench.frames() == sent


def test_large_frames_go_both_ways_at_once(bench: Bench) -> None:
    listening, dialing, route = bench.open()
    sent = [os.urandom(MIB) for _ in range(12)]
    for one in sent:
        assert dialing.send(one)
        assert listening.send(route, one)
    bench.until(lambda: len(bench.came) == len(bench.went) == len(sent))
    assert bench.frames() == bench.went == sent


def test_all_goes_on_with_another_poller(bench: Bench) -> None:
    listening, dialing, route = bench.open()
    sent = [bytes((number,)) * MIB for number in range(6)]
    for one in sent:
        assert listening.send(route, one)
        assert dialing.send(one)
    old, new = bench.pollers[0], Poller()
    old.wait(1.0)  # it knows that something has come
    listening.attach(new)
    bench.pollers = new, bench.pollers[1]
    assert sleeps(old)
    assert old.wait(0.0) == []
    bench.until(lambda: len(bench.came) == len(bench.went) == len(sent))
    assert bench.frames() == bench.went == sent
    bench.raw(DEALER_SAYS + frame(b"a newcomer"))
    bench.until(lambda: bench.frames()[-1] == b"a newcomer")


def test_who_asks_and_does_not_read_makes_nobody_keep_answers(bench: Bench) -> None:
    listening = bench.listen()
    raw = bench.raw(DEALER_SAYS)
    raw.settimeout(10.0)
    ping = b"\x04\x07\x04PING\0\0" + b"\x04\x17\x04PING\0\0" + bytes(16)
    asking = threading.Thread(target=raw.sendall, args=(ping * 20_000 + frame(b"end"),))
    asking.start()
    bench.until(lambda: bench.came, 30.0)
    asking.join()
    (stream,) = listening._streams.values()
    assert len(stream.unsent) == 1
    assert len(stream.unsent[0]) < 100
    bench.until(lambda: sleeps(bench.pollers[0]))


def test_who_says_much_keeps_nobody_else_waiting(bench: Bench) -> None:
    listening = bench.listen()
    bench.raw(DEALER_SAYS + frame(b"much") * 2_000)
    bench.until(lambda: listening.connections == 1)
    bench.raw(DEALER_SAYS + frame(b"little"))
    heard: list[bytes] = []
    deadline_s = time.monotonic() + 10.0
    while b"little" not in heard:
        assert time.monotonic() < deadline_s
        bench.pollers[0].wait(1.0)
        some = [one for _, one, _ in listening.receive(now_s())]
        assert len(some) <= FRAMES_PER_TURN_MAX
        heard += some
    assert len(heard) < 2_000
    bench.until(lambda: len(heard) + len(bench.came) == 2_001)


def test_no_more_is_read_in_one_turn_than_is_good_for_others(bench: Bench) -> None:
    listening, dialing, _ = bench.open()
    for _ in range(40):
        dialing.send(bytes(100_000))
    came = 0
    while came < 40:
        bench.pollers[0].wait(1.0)
        some = [one for _, one, _ in listening.receive(now_s())]
        assert sum(map(len, some)) < BYTES_PER_TURN + MIB
        came += len(some)
        dialing.receive()


# ------------------------------------------------------------------- whoever says nothing, or goes


def test_who_says_nothing_is_hung_up_on_after_the_time_for_it(bench: Bench) -> None:
    listening = bench.listen()
    silent, half = bench.raw(), bench.raw(DEALER_SAYS[:70])
    bench.until(lambda: listening.connections == 2)
    at_s = now_s()
    listening.receive(at_s + SETTINGS.handshake_timeout_s / 2)
    assert listening.connections == 2
    good = bench.raw(DEALER_SAYS)
    bench.until(lambda: listening.connections == 3)
    bench.until(lambda: sleeps(bench.pollers[0]))
    listening.receive(at_s + SETTINGS.handshake_timeout_s + 0.1)
    assert listening.connections == 1
    assert listening.counters["handshakes_failed"] == 2
    assert listening.has_news
    assert ended(silent)
    assert ended(half)
    assert not ended(good)
    # Who says what it is, and then nothing, keeps its place for longer, but not for ever.
    listening.receive(at_s + SETTINGS.enter_timeout_s)
    assert listening.connections == 1
    listening.receive(at_s + SETTINGS.enter_timeout_s + 100.0)
    assert listening.connections == 0
    assert listening.counters["ended_unheard"] == 1


@pytest.mark.parametrize("reads", [True, False])
def test_who_goes_is_counted_by_how_far_it_came(bench: Bench, reads: bool) -> None:
    listening = bench.listen()
    for said in (b"", DEALER_SAYS[:5], DEALER_SAYS[:-1]):
        raw = bench.raw(said)
        if reads:
            bench.turn()
            raw.recv(1000)
        raw.close()
    bench.until(lambda: listening.counters["handshakes_failed"] == 3)
    bench.raw(DEALER_SAYS).close()
    bench.until(lambda: listening.counters["ended_unheard"] == 1)
    assert not listening.closed()
    last = bench.raw(DEALER_SAYS + frame(b"a"))
    bench.until(lambda: bench.came)
    last.close()
    bench.until(lambda: listening.has_news)
    assert listening.closed() == [bench.came[0][0]]
    assert not listening.closed()
    assert listening.connections == 0
    assert listening.refusals == 4
    assert sleeps(bench.pollers[0])


def test_what_came_before_a_hang_up_is_delivered_first(bench: Bench) -> None:
    listening = bench.listen()
    sent = [b"%d" % number for number in range(1_000)] + [bytes(100_000), b"end"]
    raw = bench.raw()
    sending = threading.Thread(
        target=lambda: (raw.sendall(DEALER_SAYS + b"".join(map(frame, sent))), raw.close())
    )
    sending.start()
    told: list[bytes] = []
    while not told:
        bench.turn()
        told = listening.closed()
        assert not told or len(bench.came) == len(sent)
    sending.join()
    assert bench.frames() == sent
    assert told == [bench.came[0][0]]


def test_what_came_before_the_listener_went_is_delivered_first(bench: Bench) -> None:
    listening, dialing, route = bench.open()
    sent = [b"%d" % number for number in range(1_000)]
    for one in sent:
        listening.send(route, one)
    dialing.send(b"never read")
    listening.close()
    bench.listening = None
    bench.until(lambda: len(bench.went) == len(sent))
    assert bench.went == sent
    bench.until(lambda: dialing.closing() == "disconnected")
    assert not dialing.closing()
    assert not dialing.send(b"to nobody")
    assert dialing.receive() == []
    assert sleeps(bench.pollers[1])


def test_a_frame_that_is_too_long_closes_its_connection_after_those_before_it(
    bench: Bench,
) -> None:
    listening = bench.listen()
    head = zmtp.head(SETTINGS.frame_bytes_max + 5000)
    first = bench.raw(DEALER_SAYS + head)
    bench.until(lambda: listening.counters["ended_unheard"] == 1)
    second = bench.raw(DEALER_SAYS + frame(b"a") + frame(b"b") + head)
    bench.until(lambda: listening.has_news and listening.closed())
    assert bench.frames() == [b"a", b"b"]
    assert ended(first)
    assert ended(second)


def test_a_connection_on_which_nothing_can_be_written_is_of_no_use_any_more() -> None:
    mine, others = socket.socketpair()
    with others:
        stream = Stream(mine, zmtp.DEALER, SETTINGS)

        def write(data: bytes | memoryview, _flags: int) -> int:
            raise OSError(errno.ENOBUFS, "no memory")

        stream._write = write
        assert not stream.send(b"a")
        assert stream.receive(memoryview(bytearray(100)), 1) == []
        assert stream.ended == "disconnected"
        assert ended(others)
        stream.close()
