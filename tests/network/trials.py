"""Trials: one job, one thing that goes wrong with the network, and what came of it.

A trial measures and judges; it never decides what the product's times are, it is told them. All
trials of a run share one cluster, one after the other: each leaves it at rest, or says what is
held.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nemesis.cluster import parts_of
from nemesis.judge import Log, judge
from network.cluster import CLIENT, NODES, SCHEDULER, NetworkCluster, Program
from support.process_table import words_of

#: ways in which a link is cut, and what a list of figures calls them
WAYS = {"both": "both ways", "out": "node to scheduler", "in": "scheduler to node"}


class Scale(NamedTuple):
    """How long everything takes."""

    settings: dict[str, Any]
    #: of each node
    cpus: int
    tasks: int
    #: of each simple task
    seconds: float
    #: what all machines together may be late
    slack_s: float

    @property
    def interval_s(self) -> float:
        """Time between the beats of a node."""
        return float(self.settings.get("heartbeat_interval_s", 1.0))

    @property
    def client_silence_s(self) -> float:
        """How long a client may say nothing."""
        return float(self.settings["client_silence_s"])

    @property
    def client_grace_s(self) -> float:
        """How long a client may be away whose connection has closed."""
        return float(self.settings.get("client_grace_s", 10.0))


#: a fifth of the times
QUICK = Scale(
    {
        "heartbeat_interval_s": 0.2,
        "connection_lost_s": 0.2,
        "client_grace_s": 1.5,
        "client_silence_s": 5.0,
        "lease_margin_s": 0.4,
        "handshake_timeout_s": 1.0,
        "reconnect_min_s": 0.05,
        "reconnect_max_s": 0.1,
        "cancel_grace_s": 0.5,
        "term_grace_s": 0.2,
        "resend_after_s": 0.3,
    },
    cpus=4,
    tasks=400,
    seconds=0.03,
    slack_s=1.0,
)
#: what users have, but for a time that nobody wants to wait for (600 s)
REAL = Scale({"client_silence_s": 60.0}, cpus=4, tasks=10_000, seconds=0.02, slack_s=1.5)


#: so late a loop may turn on a busy machine
LATE_S = 0.4


class Outlook:
    """What the scheduler believed, and when: the lines that `watch.py` writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.seen: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """Take in what is new; return all."""
        if self._path.exists():
            with open(self._path, "rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
            self._offset += len(whole + end)
            self.seen += map(json.loads, whole.splitlines())
        return self.seen

    def last(self) -> dict[str, Any]:
        """Return what is believed now."""
        return self.look()[-1]

    def since(self, at_s: float) -> Iterator[dict[str, Any]]:
        """Yield what was believed from a time on, first what was believed then."""
        seen = self.look()
        before = [one for one in seen if one["at_s"] <= at_s][-1:]
        yield from before + [one for one in seen if one["at_s"] > at_s]


class Trial:
    """One of them; `wrong` says what broke a promise, `figures` what was measured (seconds)."""

    def __init__(self, cluster: NetworkCluster, outlook: Outlook, scale: Scale, name: str) -> None:
        self.cluster = cluster
        self.links = cluster.links
        self.scale = scale
        self.outlook = outlook
        self.directory = cluster.directory / name
        self.directory.mkdir()
        self.figures: dict[str, float] = {}
        self.wrong: list[str] = []
        self.harmed_s = 0.0

    def expect(self, holds: object, text: str) -> None:
        """Note a broken promise."""
        if not holds:
            self.wrong.append(text)

    def job(
        self, host: str = CLIENT, *, tasks: int = 0, seconds: float = 0, large: int = 50
    ) -> Program:
        """Start a job; return it once about a tenth of it has run."""
        count = tasks or self.scale.tasks
        job = self.cluster.run(
            self.directory, host, "job.py", "j", count, seconds or self.scale.seconds, large
        )
        self.expect(self.cluster.wait(60.0, job.is_ready), "the program could not submit")
        path = self.directory / "executions"
        begun = self.cluster.wait(30.0, lambda: path.exists() and _lines(path) > count // 5)
        self.expect(begun, "the job did not begin")
        return job

    def cut_node(self, way: str) -> None:
        """Cut the link of the first node."""
        node, scheduler = (self.cluster.network[name] for name in (NODES[0], SCHEDULER))
        self.harmed_s = time.monotonic()
        if way != "in":
            self.links.cut_one_way(node, scheduler)
        if way != "out":
            self.links.cut_one_way(scheduler, node)

    def pause_until(self, after_s: float) -> None:
        """Let time pass until so long after the harm."""
        self.cluster.wait(self.harmed_s + after_s - time.monotonic())

    def measure(
        self, what: str, within_s: float, holds: Callable[[dict[str, Any]], bool],
        since_s: float = 0.0,
    ) -> float | None:  # fmt: skip
        """Note how long after the harm, or another time, something was first believed."""
        begun_s = since_s or self.harmed_s

        def first() -> dict[str, Any] | None:
            return next((one for one in self.outlook.since(begun_s) if holds(one)), None)

        self.cluster.wait(begun_s + within_s - time.monotonic(), first)
        found = first()
        if found is None:
            last = {k: v for k, v in self.outlook.last().items() if not k.endswith("_s")}
            self.wrong.append(f"not {what} within {within_s:.1f} s: {last}")
            return None
        self.figures[what] = max(0.0, found["at_s"] - begun_s)
        return self.figures[what]

    def heal(self) -> float:
        """Make all links whole; return when."""
        healed_s = time.monotonic()
        self.links.heal()
        return healed_s

    def finish(self, job: Program, within_s: float = 240.0) -> None:
        """Wait for the job's end."""
        if not self.cluster.wait(within_s, job.has_ended):
            self.wrong.append("the program has not ended")
        elif job.process.returncode:
            self.wrong.append(f"the program failed:\n{job.log.read_text()[-2000:]}")

    def judge(self, job: Program, *, harmed: bool) -> None:
        """Hold what ran and what the program saw against the promises."""
        told = job.told()
        if told is None:
            self.wrong.append(f"the program told nothing:\n{job.log.read_text()[-2000:]}")
            return
        log = Log(self.directory / "executions")
        self.wrong += judge(log, told, {"cut": 1} if harmed else {})
        self.figures["executions"] = log.count()
        again = [key for key, starts in log.starts.items() if len(starts) > 1]
        if harmed:
            return
        for key in again:
            record = told["records"].get(key, {})
            asked = record.get("kind") == "second_time" and record["retries"]
            self.expect(asked, f"{key} ran {len(log.starts[key])} times, and no node was lost")

    def nobody_was_lost(self) -> None:
        """Nobody was given up since the harm."""
        for one in self.outlook.since(self.harmed_s):
            if set(one["nodes"]) != set(NODES):
                self.wrong.append(f"a node was given up: {one}")
                return

    def rest(self, since_s: float, within_s: float = 20.0) -> None:
        """Wait until nothing is held for anybody, and every resource is returned."""
        held: Any = None

        def at_rest() -> bool:
            nonlocal held
            held = _held(self.cluster, self.outlook.last())
            return not held

        if self.cluster.wait(since_s + within_s - time.monotonic(), at_rest):
            self.figures["at rest"] = time.monotonic() - since_s
        else:
            self.wrong.append(f"held at rest: {held}")


def _held(cluster: NetworkCluster, believed: dict[str, Any]) -> dict[str, Any]:
    told = cluster.sizes(2.0)
    if told is None:
        return {"daemons": "one of them does not answer"}
    held: dict[str, Any] = {
        f"{who}.{name}": count
        for who, sizes in told.items()
        for name, count in sizes["at_rest"].items()
        if count
    }
    for keeper in cluster.pids("keeper"):
        if workers := parts_of(keeper)["worker"]:
            held[f"workers of keeper {keeper}"] = list(map(words_of, workers))
    if believed["nodes"] != dict.fromkeys(NODES, "alive"):
        held["nodes"] = believed["nodes"]
    if believed["taken"]:
        held["taken"] = believed["taken"]
    return held


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def _all_alive(one: dict[str, Any]) -> bool:
    return bool(one["nodes"] == dict.fromkeys(NODES, "alive"))


@contextmanager
def running(directory: Path, scale: Scale) -> Iterator[tuple[NetworkCluster, Outlook]]:
    """A cluster with a watcher, until the end."""
    cluster = NetworkCluster(directory, scale.cpus, scale.settings)
    try:
        cluster.start()
        watcher = cluster.run(cluster.directory, SCHEDULER, "watch.py", "watch")
        outlook = Outlook(cluster.directory / "watch.seen")
        cluster.wait(
            30.0,
            lambda: watcher.has_ended() or (outlook.look() and _all_alive(outlook.last())),
        )
        if not outlook.look() or not _all_alive(outlook.last()):
            raise RuntimeError(f"it did not come up:\n{watcher.log.read_text()}\n{cluster.logs()}")
        yield cluster, outlook
    finally:
        cluster.close()


# ----------------------------------------------------------------------------------- the trials


def node_cut_shortly(trial: Trial, way: str = "both") -> None:
    """A cut of 5 intervals: nobody is given up, each task runs once."""
    job = trial.job()
    trial.cut_node(way)
    trial.pause_until(5 * trial.scale.interval_s)
    healed_s = trial.heal()
    trial.measure("well again", 10 * trial.scale.interval_s, _all_alive, healed_s)
    trial.finish(job)
    trial.nobody_was_lost()
    trial.judge(job, harmed=False)
    trial.rest(time.monotonic())


def node_cut_for_long(trial: Trial, way: str = "both", intervals: float = 15.0) -> None:
    """A cut beyond what is borne: suspect at 3 intervals, lost at 10, its work runs elsewhere.

    Without an end (`intervals` infinite) the job comes to its end while the link is cut.
    """
    interval_s, slack_s = trial.scale.interval_s, trial.scale.slack_s
    job = trial.job()
    trial.cut_node(way)
    name = NODES[0]
    suspect_s = trial.measure(
        "suspect", 4 * interval_s + slack_s, lambda one: one["nodes"].get(name) == "suspect"
    )
    lost_s = trial.measure("lost", 11 * interval_s + slack_s, lambda one: name not in one["nodes"])
    if suspect_s is not None and lost_s is not None:
        # The last beat may have come an interval before the cut, and more on a busy machine.
        trial.expect(suspect_s > 1.9 * interval_s - slack_s, f"suspect after {suspect_s:.2f} s")
        # The watcher is late on a busy machine: as suspect counts when it was last seen well. The
        # scheduler is late there, too, perhaps with one of the two and not with the other.
        since = trial.outlook.since(trial.harmed_s)
        well_s = next(one["before_s"] for one in since if one["nodes"].get(name) == "suspect")
        later_s = trial.harmed_s + lost_s - well_s
        trial.expect(later_s > 7 * interval_s - LATE_S, f"lost {later_s:.2f} s later")
    if intervals == float("inf"):
        trial.finish(job)
    else:
        trial.pause_until(intervals * interval_s)
    trial.expect(name not in trial.outlook.last()["nodes"], "the node is back over a cut link")
    healed_s = trial.heal()
    trial.measure("back", 8.0 + slack_s, _all_alive, healed_s)
    trial.finish(job)
    trial.judge(job, harmed=True)
    trial.rest(time.monotonic())


def client_cut_shortly(trial: Trial) -> None:
    """A client that was cut off for 5 intervals has lost nothing."""
    job = trial.job()
    network = trial.cluster.network
    trial.harmed_s = time.monotonic()
    trial.links.cut(network[CLIENT], network[SCHEDULER])
    trial.pause_until(5 * trial.scale.interval_s)
    trial.heal()
    trial.finish(job)
    trial.nobody_was_lost()
    trial.judge(job, harmed=False)
    trial.rest(time.monotonic())


def client_cut_for_ever(trial: Trial) -> None:
    """A client of which nothing comes any more is given up once it was silent for too long."""
    job = trial.job(seconds=5 * trial.scale.seconds)
    network = trial.cluster.network
    trial.harmed_s = time.monotonic()
    trial.links.cut(network[CLIENT], network[SCHEDULER])
    _client_goes(trial, job, trial.scale.client_silence_s)
    job.process.kill()
    job.process.wait()
    trial.heal()


def client_killed(trial: Trial) -> None:
    """A client whose connection closes has a grace to come back in, and no more."""
    job = trial.job(seconds=5 * trial.scale.seconds)
    trial.harmed_s = time.monotonic()
    job.process.kill()
    job.process.wait()
    _client_goes(trial, job, trial.scale.client_grace_s)


def _client_goes(trial: Trial, job: Program, after_s: float) -> None:
    """Its work is cancelled then, not before; nothing of it begins later, and all is returned."""
    slack_s = trial.scale.slack_s
    gone_s = trial.measure("client gone", after_s + slack_s, lambda one: not one["clients"])
    # What it said last may be as old as the pause between its signs of life.
    trial.expect(not gone_s or gone_s > 0.8 * after_s, f"gone after {gone_s} s already")
    gone_at_s = trial.harmed_s + (gone_s or 0.0)
    trial.rest(gone_at_s, 10.0 + slack_s)
    log = Log(trial.directory / "executions")
    late_s = log.last_start_ns("j") / 1e9 - gone_at_s
    trial.expect(late_s < 0.5 * slack_s, f"a task began {late_s:.1f} s after its client had gone")
    trial.nobody_was_lost()
    trial.figures["executions"] = log.count()


def scheduler_cut(trial: Trial, intervals: float) -> None:
    """The scheduler's host is cut off from everybody."""
    interval_s, slack_s = trial.scale.interval_s, trial.scale.slack_s
    job = trial.job()
    trial.harmed_s = time.monotonic()
    trial.links.isolate(trial.cluster.network[SCHEDULER])
    lost = intervals > 10
    if lost:
        limit_s = 11 * interval_s + slack_s
        trial.measure("all lost", limit_s, lambda one: not one["nodes"])
    trial.pause_until(intervals * interval_s)
    healed_s = trial.heal()
    trial.measure("back", 8.0 + slack_s, _all_alive, healed_s)
    trial.finish(job)
    if not lost:
        trial.nobody_was_lost()
    trial.judge(job, harmed=lost)
    trial.rest(time.monotonic())


def slow_links(trial: Trial) -> None:
    """All nodes behind links of 1 Mbit a second: results are right, nobody is given up."""
    trial.harmed_s = time.monotonic()
    for name in NODES:
        trial.links.slow(trial.cluster.network[name])
    job = trial.job(large=max(200, trial.scale.tasks // 20))
    trial.finish(job)
    trial.figures["job"] = time.monotonic() - trial.harmed_s
    trial.nobody_was_lost()
    trial.judge(job, harmed=False)
    trial.heal()
    trial.rest(time.monotonic())


def slow_links_full(trial: Trial) -> None:
    """The same with values of 60,000 and 150,000 bytes alone: what is sent waits for minutes."""
    trial.harmed_s = time.monotonic()
    for name in NODES:
        trial.links.slow(trial.cluster.network[name])
    job = trial.cluster.run(trial.directory, CLIENT, "job.py", "j", 200, 0, 2)
    trial.finish(job)
    trial.figures["job"] = time.monotonic() - trial.harmed_s
    silent_s = [one["at_s"] for one in trial.outlook.since(trial.harmed_s) if not _all_alive(one)]
    trial.figures["times suspect"] = len(silent_s)
    trial.nobody_was_lost()
    trial.judge(job, harmed=False)
    trial.heal()
    trial.rest(time.monotonic())


def lossy_links(trial: Trial) -> None:
    """Every host loses 5 of 100 packets: results are right, nobody is given up."""
    trial.harmed_s = time.monotonic()
    trial.links.lose(5)
    job = trial.job()
    trial.finish(job)
    trial.figures["job"] = time.monotonic() - trial.harmed_s
    trial.nobody_was_lost()
    trial.judge(job, harmed=False)
    trial.heal()
    trial.rest(time.monotonic())
