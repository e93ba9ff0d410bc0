"""A cluster with programs at work in it, and what shows that nobody in it was harmed.

A wrong kill cannot hide: of each trial the chronicle is read (`drumbeat events --json`), the
processes before and after it are compared, and so are the tasks' own notes of their beginnings.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import drumbeat
import psutil
from drumbeat.protocol.ids import show
from drumbeat.protocol.session import current
from nemesis.cluster import parts_of
from soak.calm_work import Quiet, square
from support.process_table import alive, words_of
from support.waiting import until

#: nothing that runs well may take longer than this, on whatever machine
PATIENCE_S = 180.0
PROCESSORS = len(os.sched_getaffinity(0))


class Scale(NamedTuple):
    """How long everything takes."""

    #: of the times that users have
    times: float
    settings: dict[str, Any]

    def limit_s(self, seconds: float) -> float:
        """Return a limit of a call: less than a stop lasts, and enough for a busy machine."""
        return max(1.5, seconds * self.times)


_OWN = {"worker_idle_s": 86_400.0}  # whoever ends was ended
TENTH = Scale(
    0.1,
    {
        **_OWN,
        "heartbeat_interval_s": 0.1,
        "connection_lost_s": 0.2,
        "client_grace_s": 1.5,
        "lease_margin_s": 0.2,
        "hang_timeout_s": 12.0,
        "unkillable_after_s": 6.0,
        "start_timeout_s": 30.0,
        "cancel_grace_s": 0.5,
        "term_grace_s": 0.2,
        "reap_timeout_s": 1.0,
        # Memory is always short, for which no worker is to blame.
        "memory_low_share": 0.9999,
    },
)
REAL = Scale(1.0, _OWN)


class Members(NamedTuple):
    """All processes of the cluster."""

    #: scheduler, keepers, daemons, templates: by what they are
    parts: dict[str, int]
    #: of each node
    workers: dict[str, set[int]]


class Crowd:
    """How many others want a processor, looked at in a thread.

    What is promised is promised for four times as much work as there are processors. At a fraction
    of the times a node is suspect after a fraction of a second, which a machine with far more to
    do may well take from it: then it is true, and no fault.
    """

    MOST = 6 * PROCESSORS
    _EACH_S, _SPAN_S = 0.1, 3.0

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        self._over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._over.wait(self._EACH_S):
            wanting = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
            self._seen.append((time.time(), int(wanting)))

    def was_too_large(self, at_s: float) -> bool:
        """Return whether there was more to do than anything is promised for."""
        counts = [count for when_s, count in self._seen if at_s - self._SPAN_S < when_s <= at_s]
        return sum(counts) > self.MOST * len(counts)

    def end(self) -> None:
        """Look no more."""
        self._over.set()


class House:
    """A local cluster of two nodes, with an actor that is idle all the while.

    Args:
        scale: of the times.
        directory: for what programs note, and the cluster's own.
    """

    def __init__(self, scale: Scale, directory: Path) -> None:
        self.scale = scale
        self.directory = directory
        self.path = str(directory / "executions")
        runtime = directory / "run"
        runtime.mkdir(mode=0o700)
        #: twice as much as there are processors on each: four times in all
        self.cluster = drumbeat.init(
            nodes=2, num_cpus=2 * PROCESSORS, runtime_directory=str(runtime), **scale.settings
        )
        until(lambda: len(drumbeat.nodes()) == 2, PATIENCE_S)
        self.nodes = [name for name in self.cluster.processes if name != "scheduler"]
        self.keys = 0
        self.crowd = Crowd()
        #: under which each actor notes its beginning
        self.keys_of: dict[str, str] = {}
        #: processes of actors that were let go
        self.ended: set[int] = set()
        self.began_s = time.monotonic()
        # Unleased: it outlives a scheduler that is away for longer than a lease.
        self.idle = self.actor(self.nodes[0], on_partition="wait")
        self.idle_pid = self.get(self.idle.add.remote())[0]
        self.idle_calls = 1
        self.idle_cpu_s = self._idle_cpu_s()

    def close(self) -> None:
        """End the cluster."""
        self.crowd.end()
        self.cluster.shutdown()

    # ------------------------------------------------------------------------------------- work

    def key(self) -> str:
        """Return a name for an execution."""
        self.keys += 1
        return f"k{self.keys}"

    def actor(self, node: str, **options: Any) -> Any:
        """Have an actor on a node."""
        made = drumbeat.remote(Quiet).options(num_cpus=0, node=node, **options)
        key = self.key()
        actor = made.remote(self.path, key)
        self.keys_of[id_of(actor)] = key
        return actor

    def get(self, refs: Any, within_s: float = PATIENCE_S) -> Any:
        """Return values."""
        return drumbeat.get(refs, timeout=within_s)

    def let_go(self, actor: Any, pid: int) -> None:
        """End an actor of ours, and wait for its end."""
        self.ended.add(pid)
        drumbeat.kill(actor)
        until(lambda: not alive(pid), PATIENCE_S)

    def executions(self) -> Counter[str]:
        """Return how often each key has begun."""
        lines = Path(self.path).read_text(encoding="utf-8").splitlines()
        return Counter(line.split()[1] for line in lines if line.startswith("S "))

    # ------------------------------------------------------------------------------ who is there

    def members(self) -> Members:
        """Return all processes, but those of workers that are just being started."""
        parts, workers = {"scheduler": self.cluster.processes["scheduler"]}, {}
        for node in self.nodes:
            keeper = parts[f"keeper {node}"] = self.cluster.processes[node]
            found = parts_of(keeper)
            for kind in ("daemon", "template"):
                for pid in found[kind]:
                    parts[f"{kind} {node}"] = pid
            workers[node] = set(found["worker"])
        return Members(parts, workers)

    def daemon(self, node: str) -> int:
        """Return the process of a node's daemon."""
        return self.members().parts[f"daemon {node}"]

    def row_of(self, ref: Any) -> dict[str, Any]:
        """Return what the scheduler knows of a call."""
        session: Any = current()
        rows: list[dict[str, Any]] = session.query("tasks", limit=1000)
        return next((row for row in rows if row["id"] == id_of(ref)), {})

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Return what the chronicle has after a number."""
        command = [sys.executable, "-P", "-m", "drumbeat.client.cli", "events", "--json"]
        done = subprocess.run(
            [*command, "--limit", "10000", "--address", self.cluster.address],
            capture_output=True, text=True, timeout=PATIENCE_S, check=True,
        )  # fmt: skip
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return [row for row in rows if row["number"] > since]

    def _idle_cpu_s(self) -> float:
        times = psutil.Process(self.idle_pid).cpu_times()
        return float(times.user + times.system)

    def idle_took_s(self) -> float:
        """Return the CPU time of the idle actor's process since its first call."""
        return self._idle_cpu_s() - self.idle_cpu_s


