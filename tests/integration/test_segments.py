"""Large values lie in memory that the machine shares: in place, right, and gone when they are."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from operator import itemgetter
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

#: well above segment_bytes_min, quick to make
BYTES = 8 << 20
#: how long a client may be gone until it is given up, and some
GONE_S = 25.0


def array(size: int = BYTES) -> Any:
    return np.arange(size // 8, dtype=np.int64)


@drumbeat.remote
def total(values: Any) -> int:
    return int(values.sum())


@drumbeat.remote
def look(values: Any) -> tuple[int, bool, int]:
    """Return the sum, whether it may be written to, and the segments that this process has."""
    return int(values.sum()), bool(values.flags.writeable), len(segments_of(os.getpid()))


@drumbeat.remote
def overwrite(values: Any) -> int:
    values[:] = 1
    return int(values.sum())


@drumbeat.remote
def nested(box: dict[str, list[Any]]) -> list[int]:
    return [int(drumbeat.get(ref).sum()) for ref in box["refs"]]


@drumbeat.remote(max_retries=2, retry_backoff_s=0.01)
def dies_at_first(values: Any, mark: str) -> int:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return int(values.sum())


@drumbeat.remote
def wait_for(path: str) -> None:
    until(Path(path).exists, 60.0)


@drumbeat.remote
class Holder:
    def __init__(self, values: Any) -> None:
        self.values = values

    def add(self, values: Any) -> int:
        self.values += values
        return int(self.values.sum())

    def pid(self) -> int:
        return os.getpid()


def segments_of(pid: int) -> list[str]:
    """Return the descriptors and maps of segments that a process has."""
    found = []
    with suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if NAME in os.readlink(fd):
                    found.append(str(fd))
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
        found += [line for line in maps.splitlines() if NAME in line]
    return found


def cluster_segments(but: int = 0) -> list[str]:
    """Return those of all processes that this one has started, but one."""
    pids = [child.pid for child in psutil.Process().children(recursive=True)]
    return [found for pid in pids if pid != but for found in segments_of(pid)]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as made:
        yield made


@pytest.mark.usefixtures("cluster")
def test_what_was_put_is_read_in_place_and_by_nobody_written_to() -> None:
    values = array()
    ref = drumbeat.put(values)
    values[:] = 0
    again = drumbeat.get(ref)
    assert int(again.sum()) == int(array().sum())
    assert not again.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 1
    wanted = int(array().sum())
    looked = drumbeat.get([look.remote(ref) for _ in range(10)], timeout=30)
    assert {(found, writeable) for found, writeable, _ in looked} == {(wanted, False)}
    assert all(count for _, _, count in looked), "it was not mapped, but copied"


@pytest.mark.usefixtures("cluster")
def test_arguments_may_be_written_to_and_the_callers_stay_as_they_were() -> None:
    values = array()
    refs = [overwrite.remote(values) for _ in range(10)]
    assert drumbeat.get(refs, timeout=30) == [values.size] * 10
    assert (values == array()).all()
    # What the caller writes later is not seen either.
    ref = total.remote(values)
    values[:] = 0
    assert drumbeat.get(ref, timeout=30) == int(array().sum())


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "made",
    [b"x" * BYTES, "ä" * BYTES, bytearray(b"y" * BYTES), [b"a" * BYTES, b"b" * BYTES]],
    ids=["bytes", "str", "bytearray", "list"],
)
def test_large_values_of_every_kind_come_back_as_they_were(made: Any) -> None:
    assert drumbeat.get(drumbeat.put(made)) == made

    @drumbeat.remote
    def same(value: Any, wanted: int) -> bool:
        return len(value) == wanted and type(value) is type(made)

    assert drumbeat.get(same.remote(made, len(made)), timeout=30)
    assert drumbeat.get(same.remote(drumbeat.put(made), len(made)), timeout=30)


def test_more_than_may_be_sent_is_read_on_the_same_machine(root: str) -> None:
    size = 100_000_000
    values = np.ones(size, dtype=np.uint8)
    with drumbeat.init(num_cpus=2, runtime_directory=root, value_bytes_max=64 << 20):
        assert drumbeat.get(total.remote(drumbeat.put(values)), timeout=60) == size
        assert drumbeat.get(total.remote(values), timeout=60) == size


@pytest.mark.usefixtures("cluster")
def test_large_values_inside_values_and_many_calls_at_once() -> None:
    wanted = int(array().sum())
    refs = [drumbeat.put(array()) for _ in range(3)]
    outer = drumbeat.put({"refs": refs})
    direct = nested.remote({"refs": refs})
    del refs
    assert drumbeat.get([direct, nested.remote(outer)], timeout=30) == [[wanted] * 3] * 2
    assert list(drumbeat.map(total, [array() for _ in range(4)])) == [wanted] * 4
    with drumbeat.Executor() as executor:
        assert list(executor.map(np.sum, [array() for _ in range(4)])) == [wanted] * 4


@pytest.mark.usefixtures("cluster")
def test_actors_take_large_arguments_and_keep_them() -> None:
    holder = Holder.remote(array())
    wanted = int(array().sum())
    calls = [holder.add.remote(array()) for _ in range(3)]
    assert drumbeat.get(calls, timeout=30) == [2 * wanted, 3 * wanted, 4 * wanted]


@pytest.mark.usefixtures("cluster")
def test_an_actor_that_begins_anew_has_its_large_argument_again() -> None:
    holder = Holder.options(max_restarts=1).remote(array())
    wanted = int(array().sum())
    assert drumbeat.get(holder.add.remote(0), timeout=30) == wanted
    assert segments_of(os.getpid()), "for the next incarnation"
    pid = drumbeat.get(holder.pid.remote(), timeout=30)
    drumbeat.kill(holder, no_restart=False)
    until(lambda: not psutil.pid_exists(pid))  # a call made before that may be lost with it
    assert drumbeat.get(holder.add.remote(array()), timeout=30) == 2 * wanted
    del holder
    until(lambda: not segments_of(os.getpid()))


@pytest.mark.usefixtures("cluster")
def test_a_future_of_a_large_value_has_it_though_nobody_else_does() -> None:
    future = drumbeat.put(array()).future()
    gc.collect()
    drumbeat.get(total.remote(array()), timeout=30)  # by now it is known what has gone
    assert int(future.result(30).sum()) == int(array().sum())
    ref = drumbeat.put(array())
    with drumbeat.Executor() as executor:
        made = executor.submit(itemgetter(0), [ref])
    del ref
    gc.collect()
    drumbeat.get(total.remote(array()), timeout=30)
    assert int(drumbeat.get(made.result(), timeout=30).sum()) == int(array().sum())
    del future, made
    until(lambda: not segments_of(os.getpid()))


@pytest.mark.usefixtures("cluster")
def test_a_task_whose_worker_is_killed_has_its_large_argument_again(tmp_path: Path) -> None:
    refs = [
        dies_at_first.remote(array(), str(tmp_path / "value")),
        dies_at_first.remote(drumbeat.put(array()), str(tmp_path / "ref")),
    ]
    assert drumbeat.get(refs, timeout=30) == [int(array().sum())] * 2


def test_large_arguments_outlive_the_scheduler(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "go on"
    blockers = [wait_for.remote(str(path)) for _ in range(2)]
    queued = [total.remote(array()), total.remote(drumbeat.put(array()))]
    pid = until(lambda: cluster.processes.get("scheduler"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.processes.get("scheduler") not in (None, pid))
    path.touch()
    assert drumbeat.get([*blockers, *queued], timeout=60) == [None] * 2 + [int(array().sum())] * 2


def test_without_segments_all_travels_as_bytes(root: str) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root, segment_bytes_min=0):
        wanted = int(array().sum())
        ref = drumbeat.put(array())
        looked = [look.remote(ref), look.remote(array())]
        assert drumbeat.get(looked, timeout=30) == [(wanted, True, 0)] * 2
        assert drumbeat.get(ref).flags.writeable
        assert not segments_of(os.getpid())


ELSEWHERE = """
import sys, numpy, drumbeat
with drumbeat.init(sys.argv[1], machine="another one", value_bytes_max=64 << 20):
    name = sys.argv[2]
    @drumbeat.remote
    def look(values):
        return int(values.sum()), values.flags.writeable, name in open("/proc/self/maps").read()
    values = numpy.ones(1 << 20, dtype=numpy.int64)
    ref = drumbeat.put(values)
    print(drumbeat.get([look.remote(ref), look.remote(values)], timeout=30))
    del ref
    large = numpy.ones(10 << 20, dtype=numpy.int64)
    try:
        drumbeat.get(look.remote(large), timeout=30)
    except drumbeat.DrumbeatError as error:
        print(error)
