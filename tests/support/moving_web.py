"""Cores of data connections that talk to one another, without sockets and without a clock."""

from collections import deque
from collections.abc import Callable
from zlib import crc32

from drumbeat.protocol import moving_words as words
from drumbeat.protocol.codec import decode_move, encode
from drumbeat.protocol.moves import Move, Piece
from drumbeat.protocol.moving import Moving
from drumbeat.protocol.moving_words import Connection, Event, Source
from drumbeat.protocol.settings import Settings

#: pieces of 50 bytes, of which four are asked for ahead
SMALL = Settings(frame_bytes_max=100, data_window_bytes=200, data_silence_s=10.0, data_idle_s=60.0)
PIECES_MAX = 6


class Wire:
    """One connection: at each end its number there, and the words that are on their way to it."""

    def __init__(self, ends: "dict[Peer, Connection]") -> None:
        self.numbers = ends
        self.waiting: dict[Peer, deque[bytes]] = {peer: deque() for peer in ends}
        #: what is on its way does not come any further
        self.stuck = False

    def other(self, peer: "Peer") -> "Peer":
        return next(one for one in self.numbers if one is not peer)


class Peer:
    """One core, with what its shell would do."""

    def __init__(self, web: "Web", name: str, settings: Settings, *, listens: bool = True) -> None:
        self.web = web
        self.id = name.encode().ljust(6, b".")
        self.core = Moving(self.id, settings)
        self.listens = listens
        self.payloads: dict[bytes, bytes] = {}
        self.coming: dict[bytes, bytearray] = {}
        self.wires: dict[Connection, Wire] = {}
        self.got: list[words.Finished | words.Failed] = []
        self.sent_bytes = 0
        self.has_room = True
        #: no word comes to it
        self.is_deaf = False
        #: changes a piece before it goes
        self.spoil: Callable[[Piece], Piece | None] = lambda piece: piece
        self._came = 0

    @property
    def source(self) -> Source:
        """Where others find it."""
        return Source(self.id, f"tcp://{self.id.decode()}:1" if self.listens else "", b"k" * 32)

    def serve(self, key: bytes, payload: bytes) -> None:
        """Serve a payload."""
        self.payloads[key] = payload
        self.tell(words.Serve(key, len(payload)))

    def pull(self, key: bytes, size: int, *sources: "Peer | Source") -> None:
        """Pull a payload from these."""
        found = [one.source if isinstance(one, Peer) else one for one in sources]
        self.tell(words.Pull(key, size, found))

    def tell(self, event: Event) -> None:
        """Let the core know, and do what it wants."""
        events = deque([event])
        while events:
            for command in self.core.handle(events.popleft(), self.web.now_s):
                events += self._do(command)
            self.core.check_invariants()

    def came(self, wire: Wire) -> Connection:
        """Somebody has come."""
        self._came -= 1
        self.wires[self._came] = wire
        return self._came

    def say(self, connection: Connection, word: Move) -> None:
        """Say a word, whatever the core thinks of that."""
        wire = self.wires.get(connection)
        if wire is not None:
            wire.waiting[wire.other(self)].append(encode(word))

    def cut(self, connection: Connection) -> None:
        """Lose a connection, with all that is on its way."""
        wire = self.wires[connection]
        for peer, number in wire.numbers.items():
            peer.wires.pop(number, None)
        for peer, number in wire.numbers.items():
            peer.tell(words.Down(number, "cut"))

    def _do(self, command: words.Command) -> list[Event]:
        match command:
            case words.Dial(connection, source):
                other = self.web.at(source)
                if other is None:
                    return [words.Down(connection, "nobody is there")]
                wire = Wire({self: connection})
                wire.numbers[other] = other.came(wire)
                wire.waiting = {self: deque(), other: deque()}
                self.wires[connection] = wire
            case words.SayTo(connection, word):
                self.say(connection, word)
            case words.Send():
                return [self._send(command)]
            case words.Write():
                if not self.has_room:
                    return [words.Unwritten(command.key, "no room")]
                coming = self.coming.setdefault(command.key, bytearray())
                assert command.offset == len(coming)
                coming += command.data
                assert len(coming) <= command.size
            case words.Finished(key):
                if key not in self.payloads:
                    self.payloads[key] = bytes(self.coming.pop(key, b""))
                self.got.append(command)
            case words.Failed():
                self.got.append(command)
            case words.Dropped(key):
                self.coming.pop(key, None)
                if key in self.payloads and self.listens:
                    del self.payloads[key]
            case words.Close(connection):
                self._close(connection)
        return []

    def _close(self, connection: Connection) -> None:
        wire = self.wires.pop(connection, None)
        if wire is not None:
            other = wire.other(self)
            number = wire.numbers[other]
            if other.wires.pop(number, None):
                self.web.later.append((other, words.Down(number, "hung up")))

    def _send(self, send: words.Send) -> Event:
        wire = self.wires.get(send.connection)
        if wire is None:
            return words.Sent(send.connection)
        other = wire.other(self)
        if len(wire.waiting[other]) >= PIECES_MAX:
            return words.Full(send.connection)
        whole = self.payloads.get(send.key)
        if whole is None:
            whole = self.coming.get(send.key)
        if whole is None:
            return words.Unread(send.connection)
        data = bytes(whole[send.offset : send.offset + send.length])
        assert len(data) == send.length
        piece = Piece(send.key, send.offset, send.size, crc32(data), memoryview(data))
        spoilt = self.spoil(piece)
        if spoilt is not None:
            self.say(send.connection, spoilt)
            self.sent_bytes += send.length
        return words.Sent(send.connection)


