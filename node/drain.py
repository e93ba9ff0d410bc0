"""How a node ends in peace: it starts nothing more, and ends what it has, missed by nobody.

Never lets go of what somebody may still ask for: a result that its submitter does not have; unless
it is told to hurry, also a call of a task that ran here, and a value that others hold.

    begun      what has not started goes back; from that turn on no worker starts anything
    hurried    asked again, or drain_timeout_s are over: it ends what runs, as if it were lost
    empty      the scheduler is told so; once no life of it would wait for this node, it ends
    alone      the scheduler is away: it is waited for, unless there is a hurry; its next life would
               miss this node, and charge every queued task for what may have begun here
"""

from ..protocol.drain import Draining, Emptied, Farewell
from ..protocol.messages import Outcome, TakenBack
from .attempts import ARRIVING, CALLED, INTERRUPTED, QUEUED, Attempt
from .dispatch import Dispatch
from .ended import Ended
from .events import Drains, Finish
from .intake import Intake
from .lives import Lives
from .packets import FinishedRow
from .state import NodeState
from .stops import Stops


class Drain:
    """See the module."""

    def __init__(
        self,
        state: NodeState,
        lives: Lives,
        dispatch: Dispatch,
        intake: Intake,
        stops: Stops,
        ended: Ended,
    ) -> None:
        self._state = state
        self._lives = lives
        self._dispatch = dispatch
        self._intake = intake
        self._stops = stops
        self._ended = ended
        #: whether this node is drained, and whether what runs is ended
        self.active = self._hurries = False
        self._due_s = 0.0
        #: how often the scheduler was told that nothing is left
        self._number = 0
        #: it knows so, and that is still true
        self._is_told = False

    # ------------------------------------------------------------------------------- how it begins

    def asked(self, cancel: bool, now_s: float) -> None:
        """Drain this node; with `cancel`, what runs here is to be ended."""
        state = self._state
        news = not self.active or (cancel and not self._hurries)
        if not self.active:
            self.active = True
            self._due_s = now_s + state.settings.drain_timeout_s
            state.note(now_s, f"drained, with {len(state.attempts)} attempts here")
            state.commands.append(Drains())
            for worker in list(state.workers.values()):
                if worker.is_busy and not worker.dropped:
                    self._dispatch.call_back(worker, next(iter(worker.rows())))
                elif not worker.ready and not worker.dropped:
                    self._lives.drop(worker, now_s, "the node is drained")
        if cancel and not self._hurries:
            self._hurries = True
            state.note(now_s, "drained in a hurry: what runs is ended")
            self._stops.drain(now_s)
        if news:
            self.tell()

    def tell(self) -> None:
        """Tell the scheduler, perhaps again."""
        self._state.send(Draining(self._hurries))

    def reconnected(self) -> None:
        """A new life of the link: what was said in the one before is void."""
        self._is_told = False
        if self._hurries:
            self.tell()

    # -------------------------------------------------------------------------------- what goes on

    def turn(self, now_s: float) -> None:
        """Give back what has not started and end workers that have nothing to do."""
        if not self._hurries and now_s >= self._due_s:
            self._state.note(now_s, "drain_timeout_s are over")
            self.asked(True, now_s)
        self._give_back()
        for worker in list(self._lives.idle.values()):
            self._lives.exit(worker, now_s)

    def _give_back(self) -> None:
        state = self._state
        rows = self._intake.give_back_later() if self._intake.later else []
        for attempt in list(state.attempts.values()):
            if attempt.state in (QUEUED, ARRIVING, CALLED):
                rows.append((attempt.row.id, attempt.row.attempt))
                state.forget(attempt)
        if rows:
            state.counters["taken_back"] += len(rows)
            state.send(TakenBack(rows))

    def has_ended(self, attempt: Attempt, row: FinishedRow) -> bool:
        """Say that an attempt was ended by the drain, if it was; return whether that is told."""
        first = row.values[0] if row.values else None
        if not attempt.drained or first is None or first.outcome == Outcome.VALUE:
            return False
        if first.failure is not None and first.failure.error == "TaskCancelled":
            self._state.drained(attempt, row.duration_s)
            return True
        if first.outcome == Outcome.ERROR and attempt.stop >= INTERRUPTED:
            # It may well have come of the interruption: tried again where that is allowed.
            self._state.finish(attempt, row.values, row.duration_s, died=True, bystander=True)
            return True
        return False

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        return self._due_s if self.active and not self._hurries else None

    # --------------------------------------------------------------------------------- how it ends

    def look(self, has_met: bool) -> None:
        """See whether all is done, after all that this turn had to say.

        Args:
            has_met: there has been a scheduler, to which it may matter.
        """
        state = self._state
        if not self._is_empty():
            self._is_told = False
        elif not has_met or (self._hurries and not state.connected):
            state.commands.append(Finish())
        elif not self._is_told:
            # Without a connection too: the link keeps it. Nobody else can say that nothing has
            # begun here, so whoever is not told to hurry waits for a scheduler that is away.
            self._is_told = True
            self._number += 1
            state.send(Emptied(self._number))

    def farewell(self, message: Farewell) -> None:
        """Nobody will ask for this node."""
        if self._is_told and message.number == self._number:
            self._state.commands.append(Finish())

    def _is_empty(self) -> bool:
        state = self._state
        workers = [worker for worker in state.workers.values() if not worker.unkillable]
        if state.attempts or workers or any(self._ended.sizes().values()):
            return False
        return self._hurries or not state.objects.are_needed()
