"""Marks behind what is sent are reached when all before them is acknowledged, payloads too."""

from random import Random
from typing import Any

import pytest
from drumbeat.protocol.blobs import Place
from drumbeat.protocol.codec import Reader, decode_frame, encode
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Lent, Taken
from drumbeat.protocol.ids import NO_PEER
from drumbeat.protocol.link import Link
from drumbeat.protocol.messages import Wanted
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import CHUNKS_PER_TURN_MAX, REFUSED_MAX, Traffic
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

SETTINGS = Settings(frame_bytes_max=1024, link_window_batches_max=2)
KEY, OTHER = b"k" * 14, b"o" * 15


class Way:
    """A link to a peer that acknowledges when it is told to."""

    def __init__(self) -> None:
        self.near, self.far = Link(SETTINGS), Link(SETTINGS)

    def go(self) -> bool:
        """Send what the window allows, have it acknowledged; return whether anything went."""
        frames = self.near.flush(0.0)
        for frame in frames:
            self.far.received(decode_frame(frame), 0.0)  # type: ignore[arg-type]
        self.near.received(decode_frame(self.far.acknowledge()), 0.0)  # type: ignore[arg-type]
        return bool(frames)


class Ends:
    """A peer's traffic and its two links."""

    def __init__(self) -> None:
        self.traffic = Traffic(Reader.to_client(), SETTINGS)
        self.control, self.bulk = Way(), Way()

    def mark(self, mark: int) -> None:
        self.traffic.mark(mark, self.control.near, self.bulk.near)

    def reached(self) -> list[int]:
        return self.traffic.reached(self.control.near, self.bulk.near)


def test_a_mark_is_reached_when_the_messages_before_it_are_acknowledged() -> None:
    ends = Ends()
    ends.control.near.queue(encode(Wanted([])))
    ends.mark(1)
    assert ends.reached() == []
    ends.control.near.flush(0.0)
    assert ends.reached() == []
    ends.control.near.queue(encode(Wanted([])))
    ends.mark(2)
    ends.control.go()
    assert ends.reached() == []
    other = Ends()
    other.mark(3)
    assert other.reached() == [3], "nothing was sent before it"
    assert not other.traffic.marked
    assert ends.traffic.marked


def test_marks_are_reached_in_order_as_the_window_moves_on() -> None:
    ends = Ends()
    for mark in range(10):
        ends.control.near.queue(encode(bytes(900)))
        ends.mark(mark)
    seen: list[int] = []
    steps = 0
    while ends.control.go():
        steps += 1
        seen += ends.reached()
    assert seen == list(range(10))
    assert steps > 1


def test_a_mark_waits_for_payloads_that_are_not_even_cut() -> None:
    ends = Ends()
    ends.traffic.chunker.add(KEY, bytes(20 * 1024))
    ends.control.near.queue(encode(Wanted([])))
    ends.mark(1)
    ends.traffic.chunker.add(KEY, b"later")
    ends.control.go()
    turns = 0
    while not ends.reached():
        ends.traffic.feed(ends.bulk.near)
        assert ends.bulk.go()
        turns += 1
    assert turns > CHUNKS_PER_TURN_MAX
    assert not ends.traffic.marked


@given(seed=st.integers(0, 2**32))
def test_a_mark_is_never_reached_before_all_that_was_sent_before_it_has_come(seed: int) -> None:
    random, ends = Random(seed), Ends()
    #: what must have come before a mark: messages on the control link, payload bytes
    before: dict[int, tuple[int, int]] = {}
    messages = payload_bytes = 0
    for mark in range(30):
        for _ in range(random.randrange(3)):
            ends.control.near.queue(encode(bytes(random.randrange(900))))
            messages += 1
        if random.random() < 0.4:
            size_bytes = random.randrange(5000)
            ends.traffic.chunker.add(KEY, bytes(size_bytes))
            payload_bytes += size_bytes
        if random.random() < 0.5:
            ends.mark(mark)
            before[mark] = messages, payload_bytes
        if random.random() < 0.5:
            ends.control.go()
        if random.random() < 0.5:
            ends.traffic.feed(ends.bulk.near)
            ends.bulk.go()
        for reached in ends.reached():
            needed, needed_bytes = before.pop(reached)
            assert ends.control.near.acked >= needed
            gone_bytes = payload_bytes - ends.traffic.chunker.pending_bytes
            assert gone_bytes >= needed_bytes
    while ends.traffic.marked:
        ends.control.go()
        ends.traffic.feed(ends.bulk.near)
        ends.bulk.go()
        for reached in ends.reached():
            del before[reached]
    assert not before


# -------------------------------------------------------------------------------- what is lent

PLACE = (7, 3, 99, 4096, b"id")


def joined(near: Traffic, far: Traffic) -> list[tuple[bytes, bytes]]:
    """Carry everything between two ends of bulk links; return what came at the far one."""
    out: list[Any] = []
    while near.chunker.pending or far.chunker.pending:
        for one, other, came in ((near, far, out), (far, near, [])):
            while (chunk := one.chunker.take()) is not None:
                other.take_in_bulk([Raw(encode(chunk))], NO_PEER, came)
    return [(blob.key, bytes(blob.payload)) for blob in out]


