"""The core of data connections: pulls large payloads from peers, and serves them to others.

Never a socket, never the clock, never a payload's meaning: events and `now_s` in, commands out
(protocol/moving_words.py). What has been asked of it and by whom is in protocol/holding.py.

A pull has one source at a time, and goes on at the next one where the last one has stopped. What
has come of a payload may be asked for at once, so a chain of receivers costs its first source one
copy.
"""

from collections.abc import Iterable
from typing import Final
from zlib import crc32

from . import moving_words as words
from .errors import RemoteProtocolError
from .holding import Holding
from .moves import DATA_PROTOCOL_VERSION, Ask, Enough, Gone, Greet, Have, Move, Piece, piece_bytes
from .moving_state import Link, Wanted
from .moving_words import Close, Command, Connection, Event, Finished, SayTo, Source
from .offering import Offering
from .pace import Pace, ask_bytes_min
from .settings import Settings
from .unreached import Unreached

#: pulls that ask at a time; the others wait for them
PULLS_MAX: Final = 256
#: what peers have said that they have and nobody has wanted yet: how many, and for how long
HAVES_MAX: Final = 4096
HAVES_S: Final = 60.0
#: reasons that are told of one pull
_REASONS_MAX: Final = 8


class Moving:
    """See the module. What was pulled may be asked for until it is cancelled or unserved.

    Args:
        peer: the own id.
        settings: bounds and times.
    """

    def __init__(self, peer: bytes, settings: Settings) -> None:
        self._peer = peer
        self._piece_bytes_max = piece_bytes(settings.frame_bytes_max)
        self._ask_bytes_min = ask_bytes_min(self._piece_bytes_max)
        self._window_bytes = max(settings.data_window_bytes, self._ask_bytes_min)
        self._silence_s = settings.data_silence_s
        self._idle_s = settings.data_idle_s
        self._relayed_max = settings.value_bytes_max
        self._holding = Holding(self._piece_bytes_max, self._silence_s)
        self._links: dict[Connection, Link] = {}
        self._dialled: dict[Source, Link] = {}
        self._last_dialled: Connection = 0
        self._pulls: dict[bytes, Wanted] = {}
        # Of these: those that ask, and those that wait for their turn.
        self._active: dict[bytes, None] = {}
        self._in_line: dict[bytes, None] = {}
        # (peer, key): the connection by which it was said, and until when that is remembered
        self._haves: dict[tuple[bytes, bytes], tuple[Connection, float]] = {}
        # Who waits for a peer to come and say that.
        self._awaited: dict[tuple[bytes, bytes], None] = {}
        self._offers = Offering(self._silence_s)
        self._unreached = Unreached()
        self._seen_s: float | None = None
        self._is_beginning = False
        self.counters = dict.fromkeys(
            ("junk", "pieces_wrong", "pieces_late", "pulls_failed", "sources_lost", "stuck"), 0
        )

    # -------------------------------------------------------------------------------- the door

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take in what has happened; return what is to be done, in that order."""
        self._see(now_s)
        out: list[Command] = []
        match event:
            case words.Heard(connection, word):
                self._heard(connection, word, now_s, out)
            case words.Sent(connection):
                self._sent(connection, now_s, out)
            case words.Full(connection):
                self._holding.full(connection, now_s)
            case words.Unread(connection):
                out += self._holding.unread(connection, now_s)
            case words.Pull():
                self._pull(event, now_s, out)
            case words.Serve(key, size):
                out += self._holding.has(key, size, size, now_s)
            case words.Unserve(key) | words.Cancel(key):
                self._forget(key, "it is not kept there any more", out, now_s)
            case words.Offer(key, to):
                self._offers.add(to, key, now_s)
                self._offer(to, (key,), now_s, out)
            case words.Down(connection, reason):
                self._down(connection, reason, now_s, out)
            case words.Junk(connection, reason):
                self._junk(connection, reason, now_s, out)
            case words.Unwritten(key, reason):
                pull = self._pulls.get(key)
                if pull is not None:
                    self._leave(pull, out, say=True)
                    self._fail(pull, self._peer, reason, out, now_s)
            case words.Tick():
                self._time_passed(now_s, out)
        return out

    def deadline_s(self) -> float | None:
        """Return when a Tick is due though nothing happens; None: never."""
        due_s = [*self._holding.due_s(), *self._offers.due_s()]
        if self._active and self._seen_s is not None:
            # So often that a gap says that this process was stopped.
            due_s.append(self._seen_s + self._silence_s / 4)
        due_s += [link.used_s + self._idle_s for link in self._dialled.values() if self._idle(link)]
        return min(due_s, default=None)

    def _see(self, now_s: float) -> None:
        """Nobody was silent while this process did not listen."""
        seen_s, self._seen_s = self._seen_s, now_s
        if seen_s is not None and self._active and now_s - seen_s > self._silence_s / 2:
            for key in self._active:
                self._pulls[key].since_s += now_s - seen_s
            for link in self._links.values():
                link.used_s = now_s

    # ----------------------------------------------------------------------------------- words

    def _heard(self, connection: Connection, word: Move, now_s: float, out: list[Command]) -> None:
        link = self._links.get(connection)
        if link is None:
            if connection > 0:
                return  # it was closed here
            link = self._links[connection] = Link(connection, None, now_s, self._pace())
        link.used_s = now_s
        try:
            if not link.is_up:
                self._greeted(link, word, now_s, out)
                return
            match word:
                case Piece():
                    self._piece(link, word, now_s, out)
                case Ask():
                    out += self._holding.ask(connection, word, now_s)
                    if link.source is not None:
                        self._offers.keep(link.source, word.key, now_s)
                case Enough(key):
                    self._holding.enough(connection, key)
                case Have(key):
                    self._have(link, key, now_s, out)
                case Gone(key, reason):
                    pull = self._pulls.get(key)
                    if pull is not None and pull.link is link:
                        self._lose(pull, reason, now_s, out, again=False)
                case Greet():
                    raise RemoteProtocolError("greet: a second time")
        except RemoteProtocolError as error:
            self._junk(connection, str(error), now_s, out)

    def _greeted(self, link: Link, word: Move, now_s: float, out: list[Command]) -> None:
        if not isinstance(word, Greet):
            raise RemoteProtocolError("the first word is no greet")
        if word.protocol != DATA_PROTOCOL_VERSION:
            raise RemoteProtocolError(
                f"greet.protocol: {word.protocol}, and here {DATA_PROTOCOL_VERSION} is spoken"
            )
        if link.source is None:
            out.append(SayTo(link.connection, Greet(DATA_PROTOCOL_VERSION, self._peer)))
        elif link.source.peer != word.peer:
            raise RemoteProtocolError(f"greet.peer: {word.peer.hex()} is at {link.source.endpoint}")
        link.is_up, link.peer, link.gave_s = True, word.peer, now_s
        self._unreached.reached(word.peer, link.source.endpoint if link.source else "")
        for key in list(link.pulls):
            self._ask(self._pulls[key], out)
        if link.source is not None:
            self._offer(link.source, self._offers.to(link.source), now_s, out)

    def _junk(self, connection: Connection, reason: str, now_s: float, out: list[Command]) -> None:
        self.counters["junk"] += 1
        out.append(Close(connection))
        self._down(connection, reason, now_s, out)

    def _have(self, link: Link, key: bytes, now_s: float, out: list[Command]) -> None:
        name = link.peer, key
        self._haves.pop(name, None)
        self._haves[name] = link.connection, now_s + HAVES_S
        if len(self._haves) > HAVES_MAX:
            del self._haves[next(iter(self._haves))]
        if self._awaited.pop(name, "") is None:
            self._use(self._pulls[key], link, now_s, out)

    # ----------------------------------------------------------------------------------- pulls

    def _pull(self, event: words.Pull, now_s: float, out: list[Command]) -> None:
        key = event.key
        if self._holding.size_of(key) is not None:
            out.append(Finished(key))
            return
        pull = self._pulls.get(key)
        if pull is not None:
            known = {*pull.sources, pull.source}
            pull.sources += [source for source in event.sources if source not in known]
            return
        pull = self._pulls[key] = Wanted(key, event.size, event.sources)
        out += self._holding.has(key, 0, event.size, now_s)
        self._in_line[key] = None
        self._begin_some(now_s, out)

    def _begin_some(self, now_s: float, out: list[Command]) -> None:
        if self._is_beginning:
            return  # one that has ended at once: the loop below goes on
        self._is_beginning = True
        while self._in_line and len(self._active) < PULLS_MAX:
            key = next(iter(self._in_line))
            del self._in_line[key]
            self._active[key] = None
            self._begin(self._pulls[key], now_s, out)
        self._is_beginning = False

    def _begin(self, pull: Wanted, now_s: float, out: list[Command]) -> None:
        """Go on with the next source."""
        if pull.at == pull.size:
            self._finish(pull, now_s, out)
            return
        if not pull.sources:
            peer, reason = pull.reasons[-1] if pull.reasons else (b"", "nobody has it")
            if len(pull.reasons) > 1:
                reason = "; ".join(f"{peer.hex()}: {reason}" for peer, reason in pull.reasons)
            self._fail(pull, peer, reason, out, now_s)
            return
        pull.source = source = pull.sources.popleft()
        pull.begun_at, pull.since_s = pull.at, now_s
        # What is too large for any other way is worth the wait.
        if pull.size <= self._relayed_max and self._unreached.has(source, now_s):
            self._lose(pull, "it could not be reached of late", now_s, out, again=False)
            return
        if source.endpoint:
            self._use(pull, self._link_to(source, now_s, out), now_s, out)
            return
        said = self._haves.get((source.peer, pull.key))
        link = self._links.get(said[0]) if said and now_s < said[1] else None
        if link is not None and link.peer == source.peer:
            self._use(pull, link, now_s, out)
        else:
            self._awaited[source.peer, pull.key] = None

    def _use(self, pull: Wanted, link: Link, now_s: float, out: list[Command]) -> None:
        pull.link, pull.since_s = link, now_s
        pull.asked = pull.at
        link.pulls[pull.key] = None
        if link.is_up:
            self._ask(pull, out)

    def _link_to(self, source: Source, now_s: float, out: list[Command]) -> Link:
        link = self._dialled.get(source)
        if link is None:
            self._last_dialled += 1
            link = Link(self._last_dialled, source, now_s, self._pace())
            self._links[link.connection] = self._dialled[source] = link
            out.append(words.Dial(link.connection, source))
            out.append(SayTo(link.connection, Greet(DATA_PROTOCOL_VERSION, self._peer)))
        return link

    def _pace(self) -> Pace:
        return Pace(self._piece_bytes_max, self._window_bytes, self._silence_s)

    def _ask(self, pull: Wanted, out: list[Command]) -> None:
        link = pull.link
        if link is None:
            return
        ahead = link.pace.ahead
        until = min(pull.size, pull.at + ahead)
        more = until - pull.asked
        # Not for each piece, but long before the last one that was asked for has come.
        if more >= max(ahead // 8, self._ask_bytes_min) or (more > 0 and until == pull.size):
            out.append(SayTo(link.connection, Ask(pull.key, pull.asked, until)))
            pull.asked = until

    def _piece(self, link: Link, word: Piece, now_s: float, out: list[Command]) -> None:
        pull = self._pulls.get(word.key)
        if pull is None or pull.link is not link or word.offset != pull.at:
            # It was asked for once, before something went wrong.
            self.counters["pieces_late"] += 1
            return
        length = len(word.data)
        if not length or pull.at + length > pull.asked:
            raise RemoteProtocolError(f"piece.data: {length:,} bytes, which were not asked for")
        if word.size != pull.size:
            reason = f"what it has there has {word.size:,} bytes, and not {pull.size:,}"
            self._lose(pull, reason, now_s, out, again=False)
        elif crc32(word.data) != word.checksum:
            self.counters["pieces_wrong"] += 1
            reason = f"its bytes from {pull.at:,} on came with a wrong checksum"
            self._lose(pull, reason, now_s, out, again=False)
        else:
            out.append(words.Write(pull.key, pull.at, word.data, pull.size, word.checksum))
            link.pace.came(length, now_s - max(link.gave_s, pull.since_s))
            pull.at += length
            pull.since_s = link.gave_s = now_s
            if pull.at == pull.size:
                self._finish(pull, now_s, out)
                return
            self._ask(pull, out)
            out += self._holding.has(pull.key, pull.at, pull.size, now_s)

    def _finish(self, pull: Wanted, now_s: float, out: list[Command]) -> None:
        self._leave(pull, out, say=False)
        self._end(pull)
        out.append(Finished(pull.key))
        out += self._holding.has(pull.key, pull.size, pull.size, now_s)
        self._begin_some(now_s, out)

    def _fail(
        self, pull: Wanted, peer: bytes, reason: str, out: list[Command], now_s: float
    ) -> None:
        self.counters["pulls_failed"] += 1
        self._end(pull)
        out += self._holding.drop(pull.key, "it did not come there either")
        out += [words.Dropped(pull.key), words.Failed(pull.key, peer, reason)]
        self._begin_some(now_s, out)

    def _forget(self, key: bytes, reason: str, out: list[Command], now_s: float) -> None:
        """What is here of a payload, and what was to come, is not needed any more."""
        pull = self._pulls.get(key)
        if pull is not None:
            self._leave(pull, out, say=True)
            self._end(pull)
        self._offers.forget(key)
        out += self._holding.drop(key, reason)
        out.append(words.Dropped(key))
        self._begin_some(now_s, out)

    def _end(self, pull: Wanted) -> None:
        del self._pulls[pull.key]
        self._active.pop(pull.key, None)
        self._in_line.pop(pull.key, None)

    def _leave(self, pull: Wanted, out: list[Command], *, say: bool) -> None:
        """Be done with the source that it has at the moment."""
        if pull.link is not None:
            del pull.link.pulls[pull.key]
            if say and pull.link.is_up:
                out.append(SayTo(pull.link.connection, Enough(pull.key)))
            pull.link = None
        elif pull.source is not None:
            self._awaited.pop((pull.source.peer, pull.key), None)

    def _lose(
        self, pull: Wanted, reason: str, now_s: float, out: list[Command], *, again: bool
    ) -> None:
        """Its source is of no use any more.

        It may be tried `again` at the end if it ever was, or if it was asked for much at a time and
        may only be slow.
        """
        self.counters["sources_lost"] += 1
        source = pull.source
        if source is not None:
            self._haves.pop((source.peer, pull.key), None)
            pull.reasons = [*pull.reasons, (source.peer, reason)][-_REASONS_MAX:]
            was_hasty = pull.link is not None and not pull.link.pace.is_first
            if again and (pull.at > pull.begun_at or was_hasty):
                pull.sources.append(source)
        self._leave(pull, out, say=True)
        pull.source = None
        self._begin(pull, now_s, out)

    # ------------------------------------------------------------------------------ connections

    def _down(self, connection: Connection, reason: str, now_s: float, out: list[Command]) -> None:
        self._holding.down(connection)
        link = self._links.pop(connection, None)
        if link is None:
            return
        was_up, link.is_up = link.is_up, False
        if link.source is not None:
            del self._dialled[link.source]
            if not was_up:
                self._unreached.note(link.source, link.used_s, now_s)
            self._offers.lost(link.source, now_s)
        for key in list(link.pulls):
            self._lose(self._pulls[key], reason, now_s, out, again=True)

    def _offer(self, to: Source, keys: Iterable[bytes], now_s: float, out: list[Command]) -> None:
        link = self._link_to(to, now_s, out)
        if link.is_up:
            for key in keys:
                size = self._holding.size_of(key)
                if size is not None:
                    out.append(SayTo(link.connection, Have(key, size)))

    def _sent(self, connection: Connection, now_s: float, out: list[Command]) -> None:
        send, commands = self._holding.sent(connection, now_s)
        out += commands
        link = self._links.get(connection)
        if link is not None and send is not None:
            link.used_s = now_s
            if link.source is not None:
                if send.offset + send.length == send.size:
                    self._offers.drop(link.source, send.key)
                else:
                    self._offers.keep(link.source, send.key, now_s)

    # ------------------------------------------------------------------------------------ time

    def _time_passed(self, now_s: float, out: list[Command]) -> None:
        commands, stuck = self._holding.time_passed(now_s)
        out += commands
        for connection in stuck:
            self.counters["stuck"] += 1
            out.append(Close(connection))
            self._down(connection, "it takes nothing any more", now_s, out)
        for key in list(self._active):
            pull = self._pulls.get(key)
            if pull is not None and now_s >= pull.since_s + self._silence_s:
                self._silent(pull, now_s, out)
        for name, (_, until_s) in list(self._haves.items()):
            if now_s < until_s:
                break
            del self._haves[name]
        for to in self._offers.time_passed(now_s):
            self._offer(to, self._offers.to(to), now_s, out)
        for link in list(self._dialled.values()):
            if self._idle(link) and now_s >= link.used_s + self._idle_s:
                out.append(Close(link.connection))
                self._down(link.connection, "it was not used", now_s, out)

    def _idle(self, link: Link) -> bool:
        needed = link.pulls or link.source in self._offers
        return not needed and not self._holding.asks_of(link.connection)

    def _silent(self, pull: Wanted, now_s: float, out: list[Command]) -> None:
        link = pull.link
        if link is not None and now_s < link.gave_s + self._silence_s:
            return  # it is not its turn: what else is asked for there takes as long
        reason = f"nothing came for {self._silence_s:g} s"
        if link is not None and now_s >= link.used_s + self._silence_s:
            out.append(Close(link.connection))
            self._down(link.connection, reason, now_s, out)
        else:
            if link is None and pull.source is not None:
                self._unreached.note(pull.source, pull.since_s, now_s)
            self._lose(pull, reason, now_s, out, again=True)

    # ---------------------------------------------------------------------------------- checks

    def at_rest(self) -> bool:
        """Say whether nothing is wanted, asked for or offered."""
        return not self._pulls and not self._offers and self._holding.is_at_rest

    @property
    def connections(self) -> int:
        """How many connections there are that have said a word, or were dialled."""
        return len(self._links)

    def check_invariants(self) -> None:
        """Assert that all records agree: for tests."""
        self._holding.check_invariants()
        self._offers.check_invariants()
        assert self._pulls.keys() == self._active.keys() | self._in_line.keys()
        assert not self._active.keys() & self._in_line.keys()
        assert len(self._active) <= PULLS_MAX
        assert len(self._haves) <= HAVES_MAX
        for key, pull in self._pulls.items():
            assert key in self._holding.held
            assert 0 <= pull.begun_at <= pull.at <= pull.size
            if pull.link is not None:
                assert pull.at <= pull.asked <= min(pull.size, pull.at + self._window_bytes)
                assert self._links[pull.link.connection] is pull.link
                assert key in pull.link.pulls
            elif key in self._active:
                assert pull.source is not None
                assert (pull.source.peer, key) in self._awaited
        for connection, link in self._links.items():
            assert link.connection == connection
            assert (link.source is None) == (connection < 0)
            assert all(self._pulls[key].link is link for key in link.pulls)
        for source, link in self._dialled.items():
            assert self._links[link.connection] is link
            assert link.source == source
        for peer, key in self._awaited:
            awaited = self._pulls[key].source
            assert awaited is not None
            assert awaited.peer == peer