class Trial:
    """One of them; `wrong` says what was not to happen, `seen` what was, in words."""

    def __init__(self, house: House, name: str, words: str) -> None:
        self.house = house
        self.name = name
        self.words = words
        self.wrong: list[str] = []
        self.seen: list[str] = []
        #: events that belong to this trial, others than mere news: (kind, id or name of the node)
        self.allowed: set[tuple[str, str]] = set()
        #: kinds that must not be missing
        self.required: set[str] = set()
        #: nodes whose workers may end
        self.may_end: set[str] = set()
        #: may begin more than once
        self.again: Counter[str] = Counter()
        self.took_s = 0.0

    @property
    def scale(self) -> Scale:
        """How long everything takes."""
        return self.house.scale

    def allow(self, whose: Any, *kinds: str) -> None:
        """Say what may be told of a call, an actor, or a node by its name."""
        subject = whose if isinstance(whose, str) else id_of(whose)
        self.allowed |= {(kind, subject) for kind in kinds}

    def require(self, node: str, *kinds: str) -> None:
        """Say what must be told of a node."""
        self.allow(node, *kinds)
        self.required |= {*kinds}

    def expect(self, holds: object, text: str) -> None:
        """Note what is wrong."""
        if not holds:
            self.wrong.append(text)

    def line(self) -> str:
        """Return what was seen."""
        verdict = "WRONG" if self.wrong else "calm"
        words = "; ".join([self.words, *self.seen])
        return f"{self.name:12} {verdict:6} {self.took_s:6.1f} s  {words}"


#: that somebody was ended or given up, also where it is told as mere news
_ENDS = (
    "worker died", "hung", "timed out", "out of memory", "actor ended", "actor gone", "node gone",
    "node joined",
)  # fmt: skip
#: what is told of an actor that its program has let go
_LET_GO = "is no more: it was killed, or whoever created it was cancelled or has left"


