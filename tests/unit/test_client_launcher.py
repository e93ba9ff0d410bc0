"""The launcher: processes that cannot be started, crash or are ended, and a watch that fails."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from drumbeat.client.launcher import CRASHES_MAX, RESTART_MAX_S, Launcher, Member, is_crash
from drumbeat.protocol.errors import ConfigError, DrumbeatError, SchedulerUnreachable
from drumbeat.protocol.settings import Settings

Told = SimpleQueue[DrumbeatError]


@pytest.fixture
def told() -> Told:
    return SimpleQueue()


@pytest.fixture
def launcher(tmp_path: Path, told: Told) -> Iterator[Launcher]:
    # Its directory is not there: no log can be opened, so no process can be started.
    directory: Any = SimpleNamespace(
        path=tmp_path / "gone", remove=lambda: None, unlock=lambda: None
    )
    launcher = Launcher(directory, Settings(), [], told.put)
    yield launcher
    launcher.stop(1.0)


def test_a_process_that_cannot_be_started_three_times_is_given_up(
    launcher: Launcher, told: Told
) -> None:
    launcher.start()
    error = told.get(timeout=10)
    assert isinstance(error, SchedulerUnreachable)
    assert "given up: scheduler crashed 3 times" in str(error)
    assert "could not be started: [Errno 2] No such file" in str(error)
    assert launcher.pids() == {}


def test_a_start_that_fails_once_is_tried_again(launcher: Launcher, told: Told) -> None:
    launcher.directory.path.mkdir()
    (launcher.directory.path / "scheduler.log").mkdir()  # no log can be written there
    (member,) = launcher._members
    assert launcher._try_to_start(member) is None
    assert (member.process, len(member.crashes)) == (None, 1)
    (launcher.directory.path / "scheduler.log").rmdir()
    assert launcher._try_to_start(member) is None
    assert member.process is not None
    member.process.kill()
    member.process.wait()


def test_who_asks_for_the_processes_while_the_end_of_one_is_noted_is_told_of_the_others(
    launcher: Launcher,
) -> None:
    class Ending(Member):
        """Is looked at, and has ended the next time."""

        looks = iter([SimpleNamespace(pid=7)])

        @property  # type: ignore[override]  # a plain attribute elsewhere
        def process(self) -> Any:
            return next(self.looks, None)

        @process.setter
        def process(self, _process: Any) -> None:
            pass

    launcher._members.append(Ending("lab1", "drumbeat.node", []))
    assert launcher.pids() == {"lab1": 7}
    assert launcher.pids() == {}


def test_a_watch_that_fails_is_told_and_not_silent(
    launcher: Launcher, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_at(_self: Launcher, _member: Member) -> None:
        raise ConfigError("this Python does not know its own executable")

    monkeypatch.setattr(Launcher, "_look_at", look_at)
    launcher.start()
    error = told.get(timeout=10)
    assert isinstance(error, SchedulerUnreachable)
    assert isinstance(error.__cause__, ConfigError)


@pytest.mark.parametrize(
    "status",
    [1, 2, 70, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE],
)
def test_an_exit_code_or_a_fault_is_a_crash(status: int) -> None:
    assert is_crash(status)


@pytest.mark.parametrize("status", [0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGHUP])
def test_an_end_that_somebody_else_made_is_no_crash(status: int) -> None:
    assert not is_crash(status)


def test_a_process_that_is_killed_is_started_again_however_often(launcher: Launcher) -> None:
    (member,) = launcher._members
    pauses_s = []
    for _ in range(3 * CRASHES_MAX):
        assert launcher._ended(member, "with signal 9", crashed=False) is None
        pauses_s.append(member.due_s - time.monotonic())
    assert pauses_s[0] <= 0.02
    assert pauses_s[0] < pauses_s[1] < pauses_s[2]
    assert max(pauses_s) <= RESTART_MAX_S


def test_kills_between_crashes_do_not_hide_them(launcher: Launcher) -> None:
    (member,) = launcher._members
    errors = []
    for _ in range(CRASHES_MAX):
        errors.append(launcher._ended(member, "with exit code 70", crashed=True))
        launcher._ended(member, "with signal 9", crashed=False)
    assert errors[:-1] == [None, None]
    assert "scheduler crashed 3 times within 60 s, the last time with exit code 70" in str(
        errors[-1]
    )


def test_each_life_of_the_scheduler_is_told_where_its_state_lies(launcher: Launcher) -> None:
    (member,) = launcher._members
    place = member.arguments.index("--state")
    assert member.arguments[place + 1] == str(launcher.directory.path / "scheduler.state")
    assert "--epoch" not in member.arguments
