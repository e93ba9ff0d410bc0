"""Packets between two processes: bounds, order, length, descriptors, both kinds of sockets."""

import os
import socket
from collections.abc import Iterator

import pytest
from drumbeat.node.channel import PACKET_BYTES_MAX, Channel, ClosedError, Packet, channel_pair
from drumbeat.node.kernel import memory_file

KINDS = [("seqpacket", "memfd"), ("seqpacket", "file"), ("dgram", "memfd"), ("dgram", "file")]


@pytest.fixture(params=KINDS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Channel, Channel]]:
    ends = channel_pair(*request.param)
    yield ends
    for end in ends:
        end.close()


def data(packet: Packet | None) -> bytes:
    assert packet is not None
    return bytes(packet.data)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_packets_keep_their_bounds_and_their_order(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    for text in (b"a", b"bc", b"def"):
        one.send(text)
    assert [data(other.receive()) for _ in range(3)] == [b"a", b"bc", b"def"]
    other.send(b"back")
    assert data(one.receive()) == b"back"


def test_without_waiting_no_packet_is_none(pair: tuple[Channel, Channel]) -> None:
    assert pair[0].receive(wait=False) is None


@pytest.mark.parametrize(
    "length", [1, PACKET_BYTES_MAX - 1, PACKET_BYTES_MAX, PACKET_BYTES_MAX + 1, 5_000_000]
)
@pytest.mark.parametrize("posted", [True, False], ids=["posted", "sent"])
def test_a_packet_of_any_length_arrives_and_leaves_no_file_open(
    pair: tuple[Channel, Channel], length: int, posted: bool
) -> None:
    one, other = pair
    before = open_files()
    content = os.urandom(length)
    if posted:
        assert one.post(content)
    else:
        one.send(content)
    received = other.receive()
    assert data(received) == content
    del received
    assert open_files() == before


def test_descriptors_travel_along(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    reader, writer = os.pipe()
    one.send(b"here", (reader,))
    os.close(reader)
    packet = other.receive()
    assert packet is not None
    assert bytes(packet.data) == b"here"
    assert not os.get_inheritable(packet.fds[0])
    os.write(writer, b"through")
    os.close(writer)
    assert os.read(packet.fds[0], 100) == b"through"
    os.close(packet.fds[0])


def test_posted_descriptors_may_be_closed_at_once(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    fill(one)
    before = open_files()
    reader, writer = os.pipe()
    assert not one.post(b"late", (reader,))
    os.close(reader)
    received = drain(one, other)
    assert bytes(received[-1].data) == b"late"
    os.write(writer, b"x")
    assert os.read(received[-1].fds[0], 1) == b"x"
    os.close(writer)
    os.close(received[-1].fds[0])
    assert open_files() == before


def test_what_finds_no_room_waits_in_order(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    count = fill(one)
    assert one.waits
    assert not one.post(b"small")
    assert not one.post(b"x" * 1_000_000)
    received = drain(one, other)
    assert not one.waits
    assert len(received) == count + 2
    assert received[-1] == (b"x" * 1_000_000, ())
    assert received[-2] == (b"small", ())


def test_what_waits_can_be_taken_back(pair: tuple[Channel, Channel]) -> None:
    one, _ = pair
    fill(one)
    one.post(b"small")
    one.post(b"y" * 100_000)
    assert one.take_waiting()[1:] == [b"small", b"y" * 100_000]
    assert not one.waits


def test_a_duplicate_of_an_end_takes_what_lies_unread() -> None:
    one, other = channel_pair()
    duplicate = Channel(socket.socket(fileno=os.dup(other.fileno())))
    one.send(b"first")
    one.send(b"z" * 200_000)
    assert data(duplicate.receive(wait=False)) == b"first"
    assert data(duplicate.receive(wait=False)) == b"z" * 200_000
    assert other.receive(wait=False) is None
    for end in (one, other, duplicate):
        end.close()


def test_a_closed_end_is_told_after_all_it_sent() -> None:
    one, other = channel_pair("seqpacket")
    one.send(b"last")
    other.send(b"never read")
    one.close()
    assert data(other.receive()) == b"last"
    with pytest.raises(ClosedError):
        other.receive()
    with pytest.raises(ClosedError):
        other.send(b"anybody?")
    with pytest.raises(ClosedError):
        other.post(b"anybody?")
    other.close()


def test_an_end_closed_with_files_waiting_leaves_none_open() -> None:
    before = open_files()
    one, other = channel_pair()
    fill(one)
    one.post(b"x" * 100_000)
    one.close()
    other.close()
    assert open_files() == before


@pytest.mark.parametrize("kind", ["memfd", "file", "auto"])
def test_a_memory_file_has_no_name(kind: str) -> None:
    fd = memory_file(kind)
    assert os.write(fd, b"content") == 7
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


def fill(end: Channel) -> int:
    """Post until there is no room; return how many went out or wait."""
    count = 1
    while end.post(b"f" * 60_000):
        count += 1
    return count


def drain(one: Channel, other: Channel) -> list[Packet]:
    received = []
    while True:
        one.flush()
        packet = other.receive(wait=False)
        if packet is None:
            return received
        received.append(Packet(memoryview(bytes(packet.data)), packet.fds))
