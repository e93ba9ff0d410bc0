"""What nodes have over from an earlier life, and what submitters name: matched, or stopped.

Never waits for anybody: who may still come is known to `Recovery`.
"""

from collections.abc import Callable
from functools import partial

from ..protocol.ids import PeerId, TaskId, home_of, show
from ..protocol.messages import StopMode
from ..protocol.recovery import InventoryRow, Phase
from ..protocol.yields import HowFar
from .attempts import Attempts
from .claims import Claim, Ended
from .placement import Board
from .roster import Roster
from .state import Node, State
from .tasks import (
    ASSIGNED,
    BACKOFF,
    CLAIM,
    FROM_BEFORE,
    NOT_YET,
    QUEUED,
    WAITING,
    TaskRecord,
    move,
    stop_mode,
)
from .work import Work


class Matching:
    """See the module.

    Args:
        state: shared.
        board: the nodes.
        work: all tasks.
        attempts: what nodes have.
        roster: what the next life has to know.
        may_be_named: whether a submitter may still name tasks of an earlier life.
    """

    __slots__ = ("_attempts", "_board", "_may_be_named", "_roster", "_state", "_work", "ripe")

    def __init__(
        self,
        state: State,
        board: Board,
        work: Work,
        attempts: Attempts,
        roster: Roster,
        may_be_named: Callable[[PeerId], bool],
    ) -> None:
        self._state = state
        self._board = board
        self._work = work
        self._attempts = attempts
        self._roster = roster
        self._may_be_named = may_be_named
        #: claims that were met after their end had come
        self.ripe: list[tuple[Node, Ended]] = []

    def claim(self, node: Node, row: InventoryRow) -> None:
        """A node has an attempt over from an earlier life."""
        state = self._state
        claim = Claim(TaskId(row.id), row.attempt, row.phase, node)
        other = state.claims.find(row.id)
        if other is not None:
            if row.attempt <= other.attempt:
                self._stop(claim, f"node {other.node.name!r} has attempt {other.attempt}")
                return
            state.claims.remove(other)
            self._let_go(other)
            self._stop(other, f"node {node.name!r} has attempt {row.attempt}")
            state.claims.add(claim)
            return
        record = state.find(TaskId(row.id))
        if record is not None:
            self._match_late(record, claim)
        elif self._may_be_named(home_of(claim.id)):
            state.claims.add(claim)
        else:
            self.give_up(claim, "nobody will name it", known=False)

    def _match_late(self, record: TaskRecord, claim: Claim) -> None:
        """A node has an attempt of a task that is known already."""
        pauses = record.state == BACKOFF and not record.kind.is_special
        waits = pauses or record.state in (WAITING, QUEUED)
        waits = waits and record.assigned_s == NOT_YET
        # What was cancelled has no further attempt: it is stopped where it is.
        if record.id in self._work.condemned or (waits and claim.attempt >= record.attempt):
            self._meet(record, claim)
            return
        node = record.node
        before = record.state == ASSIGNED and record.assigned_s == FROM_BEFORE
        if before and node is not None and claim.attempt > record.attempt:
            self._stop(Claim(record.id, record.attempt, Phase.RUNNING, node), "a later one runs")
            node.release(record)
            if record.kind.host is not None:
                self._work.actors.put_back(record)  # for a moment: it is found elsewhere
            self._board.touch(node)
            self._meet(record, claim)
            return
        if record.state in (WAITING, BACKOFF):
            self._fence(record, claim)
            if record.state == BACKOFF and record.kind.creates is not None:
                self._work.look_again([record])
        self._stop(claim, f"the task is at attempt {record.attempt}")

    def met(self, record: TaskRecord) -> bool:
        """Match a task that was named again with what a node has of it, if one has."""
        claim = self._state.claims.find(record.row.id) if self._state.claims.size else None
        if claim is None:
            return False
        self._state.claims.remove(claim)
        if claim.attempt < record.attempt:
            self._fence(record, claim)
            self._stop(claim, f"its submitter knows of attempt {record.attempt}")
            self._let_go(claim)
            return False
        self._meet(record, claim)
        return True

    def _meet(self, record: TaskRecord, claim: Claim) -> None:
        """A task goes on where it is."""
        node, out = claim.node, self._state.out
        if record.kind.is_special:
            self._work.actors.found(record)
        if record.state == QUEUED and record.kind.host is None:
            self._work.queue.remove(record)
        elif record.state == BACKOFF:
            del self._work.backing_off[record.id]
        self._work.parked.pop(record.id, None)
        self._work.elsewhere.pop(record.id, None)
        move(record, CLAIM)
        record.unmet = 0
        if claim.attempt > record.attempt and record.owner.here:
            out.retry(record.owner.id, record.id, claim.attempt)
        record.attempt = claim.attempt
        record.assigned_s = FROM_BEFORE
        average_s = record.kind.average_s
        record.expected_s = average_s if average_s >= 0 else self._state.settings.window_s
        # It may not have been in the list of clients, but it has something of this one.
        node.former[record.kind.client] = None
        node.take(record)
        if claim.phase == Phase.QUEUED and record.kind.is_timed:
            self._work.deadlines.queued(record)
        if claim.phase == Phase.BLOCKED:
            node.set_blocked(record, True)
        self._board.touch(node)
        if record.kind.options.stream_buffer_max:
            out.letter(node.id, HowFar([record.id]))  # what it said meanwhile was for nobody
        if claim.ended is not None:
            self.ripe.append((node, claim.ended))
        elif claim.phase == Phase.ENDED:
            out.report(node.id, record.id, record.attempt)
        if record.stopping and claim.ended is None:
            condemned = self._work.condemned.get(record.id)
            force = condemned is not None and condemned.force
            mode, reason = stop_mode(record.kind, force), self._work.deadlines.reason(record)
            out.stop(node.id, record.id, record.attempt, mode, reason)
        kept = self._work.condemned.pop(record.id, None)
        if kept is not None:
            self._work.deadlines.keep(record, kept.rows[0])

    def give_up(self, claim: Claim, why: str, *, known: bool = True) -> None:
        """Nobody will name the task of a claim."""
        claims = self._state.claims
        if known:
            claims.remove(claim)
        if self._is_told(claim):
            # What it submitted goes on.
            self._stop(claim, why)
            return
        home = home_of(claim.id)
        if home not in self._state.peers and home not in self._roster.gone:
            # Should it come in the next life, nobody there will know of this attempt.
            self._roster.lost(home)
        if claims.open:
            claims.given_up[claim.id] = claim.attempt, claim.node.name
            self._fence(None, claim)
        self._stop(claim, why)
        self._let_go(claim)

    def _fence(self, record: TaskRecord | None, claim: Claim) -> None:
        """The next incarnation of an actor waits until one that is none any more has ended."""
        acts = claim.ended is None and claim.phase != Phase.ENDED
        if acts and (record is None or record.kind.creates is not None):
            fences = self._state.hosts.fences
            fences.told_to_end(claim.id, claim.node, named=record is not None)
            if record is None:
                self._work.deliveries.after_reached(claim.node.id, partial(self._heard, claim))

    def _heard(self, claim: Claim) -> None:
        fences = self._state.hosts.fences
        fences.heard(claim.id, claim.node.id)
        actor = self._state.hosts.known.get(claim.id)
        if actor is not None and actor.record is not None and actor.record.state == BACKOFF:
            self._work.look_again([actor.record])

    def _is_told(self, claim: Claim) -> bool:
        """Return whether a submitter does not name its task because it has the result."""
        state, home = self._state, home_of(claim.id)
        there = home in state.peers and home not in state.claims.telling
        return claim.phase == Phase.ENDED and there

    def _let_go(self, claim: Claim) -> None:
        """A claim leads nowhere: what came of it and what it had submitted go with it."""
        if claim.ended is not None:
            row, arrival = claim.ended.row, claim.ended.arrival
            self._attempts.drop(claim.node, row, arrival)
        self._work.cancel_children_at(claim.id, claim.node.id)

    def _stop(self, claim: Claim, why: str) -> None:
        if claim.ended is None:
            self._state.out.stop(claim.node.id, claim.id, claim.attempt, StopMode.FORCE)
        self._state.counters["stale_dropped"] += 1
        task = f"{show(claim.id)} attempt {claim.attempt} at {claim.node.name!r}"
        self._state.tell(f"stops {task}: {why}", "stop", node=claim.node.name, task=claim.id)
