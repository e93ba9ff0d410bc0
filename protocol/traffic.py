"""What flows over a peer's links in one life: messages decoded, payloads cut and joined.

Never a socket; knows nothing of connections, which come and go below it.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from msgspec import Raw, Struct

from .absent import VOID
from .blobs import Assembler, Chunker, Place
from .codec import Reader, decode_bulk, encode
from .dialer import Dialer
from .errors import RemoteProtocolError
from .frames import Bring, Chunk, Lent, Offered, Pointed, Source, Taken
from .ids import NO_PEER, PeerId
from .link import Link
from .messages import AnyMessage
from .settings import Settings

if TYPE_CHECKING:
    from .ends import Dialing
    from .remotes import Remote

#: Chunks moved to a bulk link in one turn: control messages go in between.
CHUNKS_PER_TURN_MAX = 4
#: Most payloads that wait until there is room for them; more come all the same.
WAITING_MAX = 8192
#: Most payloads of a peer that could not be opened here, and have not come as bytes.
REFUSED_MAX = 4096
NOW_S = float("-inf")
NEVER_S = float("inf")


class Message(Struct, gc=False, frozen=True):
    """A message came; at the listening end also from whom."""

    message: AnyMessage
    peer: PeerId = NO_PEER


class Blob(Struct, gc=False, frozen=True):
    """A large payload has come in whole."""

    key: bytes
    payload: bytes
    peer: PeerId = NO_PEER


class Rejected(Struct, gc=False, frozen=True):
    """What came did not fit and was dropped (and counted); for the log."""

    reason: str
    peer: PeerId = NO_PEER


class Heard(Struct, gc=False, frozen=True):
    """Frames came from these peers in this turn: signs of life."""

    peers: list[PeerId]


class Reached(Struct, gc=False, frozen=True):
    """A peer has received all that was sent to it before these marks."""

    peer: PeerId
    marks: list[int]


class Line:
    """One of a dialling peer's two connections."""

    __slots__ = ("dialer", "due_s", "socket")

    def __init__(self, dialer: Dialer) -> None:
        self.dialer = dialer
        self.socket: Dialing | None = None
        #: when it is to be flushed: at once, if anything has come or is to go
        self.due_s = NOW_S


class Moves(Protocol):
    """What goes past the scheduler, as one end of a link knows it."""

    def heard(self, traffic: "Traffic", message: Offered | Pointed | Bring) -> "Remote | None":
        """The other side has said so; return the payload that has come with it.

        Raises:
            RemoteProtocolError: it makes no sense here.
        """

    def taken(self, traffic: "Traffic", answer: Taken, refused: "Remote | None") -> None:
        """The other side says what came of what it was offered, or could not get."""

    def relayed(self, traffic: "Traffic", number: int, payload: bytes) -> bool:
        """The bytes of what could not be got have come; return whether that is all about them."""


