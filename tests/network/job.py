"""The program whose tasks are judged: so many tasks at once, then all of their results.

`job.py DIRECTORY CLUSTER NAME COUNT SECONDS LARGE`. Its tasks write a line at their start and at
their end to DIRECTORY/executions; it writes what it submitted and what came of it to
DIRECTORY/NAME.json. Each simple task takes SECONDS; one in LARGE returns 150,000 bytes, another
takes and returns 60,000, which travel as small values do.
"""

import json
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import drumbeat
from nemesis.workload import Client, add, at_rest, large, note, parent, refuse, second_time, square

#: whatever is not over then hangs
RESOLVE_S = 300.0
RETRIES = [0, 1, 3, 3, 5]
_SLICE = 200
_TEXT = "".join(f"{number:05d} " for number in range(10_000))


def middling(log: str, key: str, number: int, text: str) -> str:
    """Return as much as it was given, nearly what still travels inline."""
    note(log, "S", key)
    note(log, "E", key)
    return text[number:] + text[:number]


class Job(Client):
    """Submits tasks of several shapes, and remembers what each has to come to."""

    def __init__(self, directory: Path, name: str, seconds: float, large_each: int) -> None:
        super().__init__(directory, name, 0, RETRIES)
        self.seconds = seconds
        self.large_each = large_each
        self.made: dict[tuple[Any, int], Any] = {}

    def submit(self) -> None:
        """Submit one more task of some kind."""
        random: Random = self.random
        self.count += 1
        key, number = f"{self.name}{self.count}", random.randrange(1000)
        retries, shape = random.choice(self.retries), random.random()
        record: dict[str, Any] = {"retries": retries}
        function: Any = square
        args: tuple[Any, ...] = (number, self.seconds)
        expected: int | None = number * number
        if self.count % self.large_each == 0:
            function, args, expected = large, (number,), number % 251
        elif self.count % self.large_each == 1:
            function, args, expected = middling, (number, _TEXT), number
        elif shape < 0.06 and len(self.recent) > 1:
            (left, a, first), (right, b, second) = random.sample(self.recent, 2)
            function, args, expected = add, (left, right), a + b
            record["needs"] = [first, second]
        elif shape < 0.1:
            function, args, expected = refuse, (number,), None
        elif shape < 0.13:
            function, args, expected = second_time, (number,), -number
        elif shape < 0.16:
            function, args = parent, (number, retries)
            expected = sum((number + index) ** 2 for index in range(3))
        ref = self._kind(function, retries).remote(self.log, key, *args)
        record |= {"kind": function.__name__, "expected": expected, "number": number}
        self.records[key] = record
        self.pending[ref] = key
        if function is square:
            self.recent = [*self.recent[-7:], (ref, expected, key)]

    def _kind(self, function: Any, retries: int) -> Any:
        if (function, retries) not in self.made:
            more = {"retry_exceptions": True} if function is second_time else {}
            self.made[function, retries] = drumbeat.remote(function).options(
                max_retries=retries, retry_backoff_s=0.01, **more
            )
        return self.made[function, retries]

    def _settle(self, record: dict[str, Any], ref: Any) -> None:
        super()._settle(record, ref)
        text = record.get("value")
        if isinstance(text, str) and len(text) == len(_TEXT):
            number = record["number"]
            record["value"] = number if text == _TEXT[number:] + _TEXT[:number] else "damaged"

    def settle(self) -> None:
        """Take in all results, in the order of their tasks."""
        end_s = time.monotonic() + RESOLVE_S
        while self.pending and time.monotonic() < end_s:
            some = list(self.pending)[:_SLICE]
            left_s = max(0.0, end_s - time.monotonic())
            ready, _ = drumbeat.wait(some, num_returns=len(some), timeout=left_s)
            for ref in ready:
                self._settle(self.records[self.pending.pop(ref)], ref)


def main() -> None:
    """Run."""
    directory, cluster, name = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    count, seconds, large_each = int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
    job = Job(directory, name, seconds, large_each)
    with drumbeat.init(cluster):
        for _ in range(count):
            job.submit()
        (directory / f"{name}.ready").touch()
        job.settle()
        unresolved = list(job.pending.values())
        job.pending.clear()
        job.recent.clear()
        rest = at_rest() if not unresolved else {}
        told = {"records": job.records, "unresolved": unresolved, "at_rest": rest}
        path = directory / f"{name}.json"
        path.with_suffix(".new").write_text(json.dumps(told), encoding="utf-8")
        path.with_suffix(".new").replace(path)


if __name__ == "__main__":
    main()
