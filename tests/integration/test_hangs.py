"""Real faults in real workers: what the command line says of each, and that nothing else ends."""

import contextlib
import ctypes
import json
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
from typing import Any

import drumbeat
import pytest
from drumbeat.client import cli_commands
from drumbeat.protocol.ids import show
from drumbeat.protocol.session import current
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration

#: what `tasks` must say of a hung call within so long of its start
SEEN_S = 2.0
HANG_S = 3.0
#: of whatever runs well
GOOD = {"", "running", "idle", "unpickling", "importing", "pickling"}

Tell = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=8, hang_timeout_s=HANG_S, cancel_grace_s=0.3, term_grace_s=0.5):
        yield


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Type a command at this cluster; return what is printed."""

    def typed(*words: str) -> str:
        capsys.readouterr()
        cli_commands.main(words, lambda _address: contextlib.nullcontext(current()))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return typed


@pytest.fixture
def running() -> Iterator[list[Any]]:
    """References of what a test started, ended after it."""
    refs: list[Any] = []
    yield refs
    for ref in refs:
        drumbeat.cancel(ref, force=True)
    until(lambda: not current().query("tasks"))


def row_of(tell: Tell, ref: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = json.loads(tell("tasks", "--json"))
    return next((row for row in rows if row["id"] == show(ref.id)), {})


def said_of(tell: Tell, ref: Any, verdict: str) -> dict[str, Any]:
    """Return the task's row once it has this verdict, with what it was called before that."""
    before: list[str] = []
    imported_s = 0.0

    def has_it() -> dict[str, Any]:
        nonlocal imported_s
        row = row_of(tell, ref)
        if row.get("verdict") == verdict:
            return row | {"before": before, "ran_s": row["running_s"] - imported_s}
        before.append(row.get("verdict", ""))
        if row.get("phase") == "importing":
            imported_s = row["running_s"]
        return {}

    found: dict[str, Any] = until(has_it)
    return found


def is_in(ref: Any, function: Callable[[], None]) -> bool:
    """Say whether a task's stacks show a function."""
    (row,) = current().query("stack", match=show(ref.id))
    return f"in {function.__name__}\n" in row["stack"]


# -------------------------------------------------------------------------------------- the faults


def sleeps() -> None:
    time.sleep(1e6)


def receives() -> None:
    ours, _theirs = socket.socketpair()
    ours.recv(1)


def waits_for_a_lock() -> None:
    lock = threading.Lock()
    with lock:
        lock.acquire()


def spins() -> None:
    while True:
        pass


def backtracks() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def locks_twice_with_the_gil() -> None:
    libc = ctypes.PyDLL(None)
    mutex = ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def goes_up_and_down() -> None:
    def down(steps: int) -> int:
        return down(steps - 1) if steps else 0

    while True:
        down(30)


def sleeps_with_the_gil() -> None:
    ctypes.PyDLL(None).poll(None, 0, 1_000_000)


@pytest.mark.parametrize(
    ("fault", "verdict", "wheres"),
    [
        (sleeps, "blocked", {"clock_nanosleep", "pselect6", "hrtimer_nanosleep"}),
        (receives, "blocked", {"recvfrom", "unix_stream_read_generic"}),
        (waits_for_a_lock, "blocked", {"futex"}),
        (backtracks, "gil-busy", {""}),
        (locks_twice_with_the_gil, "deadlock", {"futex"}),
        (sleeps_with_the_gil, "gil-held", {"poll", "ppoll", "do_poll.constprop.0"}),
    ],
)
def test_each_fault_is_seen_in_time_for_what_it_is(
    tell: Tell, running: list[Any], fault: Callable[[], None], verdict: str, wheres: set[str]
) -> None:
    watch = Watch()
    ref = drumbeat.remote(fault).remote()
    running.append(ref)
    row = said_of(tell, ref, verdict)
    assert row["ran_s"] <= SEEN_S + watch.stalled_s(), row
    assert set(row["before"]) <= GOOD, row
    assert row["where"] in wheres
    assert row["phase"] == "running"
    assert current().query("status")["calls"] == {verdict: 1}
    assert current().query("nodes")[0]["calls"] == {verdict: 1}
    assert verdict in tell("tasks")


