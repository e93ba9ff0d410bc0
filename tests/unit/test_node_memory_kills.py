"""Out-of-memory kills, as the kernel counts them in each kind of control group."""

from pathlib import Path

import pytest
from drumbeat.node.memory_kills import CLAIM_S, MemoryKills

VERSION_2 = ("0::/user/node", "sys/fs/cgroup/user/node/memory.events", "max 3\noom 2\noom_kill {}")
CONTAINER = ("0::/host/path", "sys/fs/cgroup/memory.events", "oom_kill {}\n")
LOCAL = ("0::/n", "sys/fs/cgroup/n/memory.events.local", "oom_kill {}\n")
HYBRID = ("4:memory:/a\n0::/b", "sys/fs/cgroup/unified/b/memory.events", "oom_kill {}\n")
VERSION_1 = (
    "9:cpu,cpuacct:/\n4:memory:/jobs/7\n0::/",
    "sys/fs/cgroup/memory/jobs/7/memory.oom_control",
    "oom_kill_disable 0\nunder_oom 0\noom_kill {}",
)
MACHINE = ("4:memory:/jobs/7", "proc/vmstat", "nr_free_pages 12\noom_kill {}\n")


class Kernel:
    """A tree of files like those of /proc and /sys."""

    def __init__(self, root: Path, kind: tuple[str, str, str]) -> None:
        groups, path, self.text = kind
        self.file = root / path
        self.file.parent.mkdir(parents=True, exist_ok=True)
        (root / "proc/self").mkdir(parents=True, exist_ok=True)
        (root / "proc/self/cgroup").write_text(groups)
        self.count = 5
        self.kill(0)

    def kill(self, count: int) -> None:
        self.count += count
        self.file.write_text(self.text.format(self.count))


@pytest.mark.parametrize(
    "kind",
    [VERSION_2, CONTAINER, LOCAL, HYBRID, VERSION_1, MACHINE],
    ids=["v2", "container", "local", "hybrid", "v1", "machine"],
)
def test_each_kill_can_be_claimed_once_and_none_from_before(
    tmp_path: Path, kind: tuple[str, str, str]
) -> None:
    kernel = Kernel(tmp_path, kind)
    kills = MemoryKills(tmp_path)
    assert kills.source == str(kernel.file)
    assert not kills.claim(1.0)
    kernel.kill(2)
    assert [kills.claim(2.0) for _ in range(3)] == [True, True, False]


def test_the_nodes_own_group_goes_before_the_whole_machine(tmp_path: Path) -> None:
    Kernel(tmp_path, MACHINE)
    own = Kernel(tmp_path, VERSION_1)
    assert MemoryKills(tmp_path).source == str(own.file)


def test_a_kill_that_was_seen_before_its_death_is_told_is_kept_for_a_while(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, VERSION_2)
    kills = MemoryKills(tmp_path)
    kernel.kill(1)
    kills.look(1.0)
    kills.look(2.0)
    assert kills.claim(1.0 + CLAIM_S)
    kernel.kill(1)
    kills.look(20.0)
    assert not kills.claim(20.1 + CLAIM_S), "somebody else was meant"


def test_a_system_that_counts_nothing_is_no_error(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path)
    kills.look(1.0)
    assert not kills.claim(2.0)
    assert kills.source == ""


def test_a_file_that_vanishes_is_no_kill(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, VERSION_2)
    kills = MemoryKills(tmp_path)
    kernel.file.unlink()
    assert not kills.claim(1.0)
    kernel.kill(1)
    assert kills.claim(2.0)
