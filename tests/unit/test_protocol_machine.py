"""What the machine offers, read from made-up system files."""

import platform
from pathlib import Path

import pytest
from drumbeat.protocol.machine import (
    Memory,
    Processors,
    cpu_count,
    give_back_memory,
    gpu_count,
    identity,
)

GIB = 1 << 30


class Machine:
    """A made-up /proc and /sys/fs/cgroup."""

    def __init__(self, directory: Path) -> None:
        self.proc = directory / "proc"
        self.cgroups = directory / "cgroup"

    def write(self, path: str, text: str) -> None:
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def cpus(self, affinity: int) -> int:
        return cpu_count(self.proc, self.cgroups, affinity)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_control_groups_affinity_counts(machine: Machine) -> None:
    assert machine.cpus(affinity=6) == 6


def test_memory_that_was_freed_goes_back_where_the_c_library_can() -> None:
    held = [bytes(8192) for _ in range(1000)]
    held[::2] = [b""] * 500  # holes of two pages each
    assert give_back_memory() == (platform.libc_ver()[0] == "glibc")
    assert set(held[1::2]) == {bytes(8192)}


def test_the_real_machine_has_a_cpu_and_memory() -> None:
    assert cpu_count() >= 1
    assert gpu_count() >= 0
    used_bytes, free_bytes, total_bytes = Memory().look()
    assert used_bytes > 0
    assert 0 < free_bytes <= total_bytes


def test_memory_is_that_of_the_machine_where_no_group_limits_it(machine: Machine) -> None:
    machine.write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 2097152 kB\n")
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.write("cgroup/user/job/memory.max", "max\n")
    machine.write("cgroup/user/job/memory.current", f"{GIB}\n")
    assert Memory(machine.proc, machine.cgroups).look() == (6 * GIB, 2 * GIB, 8 * GIB)


def test_memory_is_what_the_tightest_group_leaves_without_the_pages_of_idle_files(
    machine: Machine,
) -> None:
    machine.write("proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.write("cgroup/user/job/memory.max", f"{2 * GIB}\n")
    machine.write("cgroup/user/job/memory.current", f"{2 * GIB}\n")
    machine.write("cgroup/user/job/memory.stat", f"anon 5\ninactive_file {GIB // 4}\n")
    machine.write("cgroup/user/memory.max", f"{4 * GIB}\n")
    machine.write("cgroup/user/memory.current", f"{GIB}\n")
    assert Memory(machine.proc, machine.cgroups).look() == (4 * GIB, GIB // 4, 2 * GIB)


def test_memory_is_unknown_where_the_system_does_not_tell(machine: Machine) -> None:
    assert Memory(machine.proc, machine.cgroups).look() == (0, 0, 0)


@pytest.mark.parametrize(
    ("limit", "count"), [("max 100000", 8), ("300000 100000", 3), ("50000 100000", 1)]
)
def test_a_version_2_quota_counts(machine: Machine, limit: str, count: int) -> None:
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.write("cgroup/user/job/cpu.max", limit)
    assert machine.cpus(affinity=8) == count


def test_the_smallest_quota_on_the_way_to_the_root_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/user/job\n")
    machine.write("cgroup/user/job/cpu.max", "max 100000")
    machine.write("cgroup/user/cpu.max", "200000 100000")
    assert machine.cpus(affinity=8) == 2


def test_in_a_container_only_the_root_of_the_tree_is_there(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/host/path/that/is/not/here\n")
    machine.write("cgroup/cpu.max", "400000 100000")
    assert machine.cpus(affinity=8) == 4


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("150000", 1), ("250000", 2)])
@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_a_version_1_quota_counts(machine: Machine, mount: str, quota: str, count: int) -> None:
    machine.write("proc/self/cgroup", "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n")
    machine.write(f"cgroup/{mount}/job/cpu.cfs_quota_us", quota)
    machine.write(f"cgroup/{mount}/job/cpu.cfs_period_us", "100000")
    assert machine.cpus(affinity=8) == count


def test_what_cannot_be_read_as_a_quota_limits_nothing(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/\n")
    machine.write("cgroup/cpu.max", "nonsense")
    assert machine.cpus(affinity=2) == 2


@pytest.mark.parametrize(
    ("visible", "count"),
    [("", 0), ("-1", 0), ("0", 1), ("0,2,3", 3), ("1,-1,2", 1), ("GPU-1a2b, GPU-3c4d", 2)],
)
def test_visible_devices_are_the_gpus(machine: Machine, visible: str, count: int) -> None:
    assert gpu_count({"CUDA_VISIBLE_DEVICES": visible}, machine.proc) == count


def test_otherwise_the_drivers_gpus_are_or_there_are_none(machine: Machine) -> None:
    assert gpu_count({}, machine.proc) == 0
    machine.write("proc/driver/nvidia/gpus/0000:01:00.0/information", "")
    machine.write("proc/driver/nvidia/gpus/0000:02:00.0/information", "")
    assert gpu_count({}, machine.proc) == 2


class Files:
    """The root of a process's files, as far as a look at it goes."""

    def __init__(self, device: int, inode: int = 2) -> None:
        self.st_dev, self.st_ino = device, inode

    def stat(self) -> "Files":
        return self


def test_a_machine_is_known_by_its_boot_and_the_root_of_its_files(machine: Machine) -> None:
    def seen(device: int, inode: int = 2) -> str:
        return identity(machine.proc, Files(device, inode))  # type: ignore[arg-type]

    machine.write("proc/sys/kernel/random/boot_id", "first\n")
    first = seen(1)
    assert seen(1) == first
    assert seen(2) != first, "another container on the same machine"
    assert seen(1, 3) != first, "somewhere below the root"
    machine.write("proc/sys/kernel/random/boot_id", "second\n")
    assert seen(1) != first, "another machine that may have the same name"


def test_where_a_boot_has_no_id_the_name_of_the_host_has_to_do(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = identity(machine.proc)
    assert identity(machine.proc) == named
    other = platform.uname()._replace(node="elsewhere")
    monkeypatch.setattr("os.uname", lambda: type("uname", (), {"nodename": other.node}))
    assert identity(machine.proc) != named


def test_this_machine_is_one_and_the_same_at_every_look() -> None:
    assert identity() == identity()
    assert len(identity()) == 16


def test_how_busy_the_processors_were_is_told_between_two_looks(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 1 1 1\n")
    processors = Processors(tmp_path)
    assert processors.used() == -1.0  # no time has passed
    stat.write_text("cpu  130 0 60 820 90 0 0 0 0 0\n")
    assert processors.used() == pytest.approx(0.4)
    stat.unlink()
    assert Processors(tmp_path).used() == -1.0
