"""How `drumbeat top` looks: a model in, what rich prints out, for any width and height.

Never decides what is shown first; never lets text of anybody's program steer the terminal.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from . import top_model
from .cli_tables import amount, duration, plain, progress
from .top_model import ACTORS, CALLS, EVENTS, ORDERS, Model, Row

BARS: Final = " ▁▂▃▄▅▆▇█"
SPARKS_MAX: Final = 40
#: so many sorts of what cannot run are told
LACKS_MAX: Final = 2
#: nodes take no more of the screen than one part in so many
NODES_SHARE: Final = 3
#: below so many lines there is room for the calls only
LOW_LINES: Final = 12
#: from so many on there is room for a line of nothing
AIRY_LINES: Final = 20

_STYLES: Final = {
    "deadlock": "bold red", "unkillable": "bold red", "gil-held": "red", "stopped": "yellow",
    "loop-blocked": "yellow",
    "gil-busy": "yellow", "blocked": "cyan", "suspect": "yellow", "draining": "yellow",
    "dead": "dim", "restarting": "yellow", "warning": "yellow", "error": "bold red",
}  # fmt: skip


class Column(NamedTuple):
    """One column of a list."""

    heading: str
    #: without the space between it and the next; of the widest, the least
    width: int
    cell: Callable[[Row], str]
    #: key of the field that it is sorted by
    field: str = ""
    #: takes what is left over
    grows: bool = False
    is_number: bool = False
    style: Callable[[Row], str] = lambda _: ""


def _text(field: str) -> Callable[[Row], str]:
    return lambda row: plain(row.get(field) or "")


def _life(row: Row) -> str:
    """Return the state of an actor, or what it does while no call runs: `health-check`."""
    return plain(row.get("phase") or row.get("state") or "")


def _seconds(field: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(field) is None else duration(row[field])


def _bytes(field: str) -> Callable[[Row], str]:
    return lambda row: memory(row[field]) if row.get(field) else ""


def _count(field: str) -> Callable[[Row], str]:
    return lambda row: "" if row.get(field) is None else amount(row[field])


def memory(count: float) -> str:
    """Return an amount of memory: 812 MB, 3.4 GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


def percent(field: str) -> Callable[[Row], str]:
    """Return what shows a share as a percentage."""
    return lambda row: "" if row.get(field) is None else f"{100 * row[field]:.0f} %"


def _style_of(field: str) -> Callable[[Row], str]:
    return lambda row: _STYLES.get(str(row.get(field)), "")


def _doing(row: Row) -> str:
    # For how long comes before where, since what is at the end may be cut off.
    verdict, where = plain(row.get("verdict") or row.get("phase") or ""), plain(row.get("where"))
    if verdict in ("", "running"):
        return verdict
    seconds = row.get("verdict_s")
    for_s = "" if seconds is None else f" {duration(seconds)}"
    return f"{verdict}{for_s} in {where}" if row.get("where") else f"{verdict}{for_s}"


def _slots(row: Row) -> str:
    total = (row.get("resources") or {}).get("CPU", 0)
    free = (row.get("free") or {}).get("CPU", 0)
    return f"{amount(total - free)}/{amount(total)}"


#: the most important ones first; on a narrow terminal the last ones are left out
CALL_COLUMNS: Final = (
    Column("function", 14, _text("name"), "name", grows=True),
    Column("running", 10, _seconds("running_s"), "running_s", is_number=True),
    Column("doing", 20, _doing, "verdict", grows=True, style=_style_of("verdict")),
    Column("node", 10, _text("node"), "node"),
    Column("pid", 7, lambda row: str(row.get("pid") or ""), is_number=True),
    Column("CPU", 6, percent("cpu"), "cpu", is_number=True),
    Column("progress", 14, progress, is_number=True),
    Column("memory", 8, _bytes("memory_bytes"), "memory_bytes", is_number=True),
    Column("task", 19, _text("id")),
    Column("try", 3, _count("attempt"), is_number=True),
    Column("client", 14, _text("client")),
)
ACTOR_COLUMNS: Final = (
    Column("class", 14, _text("name"), grows=True),
    Column("name", 10, _text("named")),
    Column("state", 10, _life, style=_style_of("state")),
    Column("node", 10, _text("node")),
    Column("queued", 7, _count("queued"), is_number=True),
    Column("running", 7, _count("in_flight"), is_number=True),
    Column("restarts", 8, _count("restarts"), is_number=True),
    Column("age", 10, _seconds("age_s"), is_number=True),
    Column("actor", 19, _text("id")),
    Column("last ends", 30, _text("why"), grows=True),
)
EVENT_COLUMNS: Final = (
    Column("time", 8, lambda row: clock(row.get("time_s"))),
    Column("what happened", 30, _text("text"), grows=True, style=_style_of("severity")),
    Column("kind", 14, _text("kind")),
    Column("node", 10, _text("node")),
)
NODE_COLUMNS: Final = (
    Column("node", 14, _text("name"), grows=True),
    Column("state", 8, _text("state"), style=_style_of("state")),
    Column("runs", 6, _count("running"), is_number=True),
    Column("CPUs taken", 10, _slots, is_number=True),
    Column("CPU", 5, percent("cpu"), is_number=True),
    Column("memory", 8, _bytes("memory_bytes"), is_number=True),
    Column("workers", 7, _count("workers"), is_number=True),
    Column("heard", 8, _seconds("last_heard_s"), is_number=True),
    Column("loop lag", 8, _seconds("lag_s"), is_number=True),
    Column("host", 14, _text("host")),
)
COLUMNS: Final = {CALLS: CALL_COLUMNS, ACTORS: ACTOR_COLUMNS, EVENTS: EVENT_COLUMNS}


