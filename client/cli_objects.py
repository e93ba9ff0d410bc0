"""`drumbeat objects`: who keeps which values, how large they are, and who holds them.

Never decides: the scheduler asks those who know. Names are text of anybody's program, and are made
harmless before they are shown.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import click

from ..protocol.session import Session
from ..protocol.stock import ARGUMENTS, STOCK_ROWS_MAX
from . import cli_tables
from .cli_words import FAILED, examples, print_json, refuse, show_rows

OBJECT_COLUMNS: Final = {
    "id": "object",
    "what": "what",
    "state": "state",
    "size": "size",
    "place": "where",
    "home": "home",
    "held_by": "held by",
}
HOME_COLUMNS: Final = {
    "home": "home",
    "objects": "objects",
    "size": "size",
    "copies": "copies of others",
    "copies_size": "their size",
}
#: the name of the last line of homes
ALL: Final = "all"

Data = Mapping[str, Any]
Connect = Callable[[str | None], AbstractContextManager[Session]]


@click.command(
    epilog=examples(
        "drumbeat objects", "drumbeat objects resize --limit 20", "drumbeat objects --json"
    )
)
@click.pass_obj
@click.option(
    "--limit",
    type=click.IntRange(1, STOCK_ROWS_MAX),
    default=100,
    show_default=True,
    help="Rows at most.",
)
@click.argument("match", default="")
def objects(
    connect: Connect, address: str | None, json_wanted: bool, limit: int, match: str
) -> None:
    """List the values that are kept, the largest first: where, how large, who holds refs to them.

    A value is kept by its home: the program that submitted the task or put it, or the node whose
    worker did. MATCH keeps those whose function's name or whose id begins so.
    """
    with connect(address) as session:
        answer = session.query("objects", limit=limit, match=match)
    if "error" in answer:
        refuse(cli_tables.plain(answer["error"]), FAILED)
    if json_wanted:
        print_json(answer)
        return
    if answer["objects"]:
        show_rows([object_row(row) for row in answer["objects"]], OBJECT_COLUMNS)
    elif not answer["left_out"]:
        which = f" that begins with {cli_tables.plain(match)!r}" if match else ""
        whom = " by anybody who answered" if answer["silent"] else ""
        click.echo(f"no object{which} is kept{whom}")
    if answer["homes"]:
        click.echo()
        show_rows(home_rows(answer["homes"]), HOME_COLUMNS)
    for line in notes(answer):
        click.echo(line, err=True)


def object_row(row: Data) -> dict[str, str]:
    """Return an object as the table shows it."""
    held = [held_by(one) for one in row["held_by"]]
    if row["more_holders"]:
        held.append(f"{row['more_holders']} more")
    return {
        "id": row["id"],
        "what": what(row),
        "state": row["state"],
        "size": cli_tables.size(row["size_bytes"]) if row["place"] else "",
        "place": row["place"],
        "home": row["home"],
        "held_by": ", ".join(held),
    }


def what(row: Data) -> str:
    """Return what an object is: `result of resize`, `put`, `arguments of resize`, `actor Lamp`."""
    if not row["name"]:
        return str(row["sort"])
    between = " " if row["sort"] not in ("result", ARGUMENTS) else " of "
    return f"{row['sort']}{between}{row['name']}"


def held_by(holder: Data) -> str:
    """Return who holds an object, and how: `lab1 (2 workers, 1 use, a copy)`."""
    name, refs, uses = holder["name"], holder["refs"], holder["uses"]
    if refs is None:
        return f"{name} (it did not say how)"
    words = []
    if holder["role"] == "scheduler":
        name = "the scheduler"
        words.append(counted(uses, "waits", "wait"))
        uses = 0
    if refs:
        ref = ("worker", "workers") if holder["role"] == "node" else ("ref", "refs")
        words.append(counted(refs, *ref))
    if uses:
        words.append(counted(uses, "use", "uses"))
    if holder["copy_bytes"]:
        words.append("a copy")
    return f"{name} ({', '.join(words)})" if words else str(name)


def counted(count: int, one: str, more: str) -> str:
    """Return a number with its word: `1 ref`, `2 refs`."""
    return f"{cli_tables.amount(count)} {one if count == 1 else more}"


def home_rows(homes: Sequence[Data]) -> list[dict[str, Any]]:
    """Return what each home keeps as a table shows it, and all of them together."""
    keys = ("objects", "size_bytes", "copies", "copies_bytes")
    rows = [{"name": home["name"], **{key: home[key] for key in keys}} for home in homes]
    rows.sort(key=lambda row: -row["size_bytes"])
    if len(rows) > 1:
        rows.append({"name": ALL, **{key: sum(row[key] for row in rows) for key in keys}})
    return [
        {
            "home": row["name"],
            "objects": row["objects"],
            "size": cli_tables.size(row["size_bytes"]),
            "copies": row["copies"] or None,
            "copies_size": cli_tables.size(row["copies_bytes"]) if row["copies"] else "",
        }
        for row in rows
    ]


def notes(answer: Data) -> list[str]:
    """Return what is not in the tables, a line each."""
    lines = []
    if answer["left_out"]:
        more = counted(answer["left_out"], "object is", "objects are")
        lines.append(f"{more} left out, none of them larger; more with --limit")
    for home in answer["homes"]:
        if home["unseen"]:
            more = counted(home["unseen"], "object", "objects")
            lines.append(f"{cli_tables.plain(home['name'])} has {more} more, not looked at")
    for silent in answer["silent"]:
        name = cli_tables.plain(silent["name"])
        lines.append(f"{name} {silent['why']}: what it keeps is not told of")
    if answer["not_asked"]:
        more = counted(answer["not_asked"], "program or node was", "programs and nodes were")
        lines.append(f"{more} not asked: there are too many")
    return lines
