"""Whatever comes, from whomever: a decoder returns what fits, or raises what it says it raises."""

import json
import pickle
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any, get_args

import msgspec
import psutil
import pytest
from drumbeat.client.options import check
from drumbeat.node.__main__ import main as node_main
from drumbeat.node.packets import ToDaemon, ToWorker
from drumbeat.protocol import codec
from drumbeat.protocol.blobs import CHUNKS_MAX, Assembler
from drumbeat.protocol.dialer import Dialer
from drumbeat.protocol.errors import ConfigError, NotPicklable, RemoteProtocolError
from drumbeat.protocol.forms import AMOUNT_MAX, COUNT_MAX
from drumbeat.protocol.frames import Batch, Bulk, Channel, Chunk, Frame, Part
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.link import Link
from drumbeat.protocol.listener import Listener, SendFrame
from drumbeat.protocol.messages import (
    CAUSES_MAX,
    Join,
    Outcome,
    Results,
    ToClient,
    ToNode,
    ToScheduler,
    ValueRow,
)
from drumbeat.protocol.outcomes import error_of
from drumbeat.protocol.payload import load_error, pack_error
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler.statefile import StateFile
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fuzzing import ODD, TEXTS, Words, damaged

KINDS = sorted(
    {
        *get_args(ToScheduler), *get_args(ToClient), *get_args(ToNode), *get_args(Frame),
        *get_args(ToWorker), *get_args(ToDaemon), *get_args(Bulk), Part,
    },
    key=lambda kind: kind.__name__,
)  # fmt: skip
DECODERS: list[Callable[[bytes], Any]] = [
    codec.decode_frame, codec.decode_to_scheduler, codec.decode_to_client, codec.decode_to_node,
    codec.decode_bulk, codec.decoder(ToWorker), codec.decoder(ToDaemon),
]  # fmt: skip
IDS = [b"peer-a", b"peer-b", b"a" * 14, b"b" * 14, b"a" * 14 + b"\0\1", b"c" * 15, b"h" * 16]
#: seeds: a Random that hypothesis can shrink costs a hundred times as much
chance = st.builds(Random, st.integers(0, 2**32))


def words(rng: Random) -> Words:
    return Words(rng, IDS, (0, 1, 2))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_damaged_message_of_any_kind_is_understood_or_refused(kind: Any) -> None:
    for seed in range(40):
        rng = Random(seed)
        encoded = codec.encode(words(rng).message(kind))
        for raw in (encoded, damaged(rng, encoded)):
            for decode in DECODERS:
                with suppress(RemoteProtocolError):
                    decode(raw)


@settings(max_examples=50)
@given(rng=chance)
def test_messages_in_parts_are_joined_or_refused(rng: Random) -> None:
    for reader in (codec.Reader.to_scheduler(), codec.Reader.to_client(), codec.Reader.to_node()):
        for _ in range(12):
            whole = codec.encode(words(rng).message(*KINDS))
            cut = rng.randint(0, len(whole))
            raw: Any = rng.choice(
                [whole, codec.encode(Part(whole[:cut], False)), codec.encode(Part(whole, True))]
            )
            with suppress(RemoteProtocolError):
                reader.read(damaged(rng, raw) if rng.random() < 0.3 else raw)


@settings(max_examples=150)
@given(rng=chance)
def test_chunks_make_a_payload_or_are_refused_and_no_more_is_kept_than_may_be(rng: Random) -> None:
    assembler = Assembler(1000)
    for _ in range(30):
        count = rng.choice((1, 2, 3, CHUNKS_MAX, 2**62))
        index = rng.choice((0, 0, 1, 2, 2**62))
        chunk = Chunk(rng.choice(IDS[2:6]), index, count, rng.randbytes(rng.choice((0, 1, 400))))
        with suppress(RemoteProtocolError):
            assembler.add(chunk)
        assert assembler.pending_bytes <= 1000


