"""The session of a worker: what it waits for, in which phase, and what it keeps."""

import time
from collections import deque
from collections.abc import Callable, Iterator

import pytest
from drumbeat.node.channel import channel_pair
from drumbeat.node.held import Held
from drumbeat.node.line import Line
from drumbeat.node.nested import WorkerSession
from drumbeat.node.packets import (
    Answered,
    Finished,
    FinishedRow,
    Refs,
    ToDaemon,
    Want,
    WantOver,
)
from drumbeat.node.page import (
    CHECKPOINTING,
    FETCHING,
    HEALTH_CHECK,
    IMPORTING,
    INTERRUPT,
    PHASE,
    PICKLING,
    RUNNING,
    RUNNING_CODE,
    UNPICKLING,
    WAITING,
    PulsePage,
)
from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.errors import (
    GetTimeoutError,
    Interrupted,
    MessageTooLarge,
    ObjectLost,
    RemoteProtocolError,
)
from drumbeat.protocol.ids import ObjectId, PeerId, TaskId, item_of, show, task_of
from drumbeat.protocol.messages import Failure, Outcome, ValueRow
from drumbeat.protocol.parcels import Hint, Parcel, Part
from drumbeat.protocol.segments import HEAD_BYTES, head_of, write

SLOT = 3
A, S = ObjectId(b"a" * 16), ObjectId(b"s" * 16)
LARGE = 65 << 10
_decode = decoder(ToDaemon)


class Bench:
    """A worker's session, and the node's end of its line."""

    def __init__(self) -> None:
        self.words = PulsePage().slot(SLOT)
        self.far, near = channel_pair("seqpacket")
        self.held = Held()
        self.line = Line(near, self.words, self.held)
        self.session = WorkerSession(
            self.line,
            self.words,
            self.held,
            PeerId(b"n" * 6),
            1,
            lambda: None,
            lambda: None,
            "here",
        )
        self.requests = 0
        #: the phase in which it was found to wait
        self.phases: list[int] = []
        self.line.look_here = lambda: self.phases.append(self.words[PHASE])

    def answer(self, *rows: ValueRow) -> None:
        """Answer the next request, ahead of it."""
        self.requests += 1
        self.far.send(encode(Answered(self.requests, list(rows))))

    def sent(self) -> list[object]:
        packets = []
        while (packet := self.far.receive(wait=False)) is not None:
            packets.append(_decode(packet.data))
        return packets

    def wanted(self) -> list[list[bytes]]:
        return [packet.ids for packet in self.sent() if type(packet) is Want]


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.line.close()
    bench.far.close()


def value(payload: bytes, id_: ObjectId = A) -> ValueRow:
    return ValueRow(id_, Outcome.VALUE, payload)


# ------------------------------------------------------------------------------------- the phase


@pytest.mark.parametrize(
    ("phase", "meanwhile"),
    [
        (RUNNING_CODE, WAITING),
        (PICKLING, WAITING),
        (UNPICKLING, FETCHING),
        (IMPORTING, FETCHING),
        (CHECKPOINTING, CHECKPOINTING),
        (HEALTH_CHECK, HEALTH_CHECK),
    ],
)
def test_after_a_wait_what_was_done_before_it_goes_on(
    bench: Bench, phase: int, meanwhile: int
) -> None:
    bench.words[PHASE] = phase
    bench.answer(value(b"x"))
    assert bench.session.get([A], None) == [value(b"x")]
    assert (bench.phases, bench.words[PHASE]) == ([meanwhile], phase)


@pytest.mark.parametrize("phase", [RUNNING_CODE, UNPICKLING, IMPORTING])
def test_whoever_waits_for_its_arguments_is_interrupted_as_any_other_that_waits(
    bench: Bench, phase: int
) -> None:
    bench.words[RUNNING], bench.words[PHASE] = 5, phase

    def interrupt() -> None:
        bench.words[INTERRUPT] = 5

    bench.line.look_here = interrupt
    bench.answer()
    with pytest.raises(Interrupted):
        bench.session.get([A], None)
    assert [type(packet) for packet in bench.sent()] == [Want, WantOver]
    assert bench.words[PHASE] == phase


# --------------------------------------------------------------------------------- what is kept


def test_a_small_value_is_asked_for_once_and_a_large_one_whenever_it_is_needed(
    bench: Bench,
) -> None:
    bench.session.hold(A)
    bench.answer(value(b"x"))
    assert [bench.session.get([A], None)[0].payload for _ in range(2)] == [b"x"] * 2
    assert bench.wanted() == [[A]]
    large = value(bytes(LARGE), S)
    for _ in range(2):
        bench.answer(large)
        assert bench.session.get([A, S, S], None) == [value(b"x"), large, large]
    assert bench.wanted() == [[S], [S]]
    bench.answer(large)
    assert bench.session.peek(S) == large
    assert list(bench.held.values) == [A]


def test_a_large_value_that_came_for_a_callback_is_not_kept(bench: Bench) -> None:
    rows: list[ValueRow] = []
    bench.line._listening = True  # this thread reads
    bench.session.when_ready(S, rows.append)
    bench.answer(value(bytes(LARGE), S))
    bench.line._receive(wait=True)
    callback, answered = bench.line._called.popleft()
    callback(answered)
    assert [len(row.payload or b"") for row in rows] == [LARGE]
    assert not bench.held.values


