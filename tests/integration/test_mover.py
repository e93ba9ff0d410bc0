"""Large payloads move between processes that are reached over the network, by their own sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from zlib import crc32

import pytest
import zmq
from drumbeat.protocol import checksums
from drumbeat.protocol.codec import encode
from drumbeat.protocol.keys import Credentials
from drumbeat.protocol.mover import Mover
from drumbeat.protocol.moves import DATA_PROTOCOL_VERSION, Ask, Greet
from drumbeat.protocol.moving_words import Moved, NotMoved, Source
from drumbeat.protocol.payload_files import MARK, file_of
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.sockets import new_keys
from support.waiting import until
from zmq.utils import z85

KEY, OTHER = b"k" * 14, b"o" * 14
SERVER = bytes(32)


class House:
    """Movers that know one another's keys."""

    def __init__(self) -> None:
        self.public, self.secret = new_keys()
        self.movers: list[Mover] = []

    def mover(
        self, name: bytes, *, listens: bool = True, settings: Settings | None = None
    ) -> Mover:
        """Return a new one."""
        listen = "tcp://127.0.0.1:0" if listens else None
        credentials = Credentials(SERVER, self.secret)
        mover = Mover(settings or Settings(), name, credentials, listen, lambda: None)
        mover.admit([self.public])
        self.movers.append(mover)
        return mover

    def close(self) -> None:
        for mover in self.movers:
            mover.close()


@pytest.fixture
def house() -> Iterator[House]:
    house = House()
    yield house
    house.close()


def dealer(context: "zmq.Context[zmq.Socket[bytes]]", to: Mover, house: House) -> Any:
    """Return a socket of somebody who is let in, and whom no Mover stands behind."""
    found = context.socket(zmq.DEALER)
    found.linger = 0
    found.curve_secretkey, found.curve_publickey = map(z85.encode, (house.secret, house.public))
    found.curve_serverkey = z85.encode(to.public_key)
    found.connect(to.endpoint)
    return found


def at(mover: Mover, name: bytes) -> Source:
    return Source(name, mover.endpoint, mover.public_key)


def told(mover: Mover, count: int = 1) -> list[Moved | NotMoved]:
    happened: list[Moved | NotMoved] = []

    def is_told() -> bool:
        happened.extend(mover.happened())
        return len(happened) >= count

    until(is_told)
    return happened


def moved(mover: Mover) -> bytes:
    (what,) = told(mover)
    assert isinstance(what, Moved), what
    return what.payload


def test_a_hundred_megabytes_come_right_and_lie_in_a_file(house: House) -> None:
    holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
    payload = MARK + os.urandom(100_000_000)
    holder.serve(KEY, payload)
    receiver.pull(KEY, len(payload), [at(holder, b"holder")])
    got = moved(receiver)
    assert got == payload
    segment = file_of(got)
    assert segment is not None
    assert segment.size == len(payload) + 64
    assert holder.sizes()["bytes_out"] == receiver.sizes()["bytes_in"] == len(payload)


def test_what_is_no_file_elsewhere_comes_as_bytes(house: House) -> None:
    holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
    payload = os.urandom(3_000_000)
    holder.serve(KEY, payload)
    receiver.pull(KEY, len(payload), [at(holder, b"holder")])
    got = moved(receiver)
    assert type(got) is bytes
    assert got == payload


def test_a_client_that_cannot_be_dialled_pushes_to_a_node(house: House) -> None:
    node, client = house.mover(b"node.."), house.mover(b"client", listens=False)
    payload = os.urandom(5_000_000)
    client.serve(KEY, payload)
    node.pull(KEY, len(payload), [Source(b"client", "", b"")])
    client.offer(KEY, at(node, b"node.."))
    assert moved(node) == payload
    client.pull(OTHER, 10, [at(node, b"node..")])
    node.serve(OTHER, b"0123456789")
    assert moved(client) == b"0123456789"


def test_a_source_that_ends_is_followed_by_another(house: House) -> None:
    first, second = house.mover(b"first."), house.mover(b"second")
    receiver = house.mover(b"taker.")
    payload = os.urandom(50_000_000)
    for holder in (first, second):
        holder.serve(KEY, payload)
    receiver.pull(KEY, len(payload), [at(first, b"first."), at(second, b"second")])
    until(lambda: receiver.sizes()["bytes_in"] > 5_000_000)
    first.close()
    assert moved(receiver) == payload
    assert second.sizes()["bytes_out"] < len(payload)


def test_a_chain_of_four_costs_the_source_one_copy(house: House) -> None:
    source, *others = [house.mover(b"peer%02d" % index) for index in range(5)]
    payload = MARK + os.urandom(30_000_000)
    source.serve(KEY, payload)
    chain = [at(mover, b"peer%02d" % index) for index, mover in enumerate([source, *others])]
    for index, mover in enumerate(others):
        mover.pull(KEY, len(payload), [*reversed(chain[: index + 1])])
    for mover in others:
        assert moved(mover) == payload
    assert source.sizes()["bytes_out"] <= 1.5 * len(payload)