def clock(time_s: float | None) -> str:
    """Return the time of day, as the clock here shows it."""
    return "" if time_s is None else datetime.fromtimestamp(time_s).strftime("%H:%M:%S")


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """Return the first columns that fit in a width, at least one."""
    chosen: list[Column] = []
    for column in columns:
        width -= column.width + (2 if chosen else 0)
        if width < 0 and chosen:
            break
        chosen.append(column)
    return chosen


def rows_of(
    rows: Iterable[Row], columns: Sequence[Column], width: int, order: str = "", chosen: int = -1
) -> Table:
    """Return a list, one line a row."""
    fit = fitting(columns, width)
    # A short list is not torn apart by a wide terminal.
    expand = columns is not NODE_COLUMNS or len(fit) < len(columns)
    table = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        expand=expand,
        width=width if expand else None,
    )
    for column in fit:
        by = bool(order) and column.field == order
        table.add_column(
            Text(column.heading, "bold underline" if by else "bold"),
            justify="right" if column.is_number else "left",
            ratio=column.width if column.grows and expand else None,
            width=None if column.grows else column.width,
            max_width=None if expand or not column.grows else 2 * column.width,
            no_wrap=True,
            overflow="ellipsis",
        )
    for place, row in enumerate(rows):
        cells = (
            Text(column.cell(row), "" if place == chosen else column.style(row)) for column in fit
        )
        table.add_row(*cells, style="reverse" if place == chosen else "")
    return table


def sparks(rates: Sequence[float], width: int) -> str:
    """Return the course of a rate as little bars."""
    shown = list(rates)[-width:]
    most = max(shown, default=0.0)
    if most <= 0:
        return ""
    return "".join(BARS[round(rate / most * (len(BARS) - 1))] for rate in shown)


def line(*parts: tuple[str, str]) -> Text:
    """Return one line of pieces with their styles, cut where the terminal ends."""
    text = Text(no_wrap=True, overflow="ellipsis")
    for part, style in parts:
        text.append(part, style)
    return text


def header(model: Model, where: str, trouble: str) -> list[Text]:
    """Return the lines that say how the cluster is doing."""
    if not model.data:
        return [
            line(("drumbeat ", "bold"), (plain(where), "")),
            line((trouble or "asks …", "yellow")),
        ]
    status = model.data["status"]
    tasks, resources = status["tasks"], status["resources"]
    total, free = resources["total"].get("CPU", 0), resources["free"].get("CPU", 0)
    waiting = status.get("actor_calls", {}).get("waiting", 0)
    calls = f", {waiting:,} calls of actors waiting" if waiting else ""
    nodes = ", ".join(f"{count} {word}" for word, count in status["nodes"].items() if count)
    lines = [
        line(
            ("drumbeat ", "bold"),
            (plain(where), ""),
            (f"  up {duration(status['uptime_s'])}", "dim"),
            ("  stands still" if model.paused else "", "yellow"),
        ),
        line(
            (f"nodes {nodes or 'none'}", ""),
            (f" · CPUs {amount(total - free)} of {amount(total)} taken", ""),
            (f" · workers {status['workers']}", ""),
            (f" · actors {status.get('actors', 0)} · clients {status['clients']}", ""),
        ),
        line(
            (f"calls {model.data['running']:,} running", ""),
            (f" · tasks {tasks['queued']:,} queued, {tasks['waiting']:,} waiting", ""),
            (calls, ""),
            (f", {tasks['finished']:,} finished", ""),
            (f", {tasks['failed']:,} failed", "red" if tasks["failed"] else ""),
            (f", {tasks['retried']:,} retried", "yellow" if tasks["retried"] else ""),
        ),
        line(
            (f"tasks a second {amount(round(model.rates.now, 1))} ", ""),
            (sparks(model.rates.history, SPARKS_MAX), "green"),
            (plain(_calls(status["calls"])), "yellow"),
        ),
    ]
    lines += [line((plain(text), "yellow")) for text in status.get("cannot_run", ())[:LACKS_MAX]]
    if status.get("recovering"):
        lines.append(line(("the scheduler was restarted and takes in what there is", "yellow")))
    if trouble:
        lines.append(line((trouble, "bold red")))
    return lines


