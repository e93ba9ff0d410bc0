"""What comes back of tasks: each value is kept, and what its task had held is let go.

Never decides what is sent: it owns what is unfinished, which the core asks about.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from ..protocol import messages
from ..protocol.ids import TASK_BYTES, ObjectId, TaskId, objects_of, show, task_of
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.parcels import bytes_behind
from .budget import Budget
from .events import Call
from .home import HERE, PENDING, Home
from .kinds import Kinds
from .streams import Streams


class Results:
    """See the module.

    Args:
        home: where values are kept.
        kinds: what was submitted, by number.
        budget: the attempts of what is unfinished.
        cancelled: own unfinished tasks whose cancelling was asked for.
        counters: `stale_dropped` is counted there.
    """

    def __init__(
        self,
        home: Home,
        kinds: Kinds,
        budget: Budget,
        cancelled: dict[TaskId, Any],
        counters: dict[str, int],
    ) -> None:
        self._home = home
        self._kinds = kinds
        self._budget = budget
        self._cancelled = cancelled
        self._counters = counters
        #: submitted, result not yet in hand; in the order of submission
        self.tasks: dict[TaskId, Call] = {}
        #: values still to come of tasks that have several
        self.remaining: dict[TaskId, int] = {}
        #: submitted while there was no link, or beyond the credit; in order
        self.unsent: dict[TaskId, None] = {}
        #: tasks whose results are in hand, and their bytes of arguments; they only rise
        self.finished = 0
        self.finished_bytes = 0
        #: of tasks that yield their values one by one
        self.streams = Streams(home, counters)
        #: and those that lay in memory segments, which the scheduler never had
        self.finished_segment_bytes = 0

    def came(self, message: messages.Results, _now_s: float) -> None:
        """Take results that the scheduler sends."""
        tasks, home, kinds = self.tasks, self._home, self._kinds
        entries, resolved = home.entries, home.resolved
        noted = bool(self._budget.charged or self._budget.latest or self._cancelled)
        for row in message.rows:
            id_ = row.id
            call = tasks.get(id_)  # type: ignore[call-overload]
            payload = row.payload
            if (
                call is None
                or (options := call.options).num_returns != 1
                or row.contained
                or (payload is None and row.size)
                or kinds.dropping
            ):
                self.one_came(row)
                continue
            asked = call.row
            if asked.deps or asked.contained or noted:
                self.one_came(row)
                continue
            if options.actor:
                home.unpin((options.actor,))
            del tasks[id_]  # type: ignore[arg-type]
            self.finished += 1
            if asked.args is not None:
                self.finished_bytes += len(asked.args)
            entry = entries[id_]  # type: ignore[index]
            if entry.refs and not entry.wanted:
                entry.row = row
                entry.state = HERE
                resolved.append(row)
            else:
                home.resolve(ObjectId(id_), entry, row)

    def one_came(self, row: ValueRow) -> None:
        """Take any row, the rare ones too: large, several values, with refs inside, stale."""
        task = task_of(ObjectId(row.id))
        call = self.tasks.get(task)
        entry = self._home.entries.get(ObjectId(row.id))
        of_task = len(row.id) == TASK_BYTES
        if call is not None and call.options.stream_buffer_max and not of_task:
            self.streams.came(task, row)
        elif call is None or (not of_task and (entry is None or entry.state != PENDING)):
            self._counters["stale_dropped"] += 1
            self._home.refuse(row)
        elif self._home.filled(row):
            self._resolve(task, call, row)

    def _resolve(self, task: TaskId, call: Call, row: ValueRow) -> None:
        """Store a complete row, which stands for one value or for a whole task."""
        entries = self._home.entries
        if call.options.stream_buffer_max:
            self.streams.ended(task, row)
            self._finish(task, call)
            return
        if len(row.id) == TASK_BYTES:
            num_returns = call.options.num_returns
            for object_id in objects_of(task, num_returns):
                entry = entries.get(object_id)
                if entry is not None and entry.state == PENDING:
                    same = row if num_returns == 1 else msgspec.structs.replace(row, id=object_id)
                    self._home.resolve(object_id, entry, same)
            if num_returns == 0 and row.contained:
                self._home.refuse(row)
            self._finish(task, call)
            return
        self._home.resolve(ObjectId(row.id), entries[ObjectId(row.id)], row)
        self.remaining[task] -= 1
        if self.remaining[task] == 0:
            self._finish(task, call)

    def _finish(self, task: TaskId, call: Call) -> None:
        row = call.row
        del self.tasks[task]
        self.finished += 1
        self.finished_bytes += len(row.args or b"")
        if row.contained:  # as whatever has its bytes in segments has
            self.finished_segment_bytes += bytes_behind(row.args)
        self.remaining.pop(task, None)
        self.unsent.pop(task, None)
        self._budget.finished(task)
        self._cancelled.pop(task, None)
        self._kinds.finished(row.kind)
        self._home.unpin(row.deps)
        self._home.unpin(row.contained)
        if call.options.actor:
            self._home.unpin((call.options.actor,))
        self._home.ahead.forget(task)

    def fail(self, task: TaskId, error: str, text: str) -> None:
        """Give a task a failure that was decided here."""
        call = self.tasks[task]
        name = self._kinds.name_of(call.row.kind)
        failure = Failure(error, f"{name} ({show(task)}) {text}", {"name": name})
        self._resolve(task, call, ValueRow(task, Outcome.FAILURE, failure=failure))

    def noted(self) -> tuple[Mapping[TaskId, Any], ...]:
        """Return the maps that note something of an unfinished task."""
        budget = self._budget
        return (self.unsent, budget.charged, budget.latest, self._cancelled, self.remaining)
