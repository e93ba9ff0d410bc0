"""Faults that are hard to come by, made for real: whom no signal reaches, clocks that jump.

Others of the table of verdicts: test_hangs, test_limits, test_worker_deaths, and below network.
"""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.ids import show
from drumbeat.protocol.machine import Memory
from drumbeat.protocol.session import current
from support.clocks import Clocks
from support.process_table import alive, state_of
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration

FAULTS = Path(__file__).parents[1] / "support" / "faults"
UNKILLABLE_S = 1.5
REAP_S = 1.0
QUICK = {"cancel_grace_s": 0.3, "term_grace_s": 0.3, "reap_timeout_s": REAP_S}
HOUR_S, DAY_S = 3600.0, 86_400.0


def rows(*names: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = current().query("tasks")  # type: ignore[union-attr]
    return [row for row in tasks if row["name"] in names or not names]


def row_of(ref: Any) -> dict[str, Any]:
    return next((row for row in rows() if row["id"] == show(ref.id)), {})


def told(kind: str = "") -> list[dict[str, Any]]:
    """Return the events of a kind."""
    answer = current().query("events", match=kind)  # type: ignore[union-attr]
    found: list[dict[str, Any]] = answer["events"]
    return found


@contextmanager
def let_go(fifo: Path) -> Iterator[None]:
    """At the end, who waits for somebody at the other end of the pipe goes on."""
    os.mkfifo(fifo)
    try:
        yield
    finally:
        is_waited_for(fifo)


def falls_into_an_uninterruptible_sleep(fifo: str) -> int:
    """Wait in the kernel for a child that shares our memory, and that waits for the pipe."""
    opens = [(os.POSIX_SPAWN_OPEN, 0, fifo, os.O_RDONLY, 0)]
    child = os.posix_spawn("/bin/true", ["true"], {}, file_actions=opens)
    os.waitpid(child, 0)
    return os.getpid()


# ------------------------------------------------------------------ 5: whom no signal reaches


def test_an_uninterruptible_sleep_is_told_and_nobody_is_ended_for_it(
    root: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    settings = {**QUICK, "unkillable_after_s": UNKILLABLE_S, "hang_timeout_s": 2.0}
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings), let_go(fifo):
        ref = drumbeat.remote(falls_into_an_uninterruptible_sleep).remote(str(fifo))
        row = until(lambda: (one := row_of(ref)).get("verdict") == "unkillable" and one)
        assert state_of(row["pid"]) == "D"
        assert row["verdict_s"] >= UNKILLABLE_S - 0.1
        assert row["evidence"].startswith("in an uninterruptible sleep for ")
        (event,) = until(lambda: told("unkillable"))
        assert event["severity"] == "warning"
        assert event["id"] == show(ref.id)
        assert drumbeat.get(drumbeat.remote(lambda: 7).remote(), timeout=20) == 7
        until(lambda: row_of(ref)["verdict_s"] > UNKILLABLE_S + 2.0)
        assert (row_of(ref)["attempt"], row_of(ref)["state"]) == (1, "running")
        with open(fifo, "w"):
            assert drumbeat.get(ref, timeout=20) == row["pid"]
        # Until it has slept for so long it is told of by what else is seen: it keeps the GIL.
        assert {row["kind"] for row in told("warning")} - {"gil-held"} == {"unkillable"}


def test_a_limit_ends_an_uninterruptible_sleep_that_the_kernel_lets_a_kill_end(
    root: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    settings = {**QUICK, "unkillable_after_s": UNKILLABLE_S}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **settings), let_go(fifo):
        task = drumbeat.remote(falls_into_an_uninterruptible_sleep).options(timeout=3.0)
        with pytest.raises(drumbeat.TaskTimedOut) as caught:
            drumbeat.get(task.remote(str(fifo)), timeout=30)
        error = caught.value
        assert error.verdict.startswith("unkillable: in an uninterruptible sleep for "), error
        assert error.actions.endswith("SIGKILL"), error
        assert not alive(error.pid)
        assert not is_waited_for(fifo), "its child is left"


def is_waited_for(fifo: Path) -> bool:
    """Return whether somebody waits for the other end of a pipe; who does goes on."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


class Holder:
    """Keeps a process from being reaped once it is dead: it traces it, and never asks how it ended.

    Of a process that is traced the kernel tells its parent nothing until its tracer has heard it.
    """

    CODE = (
        "import ctypes, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "seize = ctypes.c_long(0x4206), ctypes.c_long(int(sys.argv[1]))\n"
        "done = libc.ptrace(*seize, ctypes.c_void_p(0), ctypes.c_void_p(0))\n"
        "print(done, ctypes.get_errno(), flush=True)\n"
        "sys.stdin.read()\n"
    )

    def __init__(self, pid: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(pid)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.communicate("", timeout=10)


def lingers(path: str) -> None:
    """Let anybody of this user trace us, say who we are, and stay."""
    pr_set_ptracer, any_process = 0x59616D61, ctypes.c_ulong(2**64 - 1)
    ctypes.CDLL(None).prctl(pr_set_ptracer, any_process, 0, 0, 0)
    Path(path).write_text(f"{os.getpid()}\n")
    time.sleep(1e6)


@contextmanager
def held(
    count: int, directory: Path, **options: Any
) -> Iterator[tuple[list[Any], list[int], list[Holder]]]:
    """Have so many tasks whose processes will not be reaped when they are killed."""
    paths = [directory / f"pid{number}" for number in range(count)]
    task = drumbeat.remote(lingers).options(max_retries=0, **options)
    refs = [task.remote(str(path)) for path in paths]
    pids = [int(until(lambda path=path: path.exists() and path.read_text())) for path in paths]
    holders = [Holder(pid) for pid in pids]
    try:
        if any(holder.said != "0 0" for holder in holders):
            pytest.skip(f"no process may trace another here: {holders[0].said}")
        yield refs, pids, holders
    finally:
        for holder in holders:
            holder.end()


def test_a_killed_worker_that_is_not_reaped_is_told_of_and_another_takes_its_place(
    root: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with (
        drumbeat.init(num_cpus=1, runtime_directory=root, **QUICK),
        held(1, tmp_path) as ((ref,), (pid,), (holder,)),
    ):
        later = drumbeat.remote(os.getpid).remote()
        watch = Watch()
        drumbeat.cancel(ref, force=True)
        with pytest.raises(drumbeat.TaskCancelled):
            drumbeat.get(ref, timeout=20)
        assert watch.all_s() >= REAP_S - 0.1
        assert watch.own_s() <= REAP_S + 2.0
        assert state_of(pid) == "Z"
        assert drumbeat.get(later, timeout=20) != pid, "the CPU is another worker's"
        said = ""

        def is_told() -> bool:
            nonlocal said
            said += capfd.readouterr().out
            return f"(pid {pid}) has not ended 1 s after it was killed" in said

        until(is_told)
        assert "(workers pid=" in said
        assert "(preload pid=" not in said
        assert current().query("nodes")[0]["state"] == "alive"  # type: ignore[union-attr]
        holder.end()
        until(lambda: not state_of(pid))  # its keeper hears of it at last
        assert drumbeat.get(drumbeat.remote(lambda: 7).remote(), timeout=20) == 7


def test_a_node_with_three_processes_that_do_not_end_gets_no_more_work(
    root: str, tmp_path: Path
) -> None:
    with drumbeat.init(nodes=2, num_cpus=3, runtime_directory=root, **QUICK):
        first = drumbeat.nodes()[0]["name"]
        tasks = drumbeat.remote(lambda: drumbeat.current().node)
        with held(3, tmp_path, node=first) as (refs, _, _):
            for ref in refs:
                drumbeat.cancel(ref, force=True)
            until(lambda: {row["name"]: row["state"] for row in drumbeat.nodes()}[first] != "alive")
            nodes = set(drumbeat.get([tasks.remote() for _ in range(20)], timeout=20))
            assert first not in nodes
            assert len(nodes) == 1


# ---------------------------------------------------------------------------- 6 and 8: settings


def test_who_is_stopped_for_longer_than_the_settings_allow_is_ended_and_tried_again(
    root: str, tmp_path: Path
) -> None:
    path = tmp_path / "pid"

    def stops_itself_once(path: str) -> int:
        if drumbeat.current().attempt == 1:
            Path(path).write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return drumbeat.current().attempt

    with drumbeat.init(num_cpus=1, runtime_directory=root, stopped_timeout_s=2.0, **QUICK):
        task = drumbeat.remote(stops_itself_once)
        assert drumbeat.get(task.remote(str(path)), timeout=30) == 2
        assert not alive(int(path.read_text()))
        path.unlink()
        with pytest.raises(drumbeat.TaskHung) as caught:
            drumbeat.get(task.options(max_retries=0).remote(str(path)), timeout=30)
        assert caught.value.verdict.startswith("stopped: stopped or traced for ")
        assert caught.value.limit == "stopped_timeout_s"
        assert [row["kind"] for row in told("hung")] == ["hung"] * 2


def test_a_worker_that_is_not_ready_in_time_is_replaced_and_its_task_not_charged(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "switch"
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("FAULT_NO_START", str(switch))
    settings = {"worker_start": "spawn", "start_timeout_s": 4.0, "runtime_directory": root}
    with drumbeat.init(num_cpus=1, **settings):
        until(drumbeat.nodes)
        switch.touch()
        task = drumbeat.remote(lambda: drumbeat.current().attempt).options(max_retries=0)
        began_s = time.monotonic()
        assert drumbeat.get(task.remote(), timeout=60) == 1
        assert not switch.exists(), "no worker was held up"
        assert time.monotonic() - began_s >= 3.5


# -------------------------------------------------------------------------------- 10: the node


def test_where_memory_runs_out_the_task_that_uses_most_is_ended_and_those_that_use_little_are_not(
    root: str,
) -> None:
    _, _, total_bytes = Memory().look()

    def takes(count: int) -> int:
        # Really its own: what it shares with others does not count as a worker's.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        with mmap.mmap(-1, count, flags=flags):
            time.sleep(6.0)
        return count

    # There is always less left than this, though it is not these tasks that use it.
    with drumbeat.init(num_cpus=3, runtime_directory=root, memory_low_share=0.9999, **QUICK):
        task = drumbeat.remote(takes).options(max_retries=0)
        small = [task.remote(1 << 20) for _ in range(2)]
        large = task.remote(total_bytes // 10 + (64 << 20))
        with pytest.raises(drumbeat.WorkerOutOfMemory) as caught:
            drumbeat.get(large, timeout=60)
        assert caught.value.peak_bytes > total_bytes // 10
        assert caught.value.limit == "memory_low_share"
        assert drumbeat.get(small, timeout=60) == [1 << 20] * 2
        assert [row["kind"] for row in told("out of memory")] == ["out of memory"]


# ------------------------------------------------------------------ 0: a judge that was away


def test_a_scheduler_that_is_stopped_amid_its_work_condemns_nobody_either(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "stop"
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("FAULT_STOP", str(switch))
    settings = {"heartbeat_interval_s": 0.2, "health_file": str(tmp_path / "healthy")}
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root, **settings) as cluster:
        pid = cluster.processes["scheduler"]
        for _ in range(3):
            until(lambda: len(drumbeat.nodes()) == 2)
            switch.touch()
            until(lambda: state_of(pid) == "T")
            time.sleep(3.0)  # longer than makes a node lost
            os.kill(pid, signal.SIGCONT)
            assert drumbeat.get(drumbeat.remote(lambda: 7).remote(), timeout=20) == 7
        time.sleep(1.0)
        assert told("warning") == []


# --------------------------------------------------------------------------- clocks that jump


@pytest.fixture
def clocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks(tmp_path / "clocks")
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    monkeypatch.setenv("FAULT_CLOCKS", str(made.directory))
    return made


@drumbeat.remote(max_restarts=0)
class Counter:
    """Dies with its process, and counts what it is told."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> tuple[int, int]:
        self.count += 1
        return os.getpid(), self.count


def members(cluster: Cluster) -> dict[str, int]:
    nodes = {f"daemon of {row['name']}": int(row["pid"]) for row in drumbeat.nodes()}
    return {**cluster.processes, **nodes}


def goes_on_over(cluster: Cluster, jumps: list[dict[str, Any]], clocks: Clocks) -> None:
    """Let clocks jump under an actor and tasks with limits: nobody is ended or given up."""

    def naps(seconds: float) -> int:
        time.sleep(seconds)
        return drumbeat.current().attempt

    task = drumbeat.remote(naps).options(
        max_retries=0, timeout=30.0, heartbeat_timeout=30.0, total_timeout=60.0, queue_timeout=60.0
    )
    counter = Counter.remote()
    pid, count = drumbeat.get(counter.add.remote(), timeout=20)
    before = members(cluster)
    for jump in jumps:
        refs = [task.remote(1.5) for _ in range(3)]
        until(lambda: len([row for row in rows("naps") if row["state"] == "running"]) >= 2)
        clocks.jump(**jump)
        end_s = time.monotonic() + 2.5
        while time.monotonic() < end_s:
            count += 1
            assert drumbeat.get(counter.add.remote(), timeout=20) == (pid, count)
        assert drumbeat.get(refs, timeout=20) == [1, 1, 1]
    assert members(cluster) == before
    assert told("warning") == []
    for pid in before.values():
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert str(clocks.directory) in maps, "its clocks are real ones"


def test_a_clock_on_the_wall_that_jumps_changes_nothing_but_the_time_beside_events(
    root: str, clocks: Clocks
) -> None:
    settings = {"heartbeat_interval_s": 0.3, "runtime_directory": root}
    clocks.jump("scheduler", wall_s=2 * DAY_S)
    with drumbeat.init(nodes=2, num_cpus=1, **settings) as cluster:
        jumps = [
            {"side": "scheduler", "wall_s": DAY_S}, {"side": "node", "wall_s": -DAY_S},
            {"side": "scheduler", "wall_s": -DAY_S}, {"side": "node", "wall_s": DAY_S},
        ]  # fmt: skip
        goes_on_over(cluster, jumps, clocks)
        (joined, _) = told("node joined")
        assert joined["time_s"] - time.time() == pytest.approx(2 * DAY_S, abs=HOUR_S)


def test_a_scheduler_whose_machine_was_suspended_for_an_hour_condemns_nobody(
    root: str, clocks: Clocks
) -> None:
    settings = {"heartbeat_interval_s": 0.3, "runtime_directory": root}
    with drumbeat.init(nodes=2, num_cpus=1, **settings) as cluster:
        jumps = [{"side": "scheduler", "boot_s": n * HOUR_S} for n in (1, 2)]
        goes_on_over(cluster, jumps, clocks)
        assert current().query("status")["uptime_s"] > 2 * HOUR_S  # type: ignore[union-attr]


def test_a_machine_with_all_of_its_cluster_that_was_suspended_loses_nothing(
    root: str, clocks: Clocks
) -> None:
    settings = {"heartbeat_interval_s": 0.3, "runtime_directory": root}
    with drumbeat.init(nodes=1, num_cpus=2, **settings) as cluster:
        for side in ("scheduler", "node"):
            clocks.jump(side, boot_s=HOUR_S)
        goes_on_over(cluster, [{"side": "node", "boot_s": 2 * HOUR_S}], clocks)