@pytest.mark.parametrize("fault", [sleeps, spins, backtracks, sleeps_with_the_gil])
def test_without_a_limit_nothing_but_a_proven_deadlock_is_ended(
    tell: Tell, running: list[Any], fault: Callable[[], None]
) -> None:
    ref = drumbeat.remote(fault).remote()
    running.append(ref)
    row: dict[str, Any] = until(
        lambda: (r := row_of(tell, ref)) and (r["running_s"] or 0) > HANG_S + 1.5 and r
    )
    assert row["attempt"] == 1
    assert row["state"] == "running"


def test_a_deadlock_is_ended_after_hang_timeout_and_says_by_what_evidence(tell: Tell) -> None:
    ref = drumbeat.remote(locks_twice_with_the_gil).options(max_retries=0).remote()
    other = drumbeat.remote(time.sleep).remote(HANG_S + 3.0)
    with pytest.raises(drumbeat.TaskHung) as caught:
        drumbeat.get(ref, timeout=30)
    assert caught.value.verdict.startswith("deadlock: GIL not released, no CPU and no IO for ")
    assert "locks_twice_with_the_gil made no progress for " in str(caught.value)
    assert "locks_twice_with_the_gil" in caught.value.stack
    assert re.fullmatch(
        r"stack \d\d:\d\d:\d\d · cancel, no effect in \d[\d.]* s · SIGTERM(, no .* s · SIGKILL)?",
        caught.value.actions,
    )
    assert drumbeat.get(other) is None


def test_a_task_that_hangs_each_time_is_tried_again_as_one_that_died_and_is_no_poison() -> None:
    ref = drumbeat.remote(locks_twice_with_the_gil).options(max_retries=1).remote()
    with pytest.raises(drumbeat.TaskHung) as caught:
        drumbeat.get(ref, timeout=60)
    assert (caught.value.attempt, caught.value.attempts) == (2, 2)


def test_a_deadlock_among_short_calls_is_ended_too_and_costs_the_others_nothing() -> None:
    def locks_at(number: int, at: int) -> int:
        if number == at:
            locks_twice_with_the_gil()
        return number

    task = drumbeat.remote(locks_at).options(max_retries=0)
    # So many, that they are known to be short and go to a worker several at a time.
    drumbeat.get([task.remote(number, -1) for number in range(3000)])
    refs = [task.remote(number, 33) for number in range(100)]
    with pytest.raises(drumbeat.TaskHung):
        drumbeat.get(refs[33], timeout=30)
    others = [number for number in range(100) if number != 33]
    assert drumbeat.get([refs[number] for number in others], timeout=30) == others


def test_a_call_in_a_deadlock_ends_its_actor_which_is_made_anew_and_an_idle_one_is_let_be(
    tell: Tell,
) -> None:
    class Locker:
        def locks(self) -> None:
            locks_twice_with_the_gil()

        def pid(self) -> int:
            return os.getpid()

    lockers = drumbeat.remote(Locker).options(max_restarts=1)
    idle, stuck = lockers.remote(), lockers.remote()
    pids = drumbeat.get([idle.pid.remote(), stuck.pid.remote()])
    ref, later = stuck.locks.remote(), stuck.pid.remote()
    said_of(tell, ref, "deadlock")
    assert current().query("status")["calls"] == {"deadlock": 1}
    (row,) = current().query("stack", match=show(ref.id))
    assert "in locks_twice_with_the_gil\n" in row["stack"]
    with pytest.raises(drumbeat.TaskHung):
        drumbeat.get(ref, timeout=30)
    assert drumbeat.get(later, timeout=30) not in pids
    assert drumbeat.get(idle.pid.remote()) == pids[0]


