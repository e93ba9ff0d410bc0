"""The program whose tasks are judged: submits until it is to halt, then waits for all.

`workload.py DIRECTORY NAME SEED WINDOW RETRIES`. Its tasks write a line at their start and at their
end to DIRECTORY/executions, with O_APPEND; it writes what it submitted and what came of it to
DIRECTORY/NAME.json when all is over. It halts when DIRECTORY/halt exists.
"""

import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import drumbeat
from drumbeat.protocol.session import current

#: after the last harm, whatever is not over then hangs
RESOLVE_S = 60.0


def note(log: str, word: str, key: str) -> None:
    """Append a line; short lines to a file opened for appending are never torn."""
    fd = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{word} {key} {os.getpid()} {time.monotonic_ns()}\n".encode())
    os.close(fd)


def square(log: str, key: str, number: int, seconds: float) -> int:
    note(log, "S", key)
    if seconds:
        time.sleep(seconds)
    note(log, "E", key)
    return number * number


def large(log: str, key: str, number: int) -> bytes:
    note(log, "S", key)
    value = bytes([number % 251]) * 150_000
    note(log, "E", key)
    return value


def add(log: str, key: str, left: int, right: int) -> int:
    note(log, "S", key)
    note(log, "E", key)
    return left + right


def refuse(log: str, key: str, number: int) -> None:
    note(log, "S", key)
    note(log, "E", key)
    raise ValueError(f"refused {number}")


def second_time(log: str, key: str, number: int) -> int:
    """Raise in the first execution, return in the next."""
    note(log, "S", key)
    flag = f"{log}.{key}"
    first = not os.path.exists(flag)
    Path(flag).touch()
    note(log, "E", key)
    if first:
        raise KeyError(key)
    return -number


def family(log: str, key: str, number: int) -> int:
    """Leave processes behind: in the group, in a session of their own, forked twice."""
    note(log, "S", key)
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True)
    if not os.fork():
        os.setsid()
        if not os.fork():
            time.sleep(1000)
        os._exit(0)
    note(log, "E", key)
    return number + 1


def parent(log: str, key: str, number: int, retries: int) -> int:
    """Call others; return the sum of what they return, -1 if one of them fails."""
    note(log, "S", key)
    child = drumbeat.remote(square).options(max_retries=retries, retry_backoff_s=0.01)
    refs = []
    for index in range(3):
        # A further execution's children are others.
        name = f"{key}.{os.getpid()}.{time.monotonic_ns()}.{index}"
        note(log, f"C{retries}", name)
        refs.append(child.remote(log, name, number + index, 0.001))
    try:
        total = sum(drumbeat.get(refs))
    except drumbeat.TaskError as error:
        note(log, f"F{type(error).__name__}", key)
        total = -1
    note(log, "E", key)
    return total


class Client:
    """Submits, harvests, and remembers."""

    def __init__(self, directory: Path, name: str, seed: int, retries: list[int]) -> None:
        self.name = name
        self.log = str(directory / "executions")
        self.random = Random(f"workload {seed} {name}")
        self.retries = retries
        self.count = 0
        self.records: dict[str, dict[str, Any]] = {}
        self.pending: dict[Any, str] = {}
        self.recent: list[tuple[Any, int, str]] = []

    def submit(self) -> None:
        """Submit one more task of some kind."""
        random = self.random
        self.count += 1
        key, number = f"{self.name}{self.count}", random.randrange(1000)
        retries = random.choice(self.retries)
        shape = random.random()
        more: dict[str, Any] = {}
        record: dict[str, Any] = {"retries": retries}
        if shape < 0.55:
            seconds = random.choice((0.0, 0.0, 0.001, 0.02, 0.2))
            function, args, expected = square, (number, seconds), number * number
        elif shape < 0.65:
            function, args, expected = large, (number,), number % 251
        elif shape < 0.75 and len(self.recent) > 1:
            (left, a, first), (right, b, second) = random.sample(self.recent, 2)
            function, args, expected = add, (left, right), a + b
            record["needs"] = [first, second]
        elif shape < 0.83:
            function, args, expected = refuse, (number,), None
        elif shape < 0.88:
            function, args, expected = second_time, (number,), -number
            more["retry_exceptions"] = True
        elif shape < 0.9:
            function, args, expected = family, (number,), number + 1
        else:
            function, args = parent, (number, retries)
            expected = sum((number + index) ** 2 for index in range(3))
        task = drumbeat.remote(function).options(max_retries=retries, retry_backoff_s=0.01, **more)
        ref = task.remote(self.log, key, *args)
        record |= {"kind": function.__name__, "expected": expected, "number": number}
        self.records[key] = record
        self.pending[ref] = key
        if function is square:
            self.recent = [*self.recent[-7:], (ref, expected, key)]

    def harvest(self, wait_s: float) -> None:
        """Take in what is ready."""
        ready, _ = drumbeat.wait(list(self.pending), num_returns=1, timeout=wait_s)
        while ready:
            for ref in ready:
                self._settle(self.records[self.pending.pop(ref)], ref)
            if not self.pending:
                return
            ready, _ = drumbeat.wait(list(self.pending), num_returns=len(self.pending), timeout=0)

    def _settle(self, record: dict[str, Any], ref: Any) -> None:
        try:
            value = drumbeat.get(ref, timeout=RESOLVE_S)
        except drumbeat.DrumbeatError as error:
            raised = getattr(error, "cause", None) if _is_users(error) else error
            record["error"] = type(raised).__name__
            record["text"] = str(raised)[:300]
            record["attempt"] = getattr(error, "attempt", 0)
        else:
            if isinstance(value, bytes):
                whole = len(value) == 150_000 and len(set(value)) == 1
                value = value[0] if whole else "damaged"
            record["value"] = value


def _is_users(error: drumbeat.DrumbeatError) -> bool:
    """Return whether it is the task's own exception, in a class made for it."""
    return type(error).__name__.startswith("TaskError(")


def main() -> int:
    """Run; return the exit code."""
    directory, name = Path(sys.argv[1]), sys.argv[2]
    seed, window = int(sys.argv[3]), int(sys.argv[4])
    retries = [int(word) for word in sys.argv[5].split(",")]
    settings = json.loads(sys.argv[6])
    halt, result = directory / "halt", directory / f"{name}.json"
    client = Client(directory, name, seed, retries)
    with drumbeat.init(directory, **settings):
        (directory / f"{name}.ready").touch()
        while not halt.exists():
            while len(client.pending) < window:
                client.submit()
            client.harvest(0.1)
        end_s = time.monotonic() + RESOLVE_S
        while client.pending and time.monotonic() < end_s:
            client.harvest(0.5)
        unresolved = list(client.pending.values())
        client.pending.clear()
        client.recent.clear()
        rest = at_rest() if not unresolved else {}
        told = {"records": client.records, "unresolved": unresolved, "at_rest": rest}
        result.with_suffix(".new").write_text(json.dumps(told), encoding="utf-8")
        result.with_suffix(".new").replace(result)
    return 0


def at_rest() -> dict[str, int]:
    """Return what the client's core still holds when it should hold nothing."""
    session: Any = current()
    for _ in range(100):
        gc.collect()
        rest: dict[str, int] = session._core.at_rest()
        if not any(rest.values()):
            break
        time.sleep(0.02)
    return rest


if __name__ == "__main__":
    sys.exit(main())
