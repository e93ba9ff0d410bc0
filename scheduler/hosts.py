"""What the scheduler remembers of actors: where each lives, its calls, why it is no more.

Never decides: it keeps the records, by the task that created the actor, and says which of them are
to be looked at. A dead actor is remembered as long as anybody names it, and a while longer.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from ..protocol.ids import NO_PEER, PeerId, TaskId
from ..protocol.messages import Failure, ValueRow
from .checkpoints import Checkpoints
from .fences import Fences
from .lines import CALLER_BYTES, Lines
from .names import Names
from .tasks import ASSIGNED, TaskRecord

if TYPE_CHECKING:
    from .state import Node, Peer, State

#: so many of the dead are remembered after the last who named them
GRAVES_MAX: Final = 10_000
#: of the lives of one actor, the ends of so many of the last are told
CAUSES_MAX: Final = 5


class Grave(NamedTuple):
    """A dead actor."""

    #: the outcome of its creation
    row: ValueRow
    #: the client whose it was; empty: nobody's, it was detached
    client: PeerId
    #: what its class is called
    name: str
    #: the last one
    incarnation: int
    #: in a few words
    why: str


class Actor:
    """One actor, from the first word about it to the last."""

    __slots__ = (
        "_active", "at", "calls_max", "causes", "deaths", "doubted", "ends", "exit_asked",
        "exit_told", "id", "in_flight", "in_flight_bytes", "kinds", "large", "lines", "moved",
        "over", "pending", "queued", "record", "uncharged", "up", "watched",
    )  # fmt: skip

    def __init__(self, id_: TaskId, active: "dict[Actor, None]") -> None:
        self.id = id_
        self._active = active
        #: its creation; None: nobody here has submitted it yet, or it has ended
        self.record: TaskRecord | None = None
        #: how its creation ended
        self.over: ValueRow | None = None
        #: how many kinds of calls name it
        self.kinds = 0
        #: its home has been asked what became of it
        self.watched = False
        #: the node and incarnation that were last said to be up
        self.up: tuple[Node, int] | None = None
        # Its calls.
        self.lines = Lines()
        self.queued = 0
        self.in_flight = 0
        self.in_flight_bytes = 0
        #: where those in flight are
        self.at: Node | None = None
        #: one of its calls had arguments that do not ride in their row
        self.large = False
        #: calls of one caller without an outcome, at most; -1: any number
        self.calls_max = -1
        #: how many each caller has, if there is such a bound
        self.pending: dict[bytes, int] = {}
        # Its end, and new beginnings.
        #: it ends when no call is left; the incarnation that has been told so
        self.exit_asked = False
        self.exit_told = 0
        #: the incarnation that was ended because its node is drained
        self.moved = 0
        #: incarnations that ended without counting
        self.uncharged = 0
        #: when incarnations died, of those that count
        self.deaths: list[float] = []
        #: what the last deaths were, and the same as they are told
        self.causes: list[str] = []
        self.ends: list[Failure] = []
        #: the last incarnation may not be dead
        self.doubted = False

    @property
    def incarnation(self) -> int:
        """The number of the current or next life; 0: not known."""
        return 0 if self.record is None else self.record.attempt

    @property
    def node(self) -> "Node | None":
        """Where calls may go now."""
        record, up = self.record, self.up
        if record is None or up is None or record.state != ASSIGNED or record.stopping:
            return None
        node, incarnation = up
        return node if record.node is node and record.attempt == incarnation else None

    def has_calls(self) -> bool:
        """Return whether any call has yet to come to its end, as far as that is the actor's."""
        return bool(self.in_flight or self.lines)

    def given(self, record: TaskRecord, node: "Node") -> None:
        """A call goes to a node, or turned out to be there."""
        self.in_flight += 1
        self.in_flight_bytes += bytes_of(record)
        self.at = node
        if self.calls_max >= 0:
            self.add(caller_of(record), 1)

    def left(self, record: TaskRecord) -> None:
        """A call is at its node no more."""
        self.in_flight -= 1
        self.in_flight_bytes -= bytes_of(record)
        if not self.in_flight:
            self.at = None
        if self.calls_max >= 0:
            self.add(caller_of(record), -1)
        if self.queued or not self.in_flight:
            self._active[self] = None

    def add(self, caller: bytes, count: int) -> None:
        """Count calls of a caller that have no outcome."""
        left = self.pending.get(caller, 0) + count
        if left:
            self.pending[caller] = left
        else:
            del self.pending[caller]


def caller_of(record: TaskRecord) -> bytes:
    """Return who made a call: a client, or a worker of a node."""
    return record.row.id[:CALLER_BYTES]


def bytes_of(record: TaskRecord) -> int:
    """Return how large the arguments of a call are."""
    args = record.row.args
    return record.row.size if args is None else len(args)


