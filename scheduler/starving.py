"""Work that no node could run, were it idle but for its actors: its clients are told of it.

Never places anything: what is placed notes the shapes that fit nowhere, this looks at them again.
What no node could run at all fails in time. What actors keep out waits for them: they may end.
"""

from collections.abc import Iterator

from ..protocol.messages import Notice
from .hoards import LOOK_S, Hoards
from .placement import Board, ShapeQueue
from .state import State
from .tasks import Shape, failed
from .work import Work


class Starving:
    """See the module."""

    __slots__ = ("_board", "_hoards", "_look_s", "_state", "_work", "kept_out", "shapes")

    def __init__(self, state: State, board: Board, work: Work) -> None:
        self._state = state
        self._board = board
        self._work = work
        #: with ready tasks that no node could run if it were idle
        self.shapes: dict[Shape, None] = {}
        self._hoards = Hoards(state, board)
        #: with ready tasks that fit nowhere as long as the actors there live: since when, and
        #: whether the client was told
        self.kept_out: dict[Shape, tuple[float, bool]] = {}
        self._look_s = 0.0

    def note(self, shape: Shape) -> None:
        """Tasks of a shape found no place: see whether that can change."""
        if shape.starved_since_s is not None or self._state.awaits_nodes:
            return
        if not self._board.fits_ever(shape):
            shape.starved_since_s = self._state.now_s
            shape.noticed = False
            self.shapes[shape] = None
            self.kept_out.pop(shape, None)
        elif shape not in self.kept_out and self._hoards.keep_out(shape):
            self.kept_out[shape] = self._state.now_s, False

    def turn(self) -> None:
        """See to tasks that no node could run: tell their clients, and give up after a while."""
        settings, now_s = self._state.settings, self._state.now_s
        if not self._work.queue.size:
            self.kept_out.clear()
        if self.kept_out and now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            self._look_at_kept_out()
        for shape in list(self.shapes):
            since_s = shape.starved_since_s
            queues = [queue for queue in self._work.queue.queues() if queue.shape is shape]
            if since_s is None or not queues or self._board.fits_ever(shape):
                self._forgive(shape)
                continue
            if not shape.noticed and now_s >= since_s + settings.no_node_notice_s:
                shape.noticed = True
                count = sum(queue.size for queue in queues)
                self._say(shape, self._why_infeasible(shape, count))
            if not shape.wait_for_nodes and not self._board.is_empty:
                for queue in queues:
                    self._give_up(shape, queue, since_s)

    def _look_at_kept_out(self) -> None:
        settings, now_s = self._state.settings, self._state.now_s
        for shape, (since_s, told) in list(self.kept_out.items()):
            count = self._count(shape)
            if not count or not self._board.fits_ever(shape) or not self._hoards.keep_out(shape):
                del self.kept_out[shape]
            elif not told and now_s >= since_s + settings.no_node_notice_s:
                self.kept_out[shape] = since_s, True
                self._say(shape, self._why_kept_out(shape, count))
            elif not told:
                self._look_s = min(self._look_s, since_s + settings.no_node_notice_s)

    def _count(self, shape: Shape) -> int:
        return sum(queue.size for queue in self._work.queue.queues() if queue.shape is shape)

    def _why_kept_out(self, shape: Shape, count: int) -> str:
        lacks = "a node with " + shape.describe() if _asks(shape) else "a node"
        return (
            f"{_waiting(shape, count)} for {lacks} to spare, and actors hold that for as long as "
            f"they live: {self._hoards.explain(shape)}. End some (drumbeat.kill, or `drumbeat kill "
            "ID`), create them with smaller num_cpus (0 is the default of actors), or add a node"
        )

    # -------------------------------------------------------------------------------------- insight

    def told(self) -> list[str]:
        """Return what cannot run now and why, for people."""
        texts = [self._why_infeasible(shape, self._count(shape)) for shape in self.shapes]
        return texts + [self._why_kept_out(one, self._count(one)) for one in self.kept_out]

    def why(self, shape: Shape) -> str:
        """Return in a few words what queued tasks of a shape lack; "": only their turn."""
        if shape in self.shapes:
            return f"a node with {shape.describe()}, which none has"
        if shape in self.kept_out:
            return f"{shape.describe()}, which actors hold: {self._hoards.explain(shape)}"
        return ""

    # --------------------------------------------------------------------------------------- inside

    def _forgive(self, shape: Shape) -> None:
        shape.starved_since_s = None
        shape.noticed = False
        del self.shapes[shape]

    def _give_up(self, shape: Shape, queue: ShapeQueue, since_s: float) -> None:
        limit_s = self._state.settings.infeasible_timeout_s
        while queue.size:
            record = queue.head()
            if max(since_s, record.submitted_s) + limit_s > self._state.now_s:
                return
            nodes = self._board.describe_nodes()
            text = f"{record.kind.name} asks for {shape.describe()}; {nodes}"
            self._work.end(record, [failed(record, "Infeasible", text)])

    def _why_infeasible(self, shape: Shape, count: int) -> str:
        nodes = self._board.describe_nodes()
        return f"{_waiting(shape, count)} for a node with {shape.describe()}; {nodes}"

    def _say(self, shape: Shape, text: str) -> None:
        client = self._state.client(shape.client)
        if client is not None and client.here:
            self._state.out.letter(shape.client, Notice(text))
            self._state.tell(text, "notice", "warning")

    def dues_s(self) -> Iterator[float]:
        """Yield when `turn` has something to do."""
        settings = self._state.settings
        if any(not told for _, told in self.kept_out.values()):
            yield self._look_s
        for shape in self.shapes:
            if shape.starved_since_s is None:
                continue
            if not shape.noticed:
                yield shape.starved_since_s + settings.no_node_notice_s
            if not shape.wait_for_nodes and not self._board.is_empty:
                for queue in self._work.queue.queues():
                    if queue.shape is shape:
                        since_s = max(shape.starved_since_s, queue.head().submitted_s)
                        yield since_s + settings.infeasible_timeout_s

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"starved": len(self.shapes), "kept_out": len(self.kept_out)}

    def check_invariants(self) -> None:
        """Assert that what starves is known to."""
        for shape in self.shapes:
            assert shape.starved_since_s is not None
            assert shape not in self.kept_out


def _asks(shape: Shape) -> bool:
    return bool(shape.cpu or shape.others or shape.node or shape.labels)


def _waiting(shape: Shape, count: int) -> str:
    what = "actor" if shape.creates else "task"
    return f"1 {what} waits" if count == 1 else f"{count} {what}s wait"
