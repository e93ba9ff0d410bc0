"""Nonsense of tasks, full disks, no descriptors, no processes: told, survived, nobody else's loss.

The limits are those of real processes, set from outside while they run.
"""

import contextlib
import os
import resource
import socket
import stat
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import drumbeat
import msgspec
import pytest
from drumbeat.scheduler.__main__ import FILES_WANTED
from support.process_table import alive, children_of, is_daemon, words_of
from support.second_client import Refused, SecondClient
from support.waiting import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        sys.platform != "linux",
        reason="only Linux can limit a process that runs already (prlimit)",
    ),
]
#: where the forks of a process that follows fail, see support/faults
SWITCH = "FAULT_NO_FORK"
FAULTS = Path(__file__).parents[1] / "support" / "faults"


@drumbeat.remote
def square(x: int) -> int:
    return x * x


@drumbeat.remote(max_retries=0)
def naps(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


@drumbeat.remote(max_retries=0)
def large(size: int) -> bytes:
    return bytes(size)


@drumbeat.remote(max_retries=0)
def length(data: bytes) -> int:
    return len(data)


@drumbeat.remote(max_retries=0, num_cpus=0.5)
def babble(seed: int) -> int:
    """Write anything into every socket of the worker, descriptors with it; return how many."""
    random, sockets = Random(seed), []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                sockets.append(socket.socket(fileno=os.dup(int(name))))
    plain = [[], None, 2**63, ["finished"], ["finished", [[1, [], 0.1]]], ["submitted", b"p" * 14]]
    for _ in range(30):
        data = random.randbytes(random.choice((1, 9, 40, 4000)))
        count, length = random.choice((0, 1, 2, 3, 255)), random.choice((0, 1, 1 << 40))
        head = struct.pack("!BBQ", 0xC1, count, length)
        said = random.choice(
            (data, head + data, head, msgspec.msgpack.encode(random.choice(plain)))
        )
        for one in sockets:
            with contextlib.suppress(OSError):
                socket.send_fds(one, [said], [0] * random.choice((0, 0, 1, 3)))
    time.sleep(0.3)  # until it has been read
    return len(sockets)


@pytest.fixture
def no_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file: while it is there, no process that starts from here on can fork."""
    switch = tmp_path / "no-fork"
    monkeypatch.setenv(SWITCH, str(switch))
    monkeypatch.setenv("PYTHONPATH", str(FAULTS))
    return switch


@pytest.fixture
def cluster(root: str) -> Iterator[Any]:
    with drumbeat.init(num_cpus=2, runtime_directory=root) as made:
        assert drumbeat.get(square.remote(3), timeout=20) == 9
        yield made


def process(word: str) -> int:
    """Return this program's scheduler or keeper."""
    (pid,) = [pid for pid in children_of(os.getpid()) if word in words_of(pid)]
    return pid


def daemon() -> int:
    """Return the node's daemon."""
    (pid,) = filter(is_daemon, children_of(process("drumbeat.node")))
    return pid


def descriptors(pid: int) -> int:
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1


def first_free(pid: int) -> int:
    """Return the lowest descriptor that is not open: with that as its limit it can open none."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return min(set(range(len(used) + 1)) - used)


def limited(pid: int, what: int, soft: int) -> tuple[int, int]:
    """Set a process's limit; return what it was."""
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (soft, before[1]))
    return before


def status(cluster: Any) -> dict[str, Any]:
    asker = SecondClient(f"ipc://{cluster.address}/scheduler.sock")
    try:
        told: dict[str, Any] = asker.ask("status")
    finally:
        asker.close()
    return told


# --------------------------------------------------------------------------------------- nonsense


def test_tasks_that_write_nonsense_into_their_workers_sockets_harm_themselves_alone(
    cluster: Any,
) -> None:
    pid = daemon()
    babbling = [babble.remote(seed) for seed in range(12)]
    working = [square.options(max_retries=0).remote(number) for number in range(400)]
    assert drumbeat.get(working, timeout=60) == [number * number for number in range(400)]
    errors = [ref.exception(timeout=60) for ref in babbling]
    assert {type(error) for error in errors} == {drumbeat.WorkerDied}
    until(lambda: status(cluster)["resources"]["free"] == status(cluster)["resources"]["total"])
    assert daemon() == pid, "the daemon goes on"


