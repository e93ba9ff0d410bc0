"""Ends cancelled attempts: called back, interrupted, terminated, killed, in that order.

Never harms another attempt: nothing is signalled before the page has shown that the worker runs the
one that is to end, and whatever lay behind it has been taken back. A value that still comes wins.
"""

from ..protocol.messages import StopMode
from .actors import Actors
from .attempts import (
    ASKED,
    INTERRUPTED,
    KILLED,
    NOT_STOPPED,
    SENT,
    TERMINATED,
    Attempt,
    Worker,
)
from .dispatch import Dispatch
from .events import Interrupt, ReadPage, Signal
from .hangs import Verdict
from .packets import FinishedRow
from .state import NodeState

#: the page is read again when it could not tell
LOOK_AGAIN_S = 0.01
#: results of earlier rows come within this time, or the worker cannot send them
RESULTS_LATE_S = 1.0


class Stops:
    """The attempts in workers' hands that are to end."""

    def __init__(self, state: NodeState, dispatch: Dispatch, actors: Actors) -> None:
        self._state = state
        self._dispatch = dispatch
        self._actors = actors
        #: task -> when the next step is due
        self._due: dict[bytes, tuple[Attempt, float]] = {}

    def stop(self, task: bytes, number: int, mode: int, now_s: float) -> bool:
        """The scheduler wants an attempt ended; it is answered in Done, whatever comes of it.

        Returns whether it runs and goes on, because only one unstarted was to be ended.
        """
        state = self._state
        attempt = state.attempts.get(task)
        if attempt is None or attempt.row.attempt != number:
            state.counters["stale_dropped"] += 1
            return False
        if attempt.kind.creates and self._actors.stop(attempt, mode, now_s):
            return False
        if attempt.state != SENT:
            state.cancelled(attempt)
            return False
        worker = state.workers[attempt.worker]
        attempt.drained = attempt.drained and mode == StopMode.UNSTARTED
        if mode == StopMode.UNSTARTED:
            if worker.is_next(attempt):
                return True
            attempt.unwanted = True
            self._dispatch.call_back(worker, attempt.seq)
            return False
        # Killing would end the actor, which is not what is to end.
        force = mode == StopMode.FORCE and not attempt.kind.actor
        if attempt.stop != NOT_STOPPED and (attempt.force or not force):
            return False
        attempt.force = attempt.force or force
        state.note(now_s, f"{attempt.kind.name} is to end in worker {worker.number}")
        if force and len(worker.flight) == 1:
            self._signal(attempt, worker, "KILL", now_s)
            return False
        if attempt.kind.creates and worker.is_up:
            self._signal(attempt, worker, "TERM", now_s)  # there is nothing to interrupt
            return False
        attempt.stop = max(attempt.stop, ASKED)
        self._dispatch.call_back(worker, attempt.seq)
        self._due[task] = (attempt, now_s + LOOK_AGAIN_S)
        return False

    def hung(self, worker: Worker, attempt: Attempt, verdict: Verdict, now_s: float) -> None:
        """An attempt hangs, proven by two bits of evidence: it is to end, as `TaskHung`.

        A call's actor ends with it, as if its process had died: nothing else would end the call.
        """
        is_cancelled = attempt.stop != NOT_STOPPED
        if attempt.state != SENT or (is_cancelled and (attempt.drained or not attempt.kind.actor)):
            return
        attempt.hung = f"{verdict.name}: {verdict.evidence}"
        if is_cancelled:
            # It was to be interrupted, and no more than that; now all steps are taken.
            self._due.setdefault(attempt.row.id, (attempt, now_s))
            return
        attempt.stop = ASKED
        self._state.note(now_s, f"{attempt.kind.name} hangs in worker {worker.number}")
        self._dispatch.call_back(worker, attempt.seq)
        self._due[attempt.row.id] = (attempt, now_s + LOOK_AGAIN_S)

    def has_ended(self, attempt: Attempt, row: FinishedRow) -> bool:
        """Say that an attempt was ended because it hung, if it was; return whether that is told."""
        first = row.values[0] if row.values else None
        failure = None if first is None else first.failure
        if not attempt.hung or failure is None or failure.error != "TaskCancelled":
            return False
        self._state.hung(attempt, row.duration_s)
        return True

    def drain(self, now_s: float) -> None:
        """End whatever has started: this node is drained, and waits no longer."""
        self._actors.drain()
        for attempt in list(self._state.attempts.values()):
            if attempt.state == SENT and attempt.stop == NOT_STOPPED:
                worker = self._state.workers[attempt.worker]
                if attempt.kind.creates and worker.is_up:
                    continue  # it ends with its last call
                attempt.stop, attempt.drained = ASKED, True
                self._dispatch.call_back(worker, attempt.seq)
                self._due[attempt.row.id] = (attempt, now_s + LOOK_AGAIN_S)

    def page_read(self, worker: Worker, now_s: float) -> None:
        """The page has been read, and rows that had not started have left the worker."""
        if worker.reading or not worker.flight:
            return
        for attempt in list(worker.rows().values()):
            if attempt.stop == NOT_STOPPED or attempt.seq > worker.started:
                continue
            if not self._is_alone(worker, attempt, now_s):
                continue
            if attempt.force:
                if attempt.stop != KILLED:
                    self._signal(attempt, worker, "KILL", now_s)
            elif attempt.stop == ASKED:
                attempt.stop = INTERRUPTED
                reason = "drain" if attempt.drained else "hung" if attempt.hung else "cancelled"
                self._state.commands.append(Interrupt(worker.number, attempt.seq, reason))
                grace_s = self._state.settings.cancel_grace_s
                self._due[attempt.row.id] = (attempt, now_s + grace_s)
                if attempt.kind.actor and not (attempt.drained or attempt.hung):
                    del self._due[attempt.row.id]  # the next step would end the actor

    def turn(self, now_s: float) -> None:
        """Take the next step where one is due."""
        if not self._due:
            return
        for task, (attempt, due_s) in list(self._due.items()):
            if attempt.state != SENT:
                del self._due[task]
            elif now_s >= due_s:
                self._step(attempt, now_s)

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        return min(due_s for _, due_s in self._due.values()) if self._due else None

    def count(self) -> int:
        """Return how many attempts are on the ladder."""
        return sum(attempt.state == SENT for attempt, _ in self._due.values())

    def clear(self) -> None:
        """Forget all: the link's life is over."""
        self._due.clear()

    @staticmethod
    def _is_alone(worker: Worker, attempt: Attempt, now_s: float) -> bool:
        """Return whether no result of an earlier row is to be waited for.

        Who is stuck with the GIL cannot send what it has: after a while that is lost with it. Rows
        that may not run again are never among those; their results are sent before the next starts.
        """
        if worker.is_next(attempt):
            return True
        return worker.started == attempt.seq and now_s >= worker.since_s + RESULTS_LATE_S

    def _step(self, attempt: Attempt, now_s: float) -> None:
        worker = self._state.workers[attempt.worker]
        made = attempt.kind.creates and worker.is_up
        if attempt.stop == TERMINATED:
            self._signal(attempt, worker, "KILL", now_s)
        elif made or (attempt.stop == INTERRUPTED and self._is_alone(worker, attempt, now_s)):
            self._signal(attempt, worker, "TERM", now_s)
        else:
            worker.reading += 1
            self._state.commands.append(ReadPage([worker.number]))
            self._due[attempt.row.id] = (attempt, now_s + LOOK_AGAIN_S)

    def _signal(self, attempt: Attempt, worker: Worker, name: str, now_s: float) -> None:
        self._state.note(now_s, f"{attempt.kind.name} goes on: {name} to worker {worker.number}")
        self._state.commands.append(Signal(worker.number, name))
        if name == "KILL":
            attempt.stop = KILLED
            self._due.pop(attempt.row.id, None)
        else:
            attempt.stop = TERMINATED
            self._due[attempt.row.id] = (attempt, now_s + self._state.settings.term_grace_s)
