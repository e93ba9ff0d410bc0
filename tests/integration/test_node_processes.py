"""Keeper, template and workers as real processes, driven through Pool without a scheduler."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.integration

HOUSE = Path(__file__).parents[1] / "support" / "node_house.py"
ACTOR_HOUSE = HOUSE.with_name("actor_house.py")
ORPHAN_HOUSE = HOUSE.with_name("orphan_house.py")
FALLBACKS = {"socket_kind": "dgram", "memory_files": "file"}


class House:
    """One node of its own; every process below it carries a mark in its environment."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mark = uuid.uuid4().hex
        self.program = HOUSE
        self.result_file = directory / "result.json"
        self.process: subprocess.Popen[str] | None = None
        self.owner = -1

    def begin(self, scenario: str, **settings: Any) -> None:
        reader, self.owner = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable,
                self.program,
                scenario,
                self.result_file,
                json.dumps(settings),
                str(reader),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[reader],
            start_new_session=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")},
                "HOUSE_MARK": self.mark,
                "SCENARIO_DIRECTORY": str(self.directory),
                "PYTHONPATH": "",
            },
        )
        os.close(reader)

    def end(self, timeout_s: float = 60.0) -> tuple[int, str]:
        assert self.process is not None
        _, error = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, error

    def run(self, scenario: str, **settings: Any) -> Any:
        self.begin(scenario, **settings)
        status, error = self.end()
        assert status == 0, error
        assert self.result_file.exists(), error
        return self.result()

    def stop(self) -> None:
        """End the owner, and with it all."""
        if self.owner >= 0:
            os.close(self.owner)
            self.owner = -1

    def result(self) -> Any:
        return json.loads(self.result_file.read_text(encoding="utf-8"))

    def left(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.environ().get("HOUSE_MARK") == self.mark
                    and process.status() != psutil.STATUS_ZOMBIE
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found


def eventually(done: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    until_s = time.monotonic() + timeout_s
    while not (found := done()):
        assert time.monotonic() < until_s, "it did not happen in time"
        time.sleep(0.01)
    return found


def shared_files() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("drumbeat")}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    before = shared_files()
    one = House(tmp_path)
    try:
        yield one
        one.stop()
        eventually(lambda: not one.left(), 5.0)
        assert shared_files() == before
        assert not [path for path in tmp_path.iterdir() if path.is_socket()]
    finally:
        one.stop()
        for process in one.left():
            process.kill()
        if one.process is not None:
            one.process.kill()
            # Shown of tests that fail.
            print(*one.process.communicate(), sep="\n", file=sys.stderr)


kinds = pytest.mark.parametrize(
    "settings",
    [{"worker_start": "fork"}, FALLBACKS, {"worker_start": "spawn"}],
    ids=["best", "fallbacks", "spawn"],
)


@kinds
def test_tasks_return_their_values_whatever_their_number_and_size(
    house: House, settings: dict[str, str]
) -> None:
    shown = house.run("values", **settings)
    assert shown.pop("wrong number").startswith("ValueError: add")
    assert shown == {
        "sum": 5, "none": None, "big": 5_000_000, "big argument": 3_000_001, "two": [1, 2],
        "zero": 0,
    }  # fmt: skip


def test_whatever_a_task_raises_is_its_error_and_the_next_task_runs(house: House) -> None:
    shown = house.run("errors")
    assert shown["ValueError"] == ["ValueError: broken", False]
    assert shown["KeyError"] == ["KeyError: 'broken'", True]
    assert shown["SystemExit"] == ["SystemExit: broken", False]
    assert shown["KeyboardInterrupt"] == ["KeyboardInterrupt: broken", False]
    text = shown["missing"][0]
    assert "the function bad" in text
    assert "node lab" in text
    assert "no_such_module" in text
    assert shown["lock"] == ["NotPicklable", False]
    assert shown["alive"] == 2


@kinds
def test_a_workers_end_is_told_after_all_it_said(house: House, settings: dict[str, str]) -> None:
    shown = house.run("deaths", **settings)
    left = shown["leave"]
    assert (left["status"], left["signal"]) == (3, "")
    assert left["tail"].splitlines()[-1] == "last words"
    assert left["page"] == [[1, 2, True]]
    crashed = shown["crash"]
    assert (crashed["status"], crashed["signal"]) == (-signal.SIGSEGV, "SIGSEGV")
    assert "Segmentation fault" in crashed["tail"]
    assert shown["fail"]["status"] == 0
    assert shown["fail"]["finished"] == [1, 2, 3]
    assert shown["fail"]["page"] == [[3, 3, False]]
    assert all(one["last"] for one in shown.values())


def test_a_kill_for_want_of_memory_is_told_from_any_other(house: House) -> None:
    assert house.run("hunger") == {
        "somebody": ["SIGKILL", False],
        "kernel": ["SIGKILL", True],
        "node": ["SIGKILL", False],
        "itself": ["SIGSEGV", False],
    }


@kinds
def test_what_a_task_prints_arrives_before_its_result(
    house: House, settings: dict[str, str]
) -> None:
    text, ordered, soon, longest, total, dropped = house.run(
        "prints", output_bytes_max=100_000, **settings
    )
    assert text == "hello ünïcode\nto stderr\n"
    assert ordered
    assert soon, "a busy worker's output is forwarded while it runs"
    assert longest <= 64 << 10
    assert dropped > 90_000
    assert total + dropped > 200_000


@kinds
def test_an_interrupt_stops_the_row_it_is_meant_for_and_no_other(
    house: House, settings: dict[str, str]
) -> None:
    cancelled = ["TaskCancelled: pause was cancelled while it ran on node 'lab'", True]
    assert house.run("interrupts", **settings) == [
        cancelled,
        ["half", True],
        ["stayed", True],
        ["slept", True],
        ["TaskCancelled: nested_get was cancelled while it ran on node 'lab'", True],
        [3, True],
    ]


@kinds
def test_what_has_not_started_can_be_taken_back(house: House, settings: dict[str, str]) -> None:
    shown = house.run("taking_back", **settings)
    assert shown["taken"] == [2, 3]
    assert shown["after"] == 10
    samples, first = shown["page"]
    assert samples == [[1, first, True]]
    assert shown["returned"] == [[first + 1, first + 2], first]
    assert shown["again"] == 12
    assert shown["stopped"] == 101
    assert shown["continued"] == 14


@kinds
def test_a_task_submits_waits_and_is_answered(house: House, settings: dict[str, str]) -> None:
    shown = house.run("nesting", **settings)
    assert shown["order"] == ["Ready", "Submitted", "Returned", "Want"]
    assert shown["returned"] == [[2, 3], [4]]
    assert shown["kinds"] == [1, 3, 1]
    assert shown["lends"] is True
    assert shown["values"] == [None, None, None]
    assert sum(shown["dropped"]) == 3
    assert shown["in_threads"] == [None] * 5
    assert shown["futures"] == [None]
    assert shown["threads lend"] == 1, "only the main thread's get lends"


def test_refs_that_live_on_in_a_worker_are_told(house: House) -> None:
    assert house.run("holding") == [[0, 2], True]


@kinds
def test_a_worker_is_set_up_as_its_key_says(house: House, settings: dict[str, str]) -> None:
    shown = house.run("set_up", **settings)
    assert shown["env"] == {
        "COLOUR": "red", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip
    assert shown["directory"]
    assert shown["group"]
    assert shown["parent"]
    assert shown["descriptors"] <= 9, "one of them is the reserve"
    assert "'/no/such/directory' on node lab: No such file" in shown["bad directory"]
    assert shown["bad status"] == 1


@kinds
def test_what_a_task_started_ends_with_its_worker(house: House, settings: dict[str, str]) -> None:
    assert house.run("family", **settings) == {"KILL": True, "TERM": True, "Exit": True}


@kinds
def test_the_end_of_the_template_harms_no_worker(house: House, settings: dict[str, str]) -> None:
    assert house.run("template_dies", **settings) == ["slept", [2, 2, 2]]


def test_many_workers_start_and_end_at_once(house: House) -> None:
    assert house.run("many") == [True, True, 0]


@kinds
@pytest.mark.parametrize("victim", ["keeper", "owner", "term"])
def test_nothing_outlives_the_keeper(house: House, victim: str, settings: dict[str, str]) -> None:
    house.begin("stays", **settings)
    eventually(house.result_file.exists, 20.0)
    pids = house.result()
    if victim == "keeper":
        os.kill(pids["keeper"], signal.SIGKILL)
    elif victim == "owner":
        house.stop()
        assert house.end(10.0)[0] == 0
    else:
        os.kill(pids["keeper"], signal.SIGTERM)
        assert house.end(10.0)[0] == 0
    eventually(lambda: not house.left(), 5.0)


def test_a_daemon_that_has_only_begun_sweeps_up_too_where_there_is_no_template(
    house: House,
) -> None:
    # What runs in this house has no handler of its own, as a daemon that still imports has none.
    house.begin("stays")
    eventually(house.result_file.exists, 20.0)
    pids = house.result()
    os.kill(pids["keeper"], signal.SIGSTOP)  # it starts no other template
    os.kill(pids["template"], signal.SIGKILL)
    os.kill(pids["keeper"], signal.SIGKILL)
    eventually(lambda: not house.left(), 5.0)


@pytest.mark.parametrize(("scenario", "terms"), [("owned", None), ("drains", 0)])
def test_a_daemon_whose_keeper_is_killed_in_the_middle_of_a_turn_takes_no_leave(
    house: House, scenario: str, terms: int | None
) -> None:
    house.program = ORPHAN_HOUSE
    house.begin(scenario)
    eventually(house.result_file.exists, 20.0)
    assert house.result() == ["the keeper is gone", terms]
    eventually(lambda: not house.left(), 5.0)


@kinds
def test_a_new_daemon_starts_only_when_nothing_of_the_old_one_is_left(
    house: House, settings: dict[str, str]
) -> None:
    house.begin("stays", **settings)
    eventually(house.result_file.exists, 20.0)
    before = house.result()
    house.result_file.unlink()
    os.kill(before["daemon"], signal.SIGKILL)
    eventually(house.result_file.exists, 20.0)
    after = house.result()
    assert after["keeper"] == before["keeper"]
    assert after["template"] == before["template"]
    old = {*before["workers"], *(pid for family in before["families"] for pid in family)}
    assert not old & {process.pid for process in house.left()}


def test_a_killed_template_is_replaced_and_a_killed_worker_takes_its_family_along(
    house: House,
) -> None:
    house.begin("stays")
    eventually(house.result_file.exists, 20.0)
    pids = house.result()
    os.kill(pids["template"], signal.SIGKILL)
    os.kill(pids["workers"][0], signal.SIGKILL)
    gone = {pids["workers"][0], *pids["families"][0], pids["template"]}
    eventually(lambda: not gone & {process.pid for process in house.left()}, 5.0)
    kept = {pids["workers"][1], *pids["families"][1][:2], pids["daemon"]}
    assert kept <= {process.pid for process in house.left()}


def test_a_daemon_whose_loop_stands_still_is_aborted_and_started_anew(house: House) -> None:
    house.begin("hangs", heartbeat_interval_s=0.1)
    status, error = house.end(30.0)
    assert status == 0, error
    assert house.result() == "second life"
    assert "SIGABRT" in error
    assert "in hangs" in error, "it said where it was stuck"


def test_a_stopped_daemon_is_not_taken_for_a_stuck_one(house: House) -> None:
    house.begin("stays", heartbeat_interval_s=0.1)
    eventually(house.result_file.exists, 20.0)
    pids = house.result()
    os.kill(pids["daemon"], signal.SIGSTOP)
    time.sleep(3.5)
    assert psutil.pid_exists(pids["daemon"])
    os.kill(pids["daemon"], signal.SIGCONT)
    time.sleep(1.5)
    assert psutil.pid_exists(pids["daemon"])


def test_a_daemon_that_fails_over_and_over_stops_the_node_for_good(house: House) -> None:
    house.begin("fails")
    status, error = house.end(30.0)
    assert status == 70
    assert "3 times within 60 s; this node stops for good" in error


# ----------------------------------------------------------------------------------------- actors


@kinds
def test_an_actor_is_called_in_order_and_goes_on_whatever_its_methods_raise(
    house: House, settings: dict[str, str]
) -> None:
    house.program = ACTOR_HOUSE
    shown = house.run("calls", **settings)
    assert shown == {
        "values": [6, 8, 11],
        "idle": None,
        "error": "ValueError: broken",
        "missing": "AttributeError: 'Counter' object has no attribute 'no_such_method'",
        "exit": "SystemExit: 3",
        "after": 12,
        "order": True,
    }


def test_a_constructor_that_raises_is_the_creations_error(house: House) -> None:
    house.program = ACTOR_HOUSE
    error, status, made = house.run("constructors")
    assert error.startswith("TypeError: Counter.__init__() takes")
    assert (status, made) == (0, 0)


def test_an_actor_ends_itself_or_is_told_to_or_dies(house: House) -> None:
    house.program = ACTOR_HOUSE
    assert house.run("ends") == {
        "itself": [0, [None, None, None], [True, True, False]],
        "told": [0, True],
        "quit": [3, True],
        "crash": [-signal.SIGSEGV, True],
        "killed": "SIGKILL",
    }


def test_calls_behind_one_that_waits_stay_with_the_actor_and_keep_their_order(house: House) -> None:
    house.program = ACTOR_HOUSE
    assert house.run("waits") == [[1, 2, 3, 4, 5, 6], 0]


def test_calls_are_taken_back_from_an_actor_and_a_running_one_is_interrupted(house: House) -> None:
    house.program = ACTOR_HOUSE
    returned, after, stopped, last = house.run("taking_back")
    assert returned == [2, 3]
    assert (after, last) == (2, 3)
    assert stopped.startswith("TaskCancelled")
