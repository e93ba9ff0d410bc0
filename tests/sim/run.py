"""Run seeds of the simulator from the command line.

python tests/sim/run.py --seeds 1000 --start 0
python tests/sim/run.py --seed 42 --verbose
python tests/sim/run.py --story tests/sim/stories/some.json
python tests/sim/run.py --planted
"""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[1])

import msgspec  # noqa: E402
from sim.batch import TWICE_EACH, run_seeds, scenario_of, serve, simulate  # noqa: E402
from sim.operations import FAULTS, Scenario, dump, load  # noqa: E402
from sim.plants import PLANTS, write_seeds  # noqa: E402
from sim.shrink import kind_of, shrink  # noqa: E402
from sim.world import Outcome  # noqa: E402

#: with --planted alone: search for each of them, and write down so many seeds that catch it
ALL = "all"
CATCHES = 3
PLANTED_SEEDS = 2000
#: a line of progress each so many seeds
PROGRESS_EACH = 500


def report(seed: int, violations: list[str], planted: str = "") -> str:
    """Say what is wrong with a seed, and how to see it again."""
    plant = f" --planted {planted}" if planted else ""
    lines = [f"seed {seed}: {len(violations)} violations", *violations[:5]]
    lines.append(f"again: python tests/sim/run.py --seed {seed}{plant} --verbose")
    return "\n".join(lines)


def shortest(scenario: Scenario, outcome: Outcome, budget_s: float) -> Scenario:
    """Return a short tape that breaks the same promise."""
    wanted = kind_of(outcome)
    end_s = time.monotonic() + budget_s

    def fails(candidate: Scenario) -> bool:
        return time.monotonic() < end_s and kind_of(simulate(candidate)) == wanted

    return shrink(scenario, fails)


def say(scenario: Scenario) -> str:
    """Return a tape as people read it."""
    lines = [f"settings {scenario.settings}", f"nodes {scenario.nodes}"]
    for entry in scenario.tape:
        sign = "!" if isinstance(entry, FAULTS) else " "
        lines.append(f"{sign} {msgspec.json.encode(entry).decode()}")
    return "\n".join(lines)


def _say_shortest(scenario: Scenario, budget_s: float) -> None:
    outcome = simulate(scenario)
    if outcome.violations:  # else two runs differ: there is nothing to shorten
        print(say(shortest(scenario, outcome, budget_s)), flush=True)


def _scenario(seed: int, options: argparse.Namespace) -> Scenario:
    actors, limits, data = options.actors, options.limits, options.data
    return scenario_of(seed, actors=actors, limits=limits, data=data)


def _one(seed: int, scenario: Scenario, options: argparse.Namespace) -> int:
    began_s = time.perf_counter()
    outcome = simulate(scenario)
    if options.digest:
        print(outcome.digest)
        return 0
    took_s = time.perf_counter() - began_s
    if options.verbose:
        print(say(scenario))
        print(dict(sorted(outcome.counts.items())))
        print(f"{outcome.steps} steps, {outcome.virtual_s:.3f} virtual s, {took_s:.3f} s")
    if not outcome.violations:
        print(f"seed {seed}: no violation, digest {outcome.digest}")
        return 0
    print(report(seed, outcome.violations, options.planted))
    if options.shrink_s:
        short = shortest(scenario, outcome, options.shrink_s)
        print(f"shortest tape: {len(short.tape)} of {len(scenario.tape)} entries")
        print(say(short))
        if options.save:
            Path(options.save).write_bytes(dump(short))
    return 1


