"""Which peers could not be reached of late: nobody waits for one again with each payload.

Never decides what is done instead; never the clock.
"""

from typing import Final

from .moving_words import Source

#: for so long a peer that could not be reached is left alone
UNREACHED_S: Final = 30.0
#: what has cost less is tried again each time
WAITED_S: Final = 0.5
#: peers that are remembered
UNREACHED_MAX: Final = 1024


class Unreached:
    """See the module."""

    def __init__(self) -> None:
        # By the peer and where it listens; until when.
        self._until_s: dict[tuple[bytes, str], float] = {}

    def note(self, source: Source, since_s: float, now_s: float) -> None:
        """Remember one that was waited for in vain, if that took long.

        Args:
            source: who.
            since_s: since when.
            now_s: the time.
        """
        if now_s < since_s + WAITED_S:
            return
        name = source.peer, source.endpoint
        self._until_s.pop(name, None)
        self._until_s[name] = now_s + UNREACHED_S
        if len(self._until_s) > UNREACHED_MAX:
            del self._until_s[next(iter(self._until_s))]

    def reached(self, peer: bytes, endpoint: str) -> None:
        """It can be reached after all.

        Args:
            peer: its id.
            endpoint: where it listens; "": it has come by itself.
        """
        self._until_s.pop((peer, endpoint), None)

    def has(self, source: Source, now_s: float) -> bool:
        """Return whether one is better left alone."""
        return now_s < self._until_s.get((source.peer, source.endpoint), now_s)