def _calls(counts: Mapping[str, int]) -> str:
    return "".join(f" · {count} {name}" for name, count in counts.items())


def screen(model: Model, where: str, trouble: str, width: int, height: int) -> RenderableType:
    """Return the whole screen, exactly so high, no wider than it is."""
    parts: list[RenderableType] = []
    left = height - 1  # the last line
    head = header(model, where, trouble)
    if height < LOW_LINES:
        head = [*head[:1], *(head[-1:] if trouble and len(head) > 1 else [])]
    if height >= AIRY_LINES:
        head = [*head, Text("")]
    parts += head[:left]
    left -= len(head[:left])
    if model.sheet is not None:
        parts += _sheet(model, left)
        return Group(*parts, _keys("up, down: scroll · s: again · any other key: back", model.note))
    nodes = model.data.get("nodes", [])
    if nodes and height >= LOW_LINES:
        room = max(1, height // NODES_SHARE - 2)
        shown = nodes if len(nodes) <= room else nodes[: max(1, room - 1)]
        parts.append(rows_of(shown, NODE_COLUMNS, width))
        left -= len(shown) + 1
        if len(shown) < len(nodes):
            parts.append(line((f"and {len(nodes) - len(shown)} more nodes", "dim")))
            left -= 1
        parts.append(Text(""))
        left -= 1
    parts += _list(model, width, left)
    keys = "q leave · s stack · t c m v n o sort · tab " + _next_view(model) + " · h keys"
    return Group(*parts, _keys(keys, model.note))


def _list(model: Model, width: int, left: int) -> list[RenderableType]:
    if left < 2:
        return [Text("")] * left
    height = left - 1
    first, rows = model.window(height)
    chosen = model.place() - first if rows else -1
    order = ORDERS[model.order][0] if model.view == CALLS else ""
    parts: list[RenderableType] = [rows_of(rows, COLUMNS[model.view], width, order, chosen)]
    if not rows:
        words = {CALLS: "nothing runs", ACTORS: "no actor", EVENTS: "nothing has happened"}
        parts = [line((words[model.view], "dim")), Text("")]
    blank = left - max(2, len(rows) + 1)
    return [*parts, *([Text("\n" * (blank - 1))] if blank > 0 else [])]


def _sheet(model: Model, left: int) -> list[RenderableType]:
    assert model.sheet is not None
    heading, lines = model.sheet
    room = max(1, left - 1)
    model.page = room
    shown = lines[model.sheet_top : model.sheet_top + room]
    blank = room - len(shown)
    parts: list[RenderableType] = [line((plain(heading), "bold"))]
    parts += [line((plain(text), "")) for text in shown]
    return [*parts, *([Text("\n" * (blank - 1))] if blank > 0 else [])]


def _next_view(model: Model) -> str:
    views = top_model.VIEWS
    return views[(views.index(model.view) + 1) % len(views)]


def _keys(keys: str, note: str) -> Text:
    return line((plain(note) or keys, "bold" if note else "dim"))


def picture(model: Model, where: str, width: int) -> RenderableType:
    """Return all there is, once, for a file or a pipe."""
    nodes: list[Any] = list(model.data["nodes"])
    parts: list[RenderableType] = [*header(model, where, "")]
    if nodes:
        parts += [Text(""), rows_of(nodes, NODE_COLUMNS, width)]
    rows = model.rows[CALLS]
    if rows:
        parts += [Text(""), rows_of(rows, CALL_COLUMNS, width, ORDERS[model.order][0])]
    left = model.data["running"] - len(rows)
    if left > 0:
        parts.append(line((f"and {left:,} more calls; --limit shows more", "dim")))
    return Group(*parts)
