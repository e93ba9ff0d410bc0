"""Who has come to a listening socket, by descriptor, and how those ended who have gone.

Never a socket: what the monitor tells and what was read comes in here, counts come out. That a
connection was let in is told without its descriptor (docs/decisions.md, 45): of those who end
without a word it is counted, not known, how many had been let in.
"""

from typing import Final

#: stands for a descriptor
UNKNOWN: Final = -1


class Comers:
    """See the module."""

    __slots__ = ("_connected", "_entered", "_routes_at", "_silent", "_spoke", "unheard")

    def __init__(self) -> None:
        self._connected: dict[int, None] = {}
        # The routes that were seen on each descriptor; a number may have been used again.
        self._routes_at: dict[int, list[bytes]] = {}
        # Ended before a word of theirs was read, but for those that are counted elsewhere: not all
        # failures to speak ZeroMQ are told of as such.
        self._silent = 0
        self._entered = 0
        self._spoke = 0
        #: of the silent ones, those that had been let in
        self.unheard = 0

    def __len__(self) -> int:
        """How many connections there are, of whoever it may be."""
        return len(self._connected)

    @property
    def failed(self) -> int:
        """How many ended before they had been let in, none of them for the key."""
        return max(0, self._silent - self.unheard)

    @property
    def silent(self) -> int:
        """How many ended without a word: rises with each."""
        return self._silent

    def came(self, descriptor: int) -> None:
        """A connection was made."""
        self._connected[descriptor] = None

    def entered(self) -> None:
        """One of them was let in."""
        self._entered += 1

    def refused(self) -> None:
        """One that ends without a word is counted elsewhere: its key is to blame, say."""
        self._silent -= 1

    def spoke(self, descriptor: int, route: bytes) -> None:
        """The first word of a route was read, which came by a descriptor, if that is known."""
        self._spoke += 1
        self._routes_at.setdefault(descriptor, []).append(route)

    def descriptor_of(self, route: bytes) -> int:
        """Return by which descriptor a route's words come; or UNKNOWN."""
        for descriptor, routes in self._routes_at.items():
            if route in routes:
                return descriptor
        return UNKNOWN

    def gone(self, descriptor: int) -> list[bytes]:
        """A connection has ended: return the routes that may have ended with it."""
        self._connected.pop(descriptor, None)
        routes = self._routes_at.pop(descriptor, [])
        if not routes:
            self._silent += 1
            if self._entered > self._spoke + self.unheard:
                self.unheard += 1
        return routes + self._routes_at.pop(UNKNOWN, [])

    def settle(self) -> None:
        """All was told that there is to tell of those who have spoken: who has is not unheard."""
        self.unheard = min(self.unheard, max(0, self._entered - self._spoke))
