"""Real faults under real limits: each is stopped and told with its stack, and nobody else notices.

The ladder's steps are short here; what each may take is the limit, half a second, and the steps.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.ids import show
from drumbeat.protocol.session import current
from support.stalls import Lap, Watch
from support.waiting import until

pytestmark = pytest.mark.integration

LIMIT_S = 2.0
CANCEL_S, TERM_S = 0.4, 0.4
#: a call is judged so long after its start, by its worker's own clock
JUDGED_S = LIMIT_S + 0.5
#: from its submission until its error is here: the ladder, and what a busy machine adds
STOPPED_S = JUDGED_S + CANCEL_S + TERM_S + 1.0
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=6, cancel_grace_s=CANCEL_S, term_grace_s=TERM_S) as made:
        # A worker for each, so that no start of a process is measured.
        drumbeat.get([drumbeat.remote(time.sleep).remote(0.3) for _ in range(6)])
        yield made


# -------------------------------------------------------------------------------------- the faults


def spins() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(1e9)


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire()


def locks_twice_with_the_gil() -> None:
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def backtracks() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def receives() -> None:
    ours, _theirs = socket.socketpair()
    ours.recv(1)


#: what each is called, and whether Python can interrupt it: then its actor survives
FAULTS = [
    (spins, "running", True),
    (sleeps, "blocked", True),
    (waits_for_a_lock, "blocked", True),
    (locks_twice_with_the_gil, "deadlock", False),
    (backtracks, "gil-busy", True),
    (receives, "blocked", True),
]


class Bystanders:
    """Another actor and a row of tasks, at work all the while; they must not notice."""

    def __init__(self) -> None:
        @drumbeat.remote
        class Counter:
            def __init__(self) -> None:
                self.count = 0

            def add(self) -> int:
                self.count += 1
                return self.count

        self.counter = Counter.remote()
        self.pauses_s: list[float] = []
        self.answers: list[int] = []
        self.squares: list[int] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        square = drumbeat.remote(lambda number: number * number)
        while not self._over.is_set():
            began_s = time.monotonic()
            ref = square.remote(len(self.squares))
            self.answers.append(drumbeat.get(self.counter.add.remote(), timeout=30))
            self.squares.append(drumbeat.get(ref, timeout=30))
            self.pauses_s.append(time.monotonic() - began_s)
            self._over.wait(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def did_not_notice(self) -> bool:
        count = len(self.answers)
        right = self.answers == list(range(1, count + 1))
        return right and count > 0 and self.squares == [number**2 for number in range(count)]


def stopped(ref: Any, kind: type[BaseException]) -> tuple[Any, Lap]:
    """Return the error that a reference ends with, and how long that took."""
    watch = Watch()
    with pytest.raises(kind) as caught:
        drumbeat.get(ref, timeout=60)
    return caught.value, watch.lap()


def check(error: Any, fault: Callable[[], None], verdict: str, lap: Lap) -> None:
    assert f"{fault.__name__}" in error.stack, error
    assert error.stacks.rstrip().count("\n") > 2
    # Without a processor for long enough, less is proven by then.
    assert error.verdict.partition(":")[0] in (verdict, "running"), error
    assert LIMIT_S <= error.elapsed_s <= JUDGED_S + lap.stalled_s
    assert lap.own_s <= STOPPED_S
    assert re.match(r"stack \d\d:\d\d:\d\d · cancel", error.actions), error
    assert (error.limit, error.limit_s) == ("timeout", LIMIT_S)
    assert error.pid > 0
    assert error.node
    lines = str(error).splitlines()
    assert "took longer than its timeout of 2 s on node" in lines[0]
    assert [line[:10] for line in lines[1:]] == ["  verdict ", "  actions ", "  stack   "]


@pytest.mark.parametrize(("fault", "verdict", "_"), FAULTS)
def test_a_task_with_a_limit_is_stopped_in_time_and_told_with_its_stack(
    fault: Callable[[], None], verdict: str, _: bool
) -> None:
    with Bystanders() as others:
        error, lap = stopped(
            drumbeat.remote(fault).options(timeout=LIMIT_S).remote(), drumbeat.TaskTimedOut
        )
    check(error, fault, verdict, lap)
    assert error.attempt == 1, "it is not tried again"
    assert others.did_not_notice()


class Victim:
    """An actor whose methods are the faults."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def fails(self, fault: Callable[[], None]) -> None:
        fault()

    def note(self, number: int) -> tuple[int, list[int]]:
        self.calls.append(number)
        return os.getpid(), list(self.calls)


@pytest.mark.parametrize(("fault", "verdict", "survives"), FAULTS)
def test_an_actors_call_with_a_limit_is_stopped_and_what_is_queued_goes_on_in_order(
    fault: Callable[[], None], verdict: str, survives: bool
) -> None:
    victim = drumbeat.remote(Victim).options(max_restarts=3, timeout=LIMIT_S).remote()
    pid, _ = drumbeat.get(victim.note.remote(0))
    with Bystanders() as others:
        ref = victim.fails.remote(fault)
        queued = [victim.note.remote(number) for number in range(1, 21)]
        error, lap = stopped(ref, drumbeat.TaskTimedOut)
        noted = drumbeat.get(queued, timeout=30)
    check(error, fault, verdict, lap)
    assert error.pid == pid
    assert {at for at, _ in noted} == {noted[0][0]}
    assert (noted[0][0] == pid) == survives
    assert noted[-1][1] == ([0] if survives else []) + list(range(1, 21))
    assert others.did_not_notice()