class Tally:
    """What many seeds came to."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self.seeds = self.steps = self.faults = 0
        self.cpu_s = 0.0
        self.broken: list[int] = []
        self.counts: Counter[str] = Counter()

    def __str__(self) -> str:
        took_s = time.perf_counter() - self.began_s
        return (
            f"{self.seeds:,} seeds, {self.steps:,} steps, {self.faults:,} faults,"
            f" {len(self.broken)} violations, {self.seeds / took_s:.1f} seeds/s,"
            f" {self.seeds / max(self.cpu_s, 1e-9):.1f} seeds/s of a core"
        )


def _many(options: argparse.Namespace) -> int:
    tally = Tally()
    seeds = range(options.start, options.start + options.seeds)
    twice_each = 0 if options.planted else TWICE_EACH
    for answer in run_seeds(
        seeds,
        options.jobs,
        options.planted,
        twice_each,
        options.actors,
        options.limits,
        options.data,
    ):
        tally.seeds += 1
        tally.steps += answer.steps
        tally.faults += answer.faults
        tally.cpu_s += answer.cpu_s
        tally.counts.update(answer.counts)
        if options.progress and tally.seeds % PROGRESS_EACH == 0:
            with Path(options.progress).open("a") as file:
                file.write(f"{tally}\n")
        if answer.violations:
            tally.broken.append(answer.seed)
            print(report(answer.seed, answer.violations, options.planted), flush=True)
            if options.shrink_s and len(tally.broken) == 1:
                _say_shortest(_scenario(answer.seed, options), options.shrink_s)
            if len(tally.broken) >= options.failures_max:
                break
    if options.verbose:
        for path, count in sorted(tally.counts.items()):
            print(f"{count:9,} {path}")
    if options.progress:
        with Path(options.progress).open("a") as file:
            file.write(f"{tally}; end\n")
    print(tally)
    return 1 if tally.broken else 0


def _search(names: Sequence[str], options: argparse.Namespace) -> int:
    """Look for seeds that catch planted bugs, and write them down."""
    missed: list[str] = []
    for name in names:
        found: list[int] = []
        tally = Tally()
        seeds = range(options.start, options.start + PLANTED_SEEDS)
        plant = PLANTS[name]
        kinds = plant.actors, plant.limits, plant.data
        for answer in run_seeds(seeds, options.jobs, name, 0, *kinds):
            tally.seeds += 1
            tally.cpu_s += answer.cpu_s
            if answer.violations:
                found.append(answer.seed)
            if len(found) == CATCHES:
                break
        print(f"{name}: {found} of {tally.seeds} seeds, {tally.cpu_s:.1f} s", flush=True)
        write_seeds(name, found)
        missed += [] if found else [name]
    print(f"missed: {missed}" if missed else "each is caught")
    return 1 if missed else 0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--story", help="run a saved scenario")
    parser.add_argument("--save", help="save the shortest tape here")
    parser.add_argument(
        "--planted", nargs="?", default="", const=ALL,
        help="plant this bug first (see planted.py); no name: find seeds that catch each",
    )  # fmt: skip
    parser.add_argument(
        "--record", action="store_true", help="find seeds that catch the one that is planted"
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    parser.add_argument("--jobs", type=int, default=cores, help="how many processes")
    parser.add_argument("--progress", default="", help="add lines of progress to this file")
    parser.add_argument("--actors", action="store_true", help="with actors in every world")
    parser.add_argument("--limits", action="store_true", help="with limits of calls")
    parser.add_argument("--data", action="store_true", help="with data connections everywhere")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--verbose", action="store_true", help="print the tape and the counters")
    parser.add_argument("--digest", action="store_true", help="print the digest alone")
    parser.add_argument("--shrink-s", type=float, default=30.0, help="time for shrinking; 0: none")
    parser.add_argument("--failures-max", type=int, default=5, help="stop after so many")
    options = parser.parse_args()
    with ExitStack() as planting:
        if options.planted == ALL or options.record:
            names = list(PLANTS) if options.planted == ALL else [options.planted]
            return _search(names, options)
        if options.planted:
            plant = PLANTS[options.planted]
            options.actors = options.actors or plant.actors
            options.limits = options.limits or plant.limits
            options.data = options.data or plant.data
            planting.enter_context(plant.planted.plant())
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    if options.serve:
        serve(actors=options.actors, limits=options.limits, data=options.data)
        return 0
    if options.story:
        scenario = load(Path(options.story).read_bytes())
        return _one(scenario.seed, scenario, options)
    if options.seed is not None:
        return _one(options.seed, _scenario(options.seed, options), options)
    return _many(options)


if __name__ == "__main__":
    sys.exit(main())
