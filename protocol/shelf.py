"""The payloads at hand of one that moves them: those given to it, and those that come.

Never knows whom they go to. What has come is only lent: it is at hand for others as long as whoever
wanted it keeps it.
"""

import errno
from collections import deque
from collections.abc import Callable
from weakref import ref

from .landing import Landing
from .payload_files import may_be_file


class Shelf:
    """See the module. All is for one thread, but that payloads are let go in any.

    Args:
        wake: called when `let_go` has something to tell; amid anything.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._given: dict[bytes, bytes] = {}
        self._landings: dict[bytes, Landing] = {}
        # What has come, as long as others keep it; and what they keep no more. The latter is
        # appended amid anything.
        self._lent: dict[bytes, ref[bytes]] = {}
        self._gone: deque[tuple[bytes, ref[bytes]]] = deque()

    def __len__(self) -> int:
        """How many it keeps itself."""
        return len(self._given)

    def give(self, key: bytes, payload: bytes) -> None:
        """Keep a payload."""
        self._given[key] = payload

    def read(self, key: bytes, offset: int, length: int) -> memoryview:
        """Return some of a payload that is here as far as that; it stays what it is.

        Raises:
            OSError, KeyError: it is not.
        """
        payload = self._whole(key)
        if payload is not None:
            return memoryview(payload)[offset : offset + length]
        return self._landings[key].read(offset, length)

    def write(self, key: bytes, size: int, data: memoryview) -> None:
        """Keep what comes next of a payload of that size.

        Raises:
            OSError, MemoryError: there is no room.
        """
        landing = self._landings.get(key)
        if landing is None:
            landing = self._landings[key] = Landing(size)
        landing.write(data)

    def finish(self, key: bytes) -> tuple[bytes, bool]:
        """Return a payload of which all has come, and whether it goes on being at hand.

        Raises:
            OSError, MemoryError: there is no room.
        """
        payload = self._whole(key)
        if payload is not None:
            return payload, True
        landing = self._landings.pop(key, None)
        if landing is None and key in self._lent:
            raise OSError(errno.ENOENT, "it has just been let go")
        payload = landing.finish() if landing is not None else b""
        if not may_be_file(payload):
            return payload, False
        gone, wake = self._gone, self._wake

        def let_go(lent: "ref[bytes]") -> None:
            gone.append((key, lent))
            wake()

        self._lent[key] = ref(payload, let_go)
        return payload, True

    def let_go(self) -> list[bytes]:
        """Return what is at hand no more since last asked."""
        keys = []
        while self._gone:
            key, lent = self._gone.popleft()
            if self._lent.get(key) is lent:
                keys.append(key)
        return keys

    @property
    def has_let_go(self) -> bool:
        """Whether `let_go` may have something to tell."""
        return bool(self._gone)

    def drop(self, key: bytes) -> None:
        """Keep nothing of a payload."""
        self._given.pop(key, None)
        self._lent.pop(key, None)
        landing = self._landings.pop(key, None)
        if landing is not None:
            landing.drop()

    def clear(self) -> None:
        """Keep nothing."""
        for landing in self._landings.values():
            landing.drop()
        self._landings.clear()
        self._given.clear()
        self._lent.clear()

    def _whole(self, key: bytes) -> bytes | None:
        payload = self._given.get(key)
        if payload is None and (lent := self._lent.get(key)) is not None:
            payload = lent()
        return payload
