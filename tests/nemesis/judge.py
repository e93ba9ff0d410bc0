"""The oracle: what tasks wrote and what their program saw, held against the promises.

Never looks into the product. The same promises as in the simulator: right results, at most
`1 + max_retries` executions, with `max_retries=0` never two, everything resolves, and every failure
has a reason that the harm done can account for.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: failures that harm may bring about
_OF_HARM = ("WorkerDied", "PoisonTask", "NodeLost")


class Execution(NamedTuple):
    """One start of a task's code."""

    key: str
    pid: int
    at_ns: int


class Log:
    """What the tasks wrote, in the order in which they did."""

    def __init__(self, path: Path) -> None:
        self.starts: dict[str, list[Execution]] = {}
        self.ends: Counter[str] = Counter()
        #: calls made by tasks -> their max_retries
        self.children: dict[str, int] = {}
        #: tasks that saw one of their calls fail
        self.saw_failure: dict[str, str] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        for line in text.splitlines():
            word, key, pid, at_ns = line.split(" ")
            if word == "S":
                self.starts.setdefault(key, []).append(Execution(key, int(pid), int(at_ns)))
            elif word == "E":
                self.ends[key] += 1
            elif word[0] == "C":
                self.children[key] = int(word[1:])
            elif word[0] == "F":
                self.saw_failure[key] = word[1:]

    def count(self) -> int:
        """Return how many executions there were."""
        return sum(map(len, self.starts.values()))

    def last_start_ns(self, prefix: str) -> int:
        """Return when the last task of a program began."""
        times = [
            one.at_ns for key, ones in self.starts.items() if key.startswith(prefix) for one in ones
        ]
        return max(times, default=0)


def judge(log: Log, told: dict[str, Any], harms: Mapping[str, int]) -> list[str]:
    """Return what is wrong.

    Args:
        log: what the tasks wrote.
        told: what their program saw.
        harms: what was done -> how often.
    """
    records: dict[str, dict[str, Any]] = told["records"]
    wrong = [f"{key} never resolved" for key in told["unresolved"]]
    held = {name: count for name, count in told["at_rest"].items() if count}
    if held:
        wrong.append(f"the client still holds {held}")
    harmed = sum(harms.values())
    unrun = 0
    for key, record in records.items():
        wrong += _too_often(log, key, record["retries"])
        if key not in told["unresolved"]:
            found = _outcome(log, key, record, records, harmed > 0)
            unrun += record.get("error") == "WorkerDied" and key not in log.starts
            wrong += [f"{key} ({record['kind']}) {text}" for text in found]
    for key, retries in log.children.items():
        wrong += _too_often(log, key, retries)
    if unrun > harmed:
        # Each death is charged to one task: it may have been loading its function, no more.
        wrong.append(f"{unrun} tasks failed with WorkerDied and never ran, after {harmed} harms")
    return wrong


def too_often(log: Log, retries: dict[str, int]) -> list[str]:
    """Return what ran more often than it may, of tasks whose program told nothing."""
    return [text for key, most in retries.items() for text in _too_often(log, key, most)]


def _too_often(log: Log, key: str, retries: int) -> list[str]:
    count = len(log.starts.get(key, ()))
    if count <= 1 + retries:
        return []
    pids = [one.pid for one in log.starts[key]]
    return [f"{key} ran {count} times with max_retries={retries} (in {pids})"]


def _outcome(
    log: Log,
    key: str,
    record: dict[str, Any],
    records: dict[str, dict[str, Any]],
    harmed: bool,
) -> list[str]:
    """Return what is wrong with the outcome of a task that has one."""
    error = record.get("error")
    if error is None:
        return _value(log, key, record)
    ends = log.ends[key]
    if error == "ValueError" and record["kind"] == "refuse":
        right = record["text"].endswith(f"refused {record['number']}")
        return [] if right and ends else [f"failed with {record['text']!r}"]
    if error == "KeyError" and record["kind"] == "second_time":
        if ends and (harmed or record["retries"] == 0):
            return []
        return ["was not tried again"]
    if error in _OF_HARM:
        if not harmed:
            return [f"failed with {error}, and nobody was harmed"]
        if error == "WorkerDied" and record["attempt"] != 1 + record["retries"]:
            return [f"failed with its attempt {record['attempt']} of {1 + record['retries']}"]
        return []
    needs = record.get("needs", ())
    if error == "DependencyFailed" and any("error" in records[need] for need in needs):
        return []
    return [f"failed with {error}: {record['text']}"]


def _value(log: Log, key: str, record: dict[str, Any]) -> list[str]:
    value, expected = record.get("value"), record["expected"]
    if not log.ends[key]:
        return [f"has the value {value!r} and never came to its end"]
    if value == expected:
        return []
    if record["kind"] == "parent" and value == -1 and log.saw_failure.get(key) in _OF_HARM:
        return []
    return [f"has the value {value!r} instead of {expected!r}"]
