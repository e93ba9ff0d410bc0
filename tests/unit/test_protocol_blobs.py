"""Large payloads are cut into chunks and put together again, within bounds."""

import tracemalloc

import pytest
from drumbeat.protocol.blobs import CHUNK_BYTES_MAX, CHUNKS_MAX, Assembler, Chunker
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.frames import Chunk, Lent, Taken
from hypothesis import given
from hypothesis import strategies as st

KEY, OTHER = b"k" * 14, b"o" * 15


def chunks(chunker: Chunker) -> list[Chunk]:
    taken = []
    while (chunk := chunker.take()) is not None:
        taken.append(chunk)
    return taken


@given(payloads=st.lists(st.binary(max_size=3000), max_size=5))
def test_payloads_arrive_whole_and_in_order(payloads: list[bytes]) -> None:
    chunker, assembler = Chunker(frame_bytes_max=512), Assembler(10_000)
    for payload in payloads:
        chunker.add(KEY, payload)
    joined = [assembler.add(chunk) for chunk in chunks(chunker)]
    assert [payload for payload in joined if payload is not None] == payloads
    assert not chunker
    assert chunker.pending_bytes == assembler.pending_bytes == 0


def test_a_chunk_is_bounded_whatever_the_frame() -> None:
    chunker = Chunker(frame_bytes_max=16 << 20)
    chunker.add(KEY, bytes(CHUNK_BYTES_MAX + 1))
    assert [len(chunk.data) for chunk in chunks(chunker)] == [CHUNK_BYTES_MAX, 1]


def test_an_empty_payload_is_one_chunk() -> None:
    chunker = Chunker(1024)
    chunker.add(KEY, b"")
    assert chunks(chunker) == [Chunk(KEY, 0, 1, b"")]
    assert Assembler(10).add(Chunk(KEY, 0, 1, b"")) == b""


def test_payloads_of_different_keys_may_mix() -> None:
    assembler = Assembler(100)
    assert assembler.add(Chunk(KEY, 0, 2, b"a")) is None
    assert assembler.add(Chunk(OTHER, 0, 2, b"x")) is None
    assert assembler.add(Chunk(KEY, 1, 2, b"b")) == b"ab"
    assert assembler.add(Chunk(OTHER, 1, 2, b"y")) == b"xy"


def test_a_payload_is_there_once_while_it_is_put_together() -> None:
    # What would be copied as a whole at the end would also keep everybody waiting for so long.
    count = 64
    assembler = Assembler(count * CHUNK_BYTES_MAX)
    tracemalloc.start()
    try:
        for index in range(count):
            piece = bytes([index]) * CHUNK_BYTES_MAX
            payload = assembler.add(Chunk(KEY, index, count, piece))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert payload is not None
    assert len(payload) == count * CHUNK_BYTES_MAX
    assert payload[::CHUNK_BYTES_MAX] == bytes(range(count))
    assert peak_bytes < 1.25 * len(payload)


@pytest.mark.parametrize(
    ("before", "bad", "field"),
    [
        ([], Chunk(KEY, 1, 2, b"a"), "index"),
        ([], Chunk(KEY, 3, 1, b"a"), "index"),
        ([Chunk(KEY, 0, 3, b"a")], Chunk(KEY, 0, 3, b"a"), "index"),
        ([Chunk(KEY, 0, 3, b"a")], Chunk(KEY, 2, 3, b"a"), "index"),
        ([Chunk(KEY, 0, 3, b"a")], Chunk(KEY, 1, 4, b"a"), "count"),
        ([], Chunk(KEY, 0, CHUNKS_MAX + 1, b"a"), "count"),
        ([], Chunk(KEY, 0, 2, b""), "data"),
        ([], Chunk(KEY, 0, 1, bytes(101)), "data"),
        ([Chunk(OTHER, 0, 2, bytes(60))], Chunk(KEY, 0, 2, bytes(60)), "data"),
    ],
)
def test_what_does_not_add_up_is_refused(before: list[Chunk], bad: Chunk, field: str) -> None:
    assembler = Assembler(100)
    for chunk in before:
        assembler.add(chunk)
    with pytest.raises(RemoteProtocolError, match=rf"chunk\.{field}"):
        assembler.add(bad)


# -------------------------------------------------------------------------------- what is lent

PLACE = (7, 3, 99, 4096, b"id")


def test_what_lies_in_a_file_is_lent_and_kept_until_it_is_taken() -> None:
    chunker = Chunker(1024)
    chunker.lend(KEY, b"x" * 4000, PLACE)
    assert chunker.pending
    assert chunker.lent_bytes == 4000
    assert chunker.take() == Lent(KEY, 1, *PLACE)
    assert chunker.take() is None
    assert not chunker.pending
    assert chunker.is_lent(1)
    assert (chunker.first_lent, chunker.lent_bytes, chunker.pending_bytes) == (1, 4000, 0)
    chunker.taken(Taken(1, True))
    assert not chunker.is_lent(1)
    assert chunker.first_lent == chunker.lent_bytes == chunker.pending_chunks == 0


def test_one_that_is_being_sent_is_no_backlog_however_large() -> None:
    chunker = Chunker(512)
    chunker.add(KEY, b"x" * 10_000)
    assert chunker.behind_bytes == 0
    chunker.take()
    assert chunker.behind_bytes == 0
    chunker.add(OTHER, b"y" * 300)
    assert chunker.behind_bytes == 300
    assert len(chunks(chunker)) > 30
    assert chunker.behind_bytes == 0


def test_what_could_not_be_opened_is_sent_and_stays_lent_until_it_has_come() -> None:
    chunker, assembler = Chunker(512), Assembler(10_000)
    payload = bytes(range(256)) * 4
    chunker.lend(KEY, payload, PLACE)
    chunker.take()
    chunker.taken(Taken(1, False))
    assert chunker.pending_bytes == len(payload)
    assert [assembler.add(chunk) for chunk in chunks(chunker)][-1] == payload
    assert chunker.is_lent(1)
    chunker.taken(Taken(1, True))
    assert not chunker.is_lent(1)
    assert chunker.pending_bytes == chunker.pending_chunks == 0


def test_only_what_was_lent_before_counts() -> None:
    chunker = Chunker(512)
    chunker.lend(KEY, b"a", PLACE)
    chunker.lend(OTHER, b"b", PLACE)
    chunker.taken(Taken(1, True))
    assert not chunker.is_lent(1)
    assert chunker.is_lent(2)


@pytest.mark.parametrize("said", [[(2, True)], [(1, True), (1, True)], [(1, False), (1, False)]])
def test_who_tells_of_what_it_was_not_lent_is_wrong(said: list[tuple[int, bool]]) -> None:
    chunker = Chunker(512)
    chunker.lend(KEY, b"a", PLACE)
    *before, last = said
    for answer in before:
        chunker.taken(Taken(*answer))
    with pytest.raises(RemoteProtocolError, match="lent"):
        chunker.taken(Taken(*last))
