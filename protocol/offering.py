"""What is offered to peers that have not got it yet: until when, and to whom again.

Never says a word, never the clock. An offer whose connection was lost is made again.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from .moving_words import Source

#: an offer whose connection was lost is made again after
AGAIN_S: Final = 0.5


class Offering:
    """See the module.

    Args:
        silence_s: an offer of which nothing is heard for so long is forgotten.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        # Until when an offer stands if nothing is heard of it, and who is dialled anew when.
        self._until_s: dict[Source, dict[bytes, float]] = {}
        self._again_s: dict[Source, float] = {}

    def add(self, to: Source, key: bytes, now_s: float) -> None:
        """Offer a payload to somebody."""
        self._until_s.setdefault(to, {})[key] = now_s + self._silence_s

    def keep(self, to: Source, key: bytes, now_s: float) -> None:
        """Something was heard of it."""
        if key in self._until_s.get(to, ()):
            self._until_s[to][key] = now_s + self._silence_s

    def drop(self, to: Source, key: bytes) -> None:
        """It is offered to them no more."""
        offers = self._until_s.get(to)
        if offers is not None and offers.pop(key, None) is not None and not offers:
            del self._until_s[to]
            self._again_s.pop(to, None)

    def forget(self, key: bytes) -> None:
        """It is offered to nobody any more."""
        for to in [to for to, offers in self._until_s.items() if key in offers]:
            self.drop(to, key)

    def lost(self, to: Source, now_s: float) -> None:
        """A connection to somebody has ended."""
        if to in self._until_s:
            self._again_s[to] = now_s + AGAIN_S

    def to(self, to: Source) -> Iterable[bytes]:
        """Return what is offered to somebody."""
        return self._until_s.get(to, ())

    def time_passed(self, now_s: float) -> list[Source]:
        """Forget what nothing was heard of; return to whom offers are to be made again."""
        for to, offers in list(self._until_s.items()):
            for key in [key for key, until_s in offers.items() if now_s >= until_s]:
                self.drop(to, key)
        again = [to for to, at_s in self._again_s.items() if now_s >= at_s]
        for to in again:
            del self._again_s[to]
        return again

    def due_s(self) -> Iterator[float]:
        """Yield when time has to be told of."""
        yield from self._again_s.values()
        for offers in self._until_s.values():
            yield from offers.values()

    def __contains__(self, to: object) -> bool:
        """Whether anything is offered to somebody."""
        return to in self._until_s

    def __bool__(self) -> bool:
        """Whether anything is offered to anybody."""
        return bool(self._until_s)

    def check_invariants(self) -> None:
        """Assert that all records agree: for tests."""
        assert self._again_s.keys() <= self._until_s.keys()
        assert all(self._until_s.values())