def test_a_value_that_comes_when_no_reference_to_it_lives_is_not_kept(bench: Bench) -> None:
    id_ = item_of(TaskId(A[:14]), 0)
    row = ValueRow(id_, Outcome.VALUE, b"x")
    # Whoever waited for the next value that a task yields was interrupted, or it was closed.
    bench.answer(row)
    assert bench.session.get([id_], None) == [row]
    bench.line.flush()
    assert not bench.held.values
    # Else its reference is the first.
    bench.answer(row)
    assert bench.session.get([id_], None) == [row]
    bench.session.read(task_of(id_), 1, over=False)
    bench.line.flush()
    assert list(bench.held.values) == [id_]
    bench.session.drop(id_)
    bench.line.flush()
    assert not bench.held.values
    assert [packet for packet in bench.sent() if type(packet) is Refs] == [Refs([], [id_])]


# --------------------------------------------------------------------------------- large values


def parcel(hint: Hint | None, offset: int, size: int) -> Parcel:
    part = Part(S, offset, size, False)
    return Parcel(b"stream", (part,), {} if hint is None else {S: hint}, False)


def test_the_bytes_of_a_segment_of_this_machine_are_mapped_and_held_while_they_are_used(
    bench: Bench,
) -> None:
    segment, ((offset, size),) = write(S, [b"bytes" * 1_000])
    stream, (buffer,) = bench.session.buffers(parcel(segment.hint("here"), offset, size))
    assert (stream, bytes(buffer)) == (b"stream", b"bytes" * 1_000)
    bench.line.flush()
    assert bench.sent() == [Refs([S], [])]
    buffer[:5] = b"BYTES"  # its own copy: nobody else sees that
    del buffer
    bench.line.flush()
    assert bench.sent() == [Refs([], [S])]
    with segment.view() as whole:
        assert bytes(whole[offset : offset + 5]) == b"bytes"
    segment.close()


@pytest.mark.parametrize("machine", ["there", ""])
def test_bytes_that_lie_on_another_machine_are_asked_for_and_not_kept(
    bench: Bench, machine: str
) -> None:
    segment, ((offset, size),) = write(S, [b"bytes" * 20_000])
    bench.words[PHASE] = UNPICKLING
    with segment.view() as whole:
        bench.answer(value(bytes(whole), S))
    _, (buffer,) = bench.session.buffers(parcel(segment.hint(machine), offset, size))
    assert bytes(buffer) == b"bytes" * 20_000
    assert bench.wanted() == [[S]]
    assert (bench.phases, bench.words[PHASE]) == ([FETCHING], UNPICKLING)
    assert not bench.held.values
    segment.close()


def test_bytes_that_are_late_are_told_so_and_the_node_knows_how_long_was_waited(
    bench: Bench,
) -> None:
    bench.requests += 1
    bench.far.send(encode(Answered(bench.requests, timed_out=True)))
    with pytest.raises(GetTimeoutError, match="its bytes"):
        bench.session.buffers(parcel(None, HEAD_BYTES, 1), time.monotonic() + 100)
    (want,) = [packet for packet in bench.sent() if type(packet) is Want]
    assert want.timeout_s is not None
    assert 90 < want.timeout_s <= 100


@pytest.mark.parametrize("kind", [ObjectLost, MessageTooLarge])
def test_bytes_that_cannot_be_had_are_an_error_that_names_their_object(
    bench: Bench, kind: type[Exception]
) -> None:
    failure = Failure(kind.__name__, "it is gone")
    bench.answer(ValueRow(S, Outcome.FAILURE, failure=failure))
    with pytest.raises(kind, match="it is gone") as caught:
        bench.session.buffers(parcel(None, HEAD_BYTES, 1))
    assert caught.value.__dict__["object"] == show(S)
    assert not bench.held.values


def test_what_was_asked_for_and_is_no_segment_is_refused(bench: Bench) -> None:
    bench.answer(value(head_of(A, 100).ljust(100), S))
    with pytest.raises(RemoteProtocolError, match="is no segment"):
        bench.session.buffers(parcel(None, HEAD_BYTES, 1))


# ------------------------------------------------------------------------ what a result names


class Late(deque[object]):
    """An outbox into which something is left just when another thread has emptied it."""

    def __init__(self, leave: Callable[["Late"], None]) -> None:
        super().__init__()
        self._leave: Callable[[Late], None] | None = leave

    def __bool__(self) -> bool:
        if not len(self) and self._leave is not None:
            leave, self._leave = self._leave, None
            leave(self)
            return False
        return len(self) > 0


def test_what_a_result_names_is_told_to_have_gone_after_it(bench: Bench) -> None:
    def end(outbox: Late) -> None:
        outbox.append(FinishedRow(5, (ValueRow(b"t" * 14, Outcome.VALUE, b"", 0, (A,)),), 0.1))
        bench.session.drop(A)

    bench.session.hold(A)
    bench.line.flush()
    bench.line.outbox = Late(end)  # type: ignore[assignment]
    bench.session.hold(S)
    bench.line.flush()
    bench.line.flush()
    bench.line.flush()
    held, came, finished, gone = bench.sent()
    assert (held, came, gone) == (Refs([A], []), Refs([S], []), Refs([], [A]))
    assert type(finished) is Finished


def test_what_comes_again_before_it_was_told_to_have_gone_is_not_told(bench: Bench) -> None:
    bench.session.hold(A)
    bench.line.flush()

    def again(outbox: Late) -> None:
        outbox.append(FinishedRow(5, (ValueRow(b"t" * 14, Outcome.VALUE, b""),), 0.1))
        bench.session.hold(A)

    bench.session.drop(A)
    bench.line.outbox = Late(again)  # type: ignore[assignment]
    bench.line.flush()
    bench.line.flush()
    assert [type(packet) for packet in bench.sent()] == [Refs, Finished]
    assert bench.held.report(bench.held.gone()) is None
