"""What a supervisor is told, and when."""

import os
from pathlib import Path

import pytest
from drumbeat.protocol.notify import TOUCH_S, HealthFile, ServiceManager


def told(*turns_s: float, watchdog_s: float = 0.0) -> list[str]:
    sent: list[str] = []
    manager = ServiceManager(sent.append, watchdog_s)
    for at_s in turns_s:
        manager.alive(at_s)
    return sent


def test_the_first_turn_says_ready_and_no_other() -> None:
    assert told(1.0, 2.0, 3.0) == ["READY=1"]


def test_a_watchdog_gets_three_signs_within_its_time() -> None:
    seconds = [float(second) for second in range(31)]
    assert told(*seconds, watchdog_s=30.0) == ["READY=1", *["WATCHDOG=1"] * 4]


def test_without_turns_nothing_is_said() -> None:
    assert told(watchdog_s=30.0) == []


def test_stopping_is_said_once() -> None:
    sent: list[str] = []
    manager = ServiceManager(sent.append)
    manager.stopping()
    manager.stopping()
    assert sent == ["STOPPING=1"]


def test_what_the_manager_handed_down_is_taken_out_of_the_environment() -> None:
    environ = {
        "NOTIFY_SOCKET": "/nowhere/at/all",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    ServiceManager.of_environment(environ).alive(1.0)  # nobody listens, and nothing happens
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "relative"},
        {"NOTIFY_SOCKET": "vsock:2:1234"},
        {"NOTIFY_SOCKET": "@" + "x" * 200},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "9", "WATCHDOG_PID": "none"},
    ],
)
def test_nonsense_in_the_environment_is_harmless(environ: dict[str, str]) -> None:
    manager = ServiceManager.of_environment(environ)
    manager.alive(1.0)
    manager.stopping()
    assert not environ


def test_the_health_file_is_made_kept_young_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "health"
    file = HealthFile(str(path))
    file.alive(10.0)
    os.utime(path, (1, 1))
    file.alive(10.0 + TOUCH_S / 2)
    assert path.stat().st_mtime == 1
    file.alive(10.0 + TOUCH_S)
    assert path.stat().st_mtime > 1
    file.gone()
    assert not path.exists()
    file.alive(10.0 + TOUCH_S)
    assert path.exists()


def test_without_a_path_there_is_no_health_file() -> None:
    file = HealthFile("")
    file.alive(1.0)
    file.gone()


def test_a_health_file_that_cannot_be_written_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = HealthFile(str(tmp_path / "missing" / "health"))
    for second in range(5):
        file.alive(float(second))
    file.gone()
    assert capfd.readouterr().err.count("cannot be written") == 1


def test_a_health_file_follows_no_link(tmp_path: Path) -> None:
    other = tmp_path / "other"
    (tmp_path / "health").symlink_to(other)
    HealthFile(str(tmp_path / "health")).alive(1.0)
    assert not other.exists()


def test_each_says_when_it_has_something_to_do(tmp_path: Path) -> None:
    sent: list[str] = []
    manager, file = ServiceManager(sent.append, 3.0), HealthFile(str(tmp_path / "health"))
    manager.alive(10.0)
    file.alive(10.0)
    assert (manager.due_s, file.due_s) == (11.0, 11.0)
    manager.alive(10.9)
    assert sent == ["READY=1", "WATCHDOG=1"]
    unwatched = ServiceManager(sent.append)
    assert unwatched.due_s <= 10.0
    unwatched.alive(10.0)
    assert unwatched.due_s == HealthFile("").due_s == float("inf")
