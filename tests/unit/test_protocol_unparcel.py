"""The bytes behind a parcel come by the shortest way there is, and are the same by all."""

import errno
import gc
import os
import pickle
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from drumbeat.protocol import segments
from drumbeat.protocol.errors import GetTimeoutError, ObjectLost, RemoteProtocolError
from drumbeat.protocol.parcels import Parcel, Part, opened, seal
from drumbeat.protocol.segments import HEAD_BYTES, Segment, write
from drumbeat.protocol.store import Store
from drumbeat.protocol.unparcel import Segments
from hypothesis import given
from hypothesis import strategies as st
from support.arrays import assert_same_arrays, kinds_of_arrays

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

ID = b"s" * 14
CONTENT = bytes(range(256)) * 40


class Process:
    """What a process has: a store, holds, and bytes that it may ask for."""

    def __init__(
        self, *kept: Segment, machine: str = "here", fetch: Any = None, keeps_fetched: bool = False
    ) -> None:
        self.store = Store()
        for segment in kept:
            self.store.put(segment)
        self.fetched: list[bytes] = []
        self.timeouts_s: list[float | None] = []
        #: each hold and drop, as +1 and -1
        self.holds: list[int] = []
        self._fetch = fetch
        self.segments = Segments(
            self.store,
            machine,
            self._asked,
            self._hold,
            lambda _: self.holds.append(-1),
            keeps_fetched=keeps_fetched,
        )
        self.buffers = self.segments.buffers

    def _asked(self, id_: bytes, timeout_s: float | None) -> Any:
        assert sum(self.holds) == 1, "it is held while its bytes are on their way"
        self.timeouts_s.append(timeout_s)
        self.fetched.append(id_)
        return self._fetch(id_)

    def _hold(self, _: bytes) -> None:
        self.holds.append(1)


def _let_cycles_go(process: Process) -> None:
    # Looking for them takes as long as there are objects in all of the tests' process, each time.
    if sum(process.holds):
        gc.collect()


@pytest.fixture
def segment() -> Iterator[Segment]:
    made, _ = write(ID, [CONTENT])
    yield made
    made.close()


def parcel_of(segment: Segment, *, frozen: bool = False, read_only: bool = False) -> Parcel:
    part = Part(segment.id, HEAD_BYTES, len(CONTENT), read_only)
    return Parcel(b"stream", (part,), {segment.id: segment.hint("here")}, frozen)


def whole(segment: Segment) -> Callable[[bytes], bytes]:
    return lambda _: bytes(segment.view())


def packed(value: Any, id_: bytes = ID, *, frozen: bool = False) -> tuple[Segment, bytes]:
    found: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(value, 5, buffer_callback=found.append)
    views = [buffer.raw() for buffer in found]
    segment, spans = write(id_, views)
    parts = tuple(
        Part(id_, offset, size, view.readonly)
        for view, (offset, size) in zip(views, spans, strict=True)
    )
    return segment, seal(Parcel(stream, parts, {id_: segment.hint("here")}, frozen))


def loaded(process: Process, payload: bytes) -> Any:
    stream, buffers = process.buffers(opened(payload))
    return pickle.loads(stream, buffers=buffers)


# ------------------------------------------------------------------------------------- the ways


@pytest.mark.parametrize("frozen", [False, True])
def test_a_process_maps_what_it_keeps_itself(segment: Segment, frozen: bool) -> None:
    owner = Process(segment, machine="elsewhere")
    stream, (view,) = owner.buffers(parcel_of(segment, frozen=frozen))
    assert stream == b"stream"
    assert view == CONTENT
    assert view.readonly is frozen
    assert not owner.fetched


@pytest.mark.parametrize("frozen", [False, True])
def test_another_process_of_the_machine_maps_what_the_hint_says(
    segment: Segment, frozen: bool
) -> None:
    reader = Process()
    _, (view,) = reader.buffers(parcel_of(segment, frozen=frozen))
    assert view == CONTENT
    assert view.readonly is frozen
    assert not reader.fetched


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("machine", ["elsewhere", ""])
def test_on_another_machine_the_bytes_are_asked_for(
    segment: Segment, frozen: bool, machine: str
) -> None:
    reader = Process(machine=machine, fetch=whole(segment))
    _, (view,) = reader.buffers(parcel_of(segment, frozen=frozen))
    assert view == CONTENT
    assert view.readonly is frozen
    assert reader.fetched == [ID]


def test_machines_without_a_name_are_not_taken_for_the_same(segment: Segment) -> None:
    parcel = parcel_of(segment)
    parcel.hints = {ID: segment.hint("")}
    reader = Process(machine="", fetch=whole(segment))
    reader.buffers(parcel)
    assert reader.fetched == [ID]


def test_bytes_are_asked_for_when_the_hint_leads_nowhere(segment: Segment) -> None:
    parcel = parcel_of(segment)
    data = bytes(segment.view())
    segment.close()
    reader = Process(fetch=lambda _: data)
    assert reader.buffers(parcel)[1] == [CONTENT]
    parcel.hints = {}
    assert reader.buffers(parcel)[1] == [CONTENT]
    assert reader.fetched == [ID, ID]


