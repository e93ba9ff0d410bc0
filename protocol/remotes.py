"""Payloads that stay where they are: the scheduler sends peers to one another for them.

Never a socket, never the clock; never looks into a payload, and knows nothing of tasks. To cores a
`Remote` is a payload like any other: it has a length, is kept, sent on and dropped. As long as
anybody here keeps one, its holder keeps the bytes.

A reader is sent to whoever read the same last, and gets from it what that has got so far: so a
payload that many want leaves its holder about once. If that fails it goes on at the holder. If
that fails too the holder sends the bytes here, in chunks, and they are passed on. If it has gone,
the core is asked whether somebody else keeps them.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import finalize

from msgspec import Struct

from .absent import VOID, absent
from .errors import RemoteProtocolError
from .frames import Bring, Offered, Pointed, Source, Taken
from .ids import NO_PEER, PeerId

if TYPE_CHECKING:
    from .traffic import Traffic

#: so many payloads are remembered with who reads them; beyond that a holder sends once more
READ_MAX: Final = 4096
#: a reader may be sent to so many others that have read the same before it
READERS_MAX: Final = 64


class Relays(Struct, gc=False, frozen=True):
    """Report: a payload goes through the scheduler, since one cannot reach the other."""

    holder: PeerId
    reader: PeerId
    size: int


class Orphaned(Struct, frozen=True):
    """Report: a payload is needed whose holder has gone. Answered by `Remotes.restore`."""

    payload: "Remote"


class Unread(Struct, gc=False, frozen=True):
    """Report: nobody is getting anything any more that this peer has offered."""

    holder: PeerId


class Remote:
    """A payload whose bytes lie with the peer that has offered it."""

    __slots__ = (
        "__weakref__", "asked", "asked_for", "holder", "id", "is_told", "is_with", "key",
        "number", "payload", "size", "successor", "waiting",
    )  # fmt: skip

    def __init__(self, holder: "Traffic", offered: Offered) -> None:
        #: the link life in which it was offered
        self.holder = holder
        self.id = offered.id
        self.key = offered.key
        self.number = offered.number
        self.size = offered.size
        #: one that has got it, or is about to, though no row has named it there yet
        self.is_with = NO_PEER
        #: a row that names it is out, though its task goes on: should the bytes be lost, whoever
        #: has that row is to know
        self.is_told = False
        #: the bytes, if they had to come here; or what says that they are lost
        self.payload: bytes | None = None
        #: the holder has been asked for the bytes; or, since it has gone, the core
        self.asked = False
        #: its holder has gone: the same bytes, offered by another
        self.successor: Remote | None = None
        #: the peer that could not get them otherwise
        self.asked_for = NO_PEER
        #: to be told when they are here
        self.waiting: list[Callable[[bytes | Remote], None]] = []

    def __len__(self) -> int:
        return self.size

    def came(self, payload: "bytes | Remote") -> None:
        """The bytes are here, or with another, or it is known that they will not be."""
        if isinstance(payload, Remote):
            self.successor = payload
        else:
            self.payload = payload
        waiting, self.waiting = self.waiting, []
        for then in waiting:
            then(payload)


class Remotes:
    """All payloads that were offered, and who was sent where for them.

    Args:
        bytes_max: of a payload that goes through the scheduler.
        wake: takes the peer of a link on which something is to be sent now.
    """

    def __init__(self, bytes_max: int, wake: Callable[[PeerId], None]) -> None:
        self._bytes_max = bytes_max
        self._wake = wake
        #: by id: those who read it, the last one last; the longest unread first
        self._readers: OrderedDict[bytes, dict[PeerId, Source]] = OrderedDict()
        #: by the holder's link life: by number, what was asked for
        self._asked: dict[Traffic, dict[int, Remote]] = {}
        #: and what will be, once some of that has come
        self._later: dict[Traffic, deque[Remote]] = {}
        #: offers that nobody here keeps any more: the holder's link life, and the number. Appended
        #: amid anything
        self._dropped: deque[tuple[Traffic, int]] = deque()
        #: to be told to the core
        self.reports: list[Relays | Orphaned | Unread] = []
        #: those who would leave when nobody is getting anything of theirs; and whether that may
        #: have come about since last looked at
        self._leaving: dict[Traffic, None] = {}
        self._may_be_unread = False

    # -------------------------------------------------------------------- what a link tells

    def heard(self, traffic: "Traffic", message: Offered | Pointed | Bring) -> Remote | None:
        """See `traffic.Moves`."""
        if not isinstance(message, Offered):
            raise RemoteProtocolError(f"a {type(message).__name__} is out of place")
        return self.offered(traffic, message)

    def taken(self, traffic: "Traffic", answer: Taken, refused: Remote | None) -> None:
        """See `traffic.Moves`."""
        if refused is None:
            traffic.tries.pop(answer.number, None)
            self._may_be_unread = True
        else:
            self.failed(traffic, answer.number, refused)

    def relayed(self, traffic: "Traffic", number: int, payload: bytes) -> bool:
        """See `traffic.Moves`."""
        remote = self._asked.get(traffic, {}).pop(number, None)
        if remote is None:
            return False
        # Not before: most of those who cannot be reached have died, and are told of otherwise.
        if remote.asked_for != NO_PEER:
            self.reports.append(Relays(traffic.peer, remote.asked_for, remote.size))
        remote.came(payload)
        self._may_be_unread = True
        later = self._later.get(traffic)
        if later and not traffic.asks_too_much:
            self._ask(later.popleft())
            if not later:
                del self._later[traffic]
        return True

    # -------------------------------------------------------------------------------- holders

    def offered(self, holder: "Traffic", message: Offered) -> Remote:
        """Return the payload that a peer offers.

        Raises:
            RemoteProtocolError: it cannot have offered anything.
        """
        if holder.source is None:
            raise RemoteProtocolError("offered.id: nobody could get at it")
        remote = Remote(holder, message)
        dropped = finalize(remote, _drop, self._dropped, holder, message.number)
        dropped.atexit = False
        return remote

    def life_over(self, traffic: "Traffic") -> None:
        """A link life has ended: what was asked for in it does not come, and nobody reads by it."""
        self.reports += map(Orphaned, self._asked.pop(traffic, {}).values())
        self.reports += map(Orphaned, self._later.pop(traffic, ()))
        self._leaving.pop(traffic, None)
        self._may_be_unread = True
        source = traffic.source
        if source is not None:
            for readers in self._readers.values():
                readers.pop(PeerId(source.peer), None)

    # -------------------------------------------------------------------------------- readers

    def send(self, reader: "Traffic", key: bytes, remote: Remote) -> None:
        """Have a peer get a payload under a key."""
        while remote.successor is not None:
            remote = remote.successor
        if remote.payload is not None:
            reader.chunker.add(key, remote.payload)
        elif reader.source is None:
            self._promise(reader, key, remote)
        else:
            sources, is_last = self._sources(remote, reader, 0)
            if sources:
                number = reader.chunker.point(key, remote, sources)
                reader.tries[number] = is_last
            else:
                self._promise(reader, key, remote)

    def failed(self, reader: "Traffic", number: int, remote: Remote) -> None:
        """A peer could not get what it was sent for: try what is left."""
        is_last = reader.tries.pop(number, True)
        self._no_reader(remote.id, reader)
        is_open = remote.payload is None and remote.successor is None
        if is_open and not is_last and self._point_again(reader, number, remote, 1):
            return
        if is_open:
            self._relay(remote, reader, number)
        else:
            self._give(reader, number, remote)

    def _point_again(self, reader: "Traffic", number: int, remote: Remote, tried: int) -> bool:
        sources, is_last = self._sources(remote, reader, tried)
        if sources:
            reader.chunker.point_again(number, sources)
            reader.tries[number] = is_last
            self._wake(reader.peer)
        return bool(sources)

    def _sources(
        self, remote: Remote, reader: "Traffic", tried: int
    ) -> tuple[tuple[Source, ...], bool]:
        """Return whom a peer is to ask, and whether nobody is left after these."""
        source = reader.source
        holder = remote.holder.source
        assert source is not None
        assert holder is not None
        readers = self._read(remote.id)
        if not tried and readers:
            last = next(reversed(readers.values()))
            if last.peer != source.peer:
                self._reads(readers, source)
                # It may be done with it, or die, before this one has all: then this one goes on
                # at the holder, where it has stopped.
                if remote.holder.over or last.peer == holder.peer:
                    return (last,), False
                if holder.endpoint:
                    return (last, holder), True
                if source.endpoint:
                    self._bring(remote, source)
                    return (last, holder), False
                return (last,), False
        if remote.holder.over:
            return (), True
        if holder.endpoint:
            self._reads(readers, source)
            return (holder,), True
        if not source.endpoint:
            return (), True  # neither can be dialled
        self._reads(readers, source)
        self._bring(remote, source)
        return (holder,), True

    def _bring(self, remote: Remote, to: Source) -> None:
        remote.holder.chunker.say(Bring(remote.id, to))
        self._wake(remote.holder.peer)

    def _read(self, id_: bytes) -> dict[PeerId, Source]:
        readers = self._readers.get(id_)
        if readers is None:
            readers = self._readers[id_] = {}
            if len(self._readers) > READ_MAX:
                self._readers.popitem(last=False)
        else:
            self._readers.move_to_end(id_)
        return readers

    def _reads(self, readers: dict[PeerId, Source], source: Source) -> None:
        if source.endpoint:
            # Who asks again has lost it: it is not sent to itself by way of others.
            readers.pop(PeerId(source.peer), None)
            readers[PeerId(source.peer)] = source
            if len(readers) > READERS_MAX:
                del readers[next(iter(readers))]

    def _no_reader(self, id_: bytes, reader: "Traffic") -> None:
        source = reader.source
        readers = self._readers.get(id_)
        if readers is not None and source is not None:
            readers.pop(PeerId(source.peer), None)

    # ------------------------------------------------------------------------- by way of here

    def _promise(self, reader: "Traffic", key: bytes, remote: Remote) -> None:
        self._relay(remote, reader, reader.chunker.promise(key, remote))

    def _give(self, reader: "Traffic", number: int, payload: bytes | Remote) -> None:
        """Go on with what a peer waits for: now it is known where its bytes are."""
        if reader.over:
            return
        self._may_be_unread = True
        if not isinstance(payload, Remote):
            if payload != VOID or not reader.chunker.take_back(number):
                reader.chunker.give(number, payload)
            self._wake(reader.peer)
        elif payload.successor is not None:
            self._give(reader, number, payload.successor)
        elif payload.payload is not None:
            self._give(reader, number, payload.payload)
        elif not reader.chunker.replace(number, payload) or not self._point_again(
            reader, number, payload, 0
        ):
            self._relay(payload, reader, number)

    def _relay(self, remote: Remote, reader: "Traffic", number: int) -> None:
        holder = remote.holder
        if not remote.asked and not holder.over and remote.size > self._bytes_max:
            # That is so for this peer; others may reach it.
            reason = (
                f"{reader.name} cannot reach {holder.name}, which has it, and its "
                f"{remote.size:,} bytes are more than go through the scheduler: "
                f"{self._bytes_max:,} (value_bytes_max)"
            )
            self._give(reader, number, absent(reason))
            return
        remote.waiting.append(partial(self._give, reader, number))
        if not remote.asked:
            remote.asked_for = reader.peer
            self._call(remote)

    def fetch(self, remote: Remote, then: Callable[[bytes], None]) -> None:
        """Have the bytes come here for good: whoever needs them outlives the holder.

        Args:
            remote: what is to come.
            then: takes the bytes, or what says that they are lost.
        """
        while remote.successor is not None:
            remote = remote.successor
        if remote.payload is not None:
            then(remote.payload)
        elif not remote.asked and not remote.holder.over and remote.size > self._bytes_max:
            reason = (
                f"its {remote.size:,} bytes are more than go to the scheduler: "
                f"{self._bytes_max:,} (value_bytes_max)"
            )
            then(absent(reason))
        else:
            remote.waiting.append(partial(self._fetched, then))
            if not remote.asked:
                self._call(remote)

    def _fetched(self, then: Callable[[bytes], None], payload: bytes | Remote) -> None:
        if isinstance(payload, Remote):
            self.fetch(payload, then)
        else:
            then(payload)

    def _call(self, remote: Remote) -> None:
        remote.asked = True
        if remote.holder.over:
            self.reports.append(Orphaned(remote))
        elif remote.holder.asks_too_much:
            self._later.setdefault(remote.holder, deque()).append(remote)
        else:
            self._ask(remote)

    def _ask(self, remote: Remote) -> None:
        holder = remote.holder
        holder.ask_for(remote.key, remote.number)
        self._asked.setdefault(holder, {})[remote.number] = remote
        self._wake(holder.peer)

    def restore(self, remote: Remote, payload: bytes | Remote | None) -> None:
        """The core says where the bytes are of what has lost its holder; None: nowhere."""
        if payload is None:
            payload = absent(f"{remote.holder.name} has gone, which had it")
        remote.came(payload)

    def tidy(self) -> None:
        """Tell holders what nobody needs any more."""
        dropped = self._dropped
        while dropped:
            holder, number = dropped.popleft()
            if not holder.over:
                holder.chunker.say(Taken(number, True))
                self._wake(holder.peer)

    # ------------------------------------------------------------------------- who would leave

    def leaves(self, holder: "Traffic") -> None:
        """A peer would leave: report (`Unread`) when nobody is getting anything of it."""
        self._leaving[holder] = None
        self._may_be_unread = True

    def look_at_leaving(self, readers: Iterable["Traffic"]) -> None:
        """Report those of whom nobody is getting anything; `readers`: all that there are."""
        if not self._leaving or not self._may_be_unread:
            return
        self._may_be_unread = False
        for holder in list(self._leaving):
            if not self._is_read(holder, readers):
                del self._leaving[holder]
                self.reports.append(Unread(holder.peer))

    def _is_read(self, holder: "Traffic", readers: Iterable["Traffic"]) -> bool:
        if self._asked.get(holder) or self._later.get(holder):
            return True
        return any(
            remote.holder is holder for reader in readers for remote in reader.chunker.awaited()
        )

    def sizes(self) -> dict[str, int]:
        """Return how much is under way."""
        asked = [*self._asked.values(), *self._later.values()]
        return {"payloads_asked_for": sum(map(len, asked)), "leaving": len(self._leaving)}


def _drop(dropped: "deque[tuple[Traffic, int]]", holder: "Traffic", number: int) -> None:
    dropped.append((holder, number))