def frame_of(rng: Random) -> bytes:
    """Any frame, some of them right, damaged now and then."""
    if rng.random() < 0.4:
        inside = [msgspec.Raw(codec.encode(words(rng).message(*KINDS)))]
        frame: Any = Batch(rng.choice((0, 1, 2, 3)), rng.choice((0, 0, 1, 2**62)), inside)
    else:
        frame = words(rng).message(*get_args(Frame))
    encoded = codec.encode(frame)
    return damaged(rng, encoded) if rng.random() < 0.3 else encoded


@settings(max_examples=200)
@given(rng=chance)
def test_frames_of_many_connections_never_break_the_listener_nor_another_link(rng: Random) -> None:
    listener, innocent, link = Listener(Settings(), 3), PeerId(b"innoce"), Link(Settings())
    hello = codec.encode(
        msgspec.convert(
            ["hello", 1, "client", innocent, 0, 0, 0, "3.11", "me", 0], get_args(Frame)[0]
        )
    )
    welcomed = listener.received(b"good", hello, 0.0)
    assert isinstance(welcomed[0], SendFrame)
    delivered = 0
    for number in range(12):
        route = rng.choice((b"r1", b"r2", b"r3"))
        for command in listener.received(route, frame_of(rng), float(number)):
            if isinstance(command, SendFrame):
                codec.decode_frame(command.data)
        listener.flush(float(number))
        link.queue(codec.encode(Results([])))
        for frame in link.flush(float(number)):
            delivered += sum(
                type(one).__name__ == "Delivered"
                for one in listener.received(b"good", frame, float(number))
            )
        listener.time_passed(float(number))
    assert delivered == 12
    taken = listener.frames_refused + listener.strangers_reset
    assert taken <= 12


@settings(max_examples=200)
@given(rng=chance)
def test_whatever_a_scheduler_says_first_or_later_a_dialler_goes_on(rng: Random) -> None:
    for channel in Channel:
        dialer = Dialer("client", PeerId(b"dialer"), channel, "me", "3.11", Settings(), Random(1))
        dialer.start(0.0)
        now_s = 0.0
        for _ in range(12):
            now_s += rng.choice((0.0, 0.1, 3.0))
            dialer.received(frame_of(rng), now_s)
            dialer.link.queue(codec.encode(Results([])))
            dialer.flush(now_s)
            dialer.time_passed(now_s)


