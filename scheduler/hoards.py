"""What actors hold of each node for as long as they live, and whom that keeps out.

Never decides, and never ends an actor. A task waits for tasks, which end by themselves; for
actors it may wait for ever, and that has to be said. What they hold is looked at once in a while.
"""

from typing import Final

from ..protocol.ids import show
from ..protocol.resources import UNITS
from .placement import Board
from .state import Node, State
from .tasks import Shape, TaskRecord

#: what was seen is good for so long
LOOK_S: Final = 1.0
#: so many nodes are named, and of each so many actors
NODES_MAX: Final = 3
ACTORS_MAX: Final = 3


class Hoards:
    """See the module."""

    __slots__ = ("_actors_max", "_board", "_held", "_keeps_out", "_looked_s", "_state")

    def __init__(self, state: State, board: Board) -> None:
        self._state = state
        self._board = board
        self._actors_max = state.settings.actors_max
        #: what actors hold, by node; those where they hold nothing are left out
        self._held: dict[Node, dict[str, int]] = {}
        self._keeps_out: dict[Shape, bool] = {}
        self._looked_s = -LOOK_S

    def keep_out(self, shape: Shape) -> bool:
        """Return whether a shape that fits some node fits none as long as its actors live."""
        if self._state.now_s >= self._looked_s + LOOK_S:
            self._look()
        if not self._held:
            return False
        found = self._keeps_out.get(shape)
        if found is None:
            nodes = self._nodes_for(shape)
            found = bool(nodes) and not any(self._has_room(node, shape) for node in nodes)
            self._keeps_out[shape] = found
        return found

    def _look(self) -> None:
        self._looked_s = self._state.now_s
        self._keeps_out.clear()
        self._held.clear()
        for node in self._state.nodes.values():
            if not node.actors:
                continue
            held: dict[str, int] = {}
            for actor in _actors_of(node):
                for name, amount in _holds(actor):
                    held[name] = held.get(name, 0) + amount
            if held or node.actors >= self._actors_max:
                self._held[node] = held

    def _nodes_for(self, shape: Shape) -> list[Node]:
        nodes = self._state.nodes.values()
        return [node for node in nodes if self._board.has(node) and node.could_run(shape)]

    def _has_room(self, node: Node, shape: Shape) -> bool:
        """Return whether a shape would fit once all tasks of a node have ended."""
        if shape.creates and node.actors >= self._actors_max:
            return False
        held = self._held.get(node)
        if held is None:
            return True
        return all(
            node.total.get(name, 0) - held.get(name, 0) >= amount
            for name, amount in (("CPU", shape.cpu), *shape.others)
            if amount
        )

    def explain(self, shape: Shape) -> str:
        """Return who holds what a shape lacks, as people say it."""
        nodes = self._nodes_for(shape)
        told = [self._at(node, shape) for node in nodes[:NODES_MAX]]
        if len(nodes) > NODES_MAX:
            told.append(f"and so on at {len(nodes) - NODES_MAX} more")
        return "; ".join(told)

    def _at(self, node: Node, shape: Shape) -> str:
        wanted = [name for name, amount in (("CPU", shape.cpu), *shape.others) if amount]
        if shape.creates and node.actors >= self._actors_max:
            return f"{node.name} has {node.actors} actors (actors_max)"
        holders: dict[str, str] = {}
        for actor in _actors_of(node):
            held = [
                f"{name} {amount / UNITS:g}" for name, amount in _holds(actor) if name in wanted
            ]
            if held:
                who = f"{_title(actor)} {show(actor.id)}"
                holders[who] = f"{who} holds {' and '.join(held)}"
        named = list(holders.values())[:ACTORS_MAX]
        if len(holders) > ACTORS_MAX:
            named.append(f"{len(holders) - ACTORS_MAX} more actors hold more")
        return f"{node.describe()}, of which {', '.join(named)}"


def _actors_of(node: Node) -> list[TaskRecord]:
    return [record for record in node.assigned.values() if record.kind.creates is not None]


def _holds(actor: TaskRecord) -> list[tuple[str, int]]:
    """Return what an actor keeps; while it waits in get() it lends its CPUs."""
    shape = actor.kind.shape
    cpu = [("CPU", shape.cpu)] if shape.cpu and not actor.blocked else []
    return [*cpu, *shape.others]


def _title(actor: TaskRecord) -> str:
    creates = actor.kind.creates
    name = "" if creates is None else creates.name
    return f"{actor.kind.name} {name!r}" if name else actor.kind.name
