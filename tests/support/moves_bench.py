"""A scheduler's end and peers' ends of bulk links, and what they say to each other, by hand."""

from collections.abc import Callable, Sequence
from typing import Any

from drumbeat.protocol.carriage import Carriage
from drumbeat.protocol.codec import Reader, encode
from drumbeat.protocol.frames import Hello
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.lending import send_payload, traffic_of
from drumbeat.protocol.moving_words import Moved, NotMoved, Source
from drumbeat.protocol.remotes import Relays, Remote, Remotes, Unread
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.traffic import Blob, Traffic
from msgspec import Raw

KEY = bytes(range(32))
ADMITS = (KEY,)


class Hands:
    """Moves nothing: remembers what it was told, and tells what a test has happen."""

    def __init__(self, wake: Callable[[], None], port: int) -> None:
        self.endpoint = f"tcp://0.0.0.0:{port}"
        self.public_key = KEY
        self.served: dict[bytes, bytes | memoryview] = {}
        self.pulls: dict[bytes, tuple[Source, ...]] = {}
        self.offers: list[tuple[bytes, Source]] = []
        self.admits: tuple[bytes, ...] = ()
        self._happened: list[Any] = []
        self._wake = wake

    def admit(self, keys: tuple[bytes, ...]) -> None:
        self.admits = keys

    def serve(self, id_: bytes, payload: bytes | memoryview) -> None:
        self.served[id_] = payload

    def unserve(self, id_: bytes) -> None:
        del self.served[id_]

    def offer(self, id_: bytes, to: Source) -> None:
        self.offers.append((id_, to))

    def pull(self, id_: bytes, size: int, sources: Sequence[Source]) -> None:
        self.pulls[id_] = tuple(sources)

    def cancel(self, id_: bytes) -> None:
        del self.pulls[id_]

    def happened(self) -> list[Any]:
        happened, self._happened = self._happened, []
        return happened

    def has(self, id_: bytes, payload: bytes | None) -> None:
        """A payload has come, or could not be had."""
        del self.pulls[id_]
        if payload is None:
            self._happened.append(NotMoved(id_, "it was not to be had", b""))
        else:
            self._happened.append(Moved(id_, payload))
        self._wake()

    def let_go_in_fork(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        self.pulls.clear()


class Peer:
    """One peer: its own end of the link, and the scheduler's."""

    def __init__(self, number: int, settings: Settings, *, listens: bool, moves: bool) -> None:
        self.id = PeerId(b"peer%02d" % number)
        self.hands: Hands | None = None
        self.name = f"peer{number}"
        #: what the scheduler says does not come to it any more
        self.is_deaf = False
        self.carriage: Carriage | None = None
        if moves:
            self.carriage = Carriage(
                lambda wake: self._open(wake, 7000 + number), 100, 1 << 20, "10.0.0.9",
                listens=listens,
            )  # fmt: skip
            self.carriage.new_life(ADMITS)
        data, key = ("", b"") if self.carriage is None else self.carriage.place("tcp://10.0.0.1:1")
        self.hello = Hello(
            1, "node", self.id, 1, 0, 0, "3.11", self.name, data=data, data_key=key
        )  # fmt: skip
        self.here = Traffic(Reader.to_node(), settings, moves=self.carriage)
        self.there: Traffic | None = None

    def _open(self, wake: Callable[[], None], port: int) -> Hands:
        self.hands = Hands(wake, port)
        return self.hands

    @property
    def pulls(self) -> dict[bytes, tuple[Source, ...]]:
        """What it is getting, and whence."""
        return {} if self.hands is None else self.hands.pulls

    @property
    def served(self) -> list[bytes]:
        """What others may get from it."""
        return [] if self.hands is None else list(self.hands.served)


class MovesBench:
    """Peers are made with `peer`; `talk` has everybody hear what there is to hear."""

    def __init__(self, *, bytes_max: int = 1 << 20) -> None:
        self.settings = Settings()
        self.remotes = Remotes(bytes_max, lambda _: None)
        self.peers: list[Peer] = []
        #: what the scheduler's core and the peers' cores are told, by name
        self.told: dict[str, list[Blob]] = {"scheduler": []}
        #: what has lost its holder, and who is to say where else it is
        self.orphans: list[Remote] = []
        self.relays: list[Relays] = []
        #: those that would leave, and of whom nobody is getting anything
        self.unread: list[PeerId] = []
        #: all that was said on bulk links
        self.said: list[Any] = []

    def peer(self, *, listens: bool = True, moves: bool = True) -> Peer:
        """Have one more peer."""
        peer = Peer(len(self.peers), self.settings, listens=listens, moves=moves)
        peer.there = traffic_of(
            Reader.to_scheduler(), self.settings, "", peer.id, peer.hello, self.remotes
        )
        self.peers.append(peer)
        self.told[peer.name] = []
        return peer

    def offer(self, peer: Peer, key: bytes, payload: bytes, id_: bytes = b"") -> Any:
        """Have a peer send a payload; return what the scheduler's core has got then."""
        carriage = peer.carriage
        if carriage is None or not carriage.offer(peer.here, key, payload, id_ or key):
            send_payload(peer.here, key, payload)
        self.talk()
        return self.told["scheduler"].pop().payload

    def send(self, peer: Peer, key: bytes, payload: Any) -> None:
        """Have the scheduler send a payload."""
        assert peer.there is not None
        if isinstance(payload, Remote):
            self.remotes.send(peer.there, key, payload)
        else:
            send_payload(peer.there, key, payload)
        self.talk()

    def moved(self, peer: Peer, id_: bytes, payload: bytes | None) -> None:
        """Have a peer's mover tell what came of a pull."""
        assert peer.hands is not None
        peer.hands.has(id_, payload)
        self.talk()

    def goes(self, peer: Peer) -> None:
        """End a peer's link life."""
        assert peer.there is not None
        traffic, peer.there = peer.there, None
        traffic.end()
        self.remotes.life_over(traffic)
        self.talk()

    def leaves(self, peer: Peer) -> None:
        """A peer would leave."""
        assert peer.there is not None
        self.remotes.leaves(peer.there)
        self.talk()

    def restore(self, payload: Any = None) -> None:
        """Have the scheduler's core say where all that has lost its holder is; None: nowhere."""
        orphans, self.orphans = self.orphans, []
        for orphan in orphans:
            self.remotes.restore(orphan, payload)
        self.talk()

    def got(self, peer: Peer) -> list[tuple[bytes, bytes]]:
        """Return what a peer's core was told since last asked."""
        told, self.told[peer.name] = self.told[peer.name], []
        return [(blob.key, bytes(blob.payload)) for blob in told]

    def sources(self, peer: Peer, id_: bytes) -> list[bytes]:
        """Return whom a peer asks for a payload."""
        return [source.peer for source in peer.pulls[id_]]

    def talk(self) -> None:
        """Have everybody hear what there is to hear, until nobody has anything to say."""
        busy = True
        while busy:
            busy = False
            self.remotes.tidy()
            for peer in self.peers:
                if peer.carriage is not None:
                    self.told[peer.name] += peer.carriage.turn()
                if peer.there is None:
                    continue
                busy |= self._pass_on(peer.here, peer.there, peer, self.told["scheduler"])
                if not peer.is_deaf:
                    busy |= self._pass_on(peer.there, peer.here, peer, self.told[peer.name])
        readers = [peer.there for peer in self.peers if peer.there is not None]
        self.remotes.look_at_leaving(readers)
        for report in self.remotes.reports:
            if isinstance(report, Relays):
                self.relays.append(report)
            elif isinstance(report, Unread):
                self.unread.append(report.holder)
            else:
                self.orphans.append(report.payload)
        self.remotes.reports.clear()

    def _pass_on(self, one: Traffic, other: Traffic, peer: Peer, out: list[Any]) -> bool:
        messages = []
        while (message := one.chunker.take()) is not None:
            messages.append(message)
        self.said += messages
        other.take_in_bulk([Raw(encode(message)) for message in messages], peer.id, out)
        return bool(messages)

    def kinds_said(self) -> list[type]:
        """Return what sort of messages were said since last asked, chunks and all."""
        said, self.said = self.said, []
        return [type(message) for message in said]


def closes(bench: MovesBench) -> None:
    """Close what peers have open."""
    for peer in bench.peers:
        if peer.carriage is not None:
            peer.carriage.close()
