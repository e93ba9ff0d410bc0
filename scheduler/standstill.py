"""Tasks that wait in get() for each other's resources: found over all nodes, one is told.

Never guesses. Who waits for whom is not known here, but that nothing moves is: every attempt that
has started waits without a timeout, nothing that is queued fits, nothing is on its way, and nothing
will be tried again later. So only a get() that fails lets anything go on.

    a beat says that its node stands still    nothing moved for `deadlock_after_s`, as far as seen
    all nodes are looked at                   nothing was under way to or from one meanwhile
    judged                                    the youngest of those who hold what others lack
"""

from typing import Final

from ..protocol.ids import PeerId, TaskId, home_of, show, task_of
from ..protocol.liveness import NEVER_S
from ..protocol.messages import (
    Answer,
    Beat,
    Define,
    Forget,
    Output,
    Query,
    Release,
    Shared,
    Unshared,
)
from ..protocol.recovery import HandedOver, Holding
from ..protocol.resources import UNITS
from ..protocol.running import Stack, Stacks
from ..protocol.standstill import Deadlock, Look, Looked
from ..protocol.stock import Stock, TakeStock
from .attempts import Attempts
from .events import Command, Send, SendBlob
from .objects import Objects
from .placement import Board
from .state import Node, State
from .tasks import Shape, TaskRecord
from .work import Work

#: what nodes say and hear though nothing moves
IDLE_WORDS: Final = frozenset(
    {Answer, Beat, Define, Forget, HandedOver, Holding, Look, Looked, Output, Query, Release,
     Shared, Stack, Stacks, Stock, TakeStock, Unshared}
)  # fmt: skip
#: a home that is there has sent what it has within this long; else it has yet to submit the task
HOME_S: Final = 10.0
#: of what is queued, so many are looked at to choose who is told
LOOK_AT: Final = 64


class Waiting:
    """An attempt that waits in get()."""

    __slots__ = ("lends", "node", "record")

    def __init__(self, record: TaskRecord, node: Node, lends: bool) -> None:
        self.record = record
        self.node = node
        self.lends = lends

    @property
    def holds(self) -> list[tuple[str, int]]:
        """What it keeps while it waits."""
        shape = self.record.kind.shape
        cpu = [("CPU", shape.cpu)] if shape.cpu and not self.lends else []
        return [*cpu, *shape.others]

    @property
    def call(self) -> str:
        """The name of what waits: of an actor, that of its call, as far as that is known."""
        if self.record.kind.creates is not None:
            for row in self.node.running:
                call = self.node.calls.get(row.id)
                host = None if call is None else call.kind.host
                if call is not None and host is not None and host.record is self.record:
                    return call.kind.name
        return self.record.kind.name


