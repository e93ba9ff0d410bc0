"""A packet for a worker in pieces: nothing large in it is copied to be packed.

Never changes what is said: the pieces one after the other are the packet, and what lies in files
goes beside it (see apart.py). To copy a gigabyte takes seconds, in which the daemon would hear
nobody.
"""

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from ..protocol.codec import encode
from ..protocol.messages import ValueRow
from ..protocol.payload_files import may_be_file
from .apart import Files
from .packets import Answered, Run, RunRow, ToWorker

#: what is longer is a piece of its own
LARGE_BYTES: Final = 8 << 20
#: MessagePack: long bytes, and their length follows in four
_BYTES_32: Final = b"\xc6"
#: stands for what is large, with its number; should the packet hold that anyway, it is copied
_MARK: Final = b"\x00\xff drumbeat: here is piece \xff\x00"


def pieces_of(packet: ToWorker) -> tuple[bytes | list[bytes], tuple[int, ...]]:
    """Return a packet encoded, in pieces if something in it is large; and what goes beside it.

    The descriptors are those of the packet's payloads, and live as long as these.
    """
    if type(packet) is Run:
        if not any(map(_is_large, packet.rows)):
            return encode(packet), ()
        large = _Large()
        without: ToWorker = Run(packet.definitions, [large.without(row) for row in packet.rows])
    elif type(packet) is Answered and any(_is_long(row.payload) for row in packet.rows):
        large = _Large()
        without = replace(packet, rows=list(large.values(packet.rows)))
    else:
        return encode(packet), ()
    pieces = large.put_back(encode(without))
    return (pieces, tuple(large.files.fds)) if pieces else (encode(packet), ())


class _Large:
    """What is large in one packet, in its order."""

    def __init__(self) -> None:
        self._found: list[bytes] = []
        self.files = Files()

    def without(self, row: RunRow) -> RunRow:
        """Return a row with marks where it is large."""
        return replace(
            row,
            args=self._mark(row.args),
            values=tuple(self.values(row.values)),
            checkpoint=self._mark(row.checkpoint),
        )

    def values(self, rows: Iterable[ValueRow]) -> Iterable[ValueRow]:
        """Return values with marks where they are large."""
        return [
            replace(row, payload=self._mark(row.payload)) if _is_long(row.payload) else row
            for row in rows
        ]

    def _mark(self, data: bytes | None) -> bytes | None:
        if data is None or not _is_long(data):
            return data
        data = self.files.mark(data)
        if data is None or len(data) <= LARGE_BYTES:
            return data
        self._found.append(data)
        return _mark(len(self._found) - 1)

    def put_back(self, encoded: bytes) -> bytes | list[bytes]:
        """Return the pieces of a packet that was encoded with marks; none: it holds such itself."""
        pieces: list[bytes] = []
        rest = encoded
        for number, data in enumerate(self._found):
            before, found, rest = rest.partition(encode(_mark(number)))
            if not found or encode(_mark(number)) in rest:
                return []
            pieces += [before + _BYTES_32 + len(data).to_bytes(4, "big"), data]
        return [*pieces, rest] if pieces else rest


def _mark(number: int) -> bytes:
    return _MARK + number.to_bytes(4, "big")


def _is_large(row: RunRow) -> bool:
    return (
        _is_long(row.args)
        or _is_long(row.checkpoint)
        or any(_is_long(value.payload) for value in row.values)
    )


def _is_long(data: bytes | None) -> bool:
    return data is not None and (len(data) > LARGE_BYTES or may_be_file(data))
