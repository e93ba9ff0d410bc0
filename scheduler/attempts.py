"""What passes between tasks and nodes: assigned, ended, lent, taken back, lost.

Never decides what becomes of a task whose attempt is over: `Work` does. It keeps each node's
account, and drops what is not current.
"""

from functools import partial
from heapq import heapify, heappop, heapreplace
from typing import Final

from ..protocol.ahead import ahead_key
from ..protocol.ids import ObjectId, TaskId, objects_of
from ..protocol.messages import (
    AssignRow,
    Blocked,
    Done,
    DoneRow,
    Outcome,
    TakenBack,
    ValueRow,
)
from ..protocol.remotes import Remote
from ..protocol.resources import UNITS
from .deliveries import Arrival, Deliveries
from .kinds import Kinds
from .nearness import nearest
from .objects import Objects
from .placement import AHEAD_WINDOWS, EMPTY_QUEUES_MAX, Board, ShapeQueue
from .starving import Starving
from .state import Node, Peer, PeerError, State, ignore
from .tasks import (
    ASSIGN,
    DELIVER,
    DELIVERING,
    NEXT,
    QUEUED,
    RETURN,
    Kind,
    Shape,
    TaskRecord,
    failed,
    move,
)
from .work import ARGS, Work

#: weight of the newest duration in a kind's average
FRESH: Final = 0.2
NEVER_S: Final = float("inf")
#: of what a node has, so many of the last are looked at for one that another node could run
LOOK_AT: Final = 32


