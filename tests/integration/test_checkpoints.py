"""Checkpoints of actors: what their states outlive, and what is told when one cannot be made."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drumbeat
import psutil
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.session import current
from support.remote_cluster import RemoteCluster
from support.waiting import until

pytestmark = pytest.mark.integration


class Ledger:
    """Counts; the number of constructors that it has seen is part of its state."""

    def __init__(self, start: int = 0) -> None:
        self.count = start
        self.ballast = b""
        self.made_by = "constructor"
        self.fault = ""

    def add(self) -> int:
        self.count += 1
        return self.count

    def told(self) -> tuple[int, str]:
        return self.count, self.made_by

    def pid(self) -> int:
        return os.getpid()

    def daemon(self) -> int:
        return os.getppid()

    def grow(self, size_bytes: int) -> int:
        self.ballast = os.urandom(size_bytes)
        return len(self.ballast)

    def fail(self) -> None:
        self.count += 1
        raise LookupError("no such thing")

    def hold(self, what: Any) -> None:
        self.ballast = what

    def break_(self, fault: str) -> None:
        self.fault = fault

    def slow_saves(self) -> None:
        self.fault = "slow"

    def __checkpoint__(self) -> dict[str, Any]:
        if self.fault == "save":
            raise ArithmeticError("the state is odd")
        if self.fault == "slow":
            time.sleep(1.0)
        fault, _, told = self.fault.partition(" ")
        if told:
            Path(told).write_text(f"{self.count}")
        if fault == "hang":
            threading.Event().wait(1e6)
        return vars(self)

    def __restore__(self, state: dict[str, Any]) -> None:
        if state["fault"] == "restore":
            raise KeyError("an old state")
        vars(self).update(state)
        self.made_by = "restored"


def session() -> Any:
    """Return what asks the cluster of this process."""
    found = current()
    assert found is not None
    return found


Remote = drumbeat.remote(Ledger)
Each = Remote.options(checkpoint_every_calls=1, max_restarts=1000, retry_backoff_s=0.01)


def kill(handle: Any) -> int:
    """Kill the process of an actor; return which it was."""
    pid = drumbeat.get(handle.pid.remote(), timeout=30)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), 10.0)
    return int(pid)


def kill_scheduler(cluster: Cluster) -> None:
    os.kill(until(lambda: cluster.processes.get("scheduler")), signal.SIGKILL)


# ------------------------------------------------------------------------------------- it goes on


def test_the_next_incarnation_is_restored_and_its_constructor_is_not_called(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.remote(10)
        assert drumbeat.get(ledger.add.remote(), timeout=20) == 11
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (11, "restored")
        kill(ledger)  # what it was restored from is known to the next one, too
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (11, "restored")


def test_one_that_has_told_nothing_yet_is_made_by_its_constructor_again(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Remote.options(checkpoint_every_calls=5, max_restarts=1).remote(10)
        drumbeat.get(ledger.add.remote(), timeout=20)
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (10, "constructor")


def test_a_call_that_raised_has_changed_the_state_like_any(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.remote()
        with pytest.raises(LookupError):
            drumbeat.get(ledger.fail.remote(), timeout=20)
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (1, "restored")


def killed_at_random(handle: Any, kills: int, calls: Callable[[], Any]) -> None:
    """Call while the process is killed so often, at any time."""
    chance, over = random.Random(5), threading.Event()
    pids = [drumbeat.get(handle.pid.remote(), timeout=30)]

    def killer() -> None:
        try:
            for _ in range(kills):
                time.sleep(chance.uniform(0.01, 0.12))
                os.kill(pids[-1], signal.SIGKILL)
                last = pids[-1]
                while pids[-1] == last:
                    try:
                        pids.append(drumbeat.get(handle.pid.remote(), timeout=30))
                    except drumbeat.ActorCallLost:
                        continue
        finally:
            over.set()

    thread = threading.Thread(target=killer)
    thread.start()
    while not over.is_set():
        calls()
    thread.join()
    assert len(set(pids)) == kills + 1


@pytest.mark.parametrize("size_bytes", [0, 300_000])
def test_with_each_call_saved_no_answered_call_is_ever_lost_under_twenty_kills(
    root: str, size_bytes: int
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, retry_backoff_max_s=0.1):
        ledger = Each.remote()
        drumbeat.get(ledger.grow.remote(size_bytes), timeout=20)
        answered: list[int] = []
        lost = 0

        def calls() -> None:
            nonlocal lost
            for ref in [ledger.add.remote() for _ in range(10)]:
                try:
                    count = drumbeat.get(ref, timeout=30)
                except drumbeat.ActorCallLost:
                    lost += 1
                else:
                    assert not answered or count > answered[-1], "a count was given twice"
                    answered.append(count)

        killed_at_random(ledger, 20, calls)
        count, _ = drumbeat.get(ledger.told.remote(), timeout=30)
        # Those that are lost may have run, and may have been saved.
        assert len(answered) <= count <= len(answered) + lost
        assert count >= answered[-1]
        assert len(answered) > 20


def test_with_each_tenth_call_saved_at_most_nine_answered_ones_are_lost_each_time(
    root: str,
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, retry_backoff_max_s=0.1):
        ledger = Each.options(checkpoint_every_calls=10).remote()
        for number in range(8):
            highest = 0
            refs = [ledger.add.remote() for _ in range(7 + number)]
            for ref in refs:
                highest = drumbeat.get(ref, timeout=20)
            os.kill(drumbeat.get(ledger.pid.remote(), timeout=20), signal.SIGKILL)
            count = -1
            while count < 0:
                try:
                    count, _ = drumbeat.get(ledger.told.remote(), timeout=20)
                except drumbeat.ActorCallLost:
                    continue
            assert highest - 9 <= count <= highest


def test_after_its_interval_the_state_is_told_though_nobody_calls(
    root: str, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Remote.options(checkpoint_interval_s=0.3, max_restarts=1).remote()
        pid = drumbeat.get(ledger.pid.remote(), timeout=20)
        drumbeat.get(ledger.break_.remote(f"nothing {told}"), timeout=20)
        assert drumbeat.get([ledger.add.remote() for _ in range(3)], timeout=20)[-1] == 3
        until(lambda: told.exists() and told.read_text() == "3")
        time.sleep(0.5)  # on its way
        os.kill(pid, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(pid))
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (3, "restored")


def test_a_large_state_comes_back_whole(root: str) -> None:
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root):
        ledger = Each.remote()
        assert drumbeat.get(ledger.grow.remote(30_000_000), timeout=30) == 30_000_000
        assert drumbeat.get(ledger.add.remote(), timeout=30) == 1
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=30) == (1, "restored")


def test_the_state_outlives_its_node(root: str) -> None:
    with drumbeat.init(
        nodes=2, num_cpus=1, runtime_directory=root, lost_after_intervals=5, lease_margin_s=0.5
    ):
        ledger = Each.remote()
        assert drumbeat.get([ledger.add.remote() for _ in range(5)], timeout=20)[-1] == 5
        keeper = drumbeat.get(ledger.daemon.remote(), timeout=20)
        os.kill(keeper, signal.SIGKILL)
        until(lambda: not psutil.pid_exists(keeper))
        counts = []
        while not counts:
            try:
                counts.append(drumbeat.get(ledger.told.remote(), timeout=30))
            except drumbeat.ActorCallLost:
                continue
        assert counts == [(5, "restored")]
        assert drumbeat.get(ledger.daemon.remote(), timeout=20) != keeper


# ------------------------------------------------------------------------ the scheduler ends


@pytest.mark.parametrize("size_bytes", [0, 3_000_000])
def test_the_state_outlives_the_scheduler_and_then_its_process(root: str, size_bytes: int) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        ledgers = [Each.remote(10 * number) for number in range(3)]
        drumbeat.get([ledger.grow.remote(size_bytes) for ledger in ledgers], timeout=20)
        drumbeat.get([ledger.add.remote() for ledger in ledgers], timeout=20)
        for _ in range(2):
            kill_scheduler(cluster)
            for ledger in ledgers:
                kill(ledger)
        told = drumbeat.get([ledger.told.remote() for ledger in ledgers], timeout=30)
        assert told == [(1, "restored"), (11, "restored"), (21, "restored")]


def test_the_state_of_one_that_dies_while_the_scheduler_is_away_is_not_lost(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root) as cluster:
        ledger = Each.remote()
        drumbeat.get([ledger.add.remote() for _ in range(5)], timeout=20)
        pid = drumbeat.get(ledger.pid.remote(), timeout=20)
        for _ in range(4):
            kill_scheduler(cluster)
            os.kill(pid, signal.SIGKILL)
            assert drumbeat.get(ledger.told.remote(), timeout=30) == (5, "restored")
            pid = drumbeat.get(ledger.pid.remote(), timeout=20)


def test_a_detached_one_goes_on_with_its_state_after_both_have_been_killed(
    tmp_path: Path,
) -> None:
    cluster = RemoteCluster(tmp_path)
    # So long a restarted scheduler waits for programs of before, which have ended, and for nodes.
    cluster.set(client_grace_s=1.0, lost_after_intervals=5.0, lease_margin_s=0.5)
    try:
        scheduler = cluster.start_scheduler()
        cluster.start_node("one")
        with drumbeat.init(address=str(cluster.file("client")), namespace="space"):
            ledger = Each.options(name="ledger", lifetime="detached").remote(100)
            assert drumbeat.get([ledger.add.remote() for _ in range(3)], timeout=30)[-1] == 103
        scheduler.end(signal.SIGKILL)
        cluster.start_scheduler()
        with drumbeat.init(address=str(cluster.file("client")), namespace="space"):
            ledger = drumbeat.get_actor("ledger")
            kill(ledger)
            assert drumbeat.get(ledger.told.remote(), timeout=30) == (103, "restored")
            drumbeat.kill(ledger)
    finally:
        drumbeat.shutdown()
        cluster.end()


# --------------------------------------------------------------------------------- it cannot be


def test_a_call_whose_state_cannot_be_told_has_run_and_is_not_answered(
    root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, value_bytes_max=1_000_000):
        ledger = Each.remote()
        drumbeat.get(ledger.add.remote(), timeout=20)
        refs = [ledger.grow.remote(1_100_000), ledger.add.remote(), ledger.add.remote()]
        for ref in refs:
            with pytest.raises(drumbeat.CheckpointFailed) as caught:
                drumbeat.get(ref, timeout=20)
        assert "has run, but no checkpoint of its actor's state could be made" in str(caught.value)
        assert "1,000,000 can be sent (the setting value_bytes_max)" in str(caught.value)
        assert caught.value.maybe_executed
        assert (caught.value.name, caught.value.incarnation) == ("Ledger.add", 1)
        # It goes on, and is saved again when that is possible.
        assert drumbeat.get(ledger.grow.remote(10), timeout=20) == 10
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (3, "restored")
    told = capfd.readouterr().err
    assert told.count("Ledger: no checkpoint of its state could be made") == 1
    assert "the last one is kept" in told


def test_the_last_good_one_stays_when_the_next_cannot_be_made_and_the_user_is_told_once(
    root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.options(checkpoint_every_calls=2).remote()
        drumbeat.get([ledger.add.remote() for _ in range(2)], timeout=20)
        drumbeat.get(ledger.break_.remote("save"), timeout=20)
        counts = drumbeat.get([ledger.add.remote() for _ in range(6)], timeout=20)
        assert counts == [3, 4, 5, 6, 7, 8]
        kill(ledger)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (2, "restored")
    told = capfd.readouterr().err
    assert told.count("ArithmeticError: the state is odd") == 1
    assert "in __checkpoint__" in told
    assert "/node/" not in told


def test_references_in_the_state_are_refused(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.remote()
        with pytest.raises(drumbeat.CheckpointFailed, match="holds references or handles"):
            drumbeat.get(ledger.hold.remote([drumbeat.put(1)]), timeout=20)


def test_a_restore_that_raises_is_tried_as_often_as_there_are_restarts_and_is_the_cause(
    root: str,
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.options(max_restarts=2).remote()
        drumbeat.get(ledger.break_.remote("restore"), timeout=20)
        kill(ledger)
        with pytest.raises(drumbeat.ActorDied) as caught:
            drumbeat.get(ledger.add.remote(), timeout=20)
        assert isinstance(caught.value.__cause__, KeyError)
        assert "allows no further restart: its __restore__ raised" in str(caught.value)
        assert "incarnation 2: its __restore__ raised" in str(caught.value)


def test_what_a_checkpoint_takes_does_not_count_for_the_limit_of_its_call(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root):
        ledger = Each.options(timeout=0.6).remote()
        drumbeat.get(ledger.slow_saves.remote(), timeout=20)
        assert drumbeat.get(ledger.add.remote(), timeout=20) == 1


def test_a_checkpoint_that_does_not_end_is_under_a_limit_and_is_told_of_as_that(root: str) -> None:
    limits = {"checkpoint_timeout_s": 1.0, "cancel_grace_s": 0.2, "term_grace_s": 0.2}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **limits):
        ledger = Each.remote()
        drumbeat.get(ledger.add.remote(), timeout=20)
        with pytest.raises(
            drumbeat.TaskHung, match="__checkpoint__ of its actor did not"
        ) as caught:
            drumbeat.get(ledger.break_.remote("hang"), timeout=20)
        assert str(caught.value.verdict).startswith("checkpointing: __checkpoint__ of its actor")
        assert caught.value.limit == "checkpoint_timeout_s"
        assert "in __checkpoint__" in str(caught.value.stacks)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (1, "restored")


def test_one_that_does_not_end_while_nobody_calls_is_ended_when_somebody_does(
    root: str, tmp_path: Path
) -> None:
    hangs = tmp_path / "hangs"
    limits = {"checkpoint_timeout_s": 1.0, "cancel_grace_s": 0.2, "term_grace_s": 0.2}
    with drumbeat.init(num_cpus=1, runtime_directory=root, **limits):
        ledger = Remote.options(checkpoint_interval_s=2.0, max_restarts=3).remote(10)
        # One packet, so that it is not saved between the two.
        drumbeat.get([ledger.add.remote(), ledger.break_.remote(f"hang {hangs}")], timeout=20)
        until(hangs.exists)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (10, "constructor")


def test_checkpoints_that_have_no_room_are_refused_and_the_older_one_is_kept(root: str) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, checkpoints_bytes_max=200_000):
        ledger = Each.remote()
        assert drumbeat.get(ledger.add.remote(), timeout=20) == 1
        pid = drumbeat.get(ledger.pid.remote(), timeout=20)
        for size_bytes in (250_000, 300_000):
            with pytest.raises(drumbeat.CheckpointFailed, match="checkpoints_bytes_max"):
                drumbeat.get(ledger.grow.remote(size_bytes), timeout=20)
        os.kill(pid, signal.SIGKILL)
        assert drumbeat.get(ledger.told.remote(), timeout=20) == (1, "restored")
        assert drumbeat.get(ledger.grow.remote(100), timeout=20) == 100, "it has room again"
        status = session().query("status")["checkpoints"]
        assert status["refused"] == 2
        assert status["bytes"] < 200_000
        told = session().query("events", limit=100)["events"]
        assert [one["kind"] for one in told].count("checkpoint refused") == 1


def test_after_a_refusal_the_older_one_outlives_the_scheduler_and_then_its_process(
    root: str,
) -> None:
    limits = {"runtime_directory": root, "checkpoints_bytes_max": 200_000}
    with drumbeat.init(num_cpus=1, **limits) as cluster:
        ledger = Each.remote()
        pid = drumbeat.get(ledger.pid.remote(), timeout=20)
        assert drumbeat.get(ledger.add.remote(), timeout=20) == 1
        for has_room_bytes in (100, 100_000):  # on either way to the scheduler
            assert drumbeat.get(ledger.grow.remote(has_room_bytes), timeout=20)
            with pytest.raises(drumbeat.CheckpointFailed, match="checkpoints_bytes_max"):
                drumbeat.get(ledger.grow.remote(250_000), timeout=20)
            kill_scheduler(cluster)
            os.kill(pid, signal.SIGKILL)
            assert drumbeat.get(ledger.told.remote(), timeout=30) == (1, "restored")
            pid = drumbeat.get(ledger.pid.remote(), timeout=20)
