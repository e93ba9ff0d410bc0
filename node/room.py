"""What memory and disk have room for of the values that a node keeps for its workers.

Never decides what is kept, and never copies a byte in the daemon's loop: what goes to disk is
written down by a thread (protocol/stowage.py), and this says how full it is, and lets workers put.
"""

from collections.abc import Callable
from itertools import groupby

from ..protocol.ids import ObjectId
from ..protocol.messages import ValueRow
from ..protocol.settings import Settings
from ..protocol.store import Store
from ..protocol.stowage import Fullness, Stowage
from .page import GRANTED
from .puts import AHEAD_BYTES_MAX


class Room:
    """See the module. One thread; `wake` is called by another.

    Args:
        settings: of this node.
        name: the node's, for people.
        write: writes a word into the slot of a worker.
        wake: ends the sleep of the loop, which then comes to `turn`.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        write: Callable[[int, int, int], None],
        wake: Callable[[], None],
    ) -> None:
        self._stowage = Stowage(Store.of(settings, is_trimmed=False), wake, f"node {name!r}")
        self._write = write
        #: worker -> how much it has put so far, where it has not been told that it may go on
        self._waiting: dict[int, int] = {}
        #: how full it is; None: there is room, as far as is known
        self.fullness: Fullness | None = None

    def admits(self, size: int) -> bool:
        """Return whether a value may come in from elsewhere now; see `Stowage`."""
        return self._stowage.admits(size)

    def stow(self, rows: list[tuple[ObjectId, ValueRow | None]]) -> None:
        """Count these from now on, and those no more that are None, in their order."""
        for are_gone, group in groupby(rows, lambda one: one[1] is None):
            if are_gone:
                self._stowage.forget([id_ for id_, _ in group])
            else:
                self._stowage.keep([(id_, row) for id_, row in group if row is not None])

    def brought(self, worker: int, size: int) -> None:
        """A worker has put so many bytes since it began."""
        self._waiting[worker] = size

    def turn(self) -> bool:
        """A turn of the loop ends; return whether `fullness` is to be told.

        It is for as long as it is not None: by values that came in it changes in between.
        """
        waiting, stowage = self._waiting, self._stowage
        for worker in list(waiting):
            # There is to be room for what it may put before it asks again.
            if not stowage.admits(AHEAD_BYTES_MAX):
                break
            self._write(worker, GRANTED, waiting.pop(worker))
        before, fullness = self.fullness, stowage.turn()
        if fullness is None and before is not None and stowage.is_exceeded:
            # The disk is tried again; but if that fails no more is to have come meanwhile.
            fullness = before._replace(room_bytes=0)
        self.fullness = fullness
        return fullness is not None or before is not None
