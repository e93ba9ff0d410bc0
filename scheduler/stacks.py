"""Finds whose stacks are meant, has their nodes tell them, and answers who asked.

Never waits for a node that does not answer: after ANSWER_S what is there is told, and who is
missing. Never reads a stack: it is text of somebody's program.

What may be asked for: a task or an actor by its whole id, an actor by its name, a worker by
NODE/PID or PID (of all nodes that have one of that number), or nothing: all workers that run
something.
"""

from collections.abc import Iterator
from typing import Any, Final

from ..protocol.ids import parse, show
from ..protocol.messages import Answer, Query
from ..protocol.running import Stack, Stacks
from .state import Node, Peer, State
from .tasks import TaskRecord

ANSWER_S: Final = 3.0
#: questions that are not answered; more are refused
ASKS_MAX: Final = 100
#: of all nodes together, in one answer
ROWS_BYTES_MAX: Final = 512 << 10
#: process ids are smaller than this anywhere
PID_MAX: Final = 1 << 32

Data = dict[str, Any]


class _Ask:
    __slots__ = ("due_s", "left", "peer", "request", "room", "rows")

    def __init__(self, peer: Peer, request: int, due_s: float) -> None:
        self.peer = peer
        self.request = request
        self.due_s = due_s
        self.rows: list[Data] = []
        #: the nodes that have not answered, by the number of what they were sent
        self.left: dict[int, Node] = {}
        self.room = ROWS_BYTES_MAX


class StackAsks:
    """All questions for stacks that are open."""

    __slots__ = ("_last", "_state", "open")

    def __init__(self, state: State) -> None:
        self._state = state
        #: in the order asked
        self.open: list[_Ask] = []
        self._last = 0

    def asked(self, peer: Peer, query: Query) -> None:
        """Somebody wants stacks."""
        match = query.match.strip()
        found = self._meant(match)
        if isinstance(found, str):
            self._answer(peer, query.request, {"error": found})
            return
        if len(self.open) >= ASKS_MAX:
            self._answer(peer, query.request, {"error": f"{ASKS_MAX} others ask for stacks"})
            return
        ask = _Ask(peer, query.request, self._state.now_s + ANSWER_S)
        self.open.append(ask)
        for node, message in found:
            self._last = message.number = self._last + 1
            ask.left[message.number] = node
            self._state.out.letter(node.id, message)

    def _meant(self, match: str) -> list[tuple[Node, Stack]] | str:
        """Return whom to ask for what, or why there is nobody."""
        nodes = list(self._state.nodes.values())
        if not match:
            return [(node, Stack(0, [], [], True)) for node in nodes]
        name, _, pid = match.rpartition("/")
        if pid.isascii() and pid.isdigit() and int(pid) < PID_MAX:
            chosen = [n for n in nodes if not name or name in (n.name, n.id.hex())]
            if not chosen:
                return f"there is no node {name!r}" if name else "there is no node"
            return [(node, Stack(0, [], [int(pid)])) for node in chosen]
        try:
            task = parse(match)
        except ValueError:
            found = [r for r in self._actors() if r.kind.creates and r.kind.creates.name == match]
            if not found:
                return (
                    f"{match!r} is neither the id of a task or an actor, nor an actor's name, nor "
                    "a worker, which is NODE/PID or PID"
                )
            return [(r.node, Stack(0, [r.id], [])) for r in found if r.node is not None]
        record = self._state.find(task)
        if record is None:
            return f"there is no unfinished task and no living actor {match}"
        if record.node is None:
            what = "task" if record.kind.creates is None else "actor"
            return f"the {what} {match} runs nowhere at the moment"
        return [(record.node, Stack(0, [task], []))]

    def _actors(self) -> Iterator[TaskRecord]:
        for actor in self._state.hosts.known.values():
            if actor.record is not None:
                yield actor.record

    def told(self, node: Node, message: Stacks) -> None:
        """A node has answered."""
        for ask in self.open:
            if ask.left.get(message.number) is node:
                del ask.left[message.number]
                self._take(ask, node, message)
                return
        self._state.counters["stale_dropped"] += 1

    @staticmethod
    def _take(ask: _Ask, node: Node, message: Stacks) -> None:
        left_off = message.left_off
        for row in message.rows:
            ask.room -= len(row.text) + len(row.why) + len(row.name)
            if ask.room < 0:
                left_off += 1
                continue
            ask.rows.append(
                {
                    "node": node.name,
                    "pid": row.pid,
                    "task": show(row.task) if row.task else "",
                    "name": row.name,
                    "stack": row.text,
                    "why": row.why,
                }
            )
        if left_off:
            ask.rows.append(_instead(node, f"{left_off} more workers are not told of"))

    def turn(self) -> None:
        """Answer what can be answered."""
        for ask in list(self.open):
            if any(node.peer.here for node in ask.left.values()) and self._state.now_s < ask.due_s:
                continue
            self.open.remove(ask)
            for node in ask.left.values():
                late = f"did not answer within {ANSWER_S:g} s"
                ask.rows.append(_instead(node, late if node.peer.here else "is gone"))
            self._answer(ask.peer, ask.request, ask.rows)

    def due_s(self) -> float:
        """Return when `turn` has something to do, if anything is open."""
        return min((ask.due_s for ask in self.open), default=float("inf"))

    def _answer(self, peer: Peer, request: int, data: Any) -> None:
        if peer.here:
            self._state.out.letter(peer.id, Answer(request, data))

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"stack_asks": len(self.open)}


def _instead(node: Node, why: str) -> Data:
    return {"node": node.name, "pid": 0, "task": "", "name": "", "stack": "", "why": why}
