"""Judges what runs: does its interpreter turn, does its process do anything, is it stopped.

Never infers one bit from another: that a process exists is the kernel's word, that its interpreter
turns is its pulse, that a call progresses only the call itself can say. Never ends anything: one
verdict, a deadlock that lasts, is handed to the ladder, and who is stopped, or tells its state, for
longer than the settings say; all others are told. `limits` judges by what the user set.

    verdict     pulse   evidence                                            what follows
    stopped     -       state T or t                                        told
    unkillable  -       state D for unkillable_after_s                      told
    gil-busy    stale   CPU time has grown since                            told
    deadlock    stale   no CPU, no IO, every thread waits for a lock        the ladder, in the end
    gil-held    stale   no CPU, no IO, some other call, or not to be known  told
    loop-blocked beats  its event loop does not come round, for no call     told
    blocked     beats   no CPU, no IO                                       told
    running     else                                                        told
    starting, importing, unpickling, pickling, checkpointing, waiting, idle: the phase, where no
                        worse is proven. Idle, with work in its hands, is who has not taken it: of
                        a sound one a thread listens, so if all wait for a lock nobody will.

How it looks: `turn` says whom (`LookAt`), the shell answers at once (`Seen`). Only calls older than
LOOK_S are looked at, and of processes only those whose pulse is late or that have run for
PROBE_AFTER_S, PROBES_MAX at a time. When nothing runs it wants nothing. Time counts only while both
could run: of a look that comes late, one interval counts and nobody is judged by it, so neither our
own pause nor that of the machine hangs anybody.
"""

from collections.abc import Callable
from typing import Final

from ..protocol.running import RunningRow
from .attempts import Attempt, Worker
from .events import FUTEX, IN_CPU, PAGE, PROCESS, THREADS, Evidence, LookAt, Seen
from .page import (
    BEFORE_CODE,
    CHECKPOINTING,
    HEALTH_CHECK,
    IDLE,
    IMPORTING,
    PHASE_NAMES,
    PICKLING,
    SAVING,
    STARTING,
    UNPICKLING,
    WAITS,
)  # fmt: skip
from .state import LOOK_S, NEVER_S, NodeState
from .verdicts import (
    ASKS_HEALTH,
    BLOCKED,
    DEADLOCK,
    GIL_BUSY,
    GIL_HELD,
    LOOP_BLOCKED,
    RUNNING,
    STOPPED,
    TELLS_STATE,
    UNKILLABLE,
    Verdict,
    limit_of,
)

#: of the time since the last look no more counts
STEP_MAX_S: Final = 1.5 * LOOK_S
#: a look so late says nothing of the worker: it is we who were away
LATE_S: Final = 1.0
#: processes are looked at when the pulse is so late, or the call so old
PULSE_LATE_S: Final = 2 * LOOK_S
PROBE_AFTER_S: Final = 1.0
#: what is known by now is looked at so often
PROBE_AGAIN_S: Final = 0.5
PROBES_MAX: Final = 32
#: threads of one actor in which calls run
CALLS_MAX: Final = 64
#: at first each time
PROBES_FIRST: Final = 5
#: a pulse that came for so long no more is stale
STALE_S: Final = 1.0
#: nothing done for so long is nothing done
QUIET_S: Final = 1.8 * LOOK_S
#: done nothing: what the clock's ticks and the pulse itself take
CPU_SLACK_S: Final = 0.02
CPU_SLACK_SHARE: Final = 0.01
#: with the pulse stale, so much is work: less may be that nobody gave it a processor
CPU_WORK_S: Final = 0.2

#: these have limits that are set for the node
_ENDED: Final = (DEADLOCK, STOPPED, TELLS_STATE, ASKS_HEALTH)
#: in these the interpreter may well be busy with one thing for long
_BUSY_PHASES: Final = (UNPICKLING, PICKLING, CHECKPOINTING)
#: in these nothing but stopped and unkillable is said, and in some a deadlock
_EXCUSED: Final = (STARTING, IMPORTING, *WAITS, IDLE, SAVING)
#: in these a thread listens to the node, in a call that is no lock
_LISTENING: Final = (*WAITS, IDLE)


