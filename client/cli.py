"""Where `drumbeat` begins: Ctrl-C in its first moments is one line, no traceback.

Never loads anything before that is so. The commands are in cli_commands.py.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..protocol import interrupts

if TYPE_CHECKING:
    from ..protocol.session import Session


def main(
    arguments: Sequence[str] | None = None,
    connect: "Callable[[str | None], AbstractContextManager[Session]] | None" = None,
) -> None:
    """Run the command line; an error becomes one line and an exit code."""
    interrupts.leave_at_once()
    from . import cli_commands

    try:
        cli_commands.main(arguments, connect)
    except KeyboardInterrupt:
        interrupts.say_and_exit()


if __name__ == "__main__":
    main()
