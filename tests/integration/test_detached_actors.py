"""Detached actors: there when the program that made them is not, nor the scheduler of then."""

import json
import os
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drumbeat
import psutil
import pytest
from support.remote_cluster import RemoteCluster
from support.waiting import until

pytestmark = pytest.mark.integration

MAKES = """
import os, sys, time
import drumbeat

@drumbeat.remote
class Counter:
    def __init__(self, start):
        self.count = start

    def add(self, amount=1):
        self.count += amount
        return self.count

    def where(self):
        return os.getpid(), drumbeat.current().fence

    def slow(self, begun, go):
        open(begun, "x").close()
        while not os.path.exists(go):
            time.sleep(0.01)
        self.count += 1000
        return self.count

    def child(self, seconds):
        return drumbeat.get(waits.remote(seconds))

@drumbeat.remote
def waits(seconds):
    time.sleep(seconds)
    return seconds

drumbeat.init(namespace="space")
options = dict(name="counter", lifetime="detached", max_restarts=MAX_RESTARTS)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RemoteCluster]:
    """Nothing of it runs yet; afterwards nothing may be left."""
    cluster = RemoteCluster(tmp_path)
    # So long a scheduler that was restarted waits for programs of before, which have ended; what
    # nobody names until then is let go.
    cluster.set(client_grace_s=1.0)
    yield cluster
    drumbeat.shutdown()
    cluster.end()
    assert not psutil.Process().children(recursive=True), "processes were left behind"


def program(cluster: RemoteCluster, text: str, max_restarts: int = 0) -> Any:
    """Run a program to its end; return what it printed last, as JSON."""
    head = MAKES.replace("MAX_RESTARTS", str(max_restarts))
    code = textwrap.dedent(head) + "import json\n" + textwrap.dedent(text)
    address = str(cluster.file("client"))
    out = cluster.run(sys.executable, "-c", code, DRUMBEAT_ADDRESS=address).stdout
    return json.loads(out.splitlines()[-1])


def made(cluster: RemoteCluster, max_restarts: int = 0) -> tuple[int, int]:
    """Have a program make an actor and end; return where it lives, and its incarnation."""
    text = """
    counter = Counter.options(**options).remote(10)
    assert drumbeat.get(counter.add.remote(), timeout=20) == 11
    print(json.dumps(drumbeat.get(counter.where.remote())))
    """
    pid, fence = program(cluster, text, max_restarts)
    return pid, fence


def adds(cluster: RemoteCluster) -> list[int]:
    """Call it from another program, this one; return what it has counted, and where it lives."""
    with drumbeat.init(cluster.file("client"), namespace="space"):
        counter = drumbeat.get_actor("counter")
        count = drumbeat.get(counter.add.remote(), timeout=40)
        return [count, *drumbeat.get(counter.where.remote(), timeout=40)]


def files(cluster: RemoteCluster) -> list[Path]:
    """Return the files of detached actors."""
    return sorted(cluster.directory.rglob("*.actor"))


def test_it_outlives_the_program_that_made_it_and_another_one_calls_it(
    cluster: RemoteCluster,
) -> None:
    cluster.start_scheduler()
    cluster.start_node("one")
    pid, _ = made(cluster)
    assert len(files(cluster)) == 1
    assert adds(cluster) == [12, pid, 1]
    assert adds(cluster) == [13, pid, 1]
    (row,) = cluster.asked("actors")
    assert (row["name"], row["named"], row["namespace"]) == ("Counter", "counter", "space")
    ended = """
    counter = drumbeat.get_actor("counter")
    drumbeat.kill(counter)
    try:
        drumbeat.get(counter.add.remote(), timeout=20)
    except drumbeat.ActorDied as error:
        print(json.dumps(str(error)))
    """
    assert "is dead: it was killed" in program(cluster, ended)
    until(lambda: not psutil.pid_exists(pid), 10.0)
    until(lambda: not files(cluster), 10.0)
    assert program(cluster, "print(json.dumps(drumbeat.get(waits.remote(0))))") == 0


def test_its_state_outlives_a_scheduler_that_is_killed(cluster: RemoteCluster) -> None:
    first = cluster.start_scheduler()
    cluster.start_node("one")
    pid, _ = made(cluster)
    for epoch in (2, 3):
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        first = cluster.start_scheduler()
        count, *where = adds(cluster)
        assert (count, where) == (10 + epoch, [pid, 1])
    assert psutil.pid_exists(pid)


def test_it_begins_anew_when_its_process_dies_also_while_the_scheduler_is_away(
    cluster: RemoteCluster,
) -> None:
    scheduler = cluster.start_scheduler()
    cluster.start_node("one")
    pid, _ = made(cluster, max_restarts=2)
    os.kill(pid, signal.SIGKILL)
    count, other, fence = adds(cluster)
    assert (count, fence) == (11, 2)
    assert scheduler.end(signal.SIGKILL) == -signal.SIGKILL
    os.kill(other, signal.SIGKILL)
    scheduler = cluster.start_scheduler()
    count, last, fence = adds(cluster)
    assert (count, fence) == (11, 3)
    # What it has used up of its restarts outlives the scheduler, too.
    os.kill(last, signal.SIGKILL)
    until(lambda: not files(cluster), 20.0)


def test_it_begins_anew_with_large_arguments_that_a_program_that_has_left_had_put(
    cluster: RemoteCluster,
) -> None:
    cluster.start_scheduler()
    cluster.start_node("one")
    text = """
    @drumbeat.remote
    class Sized(Counter.plain_class):
        def __init__(self, first, second):
            super().__init__(len(first) + len(second))

    ref = drumbeat.put(bytearray(3 << 20))
    counter = Sized.options(**options).remote(ref, bytearray(2 << 20))
    print(json.dumps(drumbeat.get(counter.where.remote(), timeout=20)))
    """
    pid, _ = program(cluster, text, max_restarts=1)
    os.kill(pid, signal.SIGKILL)
    count, _, fence = adds(cluster)
    assert (count, fence) == ((5 << 20) + 1, 2)


def test_a_node_and_the_scheduler_die_together_and_it_begins_on_another_node(
    cluster: RemoteCluster,
) -> None:
    # So long it waits for nodes, too. Only here: an actor ends with its node's lease, and where it
    # is to outlive a scheduler the next one must be there before that.
    cluster.set(lost_after_intervals=5.0, lease_margin_s=0.5)
    scheduler = cluster.start_scheduler()
    one = cluster.start_node("one")
    pid, _ = made(cluster, max_restarts=1)
    cluster.start_node("two")
    assert scheduler.end(signal.SIGKILL) == -signal.SIGKILL
    one.end(signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid), 10.0)
    cluster.start_scheduler()
    count, other, fence = adds(cluster)
    assert (count, fence) == (11, 2)
    assert other != pid


def test_what_a_program_calls_and_does_not_wait_for_comes_to_its_end(
    cluster: RemoteCluster, tmp_path: Path
) -> None:
    cluster.start_scheduler()
    cluster.start_node("one")
    pid, _ = made(cluster)
    begun, go = tmp_path / "begun", tmp_path / "go"
    leaves = f"""
    counter = drumbeat.get_actor("counter")
    slow = counter.slow.remote({str(begun)!r}, {str(go)!r})
    rest = [counter.add.remote() for _ in range(50)]
    while not os.path.exists({str(begun)!r}):
        time.sleep(0.01)
    print(json.dumps("leaves"))
    """
    program(cluster, leaves)
    until(lambda: cluster.asked("status")["clients"] == 1)  # who asks
    go.touch()
    count, *where = adds(cluster)
    assert where == [pid, 1]
    assert count == 1000 + 12, "what had begun came to its end, what had not never began"


def test_what_it_submits_is_its_own(cluster: RemoteCluster) -> None:
    cluster.start_scheduler()
    cluster.start_node("one")
    made(cluster)
    with drumbeat.init(cluster.file("client"), namespace="space"):
        counter = drumbeat.get_actor("counter")
        assert drumbeat.get(counter.child.remote(0.1), timeout=20) == 0.1
        assert drumbeat.get([counter.add.remote() for _ in range(100)], timeout=20)[-1] == 111


def test_a_detached_actor_with_a_name_needs_a_namespace(root: str) -> None:
    @drumbeat.remote
    class Nothing:
        def nothing(self) -> None:
            pass

    with drumbeat.init(num_cpus=1, runtime_directory=root):
        with pytest.raises(ValueError, match="'lone' needs a namespace"):
            Nothing.options(name="lone", lifetime="detached").remote()
        nameless = Nothing.options(lifetime="detached").remote()
        assert drumbeat.get(nameless.nothing.remote(), timeout=20) is None
