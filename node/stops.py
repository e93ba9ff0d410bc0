"""Ends attempts: looked at, interrupted, terminated, killed, in that order.

Never harms another attempt: nothing is signalled before the page has shown that the worker runs the
one that is to end, and whatever lay behind it has been taken back. Of what was cancelled a value
that still comes wins; what is judged ends as that, and its stacks are taken before all else.
"""

from ..protocol.ids import show
from ..protocol.limits import NO_LIMITS
from ..protocol.messages import Outcome, StopMode
from ..protocol.stack_text import part_of
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
from .call_threads import named
from .cases import (
    CANCEL,
    CANCELLED,
    DRAIN,
    HUNG,
    KILL,
    MEMORY,
    TERM,
    TIMED_OUT,
    UNHEALTHY,
    Case,
    seconds,
)
from .dispatch import Dispatch
from .events import Dump, Dumped, ReadPage, SendWorker, Signal
from .handing import interrupt
from .hangs import Watch
from .limits import case_of
from .packets import CallsTold, FinishedRow, Health, TellCalls
from .page import IDLE
from .stacks import CALLS_S
from .state import LOOK_S, NEVER_S, NodeState
from .verdicts import ASKS_HEALTH, DEADLOCK, TELLS_STATE, limit_of

#: what a coroutine is called that says whether its actor is well
HEALTH = "__health__"
#: the page is read again when it could not tell
LOOK_AGAIN_S = 0.01
#: results of earlier rows come within this time, or the worker cannot send them
RESULTS_LATE_S = 1.0
#: so long stacks are awaited; whoever is asked for them answers before that
DUMP_WAIT_S = 1.5
#: of where a coroutine is
BESIDE_BYTES_MAX = 4 << 10


