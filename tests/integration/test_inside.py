"""Inside real tasks: progress, details, shield, current, and Interrupted with its reason."""

import contextlib
import ctypes
import json
import multiprocessing
import os
import pickle
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest
from drumbeat.client import cli_commands
from drumbeat.protocol.ids import show
from drumbeat.protocol.session import current
from support.told import begun, write
from support.waiting import until

pytestmark = pytest.mark.integration

#: from Interrupted to SIGTERM
GRACE_S = 3.0

Tell = Callable[..., str]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=4, cancel_grace_s=GRACE_S):
        yield


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Type a command at this cluster; return what is printed."""

    def typed(*words: str) -> str:
        capsys.readouterr()
        cli_commands.main(words, lambda _address: contextlib.nullcontext(current()))  # type: ignore[arg-type]
        return capsys.readouterr().out

    return typed


# ------------------------------------------------------------------------------------- progress


@drumbeat.remote
def tile(done: float, total: float | None, path: Path) -> None:
    for count in (0, done):
        drumbeat.progress(count, total)
    until(path.exists)


@pytest.mark.parametrize(
    ("done", "total", "text"), [(310, 900, "310/900 34 %"), (2.5, None, "2.5")]
)
def test_how_far_a_task_is_shows_in_tasks(
    tell: Tell, tmp_path: Path, done: float, total: float | None, text: str
) -> None:
    ref = tile.remote(done, total, tmp_path / "over")

    def row() -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(tell("tasks", "--json"))
        return next((row for row in rows if row["id"] == show(ref.id)), {})

    until(lambda: row().get("done") not in (None, 0))
    seen = row()
    assert (seen["done"], seen["total"]) == (done, total)
    assert 0 <= seen["progress_s"] < 10
    assert text in tell("tasks")
    (tmp_path / "over").touch()
    drumbeat.get(ref, timeout=20)


@drumbeat.remote
def quiet(path: Path) -> int:
    until(path.exists)
    return os.getpid()


def test_the_next_task_of_a_worker_does_not_inherit_it(tell: Tell, tmp_path: Path) -> None:
    (tmp_path / "over").touch()
    drumbeat.get([tile.remote(5, 9, tmp_path / "over") for _ in range(16)], timeout=20)
    refs = [quiet.remote(tmp_path / "later") for _ in range(4)]

    def rows() -> list[dict[str, Any]]:
        return [row for row in json.loads(tell("tasks", "--json")) if row["verdict"]]

    until(lambda: len(rows()) == 4)
    assert [row["done"] for row in rows()] == [None] * 4
    (tmp_path / "later").touch()
    drumbeat.get(refs, timeout=20)


def test_a_process_that_a_task_forks_is_no_task() -> None:
    @drumbeat.remote
    def parent() -> list[str]:
        fork = multiprocessing.get_context("fork")
        answers = fork.SimpleQueue()

        def child() -> None:
            drumbeat.progress(99, details="of a child")
            with drumbeat.shield():
                try:
                    drumbeat.current()
                except RuntimeError:
                    answers.put("no task")

        drumbeat.progress(1)
        process = fork.Process(target=child)
        process.start()
        process.join(20)
        return [answers.get(), drumbeat.current().name]

    said, name = drumbeat.get(parent.remote(), timeout=30)
    assert said == "no task"
    assert name.endswith("parent")


# -------------------------------------------------------------------------------------- details


@drumbeat.remote
def dies_after_telling() -> tuple[int, Any]:
    call = drumbeat.current()
    if call.attempt == 1:
        drumbeat.progress(1, 9, details={"tile": call.pid})
        os.kill(os.getpid(), signal.SIGKILL)
    return call.pid, call.last_details


def test_what_a_call_told_last_reaches_the_attempt_after_kill_9() -> None:
    pid, details = drumbeat.get(dies_after_telling.remote(), timeout=30)
    assert details["tile"] not in (None, pid), "told by a process that is no more"


@drumbeat.remote
def dies_later(path: Path) -> tuple[int, Any]:
    call = drumbeat.current()
    if call.attempt == 1:
        for number in range(1000):
            drumbeat.progress(number, details=number)
        write(path, str(call.pid))
        time.sleep(60)
    return call.attempt, call.last_details


def test_the_last_of_many_details_is_the_one_that_arrives(tmp_path: Path) -> None:
    ref = dies_later.remote(tmp_path / "pid")
    pid = int(begun(tmp_path / "pid"))
    time.sleep(0.6)  # they go four times a second
    os.kill(pid, signal.SIGKILL)
    assert drumbeat.get(ref, timeout=30) == (2, 999)


@drumbeat.remote
def keeps_the_gil(path: Path) -> tuple[int, Any]:
    call = drumbeat.current()
    if call.attempt == 1:
        write(path, str(call.pid))
        libc, tells = ctypes.PyDLL(None), bytes(path.with_suffix(".sleeps"))
        drumbeat.progress(310, 900, details="tile 310")
        libc.creat(tells, 0o600)  # in C, as all that follows
        libc.sleep(60)
    return call.attempt, call.last_details


def test_details_told_just_before_the_gil_is_kept_for_good_are_not_lost(tmp_path: Path) -> None:
    ref = keeps_the_gil.remote(tmp_path / "pid")
    pid = int(begun(tmp_path / "pid"))
    until((tmp_path / "pid.sleeps").exists)
    os.kill(pid, signal.SIGKILL)
    assert drumbeat.get(ref, timeout=30) == (2, "tile 310")


def test_details_reach_the_attempt_after_an_exception_that_is_tried_again() -> None:
    @drumbeat.remote(retry_exceptions=True, max_retries=2)
    def fails() -> list[Any]:
        call = drumbeat.current()
        before = call.last_details or []
        drumbeat.progress(0, details=[*before, call.attempt])
        if call.attempt < 3:
            raise OSError
        return [before, call.fence]

    assert drumbeat.get(fails.remote(), timeout=30) == [[1, 2], 3]


def test_details_that_are_too_large_are_refused_where_they_are_told() -> None:
    @drumbeat.remote
    def tells(size_bytes: int) -> str:
        drumbeat.progress(1, details=b"x" * size_bytes)
        return "told"

    assert drumbeat.get(tells.remote(4000), timeout=20) == "told"
    with pytest.raises(ValueError, match="at most 4,096 are kept"):
        drumbeat.get(tells.remote(5000), timeout=20)


# ----------------------------------------------------------------------------------------- shield


@drumbeat.remote
def shielded(path: Path) -> None:
    try:
        with drumbeat.shield():
            write(path / "begun")
            began_s = time.monotonic()
            while time.monotonic() < began_s + 1.0:
                time.sleep(0.01)
                drumbeat.progress(time.monotonic() - began_s)
            write(path / "committed")
        write(path / "after")
    except drumbeat.Interrupted as interrupted:
        write(path / "interrupted", f"{interrupted.reason} {time.monotonic() - began_s}")
        raise


def test_a_shield_delays_a_cancel_until_it_ends(tmp_path: Path) -> None:
    ref = shielded.remote(tmp_path)
    begun(tmp_path / "begun")
    drumbeat.cancel(ref)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(ref, timeout=20)
    assert begun(tmp_path / "committed")
    reason, after_s = begun(tmp_path / "interrupted").split()
    assert reason == "cancelled"
    assert 1.0 <= float(after_s) < GRACE_S
    assert not (tmp_path / "after").exists()


@drumbeat.remote
def shielded_for_good(path: Path) -> None:
    with drumbeat.shield():
        write(path)
        time.sleep(60)


def test_a_shield_that_does_not_end_delays_the_end_no_longer_than_the_grace(
    tmp_path: Path,
) -> None:
    ref = shielded_for_good.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    began_s = time.monotonic()
    drumbeat.cancel(ref)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(ref, timeout=30)
    assert time.monotonic() - began_s >= GRACE_S - 0.5


@drumbeat.remote
def waits_shielded(path: Path, ref: list[drumbeat.ObjectRef[str]]) -> str:
    got = ""
    try:
        with drumbeat.shield():
            write(path)
            got = drumbeat.get(ref[0])
    except drumbeat.Interrupted:
        return f"had {got}"
    return "was not interrupted"


@drumbeat.remote
def slowly() -> str:
    time.sleep(1.0)
    return "it"


def test_a_get_inside_a_shield_comes_to_its_end(tmp_path: Path) -> None:
    ref = waits_shielded.remote(tmp_path / "begun", [slowly.remote()])
    begun(tmp_path / "begun")
    drumbeat.cancel(ref, recursive=False)
    assert drumbeat.get(ref, timeout=20) == "had it"


# ------------------------------------------------------------------- nothing is hit but its target


class SlowToPickle:
    """Says whether anything came while it was pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        write(self.path)
        try:
            until_s = time.monotonic() + 0.7
            while time.monotonic() < until_s:
                time.sleep(0.01)
                drumbeat.progress(1)
        except BaseException as error:  # noqa: BLE001  # that is the question
            return (str, (f"hit by {error!r}",))
        return (str, ("whole",))


