"""What nodes have over from an earlier life of the scheduler, until its submitter names it.

Never decides: it keeps the claims, by the peer that submitted the task, and the words that come for
them meanwhile. Empty, but for the first seconds of a scheduler that was restarted.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from ..protocol.ids import PeerId, TaskId, home_of
from ..protocol.recovery import Phase

if TYPE_CHECKING:
    from ..protocol.messages import DoneRow
    from .deliveries import Arrival
    from .state import Node

#: of more peers that were forgotten, the first are again waited for like any that is away
GONE_MAX: Final = 100_000


class Ended(NamedTuple):
    """What came of an attempt, and the message that told it."""

    row: "DoneRow"
    arrival: "Arrival"


class Claim:
    """An attempt of a task that nobody has submitted in this life of the scheduler."""

    __slots__ = ("attempt", "ended", "id", "node", "phase")

    def __init__(self, id_: TaskId, attempt: int, phase: int, node: "Node") -> None:
        self.id = id_
        self.attempt = attempt
        self.phase = phase
        self.node = node
        #: it has ended meanwhile
        self.ended: Ended | None = None


class Claims:
    """All claims."""

    __slots__ = ("_by_home", "given_up", "gone", "open", "size", "telling")

    def __init__(self) -> None:
        #: whether more may come, and whoever is not there may come back
        self.open = False
        self.size = 0
        self._by_home: dict[PeerId, dict[bytes, Claim]] = {}
        #: attempts that were claimed and stopped or lost, by their task, with the node's name
        self.given_up: dict[bytes, tuple[int, str]] = {}
        #: peers that come from an earlier life and have not said `Registered`, with their role
        self.telling: dict[PeerId, str] = {}
        #: peers that were forgotten in this life of the scheduler
        self.gone: dict[PeerId, None] = {}

    def may_come(self, peer: PeerId) -> bool:
        """Return whether a peer that is not there may come back."""
        return self.open and peer not in self.gone

    def home_gone(self, peer: PeerId) -> None:
        """A peer is forgotten, and will not come back as what it was."""
        self.gone[peer] = None
        if len(self.gone) > GONE_MAX:
            del self.gone[next(iter(self.gone))]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps that are empty once nobody is awaited any more."""
        return {
            "claims": self.size,
            # As long as it is open these are full of what may come.
            "claims_given_up": 0 if self.open else len(self.given_up),
            "homes_gone": 0 if self.open else len(self.gone),
            "telling": 0 if self.open else len(self.telling),
        }

    def find(self, id_: bytes) -> Claim | None:
        """Return the claim to a task."""
        claims = self._by_home.get(home_of(TaskId(id_)))
        return None if claims is None else claims.get(id_)

    def add(self, claim: Claim) -> None:
        """A node claims a task."""
        self._by_home.setdefault(home_of(claim.id), {})[claim.id] = claim
        self.size += 1

    def remove(self, claim: Claim) -> None:
        """A claim is met, or given up."""
        home = home_of(claim.id)
        claims = self._by_home[home]
        del claims[claim.id]
        self.size -= 1
        if not claims:
            del self._by_home[home]

    def of_home(self, home: PeerId) -> list[Claim]:
        """Return the claims to tasks that a peer submitted."""
        return list(self._by_home.get(home, {}).values())

    def all(self) -> list[Claim]:
        """Return all claims."""
        return [claim for claims in self._by_home.values() for claim in claims.values()]

    def _of(self, node: "Node", id_: bytes, attempt: int) -> Claim | None:
        claim = self.find(id_)
        if claim is None or claim.node is not node or claim.attempt != attempt:
            return None
        return claim

    def ended(self, node: "Node", row: "DoneRow", arrival: "Arrival") -> bool:
        """An attempt ended: if it is claimed, keep what came of it until its task is named."""
        claim = self._of(node, row.id, row.attempt)
        if claim is None or claim.ended is not None:
            return False
        arrival.expect()
        claim.ended = Ended(row, arrival)
        return True

    def blocked(self, node: "Node", id_: bytes, attempt: int, waits: bool) -> bool:
        """An attempt waits in get(), or goes on."""
        claim = self._of(node, id_, attempt)
        if claim is not None:
            claim.phase = Phase.BLOCKED if waits else Phase.RUNNING
        return claim is not None

    def taken_back(self, node: "Node", id_: bytes, attempt: int) -> bool:
        """An attempt was given back: it never started."""
        claim = self._of(node, id_, attempt)
        if claim is not None:
            self.remove(claim)
        return claim is not None

    def close(self) -> None:
        """Nobody is awaited any more."""
        self.open = False
        self.telling.clear()
        self.given_up.clear()
        self.gone.clear()

    def check_invariants(self) -> None:
        """Assert that the index is true."""
        assert self.size == sum(len(claims) for claims in self._by_home.values())
        assert all(self._by_home.values())
        assert self.open or not self.size
        for home, claims in self._by_home.items():
            for id_, claim in claims.items():
                assert claim.id == id_
                assert home_of(claim.id) == home
                assert claim.node.peer.here