class Web:
    """Peers, and what is on its way between them."""

    def __init__(self, settings: Settings = SMALL) -> None:
        self.now_s = 0.0
        self.settings = settings
        self.peers: list[Peer] = []
        self.later: deque[tuple[Peer, Event]] = deque()

    def peer(self, name: str, *, listens: bool = True) -> Peer:
        """Return a new one."""
        peer = Peer(self, name, self.settings, listens=listens)
        self.peers.append(peer)
        return peer

    def at(self, source: Source) -> Peer | None:
        """Return who listens there."""
        return next((one for one in self.peers if one.listens and one.source == source), None)

    def kill(self, peer: Peer) -> None:
        """End a peer, and its connections."""
        self.peers.remove(peer)
        for connection in list(peer.wires):
            wire = peer.wires.pop(connection)
            other = wire.other(peer)
            number = wire.numbers[other]
            if other.wires.pop(number, None):
                other.tell(words.Down(number, "it has ended"))

    def waiting(self) -> list[tuple[Peer, Connection]]:
        """Return where a word may come next."""
        return [
            (peer, number)
            for peer in self.peers
            if not peer.is_deaf
            for number, wire in peer.wires.items()
            if wire.waiting[peer] and not wire.stuck
        ]

    def step(self, peer: Peer, connection: Connection) -> None:
        """Let one word come."""
        word = decode_move(memoryview(peer.wires[connection].waiting[peer].popleft()))
        peer.tell(words.Heard(connection, word))
        self._settle()

    def _settle(self) -> None:
        while self.later:
            other, event = self.later.popleft()
            other.tell(event)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let words come until this is so, everybody in turn."""
        while not condition():
            for peer, connection in self.waiting():
                if not condition() and connection in peer.wires:
                    self.step(peer, connection)

    def run(self, turns_max: int = 100_000) -> None:
        """Let words come until nothing moves any more."""
        for _ in range(turns_max):
            moving = self.waiting()
            if not moving:
                return
            for peer, connection in moving:
                if connection in peer.wires and peer.wires[connection].waiting[peer]:
                    self.step(peer, connection)
        raise AssertionError("it never ends")

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a Tick whenever one is due, and words as they come."""
        until_s = self.now_s + seconds
        for _ in range(100_000):
            self.run()
            dues = [peer.core.deadline_s() for peer in self.peers]
            due_s = min((due for due in dues if due is not None), default=until_s)
            if due_s > until_s:
                break
            self.now_s = max(self.now_s, due_s)
            for peer in list(self.peers):
                peer_due_s = peer.core.deadline_s()
                if peer_due_s is not None and peer_due_s <= self.now_s:
                    peer.tell(words.Tick())
            self._settle()
            if self.now_s >= until_s:
                break
        else:
            raise AssertionError("ticks are always due")
        self.now_s = max(self.now_s, until_s)
        self.run()
