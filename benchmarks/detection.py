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

from nemesis import seen
from nemesis.cluster import parts_of, signal_to
from network import hosts, trials
from network.cluster import NODES

QUICK_RUNS = 3
WORKER, NODE, SUSPECT, LOST = (
    "a worker died", "a node died", "a cut node is suspect", "a cut node is lost",
)  # fmt: skip
#: seconds; the last two are intervals of the nodes' beats, which is a second
BUDGETS_S = {WORKER: 0.05, NODE: 1.0, SUSPECT: 3.0, LOST: 10.0}
#: whoever reads the scheduler's answers may be late: its turn, the answer, the next question
LOOK_S = 0.1
_AGAIN_S = 30.0


class Times(NamedTuple):
    """What was measured of one thing."""

    what: str
    seconds: list[float]
    budget_s: float
    #: what the looking itself may be late
    late_s: float = 0.0

    @property
    def is_kept(self) -> bool:
        """Whether the median is within the budget."""
        return statistics.median(self.seconds) <= self.budget_s + self.late_s

    def line(self) -> str:
        """Return them in words."""
        median_s, worst_s = statistics.median(self.seconds), max(self.seconds)
        verdict = "kept" if worst_s <= self.budget_s + self.late_s else "not by the worst"
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
            if not one.cluster.wait(_AGAIN_S, _all_there):
                raise RuntimeError(f"the nodes are not there:\n{one.cluster.logs()}")
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
                # Not always as long after a beat: what counts is when the last one came.
                cluster.wait((1.0 + number / runs) * scale.interval_s)
                seen_s = _cut(trial)
                if trial.wrong:
                    raise RuntimeError("\n".join([*trial.wrong, cluster.logs()]))
                suspect_s.append(seen_s["suspect"])
                lost_s.append(seen_s["lost"])
            if left := cluster.stop():
                raise RuntimeError(f"left behind: {'; '.join(left)}")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return [
        Times(what, seconds, BUDGETS_S[what] * scale.interval_s, LOOK_S)
        for what, seconds in ((SUSPECT, suspect_s), (LOST, lost_s))
    ]


def _cut(trial: trials.Trial) -> dict[str, float]:
    """Cut the first node off until it is lost, and heal; return after how long what was seen."""
    name, interval_s, slack_s = NODES[0], trial.scale.interval_s, 5 * trial.scale.slack_s
    trial.cut_node("both")
    limit_s = BUDGETS_S[SUSPECT] * interval_s + slack_s
    trial.measure("suspect", limit_s, lambda one: one["nodes"].get(name) == "suspect")
    limit_s = BUDGETS_S[LOST] * interval_s + slack_s
    trial.measure("lost", limit_s, lambda one: name not in one["nodes"])
    healed_s = trial.heal()
    both = dict.fromkeys(NODES, "alive")
    trial.measure("back", _AGAIN_S, lambda one: bool(one["nodes"] == both), healed_s)
    return trial.figures


# ----------------------------------------------------------------------------------------- all


def measured(which: list[str], runs: int, *, quick: bool) -> Iterator[Times]:
    """Yield the times of each, as soon as they are there."""
    if "worker" in which:
        yield deaths(WORKER, runs, worker_dies)
    if "node" in which:
        yield deaths(NODE, runs, node_dies)
    if "cut" in which:
        if reason := hosts.missing():
            print(f"no node was cut off: {reason}", flush=True)
        else:
            yield from cuts(runs, trials.QUICK if quick else trials.REAL)


def main() -> int:
    """Measure and print; return 1 if a median is over its budget."""
    every = ["worker", "node", "cut"]
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--runs", type=int, help="of each; 50, with --quick 3")
    flags.add_argument("--quick", action="store_true", help="cut nodes at a fifth of the times")
    flags.add_argument("--only", action="append", choices=every, help="this")
    given = flags.parse_args()
    runs = given.runs or (QUICK_RUNS if given.quick else 50)
    print(f"{'seen':24}{'runs':>5}{'median':>12}{'worst':>12}{'budget':>12}", flush=True)
    is_kept = True
    for times in measured(given.only or every, runs, quick=given.quick):
        print(times.line(), flush=True)
        is_kept = is_kept and times.is_kept
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
