"""The limits that the scheduler watches: how long a call may wait, and take in all.

Never looks at what a call does: `timeout` and the like are its node's. Never cuts short for time
in which this scheduler itself was away. What is at no node ends here; of what is at one, the node
is told, and its word counts: a value that it had already is a value.

    queue_timeout   from when nothing is lacking but its turn, until an attempt has begun
    total_timeout   from the submission (after a restart of the scheduler: from when it was named
                    again) to the outcome, over all attempts
"""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

from ..protocol.ids import TaskId, show
from ..protocol.limits import CANCELLED, TIMED_OUT
from ..protocol.messages import Failure, Outcome, StopMode, ValueRow
from .asks import Asks, has_begun
from .chronicle import WARNING
from .epitaphs import unavailable
from .state import State
from .tasks import (
    ASSIGNED,
    BACKOFF,
    DELIVERING,
    FINISHED,
    FROM_BEFORE,
    QUEUED,
    WAITING,
    TaskRecord,
    failed,
)

NEVER_S: Final = float("inf")
QUEUE: Final = "queue_timeout"
TOTAL: Final = "total_timeout"
#: what a node calls an actor whose event loop does not come round
_LOOP_BLOCKED: Final = "loop-blocked"
#: of an entry: which of the two
_LIMITS: Final = (QUEUE, TOTAL)