def test_without_a_limit_each_of_an_actors_faults_shows_for_what_it_is_and_none_is_ended() -> None:
    victims = [drumbeat.remote(Victim).remote() for _ in FAULTS]
    drumbeat.get([victim.note.remote(0) for victim in victims])
    refs = [
        victim.fails.remote(fault) for victim, (fault, _, _) in zip(victims, FAULTS, strict=True)
    ]
    expected = {show(ref.id): verdict for ref, (_, verdict, _) in zip(refs, FAULTS, strict=True)}

    def told() -> dict[str, str]:
        rows = current().query("tasks")  # type: ignore[union-attr]
        return {row["id"]: row["verdict"] for row in rows if row["id"] in expected}

    try:
        until(lambda: told() == expected)
        time.sleep(1.0)
        # Who has had little of a processor since then is said to run, and no more.
        left = told()
        assert left.keys() == expected.keys()
        assert all(left[id_] in (verdict, "running") for id_, verdict in expected.items()), left
    finally:
        for victim in victims:
            drumbeat.kill(victim)


# ---------------------------------------------------------------------- what a call may do about it


def test_a_call_that_catches_the_interruption_hands_over_its_best_so_far() -> None:
    def searches() -> tuple[str, int]:
        best = 0
        try:
            while True:
                best += 1
                drumbeat.progress(best, details={"best": best})
                time.sleep(0.01)
        except drumbeat.Interrupted as interrupted:
            return interrupted.reason, best

    error, lap = stopped(
        drumbeat.remote(searches).options(timeout=1.0).remote(), drumbeat.TaskTimedOut
    )
    assert lap.own_s <= 2.5 + CANCEL_S
    reason, best = error.partial
    assert (error.has_partial, reason) == (True, "timed_out")
    assert best > 10
    assert 0 < error.last_details["best"] <= best
    assert error.progress


@pytest.mark.parametrize("kind", [Exception, BaseException])
def test_who_swallows_the_interruption_is_terminated(kind: type[BaseException]) -> None:
    def swallows(kind: type[BaseException]) -> None:
        while True:
            with contextlib.suppress(kind):
                time.sleep(1e6)

    error, lap = stopped(
        drumbeat.remote(swallows).options(timeout=1.0).remote(kind), drumbeat.TaskTimedOut
    )
    assert lap.own_s <= 2.5 + CANCEL_S + TERM_S
    ended = ("SIGTERM" in error.actions, "SIGKILL" in error.actions)
    assert ended == ((False, False) if kind is Exception else (True, False)), error.actions


def test_who_ignores_sigterm_as_well_is_killed_with_all_its_children() -> None:
    def ignores() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(1e6)

    error, lap = stopped(
        drumbeat.remote(ignores).options(timeout=1.0).remote(), drumbeat.TaskTimedOut
    )
    assert error.actions.endswith("SIGKILL"), error.actions
    assert lap.own_s <= 2.5 + CANCEL_S + TERM_S


def test_what_says_that_it_progresses_runs_on_and_hangs_when_it_does_no_more() -> None:
    def works(stops_at: int) -> int:
        for count in range(30):
            drumbeat.progress(count, 30, f"tile {count}")
            time.sleep(0.1 if count < stops_at else 1e6)
        return 30

    task = drumbeat.remote(works).options(heartbeat_timeout=1.0, max_retries=0)
    well, ill = task.remote(100), task.remote(5)
    error, lap = stopped(ill, drumbeat.TaskHung)
    assert lap.all_s >= 1.2
    assert lap.own_s <= 0.5 + 1.0 + 1.5 + CANCEL_S
    assert re.search(r'progress: 5/30 "tile 5", \d s ago', str(error))
    assert "made no progress for " in str(error)
    assert error.last_details == "tile 5"
    assert drumbeat.get(well, timeout=30) == 30


def test_a_hung_task_is_tried_again_with_what_it_told_last(tmp_path: Path) -> None:
    def goes_on_where_it_was() -> tuple[int, Any]:
        here = drumbeat.current()
        if here.attempt == 1:
            drumbeat.progress(7, 10, details={"row": 7})
            time.sleep(1e6)
        return here.attempt, here.last_details

    task = drumbeat.remote(goes_on_where_it_was).options(heartbeat_timeout=1.0, max_retries=1)
    assert drumbeat.get(task.remote(), timeout=30) == (2, {"row": 7})


