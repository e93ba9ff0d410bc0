"""Many seeds in several processes: each runs one after the other and tells what came of it.

One process more has another hash seed: what it runs a second time must give the same digest. Never
judges: a world does, in its process.
"""

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Final, Self

import msgspec

from .actors import with_actors
from .data import draw_data, with_data
from .draw import draw
from .limits import with_limits
from .operations import Scenario
from .world import Outcome, World

#: one seed in so many is run twice, the second time under another hash seed
TWICE_EACH: Final = 20
OTHER_HASH_SEED: Final = "4711"
#: seeds that lie before a process, so that it never waits for the next one
AHEAD: Final = 2
RUN: Final = Path(__file__).with_name("run.py")


class Answer(msgspec.Struct):
    """What came of a seed."""

    seed: int
    violations: list[str]
    steps: int
    faults: int
    digest: str
    counts: dict[str, int]
    cpu_s: float


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Answer).decode


def simulate(scenario: Scenario) -> Outcome:
    """Run one scenario."""
    return World(scenario).run()


def scenario_of(
    seed: int, *, actors: bool = False, limits: bool = False, data: bool = False
) -> Scenario:
    """Return the world of a seed, with what it is to have besides."""
    scenario = with_data(draw(seed)) if data else draw_data(draw(seed))
    if actors:
        scenario = with_actors(scenario)
    return with_limits(scenario) if limits else scenario


def serve(*, actors: bool = False, limits: bool = False, data: bool = False) -> None:
    """Run the seeds that come on standard input, a line each; answer on standard output."""
    # What was imported lives for ever: it need not be looked at again after every world.
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        began_s = time.process_time()
        seed = int(line)
        made = simulate(scenario_of(seed, actors=actors, limits=limits, data=data))
        answer = Answer(
            seed, made.violations, made.steps, made.faults, made.digest, dict(made.counts),
            time.process_time() - began_s,
        )  # fmt: skip
        sys.stdout.buffer.write(_encode(answer) + b"\n")
        sys.stdout.buffer.flush()


class Runner:
    """A process that runs seeds."""

    def __init__(
        self,
        hash_seed: str,
        planted: str = "",
        actors: bool = False,
        limits: bool = False,
        data: bool = False,
    ) -> None:
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": "/usr/bin:/bin"}
        kept = [name for name in ("PYTHONPATH",) if name in os.environ]
        environment |= {name: os.environ[name] for name in kept}
        command = [sys.executable, str(RUN), "--serve"]
        command += ["--planted", planted] if planted else []
        command += ["--actors"] if actors else []
        command += ["--limits"] if limits else []
        command += ["--data"] if data else []
        self.given: list[int] = []
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()

    def fileno(self) -> int:
        """Return what is readable when there is an answer."""
        return self._from.fileno()

    def give(self, seed: int) -> None:
        """Have it run a seed when it has run those before."""
        self.given.append(seed)
        self._to.write(b"%d\n" % seed)
        self._to.flush()

    def take(self) -> list[Answer]:
        """Return what it has answered; waits until there is something to read.

        Raises:
            RuntimeError: it has ended by itself.
        """
        read = os.read(self.fileno(), 1 << 16)
        if not read:
            raise RuntimeError(f"the process that was to run the seeds {self.given} has ended")
        *lines, self._read = (self._read + read).split(b"\n")
        answers = [_decode(line) for line in lines]
        for answer in answers:
            self.given.remove(answer.seed)
        return answers


def run_seeds(
    seeds: Iterable[int],
    jobs: int = 1,
    planted: str = "",
    twice_each: int = TWICE_EACH,
    actors: bool = False,
    limits: bool = False,
    data: bool = False,
) -> Iterator[Answer]:
    """Run seeds and yield what came of each, as they come.

    Args:
        seeds: which; when it ends, what was begun is run to its end.
        jobs: how many processes.
        planted: the bug to plant, by name.
        twice_each: one seed in so many is run twice; 0: none.
        actors: whether there are actors in every world.
        limits: whether calls have limits.
        data: whether large payloads go past the scheduler in every world.
    """
    remaining = iter(seeds)
    once: dict[int, Answer] = {}
    with ExitStack() as stack, DefaultSelector() as selector:
        runners = [
            stack.enter_context(Runner(str(1 + job), planted, actors, limits, data))
            for job in range(jobs)
        ]
        twin = None
        if twice_each:
            twin = stack.enter_context(Runner(OTHER_HASH_SEED, planted, actors, limits, data))
        for runner in runners:
            for seed in _next(remaining, AHEAD):
                runner.give(seed)
        for reader in (*runners, *([twin] if twin else [])):
            selector.register(reader, EVENT_READ, reader)
        while once or any(runner.given for runner in runners):
            for key, _ in selector.select():
                reader = key.data
                for answer in reader.take():
                    if reader is twin:
                        yield _compared(once.pop(answer.seed), answer)
                        continue
                    for seed in _next(remaining, 1):
                        reader.give(seed)
                    if twin and answer.seed % twice_each == 0 and not answer.violations:
                        once[answer.seed] = answer
                        twin.give(answer.seed)
                    else:
                        yield answer


def _next(seeds: Iterator[int], count: int) -> list[int]:
    return list(islice(seeds, count))


def _compared(answer: Answer, again: Answer) -> Answer:
    if again.digest != answer.digest:
        answer.violations.append(f"two runs differ: {answer.digest} and {again.digest}")
    answer.cpu_s += again.cpu_s
    return answer


def until(end_s: float, seeds: Iterable[int], least: int) -> Iterator[int]:
    """Yield seeds until the time is over, `least` of them whatever the machine."""
    for number, seed in enumerate(seeds):
        if number >= least and time.monotonic() > end_s:
            return
        yield seed
