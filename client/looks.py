"""How long a thread that begins to wait looks before it sleeps: as long as looking pays.

Never looks itself, and knows no clock. A look that finds nothing takes time from those that are
waited for, where they have no processor of their own.
"""

from typing import Final

#: a look in vain weighs as much as so many that pay
VAIN: Final = 2
#: with so much in vain, most waits go by without a look
ENOUGH: Final = 8
#: more than that is not remembered, so that better times are seen soon
MOST: Final = 16
#: so many waits go by before looking is tried again
PAUSE: Final = 63


class Looks:
    """Grants looks to one wait after the other.

    Args:
        look_s: what a wait is granted; 0: nobody ever looks.
    """

    __slots__ = ("_in_vain", "_look_s", "_pause")

    def __init__(self, look_s: float) -> None:
        self._look_s = look_s
        self._in_vain = 0
        #: so many waits are granted nothing
        self._pause = 0

    def grant(self) -> float:
        """Return for how many seconds the wait that begins may look."""
        if self._pause:
            self._pause -= 1
            return 0.0
        return self._look_s

    def told(self, *, paid: bool) -> None:
        """Take note of what came of looking: news, or sleep after all."""
        in_vain = self._in_vain - 1 if paid else self._in_vain + VAIN
        self._in_vain = in_vain = min(max(in_vain, 0), MOST)
        if in_vain >= ENOUGH:
            self._pause = PAUSE