class Standstill:
    """See the module.

    Args:
        state: shared.
        board: the nodes.
        work: all tasks.
        attempts: what nodes have.
        objects: all values.
    """

    __slots__ = (
        "_asked", "_attempts", "_board", "_evened_out", "_looked", "_mark", "_moves", "_number",
        "_objects", "_since_s", "_state", "_work", "due_s", "told", "watching",
    )  # fmt: skip

    def __init__(
        self, state: State, board: Board, work: Work, attempts: Attempts, objects: Objects
    ) -> None:
        self._state = state
        self._board = board
        self._work = work
        self._attempts = attempts
        self._objects = objects
        #: whether a node has hinted at it, and what passes is to be shown to `heard` and `turn`
        self.watching = False
        #: when `turn` has something to do
        self.due_s = NEVER_S
        #: counts what passed that moves something, and what it was when the watch began
        self._moves = self._mark = 0
        self._since_s = 0.0
        #: of the last look: its number, whom it was sent to, and the answers
        self._number = 0
        self._asked: dict[PeerId, Node] = {}
        self._looked: list[tuple[Node, Looked]] = []
        #: tasks that were told, with their attempt: others come first
        self.told: dict[TaskId, int] = {}
        #: nodes have been asked for what others could run, since somebody was told
        self._evened_out = False

    # ---------------------------------------------------------------------------------- what passes

    def beat(self, node: Node) -> None:
        """A node says that nothing moves there."""
        nodes, asked = self._state.nodes, self._asked
        if (len(node.assigned) == node.actors and not node.calls) or (
            self.watching
            and self._moves == self._mark
            and all(nodes.get(id_) is one for id_, one in asked.items())
        ):
            return
        self.watching = True
        self._mark = self._moves
        self._asked = {}
        self._since_s = self._state.now_s
        self._wait()

    def heard(self, word: type) -> None:
        """A node has said something."""
        if word not in IDLE_WORDS:
            self._moves += 1

    def _sent(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendBlob) or (
                isinstance(command, Send) and type(command.message) not in IDLE_WORDS
            ):
                self._moves += command.peer in self._state.nodes

    def looked(self, node: Node, message: Looked) -> None:
        """A node says whether anything moves there."""
        if message.number != self._number or self._asked.get(node.id) is not node:
            return  # of a look that has been given up
        if not message.still:
            self._give_up()
            return
        self._looked.append((node, message))
        if len(self._looked) == len(self._asked):
            self.due_s = self._state.now_s

    def turn(self, commands: list[Command]) -> list[Command]:
        """Go on with what a hint began; return what is to be sent besides.

        Args:
            commands: of this turn, which has placed what it could.
        """
        if self.told:
            self._tidy()
        if not self.watching:
            return []
        self._sent(commands)
        if self._moves != self._mark:
            self._give_up()
            return []
        if self._state.now_s < self.due_s:
            return []
        self.due_s = NEVER_S
        if not self._stands_still():
            self._give_up()
        elif self._awaits_value():
            self._asked = {}
            self._wait()
        elif not self._asked:
            self._look()
        else:
            looked = self._looked
            self._give_up()
            self._judge(looked)
        return self._state.out.flush()

    def _wait(self) -> None:
        self.due_s = self._state.now_s + self._state.settings.deadlock_after_s

    def _give_up(self) -> None:
        self.watching = False
        self.due_s = NEVER_S
        self._asked, self._looked = {}, []

    def _look(self) -> None:
        self._number += 1
        self._looked = []
        self._asked = dict(self._state.nodes)
        for id_ in self._asked:
            self._state.out.letter(id_, Look(self._number))

    # ---------------------------------------------------------------------------------- what moves

    def _stands_still(self) -> bool:
        """Return whether nothing moves by itself, and nothing queued will end by itself."""
        state, work = self._state, self._work
        if state.recovering or state.claims.open or work.backing_off or not state.nodes:
            return False
        for node in state.nodes.values():
            if not node.still or node.suspect or node.delivering or node.taking_back:
                return False
        for peer in state.peers.values():
            if peer.expected or peer.early:
                return False
        if state.held_back and any(q.shape.client in state.held_back for q in work.queue.queues()):
            return False
        if not all(shape.wait_for_nodes for shape in self._attempts.starving.shapes):
            return False  # they fail before long
        return not any(
            record.stopping for node in state.nodes.values() for record in node.records()
        )

    def _awaits_value(self) -> bool:
        """Return whether a value may be on its way from its home."""
        state = self._state
        in_time = state.now_s < self._since_s + HOME_S
        for id_, entry in self._objects.entries.items():
            if entry.row is None and state.find(task_of(id_)) is None:
                home = state.peers.get(home_of(id_))
                if in_time or home is None or not home.connected:
                    return True
        return False

    def _judge(self, looked: list[tuple[Node, Looked]]) -> None:
        """Nothing moves, and nothing was on its way: if there is work, somebody has to give way."""
        waiting: list[Waiting] = []
        wanted = [q.head() for q in self._work.queue.queues() if self._board.fits_ever(q.shape)]
        for node, message in looked:
            waits = {row.id: row for row in message.waits if node.find(row.id) is not None}
            queued = [
                record
                for id_, record in node.assigned.items()
                if id_ not in waits and not self._state.hosts.is_up(record)
            ]
            wanted += [record for id_, record in node.calls.items() if id_ not in waits]
            if queued and not self._evened_out and any(self._fits_elsewhere(r) for r in queued):
                self._state.out.take_back(node.id, len(queued))
                node.taking_back = True
                continue
            wanted += queued
            for id_, row in waits.items():
                record = node.find(id_)
                if record is not None:
                    waiting.append(Waiting(record, node, row.lends))
        if any(node.taking_back for node, _ in looked):
            self._evened_out = True
            return
        if waiting and wanted:
            self._evened_out = False
            self._tell(waiting, wanted[:LOOK_AT])

    def _fits_elsewhere(self, record: TaskRecord) -> bool:
        shape = record.kind.shape
        node = self._board.idle(record) if shape.cpu or shape.others else None
        return node is not None and node is not record.node

    # ---------------------------------------------------------------------------------- who is told

    def _tidy(self) -> None:
        """Forget who was told and has ended."""
        for id_, attempt in list(self.told.items()):
            record = self._state.find(id_)
            if record is None or record.attempt != attempt:
                del self.told[id_]

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"told_of_deadlock": len(self.told)}

    def _tell(self, waiting: list[Waiting], wanted: list[TaskRecord]) -> None:
        """Have one get() fail: of those who hold what is lacking, the youngest."""
        by_id = {one.record.id: one for one in waiting}
        self.told = {
            id_: attempt
            for id_, attempt in self.told.items()
            if id_ in by_id and by_id[id_].record.attempt == attempt
        }
        shapes = list(dict.fromkeys(record.kind.shape for record in wanted))

        def rank(one: Waiting) -> tuple[int, bool, float, int, int]:
            record = one.record
            told = record.id in self.told
            return (
                _is_in_the_way(one, shapes),
                not told,
                record.assigned_s,
                record.depth,
                record.order,
            )

        chosen = max(waiting, key=rank)
        # Of an actor its node says that it waits, not which of its calls: none of those that run
        # is what cannot start.
        begun = {row.id for one in waiting for row in one.node.running}
        queued = [r for r in wanted if r.row.id not in begun] or wanted
        lacks = next((r for r in queued if _is_in_the_way(chosen, [r.kind.shape])), queued[0])
        record, node = chosen.record, chosen.node
        text = _explain(chosen, lacks)
        self.told[record.id] = record.attempt
        self._state.counters["deadlocks"] += 1
        told = f"deadlock: {show(record.id)} at {node.name!r} is told: {text}"
        self._state.tell(told, "resource deadlock", "warning", node.name, record.id)
        self._state.out.letter(node.id, Deadlock([(record.id, record.attempt, text)]))


