"""Every option of a task does what its row in the README says, on a real cluster."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.session import current
from support.waiting import until

pytestmark = pytest.mark.integration

Span = tuple[float, float]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with drumbeat.init(nodes=2, num_cpus=2, num_gpus=2, resources={"disk": 2}) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def nodes(cluster: Cluster) -> dict[str, int]:
    """The process id of each node's keeper, the parent of its workers."""
    return {name: pid for name, pid in cluster.processes.items() if name != "scheduler"}


@drumbeat.remote
def span(seconds: float) -> Span:
    started_s = time.monotonic()
    time.sleep(seconds)
    return started_s, time.monotonic()


@drumbeat.remote
def meets(place: Path, number: int, of: int) -> int:
    """Come to a place and stay until so many are there; return how many."""
    (place / str(number)).touch()
    until(lambda: len(list(place.iterdir())) >= of)
    return len(list(place.iterdir()))


@drumbeat.remote
def keeps(gate: Path) -> None:
    until(gate.exists, 60.0)


@drumbeat.remote
def where() -> tuple[int, int]:
    return os.getpid(), os.getppid()


@drumbeat.remote
def write(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


@drumbeat.remote
def die(path: str) -> None:
    with open(path, "a") as file:
        file.write(f"{time.monotonic()}\n")
    os._exit(3)


@drumbeat.remote
def fail_until(path: str, times: int) -> int:
    with open(path, "a") as file:
        file.write(f"{time.monotonic()}\n")
    tried = len(Path(path).read_text().splitlines())
    if tried < times:
        raise ConnectionError(f"try {tried}")
    return tried


def together_at_most(spans: list[Span]) -> int:
    """Return how many of the spans lie over one moment at worst."""
    return max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_num_cpus_bounds_what_runs_at_once_and_fractions_share_a_cpu(
    nodes: dict[str, int], tmp_path: Path
) -> None:
    first = next(iter(nodes))

    wide = drumbeat.get([span.options(num_cpus=2, node=first).remote(0.05) for _ in range(4)])
    narrow = meets.options(num_cpus=0.5, node=first)
    met = drumbeat.get([narrow.remote(tmp_path, number, 4) for number in range(4)], timeout=60)

    assert together_at_most(wide) == 1
    assert met == [4] * 4


def test_num_gpus_gives_each_task_devices_of_its_own(nodes: dict[str, int]) -> None:
    first = next(iter(nodes))

    @drumbeat.remote(num_gpus=1, node=first)
    def device(seconds: float) -> tuple[str, Span]:
        started_s = time.monotonic()
        time.sleep(seconds)
        return os.environ["CUDA_VISIBLE_DEVICES"], (started_s, time.monotonic())

    found = drumbeat.get([device.remote(0.3) for _ in range(4)])

    assert {name for name, _ in found} == {"0", "1"}
    for name in ("0", "1"):
        assert together_at_most([when for device_, when in found if device_ == name]) == 1


def test_resources_bound_what_runs_at_once(nodes: dict[str, int]) -> None:
    first = next(iter(nodes))
    asked = span.options(num_cpus=0, resources={"disk": 1.5}, node=first)

    assert together_at_most(drumbeat.get([asked.remote(0.05) for _ in range(4)])) == 1


def test_num_returns_gives_a_reference_for_each_value_and_none_for_no_value(
    cluster: Cluster, tmp_path: Path
) -> None:
    @drumbeat.remote(num_returns=3)
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    path = tmp_path / "written"
    a, b, c = three.remote()

    assert drumbeat.get([c, b, a]) == [3, 2, 1]
    assert write.options(num_returns=0).remote(str(path), "done") is None
    deadline_s = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert path.exists()


def test_a_wrong_number_of_values_is_an_error(cluster: Cluster) -> None:
    @drumbeat.remote(num_returns=2)
    def one_too_few() -> tuple[int]:
        return (1,)

    for ref in one_too_few.remote():
        with pytest.raises(ValueError, match="2"):
            drumbeat.get(ref, timeout=10)


@pytest.mark.parametrize("max_retries", [0, 1])
def test_max_retries_bounds_the_executions_when_workers_die(
    cluster: Cluster, tmp_path: Path, max_retries: int
) -> None:
    path = tmp_path / "runs"
    ref = die.options(max_retries=max_retries, retry_backoff_s=0.01).remote(str(path))

    with pytest.raises(drumbeat.WorkerDied) as caught:
        drumbeat.get(ref, timeout=20)

    assert caught.value.exit_code == 3
    assert len(lines(path)) == 1 + max_retries


def test_retry_exceptions_tries_the_named_exceptions_again_and_no_others(
    cluster: Cluster, tmp_path: Path
) -> None:
    asked = fail_until.options(retry_exceptions=(ConnectionError,), retry_backoff_s=0.01)
    not_asked = fail_until.options(retry_exceptions=(KeyError,), retry_backoff_s=0.01)

    assert drumbeat.get(asked.remote(str(tmp_path / "asked"), 3), timeout=20) == 3
    with pytest.raises(ConnectionError, match="try 1"):
        drumbeat.get(not_asked.remote(str(tmp_path / "not"), 3), timeout=20)
    with pytest.raises(ConnectionError, match="try 4"):
        drumbeat.get(asked.remote(str(tmp_path / "too many"), 9), timeout=20)


def test_retry_backoff_s_is_the_first_pause_and_doubles(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "times"
    asked = fail_until.options(retry_exceptions=True, retry_backoff_s=0.2)

    drumbeat.get(asked.remote(str(path), 3), timeout=20)

    first, second, third = map(float, lines(path))
    assert second - first >= 0.1  # the pause varies, so that many tasks do not return at once
    assert third - second >= 0.2


def test_wait_for_nodes_waits_for_what_is_infeasible_now(cluster: Cluster) -> None:
    with pytest.raises(drumbeat.Infeasible, match="disk"):
        span.options(resources={"disk": 99}).remote(0.0)

    ref = span.options(resources={"disk": 99}, wait_for_nodes=True).remote(0.0)
    assert drumbeat.wait([ref], timeout=0.3) == ([], [ref])
    drumbeat.cancel(ref)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(ref, timeout=10)


def test_priority_lets_a_later_task_overtake(nodes: dict[str, int], tmp_path: Path) -> None:
    first = next(iter(nodes))
    path = tmp_path / "order"
    wide = write.options(node=first, num_cpus=2)
    gate = tmp_path / "gate"
    held = keeps.options(node=first, num_cpus=2).remote(gate)
    low = [wide.remote(str(path), "low") for _ in range(5)]
    urgent = wide.options(priority=5).remote(str(path), "urgent")
    last = wide.options(priority=-5).remote(str(path), "last")
    low += [wide.remote(str(path), "low") for _ in range(5)]
    until(lambda: current().query("status")["tasks"]["queued"] == 12)  # type: ignore[union-attr]
    gate.touch()

    drumbeat.get([held, urgent, last, *low], timeout=20)

    assert lines(path) == ["urgent", *["low"] * 10, "last"]


def test_name_is_what_tables_call_the_task(cluster: Cluster) -> None:
    ref = span.options(name="thumbnails", resources={"disk": 99}, wait_for_nodes=True).remote(0.0)
    drumbeat.wait([ref], timeout=0.2)
    session = current()
    assert session is not None

    assert [row["name"] for row in session.query("tasks", match="thumb")] == ["thumbnails"]
    drumbeat.cancel(ref)


def test_node_runs_it_there_and_nowhere_else(nodes: dict[str, int]) -> None:
    for name, keeper in nodes.items():
        found = drumbeat.get([where.options(node=name).remote() for _ in range(20)], timeout=20)
        assert {parent for _, parent in found} == {keeper}


def test_a_node_that_does_not_exist_is_infeasible(cluster: Cluster) -> None:
    with pytest.raises(drumbeat.Infeasible, match="nowhere"):
        where.options(node="nowhere").remote()


def test_spread_uses_all_nodes(nodes: dict[str, int]) -> None:
    @drumbeat.remote(spread=True)
    def parent() -> int:
        time.sleep(0.1)
        return os.getppid()

    assert Counter(drumbeat.get([parent.remote() for _ in range(4)], timeout=20)) == dict.fromkeys(
        nodes.values(), 2
    )


def test_max_calls_ends_the_worker_after_so_many(cluster: Cluster) -> None:
    asked = where.options(max_calls=2)

    calls = Counter(pid for pid, _ in drumbeat.get([asked.remote() for _ in range(8)], timeout=20))

    assert max(calls.values()) <= 2


def test_env_vars_are_set_in_the_worker_and_in_no_other(cluster: Cluster) -> None:
    @drumbeat.remote
    def greeting() -> str | None:
        return os.environ.get("GREETING")

    given = greeting.options(env_vars={"GREETING": "good morning"})

    assert drumbeat.get([given.remote(), greeting.remote()], timeout=20) == ["good morning", None]


def test_working_dir_is_where_the_worker_runs(cluster: Cluster, tmp_path: Path) -> None:
    @drumbeat.remote
    def here() -> str:
        return os.getcwd()

    moved = here.options(working_dir=str(tmp_path))

    assert drumbeat.get([moved.remote(), here.remote()], timeout=20) == [
        str(tmp_path),
        os.getcwd(),
    ]


def test_a_working_dir_that_does_not_exist_is_an_error_that_names_it(cluster: Cluster) -> None:
    ref = where.options(working_dir="/does/not/exist").remote()

    with pytest.raises(drumbeat.DrumbeatError, match="/does/not/exist"):
        drumbeat.get(ref, timeout=30)