class Stops:
    """The attempts in workers' hands that are to end."""

    def __init__(self, state: NodeState, dispatch: Dispatch, actors: Actors) -> None:
        self._state = state
        self._dispatch = dispatch
        self._actors = actors
        #: task -> when the next step is due
        self.due: dict[bytes, tuple[Attempt, float]] = {}
        #: workers that have not ended though they were killed
        self.stuck: list[Worker] = []

    def stop(
        self, task: bytes, number: int, mode: int, now_s: float, reason: str = CANCELLED
    ) -> bool:
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
        if reason == TIMED_OUT and mode == StopMode.SOFT and attempt.state == SENT:
            self._out_of_time(attempt, now_s)
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
            self._signal(attempt, worker, KILL, now_s)
            return False
        if attempt.kind.creates and worker.is_up:
            self._signal(attempt, worker, TERM, now_s)  # there is nothing to interrupt
            return False
        attempt.stop = max(attempt.stop, ASKED)
        self._dispatch.call_back(worker, attempt.seq)
        self._next(attempt, now_s + LOOK_AGAIN_S)
        return False

    def _out_of_time(self, attempt: Attempt, now_s: float) -> None:
        """The time of all its attempts is over; of what has not begun the scheduler tells."""
        limits = attempt.kind.options.limits or NO_LIMITS
        limit_s, worker = limits.total_timeout_s, self._state.workers[attempt.worker]
        offence = f"took longer than its total_timeout of {seconds(limit_s)}"
        case = Case(TIMED_OUT, offence, limit="total_timeout", limit_s=limit_s)
        case.elapsed_s = max(0.0, now_s - worker.since_s)
        self.judged(worker, attempt, case, now_s)

    def judged(self, worker: Worker, attempt: Attempt, case: Case, now_s: float) -> None:
        """An attempt is to end for what was seen of it: by a limit, or by two bits of evidence.

        If need be its actor ends with a call, as if its process had died: nothing else would end
        the call.
        """
        was_asked = attempt.stop != NOT_STOPPED
        if attempt.state != SENT or (was_asked and not self._takes_over(attempt)):
            return
        attempt.case = case
        self._state.counters["judged"] += 1
        text = f"{attempt.kind.name} in worker {worker.number} {case.offence}"
        self._state.note(now_s, f"{text}: it is ended; {case.verdict}: {case.evidence}")
        if was_asked:
            # It was to be interrupted, and no more than that; now all steps are taken.
            case.took(CANCEL, now_s)
            if attempt.row.id not in self.due:
                self._next(attempt, now_s)
            return
        attempt.stop = ASKED
        if case.is_unbegun:
            self._look(attempt, case, worker, now_s)  # what it waits for will not be there later
            return
        self._dispatch.call_back(worker, attempt.seq)
        self._next(attempt, now_s + LOOK_AGAIN_S)

    def hung(self, worker: Worker, attempt: Attempt, watch: Watch, now_s: float) -> None:
        """An attempt hangs, proven by two bits of evidence; or it is stopped, if that is enough."""
        told = watch.told()
        name, limit_s = limit_of(told.name, self._state.settings)
        offence = f"made no progress for {seconds(told.for_s)}"
        if told.name == ASKS_HEALTH:
            offence = f"did not end {HEALTH} in {seconds(limit_s)}"
        if attempt.kind.creates and worker.is_up:
            self._deaf(worker, case_of(watch, HUNG, offence, name, limit_s, told), now_s)
            return
        if told.name == TELLS_STATE:
            offence = f"has run, but __checkpoint__ of its actor did not end in {seconds(limit_s)}"
            if attempt.seq > watch.started:  # it tells its state between calls
                offence = f"did not end __checkpoint__ in {seconds(limit_s)}"
                self._deaf(worker, case_of(watch, HUNG, offence, name, limit_s, told), now_s)
                return
        if told.name == DEADLOCK and watch.phase == IDLE:
            offence = f"did not take its work for {seconds(told.for_s)}"
            self._deaf(worker, case_of(watch, HUNG, offence, name, limit_s, told), now_s)
            return
        case = case_of(watch, HUNG, offence, name, limit_s, told)
        self.judged(worker, attempt, case, now_s)

    def _deaf(self, worker: Worker, case: Case, now_s: float) -> None:
        """A worker will take nothing any more: what it has not begun runs in another one."""
        self._state.counters["judged"] += 1
        self._state.note(now_s, f"worker {worker.number} {case.offence}: {case.evidence}")
        creation = None if worker.actor is None else worker.actor.attempt
        if creation is None or not worker.is_up:
            self._state.commands.append(Signal(worker.number, KILL.removeprefix("SIG")))
        elif creation.stop == NOT_STOPPED:
            creation.case, creation.stop = case, ASKED
            self._look(creation, case, worker, now_s)

    def health(self, worker: Worker, packet: Health, now_s: float) -> None:
        """An actor is asked whether it is well, or has said that it is not, and ends."""
        state, hosted = self._state, worker.actor
        if hosted is None or not hosted.up:
            state.counters["stale_dropped"] += 1
            return
        if not packet.fault:
            worker.asked = True
            if state.look_due_s == NEVER_S:
                state.look_due_s = now_s + LOOK_S
                state.due_by(state.look_due_s)
            return
        creation, fault = hosted.attempt, packet.fault
        state.note(now_s, f"{creation.kind.name} in worker {worker.number} is unhealthy: {fault}")
        if creation.stop == NOT_STOPPED:
            state.counters["judged"] += 1
            creation.case = Case(UNHEALTHY, f"is unhealthy: {fault}", UNHEALTHY, fault)
            creation.case.raised, creation.stop = packet.text, ASKED

    def runs_away(self, worker: Worker, attempt: Attempt, now_s: float) -> None:
        """An attempt on its way to its end takes ever more memory: nothing else is tried."""
        if attempt.state == SENT and INTERRUPTED <= attempt.stop < KILLED:
            self._signal(attempt, worker, KILL, now_s)

    @staticmethod
    def _takes_over(attempt: Attempt) -> bool:
        # Whatever is on its way down the ladder already goes on as it began.
        case = attempt.case
        return (
            attempt.kind.actor != b""
            and not attempt.drained
            and (case is None or not case.is_verdict)
        )

    def has_ended(self, attempt: Attempt, row: FinishedRow) -> bool:
        """Say what ended an attempt if that was the case against it; return whether that is told.

        Once a verdict is there it is the outcome, and a value that still comes goes with it.
        """
        case = attempt.case
        if case is None or not case.is_verdict:
            return False
        values = row.values
        if len(values) == 1 and values[0].outcome == Outcome.VALUE and not values[0].contained:
            case.partial = values[0].payload
        self._state.judged(attempt, case, row.duration_s)
        return True

    def dumped(self, event: Dumped, now_s: float) -> None:
        """Where a worker's threads are: what waited for that goes on."""
        for attempt, _ in self.due.values():
            case = attempt.case
            if attempt.worker == event.worker and case is not None and case.awaits:
                case.saw(event.text, event.why, event.at)
                # Its worker's own word on its calls comes at once, or not at all.
                self._next(attempt, now_s + (CALLS_S if case.awaits_beside else 0.0))

    def told(self, worker: Worker, packet: CallsTold) -> None:
        """Where calls are that run beside each other: each case gets what is about its own."""
        for task, (attempt, _) in self.due.items():
            case = attempt.case
            if attempt.worker == worker.number and case is not None and case.awaits_beside:
                # What is asked of an actor is no call, and has a name instead of an id.
                name = HEALTH if attempt.kind.creates else show(task)
                text = part_of(packet.text, name)[:BESIDE_BYTES_MAX]
                case.is_beside(text.encode("ascii", "replace").decode("ascii"))

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
                self._next(attempt, now_s + LOOK_AGAIN_S)

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
                    self._signal(attempt, worker, KILL, now_s)
            elif attempt.stop == ASKED:
                self._begin(attempt, worker, now_s)

    def _begin(self, attempt: Attempt, worker: Worker, now_s: float) -> None:
        """Take the first step: where it is, if it is judged; then it is interrupted."""
        case = attempt.case
        is_judged = case is not None and case.is_verdict
        if case is not None and is_judged and not case.looked:
            self._look(attempt, case, worker, now_s)
            return
        if case is not None and case.awaits:
            return
        attempt.stop = INTERRUPTED
        reason = case.reason if case is not None else DRAIN if attempt.drained else CANCELLED
        self._state.commands.append(interrupt(worker, attempt, reason))
        if case is not None:
            case.took(CANCEL, now_s)
        grace_s = self._state.settings.cancel_grace_s
        self._next(attempt, now_s + grace_s)
        if attempt.kind.actor and not (attempt.drained or is_judged):
            del self.due[attempt.row.id]  # the next step would end the actor

    def _look(self, attempt: Attempt, case: Case, worker: Worker, now_s: float) -> None:
        case.looked = case.awaits = True
        hosted = worker.actor
        is_asked = case.verdict == ASKS_HEALTH
        if hosted is not None and hosted.concurrency and (attempt.kind.actor or is_asked):
            if not is_asked:
                case.beside = named(attempt, hosted.begun.get(attempt.seq))
            if not case.beside:
                case.awaits_beside = True
                self._state.commands.append(SendWorker(worker.number, TellCalls(0)))
        self._state.commands.append(Dump([worker.number]))
        self._next(attempt, now_s + DUMP_WAIT_S)

    def _next(self, attempt: Attempt, due_s: float) -> None:
        """Say when the next step of an attempt is due, here and to whoever keeps the deadline."""
        self.due[attempt.row.id] = (attempt, due_s)
        self._state.due_by(due_s)

    def turn(self, now_s: float) -> None:
        """Take the next step where one is due."""
        if not self.due:
            return
        for task, (attempt, due_s) in list(self.due.items()):
            if attempt.state != SENT:
                del self.due[task]
            elif now_s >= due_s:
                self._step(attempt, now_s)

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        return min(due_s for _, due_s in self.due.values()) if self.due else None

    def count(self) -> int:
        """Return how many attempts are on the ladder."""
        return sum(attempt.state == SENT for attempt, _ in self.due.values())

    def clear(self) -> None:
        """Forget all: the link's life is over."""
        self.due.clear()
        self.stuck.clear()

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
        worker, case = self._state.workers[attempt.worker], attempt.case
        made = attempt.kind.creates and worker.is_up
        if case is not None and case.awaits:
            case.saw("", f"nothing came within {DUMP_WAIT_S:g} s", "")
        if case is not None and case.is_unbegun:
            # It ends without having begun; should it have begun by now, it goes down the ladder.
            case.is_unbegun = False
            self._dispatch.call_back(worker, attempt.seq)
            self._next(attempt, now_s + LOOK_AGAIN_S)
        elif attempt.stop == KILLED:
            del self.due[attempt.row.id]
            self.stuck.append(worker)
        elif attempt.stop == TERMINATED:
            self._signal(attempt, worker, KILL, now_s)
        elif made:
            self._signal(attempt, worker, TERM, now_s)
        elif attempt.stop == INTERRUPTED and self._is_alone(worker, attempt, now_s):
            if case is None and not attempt.drained:
                # Where it is, for whoever wonders why it did not heed the interruption.
                case = attempt.case = Case(CANCELLED)
                case.took(CANCEL, now_s - self._state.settings.cancel_grace_s)
            if case is not None and not case.looked:
                self._look(attempt, case, worker, now_s)
            else:
                self._signal(attempt, worker, TERM, now_s)
        elif case is not None and case.looked and self._is_alone(worker, attempt, now_s):
            if case.reason == MEMORY and attempt.kind.actor:
                # What an actor keeps is not let go of by interrupting a call of it.
                self._signal(attempt, worker, TERM, now_s)
            else:
                self._begin(attempt, worker, now_s)
        else:
            worker.reading += 1
            self._state.commands.append(ReadPage([worker.number]))
            self._next(attempt, now_s + LOOK_AGAIN_S)

    def _signal(self, attempt: Attempt, worker: Worker, step: str, now_s: float) -> None:
        name = step.removeprefix("SIG")
        self._state.note(now_s, f"{attempt.kind.name} goes on: {name} to worker {worker.number}")
        self._state.commands.append(Signal(worker.number, name))
        if attempt.case is not None:
            attempt.case.took(step, now_s)
        settings = self._state.settings
        is_last = step == KILL
        attempt.stop = KILLED if is_last else TERMINATED
        wait_s = settings.reap_timeout_s if is_last else settings.term_grace_s
        self._next(attempt, now_s + wait_s)
