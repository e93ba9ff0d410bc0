"""A task's way through the scheduler: submitted, placed, ended, tried again, cancelled.

Never judges who is alive, and opens no payload. Every way ends in `end`: one outcome a task, told
to its submitter and to all who wait for its values.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from ..protocol.ids import PEER_BYTES, NO_TASK, ObjectId, PeerId, TaskId, objects_of
from ..protocol.messages import (
    AssignRow,
    Blocked,
    Done,
    DoneRow,
    Failure,
    Outcome,
    Submit,
    TakenBack,
    TaskRow,
    ValueRow,
)
from .kinds import Kinds
from .objects import Objects
from .placement import Board, ReadyQueue, ShapeQueue
from .state import Misbehaved, Node, Peer, State, ignore
from .tasks import (
    ASSIGN,
    ASSIGNED,
    BACKOFF,
    DELIVER,
    DELIVERING,
    END,
    FINISHED,
    QUEUED,
    READY,
    RETRY,
    RETURN,
    Kind,
    Shape,
    TaskRecord,
    backoff_s,
    dependency_failed,
    failed,
    move,
)

#: weight of the newest duration in a kind's average
FRESH: Final = 0.2
#: blob key of a task's arguments: its id and this
ARGS: Final = b"a"
#: failures of attempts that were cut short: what they had submitted is cancelled
CUT_SHORT: Final = frozenset({"TaskCancelled", "WorkerDied", "NodeLost", "PoisonTask"})


class Work:
    """All tasks without an outcome."""

    __slots__ = (
        "_backoffs", "_board", "_ending", "_ending_now", "_kinds", "_objects", "_order", "_state",
        "backing_off", "children", "queue",
    )  # fmt: skip

    def __init__(self, state: State, board: Board, kinds: Kinds, objects: Objects) -> None:
        self._state = state
        self._board = board
        self._kinds = kinds
        self._objects = objects
        self._order = 0
        self.queue = ReadyQueue()
        #: tasks of running tasks, by their parent
        self.children: dict[TaskId, dict[TaskId, TaskRecord]] = {}
        #: tasks that wait to be tried again, with the time they are due
        self.backing_off: dict[TaskId, float] = {}
        self._backoffs: list[tuple[float, int, TaskRecord]] = []
        #: ends that are not told yet: each may cause others, so they are told one after another
        self._ending: deque[tuple[TaskRecord, list[ValueRow]]] = deque()
        self._ending_now = False

    # ------------------------------------------------------------------------------------ submitted

    def submit(self, peer: Peer, message: Submit) -> None:
        """New tasks of a peer."""
        peer_id, known, kinds, now_s = peer.id, peer.tasks, peer.kinds, self._state.now_s
        parent, depth, client = self._parent_of(peer, message), message.depth, message.client
        order = self._order
        last_kind: Kind | None = None
        queue: ShapeQueue | None = None
        for row in message.rows:
            id_ = TaskId(row.id)
            if id_ in known:
                self._drop_args(peer, row)
                continue
            if id_[:PEER_BYTES] != peer_id:
                raise Misbehaved("it submitted a task under another's id")
            kind = kinds.get(row.kind)
            if kind is None or parent is None:
                self._refuse(peer, row)
                continue
            order += 1
            record = TaskRecord(row, kind, peer, parent, depth, order, now_s)
            known[id_] = record
            kind.uses += 1
            if kind is not last_kind:
                if kind.client != client:
                    raise Misbehaved("it submitted a task of one client with the code of another")
                last_kind = kind
                queue = self.queue.queue_of((-kind.priority, -depth), kind.shape)
            if parent:
                self.children.setdefault(parent, {})[id_] = record
            if row.deps or (row.size and row.args is None):
                self._order = order
                self._await(peer, record)
            else:
                assert queue is not None
                move(record, READY)
                queue.push(record)
                self.queue.size += 1
        self._state.counters["submitted"] += order - self._order
        self._order = order

    def _parent_of(self, peer: Peer, message: Submit) -> TaskId | None:
        """Return the parent to remember; None: what was submitted is not to run."""
        if peer.node is None:
            if message.client != peer.id:
                raise Misbehaved("it submitted tasks for another client")
            return NO_TASK
        if self._state.client(message.client) is None:
            return None
        parent = TaskId(message.parent)
        if not parent:
            return NO_TASK
        record = peer.node.assigned.get(parent) or peer.node.delivering.get(parent)
        if record is not None:
            return None if record.stopping else parent
        # Unknown: its outcome is told, and a thread it left behind submits. Known, but not there:
        # an attempt that was given up.
        return NO_TASK if self._state.find(parent) is None else None

    def _refuse(self, peer: Peer, row: TaskRow) -> None:
        if row.kind not in peer.kinds:
            raise Misbehaved(f"it submitted a task of kind {row.kind}, which it never defined")
        self._drop_args(peer, row)
        text = "the task that submitted this one was cancelled or lost, or its client has left"
        failure = Failure(error="TaskCancelled", text=text)
        self._tell(peer, ValueRow(id=row.id, outcome=Outcome.FAILURE, failure=failure))

    def _drop_args(self, peer: Peer, row: TaskRow) -> None:
        if row.size and row.args is None:
            peer.expect(row.id + ARGS, ignore)

    def _await(self, peer: Peer, record: TaskRecord) -> None:
        """Have a new task wait for what it needs."""
        row = record.row
        if row.size and row.args is None:
            record.unmet += 1
            peer.expect(row.id + ARGS, partial(self._args_came, record))
        if record.row.deps:
            bad = self._objects.need(record)
            if bad is not None:
                self.end(record, [dependency_failed(record, bad)])
                return
        if not record.unmet and record.state == 0:
            self._ready(record)

    def _args_came(self, record: TaskRecord, payload: bytes) -> None:
        if record.state != FINISHED:
            record.row.args = payload
            self._one_met(record)

    def _one_met(self, record: TaskRecord) -> None:
        record.unmet -= 1
        if not record.unmet and not self._adding(record):
            self._ready(record)

    def _adding(self, record: TaskRecord) -> bool:
        # While `_await` still counts, a payload that came early is met at once; it looks itself.
        return bool(record.row.deps) and not self._objects.knows(record)

    def _ready(self, record: TaskRecord) -> None:
        move(record, READY)
        self.queue.push(record)
