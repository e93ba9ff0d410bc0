"""Packets in pieces say what they would say in one."""

import pytest
from drumbeat.node import pieces
from drumbeat.node.packets import Answered, Exit, KindDefinition, Run, RunRow, ToWorker
from drumbeat.node.pieces import pieces_of
from drumbeat.protocol.codec import encode
from drumbeat.protocol.messages import Outcome, ValueRow
from msgspec.msgpack import decode

LARGE, SMALL = b"x" * 1000, b"small"


@pytest.fixture(autouse=True)
def _large_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "LARGE_BYTES", 500)


def value(payload: bytes | None) -> ValueRow:
    return ValueRow(b"v" * 15, Outcome.VALUE, payload)


def row(args: bytes | None, *values: bytes, checkpoint: bytes | None = None) -> RunRow:
    given = tuple(map(value, values))
    return RunRow(1, b"i" * 14, 1, 2, 0, args, given, checkpoint=checkpoint)


KIND = KindDefinition(2, "kind", b"code", 1, 0)


@pytest.mark.parametrize(
    ("packet", "large"),
    [
        (Run([KIND], [row(LARGE)]), 1),
        (Run([], [row(SMALL), row(None, LARGE, SMALL, LARGE), row(LARGE)]), 3),
        (Run([], [row(None, checkpoint=LARGE)]), 1),
        (Answered(3, [value(SMALL), value(LARGE), value(None)]), 1),
    ],
)
def test_what_is_large_is_a_piece_of_its_own_and_no_copy(packet: ToWorker, large: int) -> None:
    made, _ = pieces_of(packet)
    assert isinstance(made, list)
    assert sum(piece is LARGE for piece in made) == large
    assert len(made) == 2 * large + 1
    # The forms of long bytes differ with their length; a reader takes any.
    assert decode(b"".join(made)) == decode(encode(packet))


@pytest.mark.parametrize(
    "packet",
    [Run([KIND], [row(SMALL, SMALL)]), Run([KIND], []), Answered(3, [value(SMALL)]), Exit()],
)
def test_without_anything_large_it_is_as_ever(packet: ToWorker) -> None:
    assert pieces_of(packet) == (encode(packet), ())


def test_who_says_just_what_stands_for_pieces_is_copied() -> None:
    for said in (pieces._mark(0), pieces._mark(1)):
        packet = Run([], [row(LARGE, said, LARGE), row(said)])
        made, _ = pieces_of(packet)
        whole = made if isinstance(made, bytes) else b"".join(made)
        assert decode(whole) == decode(encode(packet))