def test_a_corrupt_piece_is_not_taken(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    liar, honest = house.mover(b"liar.."), house.mover(b"honest")
    receiver = house.mover(b"taker.")
    payload = os.urandom(5_000_000)
    for holder in (liar, honest):
        holder.serve(KEY, payload)
    wrong = iter([1])
    monkeypatch.setattr(checksums, "crc32", lambda data: crc32(data) ^ next(wrong, 0))
    receiver.pull(KEY, len(payload), [at(liar, b"liar.."), at(honest, b"honest")])
    assert moved(receiver) == payload
    assert receiver.sizes()["pieces_wrong"] == 1


def test_a_foreign_key_and_one_that_is_no_longer_admitted_are_refused(house: House) -> None:
    holder = house.mover(b"holder")
    holder.serve(KEY, b"secret")
    stranger = House()
    try:
        foreign = stranger.mover(b"strang", listens=False)
        foreign.pull(KEY, 6, [at(holder, b"holder")])
        (what,) = told(foreign)
        assert isinstance(what, NotMoved)
        assert what.reason == "it does not admit our key"
    finally:
        stranger.close()
    assert holder.sizes()["refused"] == 1
    holder.admit([])
    receiver = house.mover(b"taker.")
    receiver.pull(KEY, 6, [at(holder, b"holder")])
    assert isinstance(told(receiver)[0], NotMoved)
    assert holder.sizes()["refused"] == 2


def test_one_with_another_key_than_was_named_is_not_talked_to(house: House) -> None:
    holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
    holder.serve(KEY, b"secret")
    wrong = at(holder, b"holder")._replace(public_key=new_keys()[0])
    receiver.pull(KEY, 6, [wrong])
    (what,) = told(receiver)
    assert isinstance(what, NotMoved)
    assert holder.sizes()["bytes_out"] == 0


GREET = encode(Greet(DATA_PROTOCOL_VERSION, b"client"))


@pytest.mark.parametrize(
    "junk", [[b"no word at all"], [b"of", b"three", b"parts"], [GREET, b"and more"]]
)
def test_whoever_comes_without_a_key_or_sends_junk_is_dropped_and_harms_nobody(
    house: House, junk: list[bytes]
) -> None:
    holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
    payload = os.urandom(3_000_000)
    holder.serve(KEY, payload)
    context = zmq.Context()
    port = int(holder.endpoint.rpartition(":")[2])
    with context.socket(zmq.DEALER) as bare, socket.create_connection(("127.0.0.1", port)) as raw:
        bare.linger = 0
        bare.connect(holder.endpoint)
        with suppress(zmq.Again):  # it has been turned away already
            bare.send(b"hello", zmq.NOBLOCK)
        raw.send(b"GET / HTTP/1.1\r\n\r\n")
        with dealer(context, holder, house) as known:
            events = known.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            known.send_multipart(junk)
            assert events.poll(10_000), "it was not hung up on"
            known.disable_monitor()
            events.close()
        receiver.pull(KEY, len(payload), [at(holder, b"holder")])
        assert moved(receiver) == payload
    context.term()
    assert holder.sizes()["junk"] == 1


def test_one_who_asks_and_does_not_read_keeps_nobody_waiting_and_is_hung_up_on(
    house: House,
) -> None:
    settings = Settings(data_silence_s=1.0)
    holder, receiver = house.mover(b"holder", settings=settings), house.mover(b"taker.")
    payload = os.urandom(60_000_000)
    holder.serve(KEY, payload)
    context = zmq.Context()
    with dealer(context, holder, house) as deaf:
        deaf.rcvhwm = 1
        deaf.send(encode(Greet(DATA_PROTOCOL_VERSION, b"deaf..")))
        deaf.send(encode(Ask(KEY, 0, len(payload))))
        receiver.pull(KEY, len(payload), [at(holder, b"holder")])
        assert moved(receiver) == payload
        until(lambda: holder.sizes()["stuck"] == 1)
    context.term()
    # What it was sent is bounded: its window, what the sockets hold, what the kernels do.
    assert holder.sizes()["bytes_out"] < 2 * len(payload)


def test_a_forked_child_lets_go_and_the_parent_goes_on(house: House) -> None:
    holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
    payload = os.urandom(20_000_000)
    holder.serve(KEY, payload)
    receiver.pull(KEY, len(payload), [at(holder, b"holder")])
    child = os.fork()
    if not child:
        try:
            for mover in house.movers:
                mover.let_go_in_fork()
                mover.serve(OTHER, b"of no use")
                mover.close()
            os._exit(0)
        finally:
            os._exit(1)
    assert moved(receiver) == payload
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_closed_mover_leaves_neither_threads_nor_descriptors() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))

    def once() -> None:
        house = House()
        holder, receiver = house.mover(b"holder"), house.mover(b"taker.")
        holder.serve(KEY, MARK + bytes(2_000_000))
        receiver.pull(KEY, 2_000_003, [at(holder, b"holder")])
        moved(receiver)
        house.close()

    once()
    before, threads = opened(), threading.active_count()
    for _ in range(3):
        once()
    assert opened() == before
    assert threading.active_count() == threads
