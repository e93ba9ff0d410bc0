"""Whatever bytes come, the codec returns a message that fits or says which field does not."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from drumbeat.protocol import codec, messages
from drumbeat.protocol.errors import MessageTooLarge, RemoteProtocolError
from drumbeat.protocol.frames import Ack, Batch, Chunk, Frame, Hello, Part
from drumbeat.protocol.messages import (
    Answer,
    Beat,
    Cancel,
    Done,
    DoneRow,
    Failure,
    KindRow,
    Options,
    Outcome,
    Output,
    OutputRow,
    Results,
    Shapes,
    Submit,
    TakenBack,
    TaskRow,
    ToClient,
    ToNode,
    ToScheduler,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.running import RunningRow
from hypothesis import given, settings
from hypothesis import strategies as st

PEER, TASK, HASH = b"p" * 6, b"t" * 14, b"h" * 16
DECODERS = [
    codec.decode_frame, codec.decode_to_scheduler, codec.decode_to_client, codec.decode_to_node,
    codec.decode_bulk,
]  # fmt: skip


def submit(rows: int, size: int = 0) -> Submit:
    return Submit(PEER, b"", 0, [TaskRow(TASK, number, b"x" * size) for number in range(rows)])


def test_a_message_comes_back_as_it_was() -> None:
    failure = Failure("DependencyFailed", "because", {"deaths": 3}, Failure("NodeLost", "gone"))
    message = Results([ValueRow(TASK, Outcome.FAILURE, None, 0, (TASK,), failure)])
    assert codec.decode_to_client(codec.encode(message)) == message
    assert codec.decode_to_node(codec.encode(message)) == message


def test_a_batch_holds_messages_as_they_were_encoded() -> None:
    encoded = [codec.encode(Wanted([TASK])), codec.encode(Values([]))]
    batch = codec.decode_frame(codec.encode_batch(7, 3, encoded))
    assert isinstance(batch, Batch)
    assert (batch.seq, batch.ack, [bytes(raw) for raw in batch.messages]) == (7, 3, encoded)
    assert codec.decode_frame(codec.encode_ack(9)) == Ack(9)


def test_a_batch_adds_no_more_than_is_allowed_for() -> None:
    frame = codec.encode_batch(2**63, 2**63, [b"\xc0"] * 70_000)
    assert len(frame) - 70_000 <= codec.BATCH_OVERHEAD_BYTES
    part = codec.encode(Part(bytes(70_000), True))
    assert len(part) - 70_000 <= codec.BATCH_OVERHEAD_BYTES


@pytest.mark.parametrize(
    ("plain", "complaint"),
    [
        (["submit", PEER, b"", 0, [[TASK, 0, "text"]]], r"submit\.rows\[0\]\.args: .*str"),
        (["submit", PEER, b"", 0, [[TASK, 0], [b"short", 0]]], r"submit\.rows\[1\]\.id: "),
        (["submit", b"five5", b"", 0, []], r"submit\.client: "),
        (["submit", PEER, b"", -1, []], r"submit\.depth: "),
        (["submit", PEER], "submit: .*at least length 5"),
        (
            ["done", [[TASK, 1, [[TASK, 2, None, 0, [], ["E", "t", {"a": []}]]], 0.5]]],
            r"done\.rows\[0\]\.values\[0\]\.failure\.details\[\.\.\.\]: ",
        ),
        (["define", PEER, [[0, HASH, "f", [-1.0]]]], r"define\.rows\[0\]\.options\.num_cpus: "),
        (["release", [[TASK, "many"]]], r"release\.rows\[0\]\[1\]: "),
        (["assign", []], "unknown message 'assign'"),
        (["hello", []], "unknown message 'hello'"),
        ([], "unknown message None"),
        ([[]], r"unknown message \[\]"),
        ({"submit": 1}, "unknown message None"),
        ("submit", "unknown message None"),
    ],
)
def test_a_refusal_names_the_field(plain: Any, complaint: str) -> None:
    with pytest.raises(RemoteProtocolError, match=complaint):
        codec.decode_to_scheduler(msgspec.msgpack.encode(plain))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        b"\x92\xa6submit",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x92\xa2\xff\xff\x01",
        codec.encode(submit(1)) + b"\0",
        codec.encode(Answer(1, 1))[:-1] + b"\x91" * 100_000,
        codec.encode(Answer(1, 1))[:-1] + b"\x81\x80\x01",
    ],
)
def test_what_is_no_message_at_all_is_refused(raw: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(RemoteProtocolError):
            decode(raw)


def test_fields_that_a_newer_version_appended_are_passed_over() -> None:
    raw = msgspec.msgpack.encode(["ack", 4, 0, False, "new"])
    assert codec.decode_frame(raw) == Ack(4)


def test_each_direction_understands_its_own_messages_only() -> None:
    for decode, union in (
        (codec.decode_to_scheduler, ToScheduler),
        (codec.decode_to_client, ToClient),
        (codec.decode_to_node, ToNode),
        (codec.decode_frame, Frame),
    ):
        understood = {kind.__struct_config__.tag for kind in get_args(union)}
        for other in (*get_args(ToScheduler), *get_args(ToClient), *get_args(ToNode), Chunk):
            tag = other.__struct_config__.tag
            if tag not in understood:
                with pytest.raises(RemoteProtocolError, match="unknown message"):
                    decode(msgspec.msgpack.encode([tag]))


SEEDS = [
    submit(3, 20),
    Beat(0.1, 2, 0, [RunningRow(TASK, 1, 0.5)], 7),
    KindRow(1, HASH, "f", Options(resources=(("gpu", 1.0),), env_vars=(("A", "b"),))),
    Results([ValueRow(TASK, 2, None, 0, (), Failure("E", "t", {"a": 1}, Failure("F", "u")))]),
    Answer(3, {"nodes": [1, "two", None, {"deep": [b"x"]}]}),
    Output(PEER, [OutputRow("f", 1, "n", b"text")]),
    Chunk(TASK, 0, 2, b"data"),
    Hello(1, "client", PEER, 0, 0, 0, "3.11", "me"),
    Batch(1, 0, [msgspec.Raw(codec.encode(Ack(1)))]),
    Part(b"data", False),
]


@settings(max_examples=200)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 40),
    junk=st.binary(max_size=20),
)
def test_damaged_messages_are_understood_or_refused_and_nothing_else(
    seed: Any, changes: list[tuple[int, int]], cut: int, junk: bytes
) -> None:
    raw = bytearray(codec.encode(seed))
    for position, value in changes:
        raw[position % len(raw)] = value
    for decode in DECODERS:
        with suppress(RemoteProtocolError):
            decode(bytes(raw[: len(raw) - cut] if cut < len(raw) else raw) + junk)


@settings(max_examples=150)
@given(
    plain=st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(),
            st.binary(max_size=20), st.sampled_from(["submit", "done", "hello", "batch", TASK]),
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=6), st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=20,
    )
)  # fmt: skip
def test_well_formed_nonsense_is_understood_or_refused_and_nothing_else(plain: Any) -> None:
    raw = msgspec.msgpack.encode(plain)
    for decode in DECODERS:
        with suppress(RemoteProtocolError):
            decode(raw)


@given(raw=st.binary(max_size=200))
def test_noise_is_refused(raw: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(RemoteProtocolError):
            decode(raw)


def joined(pieces: list[bytes], reader: codec.Reader) -> list[Any]:
    return [message for piece in pieces if (message := reader.read(piece)) is not None]


def test_a_short_message_is_one_piece() -> None:
    assert codec.split(submit(3), 1000) == [codec.encode(submit(3))]


@given(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=40))
def test_a_columnar_message_is_divided_by_rows(sizes: list[int]) -> None:
    rows = [TaskRow(TASK, number, b"x" * size) for number, size in enumerate(sizes)]
    pieces = codec.split(Submit(PEER, b"", 2, rows), 256)
    assert all(len(piece) <= 256 for piece in pieces)
    joint = joined(pieces, codec.Reader.to_scheduler())
    assert all(message.client == PEER and message.depth == 2 for message in joint)
    assert [row for message in joint for row in message.rows] == rows


@pytest.mark.parametrize(
    "message",
    [
        submit(1, 5000),
        TakenBack([(TASK, number) for number in range(300)]),
        Done([DoneRow(TASK, number, (), 1.0) for number in range(300)], 3),
        Submit(PEER, b"", 0, [TaskRow(TASK, number) for number in range(300)], [1] * 300),
        Cancel([TASK] * 300, False, True, 7),
        Beat(0.0, 1, 0, [RunningRow(TASK, 1, 0.0)] * 300),
    ],
)
def test_what_cannot_be_divided_travels_in_parts(message: Any) -> None:
    pieces = codec.split(message, 256)
    assert len(pieces) > 5
    assert all(len(piece) <= 256 for piece in pieces)
    assert joined(pieces, codec.Reader.to_scheduler()) == [message]


def test_states_and_answers_are_never_divided() -> None:
    answer, shapes = Answer(1, ["x" * 50] * 50), Shapes([])
    pieces = [*codec.split(answer, 256), *codec.split(shapes, 256)]
    assert joined(pieces, codec.Reader.to_client()) == [answer, shapes]


def test_a_long_row_among_short_ones_keeps_its_place() -> None:
    rows = [TaskRow(TASK, number, b"x" * (2000 if number == 2 else 5)) for number in range(5)]
    joint = joined(codec.split(Submit(PEER, b"", 0, rows), 256), codec.Reader.to_scheduler())
    assert [row for message in joint for row in message.rows] == rows


def test_a_message_longer_than_any_can_be_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MESSAGE_BYTES_MAX", 1000)
    with pytest.raises(MessageTooLarge) as caught:
        codec.split(submit(1, 2000), 256)
    assert caught.value.limit_bytes == 1000


def test_parts_that_do_not_end_or_have_no_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = codec.Reader.to_scheduler()
    assert reader.read(codec.encode(Part(b"abc", False))) is None
    with pytest.raises(RemoteProtocolError, match="not sent to its end"):
        reader.read(codec.encode(submit(1)))
    assert reader.read(codec.encode(submit(1))) == submit(1)
    with pytest.raises(RemoteProtocolError, match="parts of parts"):
        reader.read(codec.encode(Part(codec.encode(Part(b"x", True)), True)))
    with pytest.raises(RemoteProtocolError, match="empty"):
        reader.read(codec.encode(Part(b"", False)))
    monkeypatch.setattr(codec, "MESSAGE_BYTES_MAX", 1000)
    assert reader.read(codec.encode(Part(bytes(600), False))) is None
    with pytest.raises(RemoteProtocolError, match="longer than"):
        reader.read(codec.encode(Part(bytes(600), False)))
    assert reader.read(codec.encode(submit(1))) == submit(1)


def test_the_page_of_the_protocol_shows_every_message_field_by_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    page = " ".join(page.split())
    for name, struct in vars(messages).items():
        if not isinstance(struct, type) or not issubclass(struct, messages.Message | messages.Row):
            continue
        if struct in {messages.Message, messages.Row}:
            continue
        tag = struct.__struct_config__.tag
        start = rf'\["{tag}"' if tag else rf"{name} = \["
        fields = [rf"{field}(=[^,]*(\[\]|\{{\}})?)?" for field in struct.__struct_fields__]
        head = [start] if tag else []
        pattern = ", ".join(head + fields) if tag else start + ", ".join(fields)
        assert re.search(pattern + r"\]", page), name
