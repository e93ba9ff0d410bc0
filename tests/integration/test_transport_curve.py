"""Over the network nobody comes in without a key, and no key is good for more than its role."""

import os
import random
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from drumbeat.protocol import sockets
from drumbeat.protocol.carriage import carriage_of
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.codec import encode
from drumbeat.protocol.dialer import Down, Refused, Unreachable, Up
from drumbeat.protocol.door import ADMITTED, Answer
from drumbeat.protocol.errors import ConfigError
from drumbeat.protocol.frames import Ack, Batch, Hello, Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.keys import Credentials
from drumbeat.protocol.listener import Disconnected, Joined, Returned
from drumbeat.protocol.messages import Answer as Reply
from drumbeat.protocol.messages import Query
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.sockets import new_keys, public_key
from drumbeat.protocol.traffic import Blob, Message, Reached
from drumbeat.protocol.transport import DialShell, ListenShell
from msgspec import Raw
from support.pair import EPOCH, A, B, Keys, Pair
from support.ports import own_port
from support.relay import Relay
from support.stalls import Watch

pytestmark = pytest.mark.integration

ANY_PORT = "tcp://127.0.0.1:0"


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair(ANY_PORT)
    yield made
    made.close()


def keys_of(pair: Pair) -> Keys:
    assert pair.keys is not None
    return pair.keys


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


def raw_connection(pair: Pair) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(pair.endpoint)), 5.0)


# --------------------------------------------------------------------------- who may come, as what


@pytest.mark.parametrize(
    ("role", "said"),
    [(Role.CLIENT, Role.CLIENT), (Role.NODE, Role.NODE), (Role.ADMIN, Role.CLIENT)],
)
def test_a_key_proves_a_role_and_messages_go_both_ways(pair: Pair, role: str, said: str) -> None:
    listener = pair.listen()
    shell = pair.connect(role=role)
    (joined,) = pair.came(Joined)
    assert (joined.proven, joined.hello.role) == (role, said)
    if said == Role.CLIENT:
        shell.send(Query(7, "status"))
        shell.send_blob(b"k" * 16, b"x" * 3_000_000)
        pair.until(lambda: pair.came(Message) and pair.came(Blob))
        assert listener.send(A, Reply(7, b"fine"))
        pair.until(lambda: pair.went(Message))
    assert sum(listener.counters.values()) == 0


def test_a_foreign_key_is_refused_and_the_peer_is_told_at_once(pair: Pair) -> None:
    listener = pair.listen()
    pair.dial(A, credentials=keys_of(pair).foreign())
    watch = Watch()
    pair.until(lambda: pair.went(Unreachable))
    assert watch.own_s() < 1.0
    (told,) = pair.went(Unreachable)
    assert told.error == "KeyRefused"
    assert "does not admit this key" in told.reason
    assert listener.counters["keys_refused"] == 1
    assert not pair.came(Joined)


def test_the_key_of_a_role_that_was_taken_off_the_list_is_refused(pair: Pair) -> None:
    keys = keys_of(pair)
    door = keys.door
    reduced = {key: role for key, role in door.roles.items() if role != Role.NODE}
    listener = ListenShell(ANY_PORT, pair.settings, EPOCH, door._replace(roles=reduced))
    pair.listener = listener
    listener.attach(pair.poller)
    pair.dial(A, listener.endpoint, Role.NODE)
    pair.until(lambda: pair.went(Unreachable))
    assert pair.went(Unreachable)[0].error == "KeyRefused"


def test_a_scheduler_with_another_key_is_not_taken_for_ours(pair: Pair) -> None:
    listener = pair.listen()
    secret = keys_of(pair).of(Role.CLIENT).secret_key
    pair.dial(A, credentials=Credentials(new_keys()[0], secret))
    pair.until(lambda: pair.went(Unreachable))
    (told,) = pair.went(Unreachable)
    assert told.error == "SchedulerUnreachable"
    assert "is not this cluster's scheduler" in told.reason
    assert listener.counters["handshakes_failed"] > 0


@pytest.mark.parametrize(("key", "said"), [(Role.NODE, Role.CLIENT), (Role.CLIENT, Role.NODE)])
def test_the_key_of_one_role_does_not_serve_for_another(pair: Pair, key: str, said: str) -> None:
    listener = pair.listen()
    pair.dial(A, role=said, credentials=keys_of(pair).of(key))
    pair.until(lambda: pair.went(Refused))
    (refused,) = pair.went(Refused)
    assert refused.error == "KeyRefused"
    assert f"comes as a {said} with the key of a {key}" in refused.reason
    assert not pair.came(Joined)
    assert listener.counters["hellos_refused"] == 1