def test_who_keeps_a_closed_segment_asks_for_its_bytes(segment: Segment) -> None:
    data = bytes(segment.view())
    parcel = parcel_of(segment)
    owner = Process(segment, fetch=lambda _: data)
    segment.close()
    assert owner.buffers(parcel)[1] == [CONTENT]
    assert owner.fetched == [ID]


def test_without_a_descriptor_to_spare_the_bytes_are_asked_for_or_copied(segment: Segment) -> None:
    parcel = parcel_of(segment)
    data = bytes(segment.view())
    owner, reader = Process(segment), Process(fetch=lambda _: data)
    spare = os.dup(segment.fd)
    os.close(spare)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        own, asked = owner.buffers(parcel)[1], reader.buffers(parcel)[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert own == asked == [CONTENT]
    assert (owner.fetched, reader.fetched) == ([], [ID])


def test_without_memory_for_a_map_of_its_own_a_process_says_that_and_not_that_bytes_are_lost(
    segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    owner = Process(segment, fetch=lambda _: pytest.fail("it is here already"))
    monkeypatch.setattr(segments, "map_of", no_memory)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        owner.buffers(parcel_of(segment))
    assert sum(owner.holds) == 0


def test_bytes_are_waited_for_as_long_as_the_reader_says(segment: Segment) -> None:
    def late(_: bytes) -> bytes:
        raise GetTimeoutError("1 of 1 values were not there")

    reader = Process(machine="elsewhere", fetch=whole(segment))
    parcel = parcel_of(segment)
    reader.buffers(parcel)
    reader.buffers(parcel, time.monotonic() + 100)
    reader.buffers(parcel, time.monotonic() - 100)
    forever, some, none = reader.timeouts_s
    assert forever is None
    assert some is not None
    assert 90 < some <= 100
    assert none == 0
    reader = Process(machine="elsewhere", fetch=late)
    with pytest.raises(GetTimeoutError, match="the value is there, but its bytes"):
        reader.buffers(parcel, time.monotonic() + 1)
    assert sum(reader.holds) == 0


# ------------------------------------------------------------------------- writing and sharing


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_what_one_call_writes_into_its_argument_no_other_sees(
    segment: Segment, machine: str
) -> None:
    reader = Process(machine=machine, fetch=whole(segment))
    _, (first,) = reader.buffers(parcel_of(segment))
    first[:3] = b"new"
    _, (second,) = reader.buffers(parcel_of(segment))
    assert bytes(first[:3]) == b"new"
    assert second == CONTENT
    assert segment.view()[HEAD_BYTES:] == CONTENT


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_readers_of_one_frozen_value_share_its_memory_while_one_has_it(
    segment: Segment, machine: str
) -> None:
    reader = Process(machine=machine, fetch=whole(segment))
    parcel = parcel_of(segment, frozen=True)
    arrays = [np.frombuffer(reader.buffers(parcel)[1][0], np.uint8) for _ in range(3)]
    assert len({array.ctypes.data for array in arrays}) == 1
    assert len(reader.fetched) == (machine == "elsewhere")
    del arrays
    gc.collect()
    assert sum(reader.holds) == 0
    reader.buffers(parcel)
    assert len(reader.fetched) == 2 * (machine == "elsewhere")


def test_bytes_that_stay_with_their_object_are_not_there_twice_for_who_only_reads(
    segment: Segment,
) -> None:
    data = bytes(segment.view())
    reader = Process(machine="elsewhere", fetch=lambda _: data, keeps_fetched=True)
    _, (view,) = reader.buffers(parcel_of(segment, frozen=True))
    assert view == CONTENT
    assert view.readonly
    assert view.obj is data
    _, (own,) = reader.buffers(parcel_of(segment))
    own[:3] = b"new"
    assert data[HEAD_BYTES:] == CONTENT
    assert sum(reader.holds) == 0


def test_what_was_read_only_stays_so(segment: Segment) -> None:
    for machine in ("here", "elsewhere"):
        reader = Process(machine=machine, fetch=whole(segment))
        assert reader.buffers(parcel_of(segment, read_only=True))[1][0].readonly


# ----------------------------------------------------------------------------------------- holds


@pytest.mark.parametrize("frozen", [False, True])
def test_who_maps_a_segment_holds_it_until_nothing_uses_the_map(
    segment: Segment, frozen: bool
) -> None:
    reader = Process()
    _, (view,) = reader.buffers(parcel_of(segment, frozen=frozen))
    array = np.frombuffer(view, np.uint8)[5:]
    del view
    gc.collect()
    assert reader.holds == [1]
    del array
    gc.collect()
    assert reader.holds == [1, -1]


def test_who_has_bytes_of_its_own_holds_the_segment_no_longer(segment: Segment) -> None:
    reader = Process(machine="elsewhere", fetch=whole(segment))
    _, views = reader.buffers(parcel_of(segment))
    assert reader.holds == [1, -1]
    assert views == [CONTENT]


def test_a_segment_with_many_parts_is_mapped_once(segment: Segment) -> None:
    parts = tuple(Part(ID, HEAD_BYTES + at, 7, bool(at % 2)) for at in range(20))
    reader = Process()
    _, views = reader.buffers(Parcel(b"", parts, {ID: segment.hint("here")}, False))
    assert reader.holds == [1]
    assert [bytes(view) for view in views] == [CONTENT[at : at + 7] for at in range(20)]


def test_an_object_that_is_lost_is_said_to_be_and_held_no_longer(segment: Segment) -> None:
    def fetch(_: bytes) -> bytes:
        raise ObjectLost("its home has left")

    reader = Process(machine="elsewhere", fetch=fetch)
    with pytest.raises(ObjectLost):
        reader.buffers(parcel_of(segment))
    assert reader.holds == [1, -1]


# ---------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
@pytest.mark.parametrize("frozen", [False, True])
@given(offset=st.integers(0, 20_000), size=st.integers(0, 20_000))
def test_a_part_is_what_lies_there_or_refused_and_nothing_stays_held(
    machine: str, frozen: bool, offset: int, size: int
) -> None:
    segment, _ = write(ID, [CONTENT])
    file = bytes(segment.view())
    reader = Process(machine=machine, fetch=lambda _: file)
    parcel = parcel_of(segment, frozen=frozen)
    parcel.parts = (Part(ID, offset, size, False),)
    if offset + size <= len(file):
        assert reader.buffers(parcel)[1] == [file[offset : offset + size]]
    else:
        with pytest.raises(RemoteProtocolError, match="ends at"):
            reader.buffers(parcel)
    _let_cycles_go(reader)
    assert sum(reader.holds) == 0
    segment.close()


@pytest.mark.parametrize("data", [b"", b"x" * 63, b"x" * 1000])
def test_an_object_that_is_no_segment_is_refused(segment: Segment, data: bytes) -> None:
    reader = Process(machine="elsewhere", fetch=lambda _: data)
    with pytest.raises(RemoteProtocolError, match="no segment"):
        reader.buffers(parcel_of(segment))
    assert reader.holds == [1, -1]


def test_a_segment_that_comes_cut_or_is_another_is_refused(segment: Segment) -> None:
    other, _ = write(b"o" * 14, [CONTENT])
    for data in (bytes(segment.view())[:-1], bytes(segment.view()) + b"x", bytes(other.view())):
        reader = Process(machine="elsewhere", fetch=lambda _, data=data: data)
        with pytest.raises(RemoteProtocolError, match="no segment"):
            reader.buffers(parcel_of(segment))
    other.close()


# ---------------------------------------------------------------------------------- whole values

LEAVES = st.one_of(
    st.integers(), st.text(max_size=5), st.binary(max_size=50).map(pickle.PickleBuffer),
    st.binary(max_size=50).map(lambda data: pickle.PickleBuffer(bytearray(data))),
)  # fmt: skip


@pytest.mark.parametrize("way", ["own", "hint", "fetch"])
@pytest.mark.parametrize("frozen", [False, True])
@given(values=st.lists(LEAVES, max_size=5))
def test_a_value_comes_back_whole_by_every_way(way: str, frozen: bool, values: list[Any]) -> None:
    def plain(parts: Any) -> list[Any]:
        return [part if isinstance(part, int | str) else bytes(part) for part in parts]

    segment, payload = packed(values, frozen=frozen)
    process = Process(
        *([segment] if way == "own" else []),
        machine="elsewhere" if way == "fetch" else "here",
        fetch=whole(segment),
    )
    assert plain(loaded(process, payload)) == plain(values)
    _let_cycles_go(process)
    assert sum(process.holds) == 0
    segment.close()


@pytest.mark.parametrize("way", ["own", "hint", "fetch"])
def test_arrays_come_back_with_their_order_type_and_whether_they_can_be_written_to(
    way: str,
) -> None:
    values = kinds_of_arrays()
    segment, payload = packed(values)
    process = Process(
        *([segment] if way == "own" else []),
        machine="elsewhere" if way == "fetch" else "here",
        fetch=whole(segment),
    )
    found = loaded(process, payload)
    assert_same_arrays(found, values)
    found["c"][0, 0] = 7
    assert loaded(process, payload)["c"][0, 0] == 0
    segment.close()


def test_a_stream_that_lies_in_a_segment_is_the_first_part() -> None:
    streamed = pickle.dumps(["text" * 1000], 5)
    segment, ((offset, size),) = write(ID, [streamed])
    payload = seal(Parcel(None, (Part(ID, offset, size, True),), {ID: segment.hint("here")}, False))
    process = Process()
    assert loaded(process, payload) == ["text" * 1000]
    gc.collect()
    assert process.holds == [1, -1]
    segment.close()