"""


def test_bytes_travel_to_other_machines_and_what_is_too_large_is_told(cluster: Cluster) -> None:
    """The cluster is said to be on another machine than the program."""
    words = [sys.executable, "-c", ELSEWHERE, cluster.address, NAME]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first == f"[({1 << 20}, False, False), ({1 << 20}, True, False)]"
    assert "value_bytes_max" in " ".join(rest)


LEAVES = """
import sys, time, numpy, drumbeat
drumbeat.init(sys.argv[1])
@drumbeat.remote
def hold(values):
    print(int(values.sum()), flush=True)
    time.sleep(1000)
values = numpy.ones(1 << 20, dtype=numpy.int64)
ref = drumbeat.put(values)
held = [hold.remote(ref), hold.remote(values), hold.remote(values)]
sys.stdin.read()
"""


def test_a_killed_program_leaves_no_segment_in_any_process_of_the_node(cluster: Cluster) -> None:
    words = [sys.executable, "-c", LEAVES, cluster.address]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        try:
            until(lambda: cluster_segments(but=other.pid))
        finally:
            other.kill()
    until(lambda: not cluster_segments(), GONE_S)


@pytest.mark.usefixtures("cluster")
def test_at_rest_nothing_is_left_of_what_was_large() -> None:
    def work() -> None:
        ref = drumbeat.put(array())
        drumbeat.get(ref)
        drumbeat.get([total.remote(ref), total.remote(array()), overwrite.remote(array())])

    work()
    until(lambda: not segments_of(os.getpid()))
    until(lambda: not cluster_segments())
    before = descriptors()
    for _ in range(10):
        work()
    until(lambda: not segments_of(os.getpid()))
    until(lambda: not cluster_segments())
    assert descriptors() <= before
