"""The calm trials: what looks like a fault and is none, at whatever scale of the times.

Each leaves the cluster as it found it, or says what is wrong. None waits for a fixed time where it
can see what it waits for.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import drumbeat
from soak.calm_house import PATIENCE_S, PROCESSORS, House, Trial, id_of, passes, watched
from soak.calm_work import churns, litters, spins, takes, works, write_modules
from support.waiting import until

MIB = 1 << 20


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process; it goes on at the end, whatever happens."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def limits(trial: Trial, seconds: float = 5.0) -> dict[str, float]:
    """Return limits that whoever was harmed would go beyond."""
    return {"heartbeat_timeout": trial.scale.limit_s(seconds)}


def runs(house: House, *refs: Any) -> list[int]:
    """Wait until calls run; return their processes."""
    return [
        until(lambda ref=ref: (row := house.row_of(ref)).get("phase") == "running" and row["pid"])
        for ref in refs
    ]


def worker(house: House, seconds: float) -> Trial:
    """Workers with a task and with an actor's call are stopped: a non-event."""
    for_s = seconds * house.scale.times
    with watched(house, f"worker-{seconds:g}", f"two workers stopped for {for_s:g} s") as trial:
        key, node = house.key(), house.nodes[1]
        options = {"max_retries": 0, "node": node, **limits(trial)}
        actor = house.actor(node)
        pid, count = house.get(actor.add.remote())
        task = drumbeat.remote(works).options(**options)
        ref = task.remote(house.path, key, 1.0 + for_s / 4)
        call = actor.works.options(**limits(trial)).remote(1.0 + for_s / 4)
        pids = runs(house, ref, call)
        for one in (ref, call):
            trial.allow(one, "stopped")
        if for_s > 3.0:  # shorter ones may end before anybody looks
            trial.required = {"stopped"}
        with stopped(pids[0]), stopped(pids[1]):
            time.sleep(for_s)
        trial.expect(house.get(ref)[1:] == (pids[0], 1), "the task ran elsewhere")
        trial.expect(house.get(call) == (pid, count + 1), "the actor is another")
        house.let_go(actor, pid)
    return trial


def daemon_shortly(house: House, seconds: float = 8.0) -> Trial:
    """A daemon is stopped for less than makes a node lost: suspect, well again, no more."""
    for_s, node = seconds * house.scale.times, house.nodes[1]
    with watched(house, f"daemon-{seconds:g}", f"a daemon stopped for {for_s:g} s") as trial:
        trial.require(node, "node suspect", "node well again")
        actor = house.actor(node)
        pid, count = house.get(actor.add.remote())
        task = drumbeat.remote(works).options(max_retries=0, node=node, **limits(trial))
        # One ends meanwhile, one after it.
        refs = [
            task.remote(house.path, house.key(), part * for_s + more)
            for part, more in ((0.5, 0.5), (1.0, 1.0))
        ]
        pids = runs(house, *refs)
        with stopped(house.daemon(node)):
            call = actor.add.remote()
            time.sleep(for_s)
        trial.expect(house.get(refs) == [(node, one, 1) for one in pids], "tasks ran elsewhere")
        trial.expect(house.get(call) == (pid, count + 1), "the actor is another")
        house.let_go(actor, pid)
    return trial


