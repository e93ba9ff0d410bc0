"""What caller threads leave for the core: appended to by any thread, emptied by the loop.

Never looks at what lies in it.
"""

from collections import deque
from typing import Any

from ..protocol.ids import ObjectId, TaskId
from . import events


class Inbox:
    """See the module."""

    __slots__ = (
        "asked", "awaited", "calls", "cancels", "kinds", "kinds_dropped", "pins", "reads", "refs",
    )  # fmt: skip

    def __init__(self) -> None:
        #: Calls and puts (ValueRows), in order
        self.calls: deque[Any] = deque()
        self.kinds: deque[Any] = deque()
        self.refs: deque[tuple[ObjectId, int]] = deque()
        self.pins: deque[ObjectId] = deque()
        self.awaited: deque[list[ObjectId]] = deque()
        self.cancels: deque[events.CancelAsked] = deque()
        self.asked: deque[events.Asked] = deque()
        self.kinds_dropped: deque[int] = deque()
        #: see events.ItemsRead
        self.reads: deque[tuple[TaskId, int, bool]] = deque()

    def waits(self) -> bool:
        """Say whether there is anything to do."""
        return bool(
            self.calls
            or self.refs
            or self.awaited
            or self.cancels
            or self.asked
            or self.pins
            or self.kinds_dropped
            or self.reads
        )


def taken(some: deque[Any]) -> list[Any]:
    """Return what lies in a deque that other threads append to, and remove that."""
    count = len(some)
    if count == 1:
        return [some.popleft()]
    take = some.popleft
    return [take() for _ in range(count)]
