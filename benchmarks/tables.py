"""Tables on the terminal, as wide as they are where nobody looks at a terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

#: of a table in a file or a pipe
WIDE = 220


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 0) -> None:
    """Print rows of text under their heads.

    Args:
        heads: the columns' names.
        rows: their cells.
        left: so many columns hold words and stand to the left.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, head in enumerate(heads):
        table.add_column(head, justify="left" if number < left else "right")
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console = Console(width=WIDE, markup=False, highlight=False)
    console.print(table)


def tell(text: str) -> None:
    """Show what is being done, on one line that is written over, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)