def daemon_for_long(house: House, seconds: float = 20.0) -> Trial:
    """A daemon is stopped for longer than makes a node lost: it is fenced when it returns."""
    for_s, (well, node) = seconds * house.scale.times, house.nodes
    with watched(house, f"daemon-{seconds:g}", f"a daemon stopped for {for_s:g} s") as trial:
        trial.require(node, "node suspect", "node gone", "node joined")
        trial.may_end = {node}
        leased = house.actor(node, max_restarts=0)
        pid, _ = house.get(leased.add.remote())
        trial.allow(leased, "actor ended", "actor gone")
        task = drumbeat.remote(works).options(**limits(trial))
        # A node given by name is the only one: this one may run on any.
        keys = house.key(), house.key()
        once = task.options(max_retries=0, node=node).remote(house.path, keys[0], 2 * for_s)
        again = task.options(max_retries=1, num_cpus=2 * PROCESSORS - 1)
        blocker = task.options(num_cpus=2 * PROCESSORS, node=well, max_retries=0)
        block = blocker.remote(house.path, house.key(), 1.0)
        runs(house, once, block)
        twice = again.remote(house.path, keys[1], for_s)
        runs(house, twice)
        trial.again[keys[1]] = 1
        trial.expect(house.row_of(twice).get("node") == node, "the task is on the other node")
        with stopped(house.daemon(node)):
            time.sleep(for_s)
        trial.expect(house.get(twice)[::2] == (well, 2), "it was not tried again elsewhere")
        _fails(trial, once, drumbeat.NodeLost)
        _fails(trial, leased.add.remote(), drumbeat.ActorDied)
        joined = until(lambda: len(drumbeat.nodes()) == 2, PATIENCE_S)
        trial.expect(joined, "the node is not back")
        ref = task.options(node=node, max_retries=0).remote(house.path, house.key(), 0.1)
        trial.expect(house.get(ref)[0] == node, "the node takes no more work")
        house.get(block)
        trial.seen.append(f"its actor's process {'is left' if _is_there(pid) else 'ended'}")
        trial.expect(not _is_there(pid), "the actor's process outlived its lease")
    return trial


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _fails(trial: Trial, ref: Any, kind: type[BaseException]) -> None:
    try:
        value = drumbeat.get(ref, timeout=PATIENCE_S)
    except kind:
        return
    except drumbeat.DrumbeatError as error:
        trial.wrong.append(f"{type(error).__name__} instead of {kind.__name__}: {error}")
        return
    trial.wrong.append(f"{value!r} instead of {kind.__name__}")


def scheduler(house: House, seconds: float) -> Trial:
    """The scheduler is stopped: it condemns nobody when it goes on."""
    for_s = seconds * house.scale.times
    words = f"the scheduler stopped for {for_s:g} s"
    with watched(house, f"scheduler-{seconds:g}", words) as trial:
        # Longer than a lease, it cannot be told from one that is cut off: actors end, unless they
        # are to wait.
        is_short = seconds < 10.0
        node = house.nodes[1]
        leased = house.actor(node, max_restarts=0 if is_short else 1)
        waits = house.actor(node, max_restarts=0, on_partition="wait")
        pids = [house.get(one.add.remote())[0] for one in (leased, waits)]
        task = drumbeat.remote(works).options(max_retries=0, **limits(trial))
        refs = [
            task.remote(house.path, house.key(), part * for_s + more)
            for part, more in ((0.5, 0.5), (1.0, 1.0))
        ]
        runs(house, *refs)
        with stopped(house.cluster.processes["scheduler"]):
            calls = [leased.add.remote(), waits.add.remote()]
            time.sleep(for_s)
        trial.expect({row[2] for row in house.get(refs)} == {1}, "tasks ran again")
        trial.expect(house.get(calls[1]) == (pids[1], 2), "the actor that waits is another")
        answer = house.get(calls[0])
        if is_short:
            trial.expect(answer == (pids[0], 2), "the actor is another")
        else:
            trial.allow(leased, "worker died", "actor ended")
            trial.again[house.keys_of[id_of(leased)]] = 1
            house.ended.add(pids[0])
            trial.seen.append(f"leased actor {'lives' if answer[0] == pids[0] else 'made anew'}")
        for actor, pid in ((leased, answer[0]), (waits, pids[1])):
            house.let_go(actor, pid)
    return trial


def slow_import(house: House, seconds: float = 60.0) -> Trial:
    """Modules take long: asleep, and with the interpreter kept from everybody."""
    for_s = seconds * house.scale.times
    with watched(house, "import", f"imports of {for_s:g} s and more") as trial:
        directory = house.directory / "modules"
        directory.mkdir()
        names = write_modules(directory, for_s)
        sys.path.insert(0, str(directory))
        limit = {"timeout": house.scale.limit_s(5.0), **limits(trial)}
        refs, actors = {}, []
        for name in names:
            module = __import__(name)
            task = drumbeat.remote(module.work).options(max_retries=0, num_cpus=0, **limit)
            refs[task.remote()] = name
            made = drumbeat.remote(module.Actor).options(num_cpus=0, max_restarts=0, **limit)
            actors.append(made.remote())
            refs[actors[-1].work.remote()] = name
        seen: set[str] = set()

        def all_done() -> bool:
            seen.update(house.row_of(ref).get("verdict", "") for ref in refs)
            return all(ref.done() for ref in refs)

        passes(for_s + PATIENCE_S, all_done)
        sys.path.remove(str(directory))
        values = dict(zip(refs.values(), house.get(list(refs)), strict=True))
        trial.expect(all(name == value for name, value in values.items()), f"{values}")
        trial.expect("importing" in seen, "no import was seen")
        trial.expect(seen <= {"", "importing", "starting", "running", "idle"}, f"called {seen}")
        for actor, pid in zip(actors, house.get([one.pid.remote() for one in actors]), strict=True):
            house.let_go(actor, pid)
    return trial


