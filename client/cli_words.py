"""What all commands share: how they refuse, their exit codes, the examples in their help.

Never talks to a cluster.
"""

import json
import sys
from typing import Any, Final, NoReturn

import click

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


def examples(*lines: str) -> str:
    """Return the end of a command's help; the marker keeps click from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
