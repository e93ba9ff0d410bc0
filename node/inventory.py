"""What a node says to a scheduler in its next life: all it has, in the order promised.

Never changes anything here: the rooms have dropped what did not survive before they are asked.
"""

from ..protocol.messages import Fetch, Join
from ..protocol.recovery import Holding, Inventory, InventoryRow, Phase, Registered
from .actors import Actors
from .attempts import SENT, Attempt
from .children import Children
from .ended import Ended
from .lives import Lives
from .state import NodeState

#: in one Inventory or Holding
ROWS_MAX = 512


class Registration:
    """Tells all rooms' records to a scheduler that knows none of them."""

    def __init__(
        self, state: NodeState, lives: Lives, actors: Actors, children: Children, ended: Ended
    ) -> None:
        self._state = state
        self._lives = lives
        self._actors = actors
        self._children = children
        self._ended = ended
        #: see `Join.settled`
        self._settled = 0

    def join(self, joining: Join, former: int, epoch: int) -> None:
        """A link life begins in this epoch, after one in the former: say who this is."""
        if former in (0, epoch):
            # There was nothing, or it has been dropped.
            self._settled = epoch
        joining.settled = self._settled
        self._state.send(joining)

    def recovered(self, epoch: int) -> None:
        """The scheduler has told what became of everything that its earlier lives had left."""
        self._settled = epoch
        self._state.objects.recovered()

    def tell(self) -> None:
        """Say it all; what follows is said as ever."""
        state = self._state
        rows = [self._row(attempt) for attempt in state.attempts.values()]
        rows += self._ended.inventory()
        clients = self._clients()
        # Before the last of the rows: who has those may let creations begin.
        self._actors.checkpoints.tell_again()
        for start in range(0, max(1, len(rows)), ROWS_MAX):
            end = start + ROWS_MAX
            state.send(Inventory(clients, rows[start:end], end >= len(rows)))
        self._actors.tell_again()
        self._children.submit_again()
        holding = state.objects.holding()
        for start in range(0, len(holding), ROWS_MAX):
            state.send(Holding(holding[start : start + ROWS_MAX]))
        self._children.ask_again()
        fetches, state.objects.fetches = state.objects.fetches, []
        if fetches:
            state.send(Fetch(fetches))
        state.send(Registered())

    def _row(self, attempt: Attempt) -> InventoryRow:
        phase = Phase.QUEUED
        if attempt.state == SENT:
            worker = self._state.workers[attempt.worker]
            main = worker.main
            lends = attempt.kind.creates or (main is not None and main.seq == attempt.seq)
            if worker.lent and main is not None and lends and not attempt.kind.actor:
                phase = Phase.BLOCKED  # of an actor its creation: that one's CPUs are lent
            elif worker.is_next(attempt):
                phase = Phase.RUNNING  # or about to
        return InventoryRow(attempt.row.id, attempt.row.attempt, phase)

    def _clients(self) -> list[bytes]:
        # Whoever was introduced here and has not left; workers, attempts and calls are theirs.
        return list(self._lives.environments)
