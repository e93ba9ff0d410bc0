"""Payloads in files go beside their packet, and are where they belong when it is read."""

import os
import resource
from pathlib import Path
from typing import Any

import pytest
from drumbeat.node import spare
from drumbeat.node.apart import FILES_MAX, told, whole
from drumbeat.node.channel import Packet
from drumbeat.node.packets import (
    Answered,
    Exit,
    Finished,
    FinishedRow,
    Run,
    RunRow,
    Submitted,
    ToDaemon,
    ToWorker,
)  # fmt: skip
from drumbeat.node.pieces import pieces_of
from drumbeat.protocol import segments
from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.messages import Outcome, TaskRow, ValueRow
from drumbeat.protocol.payload_files import Filing, file_of, written_to

pytestmark = pytest.mark.skipif(
    not segments.are_to_be_had(), reason="this system has no memory files that can be sealed"
)

ID = b"t" * 14
to_worker, to_daemon = decoder(ToWorker), decoder(ToDaemon)


def filed(text: bytes) -> bytes:
    payload = Filing(1)(text * 100, [])
    assert payload is not None
    return payload


def value(payload: bytes | None) -> ValueRow:
    return ValueRow(ID, Outcome.VALUE, payload)


def row(args: bytes | None, *values: bytes, checkpoint: bytes | None = None) -> RunRow:
    return RunRow(1, ID, 1, 2, 0, args, tuple(map(value, values)), checkpoint=checkpoint)


def carried(decode: Any, data: Any, fds: tuple[int, ...]) -> Any:
    """Return what arrives: descriptors are duplicated on their way."""
    joined = data if isinstance(data, bytes) else b"".join(data)
    return whole(decode, Packet(memoryview(joined), tuple(map(os.dup, fds))))


def open_files() -> int:
    spare.keep()  # the one in reserve, so that it is counted every time
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_a_worker_is_sent_comes_with_its_files() -> None:
    for packet in (
        Run([], [row(filed(b"a"), b"small", filed(b"b")), row(None, checkpoint=filed(b"c"))]),
        Answered(3, [value(filed(b"a")), value(b"small"), value(None), value(filed(b"b"))]),
    ):
        data, fds = pieces_of(packet)
        read = carried(to_worker, data, fds)
        assert read == packet
        found = [payload for row in read.rows for payload in _payloads(row) if file_of(payload)]
        assert len(found) == len(fds) > 0


def test_what_a_worker_says_comes_with_its_files() -> None:
    ended = FinishedRow(1, (value(filed(b"a")), value(b"s")), 0.1)
    for packet in (
        Finished([ended, FinishedRow(2, (value(b"s"),), 0.1)], []),
        Submitted(ID, 1, [], [TaskRow(ID, 1, filed(b"a"))], puts=[value(filed(b"b"))]),
    ):
        data, fds = told(packet)
        assert len(data) < 1000
        assert fds
        assert carried(to_daemon, data, fds) == packet


def test_the_bytes_of_more_files_than_go_with_a_packet_travel_in_it() -> None:
    payload = filed(b"a")
    packet = Run([], [row(None, *[payload] * (FILES_MAX + 3))])
    data, fds = pieces_of(packet)
    assert len(fds) == FILES_MAX
    assert carried(to_worker, data, fds) == packet


@pytest.mark.parametrize(("limit", "files"), [(100, 6), (1024, 64), (-1, 64), (1 << 62, 64)])
def test_who_may_open_few_files_is_handed_few_at_once(
    limit: int, files: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packet = Run([], [row(None, *[filed(b"x")] * 70)])
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    data, fds = pieces_of(packet)
    assert len(fds) == files
    assert carried(to_worker, data, fds) == packet


def test_what_was_marked_by_somebody_else_is_left_alone() -> None:
    packet = Answered(3, [value(b"\xc1A\0")])
    data, fds = pieces_of(packet)
    assert fds == ()
    assert carried(to_worker, data, fds) == packet


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (Answered(3, [value(b"\xc1A\0")]), 2),
        (Answered(3, [value(b"\xc1A\5")]), 1),
        (Answered(3, [value(b"\xc1A\0"), value(b"\xc1A\0")]), 1),
        (Exit(), 1),
        (None, 1),
    ],
)
def test_a_packet_that_does_not_fit_what_came_with_it_is_refused_and_nothing_stays_open(
    packet: Any, count: int
) -> None:
    file = file_of(filed(b"a"))
    assert file is not None
    before = open_files()
    data = b"\xff" if packet is None else encode(packet)
    with pytest.raises(RemoteProtocolError):
        carried(to_worker, data, (file.fd,) * count)
    assert open_files() == before


def test_a_descriptor_of_something_else_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    before = open_files()
    with pytest.raises(RemoteProtocolError, match="something else"):
        carried(to_worker, encode(Answered(3, [value(b"\xc1A\0")])), (fd,))
    assert open_files() == before
    os.close(fd)


def _payloads(row: Any) -> list[bytes | None]:
    if isinstance(row, RunRow):
        return [row.args, row.checkpoint, *(value.payload for value in row.values)]
    return [row.payload]


def test_what_lies_on_disk_is_taken_from_a_node_and_not_from_a_worker(tmp_path: Path) -> None:
    def on_disk() -> bytes:
        file = file_of(filed(b"spilled"))
        assert file is not None
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        os.unlink(tmp_path / "file")
        os.sendfile(fd, file.fd, 0, file.size)
        return written_to(fd, file)

    payload = on_disk()
    data, fds = pieces_of(Run([], [row(payload, payload)]))
    found = carried(to_worker, data, fds)
    assert found.rows[0].args == found.rows[0].values[0].payload == payload
    data, fds = told(Submitted(ID, 1, [], [], puts=[value(payload)]))
    with pytest.raises(RemoteProtocolError, match="something else"):
        carried(to_daemon, data, fds)
