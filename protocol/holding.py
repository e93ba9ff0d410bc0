"""The holder's side of data connections: who has asked for what, and whose piece goes next.

Never reads a payload, never a clock. Each connection has one piece on its way to its socket at a
time, and its askers take turns by the piece; so who does not read keeps nobody else waiting.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from .errors import RemoteProtocolError
from .moves import Ask, Gone
from .moving_words import Command, Connection, SayTo, Send
from .pace import ask_bytes_min

#: payloads that one connection may ask for at a time: more than who keeps to its own bound does
ASKS_MAX: Final = 1024
#: who asks for what nobody has spoken of here is told so after that time: it may be on its way
EARLY_S: Final = 0.5
#: a connection that is full is tried again after
FULL_PAUSE_S: Final = 0.01


class _Held:
    """What is here of a payload: its first bytes."""

    __slots__ = ("have", "size")

    def __init__(self, have: int, size: int) -> None:
        self.have = have
        self.size = size


class _Asker:
    """What one connection has asked for and not been sent."""

    __slots__ = ("asks", "full_since_s", "pause_until_s", "sending")

    def __init__(self) -> None:
        # [next byte, end] by key, in the order of turns
        self.asks: dict[bytes, list[int]] = {}
        #: the piece that the shell is sending
        self.sending: Send | None = None
        #: since when nothing has gone; None: the last piece did
        self.full_since_s: float | None = None
        self.pause_until_s = 0.0


class Holding:
    """See the module.

    Args:
        piece_bytes_max: most data of one piece.
        silence_s: a connection that has taken nothing for so long is to be closed.
    """

    def __init__(self, piece_bytes_max: int, silence_s: float) -> None:
        self._piece_bytes_max = piece_bytes_max
        self._ask_bytes_min = ask_bytes_min(piece_bytes_max)
        self._silence_s = silence_s
        self._held: dict[bytes, _Held] = {}
        self._askers: dict[Connection, _Asker] = {}
        # Which connections have asked for a key.
        self._asked: dict[bytes, dict[Connection, None]] = {}
        # Of those that asked for what is not here: until when it may come.
        self._early: dict[tuple[Connection, bytes], float] = {}
        self._full: dict[Connection, None] = {}

    # ---------------------------------------------------------------------------- what is here

    def size_of(self, key: bytes) -> int | None:
        """Return the size of a payload that is here as a whole; None: it is not."""
        held = self._held.get(key)
        return held.size if held is not None and held.have == held.size else None

    def has(self, key: bytes, have: int, size: int, now_s: float) -> list[Command]:
        """So many bytes of this payload are here from now on, from its begin."""
        held = self._held.get(key)
        if held is None:
            self._held[key] = _Held(have, size)
        else:
            held.have, held.size = have, size
        commands: list[Command] = []
        for connection in list(self._asked.get(key, ())):
            self._early.pop((connection, key), None)
            commands += self._next(connection, now_s)
        return commands

    def drop(self, key: bytes, reason: str) -> list[Command]:
        """It is not here any more: whoever has asked for it is told."""
        self._held.pop(key, None)
        return [
            command
            for connection in list(self._asked.get(key, ()))
            for command in self._refuse(connection, key, reason)
        ]

    # ------------------------------------------------------------------------ what others want

    def ask(self, connection: Connection, word: Ask, now_s: float) -> list[Command]:
        """Somebody asks for bytes.

        Raises:
            RemoteProtocolError: for none, for too few, or for more payloads than anybody needs.
        """
        key = word.key
        held = self._held.get(key)
        if word.offset >= word.until:
            raise RemoteProtocolError(f"ask: from {word.offset:,} on and only to {word.until:,}")
        if held is not None and word.until < min(word.offset + self._ask_bytes_min, held.size):
            raise RemoteProtocolError(
                f"ask: for {word.until - word.offset:,} bytes of {held.size:,}, which are too few"
            )
        asker = self._askers.get(connection)
        if asker is None:
            asker = self._askers[connection] = _Asker()
        span = asker.asks.get(key)
        if span is not None and span[1] == word.offset:
            span[1] = word.until
        elif span is not None:
            span[:] = word.offset, word.until
        elif len(asker.asks) >= ASKS_MAX:
            raise RemoteProtocolError(f"ask: for more than {ASKS_MAX:,} payloads at a time")
        else:
            asker.asks[key] = [word.offset, word.until]
            self._asked.setdefault(key, {})[connection] = None
        if held is None:
            self._early.setdefault((connection, key), now_s + EARLY_S)
            return []
        # It reads, since it asks for more.
        asker.pause_until_s = now_s
        return self._next(connection, now_s)

    def enough(self, connection: Connection, key: bytes) -> None:
        """Somebody needs no more of this."""
        asker = self._askers.get(connection)
        if asker is not None and asker.asks.pop(key, None) is not None:
            self._early.pop((connection, key), None)
            connections = self._asked[key]
            del connections[connection]
            if not connections:
                del self._asked[key]

    def down(self, connection: Connection) -> None:
        """A connection is no more."""
        asker = self._askers.get(connection)
        if asker is not None:
            for key in list(asker.asks):
                self.enough(connection, key)
            del self._askers[connection]
            self._full.pop(connection, None)

    def asks_of(self, connection: Connection) -> bool:
        """Say whether a connection waits for anything."""
        asker = self._askers.get(connection)
        return asker is not None and bool(asker.asks)

    # ---------------------------------------------------------------------------------- pieces

    def sent(self, connection: Connection, now_s: float) -> tuple[Send | None, list[Command]]:
        """The piece is on its way; return it, and what comes next."""
        asker = self._askers.get(connection)
        if asker is None or asker.sending is None:
            return None, []  # it has been closed meanwhile
        send, asker.sending = asker.sending, None
        asker.full_since_s = None
        self._full.pop(connection, None)
        span = asker.asks.get(send.key)
        # What it asks for may be something else by now.
        if span is not None and span[0] == send.offset:
            span[0] += send.length
            if span[0] >= span[1]:
                self.enough(connection, send.key)
        return send, self._next(connection, now_s)

    def full(self, connection: Connection, now_s: float) -> None:
        """The piece did not go: it is tried again later."""
        asker = self._askers.get(connection)
        if asker is not None:
            asker.sending = None
            if asker.full_since_s is None:
                asker.full_since_s = now_s
            asker.pause_until_s = now_s + FULL_PAUSE_S
            self._full[connection] = None

    def unread(self, connection: Connection, now_s: float) -> list[Command]:
        """The piece did not go: its bytes cannot be had."""
        asker = self._askers.get(connection)
        if asker is None or asker.sending is None:
            return []
        send, asker.sending = asker.sending, None
        commands: list[Command] = []
        if send.key in asker.asks:
            commands = self._refuse(connection, send.key, "its bytes cannot be read")
        return commands + self._next(connection, now_s)

    def _next(self, connection: Connection, now_s: float) -> list[Command]:
        asker = self._askers[connection]
        if asker.sending is not None or now_s < asker.pause_until_s:
            return []
        commands: list[Command] = []
        for key in list(asker.asks):
            held = self._held.get(key)
            if held is None:
                continue
            offset, until = asker.asks[key]
            if offset >= held.size:
                commands += self._refuse(connection, key, f"it has {held.size:,} bytes")
                continue
            # Whole pieces begin at multiples of their length, so that their checksums can be kept.
            whole = offset - offset % self._piece_bytes_max + self._piece_bytes_max
            until = min(until, held.size, whole)
            length = min(until, held.have) - offset
            if length < min(until - offset, self._ask_bytes_min):
                continue  # what comes here in small parts goes on in larger ones
            asker.asks[key] = asker.asks.pop(key)  # the others go first next time
            asker.sending = Send(connection, key, offset, length, held.size)
            return [*commands, asker.sending]
        return commands

    def _refuse(self, connection: Connection, key: bytes, reason: str) -> list[Command]:
        self.enough(connection, key)
        return [SayTo(connection, Gone(key, reason))]

    # ------------------------------------------------------------------------------------ time

    def time_passed(self, now_s: float) -> tuple[list[Command], list[Connection]]:
        """Return what is to be done, and which connections take nothing any more."""
        commands: list[Command] = []
        for (connection, key), until_s in list(self._early.items()):
            if now_s >= until_s:
                commands += self._refuse(connection, key, "it is not here")
        stuck: list[Connection] = []
        for connection in list(self._full):
            asker = self._askers[connection]
            since_s = asker.full_since_s
            if since_s is not None and now_s >= since_s + self._silence_s:
                stuck.append(connection)
            elif now_s >= asker.pause_until_s:
                commands += self._next(connection, now_s)
                if asker.sending is None:
                    # Nothing of what it wants is here now; what comes is sent as it comes.
                    del self._full[connection]
                    asker.full_since_s = None
        return commands, stuck

    def due_s(self) -> Iterator[float]:
        """Yield when time has to be told of."""
        yield from self._early.values()
        for connection in self._full:
            if self._askers[connection].sending is None:
                yield self._askers[connection].pause_until_s

    # ---------------------------------------------------------------------------------- checks

    @property
    def is_at_rest(self) -> bool:
        """Whether nobody waits for anything."""
        return not self._asked and not self._early and not self._full

    @property
    def held(self) -> Iterable[bytes]:
        """What may be asked for."""
        return self._held.keys()

    def check_invariants(self) -> None:
        """Assert that all records agree: for tests."""
        for key, connections in self._asked.items():
            assert connections
            assert all(key in self._askers[connection].asks for connection in connections)
        for connection, asker in self._askers.items():
            assert len(asker.asks) <= ASKS_MAX
            for key, (offset, until) in asker.asks.items():
                assert offset < until
                assert connection in self._asked[key]
                assert key in self._held or (connection, key) in self._early
        for connection, key in self._early:
            assert key in self._askers[connection].asks
        for connection in self._full:
            assert connection in self._askers
        for held in self._held.values():
            assert 0 <= held.have <= held.size