@drumbeat.remote
def makes_what_is_slow_to_pickle(path: Path) -> Any:
    return SlowToPickle(path)


def test_no_signal_lands_while_the_result_is_pickled_and_the_value_wins(tmp_path: Path) -> None:
    ref = makes_what_is_slow_to_pickle.remote(tmp_path / "pickling")
    begun(tmp_path / "pickling")
    drumbeat.cancel(ref)
    assert drumbeat.get(ref, timeout=20) == "whole"


@drumbeat.remote
def short(number: int, log: str) -> int:
    try:
        until_s = time.monotonic() + 0.003 * (number % 11)
        while time.monotonic() < until_s:
            drumbeat.progress(number)
            time.sleep(0.001)
    except drumbeat.Interrupted:
        with open(log, "a") as file:
            file.write(f"{number}\n")
        raise
    return number


def test_no_signal_lands_in_another_task_than_its_own(tmp_path: Path) -> None:
    log, chance = tmp_path / "log", random.Random(7)
    log.touch()
    refs = [short.remote(number, str(log)) for number in range(6)]
    rest, targets = list(range(6)), set()
    while len(refs) < 400:
        time.sleep(chance.uniform(0.0, 0.01))
        if chance.random() < 0.4:
            # It runs by now, or has just ended; another follows in its worker at once.
            number = rest[chance.randrange(4)]
            targets.add(number)
            drumbeat.cancel(refs[number])
        ready, _ = drumbeat.wait([refs[number] for number in rest])
        rest = [number for number in rest if refs[number] not in ready]
        rest.append(len(refs))
        refs.append(short.remote(len(refs), str(log)))
    ended = {}
    for number, ref in enumerate(refs):
        try:
            ended[number] = drumbeat.get(ref, timeout=60)
        except drumbeat.TaskCancelled:
            ended[number] = -1
    hit = {int(line) for line in log.read_text().splitlines()}
    assert hit, "this would test nothing"
    assert hit <= targets
    assert {number for number, value in ended.items() if value == -1} <= targets
    assert all(ended[number] == -1 for number in hit), "and it was not run again"


