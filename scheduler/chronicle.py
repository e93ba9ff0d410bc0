"""What the scheduler saw and did: the last `events_max` things, for `drumbeat events`.

Never decides, and knows no clock but what it is told: each entry keeps the moment of `State.now_s`,
and the shell says now and then what the clock on the wall shows (`events.ClockRead`). Tasks that
simply end leave no trace here, or a million of them would push out the one node that was lost.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple

from ..protocol.ids import show
from ..protocol.messages import Cancel, DoneRow, Query
from ..protocol.running import RunningRow

INFO: Final = "info"
WARNING: Final = "warning"
ERROR: Final = "error"

#: a longer text is cut
TEXT_CHARACTERS_MAX: Final = 400
#: what one answer holds; whoever wants more asks again, for what comes after it
ANSWER_BYTES_MAX: Final = 384 << 10
ROW_BYTES: Final = 150
ANSWER_ROWS_MAX: Final = 2_000

#: a verdict that has lasted so long is worth telling, and how bad it is
VERDICTS: Final = {
    "deadlock": (0.0, WARNING),
    "gil-held": (2.0, WARNING),
    "loop-blocked": (10.0, WARNING),
    "stopped": (0.0, WARNING),
    "unkillable": (0.0, WARNING),
    "gil-busy": (10.0, WARNING),
    "blocked": (60.0, INFO),
}

#: attempts that were ended, or whose process was; what the words of their errors are here
SUPERVISED: Final = {
    "TaskTimedOut": "timed out",
    "TaskHung": "hung",
    "WorkerOutOfMemory": "out of memory",
    "ActorUnhealthy": "actor unhealthy",
    "WorkerDied": "worker died",
}

_WAYS: Final = {
    "joined": ("joined", False),
    "entered": ("entered", False),
    "left": ("left", False),
    "disconnected": ("disconnected", False),
    "is alive": ("well again", False),
    "is suspect": ("suspect", True),
}

Told = dict[tuple[bytes, int], str]


class Entry(NamedTuple):
    """One thing that happened."""

    #: counts from 1 in each life of the scheduler
    number: int
    at_s: float
    severity: str
    #: one or two words, always the same for the same sort of thing
    kind: str
    #: for people
    text: str
    #: the node's name, if it is about one
    node: str
    #: of a task, or of the creation of an actor; empty: it is about none
    task: bytes


class Chronicle:
    """The last things, the oldest first.

    Args:
        entries_max: of more, the oldest are forgotten.
    """

    __slots__ = ("_entries", "_last", "_wall_less_now_s")

    def __init__(self, entries_max: int) -> None:
        self._entries: deque[Entry] = deque(maxlen=entries_max)
        self._last = 0
        #: what the clock on the wall is ahead of now_s; None: nobody has said
        self._wall_less_now_s: float | None = None

    def note(
        self,
        now_s: float,
        text: str,
        kind: str,
        severity: str = INFO,
        node: str = "",
        task: bytes = b"",
    ) -> None:
        """Take down what happened."""
        self._last += 1
        if len(text) > TEXT_CHARACTERS_MAX:
            text = text[: TEXT_CHARACTERS_MAX - 1] + "…"
        self._entries.append(Entry(self._last, now_s, severity, kind, text, node, task))

    def clock_read(self, wall_s: float, now_s: float) -> None:
        """Learn what the clock on the wall shows."""
        self._wall_less_now_s = wall_s - now_s

    def ended(self, now_s: float, node: str, name: str, row: DoneRow) -> None:
        """Take down the end of an attempt, if it is no ordinary one."""
        failure = row.values[0].failure if row.values else None
        if failure is None:
            return
        if not row.died and failure.error not in SUPERVISED:
            return
        why = failure.text.partition("\n")[0]
        which = f"{show(row.id)}, attempt {row.attempt}"
        text = f"{which}: {why}" if why.startswith(name) else f"{name} {which}: {why}"
        self.note(now_s, text, SUPERVISED.get(failure.error, "worker died"), WARNING, node, row.id)

    def watch(
        self,
        now_s: float,
        node: str,
        told: Told,
        rows: list[RunningRow],
        name_of: Callable[[bytes], str],
    ) -> Told:
        """Take down what calls are found in, and when they are out of it.

        Args:
            now_s: the time.
            node: whose beat it was.
            told: what this returned the last time.
            rows: what runs there.
            name_of: says what a task is called.
        """
        found: Told = {}
        for row in rows:
            verdict, key = row.verdict, (row.id, row.attempt)
            if verdict in VERDICTS:
                after_s, severity = VERDICTS[verdict]
                if told.get(key) == verdict:
                    found[key] = verdict
                elif row.verdict_s >= after_s:
                    found[key] = verdict
                    text = f"{name_of(row.id)} {show(row.id)} is {verdict}: {row.evidence}"
                    self.note(now_s, text, verdict, severity, node, row.id)
            elif told and key in told:
                text = f"{name_of(row.id)} {show(row.id)} is {told[key]} no more"
                self.note(now_s, text, verdict or "running", INFO, node, row.id)
        return found

    # ------------------------------------------------------------------------------------- reading

    def lines(self, count: int) -> list[tuple[float, str]]:
        """Return the last things with their time, for whoever looks for a bug."""
        return [(entry.at_s, entry.text) for entry in self._latest(count)]

    def _latest(self, count: int) -> list[Entry]:
        return list(islice(self._entries, max(0, len(self._entries) - count), None))

    def answer(self, query: Query, now_s: float) -> dict[str, Any]:
        """Return what was asked for: the last things, or the first ones `since` a number.

        `match` is how a kind, a severity, the name of a node or an id begins.
        """
        entries, limit = self._entries, min(query.limit, ANSWER_ROWS_MAX)
        match, room = query.match, ANSWER_BYTES_MAX
        rows: list[dict[str, Any]] = []
        forward = query.since > 0
        skip = max(0, query.since - entries[0].number) if entries and forward else 0
        last = self._last
        for entry in islice(entries, skip, None) if forward else reversed(entries):
            if match and not _matches(entry, match):
                continue
            room -= ROW_BYTES + 4 * (len(entry.text) + len(entry.node))
            if len(rows) >= limit or room < 0:
                last = rows[-1]["number"] if forward and rows else last
                break
            rows.append(self._row(entry))
        if not forward:
            rows.reverse()
        first = entries[0].number if entries else self._last + 1
        return {"first": first, "last": last, "time_s": self._wall_s(now_s), "events": rows}

    def _row(self, entry: Entry) -> dict[str, Any]:
        return {
            "number": entry.number,
            "time_s": self._wall_s(entry.at_s),
            "severity": entry.severity,
            "kind": entry.kind,
            "node": entry.node,
            "id": show(entry.task) if entry.task else "",
            "text": entry.text,
        }

    def _wall_s(self, at_s: float) -> float | None:
        ahead_s = self._wall_less_now_s
        return None if ahead_s is None else round(at_s + ahead_s, 3)

    def sizes(self) -> int:
        """Return how many things are remembered."""
        return len(self._entries)


def order_of(name: str, message: Cancel, of: str) -> tuple[str, str, str, str, bytes]:
    """Return what is told of a client that has tasks or actors ended."""
    ids = message.ids
    others = f" and {len(ids) - 1:,} more" if len(ids) > 1 else ""
    if message.exit:
        kind, does = "let go", "needs no more"
    elif message.force or message.restart:
        kind, does = "kill", "kills"
    else:
        kind, does = "cancel", "cancels"
    first = ids[0] if ids else b""
    what = f"{of} {show(first)}".strip() + others if first else "nothing"
    return f"client {name!r} {does} {what}", kind, INFO, "", first


def peers_ways(what: str) -> tuple[str, bool]:
    """Return one word for what became of a peer, and whether it is bad news of a node."""
    if what in _WAYS:
        return _WAYS[what]
    return "gone", True


def _matches(entry: Entry, match: str) -> bool:
    return (
        entry.kind.startswith(match)
        or entry.severity.startswith(match)
        or entry.node.startswith(match)
        or (bool(entry.task) and show(entry.task).startswith(match))
    )
