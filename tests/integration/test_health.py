"""Actors that are asked how they are: when, and what follows from what they say."""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.protocol.session import current
from support.waiting import until

pytestmark = pytest.mark.integration

OFTEN = {"health_check_interval_s": 0.2, "retry_backoff_max_s": 0.1}
LIMITS = {"health_timeout_s": 1.0, "cancel_grace_s": 0.2, "term_grace_s": 0.2}


class Patient:
    """Says how it is, in a file for each time that it is asked, and is as it is told to be."""

    def __init__(self, log: str) -> None:
        self.log = log
        self.fault = ""
        self.count = 0
        #: one for each call that runs
        self.calls: list[int] = []

    def __checkpoint__(self) -> dict[str, Any]:
        return vars(self) | {"fault": ""}

    def __restore__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def __health__(self) -> bool | None:
        with open(self.log, "a", encoding="utf-8") as log:
            log.write(f"{os.getpid()} {'during a call' if self.calls else 'between'}\n")
        if self.fault == "raise":
            raise ConnectionError("the database has gone")
        if self.fault == "hang":
            threading.Event().wait(1e6)
        if self.fault == "wait":
            drumbeat.get(drumbeat.remote(time.sleep).remote(1e6))
        return self.fault != "false"

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def long(self, seconds: float) -> int:
        self.calls.append(1)
        time.sleep(seconds)
        self.calls.pop()
        return os.getpid()

    def fails(self, seconds: float) -> None:
        self.calls.append(1)
        time.sleep(seconds)
        self.calls.pop()
        raise LookupError("no such thing")

    def is_ill(self, fault: str) -> int:
        self.fault = fault
        return os.getpid()


class AsyncPatient(Patient):
    """Lives on an event loop."""

    async def __health__(self) -> bool | None:  # type: ignore[override]
        await asyncio.sleep(0.01)
        if self.fault == "hang":
            await asyncio.sleep(1e6)
        return Patient.__health__(self)

    async def long(self, seconds: float) -> int:  # type: ignore[override]
        self.calls.append(1)
        await asyncio.sleep(seconds)
        self.calls.pop()
        return os.getpid()


def made(sort: str, log: Path, **given: Any) -> Any:
    """Return an actor of one of the three sorts."""
    log.touch()
    if sort == "plain":
        return drumbeat.remote(Patient).options(**given).remote(str(log))
    if sort == "threads":
        return drumbeat.remote(Patient).options(max_concurrency=4, **given).remote(str(log))
    return drumbeat.remote(AsyncPatient).options(**given).remote(str(log))


def events(kind: str) -> list[str]:
    session = current()
    assert session is not None
    told = session.query("events", limit=1000)["events"]
    return [one["text"] for one in told if one["kind"] == kind]


def actor_row() -> dict[str, Any]:
    session = current()
    assert session is not None
    (row,) = session.query("actors", limit=10)
    return dict(row)


every_sort = pytest.mark.parametrize("sort", ["plain", "threads", "loop"])


@every_sort
def test_one_that_is_well_is_asked_while_idle_and_let_be(
    root: str, tmp_path: Path, sort: str
) -> None:
    log = tmp_path / "log"
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN, **LIMITS):
        patient = made(sort, log)
        pid = drumbeat.get(patient.pid.remote(), timeout=20)
        until(lambda: len(log.read_text().splitlines()) >= 4, 20.0)
        assert drumbeat.get(patient.pid.remote(), timeout=20) == pid
        assert set(log.read_text().splitlines()) == {f"{pid} between"}
        assert actor_row()["restarts"] == 0


@every_sort
@pytest.mark.parametrize("fault", ["raise", "false"])
def test_one_that_is_not_is_noticed_though_nobody_calls_and_begins_anew(
    root: str, tmp_path: Path, sort: str, fault: str
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN):
        patient = made(sort, tmp_path / "log", max_restarts=1)
        pid = drumbeat.get(patient.is_ill.remote(fault), timeout=20)
        until(lambda: actor_row()["restarts"] == 1, 20.0)
        assert drumbeat.get(patient.pid.remote(), timeout=20) != pid
        (text,) = events("actor unhealthy")
        said = "raised ConnectionError: the database has gone"
        assert f"__health__ {said if fault == 'raise' else 'returned False'}" in text


def test_its_last_checkpoint_is_restored_and_calls_go_on_in_their_order(
    root: str, tmp_path: Path
) -> None:
    saved = {"checkpoint_every_calls": 1, "health_check_interval_s": 0.5}
    with drumbeat.init(num_cpus=1, runtime_directory=root, retry_backoff_max_s=0.1):
        patient = made("plain", tmp_path / "log", max_restarts=1, **saved)
        assert drumbeat.get([patient.add.remote() for _ in range(3)], timeout=20)[-1] == 3
        drumbeat.get(patient.is_ill.remote("raise"), timeout=20)
        until(lambda: actor_row()["restarts"] == 1, 20.0)
        assert drumbeat.get([patient.add.remote() for _ in range(4)], timeout=20) == [4, 5, 6, 7]


