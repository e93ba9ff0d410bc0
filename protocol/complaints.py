"""Lines about what others did wrong: so many in a while, the rest only counted.

Never writes: a peer that sends nonsense without end must not fill the log that tells of it.
"""

from typing import Final

LINES_MAX: Final = 20
WITHIN_S: Final = 60.0


class Complaints:
    """Hands back the lines that are to be written."""

    __slots__ = ("_left", "_since_s", "_withheld")

    def __init__(self) -> None:
        self._since_s = float("-inf")
        self._left = LINES_MAX
        self._withheld = 0

    def lines(self, line: str, at_s: float) -> list[str]:
        """Return what is to be written now: the line, nothing, or what was withheld as well."""
        told: list[str] = []
        if at_s >= self._since_s + WITHIN_S:
            if self._withheld:
                told.append(f"({self._withheld} more lines of this sort were left out)")
            self._since_s, self._left, self._withheld = at_s, LINES_MAX, 0
        if not self._left:
            self._withheld += 1
            return told
        self._left -= 1
        told.append(line)
        return told
