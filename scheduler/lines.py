"""The calls of one actor that no node has: each caller's in the order in which it made them.

Never lets a call overtake an earlier one of the same caller, whatever that one waits for; never
lets one caller wait for another.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from ..protocol.ids import ORDINAL_BYTES, PEER_BYTES
from .tasks import FINISHED, QUEUED, TaskRecord

#: so many calls of one caller go before the next caller has its turn
TURN_CALLS: Final = 64
#: a caller is a process: a client, or a worker of a node
CALLER_BYTES: Final = PEER_BYTES + ORDINAL_BYTES


class Lines:
    """See the module. Calls are in any state before ASSIGNED, or FINISHED until they are met."""

    __slots__ = ("_able", "_lines")

    def __init__(self) -> None:
        #: caller -> its calls, oldest first; never empty
        self._lines: dict[bytes, deque[TaskRecord]] = {}
        #: callers whose first call may go, in the order of their turns
        self._able: dict[bytes, None] = {}

    def __bool__(self) -> bool:
        """Whether any call waits here."""
        return bool(self._lines)

    def __iter__(self) -> Iterator[TaskRecord]:
        """All calls that wait here, caller by caller."""
        for line in self._lines.values():
            for record in line:
                if record.state != FINISHED:
                    yield record

    @property
    def able(self) -> bool:
        """Whether some call may go."""
        return bool(self._able)

    def push(self, record: TaskRecord) -> None:
        """Add a new call, the last of its caller."""
        caller = _caller_of(record)
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = deque()
        line.append(record)
        if line[0] is record and record.state == QUEUED:
            self._able[caller] = None

    def put_back(self, record: TaskRecord) -> None:
        """Add a call that was at a node: it stands before all that its caller made later."""
        caller, order = _caller_of(record), record.order
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = deque()
        if not line or order < line[0].order:
            line.appendleft(record)
        else:
            place = next((n for n, other in enumerate(line) if other.order > order), len(line))
            line.insert(place, record)
        self._look(caller, line)

    def changed(self, record: TaskRecord) -> None:
        """A call's state is another than it was: it may go now, must wait, or has its outcome."""
        caller = _caller_of(record)
        line = self._lines.get(caller)
        if line is not None and (line[0] is record or line[0].state == FINISHED):
            self._look(caller, line)

    def remove(self, record: TaskRecord) -> None:
        """Take out a call that turned out to be at a node."""
        caller = _caller_of(record)
        line = self._lines.get(caller)
        if line is not None:
            line.remove(record)
            self._look(caller, line)

    def take(self, count: int) -> list[TaskRecord]:
        """Take out up to so many calls that may go, a few of each caller in turn."""
        taken: list[TaskRecord] = []
        able, lines = self._able, self._lines
        while able and len(taken) < count:
            caller = next(iter(able))
            del able[caller]
            line = lines[caller]
            for _ in range(min(TURN_CALLS, count - len(taken))):
                taken.append(line.popleft())
                if not line or line[0].state != QUEUED:
                    break
            self._look(caller, line)
        return taken

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"lines": len(self._lines), "lines_able": len(self._able)}

    def check_invariants(self) -> None:
        """Assert that those may go of whom it is said."""
        for caller, line in self._lines.items():
            assert line, caller.hex()
            assert line[0].state != FINISHED, caller.hex()
            assert (line[0].state == QUEUED) == (caller in self._able), caller.hex()
            orders = [record.order for record in line if record.state != FINISHED]
            assert orders == sorted(orders), caller.hex()
            assert all(_caller_of(record) == caller for record in line)
        assert all(caller in self._lines for caller in self._able)

    def _look(self, caller: bytes, line: deque[TaskRecord]) -> None:
        """See who is first now, and whether that one may go."""
        while line and line[0].state == FINISHED:
            line.popleft()
        if not line:
            del self._lines[caller]
            self._able.pop(caller, None)
        elif line[0].state == QUEUED:
            self._able.setdefault(caller)
        else:
            self._able.pop(caller, None)


def _caller_of(record: TaskRecord) -> bytes:
    return record.row.id[:CALLER_BYTES]