class Attempts:
    """All that nodes have been given."""

    __slots__ = (
        "_board", "_checkpoints", "_deliveries", "_inline_bytes_max", "_kinds", "_objects",
        "_state", "_work", "starving",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        board: Board,
        kinds: Kinds,
        objects: Objects,
        work: Work,
        deliveries: Deliveries,
    ) -> None:
        self._state = state
        self._board = board
        self._kinds = kinds
        self._objects = objects
        self._work = work
        self._deliveries = deliveries
        self._inline_bytes_max = state.settings.inline_bytes_max
        self._checkpoints = state.hosts.checkpoints
        self.starving = Starving(state, board, work)

    # ------------------------------------------------------------------------------------ assigning

    def place(self) -> None:
        """Give nodes the tasks and actors that they can take, most urgent first."""
        ready = self._work.queue
        full: dict[Shape, None] = {}
        held_back = self._state.held_back
        for level in ready.levels:
            queues = ready.waiting(level)
            if held_back:
                queues = [queue for queue in queues if queue.shape.client not in held_back]
            if not queues:
                continue
            if len(queues) > 1:
                self._place_level(queues, full)
            elif queues[0].shape not in full:
                self._place_queue(queues[0], None, full)
        if ready.count > EMPTY_QUEUES_MAX:
            ready.sweep()
        for shape in full:
            self.starving.note(shape)

    def place_calls(self) -> None:
        """Give nodes the calls of actors that they can take."""
        for node, calls in self._work.actors.turn():
            rows = self._state.out.assigns.setdefault(node.id, [])
            for record in calls:
                if record.kind.number not in node.kinds:
                    self._kinds.prepare(node, record.kind)
                rows.append(self._assign(record, record.kind, node))

    def _place_level(self, queues: list[ShapeQueue], full: dict[Shape, None]) -> None:
        """Place the tasks of one level in the order they came, passing over full shapes."""
        heap = []
        for number, queue in enumerate(queues):
            if queue.shape not in full:
                heap.append((queue.head().order, number, queue))
        heapify(heap)
        while heap:
            _, number, queue = heap[0]
            # The first goes on until another is older.
            until_order = min((entry[0] for entry in heap[1:3]), default=None)
            self._place_queue(queue, until_order, full)
            if queue.shape in full or not queue.size:
                heappop(heap)
            else:
                heapreplace(heap, (queue.head().order, number, queue))

    def _place_queue(
        self, queue: ShapeQueue, until_order: int | None, full: dict[Shape, None]
    ) -> None:
        ready, assigns = self._work.queue, self._state.out.assigns
        while queue.size:
            record = queue.head()
            if until_order is not None and record.order > until_order:
                return
            kind = record.kind
            chosen = self._near(record) if self._objects.remotes else None
            chosen = chosen or self._board.choose(kind)
            if chosen is None:
                full[queue.shape] = None
                return
            node, count = chosen
            if kind.number not in node.kinds:
                self._kinds.prepare(node, kind)
            node.progress_s = self._state.now_s
            rows = assigns.get(node.id)
            if rows is None:
                rows = assigns[node.id] = []
            while True:
                queue.pop()
                ready.size -= 1
                rows.append(self._assign(record, kind, node))
                count -= 1
                if not count or not queue.size:
                    break
                record = queue.head()
                if record.kind is not kind or (self._objects.remotes and record.row.deps):
                    break
                if until_order is not None and record.order > until_order:
                    break
            self._board.touch(node)

    def _near(self, record: TaskRecord) -> tuple[Node, int] | None:
        if not record.row.deps:
            return None
        values = self._objects.values_for(record)
        node = nearest(record, values, self._state.nodes, self._board)
        return None if node is None else (node, 1)

    def _assign(self, record: TaskRecord, kind: Kind, node: Node) -> AssignRow:
        state, row = self._state, record.row
        # As `move` would: a queue yields nothing but what is queued.
        record.state = NEXT[QUEUED][ASSIGN]
        record.assigned_s = state.now_s
        expected_s = kind.average_s
        # One whose duration nobody knows fills a slot's window.
        record.expected_s = expected_s if expected_s >= 0 else state.settings.window_s
        node.take(record)
        if kind.creates is not None:
            state.hosts.fences.over(record.id)
            again = self._checkpoints.assigned(node, record)
            if again is not None:
                return again
        args = row.args
        size = row.size
        if args is not None and len(args) > self._inline_bytes_max:
            state.out.blob(node.id, row.id + ARGS, args)
            size = len(args)
            args = None
        values: tuple[ValueRow, ...] = ()
        if row.deps:
            packed = state.out.packed
            values = tuple(packed(node.id, value) for value in self._objects.values_for(record))
        if row.contained:
            state.out.contain(node.id, row.contained)
        return AssignRow(
            row.id, record.attempt, kind.number, record.order, record.depth, expected_s, args,
            size, row.contained, values,
            self._work.details.get(row.id) if self._work.details else None,
        )  # fmt: skip

    # ---------------------------------------------------------------------------------------- ended

    def done(self, peer: Peer, message: Done) -> None:
        """Attempts of a node ended."""
        assert peer.node is not None, "only a node that has joined says so"
        self.end(peer.node, message.rows, Arrival(self._deliveries, peer, message.number))

    def end(self, node: Node, rows: list[DoneRow], arrival: Arrival) -> None:
        """Attempts of a node ended; they came in a message that counts as taken in with them."""
        assigned, work, claims = node.assigned, self._work, self._state.claims
        calls, arriving = node.calls, self._checkpoints.arriving
        refused = self._checkpoints.refused
        quick: list[tuple[TaskRecord, ValueRow]] = []
        kinds: dict[Kind, None] = {}
        last_kind: Kind | None = None
        for row in rows:
            record = assigned.get(row.id) or calls.get(row.id)
            if record is None or record.attempt != row.attempt:
                if not claims.size or not claims.ended(node, row, arrival):
                    self._stale(node, row)
                continue
            kind = record.kind
            if kind is not last_kind:
                kinds[kind] = None
                last_kind = kind
            duration_s = row.duration_s
            if duration_s >= 0.0:
                average_s = kind.average_s
                kind.average_s = (
                    duration_s if average_s < 0 else average_s + FRESH * (duration_s - average_s)
                )
            actor = kind.options.actor
            if _is_plain(row, kind) and not (
                actor and ((arriving and actor in arriving) or actor in refused)
            ):
                node.release(record)
                quick.append((record, row.values[0]))
                continue
            work.end_plain(quick)
            quick.clear()
            _check(record, row)
            node.release(record)
            self._ended(node, record, row, arrival)
        work.end_plain(quick)
        arrival.came()
        self._board.touch(node)
        node.progress_s = self._state.now_s
        window_s, tasks_max = self._state.settings.window_s, self._state.settings.window_tasks_max
        for kind in kinds:
            short = 0 <= kind.average_s <= window_s * AHEAD_WINDOWS
            kind.ramp = min(2 * kind.ramp, tasks_max) if short else 1

    def _ended(self, node: Node, record: TaskRecord, row: DoneRow, arrival: Arrival) -> None:
        """An attempt ended; whatever is not simply one small value."""
        move(record, DELIVER)
        record.values = row.values
        large = [value for value in row.values if value.payload is None and value.size]
        # One more than there are, so that those which came early do not end it before its time.
        record.unmet = len(large) + 1
        record.node = node
        node.delivering[record.id] = record
        for value in large:
            arrival.expect()
            taker = partial(self._value_came, record, record.attempt, value, row, arrival)
            node.peer.expect(value.id, taker)
        if self._checkpoints.arriving:
            # What was said after that is taken in after it.
            then = partial(self._go_on, record, record.attempt, row, arrival)
            if self._checkpoints.after(record.kind.options.actor or record.id, node, then):
                record.unmet += 1
                arrival.expect()
        self._deliver(record, row, arrival)

    def _go_on(self, record: TaskRecord, attempt: int, row: DoneRow, arrival: Arrival) -> None:
        if record.state == DELIVERING and record.attempt == attempt:
            self._deliver(record, row, arrival)
        arrival.came()

    def _value_came(
        self,
        record: TaskRecord,
        attempt: int,
        value: ValueRow,
        row: DoneRow,
        arrival: Arrival,
        payload: bytes,
    ) -> None:
        if record.state == DELIVERING and record.attempt == attempt:
            value.payload = payload
        self._go_on(record, attempt, row, arrival)

    def _send_ahead(self, record: TaskRecord, row: DoneRow, arrival: Arrival) -> bool:
        """Send the submitter what lies at the node; return whether there was any."""
        kind, owner = record.kind, record.owner.id
        is_last = record.stopping or kind.is_special or record.attempt > kind.options.max_retries
        if not record.owner.here or ((row.died or row.retry) and not is_last):
            return False
        sent = False
        for value in row.values:
            payload = value.payload
            if isinstance(payload, Remote) and payload.is_with != owner:
                payload.is_with, sent = owner, True
                self._state.out.blob(owner, ahead_key(value.id, record.attempt), payload)
        if sent:
            # It counts once its submitter has it: until then its node's death costs it.
            record.unmet = 1
            arrival.expect()
            then = partial(self._go_on, record, record.attempt, row, arrival)
            self._deliveries.after_reached(owner, then)
        return sent

    def _deliver(self, record: TaskRecord, row: DoneRow, arrival: Arrival) -> None:
        record.unmet -= 1
        node = record.node
        if record.unmet or node is None or self._send_ahead(record, row, arrival):
            return
        del node.delivering[record.id]
        record.node = None
        values = list(row.values)
        if self._checkpoints.refused and not row.died and record.kind.host is not None:
            values = self._checkpoints.told_of(record, values)
        self._state.ended(node, record, row)
        if row.died:
            # Whoever only lost its result took no worker along, and is no poison.
            record.deaths += not row.bystander
            self._work.cancel_children(record)
        work = self._work
        if row.died or row.retry:
            if row.details is not None:
                work.details[row.id] = row.details
            work.retry(record, values[0])
        elif len(values) == 1:
            work.end(record, [work.deadlines.outcome(record, values[0])])
        else:
            work.end(record, values or [ValueRow(id=row.id, outcome=Outcome.VALUE)])

    def drop(self, node: Node, row: DoneRow, arrival: Arrival) -> None:
        """Drop what came of a claim that was given up."""
        self._stale(node, row)
        arrival.came()

    def _stale(self, node: Node, row: DoneRow) -> None:
        """Drop what is not current, with what belongs to it."""
        self._state.counters["stale_dropped"] += 1
        self._work.look_again(self._state.hosts.fences.ended(node.id, TaskId(row.id)))
        for value in row.values:
            if value.payload is None and value.size:
                node.peer.expect(value.id, ignore)

    def blocked(self, node: Node, message: Blocked) -> None:
        """Attempts of a node wait in get(), or go on."""
        for id_, attempt, waits in message.rows:
            record = node.find(id_)
            if record is None or record.attempt != attempt:
                if not self._state.claims.blocked(node, id_, attempt, waits):
                    self._state.counters["stale_dropped"] += 1
                continue
            node.set_blocked(record, waits)
        self._board.touch(node)

    # ---------------------------------------------------------------------------------- taking back

    def taken_back(self, node: Node, message: TakenBack) -> None:
        """A node gives back what it has not started."""
        node.taking_back = False
        node.take_back_after_s = self._state.now_s + self._state.settings.window_s
        work = self._work
        for id_, attempt in message.rows:
            record = node.find(id_)
            if record is None or record.attempt != attempt:
                if not self._state.claims.taken_back(node, id_, attempt):
                    self._state.counters["stale_dropped"] += 1
                    work.look_again(self._state.hosts.fences.ended(node.id, TaskId(id_)))
                continue
            node.release(record)
            if record.stopping or id_ in work.asks.open or work.deadlines.is_over(record):
                text = f"{record.kind.name} was cancelled before it started"
                cancelled = failed(record, "TaskCancelled", text)
                work.end(record, [work.deadlines.outcome(record, cancelled)])
                continue
            work.come_back(record, RETURN)
            self._state.counters["taken_back"] += 1
        self._board.touch(node)

    def take_back(self) -> None:
        """Where one node idles and another has more than it can run, even it out."""
        for node in self._board.overfull():
            if self._asks_back_at_s(node) <= self._state.now_s:
                self._ask_back(node)

    def _ask_back(self, node: Node) -> None:
        for looked_at, record in enumerate(reversed(node.assigned.values())):
            if looked_at >= LOOK_AT:
                break
            unit = record.kind.shape.cpu
            if record.stopping or record.blocked or not unit:
                continue
            idle = self._board.idle(record)
            if idle is None or idle is node:
                continue
            # Evenly over both: the idle one gets its share of what cannot run here now.
            excess = (unit - 1 - node.spare_cpu) // unit
            share = idle.spare_cpu / (idle.spare_cpu + node.cpu)
            node.taking_back = True
            self._state.out.take_back(node.id, max(1, round(excess * share)))
            return

    def _asks_back_at_s(self, node: Node) -> float:
        """Return when a node that has more than it can run may be asked to give some back."""
        if node.taking_back or node.suspect:
            return NEVER_S
        # What is done in a moment is not worth a message, unless it is not done in that moment.
        short = node.work_s * UNITS < self._state.settings.packet_s * max(node.cpu, UNITS)
        pause_s = self._state.settings.window_s if short else 0.0
        return max(node.take_back_after_s, node.progress_s + pause_s)

    def due_s(self) -> float | None:
        """Return when taking back or complaining has something to do."""
        several = self._board.several
        starving = self.starving.shapes or self.starving.kept_out
        if not starving and not (several and self._board.may_be_overfull):
            return None
        dues = list(self.starving.dues_s())
        evens_out = not self._work.queue.size or self._state.held_back
        if evens_out and several:
            # Those that may be asked already will be when something else changes.
            at_s = [self._asks_back_at_s(node) for node in self._board.overfull()]
            dues += [due_s for due_s in at_s if self._state.now_s < due_s < NEVER_S]
        return min(dues, default=None)

    # ------------------------------------------------------------------------------------ node lost

    def lose(self, node: Node, why: str, until_s: float) -> None:
        """A node is gone with all it had, but actors may act until then: charge each attempt."""
        fences = self._state.hosts.fences
        if until_s:
            self._work.look_again(fences.lost_again(node.id, until_s))
        for record in node.records():
            if record.node is not node:
                continue
            if record.state == DELIVERING:
                del node.delivering[record.id]
                record.node = None
            else:
                node.release(record)
            record.unmet = 0
            self._work.cancel_children(record)
            if record.kind.creates is not None:
                self._work.actors.lost_with_its_node(record)
                if until_s:
                    fences.lost(record.id, node, until_s)
            text = f"node {node.name!r}, which had {record.kind.name}, {why} ({record.which})"
            self._work.retry(record, failed(record, "NodeLost", text, node=node.name))

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        nodes = self._state.nodes.values()
        return {
            "assigned": sum(len(node.assigned) for node in nodes),
            "delivering": sum(len(node.delivering) for node in nodes),
            **self.starving.sizes(),
        }

    def check_invariants(self) -> None:
        """Assert that what starves is known to."""
        self.starving.check_invariants()


def _is_plain(row: DoneRow, kind: Kind) -> bool:
    """Whether an attempt ended with its one value, small and without refs in it."""
    values = row.values
    if len(values) != 1 or row.died or row.retry:
        return False
    value = values[0]
    return (
        value.outcome == 0
        and value.id == row.id
        and kind.is_plain
        and not value.contained
        and (value.payload is not None or not value.size)
    )


def _check(record: TaskRecord, row: DoneRow) -> None:
    """Refuse values that do not belong to the attempt."""
    values, count = row.values, record.kind.options.num_returns
    if len(values) == 1 and values[0].outcome != Outcome.VALUE:
        if values[0].id != row.id or (
            values[0].outcome == Outcome.FAILURE and values[0].failure is None
        ):
            raise PeerError("it reported a failure that is not its task's")
        return
    if row.died or row.retry:
        raise PeerError("it reported an attempt that failed without saying why")
    ids = [ObjectId(value.id) for value in values]
    if ids != (objects_of(record.id, count) if count else []):
        raise PeerError(f"it reported {len(values)} values for a task that returns {count}")
    if any(value.outcome != Outcome.VALUE for value in values):
        raise PeerError("it reported a failure among the values of a task")
