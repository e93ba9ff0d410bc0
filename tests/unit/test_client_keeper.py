"""What keeps large buffers for a client: in which order the core is told, and who waits."""

import asyncio
import errno
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from drumbeat.client.events import (
    Put,
    RefsChanged,
    Submitted,
)
from drumbeat.client.keeper import SegmentKeeper, for_divisible, for_puts
from drumbeat.client.session import ClusterSession
from drumbeat.protocol import machine, segments
from drumbeat.protocol.errors import (
    Backpressure,
    ClusterError,
    GetTimeoutError,
    NotInitialized,
    ObjectLost,
)
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import (
    Environment,
    Fetch,
    Options,
    Outcome,
    Results,
    Submit,
    TaskRow,
    ValueRow,
    Values,
    Wanted,
)
from drumbeat.protocol.parcels import Parcel, Part, opened, seal
from drumbeat.protocol.session import FunctionDefinition, Kept, Kind, Packed
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.store import Store
from drumbeat.protocol.transport import Blob, Message, Refused
from support.client_bench import PEER, foreign
from support.fake_dial import FakeDial, silent

LARGE = bytes(range(256)) * 8
needs_segments = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)


# ------------------------------------------------------------------------------------- the session


class Made:
    def __init__(self, session: ClusterSession, dial: FakeDial) -> None:
        self.session = session
        self.dial = dial
        self.store = session._store
        self.kind = Kind(FunctionDefinition("work", b"h" * 16, b"code"), Options(), "work")

    def keep(self, *buffers: bytes) -> Kept:
        assert self.session.keeper is not None
        kept = self.session.keeper([memoryview(one) for one in buffers or (LARGE,)])
        assert kept is not None
        return kept

    def packed(self, size: int = len(LARGE)) -> Packed:
        kept = self.keep(LARGE[:size])
        parts = tuple(Part(kept.id, *span, False) for span in kept.spans)
        payload = seal(Parcel(b"stream", parts, {kept.id: kept.hint}, False))
        return Packed(payload, (), (ObjectId(kept.id),), (kept.ref,))

    def rows(self) -> list[TaskRow]:
        return [row for one in self.dial.sent if isinstance(one, Submit) for row in one.rows]

    def settle(self) -> None:
        """Have all that lies in the inbox be told."""
        assert self.session.wait_until(lambda: not self.session._inbox.waits(), 10.0)

    def finish(self, id_: ObjectId) -> None:
        self.settle()  # a result is of what the core knows
        row = ValueRow(id_, Outcome.VALUE, b"")
        self.dial.happenings.append(Message(Results([row])))
        self.session.get([id_], 10.0)


Make = Callable[..., Made]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def make(**settings: Any) -> Made:
            dial = FakeDial(silent)
            environment = Environment(machine=machine.identity())
            values = Settings(**{"segment_bytes_min": 1024, **settings})
            session = ClusterSession("ipc:///none", values, "test", environment, PEER, lambda: dial)
            session.start()
            stack.callback(session.close)
            return Made(session, dial)

        yield make


@needs_segments
def test_what_is_kept_can_be_found_on_this_machine_as_it_was(make: Make) -> None:
    made = make()
    kept = made.keep(LARGE, b"second")
    assert kept.ref.id == kept.id
    assert kept.hint.machine == machine.identity()
    fd = segments.find(kept.hint, kept.id)
    assert fd is not None
    found = segments.map_of(fd, kept.hint.size, private=False)
    os.close(fd)
    assert [found[at : at + size] for at, size in kept.spans] == [LARGE, b"second"]


@needs_segments
def test_a_segment_is_told_to_the_core_before_the_call_and_let_go_after_it(make: Make) -> None:
    made = make()
    told: list[Any] = []
    core = made.session._core
    handle = core.handle
    core.handle = lambda event, now_s: told.append(event) or handle(event, now_s)  # type: ignore[assignment]
    for _ in range(50):
        (id_,) = made.session.submit(made.kind, made.packed())
        made.finish(id_)
        made.session.drop(id_)
    made.settle()
    here: dict[bytes, int] = {}
    for event in told:
        match event:
            case Put():
                here.update((row.id, 1) for row in event.rows)
            case Submitted():
                for call in event.calls:
                    assert here[call.row.contained[0]] == 1
                    here[call.row.contained[0]] = 2
            case RefsChanged():
                for changed, _ in event.changes:
                    assert here.pop(changed, 2) == 2
    assert not here
    assert made.session.wait_until(lambda: not len(made.store), 10.0)


@needs_segments
def test_a_segment_is_closed_when_its_call_has_ended(make: Make) -> None:
    made = make()
    (id_,) = made.session.submit(made.kind, made.packed())
    made.settle()
    assert len(made.store) == 1
    made.finish(id_)
    assert made.session.wait_until(lambda: not len(made.store), 10.0)


@needs_segments
def test_a_segment_is_closed_when_what_needs_it_is_never_submitted(make: Make) -> None:
    made = make()
    packed = made.packed()
    made.settle()
    assert len(made.store) == 1
    del packed
    gc.collect()
    assert made.session.wait_until(lambda: not len(made.store), 10.0)


