"""When the program is told that there is no connection to the scheduler, and in what words.

Never decides about work: that is kept, and told again, whatever is said here. Knows no clock.
"""

from typing import Final, Self

from ..protocol.settings import Settings

#: it is said again when it has lasted so many times as long
AGAIN: Final = 10
#: nobody is left for longer without a word why there is no connection yet
WAITS_S: Final = 5.0


def in_words(endpoint: str) -> str:
    """Return where a scheduler is, for people: the directory of a local one, or HOST:PORT."""
    scheme, _, place = endpoint.partition("://")
    return place.rpartition("/")[0] if scheme == "ipc" else place


class Absence:
    """Whether the scheduler is away, since when, and what has been said of that.

    Args:
        where: where it is, for people.
        notice_s: away for so long, it is said.
        waits_s: who waits no longer than a few seconds for the first connection is told then.
    """

    __slots__ = ("_due_s", "_notice_s", "_reason", "_since_s", "_waits", "_where")

    def __init__(self, where: str, notice_s: float, waits_s: float = 0.0) -> None:
        self._where = where
        #: there was no connection yet, and why is still to be said
        self._waits = waits_s > WAITS_S
        self._notice_s = notice_s
        #: None: it is there, or never was
        self._since_s: float | None = None
        self._due_s = 0.0
        self._reason = ""

    @classmethod
    def of(cls, endpoint: str, settings: Settings) -> Self:
        """Return what to say to a program that connects to an endpoint."""
        return cls(in_words(endpoint), settings.no_scheduler_notice_s, settings.connect_timeout_s)

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
        if since_s is None and self._waits and self._reason:
            self._waits = False
            return (
                f"cannot reach the scheduler at {self._where}: {self._reason}; it is tried again "
                "until connect_timeout_s are over"
            )
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
        self._waits, self._reason = False, ""
        if since_s is None or self._due_s <= since_s + self._notice_s:
            return ""
        return f"the scheduler at {self._where} is back after {now_s - since_s:.0f} s"
