"""What workers print, as the user sees it: whole lines that say which task and node.

Never passes on a control character that could move the user's cursor or change the terminal.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from ..protocol.messages import AnyMessage, Notice, Output, OutputRow

#: an unfinished line is shown in pieces when it grows beyond this
LINE_CHARACTERS_MAX: Final = 16_384

#: how long the end waits for the program's streams to take what workers printed
LAST_WORDS_S: Final = 0.5

log = logging.getLogger("drumbeat")

_ESCAPES: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if number != 0x09
}


class Printer:
    """Makes lines of pieces."""

    def __init__(self) -> None:
        #: unfinished lines by (node, pid, task's name)
        self._begun: dict[tuple[str, int, str], str] = {}

    def take(self, rows: Iterable[OutputRow]) -> str:
        """Return the lines that are complete with these rows, ready to be written."""
        lines: list[str] = []
        for row in rows:
            key = (row.node, row.pid, row.name)
            prefix = prefix_of(key)
            if row.dropped:
                lines.append(f"{prefix} … {row.dropped:,} bytes of output were cut here …\n")
            text = self._begun.pop(key, "") + row.text.decode(errors="replace")
            *whole, rest = text.replace("\r\n", "\n").split("\n")
            lines += [f"{prefix} {clean(line)}\n" for line in whole]
            while len(rest) > LINE_CHARACTERS_MAX:
                lines.append(f"{prefix} {clean(rest[:LINE_CHARACTERS_MAX])}\n")
                rest = rest[LINE_CHARACTERS_MAX:]
            if rest:
                self._begun[key] = rest
        return "".join(lines)

    def rest(self) -> str:
        """Return the unfinished lines, at the end."""
        begun, self._begun = self._begun, {}
        return "".join(f"{prefix_of(key)} {clean(rest)}\n" for key, rest in begun.items())


def prefix_of(key: tuple[str, int, str]) -> str:
    """Return "(resize pid=41 node=lab3)"."""
    node, pid, name = key
    return f"({clean(name)} pid={pid} node={clean(node)})"


def clean(text: str) -> str:
    """Return the text with control characters, save the tab, written out."""
    if text.isprintable():
        return text
    # a progress bar returns to the line's start: what it showed last is what counts
    return text.rstrip("\r").rsplit("\r", 1)[-1].translate(_ESCAPES)


class Speaker:
    """Says what came from the cluster, in a thread of its own: streams may take any time."""

    def __init__(self) -> None:
        self._printer = Printer()
        self._spoke = False

    def say(self, message: AnyMessage) -> None:
        """Print Output, and log a Notice; returns at once."""
        if isinstance(message, Notice):
            self._say(log.warning, "%s", message.text)
        elif isinstance(message, Output):
            text = self._printer.take(message.rows)
            if text:
                self._say(write, text)

    def _say(self, say: Callable[..., Any], *words: str) -> None:
        from ..protocol.futures import deliver, start_delivery  # asyncio: not before it is needed

        self._spoke = True
        start_delivery()
        deliver(say, *words)

    def last_words(self) -> None:
        """Let what workers printed be shown before this program goes on to its end."""
        rest = self._printer.rest()
        if rest:
            self._say(write, rest)
        if self._spoke:
            from ..protocol.futures import deliver

            said = threading.Event()
            deliver(said.set)
            said.wait(LAST_WORDS_S)


def write(text: str) -> None:
    """Write what workers printed to where this program prints now."""
    stream = sys.stdout
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        pass  # closed: nobody reads it
