"""Calls of actors on their way to a worker, and those that run there beside each other.

Never lets a call overtake an earlier one of the same caller. An actor that does one call at a time
has as many as hide the way here and back. One that does several has those that may run, and some
more; how long each of them runs its worker tells, of those that take a while.
"""

from collections import deque
from collections.abc import Iterable

from ..protocol.ids import ORDINAL_BYTES, PEER_BYTES
from ..protocol.running import RunningRow
from .attempts import ARRIVING, CALLED, GONE, SENT, Attempt, Hosted, Underway, Worker
from .call_threads import retell
from .dispatch import PACKETS_IN_FLIGHT_MAX
from .events import Command, Interrupt, SendWorker
from .packets import BegunRow, KindDefinition, Run, RunRow, StopCalls
from .page import PHASE_NAMES, RUNNING_CODE, WAITING
from .state import LOOK_S, NEVER_S, NodeState
from .verdicts import RUNNING

#: a caller is a process: a client, or a worker of a node
CALLER_BYTES = PEER_BYTES + ORDINAL_BYTES
#: calls in the hands of an actor that runs several at once, beyond those that may run
AHEAD_MAX = 256


def hand_out(state: NodeState, worker: Worker, hosted: Hosted, now_s: float) -> bool:
    """Send a packet of calls to an actor; return whether there was room and any that may go."""
    settings = state.settings
    room, budget_s = settings.packet_tasks_max, settings.packet_s
    several = hosted.concurrency
    if several:
        # Each runs as soon as it is there: how long it will take does not matter to others.
        room = min(room, several + AHEAD_MAX - len(hosted.hand))
    elif len(worker.packets) >= PACKETS_IN_FLIGHT_MAX:
        return False
    rows: list[RunRow] = []
    definitions: list[KindDefinition] = []
    hand, defined, gpus, seq = hosted.hand, worker.defined, worker.gpus or None, worker.seq
    had = bool(hand)
    expected_all_s = 0.0
    while room > 0:
        place = next_of(hosted.waiting)
        if place < 0:
            break
        attempt = hosted.waiting[place]
        row, kind = attempt.row, attempt.kind
        expected_s = row.expected_s
        if not several and rows and (expected_s < 0.0 or expected_s > budget_s):
            break
        del hosted.waiting[place]
        seq += 1
        room -= 1
        attempt.state, attempt.worker, attempt.seq = SENT, worker.number, seq
        hand[seq] = attempt
        if kind.number not in defined:
            defined.add(kind.number)
            definitions.append(kind.definition())
        rows.append(RunRow(
            seq, row.id, row.attempt, kind.number, row.depth, row.args, row.values, gpus,
            row.details,
        ))  # fmt: skip
        if several:
            continue
        if expected_s < 0.0:
            break
        budget_s -= expected_s
        expected_all_s += expected_s
    if not rows:
        return False
    if not had:
        worker.since_s = now_s
    worker.seq = seq
    if not several:
        worker.packets.append((seq, expected_all_s))
    if state.look_due_s == NEVER_S:
        state.look_due_s = now_s + LOOK_S
        state.due_by(state.look_due_s)
    state.commands.append(SendWorker(worker.number, Run(definitions, rows)))
    return True


def forget_gone(waiting: deque[Attempt]) -> bool:
    """Let go of calls that are here no more; return whether any other waits."""
    while waiting and waiting[0].state == GONE:
        waiting.popleft()
    return bool(waiting)


def next_of(waiting: deque[Attempt]) -> int:
    """Return the place of the next call that may go, or -1.

    One that is not whole yet holds back its caller's later ones, and nobody else's.
    """
    if not forget_gone(waiting):
        return -1
    if waiting[0].state == CALLED:
        return 0
    held: dict[bytes, None] = {}
    for place, attempt in enumerate(waiting):
        if attempt.state == GONE:
            continue
        caller = attempt.row.id[:CALLER_BYTES]
        if attempt.state == ARRIVING:
            held[caller] = None
        elif caller not in held:
            return place
    return -1


def held_back(waiting: Iterable[Attempt]) -> list[Attempt]:
    """Return the whole calls among these that wait for earlier ones of their callers."""
    held: dict[bytes, None] = {}
    found: list[Attempt] = []
    for attempt in waiting:
        caller = attempt.row.id[:CALLER_BYTES]
        if attempt.state == ARRIVING:
            held[caller] = None
        elif attempt.state == CALLED and caller in held:
            found.append(attempt)
    return found


# ------------------------------------------------------------------------- beside each other


def interrupt(worker: Worker, attempt: Attempt, reason: str) -> Command:
    """Return what has a worker interrupt what it runs."""
    hosted = worker.actor
    if attempt.kind.actor and hosted is not None and hosted.concurrency:
        return SendWorker(worker.number, StopCalls([(attempt.seq, reason)]))
    return Interrupt(worker.number, attempt.seq, reason)


def note_begun(hosted: Hosted, rows: Iterable[BegunRow], now_s: float) -> None:
    """Remember since when calls run, and how far they are."""
    begun = hosted.begun
    for row in rows:
        if row.seq not in hosted.hand:
            continue
        known = begun.get(row.seq)
        began_s = now_s - row.elapsed_s if known is None else known.began_s
        progressed_s = now_s if row.progress else began_s
        begun[row.seq] = Underway(
            began_s, row.progress, progressed_s, row.done, row.total, row.thread, row.ident
        )


def beside(worker: Worker, shown: RunningRow | None, now_s: float) -> list[RunningRow]:
    """Return what is told of a worker's calls: the one that was looked at, and those beside it.

    Args:
        worker: whose calls they are.
        shown: the one whose code runs, as far as that can be known.
        now_s: the time.
    """
    rows = [] if shown is None else [shown]
    hosted = worker.actor
    if hosted is None or not hosted.begun:
        return rows
    process = RUNNING if shown is None else shown.verdict
    for seq, underway in hosted.begun.items():
        attempt = hosted.hand.get(seq)
        if attempt is None:
            continue
        if shown is not None and attempt.row.id == shown.id:
            retell(hosted, seq, shown, process)
            continue
        row = attempt.row
        phase = PHASE_NAMES[RUNNING_CODE if hosted.in_threads else WAITING]
        told = RunningRow(row.id, row.attempt, max(0.0, now_s - underway.began_s), phase, phase)
        told.pid = worker.pid
        if underway.progress:
            told.done, told.total = underway.done, underway.total
            told.progress_s, told.progresses = now_s - underway.progressed_s, underway.progress
        retell(hosted, seq, told, process)
        rows.append(told)
    return rows
