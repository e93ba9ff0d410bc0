"""How soon it is seen that a worker died, that a node died, that a node was cut off.

    python -m benchmarks.detection [--runs 50] [--quick] [--only worker|node|cut]

With the times that users have. A worker, then a node with all its processes, is killed with
SIGKILL, and the clock stops when the program has the error of what ran there: later than when the
scheduler knows. A node is cut off both ways by the rules of a network made of namespaces, where
that is possible (root, on Linux), and the clock stops when a program beside the scheduler reads in
its answers that the node is suspect, and then lost. Medians and worst are printed, with budgets.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import drumbeat

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

from nemesis import seen  # noqa: E402
from nemesis.cluster import parts_of, signal_to  # noqa: E402
from network import hosts, trials  # noqa: E402

QUICK_RUNS = 3
WORKER, NODE, SUSPECT, LOST = (
    "a worker died", "a node died", "a cut node is suspect", "a cut node is lost",
)  # fmt: skip
#: seconds; the last two are intervals of the nodes' beats, which is a second
BUDGETS_S = {WORKER: 0.05, NODE: 1.0, SUSPECT: 3.0, LOST: 10.0}
#: what whoever looks may be late: the scheduler's turn, the answer, the next question
LOOK_S = 0.1
_AGAIN_S = 30.0


class Times(NamedTuple):
    """What was measured of one thing."""

    what: str
    seconds: list[float]
    budget_s: float

    @property
    def is_kept(self) -> bool:
        """Whether the median is within the budget."""
        return statistics.median(self.seconds) <= self.budget_s

    def line(self) -> str:
        """Return them in words."""
        median_s, worst_s = statistics.median(self.seconds), max(self.seconds)
        verdict = "kept" if worst_s <= self.budget_s else "not by the worst"
        return (
            f"{self.what:24}{len(self.seconds):5}{_shown(median_s):>12}{_shown(worst_s):>12}"
            f"{_shown(self.budget_s):>12}  {verdict if self.is_kept else 'OVER'}"
        )


def _shown(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.5 else f"{seconds:.2f} s"


# ------------------------------------------------------------------------------ workers and nodes


def deaths(what: str, runs: int, die: Callable[[seen.Seen], float]) -> Times:
    """Have something die so often in a cluster of two nodes."""
    one = seen.Seen(cpus=2)
    try:
        one.cluster.start()
        with drumbeat.init(one.directory):
            _all_there()
            seconds = [die(one) for _ in range(runs)]
        if left := one.cluster.stop():
            raise RuntimeError(f"left behind: {'; '.join(left)}")
    finally:
        one.cluster.close()
        shutil.rmtree(one.directory, ignore_errors=True)
    return Times(what, seconds, BUDGETS_S[what])


def worker_dies(one: seen.Seen) -> float:
    """Kill a worker; return after how long its task's error is there."""
    took_ms, error = seen.death(one.directory)
    if not isinstance(error, drumbeat.WorkerDied):
        raise RuntimeError(f"told as {error!r}")
    one.cluster.tend()
    return took_ms / 1e3


def node_dies(one: seen.Seen) -> float:
    """Kill all processes of a node; return after how long the error of its task is there."""
    member, path = one.cluster.members[1], one.directory / "pid"
    path.unlink(missing_ok=True)
    once = drumbeat.remote(seen.linger).options(max_retries=0, node=member.name)
    ref = once.remote(str(path))
    while not (path.exists() and path.read_text()):
        time.sleep(0.005)
    assert member.process is not None, "it runs a task"
    keeper = member.process.pid
    pids = [keeper, *(pid for part in parts_of(keeper).values() for pid in part)]
    begun_s = time.monotonic()
    for pid in pids:
        signal_to(pid, signal.SIGKILL)
    try:
        drumbeat.get(ref, timeout=60)
    except drumbeat.NodeLost:
        took_s = time.monotonic() - begun_s
    else:
        raise RuntimeError("the task of a node that was killed has returned")
    # Another one is started only now: that it is there would tell that the old one is not.
    if not one.cluster.wait(_AGAIN_S, _all_there):
        raise RuntimeError(f"the node is not back:\n{one.cluster.logs()}")
    return took_s


def _all_there() -> bool:
    return [node["state"] for node in drumbeat.nodes()] == ["alive", "alive"]


# ----------------------------------------------------------------------------------------- cuts


def cuts(runs: int, scale: trials.Scale) -> list[Times]:
    """Cut a node off so often, until it is lost, and heal."""
    directory = Path(tempfile.mkdtemp(prefix="nd-"))
    suspect_s: list[float] = []
    lost_s: list[float] = []
    try:
        with trials.running(directory, scale) as (cluster, outlook):
            for number in range(runs):
                trial = trials.Trial(cluster, outlook, scale, f"cut{number}")
                for name, seconds in zip(("suspect", "lost"), (suspect_s, lost_s), strict=True):
                    if name == "suspect":
                        trial.cut_node("both")
                    seconds.append(trials.measure_cut(trial, name))
                trials.measure_back(trial)
                if trial.wrong:
                    raise RuntimeError("\n".join([*trial.wrong, cluster.logs()]))
            if left := cluster.stop():
                raise RuntimeError(f"left behind: {'; '.join(left)}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [
        Times(what, seconds, BUDGETS_S[what] * scale.interval_s + LOOK_S)
        for what, seconds in ((SUSPECT, suspect_s), (LOST, lost_s))
    ]
