"""Large payloads whose holder has gone, though others need them: their homes have them.

Never keeps a payload. A result counts once its submitter has it, so the death of the node where it
was made costs nobody a value: whoever submitted the task is asked for it as for any other.
"""

from functools import partial

from ..protocol.absent import VOID
from ..protocol.ids import ObjectId, PeerId, home_of, task_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.remotes import Remote
from . import events
from .state import Peer, State


class Orphans:
    """All payloads for which homes were asked."""

    __slots__ = ("_asked", "_coming", "_state")

    def __init__(self, state: State) -> None:
        self._state = state
        self._asked: dict[ObjectId, list[Remote]] = {}
        #: the home has answered, and its payload is on its way
        self._coming: dict[ObjectId, list[Remote]] = {}

    def found(self, event: events.PayloadOrphaned) -> None:
        """Somebody needs a payload whose holder has gone."""
        orphan, state = event.payload, self._state
        id_ = ObjectId(orphan.key)
        home = home_of(id_)
        if home == orphan.holder.peer or not state.out.is_here(home):
            state.out.restore(orphan, None)
        elif (record := state.find(task_of(id_))) is not None:
            # Only who submitted it was to have it, of an attempt that is lost with its node. What
            # was yielded it has been told of, and waits for: that is to come again.
            is_told = record.kind.options.stream_buffer_max
            state.out.restore(orphan, None if is_told else VOID)
        elif id_ in self._asked:
            self._asked[id_].append(orphan)
        else:
            self._asked[id_] = [orphan]
            state.out.want(home, id_)

    def told(self, home: Peer, row: ValueRow) -> bool:
        """A home sends a value; return whether it was asked to for what was lost."""
        id_ = ObjectId(row.id)
        orphans = self._asked.pop(id_, None)
        if orphans is None:
            return False
        self._coming.setdefault(id_, []).extend(orphans)
        if row.payload is None and row.size:
            home.expect(row.id, partial(self._came, id_))
        else:
            # A failure: what was sent there came to nothing, and nobody else was to have it.
            self._came(id_, row.payload if row.outcome == Outcome.VALUE else VOID)
        return True

    def forget_home(self, home: PeerId) -> None:
        """A peer is gone: what it was asked for is lost."""
        for waiting in (self._asked, self._coming):
            for id_ in [id_ for id_ in waiting if home_of(id_) == home]:
                for orphan in waiting.pop(id_):
                    self._state.out.restore(orphan, None)

    def _came(self, id_: ObjectId, payload: bytes | None) -> None:
        for orphan in self._coming.pop(id_, ()):
            # Of what was yielded its home was told, and it may wait though the task is over.
            is_awaited = payload is VOID and orphan.is_told
            self._state.out.restore(orphan, None if is_awaited else payload)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"orphans": len(self._asked) + len(self._coming)}
