"""Deaths of daemon, template, worker and keeper in any order, under load: nothing outlives them."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import drumbeat
import pytest
from nemesis.cluster import (
    MARK_VARIABLE,
    QUICK,
    NemesisCluster,
    parts_of,
    shared_memory,
    signal_to,
)
from support.process_table import alive, carrying, words_of

pytestmark = pytest.mark.integration

ORDERS = 20
#: a new template is one that cannot help yet: it dies with the keeper until it is loaded
TEMPLATE_LOADS_S = 3.0
GONE_S = 6.0

OWNER = "FAMILY_OF"


@drumbeat.remote(max_retries=20, retry_backoff_s=0.01)
def with_family(mark: str) -> None:
    """Start processes of every kind that might be forgotten, and run on."""
    worker = str(os.getpid())
    os.environ[OWNER] = worker
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1001"], start_new_session=True)
    subprocess.Popen(["sh", "-c", "sleep 1002 & exec sleep 1003"], start_new_session=True)
    # In the group with an environment of its own, and out of the group with it.
    bare = {MARK_VARIABLE: mark, OWNER: worker}
    subprocess.Popen(["/bin/sleep", "1004"], env=bare)
    subprocess.Popen(["/bin/sleep", "1005"], env=bare, start_new_session=True)
    if not os.fork():
        os.setsid()
        if not os.fork():
            Path("/proc/self/comm").write_text(f"of{worker}")
            time.sleep(1000)
        os._exit(0)
    time.sleep(0.1)


@drumbeat.remote(max_retries=20, retry_backoff_s=0.01)
def short(seconds: float) -> None:
    time.sleep(seconds)


class Family:
    """Who was started by a worker's task, as the kernel knows it."""

    def __init__(self, cluster: NemesisCluster) -> None:
        self.cluster = cluster

    def members(self) -> dict[int, int]:
        """Return each member and its worker."""
        found = {}
        for pid in carrying(self.cluster.mark):
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            owners = [word for word in words if word.startswith(OWNER.encode() + b"=")]
            if owners:
                found[pid] = int(owners[0].partition(b"=")[2])
            elif name.startswith("of") and name[2:].isdigit():
                found[pid] = int(name[2:])
        return found

    def orphans(self) -> list[int]:
        """Return those whose worker has ended."""
        return [pid for pid, worker in self.members().items() if not alive(worker)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[NemesisCluster]:
    directory = Path(tempfile.mkdtemp(prefix="kd-"))
    one = NemesisCluster(directory, nodes=1, cpus=2)
    try:
        one.start()
        with drumbeat.init(directory, **QUICK):
            yield one
        assert one.stop() == []
        assert not [path for path in directory.iterdir() if path.is_socket()]
    finally:
        one.close()
        shutil.rmtree(directory)


def load(cluster: NemesisCluster) -> list[Any]:
    """Have tasks with families run, and many short ones; return when some do."""
    refs: list[Any] = [with_family.remote(cluster.mark) for _ in range(4)]
    refs += [short.remote(0.002) for _ in range(200)]
    assert cluster.wait(20.0, Family(cluster).members), cluster.logs()
    return refs


def left_of_node(cluster: NemesisCluster) -> list[int]:
    scheduler = cluster.pids("scheduler")
    return [pid for pid in carrying(cluster.mark) if pid not in scheduler]


def until_gone(find: Any, cluster: NemesisCluster, allowed: Any = ()) -> None:
    end_s = time.monotonic() + GONE_S
    while left := [pid for pid in find() if pid not in allowed]:
        assert time.monotonic() < end_s, "\n".join(map(words_of, left)) + cluster.logs()
        time.sleep(0.02)


class Escaped:
    """Those that a killed keeper may leave: out of their group, and without the node's mark."""

    def __init__(self, cluster: NemesisCluster) -> None:
        self.family = Family(cluster)

    def __contains__(self, pid: int) -> bool:
        worker = self.family.members().get(pid)
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            return (
                worker is not None
                and os.getpgid(pid) != worker
                and b"DRUMBEAT_NODE_MARK" not in environment
            )
        except OSError:
            return True


#: how the keeper ends, and what is killed just before it
LAST: dict[str, tuple[str, ...]] = {
    "term": (), "alone": (), "with the daemon": ("daemon",), "with the template": ("template",),
    "with both": ("template", "daemon"), "with its workers": ("worker",),
}  # fmt: skip


@pytest.mark.parametrize("seed", range(ORDERS))
def test_whatever_dies_in_whatever_order_nothing_is_left(
    cluster: NemesisCluster, seed: int
) -> None:
    random = Random(f"keeper {seed}")
    family = Family(cluster)
    shared = shared_memory()
    refs = load(cluster)
    (keeper,) = cluster.pids("keeper")
    template_died_s = 0.0
    killed = set()
    for _ in range(random.randint(0, 3)):
        for kind in random.sample(("daemon", "template", "worker"), random.randint(1, 3)):
            for pid in parts_of(keeper)[kind][:1]:
                signal_to(pid, signal.SIGKILL)
                killed.add(pid)
                if kind == "template":
                    template_died_s = time.monotonic()
            time.sleep(random.choice((0.0, 0.0, 0.003)))
        if random.random() < 0.5:
            until_gone(family.orphans, cluster)
        else:
            time.sleep(random.choice((0.01, 0.05, 0.3)))
    parts = parts_of(keeper)
    last = random.choice(tuple(LAST))
    together = [pid for kind in LAST[last] for pid in parts[kind]]
    loading = time.monotonic() < template_died_s + TEMPLATE_LOADS_S
    # Who was killed a moment ago may still be there, and does nothing any more.
    able = {kind for kind, pids in parts.items() if set(pids) - killed}
    sweeps = [kind for kind in ("template", "daemon") if kind in able and kind not in LAST[last]]
    if loading and "template" in sweeps:
        sweeps.remove("template")
    for pid in (*together, keeper):
        # The keeper may have ended a worker already, for its daemon's death.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if last == "term" else signal.SIGKILL)
    # Nobody tends: no new keeper is started before the old node has gone.
    if last == "term":
        until_gone(lambda: left_of_node(cluster), cluster)
    elif sweeps:
        until_gone(lambda: left_of_node(cluster), cluster, Escaped(cluster))
    else:
        until_gone(lambda: set(left_of_node(cluster)) - set(family.members()), cluster)
    for pid in left_of_node(cluster):
        os.kill(pid, signal.SIGKILL)
    assert shared_memory() == shared
    for ref in refs:
        drumbeat.cancel(ref, force=True)
    assert cluster.wait(20.0, lambda: cluster.pids("daemon"))
    drumbeat.get([short.remote(0.0) for _ in range(3)], timeout=30)
