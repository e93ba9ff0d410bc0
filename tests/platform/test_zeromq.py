"""What ZeroMQ does and does not do: the transport is built on these facts.

Where one of them fails with a new version of libzmq, something in protocol/sockets.py can be done
in a plainer way, or has to be done in another.
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

pytestmark = pytest.mark.integration


class Bench:
    """A context that keeps its sockets, and closes them."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.sockets: list[Any] = []

    def socket(self, kind: int) -> Any:
        made = self.context.socket(kind)
        self.sockets.append(made)
        return made

    def monitor(self, socket: Any, events: int) -> Any:
        made = socket.get_monitor_socket(events)
        self.sockets.insert(0, made)
        return made

    def close(self) -> None:
        for one in self.sockets:
            one.close(0)
        self.context.term()


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def router(bench: Bench) -> tuple[Any, Any, str]:
    listening = bench.socket(zmq.ROUTER)
    monitor = bench.monitor(listening, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
    listening.bind("tcp://127.0.0.1:0")
    return listening, monitor, listening.getsockopt(zmq.LAST_ENDPOINT).decode()


def dealer(bench: Bench, endpoint: str) -> tuple[Any, Any]:
    dialling = bench.socket(zmq.DEALER)
    dialling.setsockopt(zmq.RECONNECT_IVL, -1)
    monitor = bench.monitor(dialling, zmq.EVENT_ALL)
    dialling.connect(endpoint)
    with contextlib.suppress(zmq.Again):  # nobody is there, and that is known already
        dialling.send(b"hello", zmq.NOBLOCK)
    return dialling, monitor


def events(monitor: Any, timeout_s: float = 2.0, last: int = -1) -> Iterator[Any]:
    """Return what is told; after the last one there is only a short silence to be heard."""
    while monitor.poll(int(timeout_s * 1000)):
        event, value = struct.unpack("=hi", monitor.recv_multipart()[0])
        yield event, value
        timeout_s = 0.3 if event == last else timeout_s


def test_to_unbind_closes_the_connections_that_stand(bench: Bench) -> None:
    # So the door cannot be shut by unbinding: protocol/gate.py asks the kernel.
    listening, _, endpoint = router(bench)
    _, monitor = dealer(bench, endpoint)
    assert listening.recv_multipart()[1] == b"hello"
    listening.unbind(endpoint)
    assert not listening.poll(100)  # it takes the socket's own thread to let them go
    assert zmq.EVENT_DISCONNECTED in (event for event, _ in events(monitor))


def test_a_frame_tells_its_descriptor_and_the_monitor_whose_connection_closed(bench: Bench) -> None:
    # So only the routes on that descriptor are probed.
    listening, monitor, endpoint = router(bench)
    dialling, _ = dealer(bench, endpoint)
    listening.recv()
    frame = listening.recv(copy=False)
    event, descriptor = next(events(monitor))
    assert event == zmq.EVENT_ACCEPTED
    assert frame.get(zmq.SRCFD) == descriptor
    dialling.close(0)
    assert next(events(monitor)) == (zmq.EVENT_DISCONNECTED, descriptor)


def test_a_refused_connection_is_told_without_its_cause_and_not_tried_again(bench: Bench) -> None:
    # So protocol/route.py finds the cause out by itself.
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        _, monitor = dealer(bench, f"tcp://127.0.0.1:{bound.getsockname()[1]}")
        seen = [event for event, _ in events(monitor, 10.0, zmq.EVENT_CLOSED)]
    assert seen[-1] == zmq.EVENT_CLOSED
    assert zmq.EVENT_CONNECTED not in seen
    assert seen.count(zmq.EVENT_CLOSED) == 1


def test_a_name_that_cannot_be_resolved_is_not_told_at_all(bench: Bench) -> None:
    # So an attempt of which nothing is heard ends with the time for a handshake.
    _, monitor = dealer(bench, "tcp://no-such-host.invalid:7788")
    seen = {event for event, _ in events(monitor, 0.5)}
    assert not seen & {zmq.EVENT_CLOSED, zmq.EVENT_CONNECTED, zmq.EVENT_DISCONNECTED}


def test_with_a_domain_enforced_and_nobody_to_ask_no_key_is_admitted(bench: Bench) -> None:
    _, secret = zmq.curve_keypair()
    public = zmq.curve_public(secret)
    for enforced, admitted in ((0, True), (1, False)):
        listening = bench.socket(zmq.ROUTER)
        listening.setsockopt(zmq.CURVE_SERVER, 1)
        listening.setsockopt(zmq.CURVE_SECRETKEY, secret)
        listening.setsockopt(zmq.ZAP_DOMAIN, b"drumbeat")
        listening.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, enforced)
        listening.bind("tcp://127.0.0.1:0")
        stranger = bench.socket(zmq.DEALER)
        own_public, own_secret = zmq.curve_keypair()
        stranger.setsockopt(zmq.CURVE_SERVERKEY, public)
        stranger.setsockopt(zmq.CURVE_PUBLICKEY, own_public)
        stranger.setsockopt(zmq.CURVE_SECRETKEY, own_secret)
        stranger.connect(listening.getsockopt(zmq.LAST_ENDPOINT).decode())
        stranger.send(b"hello")
        assert bool(listening.poll(10_000 if admitted else 500)) is admitted


