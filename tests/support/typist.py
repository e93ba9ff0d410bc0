"""Types commands, with somebody in the scheduler's place, and reads what comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import pytest
from drumbeat.client import cli_commands

Answerer = TypeVar("Answerer")


class Typist(Generic[Answerer]):
    """See the module.

    Args:
        capsys: takes what is printed.
        session: answers whatever the commands ask.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str], session: Answerer) -> None:
        self.capsys = capsys
        self.session = session
        #: those that commands were to connect to
        self.addresses: list[str | None] = []
        #: raised instead of connecting
        self.trouble: Exception | None = None

    @contextmanager
    def connect(self, address: str | None) -> Iterator[Answerer]:
        """Connect a command."""
        self.addresses.append(address)
        if self.trouble:
            raise self.trouble
        yield self.session

    def type(self, line: str) -> tuple[int, str, str]:
        """Return exit code, output and errors of a command."""
        code = 0
        try:
            cli_commands.main(line.split(), self.connect)  # type: ignore[arg-type]  # see session
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        out, err = self.capsys.readouterr()
        return code, out, err
