"""Payloads that lie in files go apart from their packet: as descriptors, beside it.

Never copies one, and never opens what it carries. In the packet a mark stands for each, with its
number among the descriptors.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from ..protocol.codec import encode
from ..protocol.errors import RemoteProtocolError
from ..protocol.messages import TaskRow, ValueRow
from ..protocol.payload_files import file_of, handed, may_be_file
from ..protocol.segments import USES
from .channel import Packet, close_all
from .packets import Answered, Finished, FinishedRow, Item, Run, Submitted

try:
    import resource
except ImportError:  # not every system has it
    resource = None  # type: ignore[assignment]  # said so to those below

T = TypeVar("T")

#: So many go with one packet at most, and no more than this part of the descriptors that a process
#: may have: who receives it needs so many at once, and has others. The bytes of more travel in it.
FILES_MAX: Final = 64
PART_OF_LIMIT: Final = 16
#: 0xC1 begins no pickle; the letter tells it from payloads of other forms
_MARK: Final = b"\xc1A"


class Files:
    """The files of one packet that is to be sent."""

    __slots__ = ("fds",)

    def __init__(self) -> None:
        #: still their payloads': to be sent while these live
        self.fds: list[int] = []

    def mark(self, payload: bytes | None) -> bytes | None:
        """Return what stands in the packet for a payload."""
        file = file_of(payload)
        if file is None or len(self.fds) >= _files_max():
            return payload
        file.used = next(USES)
        self.fds.append(file.fd)
        return _MARK + bytes((len(self.fds) - 1,))

    def values(self, rows: Iterable[ValueRow]) -> list[ValueRow]:
        """Return these with marks."""
        return [
            replace(row, payload=self.mark(row.payload)) if may_be_file(row.payload) else row
            for row in rows
        ]

    def task(self, row: TaskRow) -> TaskRow:
        """Return a call with marks."""
        return replace(row, args=self.mark(row.args)) if may_be_file(row.args) else row


def _files_max() -> int:
    if resource is None:
        return FILES_MAX
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 0 <= limit < FILES_MAX * PART_OF_LIMIT  # without a limit it is negative
    return limit // PART_OF_LIMIT if few else FILES_MAX


def told(packet: Finished | Submitted | Item) -> tuple[bytes, tuple[int, ...]]:
    """Return what a worker says with marks, encoded, and the descriptors that go beside it."""
    files = Files()
    if isinstance(packet, Finished):
        rows = [_without_files(row, files) for row in packet.rows]
        return encode(replace(packet, rows=rows)), tuple(files.fds)
    if isinstance(packet, Item):
        (value,) = files.values((packet.value,))
        return encode(replace(packet, value=value)), tuple(files.fds)
    tasks, puts = [files.task(row) for row in packet.rows], files.values(packet.puts)
    return encode(replace(packet, rows=tasks, puts=puts)), tuple(files.fds)


def _without_files(row: FinishedRow, files: Files) -> FinishedRow:
    # Most have none, and a copy of each would be felt.
    if not any(may_be_file(value.payload) for value in row.values):
        return row
    return replace(row, values=tuple(files.values(row.values)))


def whole(decode: Callable[[Any], T], packet: Packet) -> T:
    """Return what a packet says, with the payloads that came beside it.

    Raises:
        RemoteProtocolError: it cannot be read, or does not fit what came with it.
    """
    fds = packet.fds
    if not fds:
        return decode(packet.data)
    try:
        message = decode(packet.data)
    except BaseException:
        close_all(fds)
        raise
    _put_back(message, fds)
    return message


def _put_back(packet: object, fds: Sequence[int]) -> None:
    """Put payloads where their marks are. The descriptors are taken, whatever comes of it."""
    left = dict(enumerate(fds))
    try:
        if isinstance(packet, Run):
            for row in packet.rows:
                row.args = _found(row.args, left, from_disk=True)
                row.checkpoint = _found(row.checkpoint, left)
                _fill(row.values, left, from_disk=True)
        elif isinstance(packet, Answered):
            _fill(packet.rows, left, from_disk=True)
        elif isinstance(packet, Finished):
            for finished in packet.rows:
                _fill(finished.values, left)
        elif isinstance(packet, Item):
            _fill((packet.value,), left)
        elif isinstance(packet, Submitted):
            for task in packet.rows:
                task.args = _found(task.args, left)
            _fill(packet.puts, left)
        if left:
            raise RemoteProtocolError("a packet came with descriptors that it does not name")
    finally:
        close_all(left.values())


def _fill(rows: Iterable[ValueRow], left: dict[int, int], *, from_disk: bool = False) -> None:
    for row in rows:
        row.payload = _found(row.payload, left, from_disk=from_disk)


def _found(payload: bytes | None, left: dict[int, int], *, from_disk: bool = False) -> bytes | None:
    # From disk: only what a node gives its worker. A worker could end the node by such a file.
    if payload is None or payload[:2] != _MARK or len(payload) != len(_MARK) + 1:
        return payload
    fd = left.pop(payload[-1], None)
    if fd is None:
        raise RemoteProtocolError("a packet names a descriptor that did not come with it")
    found = handed(fd, from_disk=from_disk)
    if found is None:
        raise RemoteProtocolError("a packet came with a descriptor of something else")
    return found
