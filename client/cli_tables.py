"""Tables for the command line: plain data from the scheduler in, rich tables out.

Never trusts text: names of tasks, nodes and clients come from anybody's program, so no markup is
read from them and control characters are shown, not sent to the terminal.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

#: what a table shows first, and the heading; further keys follow under their own names
NODE_COLUMNS = {
    "name": "node",
    "state": "state",
    "running": "running",
    "blocked": "waiting in get",
    "calls": "calls that do not run",
    "assigned": "assigned",
    "waits_for": "waits for",
    "workers": "workers",
    "resources": "resources",
    "free": "free",
    "memory_bytes": "memory used",
    "lag_s": "loop lag",
    "last_heard_s": "last heard",
    "host": "host",
    "cpu": "CPU used",
    "pid": "pid",
    "id": "id",
}
TASK_COLUMNS = {
    "id": "task",
    "name": "function",
    "state": "state",
    "stopping": "stopping",
    "running_s": "running",
    "doing": "doing",
    "waits_for": "waits for",
    "node": "node",
    "progress": "progress",
    "attempt": "attempt",
    "pid": "pid",
    "age_s": "age",
    "client": "client",
}
ACTOR_COLUMNS = {
    "id": "actor",
    "name": "class",
    "named": "name",
    "state": "state",
    "phase": "doing",
    "node": "node",
    "incarnation": "incarnation",
    "restarts": "restarts",
    "queued": "calls queued",
    "in_flight": "calls at the node",
    "age_s": "age",
    "why": "last ends",
}
STATUS_HEADINGS = {
    "actors": "actors alive",
    "uptime_s": "up for",
    "clients": "clients, with this command",
    "rate_per_s": "tasks a second, of late",
    "stale_dropped": "stale results dropped",
    "messages_rejected": "messages rejected",
    "output_bytes_dropped": "bytes of output dropped",
    "refused": "refused of peers and strangers",
    "calls": "calls that do not run",
    "actor_calls": "calls of actors",
    "cannot_run": "cannot run now",
}
#: on a narrow terminal, what is longer is broken into lines
SENTENCE_WIDTH = 20
#: identities, not amounts
NUMBERS_AS_THEY_ARE = {"epoch", "pid", "attempt", "incarnation"}


def plain(text: object) -> str:
    """Return text with every character that could steer a terminal written out."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(text)
    )


def duration(seconds: float) -> str:
    """Return a duration as people say it: 12 ms, 3.4 s, 5 min 12 s, 2 h 7 min."""
    if seconds < 0:
        return ""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def amount(value: float) -> str:
    """Return a count or a fraction without noise: 3, 0.5, 1,250,000."""
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.3f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"


def size(count: int) -> str:
    """Return an amount of bytes as people say it: 512 B, 12.5 kB, 812.0 MB, 3.4 GB."""
    if count < 1000:
        return f"{count} B"
    for power, unit in enumerate(("kB", "MB", "GB"), start=1):
        if count < 999.95 * 1000**power:
            return f"{count / 1000**power:.1f} {unit}"
    return f"{count / 1e12:,.1f} TB"


def cell(key: str, value: Any) -> str:
    """Return one value of an answer as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if key == "cpu":
            return f"{100 * value:.0f} %"
        if key in NUMBERS_AS_THEY_ARE:
            return str(value)
        if key.endswith("_bytes"):
            return f"{value / 1e6:,.0f} MB"
        if key.endswith("_s") and not key.endswith("per_s"):
            return duration(value)
        return amount(value)
    if isinstance(value, Mapping):
        return ", ".join(
            f"{plain(name)} ({inner})" if isinstance(part, Mapping) else f"{plain(name)} {inner}"
            for name, part in value.items()
            if (inner := cell("", part))
        )
    if isinstance(value, str | bytes):
        return plain(value.hex() if isinstance(value, bytes) else value)
    if isinstance(value, Iterable):
        return ", ".join(cell("", part) for part in value)
    return plain(value)


def heading(key: str) -> str:
    """Return a key as a heading: `last_heard_s` is "last heard"."""
    return plain(key).removesuffix("_s").removesuffix("_bytes").replace("_", " ")


def doing(row: Mapping[str, Any]) -> str:
    """Return what a running task does, as its node sees it: `blocked in recvfrom 3 min 2 s`."""
    verdict, seconds = row.get("verdict") or "", row.get("verdict_s")
    if verdict in ("", "running"):
        return ""
    where = f" in {plain(row['where'])}" if row.get("where") else ""
    return f"{plain(verdict)}{where} {duration(seconds or 0.0)}".rstrip()


def task_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `tasks` as a table shows them: what is known of a call in one column."""
    left_out = (
        "phase", "verdict", "verdict_s", "where", "evidence", "actor", "cpu", "memory_bytes",
        "done", "total", "progress_s",
    )  # fmt: skip
    return [
        {key: value for key, value in row.items() if key not in left_out}
        | {"doing": doing(row), "progress": progress(row)}
        for row in rows
    ]


def progress(row: Mapping[str, Any]) -> str:
    """Return how far a call is by what it has said itself: `310/900 34 %`."""
    done, total = row.get("done"), row.get("total")
    if done is None:
        return ""
    if not total:
        return amount(done)
    return f"{amount(done)}/{amount(total)} {100 * done / total:.0f} %"


def terminal_width() -> int:
    """Return how wide the terminal is; 0: there is none, and whatever is printed may be wide."""
    console = Console()
    return console.width if console.is_terminal else 0


def keys_that_fit(
    rows: Sequence[Mapping[str, Any]], keys: Sequence[str], columns: Mapping[str, str], width: int
) -> list[str]:
    """Return the first keys whose columns fit side by side; what is empty is left out before."""

    def least(key: str) -> int:
        words = columns.get(key, heading(key)).split() or [""]
        cells = max((cell_len(cell(key, row.get(key))) for row in rows), default=0)
        # Names and amounts stay in one line, sentences need not.
        return max(*map(len, words), min(cells, SENTENCE_WIDTH))

    fit: list[str] = []
    left = width
    for key in keys:
        if all(cell(key, row.get(key)) in ("", "no") for row in rows):
            continue
        left -= least(key) + 2
        if left < 0 and fit:
            break
        fit.append(key)
    return fit


def rows_table(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], width: int = 0
) -> Table:
    """Return a table of maps, one a row.

    Args:
        rows: the maps.
        columns: what comes first, and the headings.
        width: there is room for no more; 0: for all.
    """
    keys = [key for key in columns if any(key in row for row in rows)]
    keys += sorted({key for row in rows for key in row} - set(columns))
    if width:
        keys = keys_that_fit(rows, keys, columns, width)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for key in keys:
        numbers = all(isinstance(row.get(key), int | float | None) for row in rows)
        table.add_column(
            Text(columns.get(key, heading(key))),
            justify="right" if numbers else "left",
            no_wrap=key in {"id", "state"},
            overflow="fold",
            min_width=max(map(len, columns.get(key, heading(key)).split()), default=0),
        )
    for row in rows:
        table.add_row(*(Text(cell(key, row.get(key))) for key in keys))
    return table


def status_table(status: Mapping[str, Any]) -> Table:
    """Return the overview: one line a group."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in status.items():
        table.add_row(Text(STATUS_HEADINGS.get(key, heading(key))), Text(cell(key, value)))
    return table


def show(table: Table, console: Console | None = None) -> None:
    """Print a table: as wide as the terminal, or as wide as it needs to be in a file or pipe."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(file=console.file, width=240, color_system=None)
    console.print(table)
