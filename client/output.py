"""What workers print, as the user sees it: whole lines, each saying which task, process and node.

Never passes on a control character that could move the user's cursor or change the terminal.
"""

from collections.abc import Iterable
from typing import Final

from ..protocol.messages import OutputRow

#: an unfinished line is shown in pieces when it grows beyond this
LINE_CHARACTERS_MAX: Final = 16_384

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
