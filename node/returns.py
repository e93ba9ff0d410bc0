"""What the scheduler wants back: attempts that have not started, the last in line first.

Never gives back one that a worker may yet start: answers wait for the packets that are being read
back from workers' sockets.
"""

from ..protocol.messages import TakeBack, TakenBack
from .dispatch import Dispatch
from .state import NodeState


class Returns:
    """The TakeBacks that are not answered."""

    def __init__(self, state: NodeState, dispatch: Dispatch) -> None:
        self._state = state
        self._dispatch = dispatch
        #: their counts, in order
        self.waiting: list[int] = []

    def take_back(self, message: TakeBack) -> None:
        """The scheduler wants some back; what lies unread in workers' sockets is had back first."""
        short = message.count - self._state.queue.count()
        if short > 0:
            for worker in self._state.workers.values():
                if len(worker.flight) > 1 and not worker.dropped:
                    self._dispatch.take_unread(worker)
                    short -= len(worker.flight) - 1
                    if short <= 0:
                        break
        self.waiting.append(message.count)

    def turn(self) -> None:
        """Answer, unless packets are on their way back."""
        workers = self._state.workers.values()
        if any(worker.taking and not worker.dropped for worker in workers):
            return
        for count in self.waiting:
            rows: list[tuple[bytes, int]] = []
            for attempt in self._state.queue.take_back(count):
                rows.append((attempt.row.id, attempt.row.attempt))
                self._state.forget(attempt)
            self._state.counters["taken_back"] += len(rows)
            self._state.send(TakenBack(rows))
        self.waiting.clear()
