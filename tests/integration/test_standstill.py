"""Tasks that wait for what they keep from each other: one of them is told, with real processes."""

import time
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import pytest
from support.waiting import until

pytestmark = pytest.mark.integration


@drumbeat.remote(resources={"lane": 1})
def child(number: int) -> int:
    return number + 1


@drumbeat.remote(resources={"lane": 1})
def keeps_the_lane(number: int) -> int:
    return drumbeat.get(child.remote(number))


@drumbeat.remote(resources={"lane": 1})
def gives_way(number: int) -> str:
    try:
        return f"got {drumbeat.get(child.remote(number))}"
    except drumbeat.ResourceDeadlock as deadlock:
        return str(deadlock)


@drumbeat.remote
def descend(depth: int) -> int:
    return 0 if depth == 0 else 1 + drumbeat.get(descend.remote(depth - 1))


@drumbeat.remote(num_cpus=2)
def wide() -> str:
    return "wide"


@drumbeat.remote
def wants_a_wide_one(place: Path, number: int) -> str:
    """Wait until two of them are there: each keeps a CPU that it lends from then on."""
    (place / str(number)).touch()
    until(lambda: len(list(place.iterdir())) == 2)
    return drumbeat.get(wide.remote())


@pytest.fixture
def one_lane() -> Iterator[None]:
    with drumbeat.init(num_cpus=2, resources={"lane": 1}, heartbeat_interval_s=0.2):
        yield


@pytest.mark.usefixtures("one_lane")
def test_a_parent_that_keeps_what_its_child_needs_is_told_and_the_child_runs() -> None:
    text = drumbeat.get(gives_way.remote(1), timeout=20)
    assert "gives_way waits in get()" in text
    assert "keeps lane 1" in text
    assert "child asks for CPU 1, lane 1" in text
    assert drumbeat.get(child.remote(1), timeout=20) == 2


@pytest.mark.usefixtures("one_lane")
def test_many_such_parents_are_told_one_after_the_other() -> None:
    refs = [keeps_the_lane.remote(number) for number in range(4)]
    for ref in refs:
        with pytest.raises(drumbeat.ResourceDeadlock, match="lane"):
            drumbeat.get(ref, timeout=30)


@pytest.mark.usefixtures("one_lane")
def test_nobody_is_told_while_something_runs_that_may_end_it() -> None:
    @drumbeat.remote
    def holds_up(seconds: float) -> float:
        time.sleep(seconds)
        return time.monotonic()

    @drumbeat.remote
    def waits_for_the_lane() -> float:
        drumbeat.get(child.remote(1))
        return time.monotonic()

    @drumbeat.remote(resources={"lane": 1})
    def keeps_it_for(seconds: float) -> float:
        return drumbeat.get(holds_up.remote(seconds))

    long = keeps_it_for.remote(3.0)
    time.sleep(0.3)
    waits = waits_for_the_lane.remote()
    ended = drumbeat.get(long, timeout=20)
    assert drumbeat.get(waits, timeout=20) > ended


@pytest.mark.usefixtures("one_lane")
def test_a_get_with_a_timeout_ends_by_itself_and_is_told_of_nothing_else() -> None:
    @drumbeat.remote(resources={"lane": 1})
    def patient() -> str:
        try:
            drumbeat.get(child.remote(1), timeout=3.0)
        except drumbeat.GetTimeoutError:
            return "in vain"
        return "not at all"

    assert drumbeat.get(patient.remote(), timeout=20) == "in vain"


def test_what_is_too_wide_for_what_waiting_tasks_leave_is_found_out(tmp_path: Path) -> None:
    with drumbeat.init(num_cpus=2, workers_blocked_max=1, heartbeat_interval_s=0.2):
        refs = [wants_a_wide_one.remote(tmp_path, number) for number in range(2)]
        failures = [ref.exception(timeout=20) for ref in refs]
        (told,) = [failure for failure in failures if failure is not None]
        assert isinstance(told, drumbeat.ResourceDeadlock)
        assert "workers_blocked_max" in str(told)


def test_it_is_found_out_over_several_nodes() -> None:
    with drumbeat.init(nodes=2, num_cpus=1, workers_blocked_max=1, heartbeat_interval_s=0.2):
        with pytest.raises(drumbeat.ResourceDeadlock, match="workers_blocked_max"):
            drumbeat.get(descend.remote(6), timeout=30)
        assert drumbeat.get(descend.remote(1), timeout=20) == 1
