"""The launcher: processes that cannot be started, and a watch that fails."""

from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from drumbeat.client.launcher import Launcher, Member
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
    assert "given up: scheduler ended 3 times" in str(error)
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