class Traffic:
    """One end of one link life: a new life needs a new one, and all that was under way is gone.

    Args:
        reader: understands the messages that come.
        settings: bounds.
        open_file: returns a payload that the peer has in a file; None: it cannot be had. Not given:
            the peer is on another machine.
        moves: knows of payloads that go past the scheduler; None: none does.
        peer: whose link it is; at the listening end.
        name: the peer's, for people.
        source: where others get what the peer keeps; None: nowhere.
    """

    __slots__ = (
        "_file_bytes_max",
        "_marks",
        "_moves",
        "_open_file",
        "_refused",
        "_refused_count",
        "_waiting",
        "admits",
        "assembler",
        "chunker",
        "lends",
        "name",
        "over",
        "peer",
        "reader",
        "source",
        "tries",
    )

    def __init__(
        self,
        reader: Reader,
        settings: Settings,
        open_file: Callable[[Place], bytes | None] | None = None,
        moves: Moves | None = None,
        peer: PeerId = NO_PEER,
        name: str = "",
        source: Source | None = None,
    ) -> None:
        self.reader = reader
        self._moves = moves
        self.peer = peer
        self.name = name
        self.source = source
        #: this life has ended
        self.over = False
        #: of what the peer was pointed to, by number: whether nobody is left to point it to
        self.tries: dict[int, bool] = {}
        self._open_file = open_file
        #: files may be lent to the peer: it is on this machine, and opens them
        self.lends = open_file is not None
        #: says whether a payload of that size may come in now; None: all may
        self.admits: Callable[[int], bool] | None = None
        #: what may not yet: it stays where it is
        self._waiting: deque[Lent | Pointed] = deque()
        #: what was lent and could not be opened: its number, by key; the bytes are to come
        self._refused: dict[bytes, deque[int]] = {}
        self._refused_count = 0
        self.chunker = Chunker(settings.frame_bytes_max)
        # Twice the largest payload: a peer sends one after the other, but may mix.
        self.assembler = Assembler(2 * settings.value_bytes_max)
        # To say that a file is large costs nothing: most of it may be a hole.
        self._file_bytes_max = 2 * settings.value_bytes_max
        # (mark, messages queued ever on the control link, on the bulk link, last number that was
        # lent) when it was set
        self._marks: deque[tuple[int, int, int, int]] = deque()

    def take_in(self, raws: list[Raw], peer: PeerId, out: list[Any]) -> int:
        """Decode messages of the control link; return how many did not fit and were dropped."""
        read = self.reader.read
        rejected = 0
        for raw in raws:
            try:
                message = read(raw)
            except RemoteProtocolError as error:
                rejected += 1
                out.append(Rejected(str(error), peer))
            else:
                if message is not None:
                    out.append(Message(message, peer))
        return rejected

    def take_in_bulk(self, raws: list[Raw], peer: PeerId, out: list[Any]) -> None:
        """Put payloads together.

        Raises:
            RemoteProtocolError: a chunk does not fit, so a payload would never be whole.
        """
        for raw in raws:
            message = decode_bulk(raw)
            if isinstance(message, Taken):
                refused = self.chunker.taken(message)
                # Where nothing could be opened so far, nothing will be.
                self.lends = self.lends and (message.opened or message.number > 1)
                if self._moves is not None:
                    self._moves.taken(self, message, refused)
                continue
            if self._must_wait(message):
                continue
            payload = self._take(message)
            if payload is not None and not isinstance(message, Bring):
                out.append(Blob(message.key, payload, peer))

    def _must_wait(self, message: Chunk | Lent | Offered | Pointed | Bring) -> bool:
        """Return whether a payload is left where it is until there is room; none overtakes one."""
        admits, waiting = self.admits, self._waiting
        if admits is None or not isinstance(message, (Lent, Pointed)):
            return False
        if len(waiting) >= WAITING_MAX or not (waiting or not admits(message.size)):
            return False
        waiting.append(message)
        return True

    def take_in_waiting(self, peer: PeerId, out: list[Any]) -> None:
        """Take in what had no room, as far as it has by now.

        Raises:
            RemoteProtocolError: see `take_in_bulk`.
        """
        admits, waiting = self.admits, self._waiting
        while waiting and (admits is None or admits(waiting[0].size)):
            message = waiting.popleft()
            payload = self._take(message)
            if payload is not None:
                out.append(Blob(message.key, payload, peer))

    def _take(self, message: Chunk | Lent | Offered | Pointed | Bring) -> bytes | None:
        if not isinstance(message, (Chunk, Lent)):
            if self._moves is None:
                raise RemoteProtocolError(f"a {type(message).__name__} is out of place")
            # To cores it is a payload as any other is.
            return cast("bytes | None", self._moves.heard(self, message))
        key = message.key
        if isinstance(message, Lent):
            if message.size > self._file_bytes_max:
                raise RemoteProtocolError(
                    f"lent.size: {message.size:,} bytes, and {self._file_bytes_max:,} are the most"
                )
            place = message.pid, message.fd, message.inode, message.size, message.id
            payload = self._open_file(place) if self._open_file is not None else None
            if payload is None:
                if self.asks_too_much:
                    raise RemoteProtocolError("lent.number: too many that cannot be opened here")
                self.ask_for(key, message.number)
            else:
                self.chunker.say(Taken(message.number, True))
            return payload
        payload = self.assembler.add(message)
        if payload is not None and (numbers := self._refused.get(key)):
            number = numbers[0]
            self.unask(key, number)
            if self._moves is not None and self._moves.relayed(self, number, payload):
                return None  # others may still be getting it there: answered when nobody needs it
            self.chunker.say(Taken(number, True))
            if payload == VOID:
                return None
        return payload

    def ask_for(self, key: bytes, number: int) -> None:
        """Say that the bytes of what was lent, or of what is kept elsewhere, are to be sent."""
        self._refused.setdefault(key, deque()).append(number)
        self._refused_count += 1
        self.chunker.say(Taken(number, False))

    @property
    def asks_too_much(self) -> bool:
        """Whether no more is to be asked for until some of it has come."""
        return self._refused_count >= REFUSED_MAX

    def unask(self, key: bytes, number: int) -> None:
        """The bytes under a number have come, or are to be got elsewhere after all."""
        numbers = self._refused.get(key)
        if numbers is not None and number in numbers:
            numbers.remove(number)
            self._refused_count -= 1
            if not numbers:
                del self._refused[key]

    def end(self) -> None:
        """End this life: what was sent in it, or was to be, is kept no more."""
        self.over = True
        # Offers that were made in it name it for as long as others need them. Should one of them
        # have been on its way back to whoever had made it, they would keep each other for ever.
        self.chunker.let_go()

    def mark(self, mark: int, control: Link, bulk: Link) -> None:
        """Set a mark behind all that was sent so far, payloads too that are not cut yet."""
        bulk_ever = bulk.queued_ever + self.chunker.pending_chunks
        self._marks.append((mark, control.queued_ever, bulk_ever, self.chunker.last_lent))

    def reached(self, control: Link, bulk: Link) -> list[int]:
        """Take out and return the marks that the peer has acknowledged all before."""
        waiting, marks = self._marks, []
        while waiting:
            mark, control_ever, bulk_ever, lent = waiting[0]
            if control_ever > control.acked or bulk_ever > bulk.acked or self.chunker.is_lent(lent):
                break
            waiting.popleft()
            marks.append(mark)
        return marks

    @property
    def settled(self) -> bool:
        """Whether all payloads have been taken from here, and none is lent."""
        chunker = self.chunker
        return not chunker.pending and not chunker.is_lent(chunker.last_lent)

    @property
    def marked(self) -> bool:
        """Whether a mark is not reached."""
        return bool(self._marks)

    def feed(self, link: Link) -> None:
        """Move chunks to the link, not many more than it can send now."""
        if self.chunker.kept_promises:
            self._keep_promises(link)
        while link.backlog < CHUNKS_PER_TURN_MAX and (chunk := self.chunker.take()) is not None:
            link.queue(encode(chunk))

    def _keep_promises(self, link: Link) -> None:
        """Have marks that waited for what was promised wait for its bytes, which are queued now."""
        chunker = self.chunker
        bulk_ever = link.queued_ever + chunker.pending_chunks
        for number in chunker.kept_promises:
            self._marks = deque(
                (mark, control, max(bulk, bulk_ever) if lent >= number else bulk, lent)
                for mark, control, bulk, lent in self._marks
            )
            chunker.forget_promise(number)
        chunker.kept_promises.clear()

    def hungry(self, link: Link) -> bool:
        """Whether the link could be fed at once: there are chunks, and its window is open."""
        return bool(self.chunker) and not link.backlog
