"""Actors whose last incarnation may still act: where, until when, and what ends the doubt.

Never begins anything: it says when the next incarnation may. All that it knows of actors that have
been named is written down, since a scheduler that had forgotten it would let two of them act.

    its node is lost      it acts until the lease and the margin have passed
    that node is back     it is there; its lease goes on, so the time begins anew
    it is told to end     it acts until its node says that it has ended, or is lost once more
    proved                its node says that it is dead, or the same keeper has another daemon
    the next one begins   what was known of the last one is of no use any more
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from ..protocol.ids import PeerId, TaskId
from .tasks import BACKOFF, TaskRecord

if TYPE_CHECKING:
    from .state import Node, State

NEVER_S: Final = float("inf")


class Doubt(NamedTuple):
    """Where an actor may still act."""

    node: PeerId
    #: whose next daemon proves that this one is dead; "": that is not known
    keeper: str
    #: then it acts no more
    until_s: float
    #: `Peer.met` of the node: only who came after it is that next daemon
    met: int = 0
    #: it is known to be there, and has been told to end
    ends: bool = False
    #: it has been killed: by then it acts no more, whether it is leased or not
    is_killed: bool = False


class Fences:
    """See the module.

    Args:
        state: shared.
        mark: sets at an actor that is known whether it is in doubt.
    """

    __slots__ = ("_doubts", "_mark", "_state", "_unnamed", "before", "note")

    def __init__(self, state: "State", mark: Callable[[TaskId, bool], None]) -> None:
        self._state = state
        self._mark = mark
        self._doubts: dict[TaskId, Doubt] = {}
        #: of those, whose creation nobody has named: they may be no actors at all
        self._unnamed: dict[TaskId, None] = {}
        #: what the life before has left, as `rows` told it
        self.before: Sequence[tuple[str, str, str]] = ()
        #: called when `rows` has changed; set by the roster
        self.note: Callable[[], None] = _nobody_writes

    def revive(self) -> None:
        """Take up what the life before knew: how much of each lease was left died with it."""
        until_s = self._state.now_s + self._acts_s()
        before, self.before = self.before, ()
        for id_, node, keeper in before:
            doubt = Doubt(PeerId(bytes.fromhex(node)), keeper, until_s)
            self._set(TaskId(bytes.fromhex(id_)), doubt)

    def _acts_s(self) -> float:
        """Return how long an actor may act at most after its node was heard last."""
        settings = self._state.settings
        lost_after_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        return lost_after_s + settings.lease_margin_s

    def _set(self, id_: TaskId, doubt: Doubt) -> None:
        self._doubts[id_] = doubt
        self._mark(id_, True)
        self.note()

    def over(self, id_: TaskId) -> None:
        """The last incarnation acts no more, or nobody waits for that."""
        if self._doubts.pop(id_, None) is not None:
            self._unnamed.pop(id_, None)
            self._mark(id_, False)
            self.note()

    def has(self, id_: TaskId) -> bool:
        """Return whether the last incarnation of an actor may still act."""
        return id_ in self._doubts

    # ------------------------------------------------------------------------------- what is known

    def _note_unnamed(self, id_: TaskId, named: bool) -> None:
        # What the life before wrote down is an actor, and stays written though nobody has named it.
        if not named and id_ not in self._doubts:
            self._unnamed[id_] = None

    def lost(self, id_: TaskId, node: "Node", until_s: float, *, named: bool = True) -> None:
        """The node of an actor is not heard of any more, nor was it proved dead."""
        self._note_unnamed(id_, named)
        self._set(id_, Doubt(node.id, node.keeper, until_s, node.peer.met))

    def told_to_end(self, id_: TaskId, node: "Node", *, named: bool = True) -> None:
        """A node that is there has an incarnation that is none any more."""
        self._note_unnamed(id_, named)
        self._set(id_, Doubt(node.id, node.keeper, NEVER_S, node.peer.met, ends=True))

    def heard(self, id_: TaskId, node: PeerId) -> None:
        """A node has heard what it has to end; of a client that is gone it says nothing more."""
        doubt = self._doubts.get(id_)
        if doubt is None or doubt.node != node or not doubt.ends or node not in self._state.nodes:
            return
        if id_ in self._unnamed and not self._state.claims.open:
            self.over(id_)  # nobody will name it
            return
        until_s = self._state.now_s + self._state.settings.lease_margin_s
        self._doubts[id_] = doubt._replace(until_s=until_s, ends=False, is_killed=True)

    def named(self, id_: TaskId) -> None:
        """The creation of an actor has been named."""
        if self._unnamed and self._unnamed.pop(id_, id_) is None:
            self.note()

    def back(self, node: PeerId) -> list[TaskRecord]:
        """A node is there again, and its lease goes on; return creations that wait for it."""
        until_s = self._state.now_s + self._acts_s()
        return self._until(node, until_s, ended=False)

    def lost_again(self, node: PeerId, until_s: float) -> list[TaskRecord]:
        """A node is lost where actors were in doubt already; return creations that wait for it."""
        return self._until(node, until_s, ended=True)

    def _until(self, node: PeerId, until_s: float, *, ended: bool) -> list[TaskRecord]:
        changed = []
        for id_, doubt in list(self._doubts.items()):
            if doubt.node != node or (doubt.ends and not ended):
                continue
            if id_ in self._unnamed and not self._state.claims.open:
                self.over(id_)  # nobody will name it
            else:
                self._doubts[id_] = doubt._replace(until_s=until_s, ends=False, is_killed=False)
                changed.append(id_)
        return self._waiting(changed)

    def proved_dead(self, node: PeerId, keeper: str = "", met: int = 0) -> list[TaskRecord]:
        """What a node ran is dead: it says so itself, or its keeper has started another daemon.

        Args:
            node: that says so, or that other daemon. It says so of none that it has named.
            keeper: of the other daemon; "": the node speaks of itself.
            met: `Peer.met` of the other daemon.

        Returns:
            Creations that wait for that.
        """
        freed = []
        for id_, doubt in list(self._doubts.items()):
            if keeper:
                proved = doubt.node != node and doubt.keeper == keeper and doubt.met <= met
            else:
                proved = doubt.node == node and not doubt.ends
            if proved:
                self.over(id_)
                freed.append(id_)
        return self._waiting(freed)

    def ended(self, node: PeerId, id_: TaskId) -> list[TaskRecord]:
        """An attempt at a node is over that is none any more; return what waits for that."""
        doubt = self._doubts.get(id_)
        if doubt is None or doubt.node != node:
            return []
        self.over(id_)
        return self._waiting([id_])

    def _waiting(self, ids: list[TaskId]) -> list[TaskRecord]:
        records = [self._state.find(id_) for id_ in ids]
        return [record for record in records if record is not None and record.state == BACKOFF]

    def not_before_s(self, record: TaskRecord) -> float:
        """Return when the next incarnation may begin; 0: at once."""
        doubt = self._doubts.get(record.id)
        if doubt is None:
            return 0.0
        creates = record.kind.creates
        if creates is not None and creates.waits_on_partition and not doubt.is_killed:
            return NEVER_S
        if doubt.until_s <= self._state.now_s:
            self.over(record.id)
            return 0.0
        return doubt.until_s

    def begins_s(self, record: TaskRecord) -> float:
        """Return when the next incarnation begins, whose pause counts for nothing any more."""
        return max(self._state.now_s, self.not_before_s(record))

    # ---------------------------------------------------------------------------- written, and not

    def rows(self) -> list[tuple[str, str, str]]:
        """Return what the next life has to know: of each actor its id, its node and the keeper."""
        return sorted(
            (id_.hex(), doubt.node.hex(), doubt.keeper)
            for id_, doubt in self._doubts.items()
            if id_ not in self._unnamed
        )

    def end_of_absence(self) -> bool:
        """Nobody will name what was not named; return whether something of that was written."""
        written = False
        for id_, doubt in list(self._doubts.items()):
            is_named = id_ not in self._unnamed
            if is_named and self._state.find(id_) is not None:
                continue
            written = written or is_named
            if doubt.ends:
                self._unnamed[id_] = None  # it is at a node that is there, and not dead yet
            else:
                self.over(id_)
        return written

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps that hold work."""
        return {"actors_doubted": len(self._doubts) - len(self._unnamed)}

    def registered(self) -> dict[str, int]:
        """Return the sizes of all maps that hold what nodes that are there have been told."""
        return {"stopped_unnamed": len(self._unnamed)}

    def check_invariants(self) -> None:
        """Assert that who is not named is in doubt, and is ended once all have come."""
        assert self._unnamed.keys() <= self._doubts.keys()
        if not self._state.claims.open:
            assert all(self._doubts[id_].ends for id_ in self._unnamed)


def _nobody_writes() -> None:
    raise AssertionError("the roster has not introduced itself")
