"""Actors of a node whose daemon stands still: they end with its lease, and never act beside others.

The daemon cannot end them then; its keeper does.
"""

import os
import signal
import threading
import time
from pathlib import Path

import drumbeat
import psutil
import pytest
from network.actor_trials import Act, acts_in, overlaps
from support.stalls import Watch
from support.waiting import until

pytestmark = pytest.mark.integration

INTERVAL_S = 0.2
SETTINGS = {"heartbeat_interval_s": INTERVAL_S, "lease_margin_s": 0.4, "connection_lost_s": 0.3}
LEASE_S = 10 * INTERVAL_S


@drumbeat.remote(num_cpus=0, retry_backoff_s=0.01)
class Busy:
    """Acts all the time, and writes it down."""

    def __init__(self, path: str) -> None:
        here = drumbeat.current()
        self._words = f"busy {here.fence} {os.getpid()} {here.node}"
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        threading.Thread(target=self._go_on, daemon=True).start()

    def _go_on(self) -> None:
        while True:
            os.write(self._file, f"{self._words} {time.monotonic_ns()}\n".encode())
            time.sleep(0.005)

    def pids(self) -> tuple[int, int]:
        """Return its process and its keeper's."""
        return os.getpid(), os.getppid()


def daemon_of(keeper: int) -> int:
    """Return the daemon of the node with this keeper."""
    there = {child.pid for child in psutil.Process(keeper).children()}
    return next(node["pid"] for node in drumbeat.nodes() if node["pid"] in there)


def last_of(path: Path, pid: int) -> Act:
    return [act for act in acts_in(path) if act.pid == pid][-1]


def test_the_actor_of_a_stopped_daemon_ends_with_its_lease_and_begins_elsewhere_after_it(
    root: str, tmp_path: Path
) -> None:
    path = tmp_path / "acts"
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root, **SETTINGS):
        actor = Busy.options(max_restarts=1).remote(str(path))
        pid, keeper = drumbeat.get(actor.pids.remote(), timeout=20)
        daemon = daemon_of(keeper)
        watch = Watch()
        os.kill(daemon, signal.SIGSTOP)
        stopped_s = time.monotonic()
        try:
            until(lambda: not psutil.pid_exists(pid))
            lasted_s, slack_s = last_of(path, pid).at_s - stopped_s, watch.stalled_s()
            assert LEASE_S - 2 * INTERVAL_S - slack_s < lasted_s < LEASE_S + 0.2 + slack_s
            again, elsewhere = drumbeat.get(actor.pids.remote(), timeout=20)
            assert again != pid
            assert elsewhere != keeper
        finally:
            os.kill(daemon, signal.SIGCONT)
        until(lambda: len(drumbeat.nodes()) == 2, 20.0)
        assert drumbeat.get(actor.pids.remote(), timeout=20) == (again, elsewhere)
    assert overlaps(acts_in(path)) == []


def test_a_daemon_that_stands_still_for_less_than_its_lease_is_a_non_event(
    root: str, tmp_path: Path
) -> None:
    # Three times as slow: a busy machine may keep us from ending this in time.
    slowly = {**SETTINGS, "heartbeat_interval_s": 3 * INTERVAL_S}
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root, **slowly):
        actor = Busy.remote(str(tmp_path / "acts"))
        before = drumbeat.get(actor.pids.remote(), timeout=20)
        daemon = daemon_of(before[1])
        os.kill(daemon, signal.SIGSTOP)
        time.sleep(3 * (0.8 * LEASE_S - INTERVAL_S))
        os.kill(daemon, signal.SIGCONT)
        assert drumbeat.get(actor.pids.remote(), timeout=20) == before


def test_an_actor_that_waits_for_its_node_outlives_its_lease_and_is_replaced_by_proof_alone(
    root: str, tmp_path: Path
) -> None:
    path = tmp_path / "acts"
    with drumbeat.init(nodes=2, num_cpus=1, runtime_directory=root, **SETTINGS):
        actor = Busy.options(max_restarts=1, on_partition="wait").remote(str(path))
        pid, keeper = drumbeat.get(actor.pids.remote(), timeout=20)
        daemon = daemon_of(keeper)
        os.kill(daemon, signal.SIGSTOP)
        try:
            until(lambda: len(drumbeat.nodes()) == 1)
            call = actor.pids.remote()
            assert drumbeat.wait([call], timeout=LEASE_S) == ([], [call])
            assert psutil.pid_exists(pid)
            assert last_of(path, pid).at_s > time.monotonic() - 1.0
        finally:
            os.kill(daemon, signal.SIGCONT)
        # Its node is back, has killed it, and says so.
        assert drumbeat.get(call, timeout=20)[0] != pid
    assert overlaps(acts_in(path)) == []
