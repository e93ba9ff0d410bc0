"""Work that no node could run, were it idle: its clients are told, and it fails in time.

Never places anything: what is placed notes the shapes that fit nowhere, this looks at them again.
"""

from collections.abc import Iterator

from ..protocol.messages import Notice
from .placement import Board, ShapeQueue
from .state import State
from .tasks import Shape, failed
from .work import Work


class Starving:
    """See the module."""

    __slots__ = ("_board", "_state", "_work", "shapes")

    def __init__(self, state: State, board: Board, work: Work) -> None:
        self._state = state
        self._board = board
        self._work = work
        #: with ready tasks that no node could run if it were idle
        self.shapes: dict[Shape, None] = {}

    def note(self, shape: Shape) -> None:
        """Tasks of a shape found no place: see whether that can change."""
        if (
            shape.starved_since_s is None
            and not self._state.awaits_nodes
            and not self._board.fits_ever(shape)
        ):
            shape.starved_since_s = self._state.now_s
            shape.noticed = False
            self.shapes[shape] = None

    def turn(self) -> None:
        """See to tasks that no node could run: tell their clients, and give up after a while."""
        settings, now_s = self._state.settings, self._state.now_s
        for shape in list(self.shapes):
            since_s = shape.starved_since_s
            queues = [queue for queue in self._work.queue.queues() if queue.shape is shape]
            if since_s is None or not queues or self._board.fits_ever(shape):
                self._forgive(shape)
                continue
            if not shape.noticed and now_s >= since_s + settings.no_node_notice_s:
                shape.noticed = True
                self._notice(shape, sum(queue.size for queue in queues))
            if not shape.wait_for_nodes and not self._board.is_empty:
                for queue in queues:
                    self._give_up(shape, queue, since_s)

    def _forgive(self, shape: Shape) -> None:
        shape.starved_since_s = None
        shape.noticed = False
        del self.shapes[shape]

    def _give_up(self, shape: Shape, queue: ShapeQueue, since_s: float) -> None:
        limit_s = self._state.settings.infeasible_timeout_s
        while (record := queue.head()) is not None:
            if max(since_s, record.submitted_s) + limit_s > self._state.now_s:
                return
            nodes = self._board.describe_nodes()
            text = f"{record.kind.name} asks for {shape.describe()}; {nodes}"
            self._work.end(record, [failed(record, "Infeasible", text)])

    def _notice(self, shape: Shape, count: int) -> None:
        client = self._state.client(shape.client)
        if client is not None and client.here:
            tasks = "1 task waits" if count == 1 else f"{count} tasks wait"
            text = f"{tasks} for a node with {shape.describe()}; {self._board.describe_nodes()}"
            self._state.out.letter(shape.client, Notice(text))
            self._state.tell(text, "notice", "warning")

    def dues_s(self) -> Iterator[float]:
        """Yield when `turn` has something to do."""
        settings = self._state.settings
        for shape in self.shapes:
            if shape.starved_since_s is None:
                continue
            if not shape.noticed:
                yield shape.starved_since_s + settings.no_node_notice_s
            if not shape.wait_for_nodes and not self._board.is_empty:
                for queue in self._work.queue.queues():
                    head = queue.head() if queue.shape is shape else None
                    if head is not None:
                        since_s = max(shape.starved_since_s, head.submitted_s)
                        yield since_s + settings.infeasible_timeout_s

    def check_invariants(self) -> None:
        """Assert that what starves is known to."""
        for shape in self.shapes:
            assert shape.starved_since_s is not None