class Watch:
    """What has been seen of one call. All times are of its own clock, see `Watch.clock_s`.

    Args:
        seq: of the call.
        now_s: the clock.
        unkillable_after_s: see the settings.
    """

    __slots__ = (
        "_has_begun", "_io_bytes", "_quiet_cpu_s", "_unkillable_after_s", "beat", "clock_s",
        "cpu_s", "cpu_share", "done", "elapsed_s", "excused_s", "fresh_s", "handed", "heard_s",
        "is_judged", "is_near", "lasts_s", "loop_s", "memory_bytes", "peak_bytes", "phase",
        "probed_s", "probes", "progress", "quiet_s", "row", "seen_s", "seq", "since_s",
        "stale_cpu_s", "started", "total", "uninterruptible_s", "verdict", "waits_s", "was_probed",
    )  # fmt: skip

    def __init__(self, seq: int, now_s: float, unkillable_after_s: float) -> None:
        self.seq = seq
        self._unkillable_after_s = unkillable_after_s
        self.seen_s = now_s
        #: seconds watched, without those in which we were late
        self.clock_s = 0.0
        self.beat = -1
        #: when the pulse was seen to move last
        self.fresh_s = 0.0
        #: since when it has used neither CPU nor IO, with the amounts then
        self.quiet_s: float | None = None
        self._quiet_cpu_s, self._io_bytes = 0.0, 0
        #: CPU time when it was first looked at with its pulse late
        self.stale_cpu_s: float | None = None
        #: since when each of its threads was seen waiting for a lock, without exception
        self.waits_s: float | None = None
        #: since when it is in an uninterruptible sleep
        self.uninterruptible_s: float | None = None
        self.probed_s: float | None = None
        self.probes = 0
        self.cpu_s = 0.0
        #: CPU seconds a second between the last two looks; -1: unknown
        self.cpu_share = -1.0
        self.phase, self.elapsed_s, self.progress = IDLE, 0.0, 0
        #: for so long its event loop has not come round; -1: it has none
        self.loop_s = -1.0
        self.row: Evidence | None = None
        self.verdict = RUNNING
        #: since when
        self.since_s = 0.0
        #: when what the verdict says began, as far as it was seen
        self.lasts_s = 0.0
        #: whether the last look counts
        self.is_judged = True
        #: the ladder has it
        self.handed = False
        #: of the time since it began, what does not count: see `limits`
        self.excused_s = 0.0
        self._has_begun = False
        #: what it said of its progress last; when the count moved, by `spent_s`
        self.done, self.total, self.heard_s = 0.0, -1.0, 0.0
        #: resident, as the last look at the process has shown, and the most of all looks
        self.memory_bytes = self.peak_bytes = 0
        #: whether the last look was one at the process
        self.was_probed = False
        #: the row that its worker has started last
        self.started = 0
        #: a limit is nearly over: the process is to be looked at each time
        self.is_near = False

    @property
    def stale_s(self) -> float:
        """For how long the pulse has not moved."""
        return self.clock_s - self.fresh_s

    @property
    def spent_s(self) -> float:
        """What the call's limits count."""
        return max(0.0, self.elapsed_s - self.excused_s)

    @property
    def unheard_s(self) -> float:
        """Of that, what has passed since it said last that it progresses."""
        return max(0.0, self.spent_s - self.heard_s)

    @property
    def depth(self) -> int:
        """How closely to look at it next."""
        if self.stale_s >= PULSE_LATE_S:
            return THREADS
        if self.is_near:
            return PROCESS
        # It is as much older when it is looked at; looks come a little early or late.
        if max(self.elapsed_s, self.loop_s) < PROBE_AFTER_S - 1.1 * LOOK_S:
            return PAGE
        is_known = self.clock_s - self.since_s > PROBE_AFTER_S and self.probes >= PROBES_FIRST
        if is_known and self.verdict != STOPPED and self.probed_s is not None:
            return PAGE if self.clock_s - self.probed_s < PROBE_AGAIN_S - 1.1 * LOOK_S else PROCESS
        return PROCESS

    def see(self, row: Evidence, now_s: float) -> bool:
        """Take in a look; return whether the verdict has changed."""
        passed_s, self.seen_s = now_s - self.seen_s, now_s
        self.clock_s += min(passed_s, STEP_MAX_S)
        if row.elapsed_s < self.elapsed_s:  # its function is loaded, and it begins
            self._has_begun, self.excused_s = False, 0.0
            if self.verdict == ASKS_HEALTH:
                self.verdict = RUNNING  # it is asked anew
        self.phase, self.elapsed_s, self.was_probed = row.phase, row.elapsed_s, bool(row.state)
        self.started, self.loop_s = row.started, row.loop_s
        self._see_limits(row, passed_s)
        if row.beat != self.beat:
            self.beat, self.fresh_s = row.beat, self.clock_s
            self.stale_cpu_s = self.waits_s = None
        if row.state:
            self._see_process(row)
        if row.phase in (STARTING, IMPORTING):
            self.waits_s = None  # what is seen there proves nothing of what comes after
        self.is_judged = passed_s <= LATE_S
        if not self.is_judged:
            self.quiet_s = self.stale_cpu_s = None  # judged by what is seen from here on
            return False
        return self._settle(row)

    def _see_limits(self, row: Evidence, passed_s: float) -> None:
        """Take in what `limits` judges by; in doubt, time does not count."""
        if row.phase in BEFORE_CODE and not self._has_begun:
            self.excused_s = row.elapsed_s
        elif not self._has_begun:
            self._has_begun = True
            # It began some time since the last look, if there was one.
            self.excused_s = row.elapsed_s if self.excused_s else 0.0
        elif passed_s > LATE_S or row.phase in (CHECKPOINTING, SAVING):
            self.excused_s += passed_s  # its actor's state is not its own doing
        elif row.state in ("T", "t") or self.verdict == STOPPED:
            # Its pulse tells since when, as far as it was not looked at.
            self.excused_s += passed_s if self.verdict == STOPPED else max(passed_s, self.stale_s)
        if row.progress != self.progress:
            self.progress, self.done, self.total = row.progress, row.done, row.total
            self.heard_s = self.spent_s
            self.quiet_s = None  # who says so is not blocked, however little it takes
        if row.memory_bytes:
            self.memory_bytes = row.memory_bytes
            self.peak_bytes = max(self.peak_bytes, row.memory_bytes)

    def _see_process(self, row: Evidence) -> None:
        clock_s = self.clock_s
        if self.probed_s is not None and clock_s > self.probed_s:
            self.cpu_share = max(0.0, row.cpu_s - self.cpu_s) / (clock_s - self.probed_s)
        self.row, self.probed_s, self.cpu_s = row, clock_s, row.cpu_s
        self.probes += 1
        if row.state in ("T", "t"):
            # Who is stopped cannot pulse: that says nothing of it for when it goes on.
            self.fresh_s, self.quiet_s, self.stale_cpu_s, self.waits_s = clock_s, None, None, None
            return
        if row.state != "D":
            self.uninterruptible_s = None
        elif self.uninterruptible_s is None:
            self.uninterruptible_s = clock_s
        if self.quiet_s is None or self._has_done(row, clock_s - self.quiet_s):
            self.quiet_s, self._quiet_cpu_s, self._io_bytes = clock_s, row.cpu_s, row.io_bytes
        if self.stale_cpu_s is None and self.stale_s > 0.0:
            self.stale_cpu_s = row.cpu_s
        if row.threads == FUTEX:
            self.waits_s = clock_s if self.waits_s is None else self.waits_s
        elif row.threads != IN_CPU or self.waits_s is None:
            self.waits_s = None
        else:
            self.waits_s = min(clock_s, self.waits_s + LOOK_S)  # it neither proves nor disproves

    def _has_done(self, row: Evidence, quiet_for_s: float) -> bool:
        used_s = row.cpu_s - self._quiet_cpu_s
        # Who could run and has no processor does not do nothing.
        runs = row.state == "R" or row.io_bytes != self._io_bytes
        return runs or used_s > CPU_SLACK_S + CPU_SLACK_SHARE * quiet_for_s

    # ---------------------------------------------------------------------------------- the verdict

    def _settle(self, row: Evidence) -> bool:
        name, since_s = self._judge(row)
        self.lasts_s = since_s
        if name == self.verdict:
            return False
        self.verdict, self.since_s = name, self.clock_s
        return True

    def _judge(self, row: Evidence) -> tuple[str, float]:
        """Return the verdict, and since when there is evidence for it."""
        clock_s, state = self.clock_s, row.state or (self.row.state if self.row else "")
        if state in ("T", "t") and (row.state or self.verdict == STOPPED):
            return STOPPED, self.since_s if self.verdict == STOPPED else clock_s
        asleep_s = self.uninterruptible_s
        if asleep_s is not None and clock_s - asleep_s >= self._unkillable_after_s:
            return UNKILLABLE, asleep_s
        phase = self.phase
        if phase == HEALTH_CHECK:
            return ASKS_HEALTH, self._since(ASKS_HEALTH)  # whatever it does, its limit is the same
        quiet_s, probed_s = self.quiet_s, self.probed_s
        # Up to the last look at the process, not until now: in between nobody knows.
        is_quiet = quiet_s is not None and probed_s is not None and probed_s - quiet_s >= QUIET_S
        # Who has an event loop waits in it only, and leaves the interpreter to others meanwhile.
        is_free = self.loop_s >= 0.0 and (phase in _LISTENING or not row.running)
        if self.stale_s >= STALE_S and (phase not in _EXCUSED or phase in _LISTENING):
            stalled = self._judge_stale(is_quiet)
            if stalled == DEADLOCK and quiet_s is not None and self.waits_s is not None:
                return DEADLOCK, max(self.fresh_s, quiet_s, self.waits_s)
            if stalled and phase not in _BUSY_PHASES and (phase not in _EXCUSED or is_free):
                return stalled, self.fresh_s
        if is_free and self.loop_s >= STALE_S:
            return LOOP_BLOCKED, max(0.0, clock_s - self.loop_s)
        if phase in _BUSY_PHASES or phase in _EXCUSED:
            return PHASE_NAMES[phase], self._since(PHASE_NAMES[phase])
        # A pulse has come while nothing was done: both bits are seen, neither is concluded.
        if is_quiet and quiet_s is not None and self.stale_s < STALE_S and self.fresh_s > quiet_s:
            return BLOCKED, quiet_s
        return RUNNING, self._since(RUNNING)

    def _judge_stale(self, is_quiet: bool) -> str:
        if not is_quiet or self.row is None:
            used_s = 0.0 if self.stale_cpu_s is None else self.cpu_s - self.stale_cpu_s
            return GIL_BUSY if used_s >= CPU_WORK_S else ""
        has_io = self.row.io_bytes >= 0
        return DEADLOCK if has_io and self.waits_s is not None else GIL_HELD

    def _since(self, name: str) -> float:
        return self.since_s if self.verdict == name else self.clock_s

    def told(self) -> Verdict:
        """Return the verdict in words."""
        for_s, row = self.clock_s - self.lasts_s, self.row
        where = row.where if row is not None else ""
        cpu_s = 0.0 if self.stale_cpu_s is None else self.cpu_s - self.stale_cpu_s
        sleeps = f"sleeping in {where}" if where else "where it sleeps cannot be known"
        match self.verdict:
            case "gil-busy":
                text = f"GIL not released for {self.stale_s:.1f} s, in which {cpu_s:.1f} s CPU"
                return Verdict(GIL_BUSY, self.stale_s, "", text)
            case "deadlock":
                text = "its work not taken" if self.phase == IDLE else "GIL not released"
                text = f"{text}, no CPU and no IO for {for_s:.1f} s, every thread waits for a lock"
                return Verdict(DEADLOCK, for_s, where, text)
            case "gil-held":
                text = f"GIL not released for {self.stale_s:.1f} s, no CPU, {sleeps}"
                return Verdict(GIL_HELD, self.stale_s, where, text)
            case "loop-blocked":
                doing = "at work" if row is None or row.state == "R" else sleeps
                late = f"its event loop has not come round for {self.loop_s:.1f} s"
                text = f"{late}, kept by code that is no call or by a get() in one, {doing}"
                return Verdict(LOOP_BLOCKED, self.loop_s, where, text)
            case "checkpointing" | "health-check":
                doing = "at work" if row is None or row.state == "R" else sleeps
                method = "__checkpoint__" if self.verdict == TELLS_STATE else "__health__"
                text = f"{method} of its actor has not ended for {for_s:.1f} s, {doing}"
                return Verdict(self.verdict, for_s, "", text)
            case "blocked":
                text = f"no CPU and no IO for {for_s:.1f} s, {sleeps}; its interpreter turns"
                return Verdict(BLOCKED, for_s, where, text)
            case "stopped":
                return Verdict(STOPPED, for_s, "", f"stopped or traced for {for_s:.1f} s")
            case "unkillable":
                text = f"in an uninterruptible sleep for {for_s:.1f} s, {sleeps}"
                return Verdict(UNKILLABLE, for_s, where, text)
            case name:
                return Verdict(name, for_s)