@needs_segments
def test_a_put_keeps_its_segment_until_it_is_let_go(make: Make) -> None:
    made = make()
    id_ = made.session.put(made.packed())
    made.settle()
    assert made.session.peek(id_) is not None
    assert len(made.store) == 1
    made.session.drop(id_)
    assert made.session.wait_until(lambda: not len(made.store), 10.0)


@needs_segments
def test_what_is_let_go_of_when_the_cluster_is_gone_leaves_no_memory(make: Make) -> None:
    made = make()
    packed = made.packed()
    id_ = made.session.put(packed)
    made.settle()
    made.dial.happenings.append(Refused("ClusterError", "it is gone"))
    made.session._service.wake()
    with pytest.raises(ClusterError):
        made.session.wait_until(lambda: False, 10.0)
    stream, (read,) = made.session.buffers(opened(packed.payload or b""))
    assert (stream, bytes(read)) == (b"stream", LARGE)
    made.session.drop(id_)
    del packed
    gc.collect()
    assert len(made.store) == 1, "it is mapped"
    del read
    assert not len(made.store)
    warm = made.store._warm
    assert warm is None or not len(warm)


@needs_segments
def test_a_segment_that_is_wanted_goes_out_whole_on_the_bulk_link(make: Make) -> None:
    made = make()
    packed = made.packed()
    (segment,) = packed.contained
    made.settle()
    made.dial.happenings.append(Message(Wanted([segment])))
    made.session._service.wake()
    assert made.session.wait_until(lambda: bool(made.dial.blobs), 10.0)
    ((key, data),) = made.dial.blobs
    kept = made.store.get(segment)
    assert kept is not None
    assert (key, len(data)) == (segment, kept.size)
    assert bytes(data).endswith(LARGE)
    # what is on its way is there, whatever becomes of the segment
    del packed, kept
    assert made.session.wait_until(lambda: not len(made.store), 10.0)
    assert bytes(data).endswith(LARGE)