@contextmanager
def watched(house: House, name: str, words: str) -> Iterator[Trial]:
    """Judge what happens meanwhile; steady work goes on beside it."""
    trial = Trial(house, name, words)
    before, mark = house.members(), house.events()[-1]["number"]
    begun, ended = set(house.executions()), len(house.ended)
    began_s, began_at_s = time.monotonic(), time.time()
    steady = Steady(house)
    try:
        yield trial
    except (drumbeat.DrumbeatError, AssertionError) as error:
        trial.wrong.append(f"{type(error).__name__}: {error}")
    steady.end(trial)
    trial.took_s = time.monotonic() - began_s
    _judge_events(trial, house.events(mark), len(house.ended) - ended, began_at_s)
    _judge_members(trial, before, house.members())
    for key, times in house.executions().items():
        if key not in begun and times > 1 + trial.again[key]:
            trial.wrong.append(f"{key} ran {times} times")


def _judge_events(trial: Trial, rows: list[dict[str, Any]], let_go: int, began_at_s: float) -> None:
    told: Counter[str] = Counter()
    for row in rows:
        kind = row["kind"]
        if kind == "actor gone" and row["text"].endswith(_LET_GO) and let_go:
            let_go -= 1
        elif kind == "node suspect" and trial.scale.times < 1.0 and _is_true(trial, row):
            told["node suspect for want of a processor"] += 1
        elif {(kind, row["id"]), (kind, row["node"])} & trial.allowed:
            told[kind] += 1
        elif row["severity"] != "info" or kind in _ENDS:
            at_s = row["time_s"] - began_at_s
            trial.wrong.append(f"event {kind!r} after {at_s:.2f} s: {row['text']}")
    for kind in sorted(trial.required - set(told)):
        trial.wrong.append(f"nothing was told of {kind!r}")
    words = ", ".join(f"{count} x {kind}" for kind, count in told.items())
    trial.seen.append(f"told: {words or 'nothing'}")


def _is_true(trial: Trial, row: dict[str, Any]) -> bool:
    whose = "node suspect", row["node"]
    return whose not in trial.allowed and trial.house.crowd.was_too_large(row["time_s"])


def _judge_members(trial: Trial, before: Members, after: Members) -> None:
    for part, pid in before.parts.items():
        if after.parts.get(part) != pid:
            trial.wrong.append(f"{part} was {pid} and is {after.parts.get(part, 'gone')}")
    for node, pids in before.workers.items():
        for pid in sorted(pids - after.workers[node] - trial.house.ended):
            if node not in trial.may_end:
                trial.wrong.append(f"worker {words_of(pid)} of {node} has ended")


class Steady:
    """Small tasks and an actor's calls, one after the other, in a thread; none may be harmed."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._limit_s = house.scale.limit_s(5.0)
        self._actor = house.actor(house.nodes[0], on_partition="wait")
        self._pid, self._calls = house.get(self._actor.add.remote())
        self._tasks = 0
        self._longest_s = 0.0
        self._wrong: list[str] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        limits = {"timeout": self._limit_s, "heartbeat_timeout": self._limit_s}
        task = drumbeat.remote(square).options(
            num_cpus=0, max_retries=0, node=self._house.nodes[0], **limits
        )
        try:
            while not self._over.is_set():
                began_s = time.monotonic()
                number = self._tasks
                ref = task.remote(self._house.path, f"{self._pid}.{number}", number)
                call = self._actor.add.remote()
                if self._house.get([ref, call]) != [number**2, (self._pid, self._calls + 1)]:
                    self._wrong.append(f"turn {number} of steady work has a wrong value")
                self._tasks, self._calls = self._tasks + 1, self._calls + 1
                self._longest_s = max(self._longest_s, time.monotonic() - began_s)
                self._over.wait(0.05)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what is looked for
            self._wrong.append(f"steady work: {type(error).__name__}: {error}")

    def end(self, trial: Trial) -> None:
        """Come to an end; tell what was seen."""
        self._over.set()
        self._thread.join()
        trial.wrong += self._wrong
        trial.expect(self._tasks, "no steady work was done")
        trial.seen.append(f"{2 * self._tasks} calls, longest {self._longest_s:.2f} s")
        if not self._wrong:
            self._house.let_go(self._actor, self._pid)


def id_of(whose: Any) -> str:
    """Return the id of a call, or of an actor, as the chronicle names it."""
    return show(getattr(whose, "_ref", whose).id)


def passes(seconds: float, holds: Callable[[], object] = bool) -> bool:
    """Let time pass, or less of it if something comes to hold; say whether it did."""
    end_s = time.monotonic() + seconds
    while not holds():
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return False
        time.sleep(min(0.05, left_s))
    return True
