"""Large values that workers make go from process to process as files: right, in place, and gone."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import drumbeat
import numpy as np
import psutil
import pytest
from drumbeat.client.local import Cluster
from drumbeat.protocol.segments import NAME
from support.large_files import needs_memory_files
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    needs_memory_files,
]

BYTES = 4 << 20
COUNT = BYTES // 8


@drumbeat.remote
def make(seed: int, size: int = BYTES) -> Any:
    return np.arange(seed, seed + size // 8, dtype=np.int64)


@drumbeat.remote(num_returns=3)
def make_three(seed: int) -> Any:
    return [np.full(COUNT, seed), "small", b"x" * BYTES]


@drumbeat.remote
def look(values: Any) -> tuple[int, bool, bool]:
    """Return the sum, whether it may be written to, and whether it lies in a file."""
    return int(values.sum()), bool(values.flags.writeable), in_file(values)


@drumbeat.remote
def overwrite(values: Any) -> int:
    values[:] = 1
    return int(values.sum())


@drumbeat.remote
def pass_on(seed: int) -> list[Any]:
    """Call with, put and get large values from within a task."""
    mine = np.full(COUNT, seed)
    put = drumbeat.put(mine)
    made = drumbeat.get(make.remote(seed))
    looked = drumbeat.get([look.remote(mine), look.remote(put), look.remote(make.remote(seed))])
    return [int(made.sum()), *looked, put]


@drumbeat.remote
class Keeper:
    def __init__(self, values: Any) -> None:
        self.values = values

    def add(self, values: Any) -> Any:
        self.values = self.values + values
        return self.values


@drumbeat.remote(max_retries=3, retry_backoff_s=0.01)
def make_at_the_third_time(mark: str) -> Any:
    with Path(mark).open("a", encoding="utf-8") as file:
        file.write("x")
    times = Path(mark).stat().st_size
    if times < 3:
        # Its worker, and then the node's daemon, in the moment in which the result is there.
        values = np.ones(COUNT)
        os.kill(os.getpid() if times == 1 else int(Path(f"{mark}.pid").read_text()), signal.SIGKILL)
        return values
    return np.ones(COUNT)


def in_file(values: Any) -> bool:
    """Return whether an array's memory is a map of a file that others of the machine see."""
    address = values.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        begin, end = (int(part, 16) for part in line.split(" ", 1)[0].split("-"))
        if begin <= address < end:
            return NAME in line
    return False


def files_of(pid: int) -> list[str]:
    found = []
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if NAME in os.readlink(fd):
                    found.append(f"{pid}: {fd}")
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        found += [f"{pid}: {line}" for line in maps.splitlines() if NAME in line]
    return found


def all_files() -> list[str]:
    process = psutil.Process()
    pids = [process.pid, *(child.pid for child in process.children(recursive=True))]
    return [found for pid in pids for found in files_of(pid)]


def total(seed: int) -> int:
    return sum(range(seed, seed + COUNT))


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as made:
        yield made


def test_results_are_mapped_and_may_be_written_to_without_anybody_seeing_that(
    cluster: Cluster,
) -> None:
    refs = [make.remote(seed) for seed in range(6)]
    for seed, values in enumerate(drumbeat.get(refs)):
        assert int(values.sum()) == total(seed)
        assert values.flags.writeable
        assert in_file(values)
        values[:] = 0
    assert int(drumbeat.get(refs[3]).sum()) == total(3)
    assert drumbeat.get(overwrite.remote(refs[3])) == COUNT
    assert drumbeat.get(look.remote(refs[3])) == (total(3), True, True)


def test_each_of_several_results_goes_its_own_way(cluster: Cluster) -> None:
    array, text, data = drumbeat.get(make_three.remote(7))
    assert in_file(array)
    assert (int(array.sum()), text, data) == (7 * COUNT, "small", b"x" * BYTES)


def test_tasks_call_put_and_get_large_values_in_place(cluster: Cluster) -> None:
    made, given, put, called, ref = drumbeat.get(pass_on.remote(5))
    assert made == total(5)
    assert given == (5 * COUNT, True, True)
    assert put == (5 * COUNT, False, True), "nobody may write to what was put"
    assert called == (total(5), True, True)
    assert int(drumbeat.get(ref).sum()) == 5 * COUNT


