"""Pairs large payloads with the rows that name them, whichever comes first.

Never keeps one for nobody: rows and payloads of one key are paired in the order in which each came,
so a row that has been dropped meanwhile still takes its payload with it.
"""

from typing import Generic, TypeVar

Consumer = TypeVar("Consumer")


class Arrivals(Generic[Consumer]):
    """Payloads that came before their rows, and rows whose payloads are to come."""

    def __init__(self) -> None:
        self._early: dict[bytes, list[bytes]] = {}
        self._awaited: dict[bytes, list[Consumer]] = {}

    def expect(self, key: bytes, consumer: Consumer) -> bytes | None:
        """Return the payload for a row if it came early; else the row waits for it."""
        early = self._early.get(key)
        if early is None:
            self._awaited.setdefault(key, []).append(consumer)
            return None
        payload = early.pop(0)
        if not early:
            del self._early[key]
        return payload

    def arrived(self, key: bytes, payload: bytes) -> Consumer | None:
        """Return the row that waited for a payload; None: it is kept until its row comes."""
        awaited = self._awaited.get(key)
        if awaited is None:
            self._early.setdefault(key, []).append(payload)
            return None
        consumer = awaited.pop(0)
        if not awaited:
            del self._awaited[key]
        return consumer

    def clear(self) -> None:
        """The link's life is over."""
        self._early.clear()
        self._awaited.clear()

    def count(self) -> int:
        """Return how many keys are unpaired."""
        return len(self._early) + len(self._awaited)

    def consumers(self) -> list[Consumer]:
        """Return the rows that wait, in no particular order."""
        return [consumer for waiting in self._awaited.values() for consumer in waiting]
