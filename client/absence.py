"""When the program is told that there is no connection to the scheduler, and in what words.

Never decides about work: that is kept, and told again, whatever is said here. Knows no clock.
"""

from typing import Final

#: it is said again when it has lasted so many times as long
AGAIN: Final = 10


def in_words(endpoint: str) -> str:
    """Return where a scheduler is, for people: the directory of a local one, or HOST:PORT."""
    scheme, _, place = endpoint.partition("://")
    return place.rpartition("/")[0] if scheme == "ipc" else place


class Absence:
    """Whether the scheduler is away, since when, and what has been said of that.

    Args:
        where: where it is, for people.
        notice_s: away for so long, it is said.
    """

    __slots__ = ("_due_s", "_notice_s", "_reason", "_since_s", "_where")

    def __init__(self, where: str, notice_s: float) -> None:
        self._where = where
        self._notice_s = notice_s
        #: None: it is there, or never was
        self._since_s: float | None = None
        self._due_s = 0.0
        self._reason = ""

    def gone(self, now_s: float) -> None:
        """The connection has ended."""
        if self._since_s is None:
            self._since_s = now_s
            self._due_s = now_s + self._notice_s
            self._reason = ""

    def because(self, reason: str) -> None:
        """A connection could not be made."""
        self._reason = reason

    def words(self, now_s: float) -> str:
        """Return what is to be said now; "": nothing."""
        since_s = self._since_s
        if since_s is None or now_s < self._due_s:
            return ""
        self._due_s = since_s + AGAIN * (self._due_s - since_s)
        why = f" ({self._reason})" if self._reason else ""
        return (
            f"no connection to the scheduler at {self._where} for {now_s - since_s:.0f} s{why}; it "
            "is tried again and again, and what was submitted is kept until then"
        )

    def back(self, now_s: float) -> str:
        """The scheduler is there: return what is to be said if its absence was told of."""
        since_s, self._since_s = self._since_s, None
        if since_s is None or self._due_s <= since_s + self._notice_s:
            return ""
        return f"the scheduler at {self._where} is back after {now_s - since_s:.0f} s"