# ------------------------------------------------------------------------------------- processes


def test_where_no_worker_can_be_forked_the_program_is_told_and_the_work_waits(
    no_fork: Path, root: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with drumbeat.init(num_cpus=2, runtime_directory=root):
        assert drumbeat.get(square.remote(3), timeout=20) == 9
        no_fork.touch()
        other = square.options(env_vars={"A": "b"}, num_cpus=0.5).remote(4)  # needs a fork
        said: list[str] = []

        def told() -> bool:
            said.extend(capfd.readouterr())
            return "no worker can be started" in "".join(said)

        until(told)
        assert "Resource temporarily unavailable" in "".join(said)
        # Those whose workers are there go on.
        assert drumbeat.get([square.remote(n) for n in range(50)], timeout=20)[-1] == 49 * 49
        assert not other.done()
        no_fork.unlink()
        assert drumbeat.get(other, timeout=30) == 16


# ----------------------------------------------------------------------------------- descriptors


def test_a_node_without_descriptors_says_so_and_goes_on_when_there_are_some(
    cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = daemon()
    before = limited(pid, resource.RLIMIT_NOFILE, descriptors(pid))
    other = square.options(env_vars={"A": "b"}, num_cpus=0.5).remote(4)
    said: list[str] = []

    def told() -> bool:
        said.extend(capfd.readouterr())
        return "no worker can be started" in "".join(said)

    until(told)
    assert "Too many open files" in "".join(said)
    assert drumbeat.get([square.remote(n) for n in range(50)], timeout=20)[-1] == 49 * 49
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert drumbeat.get(other, timeout=30) == 16
    assert alive(pid)


def test_a_node_without_descriptors_looks_at_its_calls_in_vain_and_goes_on(cluster: Any) -> None:
    pid = daemon()
    before = limited(pid, resource.RLIMIT_NOFILE, first_free(pid))
    assert drumbeat.get(naps.remote(3.0), timeout=20) == "rested"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert drumbeat.get(square.remote(3), timeout=20) == 9
    assert alive(pid)


def test_a_node_without_descriptors_hands_over_large_arguments_and_results(cluster: Any) -> None:
    pid = daemon()
    drumbeat.get([naps.remote(0.2) for _ in range(2)], timeout=20)  # both workers are there
    mine = naps.remote(2.0)
    before = limited(pid, resource.RLIMIT_NOFILE, first_free(pid))
    # They travel in memory files, whose descriptors the kernel would drop without a word.
    results = drumbeat.get([large.remote(1_000_000 + n) for n in range(10)], timeout=30)
    assert [len(result) for result in results] == [1_000_000 + n for n in range(10)]
    assert drumbeat.get(length.remote(bytes(1_000_000)), timeout=30) == 1_000_000
    assert drumbeat.get(mine, timeout=20) == "rested"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert daemon() == pid


def test_a_node_with_descriptors_for_half_a_worker_says_so_and_goes_on(
    cluster: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = daemon()
    rested = [naps.remote(3.0)]
    # Enough for what the node keeps of a worker, or for a part of that.
    for number, spare in enumerate((2, 5, 6)):
        before = limited(pid, resource.RLIMIT_NOFILE, descriptors(pid) + spare)
        other = square.options(env_vars={"A": f"b{number}"}, num_cpus=0.25).remote(number)
        time.sleep(0.3)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        assert drumbeat.get(other, timeout=30) == number * number
    assert drumbeat.get(rested, timeout=20) == ["rested"]
    assert daemon() == pid


def test_a_worker_without_descriptors_is_handed_large_arguments_and_hands_over_its_result(
    cluster: Any,
) -> None:
    @drumbeat.remote
    class Leaky:
        def leak(self) -> int:
            kept: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
            with contextlib.suppress(OSError):
                while True:
                    kept.append(os.dup(0))
            return len(kept)

        def back(self, data: bytes) -> bytes:
            return data + b"!"

    leaky = Leaky.remote()
    assert drumbeat.get(leaky.leak.remote(), timeout=30) > 10
    content = os.urandom(1_000_000)
    assert drumbeat.get(leaky.back.remote(content), timeout=30) == content + b"!"


def test_a_node_without_descriptors_finds_a_scheduler_that_was_restarted(cluster: Any) -> None:
    pid, scheduler = daemon(), process("drumbeat.scheduler")
    before = limited(pid, resource.RLIMIT_NOFILE, descriptors(pid) - 2)
    os.kill(scheduler, 9)
    until(lambda: not alive(scheduler))
    later = [square.remote(n) for n in range(10)]
    time.sleep(1.0)  # it tries again and again, and cannot
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert drumbeat.get(later, timeout=40)[-1] == 81
    assert alive(pid)


def test_a_scheduler_without_descriptors_goes_on_and_lets_in_who_waits_when_there_are_some(
    cluster: Any,
) -> None:
    pid = process("drumbeat.scheduler")
    before = limited(pid, resource.RLIMIT_NOFILE, first_free(pid))
    work = [square.remote(n) for n in range(500)]
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(30)]
    for one in crowd:
        one.connect(f"{cluster.address}/scheduler.sock")
    assert drumbeat.get(work, timeout=40) == [n * n for n in range(500)]
    for one in crowd:
        one.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    late = SecondClient(f"ipc://{cluster.address}/scheduler.sock")
    told = late.ask("status")
    assert told["nodes"]["alive"] == 1
    assert told["refused"]["door_shut"]
    late.close()
    assert process("drumbeat.scheduler") == pid


def test_a_scheduler_may_have_as_many_descriptors_as_the_system_allows(cluster: Any) -> None:
    soft, hard = resource.prlimit(process("drumbeat.scheduler"), resource.RLIMIT_NOFILE)
    assert soft == min(hard, FILES_WANTED)


# ---------------------------------------------------------------------------------------- disks


def test_a_scheduler_whose_log_is_full_goes_on(cluster: Any) -> None:
    pid = process("drumbeat.scheduler")
    before = limited(pid, resource.RLIMIT_FSIZE, 1)
    broken = SecondClient(f"ipc://{cluster.address}/scheduler.sock")
    broken.send(["submit", "nonsense"])  # is complained of in the log
    broken.send(["beat", 0.0, 1, 0, []])  # and drops it

    def is_dropped() -> bool:
        with contextlib.suppress(Refused):
            broken.pump(0.05)
        return bool(status(cluster)["refused"]["peers"] == 1)

    until(is_dropped)
    assert status(cluster)["messages_rejected"] == 1
    assert drumbeat.get([square.remote(n) for n in range(50)], timeout=20)[-1] == 49 * 49
    assert process("drumbeat.scheduler") == pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    broken.hang_up()
    broken.context.term()


def test_arguments_that_a_node_cannot_hand_over_fail_their_task_and_no_other(cluster: Any) -> None:
    pid = daemon()
    before = limited(pid, resource.RLIMIT_FSIZE, 100_000)
    with pytest.raises(drumbeat.TaskError) as caught:
        drumbeat.get(length.remote(bytes(1_000_000)), timeout=30)
    assert "File too large" in str(caught.value)
    assert drumbeat.get([square.remote(n) for n in range(50)], timeout=20)[-1] == 49 * 49
    assert alive(pid)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    assert drumbeat.get(length.remote(bytes(1_000_000)), timeout=30) == 1_000_000


def test_a_result_that_a_worker_cannot_hand_over_is_its_tasks_error(cluster: Any) -> None:
    @drumbeat.remote(max_retries=0, max_calls=1)
    def pressed(size: int) -> bytes:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
        return bytes(size)

    with pytest.raises(drumbeat.TaskError) as caught:
        drumbeat.get(pressed.remote(1_000_000), timeout=30)
    assert "File too large" in str(caught.value)
    assert len(drumbeat.get(large.remote(1_000_000), timeout=30)) == 1_000_000
