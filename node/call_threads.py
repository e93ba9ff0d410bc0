"""Calls that run in threads of one process: what each of these threads is seen to do.

Never judges the process, which is `hangs`' to do, and never ends anything: that a thread does
nothing proves nothing, since its interpreter turns. What holds for the process as a whole (it is
stopped, nobody else gets the interpreter) holds for its calls; else each is told of by its own
thread, which the main one, where nothing runs, says nothing of.
"""

from typing import Final

from ..protocol.ids import show
from ..protocol.running import RunningRow
from .attempts import Attempt, Hosted, Underway
from .events import FUTEX, Evidence, ThreadSeen
from .hangs import CPU_SLACK_S, CPU_SLACK_SHARE, LATE_S, QUIET_S, STEP_MAX_S, Watch
from .page import IDLE, PHASE_NAMES, WAITING
from .verdicts import BLOCKED, RUNNING, Verdict

#: verdicts on a process that say nothing of its calls
_OPEN: Final = (RUNNING, BLOCKED, PHASE_NAMES[WAITING], PHASE_NAMES[IDLE])


class ThreadWatch:
    """What has been seen of the thread that runs one call.

    Args:
        now_s: the time.
    """

    __slots__ = ("_clock_s", "_cpu_s", "_io_bytes", "_probed_s", "_quiet_s", "_seen_s", "where")

    def __init__(self, now_s: float) -> None:
        self._seen_s = now_s
        #: as of a watch of a process: without the time in which nobody could look
        self._clock_s = 0.0
        #: since when it has used neither CPU nor IO, with the amounts then
        self._quiet_s: float | None = None
        self._cpu_s, self._io_bytes = 0.0, 0
        self._probed_s = 0.0
        self.where = ""

    def see(self, row: ThreadSeen, now_s: float, is_stopped: bool) -> bool:
        """Take in a look; return whether what is thought of it has changed."""
        before = self.is_quiet
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        self._clock_s += min(passed_s, STEP_MAX_S)
        self._probed_s, self.where = self._clock_s, row.where
        if is_stopped or passed_s > LATE_S + QUIET_S:
            self._quiet_s = None
        if self._quiet_s is None or self._has_done(row, self._clock_s - self._quiet_s):
            self._quiet_s, self._cpu_s, self._io_bytes = self._clock_s, row.cpu_s, row.io_bytes
        return self.is_quiet != before

    def _has_done(self, row: ThreadSeen, quiet_for_s: float) -> bool:
        used_s = row.cpu_s - self._cpu_s
        runs = row.state == "R" or row.io_bytes != self._io_bytes
        return runs or used_s > CPU_SLACK_S + CPU_SLACK_SHARE * quiet_for_s

    @property
    def is_quiet(self) -> bool:
        """Whether it does nothing."""
        return self._quiet_s is not None and self._probed_s - self._quiet_s >= QUIET_S

    def told(self, beside: str = "") -> Verdict:
        """Return what is thought of it in words."""
        if not self.is_quiet or self._quiet_s is None:
            return Verdict(RUNNING)
        for_s = self._clock_s - self._quiet_s
        sleeps = f"sleeping in {self.where}" if self.where else "where it sleeps cannot be known"
        text = f"its thread: no CPU and no IO for {for_s:.1f} s, {sleeps}; its interpreter turns"
        return Verdict(BLOCKED, for_s, self.where, text + beside)


def see_threads(hosted: Hosted, row: Evidence, now_s: float) -> bool:
    """Take in what was seen of the threads of an actor's calls; return whether there is news."""
    by_thread = {seen.thread: seen for seen in row.calls}
    is_stopped = row.state in ("T", "t")
    watches, hosted.threads = hosted.threads, {}
    news = False
    for seq, one in hosted.begun.items():
        watch = watches.get(seq)
        seen = by_thread.get(one.thread)
        if seen is not None:
            watch = watch or ThreadWatch(now_s)
            news |= watch.see(seen, now_s, is_stopped)
        if watch is not None:
            hosted.threads[seq] = watch
    return news


def verdict_of(hosted: Hosted, seq: int, process: str) -> Verdict | None:
    """Return what is thought of a call in a thread; None: what is thought of its process."""
    watch = hosted.threads.get(seq)
    if watch is None or process not in _OPEN:
        return None
    return watch.told(_lock_text(hosted))


def case_verdict(hosted: Hosted, seq: int, watch: Watch) -> Verdict:
    """Return the same of a call against which there is a case."""
    told = watch.told()
    return (verdict_of(hosted, seq, told.name) if hosted.in_threads else None) or told


def _lock_text(hosted: Hosted) -> str:
    """Return in words that the calls of an actor wait for locks, which may be each other's."""
    waits = [watch.is_quiet and watch.where == FUTEX for watch in hosted.threads.values()]
    if len(waits) < 2 or waits.count(True) < 2:
        return ""
    if all(waits) and len(waits) == len(hosted.hand):
        return f"; all {len(waits)} calls that the actor has wait for locks"
    return f"; {waits.count(True)} of {len(hosted.hand)} calls that the actor has wait for locks"


def retell(hosted: Hosted, seq: int, row: RunningRow, process: str) -> None:
    """Put into what is told of a call in a thread what is thought of that."""
    told = verdict_of(hosted, seq, process)
    if told is not None:
        row.verdict, row.verdict_s = told.name, max(0.0, told.for_s)
        row.where, row.evidence = told.where, told.evidence


def named(attempt: Attempt, one: Underway | None) -> str:
    """Return a line that says which thread runs a call; "": that is not known."""
    if one is None or not one.ident:
        return ""
    name = "".join(letter for letter in attempt.kind.name if letter.isprintable())
    line = f"Named 0x{one.ident:016x} {name} {show(attempt.row.id)}\n"
    return line.encode("ascii", "backslashreplace").decode("ascii")
