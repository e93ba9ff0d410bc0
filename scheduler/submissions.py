"""How tasks come in: new ones, and those from an earlier life of the scheduler.

Never places a task, nor ends one that runs. What is new is on the hot path, what comes again is
not: it has a way of its own, so that the first pays nothing for the second.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..protocol.ids import NO_TASK, PEER_BYTES, PeerId, TaskId
from ..protocol.messages import Failure, Outcome, Submit, TaskRow, ValueRow
from .objects import Objects
from .placement import Board, Level, level_of
from .state import Peer, PeerError, State, ignore
from .tasks import FINISHED, QUEUED, WAITING, Kind, Shape, TaskRecord, dependency_failed
from .work import ARGS, Work

if TYPE_CHECKING:
    from .recovery import Recovery

UNWANTED = Failure(
    "TaskCancelled", "the task that submitted this one was cancelled or lost, or its client left"
)


class Submissions:
    """See the module."""

    __slots__ = (
        "_actors", "_board", "_objects", "_order", "_recovery", "_state", "_work", "adopt",
    )  # fmt: skip

    def __init__(
        self, state: State, board: Board, objects: Objects, work: Work, recovery: "Recovery"
    ) -> None:
        self._state = state
        self._board = board
        self._objects = objects
        self._work = work
        self._actors = work.actors
        self._recovery = recovery
        self._order = 0
        #: takes the creation of a detached actor, with its running number; set by `Wards`
        self.adopt: Callable[[Peer, TaskRow, Kind | None, int], None] = _nobody_adopts

    # ------------------------------------------------------------------------------------------ new

    def submit(self, peer: Peer, message: Submit) -> None:
        """Tasks of a peer."""
        if message.attempts:
            self._submit_again(peer, message)
            return
        peer_id, known, kinds, now_s = peer.id, peer.tasks, peer.kinds, self._state.now_s
        depth, client = message.depth, message.client
        from_client = peer.node is None
        # A client's tasks have no parent; what a node's tasks submit has.
        parent = NO_TASK if from_client and client == peer_id else self._parent_of(peer, message)
        # Numbers are used up even when the peer turns out to misbehave: none is ever given twice.
        order = first_order = self._order
        self._order += len(message.rows)
        last_kind: Kind | None = None
        is_special = False
        hopeless: Failure | None = None
        ready: list[TaskRecord] = []
        for row in message.rows:
            id_ = row.id
            if id_ in known:
                self.drop_args(peer, row)
                continue
            kind = kinds.get(row.kind)
            if id_[:PEER_BYTES] != peer_id:
                self._hand_over(peer, row, kind, parent)
                continue
            if kind is None or parent is None:
                self._refuse(peer, row, UNWANTED)
                continue
            if kind is not last_kind:
                hopeless = None if from_client else self._hopeless(peer, kind)
                if kind.client != client:
                    raise PeerError("it submitted a task of one client with the code of another")
                if ready:
                    self._queue_up(ready)
                    ready = []
                last_kind, is_special = kind, kind.is_special
            if hopeless is not None:
                self._refuse(peer, row, hopeless)
                continue
            order += 1
            record = TaskRecord(row, kind, peer, parent, depth, order, now_s)
            if is_special and self._is_seen_to(peer, record):
                continue
            known[id_] = record
            kind.uses += 1
            if parent or kind.is_timed:
                self._note(record)
            if row.deps or (row.size and row.args is None) or kind.function.payload is None:
                self.wait_for(peer, record)
            else:
                ready.append(record)
        if ready:
            self._queue_up(ready)
        self._state.counters["submitted"] += order - first_order

    def _hopeless(self, peer: Peer, kind: Kind) -> Failure | None:
        """Return why no node can run tasks of a kind, if whoever submits them does not know."""
        # A client has looked before it submitted; a worker does not know the nodes. While nodes
        # are awaited, nobody does.
        if peer.node is None or self._state.recovering or self._state.awaits_nodes:
            return None
        return self._board.refusal(kind)

    def _is_seen_to(self, peer: Peer, record: TaskRecord) -> bool:
        """Have a new call wait for its turn; return False for what goes on like any task."""
        row, kind = record.row, record.kind
        if self._has_failed(peer, row, kind):
            return True
        if kind.host is None:
            self._actors.submitted(record)
            return False
        self._enlist(peer, record)
        if _is_whole(record):
            record.state = QUEUED  # as `move` would: there is nothing that it waits for
            if kind.is_timed:
                self._work.deadlines.queued(record)
        self._actors.submitted(record)
        if record.state == FINISHED:
            self.drop_args(peer, row)  # its actor has just turned out to be no more
        elif record.state == WAITING:
            self.wait_for(peer, record)
        return True

    def _enlist(self, peer: Peer, record: TaskRecord) -> None:
        """A task is one of its submitter's, and of its parent's; its time begins."""
        peer.tasks[record.row.id] = record
        record.kind.uses += 1
        self._note(record)

    def _note(self, record: TaskRecord) -> None:
        if record.parent:
            self._work.children.setdefault(record.parent, {})[record.row.id] = record
        if record.kind.is_timed:
            self._work.deadlines.submitted(record)

    def _has_failed(self, peer: Peer, row: TaskRow, kind: Kind) -> bool:
        """Tell whoever calls an actor that is no more; return whether it is."""
        failed = self._actors.refusal(row, kind)
        if failed is not None:
            self.drop_args(peer, row)
            told = self._state.out.packed(peer.id, failed)
            self._state.out.results.setdefault(peer.id, []).append(told)
        return failed is not None

    def _queue_up(self, records: list[TaskRecord]) -> None:
        """Queue new tasks of one kind and depth, in order."""
        for record in records:
            record.state = QUEUED  # as `move` would: they are new
        first = records[0]
        if first.kind.is_timed:
            for record in records:
                self._work.deadlines.queued(record)
        self._work.queue.extend(records)

    def _parent_of(self, peer: Peer, message: Submit) -> TaskId | None:
        """Return the parent to remember; None: what was submitted is not to run."""
        state, node = self._state, peer.node
        if node is None:
            if message.client != peer.id:
                raise PeerError("it submitted tasks for another client")
            return NO_TASK
        if state.client(PeerId(message.client)) is None:
            return None
        parent = TaskId(message.parent)
        record = node.find(parent) or node.delivering.get(parent)
        if record is not None:
            return None if record.stopping and not record.spares_children else parent
        if state.claims.open:
            claim = state.claims.find(parent)
            if claim is not None:
                return parent if claim.node is node else None
            if parent in state.claims.given_up:
                return None
        elif not node.knows(PeerId(message.client)):
            return None  # a node speaks for nobody whose work it never had
        # Unknown: its outcome is told, and a thread it left behind submits. Known, but not there:
        # an attempt that was given up.
        return NO_TASK if not parent or state.find(parent) is None else None

    def _hand_over(
        self, peer: Peer, row: TaskRow, kind: Kind | None, parent: TaskId | None
    ) -> None:
        """A peer submits what is not its own: it can only be a detached actor."""
        if parent is None:
            self._refuse(peer, row, UNWANTED)
        else:
            self.adopt(peer, row, kind, self.next_order())

    def next_order(self) -> int:
        """Return a running number that no submission has."""
        self._order += 1
        return self._order

    def _refuse(self, peer: Peer, row: TaskRow, failure: Failure) -> None:
        if row.kind not in peer.kinds:
            raise PeerError(f"it submitted a task of kind {row.kind}, which it never defined")
        self.drop_args(peer, row)
        self._state.hosts.names.comes_to_nothing(row.id)
        told = ValueRow(id=row.id, outcome=Outcome.FAILURE, failure=failure)
        self._state.out.results.setdefault(peer.id, []).append(told)

    def drop_args(self, peer: Peer, row: TaskRow) -> None:
        """What a row names is of no use."""
        if row.size and row.args is None:
            peer.expect(row.id + ARGS, ignore)

    def wait_for(self, peer: Peer, record: TaskRecord) -> None:
        """Have a new task wait for what it needs."""
        # One more than it waits for, so that what is there already does not make it ready twice.
        record.unmet += 1
        bad = self._objects.need(record)
        if bad is not None:
            self.drop_args(peer, record.row)
            self._work.end(record, [dependency_failed(record, bad)])
            return
        self._expect(peer, record)
        self._work.one_met(record)

    def _expect(self, peer: Peer, record: TaskRecord) -> None:
        """Have a task wait for its arguments and code."""
        row, function = record.row, record.kind.function
        if row.size and row.args is None:
            record.unmet += 1
            peer.expect(row.id + ARGS, partial(self._work.args_came, record))
        if function.payload is None:
            record.unmet += 1
            function.waiting.append(partial(self._work.code_came, record))

    # ---------------------------------------------------------------------------------------- again

    def _submit_again(self, peer: Peer, message: Submit) -> None:
        """Tasks that the submitter has over from an earlier life of the scheduler."""
        rows, attempts = message.rows, message.attempts
        if len(attempts) != len(rows):
            raise PeerError(f"it named {len(attempts)} attempts of {len(rows)} tasks")
        known, now_s, client = peer.tasks, self._state.now_s, message.client
        parent = self._parent_of(peer, message)
        # Most are at no node, for sure, and lack nothing: they go the way of new ones.
        sure = self._recovery.doubts.none_of(peer)
        is_known_of = self._recovery.is_known_of
        open_for = self._state.claims.open and self._state.client(PeerId(client)) is not None
        ready: dict[tuple[Level, Shape], list[TaskRecord]] = {}
        last_kind: Kind | None = None
        last: list[TaskRecord] = []
        for row, told in zip(rows, attempts, strict=True):
            self._order += 1
            if row.id in known:
                self.drop_args(peer, row)
                continue
            kind = peer.kinds.get(row.kind)
            if row.id[:PEER_BYTES] != peer.id:
                self._hand_over(peer, row, kind, parent)
                continue
            # Nobody is told that it is cancelled while it may yet start somewhere.
            may_run = open_for and bool(told) and not sure
            if kind is None or (parent is None and not may_run):
                self._refuse(peer, row, UNWANTED)
                continue
            if kind.client != client:
                raise PeerError("it submitted a task of one client with the code of another")
            hopeless = None if told else self._hopeless(peer, kind)
            if hopeless is not None:
                self._refuse(peer, row, hopeless)
                continue
            if kind.is_special and not told and self._has_failed(peer, row, kind):
                continue
            family = parent or NO_TASK
            record = TaskRecord(row, kind, peer, family, message.depth, self._order, now_s)
            self._enlist(peer, record)
            self._state.counters["submitted"] += 1
            is_clear = sure and told == 1 and not kind.is_special and _is_whole(record)
            if not is_clear or is_known_of(record.id):
                self._queue_up_all(ready)
                self.resume(peer, record, told)
                if parent is None:
                    self._work.cancel([row.id], False, True, False)
                continue
            if kind is not last_kind or not ready:
                last_kind = kind
                last = ready.setdefault((level_of(record), kind.shape), [])
            record.attempt = told
            last.append(record)
        self._queue_up_all(ready)

    def _queue_up_all(self, ready: dict[tuple[Level, Shape], list[TaskRecord]]) -> None:
        for records in ready.values():
            for record in records:
                record.state = QUEUED  # as `move` would: there is nothing that it waits for
                if record.kind.is_timed:
                    self._work.deadlines.queued(record)
            self._work.queue.extend(records)
        ready.clear()

    def resume(self, peer: Peer, record: TaskRecord, told: int) -> None:
        """Have a task go on where it was, wait until that is known, or begin."""
        record.attempt = max(1, told)
        if record.kind.is_special:
            self._actors.submitted(record)
            if record.state == FINISHED:
                self.drop_args(peer, record.row)
                return
        if self._recovery.matching.met(record):
            # What it depends on may be needed for another attempt: it is still expected.
            self._objects.need(record)
            self._expect(peer, record)
            record.unmet = 0
        else:
            if told:
                self._recovery.doubts.settle(record)
            if record.state == FINISHED:
                self.drop_args(peer, record.row)
                return
            assert record.state == WAITING
            self.wait_for(peer, record)
        self._recovery.remember_cancel(record)


def _nobody_adopts(_peer: Peer, _row: TaskRow, _kind: Kind | None, _order: int) -> None:
    raise AssertionError("the core has not introduced the wards")


def _is_whole(record: TaskRecord) -> bool:
    """Return whether a task waits for nothing: no value, no argument, no code."""
    row = record.row
    missing = row.deps or (row.size and row.args is None)
    return not missing and record.kind.function.payload is not None
