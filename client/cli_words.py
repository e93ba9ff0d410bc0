"""What commands share: how they refuse and show tables, their exit codes, examples in help.

Never talks to a cluster.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import click

from . import cli_tables

FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_CLUSTER: Final = 3


def refuse(text: str, code: int) -> NoReturn:
    """Say in one line what is wrong, and exit."""
    click.echo(f"drumbeat: {text}", err=True)
    sys.exit(code)


def print_json(data: Any) -> None:
    """Print plain data as JSON; ids that are bytes as hexadecimal digits."""
    click.echo(json.dumps(data, indent=2, default=lambda value: value.hex()))


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print a table that fits the terminal; say what did not."""
    table = cli_tables.rows_table(rows, columns, cli_tables.terminal_width())
    cli_tables.show(table)
    left_out = len({key for row in rows for key in row}) - len(table.columns)
    if left_out > 0:
        click.echo(f"{left_out} columns are empty or did not fit; --json shows all", err=True)


def examples(*lines: str) -> str:
    """Return the end of a command's help; the marker keeps click from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
