"""`drumbeat events`: what the scheduler saw and did, and with --follow what it does.

Never trusts text: names come from anybody's program.
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

import click

from ..protocol.questions import Query
from ..protocol.session import Session
from . import cli_tables
from .cli_words import FAILED, examples, print_json, refuse

#: with --follow it is asked this often
LOOK_S: Final = 0.5
#: events in one answer
ROWS_MAX: Final = 1_000

Connect = Callable[[str | None], AbstractContextManager[Session]]


class AskingSession(Protocol):
    """What a session can do besides that tasks have no use for."""

    def answer_to(self, message: Query) -> Any:
        """Return what the scheduler answers to a question."""


@click.command(
    epilog=examples(
        "drumbeat events",
        "drumbeat events --follow",
        "drumbeat events warning --limit 20",
        "drumbeat events node --json",
        "drumbeat events --follow --json | jq .text",
    )
)
@click.pass_obj
@click.option("--follow", "-f", is_flag=True, help="Go on and print what happens, until Ctrl-C.")
@click.option(
    "--limit",
    type=click.IntRange(0, 100_000),
    default=100,
    show_default=True,
    help="The last ones.",
)
@click.argument("match", default="")
def events(
    connect: Connect,
    address: str | None,
    json_wanted: bool,
    follow: bool,
    limit: int,
    match: str,
) -> None:
    """Print what the scheduler saw and did of late: nodes, deaths, verdicts, orders.

    MATCH keeps events whose kind, severity (info, warning, error), node or id begins so. Tasks that
    simply end are no events. With --json one array; with --follow too, one object a line.
    """
    with connect(address) as session:
        ask = cast("AskingSession", session).answer_to
        try:
            _print(ask, match, limit, json_wanted=json_wanted, follow=follow)
        except KeyboardInterrupt:  # how everybody ends what would go on for ever
            if not follow:
                raise


def _print(
    ask: Callable[[Query], Any], match: str, limit: int, *, json_wanted: bool, follow: bool
) -> None:
    answer = latest(ask, match, limit)
    rows = [in_time(row) for row in answer["events"]]
    if json_wanted and not follow:
        print_json(rows)
        return
    for row in rows:
        show(row, json_wanted)
    if follow:
        go_on(ask, match, answer, json_wanted)
    elif not rows:
        which = f" like {cli_tables.plain(match)!r}" if match else ""
        click.echo(f"no event{which}", err=True)


def latest(ask: Callable[[Query], Any], match: str, limit: int) -> Any:
    """Return the last events, and where they end."""
    answer = _asked(ask, Query(0, "events", max(1, limit), match))
    rows = answer["events"]
    if rows and len(rows) < limit and rows[0]["number"] > answer["first"]:
        # Older ones may have had no room in the answer: from the oldest on, one after the other.
        rows, since = [], answer["first"]
        while True:
            answer = _asked(ask, Query(0, "events", ROWS_MAX, match, since))
            rows += answer["events"]
            if answer["last"] < since:
                break
            since = answer["last"] + 1
    return {**answer, "events": rows[-limit:] if limit else []}


def go_on(
    ask: Callable[[Query], Any],
    match: str,
    answer: Mapping[str, Any],
    json_wanted: bool,
    pause: Callable[[float], Any] = time.sleep,
) -> None:
    """Print what happens, until somebody ends this."""
    epoch, since = answer["epoch"], answer["last"] + 1
    while True:
        pause(LOOK_S)
        answer = _asked(ask, Query(0, "events", ROWS_MAX, match, since))
        if answer["epoch"] != epoch:
            click.echo(f"the scheduler was restarted: epoch {answer['epoch']}", err=True)
            epoch, since = answer["epoch"], 1
            answer = _asked(ask, Query(0, "events", ROWS_MAX, match, since))
        if answer["first"] > since > 1:
            text = f"{answer['first'] - since:,} events came faster than they could be shown"
            click.echo(text, err=True)
        for row in answer["events"]:
            show(in_time(row), json_wanted)
        since = answer["last"] + 1


def _asked(ask: Callable[[Query], Any], query: Query) -> Any:
    answer = ask(query)
    if "error" in answer:
        refuse(cli_tables.plain(answer["error"]), FAILED)
    return answer


def in_time(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event with its time as text as well, in UTC."""
    at_s = row["time_s"]
    text = None
    if at_s is not None:
        text = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")
        text = text.replace("+00:00", "Z")
    return {"number": row["number"], "time": text, **row}


def show(row: Mapping[str, Any], json_wanted: bool) -> None:
    """Print one event, in one line."""
    if json_wanted:
        click.echo(json.dumps(row))
        return
    at_s = row["time_s"]
    at = "" if at_s is None else datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")
    severity = cli_tables.plain(row["severity"])
    text = f"{at}  {severity:<7}  {cli_tables.plain(row['kind']):<14}  "
    colour = {"warning": "yellow", "error": "red"}.get(severity)
    click.secho(text + cli_tables.plain(row["text"]), fg=colour)