# ------------------------------------------------------------------------- the best so far, and why


@drumbeat.remote
def best_so_far(path: Path) -> list[Any]:
    best = 0
    try:
        while True:
            best += 1
            drumbeat.progress(best, details=best)
            if best == 3:
                write(path)
            time.sleep(0.01)
    except drumbeat.Interrupted as interrupted:
        return [interrupted.reason, best >= 3]


def test_for_a_cancel_the_value_wins(tmp_path: Path) -> None:
    ref = best_so_far.remote(tmp_path / "begun")
    begun(tmp_path / "begun")
    drumbeat.cancel(ref)
    assert drumbeat.get(ref, timeout=20) == ["cancelled", True]


def test_after_a_verdict_the_value_is_the_partial_one(tmp_path: Path) -> None:
    ref = best_so_far.options(timeout=2.0).remote(tmp_path / "begun")
    with pytest.raises(drumbeat.TaskTimedOut) as caught:
        drumbeat.get(ref, timeout=20)
    error = caught.value
    assert error.has_partial
    assert error.partial == ["timed_out", True]
    assert error.last_details >= 3
    again = pickle.loads(pickle.dumps(error))
    assert (again.partial, again.last_details) == (error.partial, error.last_details)


def test_so_it_is_for_one_that_made_no_progress(tmp_path: Path) -> None:
    @drumbeat.remote(heartbeat_timeout=0.5, max_retries=0)
    def stalls() -> str:
        drumbeat.progress(1, 2, details="half")
        try:
            time.sleep(60)
        except drumbeat.Interrupted as interrupted:
            return f"half, {interrupted.reason}"
        return "never"

    with pytest.raises(drumbeat.TaskHung) as caught:
        drumbeat.get(stalls.remote(), timeout=20)
    assert caught.value.partial == "half, hung"
    assert caught.value.last_details == "half"
