"""Large payloads on the bulk link: cut into chunks by one side, put together by the other.

Never knows what a payload is, nor whom it is for. One that lies in a file of this machine is lent
to the other side instead: it opens the file itself, or else asks for the bytes. One that others are
to get straight from where it lies is offered to the scheduler, and the others are pointed to it.
"""

from collections import deque
from collections.abc import Iterator
from io import BytesIO

from .errors import RemoteProtocolError
from .frames import Bring, Bulk, Chunk, Lent, Offered, Pointed, Source, Taken
from .remotes import Remote

#: Most bytes of payload in one Chunk.
CHUNK_BYTES_MAX = 512 << 10
#: Most chunks of one payload: so that tiny chunks cannot cost more than what they carry.
CHUNKS_MAX = 65_536
#: So many are lent and not taken at once; more are cut. Whoever can open none then has that many to
#: ask for, and says so of each before the first has come: it bounds that.
LENT_MAX = 1024

#: where a process has a file: pid, descriptor, inode, size, id
Place = tuple[int, int, int, int, bytes]
#: what goes as it is
Whole = Lent | Taken | Offered | Pointed | Bring


class Chunker:
    """Cuts payloads into Chunks, one at a time, so that only what is being sent is copied."""

    __slots__ = (
        "_chunk_bytes", "_index", "_lent", "_waiting", "kept_promises", "last_lent", "lent_bytes",
        "pending", "pending_bytes", "pending_chunks", "promised",
    )  # fmt: skip

    def __init__(self, frame_bytes_max: int) -> None:
        self._chunk_bytes = min(CHUNK_BYTES_MAX, max(1, frame_bytes_max - 256))
        #: what is to be cut; or a message that goes as it is. In order: marks count them
        self._waiting: deque[tuple[bytes, bytes | memoryview, Whole | None]] = deque()
        self._index = 0
        #: lent and not taken, in the order of their numbers: kept, so that the file is there.
        #: None: it was refused, and is sent
        self._lent: dict[int, tuple[bytes, bytes | memoryview | Remote | None]] = {}
        #: the number of what was lent last
        self.last_lent = 0
        #: bytes that no Chunk taken so far carries
        self.pending_bytes = 0
        #: those of what is lent, and not refused
        self.lent_bytes = 0
        #: Chunks, and the like, to take
        self.pending_chunks = 0
        #: whether there is one to take
        self.pending = False
        #: numbers of what the other side has not been told of, since its bytes are to come here
        #: first; and those of them whose bytes have been queued since
        self.promised: dict[int, None] = {}
        self.kept_promises: list[int] = []

    def __bool__(self) -> bool:
        """Whether there is a Chunk to take."""
        return self.pending

    def add(self, key: bytes, payload: bytes | memoryview) -> None:
        """Queue a payload."""
        self._queue(key, payload, None, self._count(payload))
        self.pending_bytes += len(payload)

    def lend(self, key: bytes, payload: bytes | memoryview, place: Place) -> None:
        """Queue a payload that the other side may open where it is, unless it has enough to do."""
        if len(self._lent) >= LENT_MAX:
            self.add(key, payload)
            return
        self._say_whole(Lent(key, self._lend(key, payload), *place))

    def offer(self, key: bytes, payload: bytes | memoryview, id_: bytes) -> int:
        """Queue the word that others can have a payload by that id; return its number."""
        number = self._lend(key, payload)
        self._say_whole(Offered(key, number, len(payload), id_))
        return number

    def point(self, key: bytes, payload: Remote, sources: tuple[Source, ...]) -> int:
        """Queue the word where the other side is to get a payload; return its number."""
        number = self._lend(key, payload)
        self._say_whole(Pointed(key, number, len(payload), payload.id, sources))
        return number

    def point_again(self, number: int, sources: tuple[Source, ...]) -> None:
        """Queue the word where else the other side may get a payload, if it still waits for it."""
        key, payload = self._lent.get(number, (b"", None))
        if isinstance(payload, Remote):
            self._say_whole(Pointed(key, number, len(payload), payload.id, sources))

    def replace(self, number: int, payload: Remote) -> bool:
        """What was lent is the same as this; return whether the other side may be pointed to it."""
        key, known = self._lent.get(number, (b"", None))
        if isinstance(known, Remote):
            self.lent_bytes += len(payload) - len(known)
            self._lent[number] = key, payload
        return isinstance(known, Remote) and number not in self.promised

    def promise(self, key: bytes, payload: Remote) -> int:
        """Count a payload as lent whose bytes are to come here first; return its number."""
        number = self._lend(key, payload)
        self.promised[number] = None
        return number

    def give(self, number: int, payload: bytes | memoryview) -> None:
        """Queue the bytes of what was promised, or of what the other side could not get."""
        key, known = self._lent.get(number, (b"", None))
        if not isinstance(known, Remote):
            return
        self.lent_bytes -= len(known)
        self._lent[number] = key, None
        self.add(key, payload)
        if number in self.promised:
            del self.promised[number]
            self.kept_promises.append(number)

    def take_back(self, number: int) -> bool:
        """Lend something no more; False: the other side knows of it, so it stays lent."""
        if number not in self.promised:
            return False
        del self.promised[number]
        _, payload = self._lent.pop(number)
        self.lent_bytes -= 0 if payload is None else len(payload)
        return True

    def awaited(self) -> Iterator[Remote]:
        """Yield what lies elsewhere, and the other side does not have yet."""
        for _, payload in self._lent.values():
            if isinstance(payload, Remote):
                yield payload

    def forget_promise(self, number: int) -> None:
        """What was promised has been queued, and is counted as such."""
        del self._lent[number]

    def let_go(self) -> None:
        """Keep nothing of what was queued or lent any more: there is no other side."""
        self._waiting.clear()
        self._lent.clear()
        self.promised.clear()
        self.kept_promises.clear()
        self.pending_bytes = self.lent_bytes = self.pending_chunks = self._index = 0
        self.pending = False

    def say(self, message: Bring | Taken) -> None:
        """Queue a message that stands for itself."""
        self._say_whole(message)

    def taken(self, answer: Taken) -> Remote | None:
        """The other side says what came of what it was lent: go on without it, or send it.

        Returns:
            What it could not get where it was pointed to; None: there is nothing to be done.

        Raises:
            RemoteProtocolError: it was not lent that, or has said so before.
        """
        number = answer.number
        key, payload = self._lent.get(number, (b"", None))
        if not key or (payload is None and not answer.opened) or number in self.promised:
            raise RemoteProtocolError(f"taken.number: nothing is lent under {number}")
        if answer.opened:
            del self._lent[number]
            self.lent_bytes -= 0 if payload is None else len(payload)
        elif isinstance(payload, Remote):
            return payload
        elif payload is not None:
            # It says so again when the bytes have come.
            self._lent[number] = key, None
            self.lent_bytes -= len(payload)
            self.add(key, payload)
        return None

    def _lend(self, key: bytes, payload: bytes | memoryview | Remote) -> int:
        self.last_lent = number = self.last_lent + 1
        self._lent[number] = key, payload
        self.lent_bytes += len(payload)
        return number

    def _say_whole(self, message: "Whole") -> None:
        self._queue(b"", b"", message, 1)

    @property
    def first_lent(self) -> int:
        """The number of what has been lent for longest and is not taken; 0: there is nothing."""
        return next(iter(self._lent), 0)

    @property
    def behind_bytes(self) -> int:
        """Bytes that wait behind the payload that is being cut: that one may be large."""
        if not self._waiting or self._waiting[0][2] is not None:
            return self.pending_bytes
        rest = len(self._waiting[0][1]) - self._index * self._chunk_bytes
        return self.pending_bytes - max(0, rest)

    def is_lent(self, until: int) -> bool:
        """Whether something up to that number has not been taken."""
        return bool(self._lent) and next(iter(self._lent)) <= until

    def _queue(
        self, key: bytes, payload: bytes | memoryview, whole: "Whole | None", chunks: int
    ) -> None:
        self._waiting.append((key, payload, whole))
        self.pending = True
        self.pending_chunks += chunks

    def _count(self, payload: bytes | memoryview) -> int:
        return max(1, -(-len(payload) // self._chunk_bytes))

    def take(self) -> Bulk | None:
        """Return the next Chunk, or what stands for one; None: all have been taken."""
        if not self._waiting:
            return None
        key, payload, whole = self._waiting[0]
        self.pending_chunks -= 1
        if whole is not None:
            self._waiting.popleft()
            self.pending = bool(self._waiting)
            return whole
        index, step = self._index, self._chunk_bytes
        count = self._count(payload)
        data = bytes(payload[index * step : (index + 1) * step])
        self.pending_bytes -= len(data)
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
