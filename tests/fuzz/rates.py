"""What a busy cluster keeps of its rate while it is attacked: `python tests/fuzz/rates.py`.

A saturated program (tasks that do nothing, as many as the cluster can do) over the network, and
beside it one attack after the other. A turn is quiet, attacked, quiet: what the machine has of
moods of its own hits both. A kind holds when the median of its turns is at least 80 %.
"""

import argparse
import contextlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.attack import ENOUGH, KINDS
from fuzz.places import NetworkPlace
from fuzz.run import Job
from fuzz.shares import EDGE_S, Part, Turn, complaint, turn_of
from fuzz.strangers import memory_and_files

#: after a turn: until the program has told what it did to the end of it
TOLD_WITHIN_S: Final = 2.0
#: an attack that cannot make its number of connections in that time is measured all the same
PART_MAX_S: Final = 15.0


class Attack:
    """A process that attacks when it is told."""

    def __init__(self, kind: str, place: NetworkPlace, niceness: int, per_s: float) -> None:
        script = str(Path(__file__).with_name("attack.py"))
        words = [sys.executable, script, kind, *place.files]
        self.process = subprocess.Popen(
            [*words, str(niceness), str(per_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._hear()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the attack has failed: exit code {self.process.wait()}")
        return line

    def begin(self) -> None:
        self._say()

    def wait(self, timeout_s: float) -> None:
        """Wait until it has made as many connections as belong to it."""
        if select.select([self.process.stdout], [], [], timeout_s)[0]:
            self._hear()

    def pause(self) -> int:
        """Stop until the next turn; return how many connections it has made since it began."""
        self._say()
        while (said := self._hear()) == ENOUGH:
            pass
        return int(said)

    def _say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()  # in order it would take long: it gives way to everybody
        self.process.communicate(timeout=30.0)


def part(pid: int, part_s: float, attack: Attack | None = None) -> Part:
    """Let so much time pass; under attack until that has come to its number."""
    begun_s, busy_s = time.monotonic(), processor_s(pid)
    time.sleep(part_s)
    if attack is not None:
        attack.wait(max(0.0, PART_MAX_S - part_s))
    return Part(begun_s, time.monotonic(), processor_s(pid) - busy_s)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has had."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def turn(attack: Attack, job: Job, pid: int, part_s: float) -> Turn:
    """Return what a turn of quiet, attacked, quiet came to."""
    first = part(pid, part_s)
    attack.begin()
    attacked = part(pid, part_s, attack)
    made = attack.pause()
    last = part(pid, part_s)
    end_s = time.monotonic() + TOLD_WITHIN_S
    while job.told[-1].at_s < last.ended_s and time.monotonic() < end_s:
        time.sleep(0.02)
    return turn_of(job.told, (first, attacked, last), made)


def measure(kind: str, place: NetworkPlace, job: Job, given: argparse.Namespace) -> bool:
    """Attack in one way; print the figures and return whether the program kept its rate."""
    pid = place.scheduler_pid()
    memory = memory_and_files(pid)[0]
    attack = Attack(kind, place, given.nice, given.per_s)
    turns: list[Turn] = []
    try:
        for _ in range(given.turns):
            turns.append(turn(attack, job, pid, given.part_s))
            print(f"{kind:12} {turns[-1].words()}", flush=True)
    finally:
        attack.end()
    kept = [one.kept for one in turns]
    grown = (memory_and_files(pid)[0] - memory) >> 20
    print(
        f"{kind:12} kept {statistics.median(kept):.0%} of its rate ({min(kept):.0%} to "
        f"{max(kept):.0%}); the scheduler's memory {grown:+d} MiB",
        flush=True,
    )
    if any(one.made < KINDS[kind][2] for one in turns):
        print(
            f"{kind:12} not {KINDS[kind][2]:,} connections in each turn: this says less", flush=True
        )
    wrong = complaint(turns)
    if wrong:
        print(f"WRONG: {kind}: {wrong}", flush=True)
    return not wrong


def main() -> int:
    """Run; return 1 if the program did not keep its rate."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    flags.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(KINDS)}; all")
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--per-s", type=float, default=500.0, help="connections, at most")
    flags.add_argument("--part-s", type=float, default=6.0, help="a turn has three of them")
    flags.add_argument(
        "--nice", type=int, default=19,
        help="of the attackers: where others use the machine too, 19 leaves them next to nothing",
    )  # fmt: skip
    given = flags.parse_args()
    unknown = set(given.kinds) - set(KINDS)
    if unknown:
        flags.error(f"no such attack: {', '.join(sorted(unknown))}")
    if given.turns < 1 or given.part_s <= 2 * EDGE_S:
        flags.error(f"at least one turn, and more than {2 * EDGE_S:g} s a part")
    with (
        tempfile.TemporaryDirectory(prefix="db") as directory,
        NetworkPlace(Path(directory)) as place,
        contextlib.ExitStack() as closing,
    ):
        pid = place.scheduler_pid()
        job = Job(place.address, "saturated")
        closing.callback(job.stop)
        job.wait_for(20_000)
        held = [measure(kind, place, job, given) for kind in given.kinds or KINDS]
        wrong = job.told[-1].wrong
        restarted = place.scheduler_pid() != pid
        print("refused:", place.status()["refused"])
    if wrong or restarted:
        print(f"WRONG: {wrong} wrong results, scheduler started anew: {restarted}")
    return int(not all(held) or bool(wrong) or restarted)


if __name__ == "__main__":
    sys.exit(main())
