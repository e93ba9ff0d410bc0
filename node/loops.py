"""Event loops of a task's main thread lend its CPUs while they sleep and values are awaited.

Never wakes a loop before its CPUs are the task's own again, and does nothing in other threads. A
loop that is not made by the event loop policy, or that awaits something else, lends nothing.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from selectors import DefaultSelector, SelectorKey
from typing import TYPE_CHECKING
from weakref import ref

from ..protocol.ids import ObjectId
from .packets import Answered

if TYPE_CHECKING:
    from .nested import WorkerSession

Ready = list[tuple[SelectorKey, int]]


class LendingSelector(DefaultSelector):
    """Waits for descriptors; lends meanwhile what the task holds.

    Args:
        session: of this process.
    """

    def __init__(self, session: "WorkerSession") -> None:
        super().__init__()
        self._session = session
        self.loop: Callable[[], asyncio.AbstractEventLoop | None] = lambda: None

    def select(self, timeout: float | None = None) -> Ready:
        """Wait until something is ready; see the module."""
        if timeout is not None and timeout <= 0.0:
            return super().select(timeout)
        loop = self.loop()
        # Not at the top: that module may be the one whose import of asyncio has brought us here.
        from ..protocol.futures import awaited_in

        awaited = None if loop is None else awaited_in(loop)
        if loop is None or awaited is None or not self._session.in_main_thread():
            return super().select(timeout)
        return super().select(0) or self._lend(loop, awaited, partial(super().select, timeout))

    def _lend(
        self, loop: asyncio.AbstractEventLoop, awaited: ObjectId, select: Callable[[], Ready]
    ) -> Ready:
        def over(answer: Answered) -> None:
            if answer.error:
                loop.call_soon_threadsafe(_nothing)  # nothing else would wake it

        return self._session.lend_during(select, awaited, over)


class Policy(asyncio.DefaultEventLoopPolicy):
    """Makes loops that lend.

    Args:
        session: of this process.
    """

    def __init__(self, session: "WorkerSession") -> None:
        super().__init__()
        self._session = session

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """Return a loop of the task's."""
        selector = LendingSelector(self._session)
        loop = asyncio.SelectorEventLoop(selector)
        selector.loop = ref(loop)
        return loop


def set_policy(session: "WorkerSession") -> None:
    """Have the loops that are made from now on lend.

    Args:
        session: of this process.
    """
    asyncio.set_event_loop_policy(Policy(session))


def _nothing() -> None:
    """Wake a loop."""
