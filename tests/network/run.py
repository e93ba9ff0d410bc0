"""All trials of the network at real times, with 10,000 tasks each, and what was measured.

python tests/network/run.py                     all of them, thirteen minutes
python tests/network/run.py --only long-in      one of them
python tests/network/run.py --quick             at a fifth of the times
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from network import trials
from network.actor_trials import node_cut_with_actor
from network.hosts import missing
from network.trials import QUICK, REAL, WAYS, Trial, running

FOR_EVER = float("inf")
_COUNTS = ("acts", "executions", "times suspect")


def _all() -> dict[str, tuple[str, Callable[[Trial], None]]]:
    """Return the trials: name -> what it is, in words, and how it runs."""
    found: dict[str, tuple[str, Callable[[Trial], None]]] = {}
    for way, words in WAYS.items():
        found[f"short-{way}"] = (
            f"node cut for 5 intervals, {words}",
            lambda trial, way=way: trials.node_cut_shortly(trial, way),
        )
    for way, words in WAYS.items():
        found[f"long-{way}"] = (
            f"node cut for 15 intervals, {words}",
            lambda trial, way=way: trials.node_cut_for_long(trial, way),
        )
    for way, words in WAYS.items():
        found[f"ever-{way}"] = (
            f"node cut to the job's end, {words}",
            lambda trial, way=way: trials.node_cut_for_long(trial, way, FOR_EVER),
        )
    for intervals in (3, 8, 12, 30):
        found[f"actor-{intervals}"] = (
            f"node with an actor cut for {intervals} intervals",
            lambda trial, intervals=intervals: node_cut_with_actor(trial, intervals),
        )
    return found | {
        "client-short": ("client cut for 5 intervals", trials.client_cut_shortly),
        "client-ever": ("client cut for ever", trials.client_cut_for_ever),
        "client-killed": ("client killed", trials.client_killed),
        "scheduler-short": (
            "scheduler cut from all for 5 intervals", lambda trial: trials.scheduler_cut(trial, 5)
        ),
        "scheduler-long": (
            "scheduler cut from all for 15 intervals", lambda trial: trials.scheduler_cut(trial, 15)
        ),
        "slow": ("nodes behind 1 Mbit/s", trials.slow_links),
        "slow-full": ("the same, with large values alone", trials.slow_links_full),
        "lossy": ("5 of 100 packets lost everywhere", trials.lossy_links),
    }  # fmt: skip


def main() -> int:
    """Run; return 1 if a promise was broken, 2 if there can be no networks here."""
    every = _all()
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--only", action="append", choices=list(every), help="this trial")
    flags.add_argument("--quick", action="store_true", help="at a fifth of the times")
    flags.add_argument("--keep", action="store_true", help="keep the directory with the logs")
    given = flags.parse_args()
    if reason := missing():
        print(f"no network tests: {reason}", file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="nn-"))
    wrong: list[str] = []
    begun_s = time.monotonic()
    try:
        with running(directory, QUICK if given.quick else REAL) as (cluster, outlook):
            for name in given.only or every:
                words, run = every[name]
                trial = Trial(cluster, outlook, QUICK if given.quick else REAL, name)
                run(trial)
                trial.links.heal()
                figures = ", ".join(
                    f"{what} {_shown(what, s)}" for what, s in trial.figures.items()
                )
                print(f"{name:16} {words}: {figures}", flush=True)
                for text in trial.wrong[:20]:
                    print(f"  WRONG: {text}", flush=True)
                wrong += trial.wrong
            wrong += (f"left behind: {words}" for words in cluster.stop())
            for member in cluster.members:
                wrong += (f"{member.name} ended by itself: {code}" for code in member.failures)
            if wrong:
                print(cluster.logs())
    finally:
        if given.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print(f"{time.monotonic() - begun_s:.0f} s;", end=" ")
    print("no promise was broken" if not wrong else f"{len(wrong)} promises were broken")
    return 1 if wrong else 0


def _shown(what: str, figure: float) -> str:
    return f"{figure:.2f} s" if what not in _COUNTS else f"{figure:,.0f}"


if __name__ == "__main__":
    sys.exit(main())
