"""What the scheduler saw and did, asked of a real cluster; actors seen, killed and their stacks."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import drumbeat
import psutil
import pytest
from drumbeat.client.local import Cluster
from support.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(root: str) -> Iterator[Cluster]:
    with drumbeat.init(nodes=2, num_cpus=2, runtime_directory=root) as cluster:
        yield cluster


def typed(cluster: Cluster, *words: str, code: int = 0) -> str:
    """Type a command; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "drumbeat.client.cli", *words, "--address", cluster.address],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if not code else done.stderr


def events(cluster: Cluster, match: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        typed(cluster, "events", "--json", *filter(None, [match]))
    )
    return found


def seen(cluster: Cluster, kinds: Sequence[str]) -> Callable[[], bool]:
    return lambda: set(kinds) <= {row["kind"] for row in events(cluster)}


@drumbeat.remote(max_retries=0)
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@drumbeat.remote
def naps(seconds: float) -> None:
    time.sleep(seconds)


@drumbeat.remote(max_restarts=1)
class Counter:
    def add(self) -> int:
        return os.getpid()

    def waits_for_ever(self) -> None:
        time.sleep(1e6)


def test_deaths_of_workers_and_nodes_and_orders_are_told_with_their_time(cluster: Cluster) -> None:
    began_s = time.time()
    with pytest.raises(drumbeat.WorkerDied):
        drumbeat.get(dies.remote())
    ref = naps.remote(1e6)
    drumbeat.cancel(ref)
    name, pid = next(one for one in cluster.processes.items() if one[0] != "scheduler")
    psutil.Process(pid).kill()
    until(lambda: {"node gone"} & {row["kind"] for row in events(cluster)}, 30.0)
    found = {row["kind"]: row for row in events(cluster)}
    assert {"node joined", "client entered", "worker died", "cancel", "node gone"} <= set(found)
    assert "dies: its worker" in found["worker died"]["text"]
    assert found["worker died"]["severity"] == "warning"
    assert found["node gone"]["severity"] == "warning"
    assert found["node gone"]["node"] == name
    assert began_s - 1 < found["worker died"]["time_s"] < time.time() + 1
    numbers = [row["number"] for row in events(cluster)]
    assert numbers == sorted(set(numbers))
    assert all(row["severity"] == "warning" for row in events(cluster, "warning"))


def test_a_follower_sees_what_happens_as_it_happens(cluster: Cluster) -> None:
    command = [sys.executable, "-P", "-m", "drumbeat.client.cli", "events", "--follow", "--json"]
    follower = subprocess.Popen(
        [*command, "--address", cluster.address],
        stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert follower.stdout is not None
    try:
        actor = Counter.remote()
        drumbeat.get(actor.add.remote())
        row = json.loads(follower.stdout.readline())
        while row["kind"] != "actor lives":
            row = json.loads(follower.stdout.readline())
        assert row["text"].startswith("Counter ")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()


def test_an_actor_is_seen_shown_where_it_is_killed_and_begun_anew(cluster: Cluster) -> None:
    actor = Counter.remote()
    before = drumbeat.get(actor.add.remote())
    (row,) = json.loads(typed(cluster, "actors", "--json"))
    assert (row["name"], row["state"], row["restarts"]) == ("Counter", "alive", 0)
    stuck = actor.waits_for_ever.remote()
    until(lambda: "waits_for_ever" in typed(cluster, "stack", row["id"]), 20.0)
    assert "waits_for_ever" in typed(cluster, "stack", str(before))  # its worker
    typed(cluster, "kill", "--restart", row["id"])
    with pytest.raises(drumbeat.ActorCallLost):
        drumbeat.get(stuck, timeout=30)
    assert drumbeat.get(actor.add.remote(), timeout=30) != before
    shown = typed(cluster, "kill", row["id"])
    assert shown == f"Counter {row['id']}: was alive, is being killed\n"
    with pytest.raises(drumbeat.ActorDied):
        drumbeat.get(actor.add.remote(), timeout=30)
    assert "no living actor" in typed(cluster, "kill", row["id"], code=1)
    kinds = [one["kind"] for one in events(cluster, row["id"])]
    assert kinds.count("actor lives") == 2
    assert kinds.count("kill") == 2
    assert kinds[-1] == "actor gone"


def test_status_says_which_cluster_it_shows_and_names_the_others(cluster: Cluster) -> None:
    assert json.loads(typed(cluster, "status", "--json"))["cluster"] == cluster.address
    root = os.path.dirname(cluster.address)
    program = "import drumbeat; drumbeat.init(); print('up', flush=True); input()"
    environment = {**os.environ, "DRUMBEAT_RUNTIME_DIRECTORY": root}
    environment.pop("DRUMBEAT_ADDRESS", None)
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", program], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout is not None
    assert other.stdin is not None
    try:
        assert other.stdout.readline() == "up\n"
        done = subprocess.run(
            [sys.executable, "-P", "-m", "drumbeat.client.cli", "status"], env=environment,
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        newest = done.stdout.splitlines()[0]
        assert newest.split()[0] == "cluster"
        assert newest.split()[1].startswith(f"{root}/{other.pid}-")
        said = done.stderr.splitlines()
        assert said[0] == "one other local cluster of yours runs, which --address shows:"
        assert said[1].startswith(f"  {cluster.address}  (started by process {os.getpid()}: ")
    finally:
        other.communicate("\n", timeout=30)
