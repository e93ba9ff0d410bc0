"""What is asked of the scheduler: what it answers itself, and what it has others tell.

Never decides what an answer holds: the rooms for stacks and for objects do, and queries.py.
"""

from typing import Final

from ..protocol.messages import Answer, Query
from .objects import Objects
from .queries import Queries
from .stacks import StackAsks
from .state import Peer, State
from .stock import StockAsks

#: a node speaks for its tasks: of others' work they see numbers only
TASKS_MAY_ASK: Final = ("status", "nodes")


class Inquiries:
    """All questions, from when they are heard until they are answered."""

    __slots__ = ("_open", "_queries", "_state", "are_open", "stacks", "stock")

    def __init__(self, state: State, queries: Queries, objects: Objects) -> None:
        self._state = state
        self._queries = queries
        self.stacks = StackAsks(state)
        self.stock = StockAsks(state, objects)
        #: asked in this turn, answered at its end
        self._open: list[tuple[Peer, Query]] = []
        #: `turn` may have something to do: looked at in every turn
        self.are_open = False

    def asked(self, peer: Peer, message: Query) -> None:
        """Somebody asks something."""
        if message.what == "name":
            self._state.hosts.names.asked(peer, message)
            return
        if peer.node is not None and message.what not in TASKS_MAY_ASK:
            text = f"a task may ask for {' and '.join(TASKS_MAY_ASK)}, not for {message.what!r}"
            self._state.out.letter(peer.id, Answer(message.request, {"error": text}))
            return
        self.are_open = True
        if message.what == "stack":
            self.stacks.asked(peer, message)
            return
        if message.what == "objects":
            self.stock.asked(peer, message)
            return
        # At the end of the turn, so that the answer knows of all that was said before it.
        self._open.append((peer, message))

    def turn(self) -> None:
        """Answer what can be answered."""
        for peer, query in self._open:
            if peer.here:
                answer = Answer(query.request, self._queries.answer(query))
                self._state.out.letter(peer.id, answer)
        self._open.clear()
        self.stacks.turn()
        self.stock.turn()
        self.are_open = bool(self.stacks.open or self.stock.open)

    def due_s(self) -> float:
        """Return when `turn` has something to do for time alone."""
        return min(self.stacks.due_s(), self.stock.due_s())

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"questions": len(self._open), **self.stacks.sizes(), **self.stock.sizes()}
