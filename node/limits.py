"""Judges calls by the limits that their users set: time, signs of progress, memory.

Never by anything else, and never by what was not looked at: the process is looked at in the same
look that finds a limit over, and of who is stopped nothing but that is said. Time counts from
when the call's own code began: not while its function is imported and its arguments are unpickled,
not while it is stopped, and not while this node could not look.
"""

from collections.abc import Callable
from typing import Final

from ..protocol.limits import NO_LIMITS, Limits
from .attempts import Attempt, Worker
from .beside import beyond
from .cases import HUNG, MEMORY, TIMED_OUT, Case, progress_text, seconds, size
from .hangs import Watch
from .page import YIELDING
from .state import LOOK_S, NodeState
from .verdicts import STOPPED, Verdict

#: a call is looked at more closely so long before a limit of its is over
NEAR_S: Final = 2 * LOOK_S
#: who is to end for its memory, and takes so much more than it may, is killed at once
RUNAWAY: Final = 1.25


class LimitsOf:
    """The limits of what runs here.

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

    def look(self, worker: Worker, attempt: Attempt, watch: Watch, now_s: float) -> None:
        """A call that may have limits was looked at."""
        limits = attempt.kind.options.limits
        memory_max = 0 if limits is None else limits.memory_max_bytes
        if worker.actor is not None and attempt.kind.actor:
            # What its process may use was said when the actor was made.
            own = worker.actor.attempt.kind.options.limits
            memory_max = memory_max or (0 if own is None else own.memory_max_bytes)
        hosted = worker.actor
        if hosted is not None and hosted.concurrency and attempt.kind.actor:
            limits = None  # theirs are looked at one by one
            for call, against in beyond(hosted, watch, now_s):
                self._judged(worker, call, against, now_s)
        if limits is None and not memory_max:
            return
        if watch.handed:
            self._look_again(worker, attempt, watch, memory_max, now_s)
            return
        limits = limits or NO_LIMITS
        if watch.phase == YIELDING:
            watch.heard_s = watch.spent_s  # it is its reader who does not progress
        watch.is_near = memory_max > 0 or _is_near(watch, limits)
        if not watch.is_judged or not watch.was_probed or watch.verdict == STOPPED:
            return
        case = _case(watch, limits, memory_max)
        if case is not None:
            watch.handed = True
            self._judged(worker, attempt, case, now_s)

    def _look_again(
        self, worker: Worker, attempt: Attempt, watch: Watch, memory_max: int, now_s: float
    ) -> None:
        case = attempt.case
        if case is None or case.reason != MEMORY:
            return
        case.peak_bytes = max(case.peak_bytes, watch.peak_bytes)
        if memory_max and watch.memory_bytes > RUNAWAY * memory_max:
            self._runs_away(worker, attempt, now_s)


def _is_near(watch: Watch, limits: Limits) -> bool:
    if limits.timeout_s and watch.spent_s > limits.timeout_s - NEAR_S:
        return True
    heartbeat_s = limits.heartbeat_timeout_s
    return bool(heartbeat_s) and watch.unheard_s > heartbeat_s - NEAR_S


def _case(watch: Watch, limits: Limits, memory_max: int) -> Case | None:
    """Return the case against a call that is beyond a limit."""
    timeout_s, heartbeat_s = limits.timeout_s, limits.heartbeat_timeout_s
    if memory_max and watch.memory_bytes > memory_max:
        used = f"used {size(watch.memory_bytes)}, more than its memory_max of {size(memory_max)},"
        case = case_of(watch, MEMORY, used, "memory_max")
        case.limit_bytes = memory_max
        return case
    if timeout_s and watch.spent_s >= timeout_s:
        text = f"took longer than its timeout of {seconds(timeout_s)}"
        return case_of(watch, TIMED_OUT, text, "timeout", timeout_s)
    if heartbeat_s and watch.unheard_s >= heartbeat_s:
        text = f"made no progress for {seconds(watch.unheard_s)}"
        return case_of(watch, HUNG, text, "heartbeat_timeout", heartbeat_s)
    return None


def case_of(
    watch: Watch,
    reason: str,
    offence: str,
    limit: str,
    limit_s: float = 0.0,
    told: Verdict | None = None,
) -> Case:
    """Return a case with all that is known of the call."""
    told = told or watch.told()
    case = Case(
        reason, offence, told.name, told.evidence, limit=limit, limit_s=limit_s,
        elapsed_s=watch.elapsed_s,
    )  # fmt: skip
    case.peak_bytes = watch.peak_bytes
    if watch.progress:
        case.progress = progress_text(watch.done, watch.total)
        case.progress_s = watch.unheard_s
    return case
