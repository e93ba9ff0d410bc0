"""What a node tells of itself: its beat, and whether anything moves here.

Never guesses whether something will move that has yet to come: it knows of this node alone.
"""

from ..protocol.messages import Beat
from ..protocol.running import RUNNING_ROWS_MAX, RunningRow
from ..protocol.standstill import Looked, WaitRow
from .call_threads import see_threads
from .dispatch import Dispatch
from .events import Measured, Seen
from .handing import beside
from .hangs import Hangs
from .intake import Intake
from .lives import Lives
from .returns import Returns
from .state import NodeState
from .stops import Stops
from .waits import Waits


class Beats:
    """What the scheduler hears of a node though nothing has happened to its tasks."""

    def __init__(
        self,
        state: NodeState,
        waits: Waits,
        lives: Lives,
        dispatch: Dispatch,
        intake: Intake,
        stops: Stops,
        returns: Returns,
        hangs: Hangs,
    ) -> None:
        self._state = state
        self._waits = waits
        self._lives = lives
        self._dispatch = dispatch
        self._intake = intake
        self._stops = stops
        self._returns = returns
        self._hangs = hangs
        #: tasks that the next beat names, however many run for longer
        self.named: dict[bytes, None] = {}
        self.due_s = 0.0
        #: numbers of the scheduler's looks that are to be answered at the end of the turn
        self.asked: list[int] = []
        self._lag_s, self._memory_bytes, self._cpu = 0.0, 0, -1.0

    def measured(self, event: Measured) -> None:
        """The shell has looked at itself."""
        self._lag_s = max(self._lag_s, event.lag_s)
        self._memory_bytes, self._cpu = event.memory_bytes, event.cpu

    def seen(self, event: Seen, now_s: float) -> None:
        """Workers were looked at: news of what runs is told at once."""
        news = False
        for row in event.rows:
            worker = self._state.workers.get(row.worker)
            if row.calls and worker is not None and worker.actor is not None:
                news |= see_threads(worker.actor, row, now_s)
        if self._hangs.seen(event, now_s) or news:
            self.soon(now_s)

    def soon(self, at_s: float) -> None:
        """Have the next beat go then, once there is a connection."""
        self.due_s = at_s
        self._state.due_by(at_s)

    def beat(self, now_s: float) -> None:
        """Tell that this node lives, and what it does."""
        workers = self._state.workers.values()
        running: list[RunningRow] = []
        for worker in workers:
            if worker.is_busy or worker.asked:
                running += beside(worker, self._hangs.row(worker, now_s), now_s)
        if len(running) > RUNNING_ROWS_MAX:
            running.sort(key=lambda row: (row.id not in self.named, -row.elapsed_s))
            del running[RUNNING_ROWS_MAX:]
        self.named.clear()
        blocked, still = len(self._waits.lenders), self.is_still()
        self._state.send(
            Beat(self._lag_s, len(workers), blocked, running, self._memory_bytes, still, self._cpu)
        )
        self._lag_s = 0.0
        self.soon(now_s + self._state.settings.heartbeat_interval_s)

    def answer(self) -> None:
        """Answer the scheduler's looks, after all else that this turn has to say."""
        numbers, self.asked = self.asked, []
        still = self.is_still()
        waits = self._rows() if still else []
        for number in numbers:
            self._state.send(Looked(number, still, waits))

    def is_still(self) -> bool:
        """Return whether nothing here moves by itself, once a turn has handed out what it could.

        What is queued could not start in that turn, for whatever reason, and so cannot in the next.
        """
        if (
            self._lives.starting
            or self._lives.exiting
            or self._intake.is_receiving
            or self._returns.waiting
            or self._stops.count()
            or self._waits.regaining
            or not self._dispatch.rests
        ):
            return False
        for worker in self._state.workers.values():
            # One that ends after what it runs may wait in that for ever, as any other.
            if worker.dropped or (worker.exiting and not worker.flight):
                return False
            if worker.taking or worker.reading:
                return False
            # Calls behind the one that waits have to wait for it, whatever there is room for.
            wait, alone = worker.main, len(worker.flight) <= 1 or worker.is_up
            if worker.is_busy and (
                not alone or wait is None or wait.over or wait.deadline_s is not None
            ):
                return False
            if wait is not None and wait.stream:
                return False  # whoever reads may be outside of the cluster
        return True

    def _rows(self) -> list[WaitRow]:
        # For a call its actor's creation, whose CPUs it lends or keeps. Idle actors do not wait.
        return [
            WaitRow(attempt.row.id, attempt.row.attempt, bool(worker.lent))
            for worker in self._state.workers.values()
            if worker.is_busy
            for attempt in worker.flight.values()
        ]
