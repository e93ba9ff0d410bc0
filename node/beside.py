"""Limits of calls that run beside each other in one actor.

Never judges by what the pulse page says of how one of them fares: each is timed from when its
worker says that it began. That it cannot say while a call keeps the interpreter to itself, so one
with limits has begun, too, when the page says that it was started. One that fewer than may run are
before, and that is not begun all the same, has its turn and does not get it: its `timeout` counts
from there. Time counts as it does for others: not while the actor is stopped, and not while this
node could not look. Memory is the process's, and judged as that of any other.
"""

from collections.abc import Iterator

from ..protocol.limits import Limits
from .attempts import Attempt, Hosted, Underway
from .call_threads import case_verdict
from .cases import HUNG, TIMED_OUT, Case, progress_text, seconds
from .hangs import STEP_MAX_S, Watch
from .state import LOOK_S
from .verdicts import STOPPED, Verdict


def beyond(hosted: Hosted, watch: Watch, now_s: float) -> Iterator[tuple[Attempt, Case]]:
    """Yield the calls that are beyond a limit, each with the case against it.

    Args:
        hosted: their actor.
        watch: of its process, as it was seen just now.
        now_s: the time.
    """
    looked_s, hosted.looked_s = hosted.looked_s, now_s
    is_stopped = watch.verdict == STOPPED
    _note_started(hosted, watch, now_s)
    for seq, one in list(hosted.begun.items()):
        since_s = now_s - max(looked_s, one.began_s)
        if is_stopped or since_s > STEP_MAX_S:
            hosted.begun[seq] = _later(one, since_s if is_stopped else since_s - LOOK_S, now_s)
            continue
        attempt = hosted.hand.get(seq)
        if attempt is None:
            del hosted.begun[seq]  # it had not begun after all, and was given back
            continue
        limits = attempt.kind.options.limits
        if limits is None or _is_judged(attempt):
            continue
        case = _case(one, limits, case_verdict(hosted, seq, watch), now_s)
        if case is not None:
            yield attempt, case
    missed_s = now_s - looked_s
    excused_s = missed_s if is_stopped else missed_s - LOOK_S if missed_s > STEP_MAX_S else 0.0
    yield from _unbegun(hosted, watch, excused_s, now_s)


def _unbegun(
    hosted: Hosted, watch: Watch, excused_s: float, now_s: float
) -> Iterator[tuple[Attempt, Case]]:
    """Yield those whose turn it was for as long as they may take, and that have not begun."""
    turns, hosted.turns = hosted.turns, {}
    for attempt in hosted.back.values():  # they come into its hands again
        if attempt.row.id in turns:
            hosted.turns[attempt.row.id] = turns[attempt.row.id]
    room = hosted.concurrency
    for seq, attempt in hosted.hand.items():
        if room <= 0:
            return
        room -= 1
        if seq <= watch.started:
            continue
        id_, limits = attempt.row.id, attempt.kind.options.limits
        since_s = hosted.turns[id_] = min(now_s, turns.get(id_, now_s) + excused_s)
        if limits is None or not limits.timeout_s or excused_s or _is_judged(attempt):
            continue
        if now_s - since_s >= limits.timeout_s:
            limit_s, told = limits.timeout_s, watch.told()
            text = f"did not begin within its timeout of {seconds(limit_s)} though it was its turn"
            case = Case(
                TIMED_OUT, text, told.name, told.evidence, limit="timeout", limit_s=limit_s,
                elapsed_s=now_s - since_s,
            )  # fmt: skip
            case.is_unbegun = True
            yield attempt, case


def _note_started(hosted: Hosted, watch: Watch, now_s: float) -> None:
    for seq, attempt in hosted.hand.items():
        if seq > watch.started:
            return
        if seq not in hosted.begun and attempt.kind.options.limits is not None:
            # Of the one that has the interpreter it is known since when.
            began_s = now_s - (watch.elapsed_s if seq == watch.seq else 0.0)
            hosted.begun[seq] = Underway(began_s, 0, began_s, 0.0, -1.0)


def _later(one: Underway, excused_s: float, now_s: float) -> Underway:
    """Return a call as if it had begun, and told of itself, so much later."""
    return one._replace(
        began_s=min(now_s, one.began_s + excused_s),
        progressed_s=min(now_s, one.progressed_s + excused_s),
    )


def _is_judged(attempt: Attempt) -> bool:
    return attempt.case is not None and attempt.case.is_verdict


def _case(one: Underway, limits: Limits, told: Verdict, now_s: float) -> Case | None:
    spent_s, unheard_s = now_s - one.began_s, now_s - one.progressed_s
    if limits.timeout_s and spent_s >= limits.timeout_s:
        reason, limit, limit_s = TIMED_OUT, "timeout", limits.timeout_s
        offence = f"took longer than its timeout of {seconds(limit_s)}"
    elif limits.heartbeat_timeout_s and unheard_s >= limits.heartbeat_timeout_s:
        reason, limit, limit_s = HUNG, "heartbeat_timeout", limits.heartbeat_timeout_s
        offence = f"made no progress for {seconds(unheard_s)}"
    else:
        return None
    case = Case(
        reason, offence, told.name, told.evidence, limit=limit, limit_s=limit_s, elapsed_s=spent_s
    )
    if one.progress:
        case.progress = progress_text(one.done, one.total)
        case.progress_s = unheard_s
    return case
