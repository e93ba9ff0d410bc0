"""The last state that each actor has told, from which its next incarnation begins.

Never opens one, never keeps more of an actor than the newest, and never more of all than
checkpoints_bytes_max: what has no room is refused, and the older one is kept. What an actor's
process said after it told its state is taken in when that is here in whole: so whoever knows the
result of a call knows it of an actor that does not forget it, and an incarnation that ended leaves
all it told.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from ..protocol.checkpoints import (
    CHECKPOINT,
    Checkpoint,
    CheckpointRow,
    CheckpointsGone,
    CheckpointsKept,
)
from ..protocol.ids import PeerId, TaskId, show
from ..protocol.messages import AssignRow, Outcome, ValueRow
from .chronicle import WARNING
from .tasks import FINISHED, TaskRecord, failed

if TYPE_CHECKING:
    from .state import Node, State

#: higher than any incarnation
_ALL: Final = 1 << 60
Then = Callable[[], None]


class Saved:
    """The newest checkpoint of an actor."""

    __slots__ = ("at", "holders", "payload")

    def __init__(self, at: tuple[int, int], payload: bytes) -> None:
        #: incarnation and number
        self.at = at
        self.payload = payload
        #: nodes that keep one of it
        self.holders: dict[PeerId, None] = {}


class Arriving:
    """Large checkpoints of one actor that a node has announced."""

    __slots__ = ("count", "waiting")

    def __init__(self) -> None:
        self.count = 0
        #: what was said after them
        self.waiting: list[Then] = []


class Checkpoints:
    """See the module.

    Args:
        state: shared.
    """

    __slots__ = ("_saved", "_state", "arriving", "bytes", "refused")

    def __init__(self, state: "State") -> None:
        self._state = state
        self._saved: dict[bytes, Saved] = {}
        #: of all that are kept
        self.bytes = 0
        #: actors the newest of which had no room, and why, for people
        self.refused: dict[bytes, str] = {}
        #: by actor, and by the node that sends it: large ones that are not here yet
        self.arriving: dict[bytes, dict[PeerId, Arriving]] = {}

    # ---------------------------------------------------------------------------------- they come

    def came(self, node: "Node", message: Checkpoint) -> None:
        """Actors of a node have told what they are."""
        kept: list[tuple[bytes, int, int]] = []
        for row in message.rows:
            if row.payload is not None:
                # The node lets go of those before it; before one with number 0 there is none.
                if self._whole(node, row, row.payload) and row.number:
                    kept.append((row.id, row.incarnation, row.number))
                continue
            nodes = self.arriving.setdefault(row.id, {})
            nodes.setdefault(node.id, Arriving()).count += 1
            node.peer.expect(row.id + CHECKPOINT, partial(self._arrived, node, row))
        if kept:
            self._state.out.letter(node.id, CheckpointsKept(kept))

    def _arrived(self, node: "Node", row: CheckpointRow, payload: bytes) -> None:
        self._whole(node, row, payload)
        kept = CheckpointsKept([(row.id, row.incarnation, row.number)])
        self._state.out.letter(node.id, kept)
        nodes = self.arriving.get(row.id, {})
        arriving = nodes.get(node.id)
        if arriving is None:
            return
        arriving.count -= 1
        if arriving.count:
            return
        del nodes[node.id]
        if not nodes:
            del self.arriving[row.id]
        for then in arriving.waiting:
            then()

    def after(self, actor: bytes, node: "Node", then: Then) -> bool:
        """Have something wait for what an actor told before; False: it need not."""
        nodes = self.arriving.get(actor)
        arriving = None if nodes is None else nodes.get(node.id)
        if arriving is None:
            return False
        arriving.waiting.append(then)
        return True

    def _whole(self, node: "Node", row: CheckpointRow, payload: bytes) -> bool:
        """Take one in; return whether it, or a newer one, is kept."""
        if not self._is_wanted(node, row):
            self._state.counters["stale_dropped"] += 1
            self._gone(node.id, row.id, row.incarnation)
            return False
        saved, at = self._saved.get(row.id), (row.incarnation, row.number)
        if saved is None or at > saved.at:
            more_bytes = len(payload) - (0 if saved is None else len(saved.payload))
            if self.bytes + more_bytes > self._state.settings.checkpoints_bytes_max:
                self._refuse(node, row, payload)
                return False
            self.bytes += more_bytes
            self.refused.pop(row.id, None)
        if saved is None:
            saved = self._saved[row.id] = Saved(at, payload)
        elif at > saved.at:
            saved.at, saved.payload = at, payload
        saved.holders[node.id] = None
        return True

    def _refuse(self, node: "Node", row: CheckpointRow, payload: bytes) -> None:
        """A checkpoint has no room; the last one that had is kept."""
        state = self._state
        state.counters["checkpoints_refused"] += 1
        last = "an older one is kept" if row.id in self._saved else "there is none before it"
        text = (
            f"its checkpoint of {len(payload)} bytes has no room: the scheduler keeps {self.bytes} "
            f"bytes of checkpoints, and may keep {state.settings.checkpoints_bytes_max} "
            f"(checkpoints_bytes_max); {last}"
        )
        if row.id not in self.refused:
            about = f"actor {show(TaskId(row.id))}: {text}. Told once, until one has room"
            state.tell(about, "checkpoint refused", WARNING, node.name, row.id)
        self.refused[row.id] = text
        if state.out.is_here(node.id):
            at = row.id, row.incarnation, row.number
            state.out.letter(node.id, CheckpointsGone([], [at]))

    def told_of(self, record: TaskRecord, values: list[ValueRow]) -> list[ValueRow]:
        """Return what is told of a call that has ended, given what became of its actor's state.

        Whose every call is to be saved is not answered with what may be lost.
        """
        actor, host = record.kind.options.actor, record.kind.host
        why = self.refused.get(actor)
        if why is None or host is None or host.record is None or len(values) == 0:
            return values
        creates = host.record.kind.options.creates
        if creates is None or creates.checkpoint_every_calls != 1:
            return values
        if values[0].outcome == Outcome.FAILURE:
            return values
        row = failed(record, "CheckpointFailed", f"{record.kind.name} has run, but {why}")
        assert row.failure is not None
        row.failure.details |= {
            "actor": show(TaskId(actor)),
            "incarnation": host.record.attempt,
            "attempt": record.attempt,
        }
        return [row]

    def _is_wanted(self, node: "Node", row: CheckpointRow) -> bool:
        actor = self._state.hosts.known.get(TaskId(row.id))
        record = None if actor is None else actor.record
        is_open = self._state.claims.open
        if record is None:
            # Whoever created it may have yet to come back.
            return is_open and (actor is None or actor.over is None)
        if record.state == FINISHED:
            return False
        if record.attempt == row.incarnation and record.node is node:
            return True
        # A node that had it when this scheduler began; nobody knows a newer one.
        return is_open and row.incarnation <= record.attempt

    # ------------------------------------------------------------------------------- they are used

    def of(self, actor: bytes) -> Saved | None:
        """Return the newest of an actor."""
        return self._saved.get(actor)

    def assigned(self, node: "Node", record: TaskRecord) -> AssignRow | None:
        """Return a creation that goes to a node, if it begins with what the last one told."""
        saved = self._saved.get(record.id)
        if saved is None:
            return None
        saved.holders[node.id] = None
        # Its constructor is not called: what that would be given does not go along.
        row = AssignRow(
            record.id,
            record.attempt,
            record.kind.number,
            record.order,
            record.depth,
            record.expected_s,
        )
        if len(saved.payload) <= self._state.settings.inline_bytes_max:
            row.checkpoint = saved.payload
        else:
            row.checkpoint_size = len(saved.payload)
            self._state.out.blob(node.id, record.id + CHECKPOINT, saved.payload)
        return row

    def up(self, actor: bytes, node: PeerId, incarnation: int) -> None:
        """An incarnation lives, and its node has what it was made of: no other needs to."""
        saved = self._saved.get(actor)
        if saved is None:
            return
        for holder in saved.holders:
            if holder != node:
                self._gone(holder, actor, incarnation - 1)
        saved.holders = {node: None} if node in saved.holders else {}

    # ----------------------------------------------------------------------------- and they are not

    def over(self, actor: bytes) -> None:
        """An actor has ended for good."""
        self.refused.pop(actor, None)
        saved = self._saved.pop(actor, None)
        if saved is not None:
            self.bytes -= len(saved.payload)
            for holder in saved.holders:
                self._gone(holder, actor, _ALL)

    def _gone(self, holder: PeerId, actor: bytes, incarnation: int) -> None:
        if self._state.out.is_here(holder):
            self._state.out.letter(holder, CheckpointsGone([(actor, incarnation)]))

    def forget_peer(self, peer: PeerId) -> None:
        """A node is gone, with what it was about to tell."""
        for saved in self._saved.values():
            saved.holders.pop(peer, None)
        for id_, nodes in list(self.arriving.items()):
            nodes.pop(peer, None)
            if not nodes:
                del self.arriving[id_]

    def end_of_absence(self) -> None:
        """Whoever has not named an actor by now will not."""
        known = self._state.hosts.known
        for id_ in {**self._saved, **self.refused}:
            actor = known.get(TaskId(id_))
            if actor is None or actor.record is None:
                self.over(id_)

    # -------------------------------------------------------------------------------------- insight

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {
            "checkpoints": len(self._saved),
            "checkpoints_arriving": len(self.arriving),
            "checkpoints_refused": len(self.refused),
        }

    def told(self) -> dict[str, int]:
        """Return for people how many there are, and what they take."""
        return {
            "kept": len(self._saved),
            "bytes": self.bytes,
            "bytes_max": self._state.settings.checkpoints_bytes_max,
            "refused": self._state.counters["checkpoints_refused"],
        }
