"""Large payloads lie in files that processes hand on: the value is the same by every way."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drumbeat.protocol import payload_files, segments
from drumbeat.protocol.payload_files import (
    MARK,
    Filing,
    file_of,
    handed,
    is_filed,
    opened_at,
    parts_of,
    place_of,
)  # fmt: skip
from drumbeat.protocol.segments import HEAD_BYTES
from hypothesis import given
from hypothesis import strategies as st
from support.arrays import assert_same_arrays, kinds_of_arrays

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

WAYS = ["own", "opened", "handed", "sent"]


def filed(value: Any, *, frozen: bool = False) -> bytes:
    found: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(value, 5, buffer_callback=found.append)
    payload = Filing(1)(stream, [buffer.raw() for buffer in found], frozen=frozen)
    assert payload is not None
    return payload


def come(payload: bytes, way: str) -> bytes:
    """Return a payload as another process has it."""
    file = file_of(payload)
    assert file is not None
    if way == "own":
        return payload
    if way == "sent":
        return bytes(payload)
    found = opened_at(*place_of(file)) if way == "opened" else handed(os.dup(file.fd))
    assert found is not None
    assert file_of(found) is not None
    return found


def loaded(payload: bytes) -> Any:
    stream, buffers = parts_of(payload)
    return pickle.loads(stream, buffers=buffers)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("way", WAYS)
def test_arrays_come_back_as_they_were_and_may_be_written_to_without_anybody_seeing_that(
    way: str,
) -> None:
    arrays = kinds_of_arrays()
    payload = come(filed(arrays | {"bytes": b"x" * 1000}), way)
    found = loaded(payload)
    assert_same_arrays(found, arrays)
    assert found["bytes"] == b"x" * 1000
    found["c"][0, 0] = 7
    assert loaded(payload)["c"][0, 0] == 0


@pytest.mark.parametrize("way", WAYS)
def test_what_is_frozen_may_not_be_written_to(way: str) -> None:
    assert not loaded(come(filed(np.arange(100), frozen=True), way)).flags.writeable


@pytest.mark.parametrize("way", WAYS)
def test_buffers_begin_where_a_line_of_the_caches_does(way: str) -> None:
    payload = come(filed([np.arange(3, dtype=np.int8), np.arange(5.0)]), way)
    if way != "sent":  # where bytes lie that were sent is not ours to say
        assert all(array.ctypes.data % 64 == 0 for array in loaded(payload))


def test_a_payload_in_a_file_is_bytes_to_whoever_knows_nothing_of_files() -> None:
    payload = filed(np.arange(1000))
    assert is_filed(payload)
    assert payload[:3] == MARK
    assert len(payload) == len(bytes(payload))
    assert not is_filed(pickle.dumps(3))
    assert file_of(bytes(payload)) is None
    assert file_of(memoryview(b"other")) is None


def test_a_file_is_open_as_long_as_somebody_has_the_payload() -> None:
    before = open_files()
    payload = filed(np.arange(1000))
    file = file_of(payload)
    assert file is not None
    place = place_of(file)
    other = opened_at(*place)
    assert other is not None
    value = loaded(other)
    del payload, file
    assert opened_at(*place) is None, "it is closed where it was"
    assert np.array_equal(loaded(other), value)
    del other
    assert np.array_equal(value, np.arange(1000))
    del value
    assert open_files() == before


def test_what_lies_elsewhere_or_is_something_else_is_not_taken(tmp_path: Path) -> None:
    payload = filed(np.arange(1000))
    file = file_of(payload)
    assert file is not None
    pid, fd, inode, size, id_ = place_of(file)
    before = open_files()
    assert opened_at(pid, fd, inode + 1, size, id_) is None
    assert opened_at(pid, fd, inode, size + 1, id_) is None
    assert opened_at(pid, 9999, inode, size, id_) is None
    assert opened_at(pid, fd, inode, size, b"another") is None
    plain = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    os.write(plain, bytes(size))
    assert handed(plain) is None
    reader, writer = os.pipe()
    assert handed(reader) is None
    os.close(writer)
    segment, _ = segments.write(b"s" * 14, [b"another kind"])
    assert handed(os.dup(segment.fd)) is None
    segment.close()
    assert open_files() == before


def test_where_there_is_no_room_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(28, "no space")

    monkeypatch.setattr(payload_files, "write", fail)
    filing = Filing(1)
    assert filing(b"stream", []) is None
    assert not filing.has_made


@given(value=st.lists(st.binary(max_size=80).map(bytearray), max_size=4), data=st.data())
def test_a_damaged_payload_is_read_or_refused_and_nothing_else(value: Any, data: Any) -> None:
    payload = bytearray(filed([pickle.PickleBuffer(part) for part in value]))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at] = data.draw(st.integers(0, 255))
    else:
        del payload[data.draw(st.integers(0, len(payload))) :]
    try:
        _, buffers = parts_of(bytes(payload))
    except ValueError:
        return
    assert sum(view.nbytes for view in buffers) <= len(payload)


def test_the_head_of_a_file_is_no_part_of_the_payload() -> None:
    payload = filed(np.arange(10))
    file = file_of(payload)
    assert file is not None
    assert len(payload) == file.size - HEAD_BYTES
