"""Packets between two processes: bounds, order, length, descriptors, both kinds of sockets."""

import contextlib
import errno
import os
import resource
import socket
import struct
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
    content = b"\x93" + os.urandom(length - 1)  # as a message begins
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
    assert (received[-1].data, received[-1].fds) == (b"x" * 1_000_000, ())
    assert (received[-2].data, received[-2].fds) == (b"small", ())


def test_what_waits_can_be_taken_back(pair: tuple[Channel, Channel]) -> None:
    one, _ = pair
    fill(one)
    one.post(b"small")
    one.post(b"y" * 100_000)
    assert one.take_waiting()[1:] == [(b"small", ()), (b"y" * 100_000, ())]
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
    Channel(socket.socket()).close()  # from now on the process has its reserve
    before = open_files()
    one, other = channel_pair()
    fill(one)
    one.post(b"x" * 100_000)
    one.close()
    other.close()
    assert open_files() == before


# --------------------------------------------------------------------------- what is very long


def test_what_is_very_long_is_packed_step_by_step_and_keeps_its_order(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    before = open_files()
    pieces = [b"head", bytes(40 << 20), b"", b"tail"]
    assert not one.post(pieces), "16 MiB of it at most"
    assert not one.post(b"later"), "which was the second step"
    assert one.waits
    assert other.receive(wait=False) is None
    assert one.flush(), "the third step"
    packet = other.receive()
    assert packet is not None
    assert len(packet.data) == (40 << 20) + 8
    assert (bytes(packet.data[:5]), bytes(packet.data[-5:])) == (b"head\0", b"\0tail")
    del packet
    assert data(other.receive()) == b"later"
    assert open_files() == before


def test_whoever_sends_waits_until_what_is_very_long_has_gone(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    one.send([b"head", bytes(40 << 20)])
    packet = other.receive()
    assert packet is not None
    assert len(packet.data) == (40 << 20) + 4


def test_what_is_half_packed_can_be_taken_back(pair: tuple[Channel, Channel]) -> None:
    one, _ = pair
    before = open_files()
    assert not one.post([b"head", bytes(40 << 20)])
    ((taken, _),) = one.take_waiting()
    assert (len(taken), taken[:5]) == ((40 << 20) + 4, b"head\0")
    assert open_files() == before


def test_what_there_is_no_room_for_amid_its_packing_is_dropped_and_said(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    before = open_files()
    assert not one.post([bytes(40 << 20)])
    assert not one.post(b"later")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            one.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert one.flush()
    assert data(other.receive()) == b"later"
    assert open_files() == before


# --------------------------------------------------------------------------------- descriptors


def test_a_process_at_its_limit_receives_a_large_packet_all_the_same(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    content = os.urandom(1_000_000)
    for _ in range(3):
        one.send(content)
    before = open_files()
    with no_descriptors():
        assert [data(other.receive()) == content for _ in range(3)] == [True] * 3
        with pytest.raises(OSError, match="Too many open files"):
            os.dup(0)  # the reserve is there again
    assert open_files() == before


def test_a_process_at_its_limit_sends_a_large_packet_all_the_same(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    content = os.urandom(1_000_000)
    with no_descriptors():
        one.send(content)
        assert one.post(content)
    assert data(other.receive()) == content
    assert data(other.receive()) == content


def test_a_packet_whose_descriptors_find_no_room_stays_where_it_is_until_they_do(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    one.send(b"first")
    one.send(b"three", (0, 1, 2))
    one.send(b"last")
    with no_descriptors():
        assert data(other.receive(wait=False)) == b"first"
        assert other.receive(wait=False) is None
        assert other.receive(wait=False) is None
    packet = other.receive(wait=False)
    assert packet is not None
    assert (bytes(packet.data), len(packet.fds)) == (b"three", 3)
    assert data(other.receive(wait=False)) == b"last"
    for fd in packet.fds:
        os.close(fd)


def test_a_receiver_without_room_for_long_is_told_of_the_limit_and_what_to_do(
    pair: tuple[Channel, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drumbeat.node.channel.ROOM_WITHIN_S", 0.01)
    one, other = pair
    one.send(b"three", (0, 1, 2))
    told = "no descriptor for a packet that has come"
    with no_descriptors() as used, pytest.raises(OSError, match=told) as caught:
        other.receive()
    assert caught.value.errno == errno.EMFILE
    assert f"the limit is {used} a process (raise it: ulimit -n" in str(caught.value)
    packet = other.receive()  # it is not lost
    assert packet is not None
    for fd in packet.fds:
        os.close(fd)


def test_descriptors_that_have_to_wait_and_cannot_are_told_of_and_nothing_waits(
    pair: tuple[Channel, Channel],
) -> None:
    one, _ = pair
    fill(one)
    with no_descriptors(), pytest.raises(OSError, match="no descriptor for what a packet carries"):
        one.post(b"two", (0, 1))
    assert [len(text) for text, _ in one.take_waiting()] == [60_000]


def test_who_claims_more_descriptors_than_are_ever_carried_is_refused_at_once(
    pair: tuple[Channel, Channel],
) -> None:
    one, other = pair
    one.socket.send(struct.pack("!BBQ", 0xC1, 255, 0) + b"claims")
    with no_descriptors(), pytest.raises(OSError, match="lacks its descriptors"):
        other.receive(wait=False)


@pytest.mark.parametrize("length", [0, 4000])
def test_a_packet_that_lies_about_its_file_is_refused_and_leaves_nothing_open(
    pair: tuple[Channel, Channel], length: int
) -> None:
    one, other = pair
    before = open_files()
    head = struct.Struct("!BBQ")
    reader, writer = os.pipe()
    file = memory_file()
    os.write(file, b"short")
    claims = head.pack(0xC1, 1, 1 << 40)
    for text, fds in (
        (b"\xc1", ()),
        (claims, ()),
        (claims[: 1 + length % 9], (file,)),
        (head.pack(0xC1, 2, 10), (file,)),
        (head.pack(0xC1, 0, 10), ()),
        (claims, (file,)),
        (head.pack(0xC1, 1, 10), (reader,)),
    ):
        send_raw(one, text, fds)
        with pytest.raises(OSError, match=r"what its head says|lacks|No such device"):
            other.receive()
    send_raw(one, b"plain", (reader, writer))
    assert data(other.receive()) == b"plain"
    for fd in (reader, writer, file):
        os.close(fd)
    assert open_files() == before


@pytest.mark.parametrize("kind", ["memfd", "file", "auto"])
def test_a_memory_file_has_no_name(kind: str) -> None:
    fd = memory_file(kind)
    assert os.write(fd, b"content") == 7
    assert os.fstat(fd).st_nlink == 0
    os.close(fd)


def send_raw(end: Channel, text: bytes, fds: tuple[int, ...]) -> None:
    socket.send_fds(end.socket, [text], fds)


@contextlib.contextmanager
def no_descriptors() -> Iterator[int]:
    """As long as this lasts the process has used up its descriptors; yield how many that are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1])
    )
    used = []
    try:
        with contextlib.suppress(OSError):
            while True:
                used.append(os.dup(0))
        yield resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in used:
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