def test_without_a_restart_left_the_end_names_it_with_its_traceback(
    root: str, tmp_path: Path
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN):
        patient = made("plain", tmp_path / "log")
        drumbeat.get(patient.is_ill.remote("raise"), timeout=20)
        until(lambda: events("actor unhealthy"), 20.0)
        with pytest.raises(drumbeat.ActorDied, match="is unhealthy: __health__ raised") as caught:
            drumbeat.get(patient.add.remote(), timeout=20)
        cause = caught.value.__cause__
        assert isinstance(cause, drumbeat.ActorUnhealthy)
        assert 'raise ConnectionError("the database has gone")' in cause.traceback_text
        assert cause.traceback_text in str(cause)
        assert cause.incarnation == 1


@every_sort
def test_one_that_does_not_end_saying_so_is_ended_though_nobody_calls(
    root: str, tmp_path: Path, sort: str
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN, **LIMITS):
        patient = made(sort, tmp_path / "log", max_restarts=1)
        pid = drumbeat.get(patient.is_ill.remote("hang"), timeout=20)
        row = until(lambda: (r := actor_row())["phase"] == "health-check" and r, 20.0)
        assert row["state"] == "alive"
        until(lambda: actor_row()["restarts"] == 1, 20.0)
        assert drumbeat.get(patient.pid.remote(), timeout=20) != pid
        (text,) = events("hung")
        assert "did not end __health__ in 1 s" in text


def test_where_a_coroutine_hangs_that_says_how_it_is_stands_in_the_error(
    root: str, tmp_path: Path
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN, **LIMITS):
        patient = made("async", tmp_path / "log")
        drumbeat.get(patient.is_ill.remote("hang"), timeout=20)
        until(lambda: events("hung"), 20.0)
        with pytest.raises(drumbeat.ActorDied) as caught:
            drumbeat.get(patient.add.remote(), timeout=20)
        cause = caught.value.__cause__
        assert isinstance(cause, drumbeat.TaskHung)
        assert "Coroutine __health__" in cause.stacks
        assert "test_health.py" in cause.stack, "and in short"


def test_one_that_waits_for_a_value_to_say_so_is_under_the_same_limit(
    root: str, tmp_path: Path
) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN, **LIMITS):
        patient = made("plain", tmp_path / "log", max_restarts=1)
        drumbeat.get(patient.is_ill.remote("wait"), timeout=20)
        until(lambda: actor_row()["restarts"] == 1, 20.0)
        assert "did not end __health__ in 1 s" in events("hung")[0]


@every_sort
def test_while_a_call_runs_nobody_asks(root: str, tmp_path: Path, sort: str) -> None:
    log = tmp_path / "log"
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN):
        patient = made(sort, log)
        pid = drumbeat.get(patient.long.remote(1.0), timeout=20)
        assert "during" not in log.read_text()
        until(lambda: log.read_text(), 20.0)
        refs = [patient.long.remote(0.3) for _ in range(6)]
        assert set(drumbeat.get(refs, timeout=20)) == {pid}
        assert "during" not in log.read_text()


def failures(patient: Any, count: int) -> set[type]:
    """Return what so many calls raise that wait for one another."""
    refs = [patient.fails.remote(0.03) for _ in range(count)]
    raised = set()
    for ref in refs:
        with pytest.raises(drumbeat.DrumbeatError) as caught:
            drumbeat.get(ref, timeout=20)
        raised.add(LookupError if isinstance(caught.value, LookupError) else type(caught.value))
    return raised


def test_where_calls_raise_one_after_the_other_it_is_asked_between_them(
    root: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN):
        patient = made("plain", log, max_restarts=1)
        assert failures(patient, 30) == {LookupError}
        assert len(log.read_text().splitlines()) >= 2
        assert "during" not in log.read_text()
        assert actor_row()["restarts"] == 0
        drumbeat.get(patient.is_ill.remote("raise"), timeout=20)
        # Some run before that is noticed, the others in the next incarnation; none is lost.
        assert failures(patient, 30) == {LookupError}
        assert actor_row()["restarts"] == 1


def test_calls_that_wait_while_it_is_asked_run_in_the_next_one(root: str, tmp_path: Path) -> None:
    with drumbeat.init(num_cpus=1, runtime_directory=root, **OFTEN, **LIMITS):
        patient = made("plain", tmp_path / "log", max_restarts=1)
        drumbeat.get(patient.is_ill.remote("hang"), timeout=20)
        until(lambda: actor_row()["phase"] == "health-check", 20.0)
        refs = [patient.add.remote() for _ in range(5)]
        assert drumbeat.get(refs, timeout=20) == [1, 2, 3, 4, 5]
