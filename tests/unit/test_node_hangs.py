"""Verdicts on what runs: each with its evidence, and none without."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from drumbeat.node.events import (
    FUTEX,
    IN_CPU,
    OTHER,
    PAGE,
    PROCESS,
    THREADS,
    Evidence,
    LookAt,
    Seen,
)
from drumbeat.node.hangs import (
    BLOCKED,
    DEADLOCK,
    GIL_BUSY,
    GIL_HELD,
    LOOK_S,
    PROBES_MAX,
    RUNNING,
    STOPPED,
    UNKILLABLE,
    Hangs,
    Watch,
)  # fmt: skip
from drumbeat.node.page import (
    FETCHING,
    IDLE,
    IMPORTING,
    PICKLING,
    RUNNING_CODE,
    UNPICKLING,
    WAITING,
)
from drumbeat.protocol.messages import Options
from drumbeat.protocol.settings import Settings
from hypothesis import example, given
from hypothesis import strategies as st

HANG_S, UNKILLABLE_S = 10.0, 5.0


@dataclass
class Stage:
    """A worker that does what is said, looked at four times a second."""

    now_s: float = 100.0
    beat: int = 0
    cpu_s: float = 1.0
    io_bytes: int = 1000
    progress: int = 0
    watch: Watch = field(default_factory=lambda: Watch(1, 100.0, UNKILLABLE_S))
    began_s: float = 100.0
    seen: list[str] = field(default_factory=list)

    def does(self, seconds: float, *, step_s: float = LOOK_S, **how: Any) -> str:
        """Let it go on like this for so long; return the verdict then."""
        for _ in range(round(seconds / step_s)):
            self.now_s += step_s
            self.beat += how.get("beats", True)
            self.cpu_s += step_s * how.get("cpu", 0.0)
            self.progress += how.get("progresses", 0)
            self.io_bytes += int(step_s * how.get("io", 0))
            depth = self.watch.depth
            row = Evidence(
                1, self.beat, 1, how.get("phase", RUNNING_CODE), self.now_s - self.began_s,
                self.progress,
            )  # fmt: skip
            if depth != PAGE:
                row = Evidence(
                    1, self.beat, 1, row.phase, row.elapsed_s, self.progress,
                    how.get("state", "S"), self.cpu_s,
                    self.io_bytes if how.get("io_known", True) else -1,
                    how.get("threads", FUTEX) if depth == THREADS else "",
                    how.get("where", "futex"),
                )  # fmt: skip
            self.watch.see(row, self.now_s)
            self.seen.append(self.watch.verdict)
        return self.watch.verdict


STALE = {"beats": False}
TABLE = [
    (RUNNING, {"cpu": 1.0, "state": "R"}),
    (RUNNING, {"cpu": 0.05}),
    (RUNNING, {"io": 4000}),
    (BLOCKED, {"where": "recvfrom"}),
    (BLOCKED, {"cpu": 0.005}),
    (GIL_BUSY, {**STALE, "cpu": 1.0, "state": "R"}),
    (GIL_BUSY, {**STALE, "cpu": 0.3, "state": "R"}),
    (DEADLOCK, {**STALE, "threads": FUTEX}),
    (DEADLOCK, {**STALE, "threads": FUTEX, "cpu": 0.002}),
    (GIL_HELD, {**STALE, "threads": OTHER, "where": "clock_nanosleep"}),
    (GIL_HELD, {**STALE, "threads": ""}),
    (GIL_HELD, {**STALE, "threads": FUTEX, "io_known": False}),
    (RUNNING, {**STALE, "threads": FUTEX, "io": 4000}),
    (STOPPED, {**STALE, "state": "T"}),
    (STOPPED, {**STALE, "state": "t", "threads": FUTEX}),
    ("importing", {"phase": IMPORTING}),
    ("importing", {**STALE, "phase": IMPORTING, "cpu": 1.0}),
    ("importing", {**STALE, "phase": IMPORTING, "threads": FUTEX}),
    ("unpickling", {**STALE, "phase": UNPICKLING, "cpu": 1.0}),
    ("pickling", {**STALE, "phase": PICKLING, "cpu": 1.0}),
    (DEADLOCK, {**STALE, "phase": PICKLING, "threads": FUTEX}),
    ("waiting", {"phase": WAITING}),
    ("waiting", {**STALE, "phase": WAITING, "threads": OTHER}),
    (DEADLOCK, {**STALE, "phase": WAITING, "threads": FUTEX}),
    (STOPPED, {**STALE, "phase": WAITING, "state": "T"}),
    ("waiting", {"phase": FETCHING}),
    (DEADLOCK, {**STALE, "phase": FETCHING, "threads": FUTEX}),
    ("idle", {**STALE, "phase": IDLE, "threads": OTHER}),
    ("idle", {**STALE, "phase": IDLE, "cpu": 1.0, "state": "R"}),
    (DEADLOCK, {**STALE, "phase": IDLE, "threads": FUTEX}),
]


@pytest.mark.parametrize(("verdict", "how"), TABLE)
def test_each_verdict_follows_from_its_evidence_within_two_seconds(
    verdict: str, how: dict[str, Any]
) -> None:
    stage = Stage()
    assert stage.does(1.75, **how) == verdict
    assert stage.does(3.0, **how) == verdict, "and it stays"


@pytest.mark.parametrize(("verdict", "how"), TABLE)
def test_each_verdict_follows_too_when_the_call_had_run_well_for_long(
    verdict: str, how: dict[str, Any]
) -> None:
    stage = Stage()
    stage.does(20.0, cpu=1.0, state="R")
    assert set(stage.seen) == {RUNNING}
    assert stage.does(1.75, **how) == verdict


@pytest.mark.parametrize(("verdict", "how"), TABLE)
def test_what_goes_on_is_running_again(verdict: str, how: dict[str, Any]) -> None:
    stage = Stage()
    stage.does(4.0, **how)
    assert stage.does(1.25, cpu=1.0, state="R") == RUNNING, verdict


def test_unkillable_is_who_sleeps_uninterruptibly_without_a_pause() -> None:
    stage = Stage()
    assert stage.does(4.0, state="D", where="nfs_wait") == BLOCKED
    stage.does(0.75, state="S")
    assert stage.does(UNKILLABLE_S - 0.5, state="D") == BLOCKED
    assert stage.does(2.0, state="D") == UNKILLABLE


def test_who_says_that_it_progresses_is_not_called_blocked_however_much_it_sleeps() -> None:
    stage = Stage()
    assert stage.does(8.0, progresses=1) == RUNNING
    assert set(stage.seen) == {RUNNING}
    assert stage.does(2.0) == BLOCKED


def test_a_process_without_a_processor_is_not_said_to_hold_the_gil() -> None:
    stage = Stage()
    assert stage.does(8.0, beats=False, cpu=0.02, state="R", threads=IN_CPU) == RUNNING
    assert set(stage.seen) == {RUNNING}


def test_a_judge_that_was_away_judges_nobody_and_counts_nothing() -> None:
    stage = Stage()
    stage.does(2.0, cpu=1.0, state="R")
    # Everything stood still for an hour, the worker as well.
    stage.does(3600.0, step_s=3600.0, beats=False)
    assert stage.does(0.5, beats=False) == RUNNING
    assert stage.does(2.0, cpu=1.0, state="R") == RUNNING
    assert stage.watch.clock_s < 6.0


def test_a_pause_of_the_judge_does_not_make_a_deadlock_older() -> None:
    stage = Stage()
    stage.does(4.0, beats=False)
    before_s = stage.watch.told().for_s
    stage.does(600.0, step_s=600.0, beats=False)
    stage.does(1.0, beats=False)
    assert stage.watch.told().for_s <= before_s + 1.5


def test_a_stopped_process_is_no_deadlock_when_it_goes_on() -> None:
    stage = Stage()
    assert stage.does(500.0, beats=False, state="T", threads=FUTEX) == STOPPED
    assert stage.does(0.5, beats=False, threads=FUTEX) == RUNNING


def test_one_thread_in_another_call_or_with_a_processor_takes_the_proof_away() -> None:
    stage = Stage()
    assert stage.does(9.0, beats=False, threads=FUTEX) == DEADLOCK
    assert stage.does(0.25, beats=False, threads=OTHER) == GIL_HELD
    stage.does(1.0, beats=False, threads=FUTEX)
    assert stage.watch.told().for_s < 2.0
    # One that has a processor at that moment proves nothing: the pulse asks for the GIL so.
    assert stage.does(0.25, beats=False, threads=IN_CPU) == DEADLOCK


def test_the_verdict_is_told_with_its_evidence() -> None:
    stage = Stage()
    stage.does(3.0, where="recvfrom")
    told = stage.watch.told()
    assert (told.name, told.where) == (BLOCKED, "recvfrom")
    assert told.evidence.startswith("no CPU and no IO for ")
    assert told.evidence.endswith("sleeping in recvfrom; its interpreter turns")
    stage = Stage()
    stage.does(3.0, beats=False)
    assert stage.watch.told().evidence.endswith("every thread waits for a lock")


# ------------------------------------------------------------------------------- who is looked at


class FakeWorker:
    def __init__(self, number: int, busy: bool = True, since_s: float = 0.0) -> None:
        self.number = number
        self.dropped = False
        self.actor = None
        self.since_s = since_s
        self.is_busy = self.is_watched = busy
        self.asked = False
        self.flight = {1: FakeAttempt()} if busy else {}

    def rows(self) -> dict[int, "FakeAttempt"]:
        return self.flight

    def about(self, seq: int) -> "FakeAttempt | None":
        return self.flight.get(seq)

    def sees(self, _running: int, _phase: int) -> bool:
        return self.is_watched


class FakeRow:
    id, attempt = b"t" * 14, 1


class FakeKind:
    name = "resize"
    options = Options()


class FakeAttempt:
    row, kind = FakeRow(), FakeKind()


class FakeState:
    def __init__(self, *workers: FakeWorker) -> None:
        self.settings = Settings(hang_timeout_s=HANG_S, unkillable_after_s=UNKILLABLE_S)
        self.workers = {worker.number: worker for worker in workers}
        self.commands: list[Any] = []
        self.look_due_s = LOOK_S

    def note(self, now_s: float, text: str) -> None:
        pass


def judge(*workers: FakeWorker) -> tuple[Hangs, FakeState, list[Any]]:
    state, hung = FakeState(*workers), []
    hangs = Hangs(
        state,  # type: ignore[arg-type]
        lambda *told: hung.append(told),
        lambda *told: pytest.fail(f"it has no limits: {told}"),
    )
    return hangs, state, hung


def looks(hangs: Hangs, state: FakeState, now_s: float) -> list[tuple[int, int]]:
    if now_s >= state.look_due_s:
        hangs.turn(now_s)
    rows = [row for command in state.commands if type(command) is LookAt for row in command.rows]
    state.commands.clear()
    return rows


def test_nobody_is_looked_at_and_nothing_is_wanted_when_all_are_idle() -> None:
    hangs, state, _ = judge(*(FakeWorker(n, busy=False) for n in range(1, 1001)))
    assert looks(hangs, state, 0.0) == []
    assert hangs.deadline_s() == LOOK_S
    assert looks(hangs, state, LOOK_S) == []
    assert hangs.deadline_s() is None


def test_short_calls_are_not_looked_at() -> None:
    worker = FakeWorker(1)
    hangs, state, _ = judge(worker)
    looks(hangs, state, 0.0)
    for step in range(1, 40):
        worker.since_s = step * LOOK_S - 0.1
        assert looks(hangs, state, step * LOOK_S) == []


def test_a_process_is_looked_at_when_its_call_is_a_second_old_or_its_pulse_late() -> None:
    hangs, state, _ = judge(FakeWorker(1), FakeWorker(2))
    looks(hangs, state, 0.0)
    depths: list[dict[int, int]] = []
    for step in range(1, 6):
        rows = looks(hangs, state, step * LOOK_S)
        depths.append(dict(rows))
        hangs.seen(
            Seen(
                [
                    Evidence(1, step, 1, RUNNING_CODE, step * LOOK_S),
                    Evidence(2, 1, 1, RUNNING_CODE, step * LOOK_S),
                ]
            ),
            step * LOOK_S,
        )
    assert [row[1] for row in depths] == [PAGE, PAGE, PAGE, PROCESS, PROCESS]
    assert [row[2] for row in depths] == [PAGE, PAGE, PAGE, THREADS, THREADS]


def test_so_many_processes_are_looked_at_in_a_turn_and_all_come_round() -> None:
    workers = [FakeWorker(n) for n in range(1, 101)]
    hangs, state, _ = judge(*workers)
    looks(hangs, state, 0.0)
    probed: dict[int, int] = {}
    for step in range(1, 40):
        rows = looks(hangs, state, step * LOOK_S)
        assert len(rows) == 100
        closer = [number for number, depth in rows if depth != PAGE]
        assert len(closer) <= PROBES_MAX
        for number in closer:
            probed[number] = probed.get(number, 0) + 1
        hangs.seen(
            Seen(
                [
                    Evidence(
                        n, step, 1, RUNNING_CODE, step * LOOK_S, 0, "R" if d else "", float(step)
                    )
                    for n, d in rows
                ]
            ),
            step * LOOK_S,
        )
    assert set(probed) == set(range(1, 101))
    assert min(probed.values()) >= max(probed.values()) - 3


def run_deadlock(seconds: float, **changes: Any) -> tuple[list[Any], FakeState, Hangs]:
    hangs, state, hung = judge(FakeWorker(1))
    looks(hangs, state, 0.0)
    for step in range(1, round(seconds / LOOK_S)):
        now_s = step * LOOK_S
        for number, depth in looks(hangs, state, now_s):
            row = Evidence(number, 1, 1, RUNNING_CODE, now_s)
            if depth != PAGE:
                fields = {"state": "S", "io_bytes": 5, "threads": FUTEX, "where": "futex"}
                row = Evidence(
                    number, 1, 1, RUNNING_CODE, now_s, 0, **({"cpu_s": 1.0} | fields | changes)
                )
            hangs.seen(Seen([row]), now_s)
    return hung, state, hangs


def test_a_deadlock_is_handed_over_once_when_it_has_lasted_for_hang_timeout() -> None:
    assert run_deadlock(HANG_S)[0] == []
    hung, _, _ = run_deadlock(3 * HANG_S)
    ((worker, attempt, watch, now_s),) = hung
    assert (worker.number, attempt.row.attempt, watch.verdict) == (1, 1, DEADLOCK)
    assert HANG_S <= now_s <= HANG_S + 2.0


@example(
    [(False, "S", 0.0, 0, FUTEX, IDLE, LOOK_S, 1)] * 6
    + [
        (False, "S", 0.0, 0, FUTEX, IMPORTING, LOOK_S, 40),
        (False, "S", 0.0, 0, FUTEX, IDLE, LOOK_S, 1),
    ]
)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(["S", "R", "D", "T", "t"]),
            st.sampled_from([0.0, 0.001, 0.01, 0.25]),
            st.sampled_from([0, 0, 0, 100, None]),
            st.sampled_from([FUTEX, FUTEX, FUTEX, IN_CPU, OTHER, ""]),
            st.sampled_from(
                [IDLE, UNPICKLING, RUNNING_CODE, RUNNING_CODE, WAITING, IMPORTING, FETCHING]
            ),
            st.sampled_from([LOOK_S, LOOK_S, LOOK_S, 0.9, 5.0, 500.0]),
            st.integers(1, 60),
        ),
        max_size=12,
    )
)
def test_nothing_is_ended_without_two_bits_of_evidence_over_the_whole_time(
    spells: list[tuple[bool, str, float, int | None, str, int, float, int]],
) -> None:
    """Who is handed over had a stale pulse, and all threads at locks, throughout."""
    hangs, state, hung = judge(FakeWorker(1))
    now_s, beat, cpu_s, io_bytes, proof_s = 0.0, 0, 0.0, 0, 0.0
    looks(hangs, state, now_s)
    for beats, state_letter, cpu, io, threads, phase, step_s, count in spells:
        for _ in range(count):
            now_s += step_s
            beat, cpu_s, io_bytes = beat + beats, cpu_s + cpu, io_bytes + (io or 0)
            proves = not beats and io == 0 and cpu < 0.25 and threads in (FUTEX, IN_CPU)
            proves = proves and phase != IMPORTING and state_letter in ("S", "D")
            proof_s = proof_s + min(step_s, 1.5 * LOOK_S) if proves else 0.0
            for number, depth in looks(hangs, state, now_s):
                row = Evidence(number, beat, 1, phase, now_s)
                if depth != PAGE:
                    row = Evidence(
                        number, beat, 1, phase, now_s, 0, state_letter, cpu_s,
                        -1 if io is None else io_bytes, threads if depth == THREADS else "",
                    )  # fmt: skip
                before = len(hung)
                hangs.seen(Seen([row]), now_s)
                if len(hung) > before:
                    assert proof_s >= HANG_S - 1.0, (proof_s, spells)
