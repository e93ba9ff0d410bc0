"""Large payloads move between processes that are reached over the network, by their own sockets."""

import os
import threading
from collections.abc import Iterator

import pytest
from drumbeat.protocol.keys import Credentials
from drumbeat.protocol.mover import Moved, Mover, NotMoved
from drumbeat.protocol.moving_words import Source
from drumbeat.protocol.payload_files import MARK, file_of
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.sockets import new_keys
from support.waiting import until

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
