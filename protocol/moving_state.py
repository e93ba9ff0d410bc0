"""What the core of data connections remembers of connections and of wanted payloads.

Nothing here may hold behaviour; protocol/moving.py does.
"""

from collections import deque
from collections.abc import Sequence

from .moving_words import Connection, Source
from .pace import Pace


class Link:
    """One connection."""

    __slots__ = ("connection", "gave_s", "is_up", "pace", "peer", "pulls", "source", "used_s")

    def __init__(
        self, connection: Connection, source: Source | None, now_s: float, pace: Pace
    ) -> None:
        self.connection = connection
        #: whom it was dialled to; None: it has come
        self.source = source
        #: by which id the other end goes; b"": it has not said
        self.peer = b""
        self.is_up = False
        #: what is pulled over it
        self.pulls: dict[bytes, None] = {}
        #: how much is asked for ahead
        self.pace = pace
        #: when some of what is pulled over it last came, or since when that could
        self.gave_s = now_s
        #: when a word last came or went
        self.used_s = now_s


class Wanted:
    """One payload that is wanted."""

    __slots__ = ("asked", "at", "begun_at", "key", "link", "reasons", "since_s", "size", "source",
                 "sources")  # fmt: skip

    def __init__(self, key: bytes, size: int, sources: Sequence[Source]) -> None:
        self.key = key
        self.size = size
        #: those that have not been tried, and those that may be tried again
        self.sources = deque(sources)
        self.source: Source | None = None
        self.link: Link | None = None
        #: bytes that have come
        self.at = 0
        #: of which so many had when this source was begun with
        self.begun_at = 0
        #: bytes that were asked for
        self.asked = 0
        #: since when this source has said nothing
        self.since_s = 0.0
        self.reasons: list[tuple[bytes, str]] = []
