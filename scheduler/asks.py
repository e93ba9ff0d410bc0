"""Who waits to hear whether a task at a node had started when it was to be cancelled.

Never cancels anything. A node drops such a task only if it has not started; whoever asked is told
as soon as the task's end or a beat that names it shows what came of it, and "no" after a while.
"""

from collections import deque
from typing import Final

from ..protocol.ids import TaskId, home_of
from ..protocol.messages import Cancelled, StopMode
from .outbox import Outbox
from .state import Node, Peer
from .tasks import ASSIGNED, TaskRecord

#: an asker waits no longer
ASK_S: Final = 1.0
#: phase of a worker that has been given a task and has not taken it, as far as its node has seen:
#: that finds out when it is to drop it
_UNTOUCHED: Final = "idle"


def has_begun(node: Node, task: bytes) -> bool:
    """Whether a node has told that it runs a task, and not that it lies there untouched."""
    return any(row.id == task and row.phase != _UNTOUCHED for row in node.running)


class _Ask:
    """One Cancel with a request number, as long as its answer is not complete."""

    __slots__ = ("dropped", "due_s", "left", "peer", "request")

    def __init__(self, peer: Peer, request: int, dropped: list[bool | None], due_s: float) -> None:
        self.peer = peer
        self.request = request
        self.dropped = dropped
        self.due_s = due_s
        self.left = dropped.count(None)


class Asks:
    """All questions that are open."""

    __slots__ = ("_asks", "_out", "open")

    def __init__(self, out: Outbox) -> None:
        self._out = out
        #: in the order they are due; those that were answered lie on until then
        self._asks: deque[_Ask] = deque()
        #: by task: the questions, with the task's place in each
        self.open: dict[bytes, list[tuple[_Ask, int]]] = {}

    def may_drop(self, record: TaskRecord) -> bool:
        """Whether a task may lie unstarted at its node; then the node is told to drop it."""
        node, id_ = record.node, record.row.id
        if record.state != ASSIGNED or node is None or record.stopping or record.blocked:
            return False
        if record.attempt > 1 or has_begun(node, id_):
            return False
        if id_ not in self.open:
            self._out.stop(node.id, record.id, record.attempt, StopMode.UNSTARTED)
        return True

    def ask(
        self, peer: Peer, request: int, ids: list[bytes], dropped: list[bool | None], now_s: float
    ) -> None:
        """A peer asks; None: the task's node is to say."""
        # A submitter that is given up and comes again tells again what it has, whatever others did
        # to it: so it alone can know that something never starts.
        for place, id_ in enumerate(ids):
            dropped[place] = dropped[place] if home_of(TaskId(id_)) == peer.id else False
        ask = _Ask(peer, request, dropped, now_s + ASK_S)
        if not ask.left:
            self._answer(ask)
            return
        self._asks.append(ask)
        for place, id_ in enumerate(ids):
            if dropped[place] is None:
                self.open.setdefault(id_, []).append((ask, place))

    def known(self, task: bytes, dropped: bool) -> None:
        """It is known whether a task was dropped before it started."""
        for ask, place in self.open.pop(task, ()):
            ask.dropped[place] = dropped
            ask.left -= 1
            if not ask.left:
                self._answer(ask)

    def expire(self, now_s: float) -> None:
        """Answer those who have waited for too long."""
        asks = self._asks
        while asks and (not asks[0].left or now_s >= asks[0].due_s):
            late = asks.popleft()
            if late.left:
                for task, asked in list(self.open.items()):
                    if any(ask is late for ask, _ in asked):
                        self.known(task, False)

    def due_s(self) -> float:
        """Return when `expire` has something to do, if anything is open."""
        return next(ask.due_s for ask in self._asks if ask.left)

    def _answer(self, ask: _Ask) -> None:
        if ask.peer.here:
            answer = Cancelled(ask.request, [dropped is True for dropped in ask.dropped])
            self._out.letter(ask.peer.id, answer)