def test_an_actor_that_a_thread_of_its_own_has_stuck_is_made_anew_for_the_calls_it_never_took(
    tell: Tell, tmp_path: Path
) -> None:
    here = tmp_path / "stuck"

    class Haunted:
        def haunt(self) -> int:
            def later() -> None:
                time.sleep(0.3)  # the call is over
                sys.setswitchinterval(1000.0)  # from here on nobody is given the interpreter
                ctypes.PyDLL(None).creat(bytes(here), 0o600)
                locks_twice_with_the_gil()

            threading.Thread(target=later, daemon=True).start()
            return os.getpid()

        def pid(self) -> int:
            return os.getpid()

    haunted = drumbeat.remote(Haunted).options(max_restarts=1).remote()
    before = drumbeat.get(haunted.haunt.remote(), timeout=30)
    until(here.exists)
    ref = haunted.pid.remote()
    said_of(tell, ref, "deadlock")
    assert drumbeat.get(ref, timeout=30) != before


def test_a_stopped_worker_is_called_stopped_and_runs_again_when_it_is_let_go(
    tell: Tell, running: list[Any], tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"

    def counts() -> int:
        pid_file.write_text(f"{os.getpid()}\n")
        end_s = time.monotonic() + 3.0
        count = 0
        while time.monotonic() < end_s:
            count += 1
        return count

    ref = drumbeat.remote(counts).remote()
    running.append(ref)
    pid = int(until(lambda: pid_file.exists() and pid_file.read_text().strip()))
    os.kill(pid, signal.SIGSTOP)
    watch = Watch()
    try:
        said_of(tell, ref, "stopped")
        assert watch.own_s() <= SEEN_S
        (row,) = current().query("stack", match=show(ref.id))
        assert row["why"] == "it is stopped, and cannot write its stacks"
        until(lambda: row_of(tell, ref)["verdict_s"] > HANG_S)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert drumbeat.get(ref, timeout=20) > 0


def test_a_slow_import_is_an_import_and_nothing_worse(
    tell: Tell, running: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_module.py").write_text(
        "import sys, time\n"
        "if sys.argv[0] == 'drumbeat-worker':\n"
        "    time.sleep(3.0)\n"
        "def work():\n"
        "    return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_module  # type: ignore[import-not-found]

    ref = drumbeat.remote(slow_module.work).remote()
    running.append(ref)
    seen: set[str] = set()

    def done() -> bool:
        seen.add(row_of(tell, ref).get("verdict", ""))
        return bool(ref.done())

    until(done)
    assert drumbeat.get(ref) == 7
    assert "importing" in seen
    assert seen <= {"", "importing", "running"}, seen


def test_four_times_more_work_than_processors_is_not_called_anything(
    tell: Tell, running: list[Any]
) -> None:
    count = min(8, 4 * len(os.sched_getaffinity(0)))
    running += [drumbeat.remote(spins).remote() for _ in range(count)]
    seen: set[str] = set()
    end_s = time.monotonic() + 8.0

    def over() -> bool:
        seen.update(row["verdict"] for row in json.loads(tell("tasks", "--json")))
        return time.monotonic() > end_s

    until(over)
    assert seen <= GOOD, seen


@pytest.mark.parametrize("fault", [sleeps, spins, backtracks, locks_twice_with_the_gil])
def test_where_a_worker_is_is_told_in_a_tenth_of_a_second(
    tell: Tell, running: list[Any], fault: Callable[[], None]
) -> None:
    ref = drumbeat.remote(fault).remote()
    running.append(ref)
    until(lambda: row_of(tell, ref).get("phase") == "running")
    took_s = []
    # Where it is begins with what it is told to run, a moment after it is said to run.
    until(lambda: is_in(ref, fault))
    for _ in range(10):
        watch = Watch()
        (row,) = current().query("stack", match=show(ref.id))
        took_s.append(watch.own_s())
        assert f"in {fault.__name__}\n" in row["stack"], row
    assert min(took_s) <= 0.1, took_s  # the others wait for a processor that others have
    for words in ([show(ref.id)], [str(row["pid"])], [f"{row['node']}/{row['pid']}"], ["--all"]):
        shown = tell("stack", *words)
        assert f"test_hangs.py:{fault.__code__.co_firstlineno + 1}"[:14] in shown
        assert fault.__name__ in shown
        assert "node/worker.py" not in shown
    assert "node/worker.py" in tell("stack", show(ref.id), "--whole")


@pytest.mark.parametrize("does", [sleeps, spins, goes_up_and_down])
def test_a_worker_whose_interpreter_turns_is_not_signalled_for_its_stacks(
    tell: Tell, running: list[Any], does: Callable[[], None]
) -> None:
    def would_die() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # it would end the process
        threading.Thread(target=goes_up_and_down, daemon=True).start()
        does()

    ref = drumbeat.remote(would_die).options(max_calls=1).remote()
    running.append(ref)
    until(lambda: row_of(tell, ref).get("phase") == "running")
    until(lambda: is_in(ref, does) and is_in(ref, goes_up_and_down))
    for _ in range(10):
        (row,) = current().query("stack", match=show(ref.id))
        assert f"in {does.__name__}\n" in row["stack"], row
        assert "in goes_up_and_down\n" in row["stack"], row
    assert row_of(tell, ref)["attempt"] == 1


def test_a_worker_that_has_taken_the_signal_for_itself_is_not_signalled(
    tell: Tell, running: list[Any]
) -> None:
    def takes_the_signal() -> None:
        signal.signal(signal.SIGUSR2, signal.SIG_DFL)  # it would end the process
        locks_twice_with_the_gil()

    ref = drumbeat.remote(takes_the_signal).options(max_calls=1).remote()
    running.append(ref)
    said_of(tell, ref, "deadlock")
    said = tell("stack", show(ref.id))
    assert "no stack, its interpreter does not turn, and it does not listen to SIGUSR2" in said
    assert row_of(tell, ref)["attempt"] == 1


def test_an_idle_worker_can_be_asked_too(tell: Tell) -> None:
    pid = drumbeat.get(drumbeat.remote(os.getpid).remote())
    assert "main thread: in Drumbeat's own code" in tell("stack", str(pid))


def test_who_is_asked_for_and_is_not_there_is_an_error_in_words(
    capsys: pytest.CaptureFixture[str], tell: Tell
) -> None:
    for words, text in (
        (
            ["5f0c2b9a11d4-0-2a"],
            "there is no unfinished task and no living actor 5f0c2b9a11d4-0-2a",
        ),
        (["nowhere/17"], "there is no node 'nowhere'"),
        (["what?"], "'what?' is neither the id of a task or an actor, nor an actor's name, nor a "),
        (["1"], "no worker 1"),
    ):
        with pytest.raises(SystemExit) as caught:
            tell("stack", *words)
        assert caught.value.code == 1
        assert text in capsys.readouterr().err


def test_workers_that_are_fresh_interpreters_tell_as_well(tmp_path: Path) -> None:
    code = (
        "import json, time, drumbeat\n"
        "from drumbeat.protocol.session import current\n"
        "if __name__ == '__main__':\n"
        "    with drumbeat.init(num_cpus=1, worker_start='spawn'):\n"
        "        ref = drumbeat.remote(time.sleep).remote(60)\n"
        "        rows = []\n"
        "        end_s = time.monotonic() + 30\n"
        "        while time.monotonic() < end_s and 'blocked' not in str(rows):\n"
        "            rows = current().query('tasks')\n"
        "            time.sleep(0.02)\n"
        "        rows += current().query('stack')\n"
        "        drumbeat.cancel(ref, force=True)\n"
        "    print(json.dumps(rows))\n"
    )
    program = tmp_path / "program.py"
    program.write_text(code)
    done = subprocess.run(
        [sys.executable, str(program)], check=True, capture_output=True, text=True, timeout=60
    )
    task, stack = json.loads(done.stdout)
    assert (task["verdict"], stack["why"]) == ("blocked", "")
    assert "in _attempt\n" in stack["stack"]