def test_who_takes_more_memory_than_it_may_is_ended_and_told_the_peak() -> None:
    def hoards() -> None:
        held = []
        while True:
            held.append(bytearray(b"x") * (8 * MIB))
            time.sleep(0.02)

    task = drumbeat.remote(hoards).options(memory_max="200 MiB", max_retries=0)
    error, lap = stopped(task.remote(), drumbeat.WorkerOutOfMemory)
    assert "more than its memory_max of 200 MiB" in str(error)
    assert 200 * MIB < error.peak_bytes < 500 * MIB
    assert error.limit_bytes == 200 * MIB
    assert "hoards" in error.stack
    assert lap.own_s < 5.0


def test_an_actor_that_holds_too_much_memory_is_made_anew() -> None:
    class Hoarder:
        def __init__(self) -> None:
            self.held = b""

        def take(self, mib: int) -> int:
            self.held = bytes(1) * (mib * MIB)
            time.sleep(1.0)
            return os.getpid()

    hoarder = drumbeat.remote(Hoarder).options(max_restarts=1, memory_max="200 MiB").remote()
    pid = drumbeat.get(hoarder.take.remote(1), timeout=30)
    error, _ = stopped(hoarder.take.remote(300), drumbeat.WorkerOutOfMemory)
    assert error.pid == pid
    assert drumbeat.get(hoarder.take.remote(1), timeout=30) != pid


# --------------------------------------------------------------------------------- who is let alone


def test_a_stopped_worker_is_never_ended_for_its_limits_and_goes_on(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def works() -> int:
        pid_file.write_text(f"{os.getpid()}\n")
        end_s = time.monotonic() + 60.0
        for count in range(12):
            drumbeat.progress(count)
            time.sleep(0.1)
            assert time.monotonic() < end_s
        return os.getpid()

    task = drumbeat.remote(works).options(timeout=3.0, heartbeat_timeout=3.0, max_retries=0)
    ref = task.remote()
    pid = int(until(lambda: pid_file.exists() and pid_file.read_text().strip()))
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(5.0)
        verdicts = [row["verdict"] for row in current().query("tasks")]  # type: ignore[union-attr]
        assert "stopped" in verdicts
    finally:
        os.kill(pid, signal.SIGCONT)
    assert drumbeat.get(ref, timeout=30) == pid


def test_a_slow_import_is_not_part_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "import sys, time\n"
        "if sys.argv[0] == 'drumbeat-worker':\n"
        "    time.sleep(3.0)\n"
        "def work():\n"
        "    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_to_import  # type: ignore[import-not-found]

    task = drumbeat.remote(slow_to_import.work)
    refs = [task.options(timeout=1.0, max_retries=0).remote() for _ in range(3)]
    assert drumbeat.get(refs, timeout=60) == [7, 7, 7]


class Slow:
    """Takes its time to be unpickled, as a huge argument does."""

    def __reduce__(self) -> Any:
        return (time.sleep, (2.5,))


def test_a_slow_argument_is_not_part_of_the_time() -> None:
    task = drumbeat.remote(lambda _value: 7).options(timeout=1.0, heartbeat_timeout=1.0)
    assert drumbeat.get(task.remote(Slow()), timeout=60) == 7


def test_a_large_argument_is_carried_and_read_without_a_verdict() -> None:
    task = drumbeat.remote(len).options(timeout=2.0, heartbeat_timeout=2.0, max_retries=0)
    assert drumbeat.get(task.remote(bytes(60 * MIB)), timeout=60) == 60 * MIB


def test_four_times_more_work_than_processors_is_never_ended() -> None:
    def works() -> int:
        end_s, count = time.monotonic() + 3.0, 0
        while time.monotonic() < end_s:
            count += 1
            if not count % 1000:
                drumbeat.progress(count)
        return 1

    task = drumbeat.remote(works).options(
        num_cpus=0.5, timeout=30.0, heartbeat_timeout=2.0, max_retries=0
    )
    count = min(12, 4 * len(os.sched_getaffinity(0)))
    assert drumbeat.get([task.remote() for _ in range(count)], timeout=120) == [1] * count


def test_a_stopped_scheduler_ends_nobody_when_it_goes_on(cluster: Cluster) -> None:
    task = drumbeat.remote(time.sleep).options(timeout=6.0, total_timeout=8.0, max_retries=0)
    refs = [task.remote(3.0) for _ in range(3)]
    ids = {show(ref.id) for ref in refs}

    def running() -> set[str]:
        rows = current().query("tasks")  # type: ignore[union-attr]
        return {row["id"] for row in rows if row["state"] == "running"}

    until(lambda: ids <= running())
    pid = int(cluster.processes["scheduler"])
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(2.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert drumbeat.get(refs, timeout=30) == [None] * 3


def test_a_stopped_daemon_ends_nobody_when_it_goes_on() -> None:
    task = drumbeat.remote(time.sleep).options(timeout=6.0, max_retries=0)
    ref = task.remote(4.0)
    until(lambda: [row for row in current().query("tasks") if row["state"] == "running"])  # type: ignore[union-attr]
    (node,) = current().query("nodes")  # type: ignore[union-attr]
    os.kill(node["pid"], signal.SIGSTOP)
    try:
        time.sleep(1.5)
    finally:
        os.kill(node["pid"], signal.SIGCONT)
    assert drumbeat.get(ref, timeout=30) is None