def test_who_was_let_in_is_told_without_its_descriptor_and_a_frame_too_long_without_a_cause(
    bench: Bench,
) -> None:
    # So protocol/comers.py counts them, and does not know which it was: docs/decisions.md, 45.
    listening = bench.socket(zmq.ROUTER)
    listening.setsockopt(zmq.MAXMSGSIZE, 1000)
    monitor = bench.monitor(listening, zmq.EVENT_ALL)
    listening.bind("tcp://127.0.0.1:0")
    endpoint = listening.getsockopt(zmq.LAST_ENDPOINT).decode()
    ends = []
    for say in (b"x" * 1001, b""):  # too long, or nothing before it goes
        dialling, news = dealer(bench, endpoint)
        while next(events(news))[0] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            pass
        assert listening.recv_multipart()[1] == b"hello"
        if say:
            dialling.send(say)
        else:
            dialling.close(0)
        seen = events(monitor, 10.0, zmq.EVENT_DISCONNECTED)
        told = [one for one in seen if one[0] != zmq.EVENT_LISTENING]
        assert [event for event, _ in told] == [
            zmq.EVENT_ACCEPTED, zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED,
        ]  # fmt: skip
        assert told[1][1] == 0, "no descriptor"
        ends.append(told[2][0])
    assert ends[0] == ends[1], "both look alike"


_MORE, _FRAME_BYTES = 0x01, 200


def _raw_dealer(address: str) -> socket.socket:
    """Return a connection that has introduced itself in ZeroMQ's protocol by hand, without keys."""
    host, port = address.removeprefix("tcp://").rsplit(":", 1)
    made = socket.create_connection((host, int(port)), 5.0)
    made.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    body = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
    made.sendall(b"\x04" + bytes([len(body)]) + body)
    return made


def test_parts_of_a_message_without_an_end_are_kept_and_neither_told_nor_bounded(
    bench: Bench,
) -> None:
    """RCVHWM counts whole messages, MAXMSGSIZE the bytes of one part: see docs/decisions.md, 27."""
    listening = bench.socket(zmq.ROUTER)
    listening.setsockopt(zmq.RCVHWM, 2)
    listening.setsockopt(zmq.MAXMSGSIZE, 2 * _FRAME_BYTES)
    listening.bind("tcp://127.0.0.1:0")
    part = bytes([_MORE, _FRAME_BYTES]) + bytes(_FRAME_BYTES)
    last = bytes([0, 1]) + b"x"
    count = 100_000
    with _raw_dealer(listening.getsockopt_string(zmq.LAST_ENDPOINT)) as guilty:
        # All of it is taken in, many times what two messages, or the sockets' buffers, could hold.
        guilty.settimeout(10.0)
        guilty.sendall(part * count)
        assert listening.poll(300) == 0
        guilty.sendall(last)
        assert listening.poll(5000) == zmq.POLLIN
        assert len(listening.recv_multipart()) == 1 + count + 1