def _is_in_the_way(one: Waiting, shapes: list[Shape]) -> int:
    """Return 2: it holds what too little is left of for one of these; 1: what one asks for; 0."""
    node, worst = one.node, 0
    if node.drain.active:
        return worst  # nobody gets what it holds there
    holds = dict(one.holds)
    for shape in shapes:
        if not node.is_allowed(shape):
            continue
        for name, amount in (("CPU", shape.cpu), *shape.others):
            if amount and name in holds:
                free = node.spare_cpu if name == "CPU" else node.free.get(name, 0)
                worst = max(worst, 2 if free < amount else 1)
    return worst


def _explain(one: Waiting, lacks: TaskRecord) -> str:
    """Return what is wrong and what helps, for the user."""
    name, shape = one.call, one.record.kind.shape
    holds = ", ".join(f"{what} {amount / UNITS:g}" for what, amount in one.holds) or "no resources"
    if lacks.kind.host is not None:
        return (
            f"{name} waits in get() on node {one.node.name!r}, and {lacks.kind.name} cannot start, "
            "since its actor runs another call; all else that has started waits as well, so "
            "nothing would ever go on: let actors not wait for each other in a circle"
        )
    advice = []
    if shape.others:
        names = " and ".join(what for what, _ in shape.others)
        advice.append(
            f"GPUs and custom resources are kept during get(), so have {name} ask for no {names} "
            f"while it waits for others that do, or give the cluster more {names}"
        )
    if shape.cpu and not one.lends:
        advice.append(
            "as many workers of its node lend their CPUs as workers_blocked_max allows, so raise "
            "it, or nest less deeply"
        )
    if not advice:
        advice.append("raise workers_max or workers_blocked_max, or nest less deeply")
    return (
        f"{name} waits in get() on node {one.node.name!r} and keeps {holds}; {lacks.kind.name} "
        f"asks for {lacks.kind.shape.describe()} and cannot start; all else that has started waits "
        f"as well, so nothing would ever go on: {'; '.join(advice)}"
    )