class Deadlines:
    """See the module.

    Args:
        state: shared.
        asks: who waits to hear whether a task had started when it was to be cancelled.
        end: gives a task that is at no node its outcome.
    """

    __slots__ = ("_asks", "_away_s", "_end", "_heap", "_state", "kept", "told", "watched")

    def __init__(
        self, state: State, asks: Asks, end: Callable[[TaskRecord, list[ValueRow]], None]
    ) -> None:
        self._state = state
        self._asks = asks
        self._end = end
        #: tasks with such a limit; True: the time in the queue counts
        self.watched: dict[bytes, bool] = {}
        #: those whose time is over, as their nodes have been told, with the limit
        self.told: dict[bytes, str] = {}
        #: those that a node had ended, of which an earlier attempt was found at another one
        self.kept: dict[bytes, ValueRow] = {}
        #: (when by our clock, order, which, task); some are of tasks that have ended
        self._heap: list[tuple[float, int, int, TaskRecord]] = []
        #: how long this scheduler was away: its clock here stood still
        self._away_s = 0.0

    # --------------------------------------------------------------------------------- on their way

    def submitted(self, record: TaskRecord) -> None:
        """A task with such a limit is new here."""
        limits = record.kind.limits
        self.watched[record.row.id] = False
        if limits.total_timeout_s:
            self._add(limits.total_timeout_s, 1, record)

    def queued(self, record: TaskRecord) -> None:
        """A task lacks nothing but its turn; said again when it comes back from somewhere."""
        limit_s, id_ = record.kind.limits.queue_timeout_s, record.row.id
        if limit_s and not self.watched[id_]:
            self.watched[id_] = True
            self._add(limit_s, 0, record)

    def _add(self, limit_s: float, which: int, record: TaskRecord) -> None:
        heappush(self._heap, (self._clock_s() + limit_s, record.order, which, record))

    def _clock_s(self) -> float:
        return self._state.now_s - self._away_s

    def ended(self, id_: bytes) -> None:
        """A task has its outcome."""
        self.kept.pop(id_, None)
        if self.watched.pop(id_, None) is None:
            return
        self.told.pop(id_, None)
        if not self.watched:
            self._heap = []
        # Each has two entries at most.
        elif len(self._heap) > 64 + 4 * len(self.watched):
            self._heap = [entry for entry in self._heap if entry[3].state != FINISHED]
            heapify(self._heap)

    def was_late(self, late_s: float) -> None:
        """The scheduler was away: what came meanwhile may not have been heard yet."""
        self._away_s += late_s

    # ------------------------------------------------------------------------------------- the time

    def due_s(self) -> float:
        """Return when `turn` has something to do."""
        return self._heap[0][0] + self._away_s if self._heap else NEVER_S

    def turn(self) -> None:
        """See to those whose time is over."""
        clock_s = self._clock_s()
        # Each end may tidy the heap.
        while self._heap and self._heap[0][0] <= clock_s:
            _, _, which, record = heappop(self._heap)
            if record.state != FINISHED:
                self._over(record, _LIMITS[which])

    def _over(self, record: TaskRecord, limit: str) -> None:
        if limit == QUEUE and not self._may_be_unstarted(record):
            return
        if record.state in (WAITING, QUEUED, BACKOFF):
            # Where one who is not back may yet start it, its end is kept, not told.
            self.told[record.row.id] = limit
            text = f"{record.kind.name} {show(record.id)} had not ended within its {limit}"
            self._state.tell(text, "timed out", WARNING, task=record.id)
            row = self._row(record, limit)
            if limit == QUEUE and not self._state.claims.open:
                row = unavailable(record, row)
            self._end(record, [row])
        elif not record.stopping:
            self._stop(record, limit)

    def _may_be_unstarted(self, record: TaskRecord) -> bool:
        """Whether no attempt has begun, as far as it is known here."""
        node, id_ = record.node, record.row.id
        if record.attempt > 1 or record.blocked or record.state == DELIVERING:
            return False
        return node is None or not has_begun(node, id_)

    def _stop(self, record: TaskRecord, limit: str) -> None:
        """A task is at its node, or its value is on the way from there."""
        node, mode = record.node, StopMode.SOFT
        self.told[record.row.id] = limit
        if limit == QUEUE:
            mode = StopMode.UNSTARTED
        else:
            record.stopping = True  # it has no further attempt
        if record.state == ASSIGNED and node is not None:
            self._state.out.stop(node.id, record.id, record.attempt, mode, TIMED_OUT)

    def reason(self, record: TaskRecord) -> str:
        """Return why a task is to end that was found at a node after all."""
        return TIMED_OUT if record.row.id in self.told else CANCELLED

    # -------------------------------------------------------------------------------------- the end

    def is_over(self, record: TaskRecord) -> bool:
        """Whether a task that its node gives back has been there for too long."""
        return record.row.id in self.told

    def keep(self, record: TaskRecord, row: ValueRow) -> None:
        """A task that had come to this end is found at a node, and told to end there, too."""
        failure, id_ = row.failure, record.row.id
        if failure is not None and failure.error == "TaskTimedOut" and id_ not in self.told:
            self.kept[id_] = row

    def begins_anew(self, record: TaskRecord) -> None:
        """An attempt is lost, and another one follows: it had begun, or nobody knows."""
        self.told.pop(record.row.id, None)

    def outcome(self, record: TaskRecord, row: ValueRow) -> ValueRow:
        """Return what a task ends as, given what came of its last attempt."""
        limit, failure = self.told.get(record.row.id), row.failure
        if failure is None or row.outcome != Outcome.FAILURE:
            return row
        if self.kept and record.row.id in self.kept:
            return self.kept[record.row.id]
        if not record.kind.is_timed:
            return row
        if limit is None:
            limit = self._of_before(record, failure)
        if limit is None:
            return row
        if limit == QUEUE and (record.stopping or failure.error != "TaskCancelled"):
            return row  # it had begun, or somebody cancelled it as well
        if failure.error == "TaskTimedOut":
            return row  # its node has seen more of it
        made = self._row(record, limit)
        if failure.error != "TaskCancelled" and made.failure is not None:
            made.failure.text += f"; {failure.text}"
            made.failure.details = {**failure.details, **made.failure.details}
        return made

    def _of_before(self, record: TaskRecord, failure: Failure) -> str | None:
        """Return the limit for which an earlier life of the scheduler had a task dropped."""
        is_asked = record.row.id in self._asks.open  # to be dropped, if it has not started
        is_from_before = record.assigned_s == FROM_BEFORE and not record.stopping
        if failure.error != "TaskCancelled" or not is_from_before or is_asked:
            return None
        return QUEUE if record.kind.limits.queue_timeout_s else TOTAL

    def stopped(self, record: TaskRecord, last: ValueRow) -> ValueRow:
        """Return the outcome of a task that was to end, whose last attempt came to this."""
        if last.outcome != Outcome.FAILURE:
            return last
        last = self.outcome(record, last)
        if last.failure is not None and last.failure.error == "TaskTimedOut":
            return last
        return failed(record, "TaskCancelled", f"{record.kind.name} was cancelled")

    def _row(self, record: TaskRecord, limit: str) -> ValueRow:
        limits, kind = record.kind.limits, record.kind
        limit_s = limits.queue_timeout_s if limit == QUEUE else limits.total_timeout_s
        did = "did not start" if limit == QUEUE else "had no outcome"
        attempts = kind.options.max_retries + 1
        waits = _waits_for(record) + self._kept_from_it(record)
        text = f"{kind.name} {did} within its {limit} of {limit_s:g} s ({record.which})"
        row = failed(record, "TaskTimedOut", text)
        assert row.failure is not None
        row.failure.details |= {
            "verdict": f"deadline: it {waits}",
            "evidence": f"it {waits}",
            "elapsed_s": round(self._state.now_s - record.submitted_s, 3),
            "limit": limit,
            "limit_s": limit_s,
            "attempts": attempts,
        }
        return row

    def _kept_from_it(self, record: TaskRecord) -> str:
        """Return why a call that lies at its actor did not get its turn, as far as that is seen."""
        host = record.kind.host
        if host is None or host.record is None or host.record.node is None:
            return ""
        for row in host.record.node.running:
            other = self._state.find(TaskId(row.id)) if row.verdict == _LOOP_BLOCKED else None
            if other is not None and other.kind.host is host:
                return f"; {row.verdict}: {row.evidence}"
        return ""

    # --------------------------------------------------------------------------------------- inside

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "deadlines": len(self.watched),
            "deadlines_told": len(self.told),
            "deadlines_kept": len(self.kept),
            "deadline_heap": max(0, len(self._heap) - 64),
        }


def _waits_for(record: TaskRecord) -> str:
    """Return what a task was waiting for, in words."""
    if record.state == WAITING:
        return "waited for its arguments"
    if record.state == QUEUED and record.kind.host is not None:
        return "waited for its turn at the actor"
    if record.state == QUEUED:
        return f"waited for a node with {record.kind.shape.describe()} to spare"
    if record.state == BACKOFF:
        return "was to begin after a pause"
    return "waited at its node for its turn" if record.assigned_s >= 0.0 else "was at a node"
