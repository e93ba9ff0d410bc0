"""A piece's checksum is made once, however many get it; and no more are kept than pieces."""

from zlib import crc32

import pytest
from drumbeat.protocol import checksums as module
from drumbeat.protocol.checksums import Checksums
from drumbeat.protocol.codec import decode_move, encode
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.moves import Have, Piece

KEY, WHOLE = b"k" * 14, bytes(range(100))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    made: list[int] = []

    def counted(data: bytes) -> int:
        made.append(len(data))
        return crc32(data)

    monkeypatch.setattr(module, "crc32", counted)
    return made


def test_of_a_whole_piece_it_is_made_once(made: list[int]) -> None:
    checksums = Checksums(100)
    for _ in range(3):
        assert checksums.of(KEY, 200, WHOLE) == crc32(WHOLE)
    assert made == [100]
    checksums.drop(KEY)
    assert len(checksums) == 0
    checksums.of(KEY, 200, WHOLE)
    assert made == [100, 100]


def test_that_of_a_piece_which_has_come_is_passed_on(made: list[int]) -> None:
    checksums = Checksums(100)
    checksums.note(KEY, 0, WHOLE, 7)
    assert checksums.of(KEY, 0, WHOLE) == 7
    assert made == []


@pytest.mark.parametrize(("offset", "length"), [(1, 100), (0, 99), (100, 1)])
def test_of_parts_of_pieces_none_is_kept(made: list[int], offset: int, length: int) -> None:
    checksums = Checksums(100)
    for _ in range(2):
        assert checksums.of(KEY, offset, WHOLE[:length]) == crc32(WHOLE[:length])
    assert made == [length, length]
    assert len(checksums) == 0


# ------------------------------------------------------------------------- pieces of two parts


def piece(data: bytes) -> memoryview:
    return memoryview(encode(Piece(KEY, 0, 100, crc32(WHOLE), memoryview(data))))


def test_a_piece_carries_its_data_or_has_it_beside_itself() -> None:
    for word in (decode_move(piece(WHOLE)), decode_move(piece(b""), memoryview(WHOLE))):
        assert isinstance(word, Piece)
        assert (word.key, word.size, word.checksum) == (KEY, 100, crc32(WHOLE))
        assert bytes(word.data) == WHOLE


@pytest.mark.parametrize("frame", [piece(WHOLE), memoryview(encode(Have(KEY, 1)))])
def test_no_other_word_has_a_second_part(frame: memoryview) -> None:
    with pytest.raises(RemoteProtocolError, match="a second part"):
        decode_move(frame, memoryview(b"more"))
