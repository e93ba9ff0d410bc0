"""Which refs live in a worker: counted here, told to the node as they come and go.

Never takes a lock where a ref comes or goes: that happens inside the garbage collector too. Changes
gather in a queue; counting is done when something is sent, by the one thread that sends.
"""

from collections import deque
from typing import Final

from ..protocol.ids import ObjectId
from ..protocol.messages import ValueRow
from .packets import Refs

HOLD: Final = 1
DROP: Final = -1
#: the first ref to something made here: the node counts it by itself
OWN: Final = 2


class Held:
    """The refs of one worker, and the values it has seen of them."""

    def __init__(self) -> None:
        #: (id, HOLD, DROP or OWN), appended by any thread
        self.changes: deque[tuple[ObjectId, int]] = deque()
        #: values at hand; kept while their refs live
        self.values: dict[ObjectId, ValueRow] = {}
        #: of these, what may have come for nobody, appended by any thread
        self.seen: deque[ObjectId] = deque()
        self._counts: dict[ObjectId, int] = {}
        #: the node knows that we hold these
        self._told: dict[ObjectId, None] = {}
        self._came: dict[ObjectId, None] = {}
        self._went: dict[ObjectId, None] = {}

    @property
    def changed(self) -> bool:
        """Whether there may be something to report."""
        return bool(self.changes or self.seen or self._went or self._came)

    def report_held(self) -> list[bytes]:
        """Return the refs that live here and of which the node does not know yet."""
        self._count()
        held: list[bytes] = list(self._came)
        self._told.update(self._came)
        self._came = {}
        return held

    def gone(self) -> list[ObjectId]:
        """Return what has gone for good by now, to be told after all that was left before that."""
        self._count()
        return list(self._went)

    def report(self, gone: list[ObjectId] | None = None) -> Refs | None:
        """Return what the node does not know yet: what came, what went for good.

        Args:
            gone: of what went only this, as far as it has not come again; None: all.
        """
        if gone is None:
            gone = self.gone()
        self._count()
        dropped: list[bytes] = [id_ for id_ in gone if self._went.pop(id_, self) is None]
        if not self._came and not dropped:
            return None
        return Refs(self.report_held(), dropped)

    def _count(self) -> None:
        changes, counts = self.changes, self._counts
        while changes:
            id_, change = changes.popleft()
            count = counts.get(id_, 0) + (1 if change == OWN else change)
            if count > 0:
                counts[id_] = count
                if change == OWN:
                    self._told[id_] = None
                elif id_ in self._went:
                    del self._went[id_]
                    self._told[id_] = None
                elif id_ not in self._told:
                    self._came[id_] = None
            else:
                counts.pop(id_, None)
                self.values.pop(id_, None)
                self._came.pop(id_, None)
                if id_ in self._told:
                    del self._told[id_]
                    self._went[id_] = None
        while self.seen:
            id_ = self.seen.popleft()
            if id_ not in counts:
                self.values.pop(id_, None)