def test_there_is_no_plain_tcp() -> None:
    keys = Keys()
    with pytest.raises(ConfigError, match="needs keys"):
        ListenShell(ANY_PORT, Settings(), EPOCH)
    with pytest.raises(ConfigError, match="needs keys"):
        Pair("ipc:///nowhere").dial(endpoint="tcp://lab1:7788")
    with pytest.raises(ConfigError, match="keys have no use"):
        ListenShell("ipc:///tmp/s", Settings(), EPOCH, keys.door)


def test_who_listens_where_somebody_else_does_is_told(pair: Pair) -> None:
    pair.listen()
    with pytest.raises(ConfigError, match=r"cannot listen at tcp://127\.0.*: Address already"):
        ListenShell(pair.endpoint, Settings(), EPOCH, keys_of(pair).door)


@pytest.mark.parametrize("host", ["nowhere.invalid", "nowhere"])
def test_who_listens_at_a_name_that_is_none_of_this_machine_is_told(host: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen at tcp://{host}:7: no address of this"):
        ListenShell(f"tcp://{host}:7", Settings(), EPOCH, Keys().door)


def test_a_door_that_admits_everybody_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def admit(question: list[bytes], roles: Any, *, full: bool) -> Answer:
        return Answer(ADMITTED, [b"1.0", question[1], b"200", b"", b"client", b""])

    monkeypatch.setattr(sockets.rule, "decide", admit)
    with pytest.raises(ConfigError, match="a foreign key was to be refused, and was not"):
        ListenShell(ANY_PORT, Settings(), EPOCH, Keys().door)


@pytest.mark.parametrize("endpoint", ["tcp://*:0", "tcp://0.0.0.0:0", "tcp://[::]:0"])
def test_a_scheduler_listens_on_all_interfaces(endpoint: str) -> None:
    pair = Pair(endpoint)
    try:
        pair.listen()
        assert pair.connect(A, f"tcp://127.0.0.1:{port_of(pair.endpoint)}").up
        assert pair.connect(B, f"tcp://localhost:{port_of(pair.endpoint)}").up
    finally:
        pair.close()


def test_a_scheduler_listens_at_one_ipv6_address() -> None:
    pair = Pair("tcp://[::1]:0")
    try:
        pair.listen()
        assert pair.connect(A).up
    finally:
        pair.close()


# ----------------------------------------------------------------------------------- ways to fail


def test_a_name_of_several_addresses_is_tried_at_each(pair: Pair) -> None:
    # "localhost" is ::1 as well on most machines, where nobody listens.
    pair.listen()
    assert pair.connect(A, f"tcp://localhost:{port_of(pair.endpoint)}").up


def test_one_who_comes_too_early_says_so_and_is_connected_when_the_scheduler_is_there() -> None:
    port = own_port()
    pair = Pair(f"tcp://127.0.0.1:{port}")
    try:
        shell = pair.dial()
        pair.until(lambda: pair.went(Unreachable))
        assert "connection refused" in pair.went(Unreachable)[0].reason
        assert f"127.0.0.1:{port}" in pair.went(Unreachable)[0].reason
        pair.turn_for(0.5)
        assert len(pair.went(Unreachable)) == 1
        pair.listen()
        pair.until(lambda: shell.up)
    finally:
        pair.close()


def test_another_program_on_the_port_is_told_from_the_scheduler() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        pair = Pair(f"tcp://127.0.0.1:{other.getsockname()[1]}", Settings(handshake_timeout_s=0.3))
        try:
            pair.dial()
            pair.until(lambda: pair.went(Unreachable))
            assert "does not answer" in pair.went(Unreachable)[0].reason
        finally:
            pair.close()


def test_a_link_goes_on_after_its_connection_was_cut(pair: Pair) -> None:
    listener = pair.listen()
    with Relay(("127.0.0.1", 0), ("127.0.0.1", port_of(pair.endpoint))) as relay:
        shell = pair.connect(A, f"tcp://127.0.0.1:{relay.port}")
        relay.cut()
        pair.until(lambda: pair.went(Down) and pair.came(Disconnected))
        shell.send(Query(1, "status"))
        listener.send(A, Reply(1, b""))
        pair.until(lambda: pair.came(Message) and pair.went(Message))
        assert len(pair.came(Returned)) == len(pair.went(Up)) - 1 == 1
        assert len(pair.came(Joined)) == 1


# ------------------------------------------------------------------------------------ mad strangers


def test_what_speaks_no_zeromq_is_dropped_and_counted(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    for said in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(4096), b"\xff" + os.urandom(300), b""):
        with raw_connection(pair) as raw:
            raw.sendall(said)
            pair.turn_for(0.05)
    pair.until(lambda: listener.counters["handshakes_failed"] == 4)
    assert shell.up


def test_a_peer_without_a_key_is_dropped_and_counted(pair: Pair) -> None:
    listener = pair.listen()
    with zmq.Context() as context, context.socket(zmq.DEALER) as plain:
        plain.setsockopt(zmq.LINGER, 0)
        plain.connect(pair.endpoint)
        plain.send(encode(Hello(1, Role.CLIENT, A, 0, 0, 0, "3.11", "plain")))
        pair.until(lambda: listener.counters["handshakes_failed"] >= 1)
        assert not plain.poll(100)
    assert not pair.came(Joined)


def keyed(
    context: "zmq.Context[Any]", pair: Pair, role: str = Role.CLIENT, name: bytes = b""
) -> "zmq.Socket[bytes]":
    dealer = context.socket(zmq.DEALER)
    if name:
        dealer.setsockopt(zmq.ROUTING_ID, name)
    dealer.setsockopt(zmq.LINGER, 0)
    credentials = keys_of(pair).of(role)
    dealer.setsockopt(zmq.CURVE_SERVERKEY, credentials.server_key)
    dealer.setsockopt(zmq.CURVE_SECRETKEY, credentials.secret_key)
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, public_key(credentials.secret_key))
    dealer.connect(pair.endpoint)
    return dealer