class Hangs:
    """Watches every worker that has something to do.

    Args:
        state: shared.
        hung: told (worker, attempt, watch, now_s) of a deadlock that has lasted hang_timeout_s, and
            of who was stopped for stopped_timeout_s.
        limited: told the same of each call that has limits, its own or its actor's, at each look.
    """

    def __init__(
        self,
        state: NodeState,
        hung: Callable[[Worker, Attempt, Watch, float], None],
        limited: Callable[[Worker, Attempt, Watch, float], None],
    ) -> None:
        self._state = state
        self._hung = hung
        self._limited = limited
        #: by the worker's number
        self._watches: dict[int, Watch] = {}

    def turn(self, now_s: float) -> None:
        """Look at who has been busy for a while; to be called when `look_due_s` says so."""
        state = self._state
        is_busy = False
        pages: list[tuple[int, int]] = []
        closer: list[tuple[int, int]] = []
        watches, self._watches = self._watches, {}
        for number, worker in state.workers.items():
            if not worker.is_watched:
                continue
            is_busy = True
            if now_s - worker.since_s < LOOK_S and not worker.asked:
                continue
            watch = watches.get(number)
            if watch is not None:
                self._watches[number] = watch
            depth = _first_depth(worker) if watch is None else watch.depth
            (pages if depth == PAGE else closer).append((number, depth))
        state.look_due_s = now_s + LOOK_S if is_busy else NEVER_S
        if len(closer) > PROBES_MAX:
            closer.sort(key=lambda row: self._probed_s(row[0]))
            pages += [(number, PAGE) for number, _ in closer[PROBES_MAX:]]
            del closer[PROBES_MAX:]
        if pages or closer:
            threads = {number: self._threads(number) for number, _ in closer}
            threads = {number: found for number, found in threads.items() if found}
            state.commands.append(LookAt(closer + pages, threads))

    def _threads(self, number: int) -> list[int]:
        """Return the threads in which an actor's calls run, those that have run longest."""
        hosted = self._state.workers[number].actor
        if hosted is None or not hosted.in_threads:
            return []
        return [one.thread for one in hosted.begun.values() if one.thread][:CALLS_MAX]

    def _probed_s(self, number: int) -> float:
        # Those longest not looked at come first.
        watch = self._watches.get(number)
        if watch is None or watch.probed_s is None:
            return -NEVER_S
        return watch.probed_s - watch.clock_s

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        due_s = self._state.look_due_s
        return None if due_s == NEVER_S else due_s

    def seen(self, event: Seen, now_s: float) -> bool:
        """Judge by what was seen; return whether there is news."""
        news = False
        for row in event.rows:
            worker = self._state.workers.get(row.worker)
            if worker is None or not worker.sees(row.running, row.phase):
                continue
            seq = row.running or (0 if row.phase == HEALTH_CHECK else next(iter(worker.rows())))
            watch = self._watches.get(row.worker)
            if watch is None or watch.seq != seq:
                after_s = self._state.settings.unkillable_after_s
                watch = self._watches[row.worker] = Watch(seq, now_s, after_s)
            if watch.see(row, now_s):
                news = True
                self._note(worker, watch, now_s)
            attempt = worker.about(watch.seq)
            if attempt is None:
                continue
            if watch.verdict in _ENDED and watch.is_judged and not watch.handed:
                self._hand_over(worker, attempt, watch, now_s)
            if seq and (attempt.kind.options.limits is not None or worker.actor is not None):
                self._limited(worker, attempt, watch, now_s)
        return news

    def _note(self, worker: Worker, watch: Watch, now_s: float) -> None:
        attempt = worker.about(watch.seq)
        if attempt is not None and watch.verdict in (GIL_HELD, DEADLOCK, STOPPED, UNKILLABLE):
            text = f"{attempt.kind.name} in worker {worker.number} is {watch.verdict}"
            self._state.note(now_s, f"{text}: {watch.told().evidence}")

    def _hand_over(self, worker: Worker, attempt: Attempt, watch: Watch, now_s: float) -> None:
        _, limit_s = limit_of(watch.verdict, self._state.settings)
        if limit_s and watch.clock_s - watch.lasts_s >= limit_s:
            watch.handed = True
            self._hung(worker, attempt, watch, now_s)

    # -------------------------------------------------------------------------------- what is known

    def row(self, worker: Worker, now_s: float) -> RunningRow | None:
        """Return what the scheduler is told of a worker's call; None: it has none."""
        watch = self._watches.get(worker.number)
        attempt = None if watch is None else worker.about(watch.seq)
        if attempt is None or watch is None:
            attempt = next(iter(worker.rows().values()), None)
            if attempt is None:
                return None
            row, hosted = attempt.row, worker.actor
            if hosted is not None and hosted.up and hosted.concurrency:
                return None  # nobody has looked whether it has begun
            ran_s = max(0.0, now_s - worker.since_s)
            return RunningRow(row.id, row.attempt, ran_s, pid=worker.pid)
        row, told = attempt.row, watch.told()
        elapsed_s = max(0.0, now_s - worker.since_s)
        if watch.elapsed_s > 0.0:
            elapsed_s = watch.elapsed_s + max(0.0, now_s - watch.seen_s)
        return RunningRow(
            row.id, row.attempt, elapsed_s, PHASE_NAMES[watch.phase], told.name,
            max(0.0, told.for_s), told.where, told.evidence, watch.done, watch.total,
            watch.unheard_s if watch.progress else -1.0, watch.progress, worker.pid,
            watch.cpu_share, watch.memory_bytes,
        )  # fmt: skip

    def clear(self) -> None:
        """Forget all: the link's life is over."""
        self._watches.clear()


def _first_depth(worker: Worker) -> int:
    """Return how closely to look at a call for the first time: its limit may be over already."""
    attempt = next(iter(worker.rows().values()), None)
    return PAGE if attempt is None or attempt.kind.options.limits is None else PROCESS