def test_a_payload_in_a_file_is_opened_there_by_a_process_of_the_machine() -> None:
    opened: list[Any] = []
    near = Traffic(Reader.to_client(), SETTINGS, lambda _: None)
    far = Traffic(Reader.to_client(), SETTINGS, lambda place: opened.append(place) or b"content")
    near.chunker.lend(KEY, b"content", PLACE)
    assert joined(near, far) == [(KEY, b"content")]
    assert opened == [PLACE]
    assert near.settled
    assert near.lends


@pytest.mark.parametrize("has_files", [False, True])
def test_what_cannot_be_opened_comes_as_bytes_and_nothing_is_lent_any_more(has_files: bool) -> None:
    near = Traffic(Reader.to_client(), SETTINGS, lambda _: None)
    far = Traffic(Reader.to_client(), SETTINGS, (lambda _: None) if has_files else None)
    near.chunker.lend(KEY, b"content" * 900, PLACE)
    near.chunker.lend(OTHER, b"other", PLACE)
    assert joined(near, far) == [(KEY, b"content" * 900), (OTHER, b"other")]
    assert near.settled
    assert not near.lends


def test_who_had_room_before_is_lent_more_though_it_has_none_now() -> None:
    room = iter([b"one", None])
    near = Traffic(Reader.to_client(), SETTINGS, lambda _: None)
    far = Traffic(Reader.to_client(), SETTINGS, lambda _: next(room))
    near.chunker.lend(KEY, b"one", PLACE)
    near.chunker.lend(OTHER, b"two", PLACE)
    assert joined(near, far) == [(KEY, b"one"), (OTHER, b"two")]
    assert near.lends


def test_a_mark_is_reached_only_when_what_was_lent_before_it_is_taken() -> None:
    ends = Ends()
    ends.traffic.chunker.lend(KEY, b"content", PLACE)
    ends.mark(1)
    ends.traffic.feed(ends.bulk.near)
    ends.bulk.go()
    assert ends.reached() == [], "it is acknowledged, but not opened"
    ends.traffic.take_in_bulk([Raw(encode(Taken(1, False)))], NO_PEER, [])
    ends.traffic.feed(ends.bulk.near)
    ends.bulk.go()
    assert ends.reached() == []
    ends.traffic.chunker.lend(OTHER, b"after it", PLACE)
    ends.traffic.take_in_bulk([Raw(encode(Taken(1, True)))], NO_PEER, [])
    assert ends.reached() == [1]


def test_a_peer_cannot_have_more_refused_than_is_bounded() -> None:
    far = Traffic(Reader.to_client(), SETTINGS, lambda _: None)
    for number in range(1, REFUSED_MAX + 1):
        far.take_in_bulk([Raw(encode(Lent(KEY, number, *PLACE)))], NO_PEER, [])
    with pytest.raises(RemoteProtocolError, match="lent"):
        far.take_in_bulk([Raw(encode(Lent(KEY, REFUSED_MAX + 1, *PLACE)))], NO_PEER, [])


def test_many_payloads_come_to_one_that_has_room_for_few_files() -> None:
    left = iter([b"opened"] * 3)
    near = Traffic(Reader.to_client(), SETTINGS, lambda _place: None)
    far = Traffic(Reader.to_client(), SETTINGS, lambda _place: next(left, None))
    for _ in range(2 * REFUSED_MAX):
        near.chunker.lend(KEY, b"bytes", PLACE)
    came = joined(near, far)
    assert came.count((KEY, b"bytes")) == 2 * REFUSED_MAX - 3
    assert near.settled


def test_a_file_larger_than_any_payload_is_not_even_opened() -> None:
    opened: list[int] = []

    def open_file(place: Place) -> bytes:
        opened.append(place[3])
        return b"opened"

    traffic = Traffic(Reader.to_client(), SETTINGS, open_file)
    most = 2 * SETTINGS.value_bytes_max
    traffic.take_in_bulk([Raw(encode(Lent(KEY, 1, 7, 3, 99, most, b"id")))], NO_PEER, [])
    with pytest.raises(RemoteProtocolError, match="are the most"):
        traffic.take_in_bulk([Raw(encode(Lent(KEY, 2, 7, 3, 99, most + 1, b"id")))], NO_PEER, [])
    assert opened == [most]


def test_what_is_lent_waits_until_it_is_admitted_and_none_overtakes_another() -> None:
    opened: list[int] = []
    room = [150]

    def open_file(place: Place) -> bytes:
        opened.append(place[1])
        return b"payload %d" % place[1]

    def admits(size: int) -> bool:
        if size > room[0]:
            return False
        room[0] -= size
        return True

    traffic = Traffic(Reader.to_client(), SETTINGS, open_file)
    traffic.admits = admits
    sizes = (100, 100, 10)
    out: list[Any] = []
    lent = [
        Raw(encode(Lent(KEY + b"%d" % n, n + 1, 7, n, 99, size, b"id")))
        for n, size in enumerate(sizes)
    ]
    traffic.take_in_bulk(lent, NO_PEER, out)
    assert opened == [0], "the small one has room, but comes after the other"
    traffic.take_in_waiting(NO_PEER, out)
    assert opened == [0]
    room[0] = 110
    traffic.take_in_waiting(NO_PEER, out)
    assert [blob.payload for blob in out] == [b"payload 0", b"payload 1", b"payload 2"]
    said = [traffic.chunker.take() for _ in sizes]
    assert said == [Taken(number, True) for number in (1, 2, 3)], "only then they are let go of"
