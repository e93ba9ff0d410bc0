"""Room for what is submitted: a bound on unfinished tasks, and on their arguments' bytes.

Never submits: whoever does asks here first, and waits where there is no room.
"""

import logging
import sys
from collections.abc import Callable
from typing import Final

from ..protocol.errors import Backpressure, ClusterError
from ..protocol.settings import Settings
from .board import Board, ConditionWaiter
from .results import Results
from .service import Service

#: how often a blocked .remote() says so
ROOM_NOTICE_S: Final = 10.0

#: how long is waited at most until what has gone is known to have gone
SETTLE_S: Final = 1.0

log = logging.getLogger("drumbeat")


class Room:
    """See the module.

    Args:
        settings: say how much.
        results: count what is finished.
        board: where a thread waits.
        service: whose loop it may turn meanwhile.
        is_open: whether the session goes on.
    """

    __slots__ = (
        "_board", "_bytes_max", "_is_open", "_results", "_service", "_tasks_max", "bytes", "tasks"
    )  # fmt: skip

    def __init__(
        self,
        settings: Settings,
        results: Results,
        board: Board,
        service: Service,
        is_open: Callable[[], bool],
    ) -> None:
        self._tasks_max = settings.submit_buffer_max
        self._bytes_max = settings.submit_buffer_bytes_max
        self._results = results
        self._board = board
        self._service = service
        self._is_open = is_open
        #: submitted so far, and their bytes of arguments; guarded by the session's lock
        self.tasks = 0
        self.bytes = 0

    def unfinished(self) -> int:
        """Return how many tasks have no result yet."""
        return self.tasks - self._results.finished

    def take(self, size: int) -> bool:
        """Count a task more, if there is room for it."""
        if not self.has(size):
            return False
        self.tasks += 1
        self.bytes += size
        return True

    def has(self, size: int) -> bool:
        """Say whether there is room for one task more, with arguments of this size."""
        results = self._results
        waiting = self.bytes + size - results.finished_bytes - results.finished_segment_bytes
        # One that is larger than all there may be goes when nothing else is on its way.
        return self.tasks - results.finished < self._tasks_max and (
            waiting <= self._bytes_max or waiting <= size
        )

    def wait_for(self, size: int) -> None:
        """Wait until there is room, or the session has ended.

        Raises:
            Backpressure: there is none, and the caller is an event loop.
        """
        if self.has(size):
            return
        text = (
            f"{self.unfinished():,} tasks are unfinished and submit_buffer_max is "
            f"{self._tasks_max:,} (submit_buffer_bytes_max {self._bytes_max:,})"
        )
        if self._in_event_loop():
            raise Backpressure(f"{text}; await some results before you submit more")
        waiter = ConditionWaiter(lambda: not self._is_open() or self.has(size))
        self._board.conditions[waiter] = None
        try:
            if waiter.holds():
                return
            while not self._service.wait(waiter, ROOM_NOTICE_S):
                log.warning("%s: .remote() blocks until some are finished", text)
        finally:
            self._board.conditions.pop(waiter, None)

    def settle(self, holds: Callable[[], bool], patient: bool) -> None:
        """Turn the loop until something holds, or all that lay there has been told.

        Args:
            holds: looked at after each turn.
            patient: wait for what others tell as well; not in an event loop.
        """
        waits = patient and not self._in_event_loop()
        waiter = ConditionWaiter(
            lambda: not self._is_open() or holds() or not (waits or self._service.has_news())
        )
        self._board.conditions[waiter] = None
        try:
            if not waiter.holds() and not self._service.is_current_thread():
                self._service.wait(waiter, SETTLE_S)
        except ClusterError:
            pass  # a finalizer, amid a turn: it will be told after that
        finally:
            self._board.conditions.pop(waiter, None)

    def _in_event_loop(self) -> bool:
        if self._service.is_current_thread():
            return True
        asyncio = sys.modules.get("asyncio")  # not loaded: no loop runs
        return asyncio is not None and asyncio._get_running_loop() is not None
