"""What the next life of the scheduler has to know: nodes to wait for, lost clients.

Never writes: it says `Remember`. A node is written down before it is given anything, and struck out
only when all submitters that are there know what was charged for it: a next life that does not wait
for a node takes it for certain that nothing ran there. For those that are not there the epoch is
written down: who has not settled since then is behind, and is charged for all. So it is with
submitters that were given up, clients and nodes alike: what they had submitted was stopped wherever
it was, and nobody will tell of it should they return. Actors that may act on at a node that is
struck out are written down by themselves (see `Fences`).
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import partial
from typing import Final

from ..protocol.drain import Farewell
from ..protocol.ids import NO_PEER, PeerId
from .deliveries import Deliveries
from .events import Command, Remember, Send
from .state import State

#: more submitters than so many that were given up are not remembered
GONE_MAX: Final = 1000


class Standing(IntEnum):
    """What is known of a node that is written down."""

    #: it had joined in an earlier life, and has not come back
    AWAITED = 0
    #: it is there, and tells what it has over from an earlier life
    TELLING = 1
    #: it is there
    HERE = 2
    #: it was awaited; the daemon of that name that came is another, or it was lost while it told
    DEAD = 3
    #: it had told all, and was lost: who is not there does not know what it had
    TOLD = 4
    #: to be struck out
    GOING = 5


class _Entry:
    __slots__ = ("name", "peer", "standing")

    def __init__(self, name: str, standing: Standing, peer: PeerId = NO_PEER) -> None:
        self.name = name
        self.standing = standing
        self.peer = peer


class Roster:
    """All nodes that are written down; a name is in it once for each daemon that had it."""

    __slots__ = (
        "_closed", "_counts", "_deliveries", "_departing", "_entries", "_fences", "_state",
        "_written", "before", "changed", "closed_before", "gone",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        deliveries: Deliveries,
        expected: Sequence[str],
        gone: Sequence[str],
        daemons: Sequence[str] = (),
        closed: int = 0,
        acting: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        self._state = state
        self._deliveries = deliveries
        ids = [PeerId(bytes.fromhex(id_)) for id_ in daemons] or [NO_PEER] * len(expected)
        self._entries: list[_Entry] = []
        #: how many there are of each standing
        self._counts = [0] * len(Standing)
        for name, id_ in zip(expected, ids, strict=True):
            self._add(_Entry(name, Standing.AWAITED, id_))
        #: submitters that were given up and have not told what they have since, the last ones
        self.gone: dict[PeerId, None] = {PeerId(bytes.fromhex(id_)): None for id_ in gone}
        #: of those, whom an earlier life gave up: what was stopped then is not known in this one
        self.before = self.gone.copy()
        #: the last epoch in which nodes were struck out that had not come back; before this life
        self.closed_before = self._closed = closed
        self._written = Remember(list(expected), list(gone), list(daemons), closed, list(acting))
        self._fences = fences = state.hosts.fences
        fences.before, fences.note = acting, self._changes
        #: nodes that have nothing left and wait for their Farewell -> its number; 0: it is said
        self._departing: dict[PeerId, int] = {}
        #: whether `commands` may have something to say
        self.changed = False

    def _changes(self) -> None:
        self.changed = True

    def _add(self, entry: _Entry) -> None:
        self._entries.append(entry)
        self._counts[entry.standing] += 1

    def _set(self, entry: _Entry, standing: Standing) -> None:
        self._counts[entry.standing] -= 1
        self._counts[standing] += 1
        entry.standing = standing

    def join(self, peer: PeerId, name: str, *, tells: bool) -> None:
        """A node joins.

        Args:
            peer: the node.
            name: its name.
            tells: it has lived in an earlier life of the scheduler, and tells what it has.
        """
        awaited = [e for e in self._entries if e.standing == Standing.AWAITED and e.name == name]
        standing = Standing.TELLING if tells else Standing.HERE
        # One that came when the life before had no time left to write it down is another.
        same = [e for e in awaited if tells and e.peer in (peer, NO_PEER)]
        if same:
            self._set(same[0], standing)
            same[0].peer = peer
            self.changed = True
            return
        for entry in awaited[:1]:
            self._set(entry, Standing.DEAD)
        self._add(_Entry(name, standing, peer))
        self.changed = True

    def registered(self, peer: PeerId) -> None:
        """A node has told all that it has."""
        for entry in self._entries:
            if entry.peer == peer and entry.standing == Standing.TELLING:
                self._set(entry, Standing.HERE)

    def depart(self, peer: PeerId, number: int) -> None:
        """A node that is drained has nothing left: it goes when no next life would wait for it."""
        self._departing[peer] = number
        self.changed = True
        self._leave(peer, empty=True)

    def departs(self, peer: PeerId) -> bool:
        """Return whether a node has nothing left, and is about to go."""
        return peer in self._departing

    def left(self, peer: PeerId) -> None:
        """A node is gone."""
        self._departing.pop(peer, None)
        self._leave(peer)

    def _leave(self, peer: PeerId, *, empty: bool = False) -> None:
        for entry in self._entries:
            if entry.peer != peer:
                continue
            known = (Standing.HERE, Standing.TELLING)
            if not empty and entry.standing in known and self._state.claims.open:
                # What it had not told may have run.
                told = entry.standing == Standing.HERE
                self._set(entry, Standing.TOLD if told else Standing.DEAD)
            elif entry.standing < Standing.DEAD:
                self._strike(entry)

    def forget_missing(self) -> None:
        """Nobody is awaited any more."""
        for entry in self._entries:
            if entry.standing in (Standing.AWAITED, Standing.DEAD, Standing.TOLD):
                self._strike(entry, missing=True)
        if self._fences.end_of_absence():
            # Whoever was away and names them later does not know what may have run there.
            self._closed = self._state.epoch
            self.changed = True

    def count(self, *standings: Standing) -> int:
        """Return how many nodes there are of whom that is known."""
        return sum([self._counts[standing] for standing in standings])

    def names(self, *standings: Standing) -> list[str]:
        """Return the names of the nodes of whom that is known."""
        return [entry.name for entry in self._entries if entry.standing in standings]

    def commands(self) -> list[Command]:
        """Return what is to be written down before anything else is done."""
        self.changed = False
        entries = sorted((entry.name, entry.peer.hex()) for entry in self._entries)
        ids = [id_ for _, id_ in entries]
        names = [name for name, _ in entries]
        gone, acting = [peer.hex() for peer in self.gone], self._fences.rows()
        command = Remember(names, gone, ids, self._closed, acting)
        commands: list[Command] = []
        if command != self._written:
            self._written = command
            commands.append(command)
        for peer, number in self._departing.items():
            if number and not any(entry.peer == peer for entry in self._entries):
                self._departing[peer] = 0
                commands.append(Send(peer, Farewell(number)))
        return commands

    def lost(self, peer: PeerId) -> None:
        """A submitter is given up: what it had submitted is stopped."""
        self.gone.pop(peer, None)
        self.gone[peer] = None
        if len(self.gone) > GONE_MAX:
            del self.gone[next(iter(self.gone))]
        self.changed = True

    def counts(self, peer: PeerId) -> None:
        """A submitter has come back to the scheduler that gave it up."""
        self.before.pop(peer, None)
        if self.gone.pop(peer, peer) is None:
            self.changed = True

    def told(self, peer: PeerId) -> None:
        """A submitter has told what it has; what may have run was charged."""
        if peer in self.gone:
            self._deliveries.after_reached(peer, partial(self._back, peer))

    def _back(self, peer_id: PeerId) -> None:
        peer = self._state.peers.get(peer_id)
        if peer is not None and peer.here:
            self.counts(peer_id)

    def _strike(self, entry: _Entry, *, missing: bool = False) -> None:
        self._set(entry, Standing.GOING)
        self._deliveries.after_turn(partial(self._struck, entry, missing), everybody=True)

    def _struck(self, entry: _Entry, missing: bool) -> None:
        self._entries.remove(entry)
        self._counts[entry.standing] -= 1
        if missing:
            self._closed = self._state.epoch
        self.changed = True

    def check_invariants(self) -> None:
        """Assert that each node that is there is written down."""
        here = [e.peer for e in self._entries if e.standing in (Standing.TELLING, Standing.HERE)]
        assert sorted([*here, *self._departing]) == sorted(self._state.nodes)
        for standing in Standing:
            assert self._counts[standing] == len(self.names(standing))
