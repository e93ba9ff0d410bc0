"""The calm trials at real times: what looks like a fault and is none harms nobody.

python tests/soak/calm.py                      all of them, a quarter of an hour
python tests/soak/calm.py --minutes 1          four times more work than processors for so long
python tests/soak/calm.py --only daemon-20     one of them
python tests/soak/calm.py --tenth              at a tenth of the times, as `make check` has them
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

from drumbeat.protocol.settings import Settings
from soak import calm_trials
from soak.calm_house import REAL, TENTH, House, Scale, Trial

#: what a list of arguments takes besides the value itself
AROUND_BYTES = 1 << 20


def trials_of(scale: Scale, minutes: float = 10.0) -> dict[str, Callable[[House], Trial]]:
    """Return the trials by name, in their order.

    Args:
        scale: of their times.
        minutes: of four times more work than processors, before they are scaled.
    """
    size = int((Settings().value_bytes_max - AROUND_BYTES) * scale.times)
    return {
        "worker-8": lambda house: calm_trials.worker(house, 8.0),
        "worker-20": lambda house: calm_trials.worker(house, 20.0),
        "daemon-8": calm_trials.daemon_shortly,
        "daemon-20": calm_trials.daemon_for_long,
        "scheduler-8": lambda house: calm_trials.scheduler(house, 8.0),
        "scheduler-20": lambda house: calm_trials.scheduler(house, 20.0),
        "import": calm_trials.slow_import,
        "argument": lambda house: calm_trials.huge_argument(house, size),
        "garbage": calm_trials.garbage,
        "memory": calm_trials.memory,
        "4x": lambda house: calm_trials.over_subscription(house, 60.0 * minutes),
        "idle": calm_trials.idle,
    }


NAMES = list(trials_of(REAL))


def run(directory: Path, names: list[str], scale: Scale, minutes: float) -> list[Trial]:
    """Run trials in one cluster; print a line of each as it ends."""
    done: list[Trial] = []
    trials = trials_of(scale, minutes)
    house = House(scale, directory)
    try:
        for name in names:
            done.append(trials[name](house))
            print(done[-1].line(), flush=True)
            for text in done[-1].wrong[:20]:
                print(f"  WRONG: {text}", flush=True)
    finally:
        house.close()
    return done


def main() -> int:
    """Run; return 1 if somebody was harmed."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--only", action="append", choices=NAMES, help="this trial")
    flags.add_argument("--tenth", action="store_true", help="at a tenth of the times")
    flags.add_argument("--minutes", type=float, default=10.0, help="of four times more work")
    given = flags.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="calm-"))
    begun_s = time.monotonic()
    try:
        done = run(directory, given.only or NAMES, TENTH if given.tenth else REAL, given.minutes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    wrong = sum(len(trial.wrong) for trial in done)
    print(f"\n{len(done)} trials in {time.monotonic() - begun_s:.0f} s")
    for trial in done:
        print(f"  {trial.name:12} {'calm' if not trial.wrong else f'{len(trial.wrong)} wrong'}")
    print("nobody was harmed" if not wrong else f"{wrong} things were wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