@contextmanager
def memory_limited() -> Iterator[None]:
    """Four damaged bytes can ask pickle for a table of many gigabytes: it is to be refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@settings(max_examples=150)
@given(rng=chance)
def test_any_error_report_is_an_exception_to_raise(rng: Random) -> None:
    report = pack_error(ValueError("no"), name="f", task="t", node="n", pid=1, attempt=1).payload
    raw = bytearray(report)
    for _ in range(rng.randint(0, 4)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    payload = rng.choice([bytes(raw), rng.randbytes(9), report[: rng.randint(0, len(report))], b""])
    row = ValueRow(b"a" * 14, Outcome.ERROR, payload)
    with memory_limited():
        with suppress(NotPicklable):
            load_error(payload)
        assert isinstance(error_of(row), BaseException)


@pytest.mark.parametrize("value", ["text", (1, 2, 3), None, ("a",) * 9, ("a",) * 40])
def test_what_is_no_error_report_says_so(value: Any) -> None:
    with pytest.raises(NotPicklable, match="error report"):
        load_error(pickle.dumps(value))


class Exits:
    def __reduce__(self) -> Any:
        return (exit, (3,))


def test_an_error_report_that_asks_for_more_memory_than_there_is_is_an_error() -> None:
    table_of_34_gigabytes = b"\x80\x05Nr\xff\xff\xff\x7f."
    with memory_limited():
        error = error_of(ValueRow(b"a" * 14, Outcome.ERROR, table_of_34_gigabytes))
    assert isinstance(error, NotPicklable)


def test_an_error_report_that_ends_its_reader_is_an_error() -> None:
    payload = pickle.dumps(Exits())
    error = error_of(ValueRow(b"a" * 14, Outcome.ERROR, payload))
    assert isinstance(error, NotPicklable)
    assert "SystemExit" in str(error)


@settings(max_examples=150)
@given(rng=chance)
def test_any_failure_that_decodes_is_an_exception_to_raise(rng: Random) -> None:
    row = words(rng).message(ValueRow)
    row.outcome = Outcome.FAILURE
    if row.failure is not None:
        names = ("text", "self", "args", "cause", "__class__", "task", *TEXTS)
        row.failure.details = {rng.choice(names): rng.choice((None, 1, "x")) for _ in range(4)}
    row.payload = None
    assert isinstance(error_of(row), BaseException)


def test_failures_within_each_other_without_end_are_refused() -> None:
    failure: Any = None
    for _ in range(CAUSES_MAX + 2):
        failure = ["DependencyFailed", "text", {}, failure]
    raw = msgspec.msgpack.encode(["results", [[b"a" * 14, 2, None, 0, [], failure]]])
    with pytest.raises(RemoteProtocolError, match="causes within each other"):
        codec.decode_to_client(raw)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (["join", "n", "h", 1, {"CPU": float("inf")}], r"join\.resources"),
        (["join", "n", "h", 1, {"CPU": float("nan")}], r"join\.resources"),
        (["define", b"client", [[1, b"h" * 16, "f", [2 * AMOUNT_MAX]]]], "num_cpus"),
        (["submit", b"client", b"", 0, [], [COUNT_MAX + 1]], r"submit\.attempts"),
        (["done", [[b"a" * 14, 1, [], float("inf")]]], "duration_s"),
    ],
)
def test_numbers_that_cannot_be_counted_with_are_refused(message: Any, field: str) -> None:
    with pytest.raises(RemoteProtocolError, match=field):
        codec.decode_to_scheduler(msgspec.msgpack.encode(message))
    assert Join("n", "h", 1, {"CPU": AMOUNT_MAX}) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_cpus", 1e16), ("num_gpus", 1e16), ("resources", {"a": 1e16}), ("retry_backoff_s", 1e11)],
)
def test_what_the_wire_would_refuse_is_refused_at_the_call(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        check({name: value})


@settings(max_examples=150)
@given(rng=chance)
def test_a_damaged_state_file_is_read_or_named_as_broken(rng: Random) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "scheduler.state")
        StateFile(path).begin()
        whole = path.read_bytes()
        plain = rng.choice(
            [*ODD[:4], "x", {"epoch": rng.choice((*ODD[:5], 2**70)), "nodes": []}, []]
        )
        raw = bytearray(whole)
        raw[rng.randrange(len(raw))] = rng.randrange(256)
        nested = b"[" * 100_000
        path.write_bytes(
            rng.choice([bytes(raw), rng.randbytes(20), json.dumps(plain).encode(), b"", nested])
        )
        with suppress(ConfigError):
            epoch, *_ = StateFile(path).begin()
            assert epoch > 1


@settings(max_examples=100)
@given(rng=chance)
def test_settings_of_another_process_fit_or_are_refused_by_name(rng: Random) -> None:
    names = (*Settings.__struct_fields__, "nonsense", "")
    plain = {rng.choice(names): rng.choice((*TEXTS, -1, 0, 1.5, None, [], {})) for _ in range(2)}
    text = rng.choice([json.dumps(plain), "[]", "null", "{", "[" * 100_000, '{"a": NaN}', ""])
    with suppress(ConfigError):
        Settings.load_json(text)


@pytest.mark.parametrize(
    "flags",
    [
        ["--settings", "[]"], ["--settings", "{"], ["--settings", '{"window_s": "x"}'],
        ["--resources", "[]"], ["--resources", "{"], ["--resources", '{"a": Infinity}'],
        ["--resources", '{"a": 1e300}'], ["--num-cpus", "nan"], ["--num-cpus", "inf"],
    ],
)  # fmt: skip
def test_a_node_with_flags_that_make_no_sense_says_so_in_a_line(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert node_main(["--directory", str(tmp_path), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("drumbeat node: ")
    assert said.count("\n") == 1