def test_actors_are_made_of_large_values_and_return_them(cluster: Cluster) -> None:
    keeper = Keeper.remote(make.remote(0))
    first = keeper.add.remote(make.remote(1))
    second = keeper.add.remote(first)
    assert int(drumbeat.get(second).sum()) == 2 * (total(0) + total(1))


def test_nothing_is_left_open_when_nobody_holds_the_values(cluster: Cluster) -> None:
    values = drumbeat.get([make.remote(seed) for seed in range(4)])
    more = drumbeat.get(pass_on.remote(5))
    three = drumbeat.get(make_three.remote(1))
    assert all_files()
    del values, more, three
    gc.collect()
    with suppress(AssertionError):
        until(lambda: not all_files(), 10.0)
    left = all_files()
    assert not left, "\n".join([f"this is {os.getpid()}, {drumbeat.nodes()}", *left])


def test_values_whose_refs_go_after_the_end_are_let_go_of_then(root: str) -> None:
    before = files_of(os.getpid())
    with drumbeat.init(num_cpus=2, runtime_directory=root):
        refs = [make.remote(seed) for seed in range(3)]
        drumbeat.wait(refs, num_returns=3)
    assert len(files_of(os.getpid())) > len(before), "they can be had as long as there are refs"
    del refs
    assert files_of(os.getpid()) == before


def test_results_outlive_the_nodes_that_made_them(root: str) -> None:
    with drumbeat.init(num_cpus=1, nodes=2, runtime_directory=root):
        refs = [make.remote(seed) for seed in range(4)]
        drumbeat.wait(refs, num_returns=4)
        for row in drumbeat.nodes():
            psutil.Process(row["pid"]).kill()
        assert [int(values.sum()) for values in drumbeat.get(refs)] == [total(s) for s in range(4)]


def test_a_task_whose_worker_and_node_are_killed_gives_its_large_result_in_the_end(
    cluster: Cluster, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    (node,) = drumbeat.nodes()
    Path(f"{mark}.pid").write_text(str(node["pid"]), encoding="utf-8")
    values = drumbeat.get(make_at_the_third_time.remote(str(mark)), timeout=60)
    assert float(values.sum()) == COUNT
    until(lambda: len(drumbeat.nodes()) >= 1, 20.0)


TASK = """
import drumbeat, os

@drumbeat.remote(max_calls=1)  # in another process
def make():
    return b"x" * {size}

@drumbeat.remote
def without_descriptors(refs):
    taken = []
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    try:
        values = drumbeat.get(refs[0])
        return len(values), len(drumbeat.get(drumbeat.put(values)))
    finally:
        for fd in taken:
            os.close(fd)

with drumbeat.init(num_cpus=1, runtime_directory={root!r}):
    print(drumbeat.get(without_descriptors.remote([make.remote()]), timeout=30))
"""


def test_a_task_that_has_used_up_its_descriptors_still_has_its_values(root: str) -> None:
    # Alone: what else has been imported must not matter.
    code = TASK.format(size=BYTES, root=root)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, str((BYTES, BYTES))), done.stderr


@pytest.mark.parametrize(
    "settings", [{"segment_bytes_min": 0}, {"segment_bytes_min": 1, "inline_bytes_max": 4096}]
)
def test_values_are_the_same_with_other_settings(root: str, settings: dict[str, Any]) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root, **settings):
        array, text, data = drumbeat.get(make_three.remote(7))
        assert (int(array.sum()), text, data) == (7 * COUNT, "small", b"x" * BYTES)
        assert in_file(array) is bool(settings["segment_bytes_min"])
        assert array.flags.writeable
        assert drumbeat.get(look.remote(make.remote(3)))[0] == total(3)
        assert drumbeat.get(make.remote(3, 5000)).tolist() == list(range(3, 3 + 625))


PROGRAM = """
import drumbeat, numpy
drumbeat.init(address={address!r}, machine="elsewhere")
make = drumbeat.remote(lambda seed: numpy.full({count}, seed))
twice = drumbeat.remote(lambda values: values * 2)
values = drumbeat.get([twice.remote(make.remote(seed)) for seed in range(4)])
assert all(value.flags.writeable for value in values)
assert "drumbeat-segment" not in open("/proc/self/maps").read()
print([int(value[-1]) for value in values])
"""


def test_a_program_on_another_machine_has_the_same_values(root: str) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as cluster:
        code = PROGRAM.format(address=cluster.address, count=COUNT)
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout.strip()) == (0, "[0, 2, 4, 6]"), done.stderr
