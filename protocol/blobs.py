"""Large payloads on the bulk link: cut into chunks by one side, put together by the other.

Never knows what a payload is, nor whom it is for.
"""

from collections import deque
from io import BytesIO

from .errors import RemoteProtocolError
from .frames import Chunk

#: Most bytes of payload in one Chunk.
CHUNK_BYTES_MAX = 512 << 10
#: Most chunks of one payload: so that tiny chunks cannot cost more than what they carry.
CHUNKS_MAX = 65_536


class Chunker:
    """Cuts payloads into Chunks, one at a time, so that only what is being sent is copied."""

    __slots__ = (
        "_chunk_bytes", "_index", "_waiting", "pending", "pending_bytes", "pending_chunks"
    )  # fmt: skip

    def __init__(self, frame_bytes_max: int) -> None:
        self._chunk_bytes = min(CHUNK_BYTES_MAX, max(1, frame_bytes_max - 256))
        self._waiting: deque[tuple[bytes, bytes | memoryview]] = deque()
        self._index = 0
        #: bytes that no Chunk taken so far carries
        self.pending_bytes = 0
        #: Chunks to take
        self.pending_chunks = 0
        #: whether there is a Chunk to take
        self.pending = False

    def __bool__(self) -> bool:
        """Whether there is a Chunk to take."""
        return self.pending

    def add(self, key: bytes, payload: bytes | memoryview) -> None:
        """Queue a payload."""
        self._waiting.append((key, payload))
        self.pending = True
        self.pending_bytes += len(payload)
        self.pending_chunks += self._count(payload)

    def _count(self, payload: bytes | memoryview) -> int:
        return max(1, -(-len(payload) // self._chunk_bytes))

    def take(self) -> Chunk | None:
        """Return the next Chunk, or None when all have been taken."""
        if not self._waiting:
            return None
        key, payload = self._waiting[0]
        index, step = self._index, self._chunk_bytes
        count = self._count(payload)
        data = bytes(payload[index * step : (index + 1) * step])
        self.pending_bytes -= len(data)
        self.pending_chunks -= 1
        self._index = index + 1
        if self._index == count:
            self._waiting.popleft()
            self.pending = bool(self._waiting)
            self._index = 0
        return Chunk(key, index, count, data)


class _Partial:
    """A payload of which some chunks have come.

    Each is put where it belongs as it comes: to join a gigabyte at the end would take twice the
    memory, and seconds in which whoever does it hears nobody. `BytesIO` gives away what it has
    filled without a copy, and grows by moving pages, not bytes.
    """

    __slots__ = ("come", "count", "whole")

    def __init__(self, count: int) -> None:
        self.count = count
        #: so many chunks
        self.come = 0
        self.whole = BytesIO()


class Assembler:
    """Puts one peer's payloads together. Chunks of one payload come in order; payloads may mix."""

    __slots__ = ("_bytes_max", "_partials", "pending_bytes")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._partials: dict[bytes, _Partial] = {}
        #: bytes of payloads that are not whole
        self.pending_bytes = 0

    def add(self, chunk: Chunk) -> bytes | None:
        """Take in a chunk; return the payload of its key when this was the last one.

        Raises:
            RemoteProtocolError: out of order, inconsistent, or more than may be pending.
        """
        key, count = chunk.key, chunk.count
        partial = self._partials.get(key)
        expected = 0 if partial is None else partial.come
        if chunk.index != expected:
            raise RemoteProtocolError(f"chunk.index: {chunk.index} came, {expected} was expected")
        if count > CHUNKS_MAX or (partial is not None and partial.count != count):
            raise RemoteProtocolError(f"chunk.count: {count} is too many, or not what it was")
        if not chunk.data and count > 1:
            raise RemoteProtocolError("chunk.data: empty, though the payload has several chunks")
        if self.pending_bytes + len(chunk.data) > self._bytes_max:
            raise RemoteProtocolError(
                f"chunk.data: more than {self._bytes_max:,} bytes of unfinished payloads"
            )
        if count == 1:
            return chunk.data
        if partial is None:
            self._partials[key] = partial = _Partial(count)
        partial.whole.write(chunk.data)
        partial.come += 1
        self.pending_bytes += len(chunk.data)
        if partial.come < count:
            return None
        del self._partials[key]
        payload = partial.whole.getvalue()
        self.pending_bytes -= len(payload)
        return payload