def test_frames_of_a_valid_key_that_are_too_long_or_make_no_sense_harm_nobody(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    with zmq.Context() as context, keyed(context, pair) as stranger:
        stranger.send(encode(Ack(1)))
        stranger.send(os.urandom(100))
        stranger.send_multipart([b"x"] * 5)
        stranger.send(encode(Hello(1, Role.NODE, B, 0, 0, 0, "3.11", "no node")))
        pair.until(lambda: listener.counters["hellos_refused"] == 1)
        stranger.send(bytes(2 << 20))
        stranger.send(encode(Ack(1)))
        shell.send(Query(1, "status"))
        pair.until(lambda: pair.came(Message))
    counters = listener.counters
    assert counters["junk_dropped"] == 1
    assert counters["frames_refused"] == 1
    assert counters["strangers_reset"] >= 1
    assert [joined.peer for joined in pair.came(Joined)] == [A]


def test_a_frame_that_is_too_long_is_no_handshake_that_failed(pair: Pair) -> None:
    listener = pair.listen()
    pair.connect()
    before = listener.refusals
    with zmq.Context() as context:
        for count in range(1, 4):
            with keyed(context, pair) as stranger:
                stranger.send(bytes(2 << 20))
                pair.until(lambda want=count: listener.counters["ended_unheard"] == want)  # type: ignore[misc]  # a plain number
    with raw_connection(pair):
        pass
    pair.until(lambda: listener.counters["handshakes_failed"] == 1)
    assert listener.counters["ended_unheard"] == 3
    assert listener.refusals > before


def test_a_routing_id_of_ones_own_choice_gives_nobody_anothers_place(pair: Pair) -> None:
    pair.listen()
    pair.connect()
    with (
        zmq.Context() as context,
        keyed(context, pair, Role.NODE, b"mine") as first,
        keyed(context, pair, Role.NODE, b"mine") as second,
    ):
        for stranger in (first, second):
            stranger.send(encode(Hello(1, Role.CLIENT, B, 0, 0, 0, "3.11", "no client")))
        pair.turn_for(0.3)
    assert [joined.peer for joined in pair.came(Joined)] == [A]


def test_the_routing_id_of_one_that_has_gone_does_not_lend_its_role(pair: Pair) -> None:
    pair.listen()
    with zmq.Context() as context:
        with keyed(context, pair, Role.CLIENT, b"mine") as first:
            first.send(encode(Hello(1, Role.CLIENT, A, 0, 0, 0, "3.11", "first")))
            pair.until(lambda: pair.came(Joined))
        # The loop turns no sooner than all of this has come.
        time.sleep(0.2)
        with keyed(context, pair, Role.NODE, b"mine") as second:
            second.send(encode(Batch(1, 0, [Raw(encode(Query(7, "status")))])))
            time.sleep(0.2)
            pair.turn_for(0.3)
    assert not pair.came(Message)
    assert pair.came(Disconnected)


def test_two_thousand_half_open_connections_keep_nobody_out_and_go_away(pair: Pair) -> None:
    listener = pair.listen()
    shell = pair.connect()
    held: list[socket.socket] = []
    try:
        for number in range(2_000):
            held.append(raw_connection(pair))
            if number % 50 == 0:
                pair.turn()
        shell.send(Query(1, "status"))
        pair.until(lambda: pair.came(Message))
        assert pair.connect(B).up
        pair.until(lambda: listener.counters["handshakes_failed"] == 2_000, 15.0)
        assert listener.connections == 4  # control and bulk of the two
    finally:
        for raw in held:
            raw.close()
    assert shell.up
    assert not pair.went(Down)


def test_above_its_limit_the_scheduler_lets_nobody_in_until_somebody_has_gone() -> None:
    pair = Pair(ANY_PORT, Settings(connections_max=8, handshake_timeout_s=1.0))
    held: list[socket.socket] = []
    try:
        listener = pair.listen()
        shell = pair.connect()
        pair.until(lambda: listener.connections == 2)
        for _ in range(6):
            held.append(raw_connection(pair))
            pair.turn_for(0.02)
        assert listener.counters["door_shut"] == 1
        with pytest.raises(TimeoutError):
            socket.create_connection(("127.0.0.1", port_of(pair.endpoint)), 0.2)
        shell.send(Query(1, "status"))
        pair.until(lambda: pair.came(Message))
        # Who says nothing is gone after the time for a handshake, and the next one comes in.
        assert pair.connect(B).up
        assert not pair.went(Down)
    finally:
        for raw in held:
            raw.close()
        pair.close()


def test_who_came_in_when_the_limit_was_reached_is_told_that_it_is_full() -> None:
    pair = Pair(ANY_PORT, Settings(connections_max=2))
    try:
        listener = pair.listen()
        shells = [pair.dial(PeerId(b"peer-%d" % number)) for number in range(4)]
        pair.turn_for(1.5)
        # One may have come in while another was being counted.
        assert sum(shell.up for shell in shells) <= 3
        assert listener.counters["door_shut"] > 0
        assert listener.connections <= 4
    finally:
        pair.close()


def test_fifteen_hundred_junk_connections_leave_memory_and_descriptors_as_they_were(
    pair: Pair,
) -> None:
    listener = pair.listen()
    shell = pair.connect()
    pair.until(lambda: listener.connections == 2)  # control and bulk
    files = len(os.listdir("/proc/self/fd"))
    for number in range(1_500):
        with raw_connection(pair) as raw:
            raw.sendall(os.urandom(64) if number % 2 else b"\xff" + bytes(8) + b"\x7f\x03")
        if number % 20 == 0:
            pair.turn()
    pair.until(lambda: listener.counters["handshakes_failed"] == 1_500, 15.0)
    shell.send(Query(1, "status"))
    pair.until(lambda: pair.came(Message))
    pair.until(lambda: len(os.listdir("/proc/self/fd")) <= files)
    assert not pair.went(Down)


def test_a_loop_that_stands_still_for_a_second_closes_nobodys_connection(pair: Pair) -> None:
    pair.listen()
    pair.connect()
    end_s = now_s() + 1.5
    time.sleep(1.5)
    assert now_s() >= end_s
    pair.turn_for(0.2)
    assert not pair.went(Down)
    assert not pair.came(Disconnected)


def test_shells_are_closed_without_waiting_for_anybody() -> None:
    pair = Pair(ANY_PORT)
    pair.listen()
    pair.connect()
    shell: DialShell = pair.dial(B, "tcp://nobody.invalid:7788")
    pair.turn_for(0.1)
    watch = Watch()
    shell.close()
    pair.dialers.pop(B)
    pair.close()
    assert watch.own_s() < 5.0


def test_who_says_what_became_of_a_payload_acknowledges_all_else_at_once() -> None:
    """A result counts once its submitter has it: an acknowledgement that is late holds it up."""
    pair = Pair(ANY_PORT, Settings(ack_delay_s=60.0, resend_after_s=60.0))
    listener = pair.listen()
    credentials = keys_of(pair).of(Role.CLIENT)
    carriage = carriage_of(pair.settings, A, credentials, listens=False)
    shell = DialShell(
        pair.endpoint, Role.CLIENT, A, "me", pair.settings, random.Random(1), credentials,
        carriage=carriage,
    )  # fmt: skip
    shell.attach(pair.poller)
    pair.dialers[A], pair.said[A] = shell, []
    pair.until(lambda: shell.up and pair.came(Joined))
    assert listener.send(A, Reply(7, b"fine"))
    listener.mark(A, 1)
    pair.until(lambda: pair.went(Message))
    shell.send_blob(b"k" * 16, b"x")
    pair.until(lambda: pair.came(Reached))
    pair.close()
