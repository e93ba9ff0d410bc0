"""What surprised users of a real local cluster, each told once."""

import importlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import pytest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with drumbeat.init(num_cpus=2):
        yield


@drumbeat.remote
def double(x: int) -> int:
    time.sleep(0.002)
    return 2 * x


@drumbeat.remote
def nest(depth: int) -> int:
    if not depth:
        raise LookupError("at the bottom")
    return drumbeat.get(nest.remote(depth - 1))


@pytest.mark.usefixtures("cluster")
def test_references_of_a_generator_may_have_no_other_holder() -> None:
    assert drumbeat.get((double.remote(n) for n in range(50)), timeout=30) == [
        2 * n for n in range(50)
    ]
    assert drumbeat.get(map(double.remote, range(50)), timeout=30)[-1] == 98
    ready, rest = drumbeat.wait(list(map(double.remote, range(9))), num_returns=9, timeout=30)
    assert (len(ready), rest) == (9, [])
    assert len(list(drumbeat.as_completed(map(double.remote, range(90)), timeout=30))) == 90


@pytest.mark.usefixtures("cluster")
def test_an_error_keeps_its_type_through_many_tasks() -> None:
    with pytest.raises(LookupError, match="at the bottom") as caught:
        drumbeat.get(nest.remote(25), timeout=60)
    assert type(caught.value.cause) is LookupError  # type: ignore[attr-defined]
    assert len(str(caught.value)) < 5000
    assert "24 more tasks between" in str(caught.value)


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_class_that_nobody_can_import_is_picklable() -> None:
    def fails() -> None:
        raise type("Passing", (Exception,), {})("x")

    with pytest.raises(drumbeat.TaskError) as caught:
        drumbeat.get(drumbeat.remote(fails).remote(), timeout=30)
    assert "Passing: x" in str(pickle.loads(pickle.dumps(caught.value)))


@pytest.mark.usefixtures("cluster")
def test_what_no_node_can_run_is_told_inside_a_task_at_once() -> None:
    @drumbeat.remote
    def asks_too_much() -> int:
        return drumbeat.get(double.options(num_cpus=64).remote(1))

    with pytest.raises(drumbeat.Infeasible, match="CPU 64"):
        drumbeat.get(asks_too_much.remote(), timeout=20)


@pytest.mark.usefixtures("cluster")
def test_a_module_found_by_a_later_change_of_sys_path_is_found_by_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found_late.py").write_text(
        "import drumbeat\n"
        "class Pair:\n    def __init__(self, a): self.a = a\n"
        "def f(pair=None): return Pair(pair.a + 1 if pair else 1)\n"
        "def outer(): return drumbeat.get(drumbeat.remote(f).options(num_cpus=0).remote()).a\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    late: Any = importlib.import_module("found_late")
    assert drumbeat.get(drumbeat.remote(late.f).remote(late.Pair(4)), timeout=30).a == 5
    assert drumbeat.get(drumbeat.remote(late.outer).remote(), timeout=30) == 1
    sys.modules.pop("found_late")


@pytest.mark.usefixtures("cluster")
def test_children_go_on_when_their_parent_is_cancelled_without_them(tmp_path: Path) -> None:
    @drumbeat.remote(num_cpus=0)
    def child(path: str) -> None:
        time.sleep(0.6)
        Path(path).touch()

    @drumbeat.remote
    def parent(path: str) -> None:
        ref = child.remote(path)
        drumbeat.wait([ref], timeout=0.3)
        Path(f"{path}.begun").touch()
        time.sleep(60)

    path = tmp_path / "done"
    ref = parent.remote(str(path))
    _until(Path(f"{path}.begun").exists)
    drumbeat.cancel(ref, recursive=False)
    with pytest.raises(drumbeat.TaskCancelled):
        drumbeat.get(ref, timeout=20)
    _until(path.exists)


def _until(holds: Any) -> None:
    end_s = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


def test_no_descriptor_stays_open_after_shutdown() -> None:
    drumbeat.shutdown()  # that of the tests before
    counts = []
    for _ in range(6):
        with drumbeat.init(num_cpus=1):
            assert drumbeat.get(double.remote(1), timeout=30) == 2
        counts.append(len(os.listdir("/proc/self/fd")))
    assert counts[1:] == counts[1:2] * 5


def test_threads_that_submit_first_share_the_cluster() -> None:
    drumbeat.shutdown()
    results: list[Any] = []

    def first(n: int) -> None:
        try:
            results.append(drumbeat.get(double.remote(n), timeout=60))
        except Exception as error:  # noqa: BLE001  # told below
            results.append(error)

    threads = [threading.Thread(target=first, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    drumbeat.shutdown()
    assert sorted(results) == [0, 2, 4, 6]
