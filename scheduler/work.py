"""A task's way through the scheduler: submitted, placed, ended, tried again, cancelled.

Never judges who is alive, and opens no payload. Every way ends in `end`: one outcome a task, told
to its submitter and to all who wait for its values.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from ..protocol.ids import NO_TASK, PEER_BYTES, PeerId, TaskId
from ..protocol.messages import Failure, Outcome, StopMode, Submit, TaskRow, ValueRow
from .asks import Asks
from .kinds import Kinds
from .objects import Objects
from .placement import Board, ReadyQueue, level_of
from .state import Peer, PeerError, State, ignore
from .tasks import (
    ASSIGNED,
    BACKOFF,
    DELIVERING,
    END,
    FINISHED,
    NEXT,
    QUEUED,
    READY,
    RETRY,
    WAITING,
    Kind,
    TaskRecord,
    backoff_s,
    dependency_failed,
    failed,
    move,
)

#: blob key of a task's arguments: its id and this
ARGS: Final = b"a"
#: failures of attempts that were cut short: what they had submitted is cancelled
CUT_SHORT: Final = frozenset(
    {"TaskCancelled", "WorkerDied", "WorkerOutOfMemory", "NodeLost", "PoisonTask"}
)
UNWANTED: Final = Failure(
    "TaskCancelled", "the task that submitted this one was cancelled or lost, or its client left"
)


class Work:
    """All tasks without an outcome."""

    __slots__ = (
        "_board", "_ending", "_ending_now", "_kinds", "_objects", "_order", "_state",
        "asks", "backing_off", "backoffs", "children", "queue",
    )  # fmt: skip

    def __init__(self, state: State, board: Board, kinds: Kinds, objects: Objects) -> None:
        self._state = state
        self._board = board
        self._kinds = kinds
        self._objects = objects
        self._order = 0
        self.queue = ReadyQueue()
        self.asks = Asks(state.out)
        #: tasks of running tasks, by their parent
        self.children: dict[bytes, dict[bytes, TaskRecord]] = {}
        #: tasks that wait to be tried again, with the time they are due
        self.backing_off: dict[bytes, float] = {}
        #: heap of them; `wake` has something to do when its first is due
        self.backoffs: list[tuple[float, int, TaskRecord]] = []
        #: ends that are not told yet: each may cause others, so they are told one after another
        self._ending: deque[tuple[TaskRecord, list[ValueRow]]] = deque()
        self._ending_now = False

    # ------------------------------------------------------------------------------------ submitted

    def submit(self, peer: Peer, message: Submit) -> None:
        """New tasks of a peer."""
        peer_id, known, kinds, now_s = peer.id, peer.tasks, peer.kinds, self._state.now_s
        depth, client = message.depth, message.client
        parent: TaskId | None = NO_TASK
        if peer.node is not None or client != peer_id:
            parent = self._parent_of(peer, message)
        # Numbers are used up even when the peer turns out to misbehave: none is ever given twice.
        order = first_order = self._order
        self._order += len(message.rows)
        last_kind: Kind | None = None
        hopeless: Failure | None = None
        ready: list[TaskRecord] = []
        for row in message.rows:
            id_ = row.id
            if id_ in known:
                self._drop_args(peer, row)
                continue
            if id_[:PEER_BYTES] != peer_id:
                raise PeerError("it submitted a task under another's id")
            kind = kinds.get(row.kind)
            if kind is None or parent is None:
                self._refuse(peer, row, UNWANTED)
                continue
            if kind is not last_kind:
                # A client has looked before it submitted; a worker does not know the nodes.
                hopeless = None if peer.node is None else self._board.refusal(kind)
                if kind.client != client:
                    raise PeerError("it submitted a task of one client with the code of another")
                if ready:
                    self._queue_up(ready)
                    ready = []
                last_kind = kind
            if hopeless is not None:
                self._refuse(peer, row, hopeless)
                continue
            order += 1
            record = TaskRecord(row, kind, peer, parent, depth, order, now_s)
            known[id_] = record
            kind.uses += 1
            if parent:
                self.children.setdefault(parent, {})[id_] = record
            if row.deps or (row.size and row.args is None) or kind.function.payload is None:
                self._await(peer, record)
            else:
                ready.append(record)
        if ready:
            self._queue_up(ready)
        self._state.counters["submitted"] += order - first_order

    def _queue_up(self, records: list[TaskRecord]) -> None:
        """Queue new tasks of one kind and depth, in order."""
        for record in records:
            record.state = QUEUED  # as `move` would: they are new
        first = records[0]
        queue = self.queue.queue_of(level_of(first), first.kind.shape)
        self.queue.extend(queue, records)

    def _parent_of(self, peer: Peer, message: Submit) -> TaskId | None:
        """Return the parent to remember; None: what was submitted is not to run."""
        if peer.node is None:
            if message.client != peer.id:
                raise PeerError("it submitted tasks for another client")
            return NO_TASK
        if self._state.client(PeerId(message.client)) is None:
            return None
        parent = TaskId(message.parent)
        if not parent:
            return NO_TASK
        record = peer.node.assigned.get(parent) or peer.node.delivering.get(parent)
        if record is not None:
            return None if record.stopping and not record.spares_children else parent
        # Unknown: its outcome is told, and a thread it left behind submits. Known, but not there:
        # an attempt that was given up.
        return NO_TASK if self._state.find(parent) is None else None

    def _refuse(self, peer: Peer, row: TaskRow, failure: Failure) -> None:
        if row.kind not in peer.kinds:
            raise PeerError(f"it submitted a task of kind {row.kind}, which it never defined")
        self._drop_args(peer, row)
        self._tell(peer, ValueRow(id=row.id, outcome=Outcome.FAILURE, failure=failure))

    def _drop_args(self, peer: Peer, row: TaskRow) -> None:
        if row.size and row.args is None:
            peer.expect(row.id + ARGS, ignore)

    def _await(self, peer: Peer, record: TaskRecord) -> None:
        """Have a new task wait for what it needs."""
        row = record.row
        # One more than it waits for, so that what is there already does not make it ready twice.
        record.unmet = 1
        bad = self._objects.need(record)
        if bad is not None:
            self._drop_args(peer, row)
            self.end(record, [dependency_failed(record, bad)])
            return
        if row.size and row.args is None:
            record.unmet += 1
            peer.expect(row.id + ARGS, partial(self._args_came, record))
        function = record.kind.function
        if function.payload is None:
            record.unmet += 1
            function.waiting.append(partial(self._code_came, record))
        self._one_met(record)

    def _code_came(self, record: TaskRecord) -> None:
        if record.state != FINISHED:
            self._one_met(record)

    def _args_came(self, record: TaskRecord, payload: bytes) -> None:
        if record.state != FINISHED:
            record.row.args = payload
            self._one_met(record)

    def _one_met(self, record: TaskRecord) -> None:
        record.unmet -= 1
        if not record.unmet:
            self.ready(record)

    def ready(self, record: TaskRecord) -> None:
        """A task waits for nothing any more."""
        move(record, READY)
        self.queue.push(record)

    # ---------------------------------------------------------------------------------------- ended

    def end(self, record: TaskRecord, rows: list[ValueRow]) -> None:
        """Give a task, which is at no node, its outcome.

        Args:
            record: the task.
            rows: its values with their payloads; one row with the task's id for any other outcome.
        """
        self._ending.append((record, rows))
        if self._ending_now:
            return
        self._ending_now = True
        while self._ending:
            record, rows = self._ending.popleft()
            if record.state != FINISHED:
                self._end(record, rows)
        self._ending_now = False

    def end_plain(self, ended: list[tuple[TaskRecord, ValueRow]]) -> None:
        """Give tasks, which were at a node, their one value each, without refs in it."""
        if self._objects.entries or self.children or self.asks.open:
            for record, value in ended:
                self.end(record, [value])
            return
        results, inline_bytes_max = self._state.out.results, self._state.settings.inline_bytes_max
        for record, value in ended:
            kind, owner, payload = record.kind, record.owner, value.payload
            if kind.uses == 1 or (payload is not None and len(payload) > inline_bytes_max):
                self.end(record, [value])
                continue
            record.state = NEXT[record.state][END]
            del owner.tasks[value.id]
            kind.uses -= 1
            if owner.here:
                told = results.get(owner.id)
                if told is None:
                    told = results[owner.id] = []
                told.append(value)
            self._state.counters["finished"] += 1

    def _end(self, record: TaskRecord, rows: list[ValueRow]) -> None:
        state = record.state
        if state == QUEUED:
            self.queue.discard(record)
        elif state == BACKOFF:
            del self.backing_off[record.id]
        move(record, END)
        id_, owner, counters = record.row.id, record.owner, self._state.counters
        del owner.tasks[id_]
        if owner.here:
            told = self._state.out.results.get(owner.id)
            if told is None:
                told = self._state.out.results[owner.id] = []
            packed = self._state.out.packed
            for row in rows:
                told.append(packed(owner.id, row))
        first = rows[0]
        if first.outcome != Outcome.VALUE:
            name = first.failure.error if first.failure is not None else ""
            counters["cancelled" if name == "TaskCancelled" else "failed"] += 1
        counters["finished"] += 1
        if self.asks.open:
            failure = first.failure
            self.asks.known(id_, failure is not None and failure.error == "TaskCancelled")
        if record.parent or self.children:
            self._leave_family(record, first)
        if self._objects.entries:
            self._supply(record, rows)
            if record.row.deps:
                self._objects.release(record)
        self._kinds.unuse(record.kind)

    def _supply(self, record: TaskRecord, rows: list[ValueRow]) -> None:
        """Hand a task's values to those who wait for them."""
        if rows[0].outcome != Outcome.VALUE and record.kind.options.num_returns != 1:
            rows = self._objects.of_task(record, rows[0])
        for row in rows:
            self.arrived(row)

    def arrived(self, row: ValueRow) -> None:
        """An object's value is there, or why there is none."""
        for dependant in self._objects.arrived(row):
            if dependant.state != WAITING:
                continue
            if row.outcome == Outcome.VALUE:
                self._one_met(dependant)
            else:
                self.end(dependant, [dependency_failed(dependant, row)])

    def _leave_family(self, record: TaskRecord, first: ValueRow) -> None:
        id_, parent = record.id, record.parent
        siblings = self.children.get(parent) if parent else None
        if siblings is not None:
            del siblings[id_]
        children = self.children.pop(id_, None)
        if children:
            cut_short = first.failure is not None and first.failure.error in CUT_SHORT
            if cut_short and not record.spares_children:
                self._cancel_all(children.values())
            # They are cancelled with their grandparent, should that come to it.
            heir = parent if siblings is not None else NO_TASK
            for child in children.values():
                child.parent = heir
            if siblings is not None:
                siblings.update(children)
        if siblings is not None and not siblings:
            del self.children[parent]

    def _tell(self, peer: Peer, row: ValueRow) -> None:
        self._state.out.results.setdefault(peer.id, []).append(row)

    # ---------------------------------------------------------------------------------- tried again

    def retry(self, record: TaskRecord, final: ValueRow) -> None:
        """An attempt, which its node has released, is lost: charge it, and try again or end.

        Args:
            record: the task.
            final: its outcome if no attempt is left.
        """
        options = record.kind.options
        if record.stopping:
            if final.outcome == Outcome.FAILURE:
                final = failed(record, "TaskCancelled", f"{record.kind.name} was cancelled")
            self.end(record, [final])
            return
        if record.attempt > options.max_retries:
            self.end(record, [self._final(record, final)])
            return
        limit_s, chance = self._state.settings.retry_backoff_max_s, self._state.rng.random()
        due_s = self._state.now_s + backoff_s(options, record.attempt, limit_s, chance)
        move(record, RETRY)
        record.attempt += 1
        record.values = ()
        self.backing_off[record.id] = due_s
        heappush(self.backoffs, (due_s, record.order, record))
        self._state.counters["retried"] += 1
        if record.owner.here:
            self._state.out.retry(record.owner.id, record.id, record.attempt)

    def _final(self, record: TaskRecord, last: ValueRow) -> ValueRow:
        """Return the outcome of a task whose attempts are used up."""
        record.attempt += 1
        if last.outcome == Outcome.FAILURE and record.deaths >= self._state.settings.poison_deaths:
            why = "" if last.failure is None else f"; the last one: {last.failure.text}"
            text = f"{record.deaths} attempts of {record.kind.name} ended with their worker{why}"
            row = failed(record, "PoisonTask", text, deaths=record.deaths)
            if row.failure is not None and last.failure is not None:
                row.failure.details = {**last.failure.details, **row.failure.details}
            return row
        return last

    def wake(self) -> None:
        """Queue what is due to be tried again."""
        heap, due = self.backoffs, self.backing_off
        while heap and (heap[0][0] <= self._state.now_s or heap[0][2].state != BACKOFF):
            due_s, _, record = heappop(heap)
            if record.state == BACKOFF and due.get(record.id) == due_s:
                del due[record.id]
                self.ready(record)
        if len(heap) > 64 + 2 * len(due):
            self.backoffs = [entry for entry in heap if entry[2].state == BACKOFF]
            heapify(self.backoffs)

    # ------------------------------------------------------------------------------------ cancelled

    def cancel(
        self, ids: Iterable[bytes], force: bool, recursive: bool, ask: bool
    ) -> list[bool | None]:
        """Cancel tasks; return for each whether it had not started and now never will.

        None, for those who ask: its node has been told to drop it if it has not started.

        Args:
            ids: the tasks. Unknown ones are finished: nothing is done.
            force: kill at once what runs.
            recursive: their children too, and theirs.
            ask: only those that have not started: nothing is done to the others.
        """
        dropped: list[bool | None] = []
        for id_ in ids:
            record = self._state.find(TaskId(id_))
            fresh = record is not None and record.attempt == 1 and record.state < ASSIGNED
            dropped.append(fresh)
            if record is not None and (fresh or not ask):
                self._cancel(record, force, recursive)
            elif record is not None and self.asks.may_drop(record):
                dropped[-1] = None
        return dropped

    def _cancel(self, record: TaskRecord, force: bool, recursive: bool) -> None:
        """Cancel one task, and perhaps its descendants."""
        family = [record]
        if recursive:
            for member in family:  # grows while it is walked
                family += self.children.get(member.id, {}).values()
        # Once its family was to go, no second word saves it.
        record.spares_children = not recursive and (record.spares_children or not record.stopping)
        for member in family:
            self.cancel_one(member, force)

    def _cancel_all(self, records: Iterable[TaskRecord]) -> None:
        for record in list(records):
            self._cancel(record, False, True)

    def cancel_children(self, record: TaskRecord) -> None:
        """An attempt ended before its time: nobody waits for what it had submitted."""
        children = self.children.get(record.id)
        if children:
            self._cancel_all(children.values())

    def cancel_one(self, record: TaskRecord, force: bool) -> None:
        """Cancel one task: drop it, or have its node stop it."""
        node = record.node
        if record.state == ASSIGNED and node is not None:
            if not record.stopping or force:
                record.stopping = True
                mode = StopMode.FORCE if force else StopMode.SOFT
                self._state.out.stop(node.id, record.id, record.attempt, mode)
        elif record.state == DELIVERING:
            record.stopping = True  # its value counts, if it comes
        elif record.state != FINISHED:
            text = f"{record.kind.name} was cancelled before it started"
            self.end(record, [failed(record, "TaskCancelled", text)])

    # -------------------------------------------------------------------------------- peers that go

    def forget_client(self, client: Peer) -> None:
        """A client is gone: forget all tasks for it, wherever they were submitted or are."""
        for peer in (client, *self._state.peers.values()):
            for record in [r for r in peer.tasks.values() if r.kind.client == client.id]:
                self._abandon(record)
        for node in self._state.nodes.values():
            # What is left was submitted by nodes that are gone.
            for record in [*node.assigned.values(), *node.delivering.values()]:
                if record.kind.client == client.id:
                    self._abandon(record)

    def _abandon(self, record: TaskRecord) -> None:
        """End a task of a client that is gone. Nodes are told of the client, not of each task."""
        if record.state == FINISHED:
            return
        node = record.node
        if node is not None:
            if record.state == ASSIGNED:
                node.release(record)
                self._board.touch(node)
            else:
                del node.delivering[record.id]
                record.node = None
        self.end(record, [failed(record, "TaskCancelled", "its client has left")])

    def forget_submitter(self, peer: Peer) -> None:
        """A node is gone: nobody waits for what its workers submitted."""
        for record in list(peer.tasks.values()):
            self.cancel_one(record, False)

    # --------------------------------------------------------------------------------------- inside

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            **self.queue.sizes(),
            "backing_off": len(self.backing_off),
            "backoffs": len(self.backoffs),
            "children": len(self.children),
            "ending": len(self._ending),
            "asks": len(self.asks.open),
        }

    def check_invariants(self) -> None:
        """Assert that each task is where its state says."""
        self.queue.check_invariants()
        assert not self._ending
        queued = {id(record) for queue in self.queue.queues() for record in queue}
        tasks = [r for peer in self._state.peers.values() for r in peer.tasks.values()]
        for record in tasks:
            node = record.node
            assert (record.state == QUEUED) == (id(record) in queued)
            assert (record.state == BACKOFF) == (record.id in self.backing_off)
            assert (record.state in (ASSIGNED, DELIVERING)) == (node is not None)
            if node is not None:
                home = node.assigned if record.state == ASSIGNED else node.delivering
                assert home[record.id] is record
            if record.state == WAITING:
                assert record.unmet > 0
            elif record.state != DELIVERING:
                assert record.unmet == 0
            if record.parent:
                assert self.children[record.parent][record.id] is record
        for children in self.children.values():
            assert children
            for id_, child in children.items():
                assert child.id == id_
                assert child.state != FINISHED
        assert len(self.backing_off) == sum(record.state == BACKOFF for record in tasks)
