"""Talk nonsense to a live scheduler: `python tests/fuzz/run.py --messages 1000000 [--tcp]`.

With --tcp over the network, where there are strangers without keys as well. Beside it an innocent
program works. Figures at the end: what was said, what the scheduler counted, the program's rate
with and without the nonsense, memory and descriptors.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.places import LocalPlace, NetworkPlace, Place
from fuzz.shares import EDGE_S, KEPT_RATE, Told, done_between
from fuzz.strangers import memory_and_files

#: with nonsense and without, in turns: a machine's own moods hit both alike
PHASE_S: Final = 5.0
#: more than that is no warming up
MEMORY_BYTES_MAX: Final = 64 << 20
COUNTED: Final = (
    "messages_rejected", "frames_refused", "strangers_reset", "hellos_refused", "junk_dropped",
    "keys_refused",
)  # fmt: skip
#: besides, as many as there were
AT_THE_DOOR: Final = (
    "handshakes_failed", "ended_unheard", "connections_refused", "door_shut", "hellos_put_off",
)  # fmt: skip


class Job:
    """The innocent program, and what it has told of its progress."""

    def __init__(self, address: str, kind: str = "sleeping") -> None:
        command = [sys.executable, str(Path(__file__).with_name("job.py")), address, kind]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.told: list[Told] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            done, wrong, at_s = line.split()
            self.told.append(Told(int(done), int(wrong), float(at_s)))

    def wait_for(self, done: int, timeout_s: float = 30.0) -> None:
        """Wait until so much is done."""
        end_s = time.monotonic() + timeout_s
        while not self.told or self.told[-1][0] < done:
            if self.process.poll() is not None or time.monotonic() > end_s:
                raise TimeoutError(f"the innocent program has not done {done}: {self.told[-1:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10.0)
        self._reader.join(5.0)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Outcome:
    """What came of a run."""

    def __init__(self) -> None:
        self.said: Counter[str] = Counter()
        self.expected: Counter[str] = Counter()
        self.counted: Counter[str] = Counter()
        self.status: dict[str, Any] = {}
        self.rates = {"quiet": (0.0, 0.0), "nonsense": (0.0, 0.0)}
        self.memory_bytes: list[int] = []
        self.descriptors: tuple[int, int] = (0, 0)
        self.restarted = False
        self.wrong = 0
        self.lasted_s = 0.0

    def complaints(self, rate_counts: bool) -> list[str]:
        """Return what is not as it should be."""
        found = []
        if self.restarted:
            found.append("the scheduler has been started anew")
        found += [
            f"{name}: {self.counted[name]} counted, {self.expected[name]} said"
            for name in COUNTED
            if self.counted[name] != self.expected[name]
        ]
        if self.wrong:
            found.append(f"{self.wrong} results of the innocent program are wrong")
        before, after = self.descriptors
        if after > before:
            found.append(f"descriptors: {before} before, {after} after")
        grown = self.memory_bytes[-1] - self.memory_bytes[0]
        if grown > MEMORY_BYTES_MAX:
            found.append(f"memory grew by {grown >> 20} MiB")
        if rate_counts and self.kept() < KEPT_RATE:
            found.append(f"the innocent program kept {self.kept():.0%} of its rate")
        return found

    def kept(self) -> float:
        """Return which part of its rate the innocent program kept."""
        quiet, loud = (done / lasted if lasted else 0.0 for done, lasted in self.rates.values())
        return loud / quiet if quiet else 0.0

    def report(self) -> str:
        """Return the figures."""
        lines = [f"said, in {self.lasted_s:.1f} s:"]
        lines += [f"  {count:>12,} {name}" for name, count in sorted(self.said.items())]
        lines.append("counted by the scheduler, and expected:")
        lines += [f"  {self.counted[n]:>12,} {self.expected[n]:>12,} {n}" for n in COUNTED]
        door = {name: self.status["refused"].get(name, 0) for name in AT_THE_DOOR}
        lines.append(f"  at the door: {door}")
        lines.append(f"  last: {self.status['refused']['last']!r:.100}")
        for name, (done, lasted_s) in self.rates.items():
            if lasted_s:
                lines.append(f"innocent program, {name}: {done / lasted_s:,.0f} tasks/s")
        memory = ", ".join(f"{one / (1 << 20):.1f}" for one in self.memory_bytes)
        lines.append(f"the scheduler's memory in MiB: {memory}; descriptors {self.descriptors}")
        return "\n".join(lines)


def counts_of(status: dict[str, Any]) -> Counter[str]:
    """Return the counters of refusals in a status."""
    return Counter({"messages_rejected": status["messages_rejected"], **{
        name: count for name, count in status["refused"].items() if name in COUNTED[1:]
    }})  # fmt: skip


def run(messages: int, seed: int, per_s: float, phases: bool, tcp: bool = False) -> Outcome:
    """Say so many messages and frames; return what came of it.

    Args:
        messages: how many messages and frames are said at least.
        seed: of chance.
        per_s: how many a second.
        phases: pause now and then, to compare the innocent program's rates.
        tcp: over the network.
    """
    outcome = Outcome()
    with (
        tempfile.TemporaryDirectory(prefix="db") as directory,
        NetworkPlace(Path(directory)) if tcp else LocalPlace(directory) as place,
        contextlib.ExitStack() as closing,
    ):
        job = Job(place.address)
        closing.callback(job.stop)
        job.wait_for(20)
        _talk(outcome, place, job, messages, Random(seed), per_s, phases)
    return outcome


def _talk(
    outcome: Outcome, place: Place, job: Job, messages: int, rng: Random, per_s: float,
    phases: bool,
) -> None:  # fmt: skip
    pid = place.scheduler_pid()
    strangers = place.strangers(rng)
    for _ in range(max(100, messages // 1000)):
        strangers.wild()
    time.sleep(0.2)  # until it has been read; what it was taken for is not known
    before = counts_of(place.status())
    files_before = memory_and_files(pid)[1]
    phases_over: list[tuple[str, float, float]] = []
    start_s = time.monotonic()
    quiet = False
    phase_s = start_s
    spoken_s = 0.0
    next_memory = messages // 10
    while True:
        said = strangers.said["messages"] + strangers.said["frames"]
        now = time.monotonic()
        if said >= next_memory:
            outcome.memory_bytes.append(memory_and_files(pid)[0])
            next_memory += max(1, messages // 10)
        done = said >= messages
        if (phases and now - phase_s >= PHASE_S) or done:
            phases_over.append(("quiet" if quiet else "nonsense", phase_s + EDGE_S, now))
            spoken_s += 0.0 if quiet else now - phase_s
            quiet, phase_s = not quiet, now
        if done:
            break
        if quiet:
            time.sleep(0.05)
            continue
        strangers.act()
        ahead_s = said / per_s - spoken_s - (time.monotonic() - phase_s)
        if ahead_s > 0:
            time.sleep(min(0.2, ahead_s))
    outcome.lasted_s = time.monotonic() - start_s
    strangers.close()
    at = job.told[-1][0] if job.told else 0
    job.wait_for(at + 20)
    for name, since_s, until_s in phases_over:
        if since_s < until_s:
            tasks, lasted_s = outcome.rates[name]
            tasks += done_between(job.told, since_s, until_s)
            outcome.rates[name] = tasks, lasted_s + until_s - since_s
    outcome.wrong = job.told[-1][1]
    outcome.said, outcome.expected = strangers.said, strangers.expected
    _settle(outcome, place, pid, before, files_before)


def _settle(
    outcome: Outcome, place: Place, pid: int, before: Counter[str], files_before: int
) -> None:
    """Wait until the scheduler has seen that all have hung up, and look at what it counted."""
    end_s = time.monotonic() + 10.0
    while time.monotonic() < end_s:
        files = memory_and_files(pid)[1]
        if files <= files_before:
            break
        time.sleep(0.05)
    outcome.descriptors = (files_before, files)
    outcome.memory_bytes.append(memory_and_files(pid)[0])
    outcome.status = place.status()
    outcome.counted = counts_of(outcome.status)
    outcome.counted.subtract(before)
    outcome.restarted = place.scheduler_pid() != pid or outcome.status["epoch"] != 1


def main() -> int:
    """Run; return 1 if anything is not as it should be."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    flags.add_argument("--messages", type=int, default=1_000_000)
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--per-s", type=float, default=5_000.0, help="at most so many a second")
    flags.add_argument("--tcp", action="store_true", help="over the network, with keys or without")
    given = flags.parse_args()
    outcome = run(given.messages, given.seed, given.per_s, True, given.tcp)
    print(outcome.report())
    complaints = outcome.complaints(rate_counts=True)
    print(
        "\n".join(f"WRONG: {one}" for one in complaints) or f"kept {outcome.kept():.0%}: all well"
    )
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
