"""What all commands share: how they refuse, their exit codes, the examples in their help.

Never talks to a cluster.
"""

import sys
from typing import Final, NoReturn

import click

FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_CLUSTER: Final = 3


def refuse(text: str, code: int) -> NoReturn:
    """Say in one line what is wrong, and exit."""
    click.echo(f"drumbeat: {text}", err=True)
    sys.exit(code)


def examples(*lines: str) -> str:
    """Return the end of a command's help; the marker keeps click from joining the lines."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