@needs_segments
def test_without_memory_to_read_a_segment_out_its_reader_fails_and_the_session_goes_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    packed = made.packed()
    (segment,) = packed.contained
    made.settle()

    def no_memory(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(segments, "map_of", no_memory)
    made.dial.happenings.append(Message(Wanted([segment])))
    made.session._service.wake()
    assert made.session.wait_until(lambda: bool(made.dial.blobs), 10.0)
    # It is no segment: that is looked at where it comes to.
    assert made.dial.blobs == [(segment, b"")]
    assert not made.session.failed


@needs_segments
def test_whoever_reads_a_parcel_holds_its_segment_as_long_as_it_looks(make: Make) -> None:
    made = make()
    packed = made.packed()
    parts = (Part(packed.contained[0], 64, len(LARGE), False),)
    stream, views = made.session.buffers(Parcel(b"stream", parts, {}, False))
    assert (stream, bytes(views[0])) == (b"stream", LARGE)
    views[0][:3] = b"new"
    del packed
    made.settle()
    assert len(made.store) == 1
    assert bytes(views[0][:5]) == b"new" + LARGE[3:5]
    del views
    assert made.session.wait_until(lambda: not len(made.store), 10.0)


@needs_segments
def test_the_bytes_of_a_segment_of_another_client_come_from_its_home(make: Make) -> None:
    made = make()
    other = foreign()
    segment, spans = segments.write(other, [LARGE])
    whole = segment.view()

    def answer(message: Any) -> list[Any]:
        if isinstance(message, Fetch):
            row = ValueRow(other, Outcome.VALUE, None, len(whole))
            made.dial.happenings.extend([Message(Values([row])), Blob(other, bytes(whole))])
        return []

    made.dial.answer = answer
    parts = (Part(other, *spans[0], True),)
    hints = {other: segment.hint("another machine")}
    _, views = made.session.buffers(Parcel(b"stream", parts, hints, True))
    assert bytes(views[0]) == LARGE
    segment.close()


@needs_segments
def test_the_bytes_of_another_client_are_here_once_however_many_read_them(make: Make) -> None:
    made = make()
    other = foreign()
    segment, spans = segments.write(other, [LARGE])
    data = bytes(segment.view())
    segment.close()

    def answer(message: Any) -> list[Any]:
        if isinstance(message, Fetch):
            row = ValueRow(other, Outcome.VALUE, None, len(data))
            made.dial.happenings.extend([Message(Values([row])), Blob(other, data)])
        return []

    made.dial.answer = answer
    made.session.hold(other)  # what is read names it
    parcel = Parcel(b"stream", (Part(other, *spans[0], True),), {}, True)
    for _ in range(2):
        assert made.session.buffers(parcel)[1][0].obj is data
    assert sum(isinstance(one, Fetch) for one in made.dial.sent) == 1
    made.session.drop(other)
    assert made.session.wait_until(lambda: made.session.peek(other) is None, 10.0)


@needs_segments
def test_bytes_that_do_not_come_are_waited_for_no_longer_than_asked(make: Make) -> None:
    made = make()
    parcel = Parcel(b"stream", (Part(foreign(), 64, 3, True),), {}, True)
    with pytest.raises(GetTimeoutError, match="its bytes"):
        made.session.buffers(parcel, time.monotonic() + 0.05)


@needs_segments
def test_own_bytes_that_are_gone_are_lost_at_once(make: Make) -> None:
    made = make()
    parts = (Part(made.session.new_id(), 64, 3, True),)
    with pytest.raises(ObjectLost, match=r"the bytes of .* are gone"):
        made.session.buffers(Parcel(b"stream", parts, {}, True))


@needs_segments
def test_packing_waits_for_room_before_it_takes_memory(make: Make) -> None:
    made = make(submit_buffer_bytes_max=3000)
    (first,) = made.session.submit(made.kind, made.packed())
    made.settle()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(made.packed()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    assert len(made.store) == 1
    made.dial.happenings.append(Message(Results([ValueRow(first, Outcome.VALUE, b"")])))
    made.session._service.wake()
    thread.join(10.0)
    assert len(found) == 1


@needs_segments
def test_an_event_loop_is_told_of_backpressure_before_memory_is_taken(make: Make) -> None:
    made = make(submit_buffer_bytes_max=3000)
    made.session.submit(made.kind, made.packed())

    async def pack() -> None:
        with pytest.raises(Backpressure):
            made.packed()

    asyncio.run(pack())
    assert len(made.store) == 1


@needs_segments
def test_a_put_waits_for_no_room(make: Make) -> None:
    made = make(submit_buffer_bytes_max=3000)
    made.session.submit(made.kind, made.packed())
    keep = for_puts(made.session.keeper)
    assert keep is not None
    assert keep.bytes_min == 1024
    assert keep([memoryview(LARGE)]) is not None


@needs_segments
def test_one_value_larger_than_the_whole_buffer_is_kept_when_nothing_else_is(make: Make) -> None:
    made = make(submit_buffer_bytes_max=10)
    (id_,) = made.session.submit(made.kind, made.packed())
    made.finish(id_)
    made.session.submit(made.kind, made.packed())
    assert made.session.wait_until(lambda: len(made.rows()) == 2, 10.0)
    assert [row.size for row in made.rows()] == [len(LARGE)] * 2


@needs_segments
def test_what_cannot_be_kept_travels_as_what_is_small_does(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(segment_bytes_max=3000)
    keeper = made.session.keeper
    assert keeper is not None
    assert keeper([memoryview(LARGE), memoryview(LARGE)]) is None

    def no_room(*_: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(Store, "write", no_room)
    assert keeper([memoryview(LARGE)]) is None
    assert not len(made.store)


@needs_segments
@pytest.mark.parametrize("at", ["before", "after"])
def test_ctrl_c_while_something_is_kept_leaves_nothing(make: Make, at: str) -> None:
    made = make()
    keeper = made.session.keeper
    assert isinstance(keeper, SegmentKeeper)
    append = keeper._append

    def interrupted(row: ValueRow) -> None:
        if at == "after":
            append(row)
        raise KeyboardInterrupt

    keeper._append = interrupted
    with pytest.raises(KeyboardInterrupt):
        made.keep()
    gc.collect()
    made.settle()
    assert made.session.wait_until(lambda: not made.session._core.home.entries, 10.0)
    assert not len(made.store)


@needs_segments
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_keeps_no_memory_of_its_parents_segments(make: Make) -> None:
    made = make()
    kept = made.keep()
    pid = os.fork()
    if not pid:
        os._exit(len(made.store))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert made.store.get(kept.id) is not None
    fd = segments.find(kept.hint, kept.id)
    assert fd is not None
    os.close(fd)


@needs_segments
def test_what_can_be_divided_is_not_kept_if_it_could_not_be_sent(make: Make) -> None:
    made = make(value_bytes_max=3 * len(LARGE), submit_buffer_bytes_max=len(LARGE))
    keep = for_divisible(made.session.keeper)
    assert keep is not None
    assert keep.bytes_min == 1024
    view = memoryview(LARGE)
    # Its file has a head, so that three have no room.
    assert keep([view] * 3) is None
    kept = keep([view, view])
    assert kept is not None
    assert kept.hint.size <= 3 * len(LARGE)


def test_without_segments_there_is_no_keeper(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make(segment_bytes_min=0).session.keeper is None
    monkeypatch.setattr(segments, "are_to_be_had", lambda: False)
    assert make().session.keeper is None
    assert for_puts(None) is None
    assert for_divisible(None) is None


@needs_segments
def test_a_session_that_ends_closes_its_segments_and_keeps_no_more(make: Make) -> None:
    made = make()
    kept = made.keep()
    made.session.close()
    assert not len(made.store)
    assert segments.find(kept.hint, kept.id) is None
    with pytest.raises(NotInitialized):
        made.keep()
    assert not len(made.store)