class Hosts:
    """All actors, and those of the dead that are remembered."""

    __slots__ = (
        "_graves", "_living", "_state", "active", "checkpoints", "courses", "fences", "forgets",
        "known", "names", "regranted", "tombs", "wards",
    )  # fmt: skip

    def __init__(self, state: "State") -> None:
        self._state = state
        self.names = Names(state)
        self.checkpoints = Checkpoints(state)
        #: of those whose last incarnation may still act
        self.fences = Fences(state, self._doubted)
        #: the clients, which are no processes, of those who are detached
        self.wards: dict[PeerId, Peer] = {}
        #: of those, whose actor may have come to another incarnation
        self.courses: dict[PeerId, None] = {}
        #: of those that have ended, by their clients that were, the actors which may be handed over
        #: once more: whoever did so may not know that they were taken
        self.tombs: dict[PeerId, TaskId] = {}
        #: called with a peer that is gone
        self.forgets: Callable[[PeerId], None] = _nobody_cares
        #: how many actors of each client live, and the bytes that they were made of
        self._living: dict[PeerId, dict[TaskId, int]] = {}
        #: clients of which that has changed
        self.regranted: dict[PeerId, None] = {}
        self.known: dict[TaskId, Actor] = {}
        #: those for whom something may be done now
        self.active: dict[Actor, None] = {}
        self._graves: dict[bytes, Grave] = {}

    def of(self, id_: TaskId) -> Actor:
        """Return an actor that somebody names."""
        actor = self.known.get(id_)
        if actor is None:
            actor = self.known[id_] = Actor(id_, self.active)
            actor.doubted = self.fences.has(id_)
            grave = self._graves.get(id_)
            if grave is not None:
                actor.over = grave.row
        return actor

    def _doubted(self, id_: TaskId, doubted: bool) -> None:
        actor = self.known.get(id_)
        if actor is not None:
            actor.doubted = doubted

    # --------------------------------------------------------------------------------- who names it

    def use(self, id_: TaskId) -> Actor:
        """A kind of calls names an actor."""
        actor = self.of(id_)
        actor.kinds += 1
        return actor

    def unuse(self, actor: Actor) -> None:
        """A kind of calls is gone."""
        actor.kinds -= 1
        self.tidy(actor)

    def tidy(self, actor: Actor) -> None:
        """Forget an actor that nobody has anything to do with any more."""
        if actor.kinds or actor.record is not None or actor.has_calls():
            return
        if actor.up is not None and self._state.claims.open and actor.over is None:
            return  # its creation may be named yet
        self.known.pop(actor.id, None)
        self.active.pop(actor, None)

    def end_of_absence(self) -> None:
        """Nobody will name what was said to be up before."""
        for actor in list(self.known.values()):
            self.tidy(actor)
        self.checkpoints.end_of_absence()
        self.courses.update(dict.fromkeys(self.tombs))  # they are looked at
        self.names.turn()

    def bury(self, actor: Actor, record: TaskRecord, row: ValueRow, why: str) -> None:
        """An actor has ended: remember why, for those who call it later."""
        kind, graves = record.kind, self._graves
        client = self._state.client(kind.client)
        if client is None:
            return
        whose = client.id if client.here else NO_PEER
        graves[actor.id] = Grave(row, whose, kind.name, record.attempt, why)
        if len(graves) > GRAVES_MAX:
            del graves[next(iter(graves))]

    def forget_client(self, client: PeerId) -> None:
        """A client is gone, and nobody asks for its dead."""
        if any(grave.client == client for grave in self._graves.values()):
            self._graves = {
                id_: grave for id_, grave in self._graves.items() if grave.client != client
            }

    def forget_peer(self, peer: PeerId) -> None:
        """A peer is gone, with what it was about to create."""
        self.names.forget_peer(peer)
        self.checkpoints.forget_peer(peer)
        self._living.pop(peer, None)
        self.regranted.pop(peer, None)
        self.forgets(peer)

    # ----------------------------------------------------------------------------------- that live

    def came_up(self, record: TaskRecord) -> None:
        """An actor lives: as long as it does, its client may have one task more under way."""
        owner = record.owner
        if owner.here and owner.node is None:
            self._living.setdefault(owner.id, {})[record.id] = bytes_of(record)
            self.regranted[owner.id] = None

    def lives_no_more(self, record: TaskRecord) -> None:
        """An actor has ended for good."""
        living = self._living.get(record.owner.id)
        if living is not None and living.pop(record.id, None) is not None:
            self.regranted[record.owner.id] = None
            if not living:
                del self._living[record.owner.id]

    def living(self, client: PeerId) -> tuple[int, int]:
        """Return how many actors of a client live, and the bytes of arguments they were made of."""
        living = self._living.get(client)
        return (len(living), sum(living.values())) if living else (0, 0)

    # --------------------------------------------------------------------------------- at the nodes

    def is_up(self, record: TaskRecord) -> bool:
        """Return whether a task is an actor that lives."""
        actor = self.known.get(record.id) if record.kind.creates is not None else None
        return actor is not None and actor.node is not None

    def touch(self, node: "Node") -> None:
        """Something about a node has changed: look at the actors there."""
        if node.actors:
            for id_, record in node.assigned.items():
                if record.kind.creates is not None:
                    actor = self.known.get(TaskId(id_))
                    if actor is not None:
                        self.active[actor] = None

    @property
    def due_s(self) -> float:
        """When there is something to do though nothing happens."""
        return self._state.now_s if self.courses else self.names.due_s

    # -------------------------------------------------------------------------------------- insight

    def dead(self) -> dict[bytes, Grave]:
        """Return those of the dead that are remembered, the last one last."""
        return self._graves

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps that hold work."""
        actors = self.known.values()
        return {
            "actors": sum(actor.record is not None for actor in actors),
            "calls_queued": sum(actor.queued for actor in actors),
            "calls_in_flight": sum(actor.in_flight for actor in actors),
            "calls_pending": sum(len(actor.pending) for actor in actors),
            "actors_living": len(self._living),
            **self.names.sizes(),
            **self.checkpoints.sizes(),
            **self.fences.sizes(),
            # As long as it is open these are of those who may come back.
            "tombs": 0 if self._state.claims.open else len(self.tombs),
        }

    def registered(self) -> dict[str, int]:
        """Return the sizes of all maps that hold whom peers have named."""
        known = {"actors_known": len(self.known), "graves": len(self._graves)}
        return {**known, **self.fences.registered()}


def _nobody_cares(_peer: PeerId) -> None:
    """Do nothing: nobody has said what is to be done."""
