"""Run seeds of the simulator from the command line.

python tests/sim/run.py --seeds 1000 --start 0
python tests/sim/run.py --seed 42 --verbose
python tests/sim/run.py --story tests/sim/stories/some.json
"""

import argparse
import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path[0] = str(HERE.parents[1])

import msgspec  # noqa: E402
from sim.draw import draw  # noqa: E402
from sim.operations import FAULTS, Scenario, dump, load  # noqa: E402
from sim.shrink import kind_of, shrink  # noqa: E402
from sim.world import Outcome, World  # noqa: E402

#: one seed in so many is run twice, the second time under another hash seed
TWICE_EACH = 20


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario."""
    return World(scenario).run()


def digest_elsewhere(seed: int, hash_seed: str = "4711") -> str:
    """Return the digest of a seed as another process under another hash seed has it."""
    environment = {"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    command = [sys.executable, str(HERE), "--seed", str(seed), "--digest"]
    made = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return made.stdout.strip() or made.stderr.strip()


def report(seed: int, outcome: Outcome, planted: str = "") -> str:
    """Say what is wrong with a seed, and how to see it again."""
    plant = f" --planted {planted}" if planted else ""
    lines = [f"seed {seed}: {len(outcome.violations)} violations", *outcome.violations[:5]]
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
    print(report(seed, outcome, options.planted))
    if options.shrink_s:
        short = shortest(scenario, outcome, options.shrink_s)
        print(f"shortest tape: {len(short.tape)} of {len(scenario.tape)} entries")
        print(say(short))
        if options.save:
            Path(options.save).write_bytes(dump(short))
    return 1


def _many(options: argparse.Namespace) -> int:
    began_s = time.perf_counter()
    steps = faults = 0
    broken: list[int] = []
    counts: Counter[str] = Counter()
    for seed in range(options.start, options.start + options.seeds):
        scenario = draw(seed)
        outcome = simulate(scenario)
        steps += outcome.steps
        faults += outcome.faults
        counts += outcome.counts
        if not outcome.violations and seed % TWICE_EACH == 0 and not options.planted:
            again = digest_elsewhere(seed)
            if again != outcome.digest:
                outcome.violations.append(f"two runs differ: {outcome.digest} and {again}")
        if outcome.violations:
            broken.append(seed)
            print(report(seed, outcome, options.planted), flush=True)
            if options.shrink_s and len(broken) == 1:
                print(say(shortest(scenario, outcome, options.shrink_s)))
            if len(broken) >= options.failures_max:
                break
    took_s = time.perf_counter() - began_s
    done = seed - options.start + 1
    if options.verbose:
        for path, count in sorted(counts.items()):
            print(f"{count:9,} {path}")
    print(
        f"{done:,} seeds, {steps:,} steps, {faults:,} faults, {len(broken)} violations,"
        f" {done / took_s:.1f} seeds/s, {steps / took_s:,.0f} steps/s"
    )
    return 1 if broken else 0


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--start", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--story", help="run a saved scenario")
    parser.add_argument("--save", help="save the shortest tape here")
    parser.add_argument("--planted", default="", help="plant this bug first (see planted.py)")
    parser.add_argument("--verbose", action="store_true", help="print the tape and the counters")
    parser.add_argument("--digest", action="store_true", help="print the digest alone")
    parser.add_argument("--shrink-s", type=float, default=30.0, help="time for shrinking; 0: none")
    parser.add_argument("--failures-max", type=int, default=5, help="stop after so many")
    options = parser.parse_args()
    with ExitStack() as planting:
        if options.planted:
            from sim.planted import PLANTED

            planting.enter_context(PLANTED[options.planted].plant())
        return _run(options)


def _run(options: argparse.Namespace) -> int:
    if options.story:
        scenario = load(Path(options.story).read_bytes())
        return _one(scenario.seed, scenario, options)
    if options.seed is not None:
        return _one(options.seed, draw(options.seed), options)
    return _many(options)


if __name__ == "__main__":
    sys.exit(main())
