"""What a service manager hears of a scheduler and of a node, as long as they work."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import pytest
from drumbeat.client.launcher import environment
from support.process_table import children_of, is_daemon
from support.waiting import until

pytestmark = pytest.mark.integration

WATCHDOG_S = 0.6
#: so long without a word is silence; a sign is due every third of WATCHDOG_S, or each turn (1 s)
SILENCE_S = 3.0


class Manager:
    """Listens as systemd does, and starts processes as it does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.address))
        self.socket.settimeout(15.0)
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, module: str, *flags: str, **variables: str) -> subprocess.Popen[bytes]:
        environ = environment() | variables
        environ |= {"NOTIFY_SOCKET": str(self.address)}
        environ |= {"WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, "--directory", str(self.directory), *flags],
            env=environ,
        )
        self.processes.append(process)
        return process

    def hears(self) -> str:
        return self.socket.recv(4096).decode()

    def hears_at_last(self, text: str) -> None:
        while self.hears() != text:
            pass

    def hears_nothing_more(self) -> bool:
        """Read what has been said already; say whether silence follows."""
        self.socket.settimeout(SILENCE_S)
        try:
            for _ in range(10):
                self.socket.recv(4096)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(15.0)
        return False

    def close(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
        self.socket.close()


@pytest.fixture
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    made = Manager(tmp_path_factory.mktemp("n"))
    yield made
    made.close()


def test_a_scheduler_is_ready_alive_and_stopping(manager: Manager) -> None:
    process = manager.start("drumbeat.scheduler")
    assert manager.hears() == "READY=1"
    assert [manager.hears() for _ in range(3)] == ["WATCHDOG=1"] * 3
    process.send_signal(signal.SIGTERM)
    manager.hears_at_last("STOPPING=1")
    assert process.wait(10) == 0


def test_a_scheduler_that_stands_still_is_silent(manager: Manager) -> None:
    process = manager.start("drumbeat.scheduler")
    manager.hears_at_last("WATCHDOG=1")
    process.send_signal(signal.SIGSTOP)
    assert manager.hears_nothing_more()
    process.send_signal(signal.SIGCONT)
    manager.hears_at_last("WATCHDOG=1")


def test_a_node_is_ready_before_there_is_a_scheduler_and_stopping_once_it_is_told(
    manager: Manager,
) -> None:
    process = manager.start("drumbeat.node", "--num-cpus=1")
    assert manager.hears() == "READY=1"
    assert [manager.hears() for _ in range(3)] == ["WATCHDOG=1"] * 3
    process.send_signal(signal.SIGTERM)
    manager.hears_at_last("STOPPING=1")
    assert process.wait(10) == 0


@pytest.mark.parametrize("who", ["keeper", "daemon"])
def test_a_node_of_which_a_part_stands_still_is_silent(manager: Manager, who: str) -> None:
    process = manager.start("drumbeat.node", "--num-cpus=1")
    manager.hears_at_last("WATCHDOG=1")
    pid = process.pid if who == "keeper" else daemon_of(process.pid)
    os.kill(pid, signal.SIGSTOP)
    assert manager.hears_nothing_more()
    os.kill(pid, signal.SIGCONT)
    manager.hears_at_last("WATCHDOG=1")


def daemon_of(keeper: int) -> int:
    return int(until(lambda: next(filter(is_daemon, children_of(keeper)), 0)))


def test_what_a_manager_handed_down_is_in_no_task(manager: Manager) -> None:
    manager.start("drumbeat.scheduler")
    manager.start("drumbeat.node", "--num-cpus=1")

    def handed_down() -> list[str]:
        return [name for name in os.environ if name.startswith(("NOTIFY_", "WATCHDOG_"))]

    until((manager.directory / "scheduler.sock").exists)
    with drumbeat.init(manager.directory):
        assert drumbeat.get(drumbeat.remote(handed_down).remote(), timeout=30) == []


def test_the_health_file_is_there_while_a_node_is_connected_and_no_longer(
    manager: Manager,
) -> None:
    health = manager.directory / "health"
    node = manager.start("drumbeat.node", "--num-cpus=1", DRUMBEAT_HEALTH_FILE=str(health))
    manager.hears_at_last("WATCHDOG=1")
    assert not health.exists()
    scheduler = manager.start("drumbeat.scheduler")
    until(health.exists)
    first_s = health.stat().st_mtime
    until(lambda: health.stat().st_mtime > first_s)
    scheduler.kill()
    until(lambda: not health.exists())
    manager.start("drumbeat.scheduler")
    until(health.exists)
    node.send_signal(signal.SIGTERM)
    assert node.wait(10) == 0
    assert not health.exists()


def test_the_health_file_of_a_scheduler_goes_with_it(manager: Manager) -> None:
    health = manager.directory / "health"
    process = manager.start("drumbeat.scheduler", DRUMBEAT_HEALTH_FILE=str(health))
    until(health.exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert not health.exists()
