"""Ends the call that uses the most memory before the kernel kills whatever it likes.

Never on one piece of evidence: little has to be left at two measurements, one after the other, and
one worker alone has to use much of all there is. Where the pressure comes from elsewhere, nobody
here is ended for it.
"""

from collections.abc import Callable
from typing import Final

from .attempts import KILLED, SENT, Attempt, Worker
from .cases import MEMORY, Case, size
from .events import PROCESS, LookAt, Measured, Seen
from .state import NodeState

#: who uses less of the machine's memory than this is not what it lacks
MUCH_SHARE: Final = 0.1


class Pressure:
    """What is left of the memory that this node may use.

    Args:
        state: shared.
        judged: told (worker, attempt, case, now_s) of who is to end.
        runs_away: told (worker, attempt, now_s) of who is to end at once.
    """

    def __init__(
        self,
        state: NodeState,
        judged: Callable[[Worker, Attempt, Case, float], None],
        runs_away: Callable[[Worker, Attempt, float], None],
    ) -> None:
        self._state = state
        self._judged = judged
        self._runs_away = runs_away
        self._was_low = False
        #: (free, of so much) of the measurement that asked for a look at all; None: none did
        self._asked: tuple[int, int] | None = None
        #: who is on the way down for this
        self._ending: tuple[Worker, Attempt] | None = None

    def measured(self, event: Measured, now_s: float) -> None:
        """The shell has looked at what is left."""
        free_bytes, total_bytes = event.free_bytes, event.total_bytes
        is_low = free_bytes < self._state.settings.memory_low_share * total_bytes
        was_low, self._was_low = self._was_low, is_low
        if not is_low or not was_low:
            return
        if self._ending is not None:
            worker, attempt = self._ending
            if attempt.state == SENT and attempt.stop < KILLED:
                self._runs_away(worker, attempt, now_s)  # it was asked to end, and has not
            if attempt.state == SENT:
                return
            self._ending = None
        workers = self._state.workers.values()
        busy = [worker.number for worker in workers if worker.is_busy and not worker.dropped]
        if busy:
            self._asked = free_bytes, total_bytes
            self._state.commands.append(LookAt([(number, PROCESS) for number in busy]))

    def seen(self, event: Seen, now_s: float) -> None:
        """Workers were looked at, perhaps because memory is low."""
        if self._asked is None:
            return
        (free_bytes, total_bytes), self._asked = self._asked, None
        row = max(event.rows, key=lambda row: row.memory_bytes, default=None)
        if row is None or row.memory_bytes < MUCH_SHARE * total_bytes:
            self._state.note(now_s, f"memory is low ({size(free_bytes)}), and no worker is why")
            return
        worker = self._state.workers.get(row.worker)
        attempt = None if worker is None else worker.rows().get(row.running)
        if worker is None or attempt is None or attempt.state != SENT:
            return
        left = f"when its node had {size(free_bytes)} of {size(total_bytes)} left,"
        offence = f"used {size(row.memory_bytes)}, the most of all, {left}"
        case = Case(MEMORY, offence, limit="memory_low_share", elapsed_s=row.elapsed_s)
        case.peak_bytes = row.memory_bytes
        self._ending = worker, attempt
        self._judged(worker, attempt, case, now_s)

    def clear(self) -> None:
        """Forget all: the link's life is over."""
        self._asked = self._ending = None
        self._was_low = False
