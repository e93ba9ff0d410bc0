"""A task's way through the scheduler: submitted, placed, ended, tried again, cancelled.

Never judges who is alive, and opens no payload. Every way ends in `end`: one outcome a task, told
to its submitter and to all who wait for its values.
"""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from ..protocol.ids import NO_TASK, PeerId, TaskId
from ..protocol.messages import Outcome, StopMode, ValueRow
from . import pauses
from .actors import Actors
from .asks import Asks
from .deadlines import Deadlines
from .deliveries import Deliveries
from .kinds import Kinds
from .objects import Objects
from .placement import Board, ReadyQueue
from .state import Peer, State
from .tasks import (
    ASSIGNED,
    BACKOFF,
    CUT_SHORT,
    DELIVERING,
    END,
    FINISHED,
    LACK,
    NEXT,
    QUEUED,
    READY,
    RETRY,
    RETURN,
    WAITING,
    Condemned,
    TaskRecord,
    dependency_failed,
    failed,
    move,
    poisoned,
    stop_mode,
)

#: blob key of a task's arguments: its id and this
ARGS: Final = b"a"


class Work:
    """All tasks without an outcome."""

    __slots__ = (
        "_board", "_ending", "_ending_now", "_kinds", "_objects", "_state", "actors", "asks",
        "backing_off", "backoffs", "children", "condemned", "condemns", "deadlines", "deliveries",
        "details", "elsewhere", "parked", "queue", "untold",
    )  # fmt: skip

    def __init__(
        self,
        state: State,
        board: Board,
        kinds: Kinds,
        objects: Objects,
        deliveries: Deliveries,
    ) -> None:
        self._state = state
        self.deliveries = deliveries
        self._board = board
        self._kinds = kinds
        self._objects = objects
        self.queue = ReadyQueue()
        self.asks = Asks(state.out)
        self.actors = Actors(state, objects, self.end)
        self.deadlines = Deadlines(state, self.asks, self.end)
        #: what earlier attempts told last of how far they were, pickled
        self.details: dict[bytes, bytes] = {}
        #: tasks of running tasks, by their parent
        self.children: dict[bytes, dict[bytes, TaskRecord]] = {}
        #: tasks that wait to be tried again, with the time they are due
        self.backing_off: dict[bytes, float] = {}
        #: heap of them; `wake` has something to do when its first is due
        self.backoffs: list[tuple[float, int, TaskRecord]] = []
        #: of those, with its number, the attempts that their submitters may not have heard of
        self.untold: dict[bytes, int] = {}
        #: after a restart: tasks that may run somewhere; they wait until that is known
        self.parked: dict[bytes, TaskRecord] = {}
        #: those of which an attempt may yet start at a node that has not come back, charged or not
        self.elsewhere: dict[bytes, None] = {}
        #: of those, the parked ones that were cancelled: whoever waits is told when none can start
        self.condemned: dict[bytes, Condemned] = {}
        #: keeps the end of one of them; set by `Doubts`
        self.condemns: Callable[[TaskRecord, list[ValueRow], bool], bool] = _never
        #: ends that are not told yet: each may cause others, so they are told one after another
        self._ending: deque[tuple[TaskRecord, list[ValueRow]]] = deque()
        self._ending_now = False

    # -------------------------------------------------------------------------------------- waiting

    def code_came(self, record: TaskRecord) -> None:
        """The code of a task's function is whole."""
        self.one_met(record)

    def args_came(self, record: TaskRecord, payload: bytes) -> None:
        """The large arguments of a task are there."""
        if record.state != FINISHED:
            record.row.args = payload
            self.one_met(record)

    def one_met(self, record: TaskRecord) -> None:
        """One of the things that a task waits for is there."""
        # Others are at a node from an earlier life, or were cancelled; see `lacks`.
        if record.state == WAITING:
            record.unmet -= 1
            if not record.unmet:
                self.ready(record)

    def ready(self, record: TaskRecord) -> None:
        """A task waits for nothing any more."""
        begins_s = pauses.begins_s(self._state, self.actors, record)
        if begins_s > self._state.now_s:
            move(record, RETRY)
            self._back_off(record, begins_s)
            return
        move(record, READY)
        self._push(record)

    def _push(self, record: TaskRecord) -> None:
        if record.kind.is_timed:
            self.deadlines.queued(record)
        if record.kind.host is None:
            self.queue.push(record)
        else:
            self.actors.changed(record)

    def come_back(self, record: TaskRecord, step: int) -> None:
        """An attempt is over, and the next one may begin: queue the task if it lacks nothing.

        One that was at its node before the scheduler was restarted may lack what it needs.
        """
        row, unmet = record.row, 0
        if step == RETURN and record.kind.host is not None:
            self.actors.put_back(record)
        if row.deps:
            unmet, bad = self._objects.lacks(record)
            if bad is not None:
                move(record, LACK)
                self.end(record, [dependency_failed(record, bad)])
                return
        unmet += row.size > 0 and row.args is None
        unmet += record.kind.function.payload is None
        move(record, LACK if unmet else step)
        record.unmet = unmet
        if not unmet:
            self._push(record)

    # ---------------------------------------------------------------------------------------- ended

    def end(self, record: TaskRecord, rows: list[ValueRow], *, force: bool = False) -> None:
        """Give a task, which is at no node, its outcome.

        Args:
            record: the task.
            rows: its values with their payloads; one row with the task's id for any other outcome.
            force: it was cancelled by force.
        """
        if self.elsewhere and self.condemns(record, rows, force):
            return
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
        rare = self._objects.entries or self.children or self.asks.open
        if rare or self.deadlines.watched or self.details:
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
        self._leave_state(record)
        move(record, END)
        id_, owner, counters = record.row.id, record.owner, self._state.counters
        del owner.tasks[id_]
        if owner.here:
            told = self._state.out.results.get(owner.id)
            if told is None:
                told = self._state.out.results[owner.id] = []
            told += [self._state.out.packed(owner.id, row) for row in rows]
        first = rows[0]
        if record.kind.is_special:
            self.actors.ended(record, state, first)
        is_cancelled = first.failure is not None and first.failure.error == "TaskCancelled"
        if first.outcome != Outcome.VALUE:
            counters["cancelled" if is_cancelled else "failed"] += 1
        counters["finished"] += 1
        if self.asks.open:
            self.asks.known(id_, is_cancelled)
        if record.parent or self.children:
            self._leave_family(record, first)
        if self._objects.entries:
            self._supply(record, rows)
            if record.row.deps:
                self._objects.release(record)
        self._kinds.unuse(record.kind)
        if record.row.size and record.row.args:
            record.row.args = b""  # lists that are tidied late may name it for long

    def _leave_state(self, record: TaskRecord) -> None:
        """A task is about to have its outcome: nothing about what it was doing is kept."""
        id_ = record.row.id
        if record.state == QUEUED:
            if record.kind.host is None:
                self.queue.discard(record)
        elif record.state == BACKOFF:
            del self.backing_off[id_]
            self.untold.pop(id_, None)
        elif self.parked and self.parked.pop(id_, None) is not None:
            self.condemned.pop(id_, None)
        if record.kind.is_timed or self.deadlines.kept:
            self.deadlines.ended(id_)
        if self.details:
            self.details.pop(id_, None)

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
            # What was cancelled ends when it is known that it starts nowhere, not before.
            if row.outcome == Outcome.VALUE or dependant.id in self.condemned:
                self.one_met(dependant)
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

    # ---------------------------------------------------------------------------------- tried again

    def retry(self, record: TaskRecord, final: ValueRow) -> None:
        """An attempt, which its node has released, is lost: charge it, and try again or end.

        Args:
            record: the task.
            final: its outcome if no attempt is left.
        """
        options, failure = record.kind.options, final.failure
        self.asks.known(record.id, False)  # it may have started
        over = failure is not None and failure.error == "TaskTimedOut" and not record.kind.creates
        if record.stopping or over:
            self.end(record, [self.deadlines.stopped(record, final)])
            return
        self.deadlines.begins_anew(record)
        special = record.kind.is_special
        if (
            not self.actors.goes_on(record, final)
            if special
            else record.attempt > options.max_retries
        ):
            self.end(record, [self._final(record, final)])
            return
        if special:
            due_s = self.actors.due_s(record)
        else:
            due_s = pauses.next_due_s(self._state, record, record.attempt)
        move(record, RETRY)
        record.attempt += 1
        record.values = ()
        if record.kind.host is not None:
            self.actors.put_back(record)
        self._back_off(record, due_s)
        self._state.counters["retried"] += 1
        if record.owner.here:
            owner, attempt = record.owner.id, record.attempt
            self._state.out.retry(owner, record.id, attempt)
            # It starts only when its submitter knows of it: else this scheduler and its node could
            # end together, and nobody would count it.
            self.untold[record.id] = attempt
            self.deliveries.after_reached(owner, partial(self._told, record, attempt))

    def _back_off(self, record: TaskRecord, due_s: float) -> None:
        self.backing_off[record.id] = due_s
        heappush(self.backoffs, (due_s, record.order, record))

    def look_again(self, creations: Iterable[TaskRecord]) -> None:
        """It has changed when the next incarnations of actors may begin, see `Fences`."""
        for record in creations:
            self._back_off(record, self.actors.hosts.fences.begins_s(record))

    def _told(self, record: TaskRecord, attempt: int) -> None:
        """The submitter of a task knows of its next attempt."""
        if self.untold.get(record.id) == attempt:
            del self.untold[record.id]
            due_s = self.backing_off[record.id]
            if due_s <= self._state.now_s:
                heappush(self.backoffs, (due_s, record.order, record))

    def _final(self, record: TaskRecord, last: ValueRow) -> ValueRow:
        """Return the outcome of a task whose attempts are used up."""
        if record.kind.is_special:
            return self.actors.final(record, last)
        record.attempt += 1
        if last.outcome == Outcome.FAILURE and record.deaths >= self._state.settings.poison_deaths:
            return poisoned(record, last)
        return last

    def wake(self) -> None:
        """Queue what is due to be tried again; end what has taken too long."""
        if self.deadlines.due_s() <= self._state.now_s:
            self.deadlines.turn()
        heap, due = self.backoffs, self.backing_off
        while heap and (heap[0][0] <= self._state.now_s or heap[0][2].state != BACKOFF):
            due_s, _, record = heappop(heap)
            if record.state == BACKOFF and due.get(record.id) == due_s:
                if record.id in self.untold:
                    continue  # `_told` brings it back
                del due[record.id]
                self.come_back(record, READY)
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
            if self.parked and id_ in self.parked:
                fresh = False
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

    def cancel_children_at(self, parent: TaskId, owner: PeerId) -> None:
        """An attempt is given up that nobody knows but its node: cancel what came from there."""
        children = self.children.get(parent)
        if children:
            self._cancel_all([child for child in children.values() if child.owner.id == owner])

    def cancel_one(self, record: TaskRecord, force: bool) -> None:
        """Cancel one task: drop it, or have its node stop it."""
        node = record.node
        if record.state == ASSIGNED and node is not None:
            mode = stop_mode(record.kind, force)
            if not record.stopping or mode == StopMode.FORCE:
                record.stopping = True
                self._state.out.stop(node.id, record.id, record.attempt, mode)
        elif record.state == DELIVERING:
            record.stopping = True  # its value counts, if it comes
        elif record.state != FINISHED:
            when = "" if record.id in self.elsewhere else " before it started"
            text = f"{record.kind.name} was cancelled{when}"
            self.end(record, [failed(record, "TaskCancelled", text)], force=force)

    # -------------------------------------------------------------------------------- peers that go

    def forget_client(self, client: Peer) -> None:
        """A client is gone: forget all tasks for it, wherever they were submitted or are."""
        # Clients submit for themselves alone.
        for peer in (client, *[node.peer for node in self._state.nodes.values()]):
            for record in [r for r in peer.tasks.values() if r.kind.client == client.id]:
                self._abandon(record)
        for node in self._state.nodes.values():
            # What is left was submitted by nodes that are gone.
            for record in node.records():
                if record.kind.client == client.id:
                    self._abandon(record)
        self._state.hosts.forget_client(client.id)

    def _abandon(self, record: TaskRecord) -> None:
        """End a task of a client that is gone. Nodes are told of the client, not of each task."""
        if record.state == FINISHED:
            return
        node = record.node
        if node is not None:
            if record.state == ASSIGNED:
                self.asks.known(record.id, False)  # it may have started
                node.release(record)
                self._board.touch(node)
            else:
                del node.delivering[record.id]
                record.node = None
        self.elsewhere.pop(record.id, None)
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
            **self.actors.sizes(),
            "backing_off": len(self.backing_off),
            "backoffs": len(self.backoffs),
            "untold": len(self.untold),
            "children": len(self.children),
            "ending": len(self._ending),
            "parked": len(self.parked),
            "condemned": len(self.condemned),
            # As long as nodes are awaited it is full of what may start there.
            "elsewhere": 0 if self._state.claims.open else len(self.elsewhere),
            "asks": len(self.asks.open),
            "details": len(self.details),
            **self.deadlines.sizes(),
        }


def _never(_record: TaskRecord, _rows: list[ValueRow], _force: bool) -> bool:
    return False