def huge_argument(house: House, size: int) -> Trial:
    """A value as large as may be sent: as an argument and as a result, of a task and an actor."""
    with watched(house, "argument", f"a value of {size / MIB:.0f} MiB there and back") as trial:
        value = os.urandom(MIB) * (size // MIB)
        actor = house.actor(house.nodes[1])
        pid, _ = house.get(actor.add.remote())
        limit = {"timeout": house.scale.limit_s(10.0), **limits(trial, 10.0)}
        task = drumbeat.remote(takes).options(max_retries=0, **limit)
        trial.expect(house.get(task.remote(house.path, house.key(), value)) == value, "not it")
        call = actor.takes.options(**limit).remote(value)
        trial.expect(house.get(call) == value, "not the same value")
        house.let_go(actor, pid)
    return trial


def garbage(house: House, seconds: float = 30.0) -> Trial:
    """The collector goes through many objects, with the interpreter kept from everybody."""
    for_s = max(3.0, seconds * house.scale.times)
    with watched(house, "garbage", f"garbage collected for {for_s:g} s") as trial:
        actor = house.actor(house.nodes[1])
        pid, _ = house.get(actor.add.remote())
        task = drumbeat.remote(litters).options(
            max_retries=0, heartbeat_timeout=max(15.0, house.scale.limit_s(30.0))
        )
        refs = [task.remote(house.path, house.key(), for_s, 500_000) for _ in range(PROCESSORS)]
        call = actor.litters.remote(for_s, 500_000)
        trial.expect({row[2] for row in house.get(refs)} == {1}, "tasks ran again")
        trial.expect(house.get(call)[0] == pid, "the actor is another")
        house.let_go(actor, pid)
    return trial


def memory(house: House, seconds: float = 30.0) -> Trial:
    """Memory is written to disk, dropped and read back: processes sleep in the kernel."""
    for_s = max(3.0, seconds * house.scale.times)
    with watched(house, "memory", f"memory written out and back for {for_s:g} s") as trial:
        task = drumbeat.remote(churns).options(
            max_retries=0, heartbeat_timeout=max(30.0, house.scale.limit_s(60.0))
        )
        refs = [task.remote(house.path, house.key(), for_s, 64 * MIB) for _ in range(3)]
        trial.expect({row[2] for row in house.get(refs)} == {1}, "tasks ran again")
    return trial


def over_subscription(house: House, seconds: float = 600.0) -> Trial:
    """Four times as much work as processors, with actors, tasks and their limits."""
    for_s = seconds * house.scale.times
    count = 4 * PROCESSORS
    words = f"{count} busy tasks on {PROCESSORS} processors for {for_s:g} s"
    with watched(house, "4x", words) as trial:
        actor = house.actor(house.nodes[1], max_restarts=0)
        pid, calls = house.get(actor.add.remote())
        task = drumbeat.remote(spins).options(max_retries=0, **limits(trial, 10.0))
        part_s = min(for_s, 60.0)
        end_s = time.monotonic() + for_s - part_s / 2
        while True:
            refs = [task.remote(house.path, house.key(), part_s) for _ in range(count)]
            while not passes(0.1, lambda refs=refs: all(ref.done() for ref in refs)):
                calls += 1
                trial.expect(house.get(actor.add.remote()) == (pid, calls), "the actor is another")
            trial.expect({row[2] for row in house.get(refs)} == {1}, "tasks ran again")
            if time.monotonic() > end_s:
                break
        house.let_go(actor, pid)
    return trial


def idle(house: House) -> Trial:
    """The actor that was idle all the while is as it was."""
    seconds = time.monotonic() - house.began_s
    with watched(house, "idle", f"an actor idle for {seconds:.0f} s") as trial:
        took_s = house.idle_took_s()
        house.idle_calls += 1
        answer = house.get(house.idle.add.remote())
        trial.expect(answer == (house.idle_pid, house.idle_calls), f"it is another: {answer}")
        trial.seen.append(f"it took {took_s:.2f} s CPU")
        trial.expect(took_s <= 0.1 + 0.001 * seconds, f"{took_s:.2f} s CPU while it was idle")
    return trial
