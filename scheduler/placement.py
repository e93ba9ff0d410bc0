"""The queue of ready tasks, and which node a task goes to.

Never touches a task's state, nor anything of a node but to read it. What it costs to place a task
does not grow with the queue, nor, for tasks that ask for CPUs alone, with the number of nodes.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from ..protocol.ids import PeerId
from ..protocol.messages import Failure
from ..protocol.resources import UNITS
from ..protocol.settings import Settings
from .state import Node
from .tasks import QUEUED, Kind, Shape, TaskRecord

#: as many empty queues are kept: the next task of their shape is likely to come
EMPTY_QUEUES_MAX: Final = 8
#: tasks that take up to so many windows are assigned ahead of time, as many as take that long,
#: one a slot at the least: a slot that waits for the next one waits for a good part of a task
AHEAD_WINDOWS: Final = 2
#: a node is given more when this share of its windows is free: several at once cost each less
REFILL_SHARE: Final = 0.25
NOBODY: Final = "no node has joined"
#: an error names so many nodes
NAMED_MAX: Final = 8
#: no task is taken for shorter than this: what it costs to hand it out
SHORTEST_S: Final = 1e-6


class ShapeQueue:
    """Ready tasks of one priority, depth and shape, first come first."""

    __slots__ = ("_returned", "fifo", "shape", "size")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        #: how many are in it. Those that were discarded lie on as dead entries
        self.size = 0
        self.fifo: deque[TaskRecord] = deque()
        #: heap of those that came back, which are older than their place in the line
        self._returned: list[tuple[int, TaskRecord]] = []

    def push(self, record: TaskRecord) -> None:
        """Add a task; one older than the last goes where it belongs."""
        self.size += 1
        fifo = self.fifo
        if fifo and fifo[-1].order > record.order:
            heappush(self._returned, (record.order, record))
        else:
            fifo.append(record)

    def head(self) -> TaskRecord:
        """Return the first task without taking it; there must be one: see `size`."""
        fifo, returned = self.fifo, self._returned
        while fifo and fifo[0].state != QUEUED:
            fifo.popleft()
        while returned and returned[0][1].state != QUEUED:
            heappop(returned)
        if returned and (not fifo or returned[0][0] < fifo[0].order):
            return returned[0][1]
        return fifo[0]

    def pop(self) -> None:
        """Take the task that `head` has just returned."""
        self.size -= 1
        fifo, returned = self.fifo, self._returned
        if returned and (not fifo or returned[0][0] < fifo[0].order):
            heappop(returned)
        else:
            fifo.popleft()

    def discard(self) -> None:
        """One of the tasks is about to leave the state QUEUED: it counts no more."""
        self.size -= 1
        if len(self.fifo) > 64 and self.size < len(self.fifo) // 4:
            self.fifo = deque(record for record in self.fifo if record.state == QUEUED)

    def remove(self, record: TaskRecord) -> None:
        """Take out a task that may come back: no dead entry may stay."""
        self.size -= 1
        self.fifo = deque(one for one in self.fifo if one is not record)
        self._returned = [entry for entry in self._returned if entry[1] is not record]
        heapify(self._returned)

    def __iter__(self) -> Iterator[TaskRecord]:
        """All tasks, in no order that matters."""
        for record in self.fifo:
            if record.state == QUEUED:
                yield record
        for _, record in self._returned:
            if record.state == QUEUED:
                yield record


Level = tuple[int, int]


def level_of(record: TaskRecord) -> Level:
    """Return what comes before the order of submission: priority, then depth."""
    return -record.kind.priority, -record.depth


class ReadyQueue:
    """All ready tasks: by priority, then depth, then order of submission."""

    __slots__ = ("_queues", "count", "levels", "size")

    def __init__(self) -> None:
        #: how many tasks there are; whoever takes one out of a queue counts it
        self.size = 0
        #: how many queues there are, with the empty ones
        self.count = 0
        #: most urgent first
        self.levels: list[Level] = []
        self._queues: dict[Level, dict[Shape, ShapeQueue]] = {}

    def queue_of(self, level: Level, shape: Shape) -> ShapeQueue:
        """Return the queue of a level and shape; good until the next `sweep`."""
        queues = self._queues.get(level)
        if queues is None:
            queues = self._queues[level] = {}
            insort(self.levels, level)
        queue = queues.get(shape)
        if queue is None:
            queue = queues[shape] = ShapeQueue(shape)
            self.count += 1
        return queue

    def push(self, record: TaskRecord) -> None:
        """Add a task."""
        self.size += 1
        self.queue_of(level_of(record), record.kind.shape).push(record)

    def extend(self, records: list[TaskRecord]) -> None:
        """Add tasks of one level and shape, newer than all before, in order."""
        kind, count = records[0].kind, len(records)
        level = -kind.priority, -records[0].depth
        try:
            queue = self._queues[level][kind.shape]
        except KeyError:
            queue = self.queue_of(level, kind.shape)
        self.size += count
        queue.size += count
        queue.fifo.extend(records)

    def discard(self, record: TaskRecord) -> None:
        """A task that is in it is about to leave the state QUEUED."""
        self.size -= 1
        self._queues[level_of(record)][record.kind.shape].discard()

    def remove(self, record: TaskRecord) -> None:
        """Take out a task that turned out to be at a node."""
        self.size -= 1
        self._queues[level_of(record)][record.kind.shape].remove(record)

    def waiting(self, level: Level) -> list[ShapeQueue]:
        """Return the queues of a level that are not empty."""
        return [queue for queue in self._queues[level].values() if queue.size]

    def queues(self) -> Iterator[ShapeQueue]:
        """All queues that are not empty."""
        for level in self.levels:
            for queue in self._queues[level].values():
                if queue.size:
                    yield queue

    def sweep(self) -> None:
        """Forget queues that are empty."""
        self.count = 0
        for level in [*self.levels]:
            queues = self._queues[level]
            for shape in [shape for shape, queue in queues.items() if not queue.size]:
                del queues[shape]
            if not queues:
                del self._queues[level]
                self.levels.remove(level)
            self.count += len(queues)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        # Empty queues that are kept have a bound of their own.
        levels = sum(any(q.size for q in queues.values()) for queues in self._queues.values())
        return {"queued": self.size, "queue_levels": levels}

    def check_invariants(self) -> None:
        """Assert that the counts are true."""
        assert self.levels == sorted(self._queues)
        assert self.count == sum(len(queues) for queues in self._queues.values())
        total = 0
        for level, queues in self._queues.items():
            for shape, queue in queues.items():
                records = list(queue)
                assert len(records) == queue.size
                total += queue.size
                for record in records:
                    assert level_of(record) == level
                    assert record.kind.shape is shape
        assert total == self.size


class _Ranking:
    """Nodes by a key, least first. Entries whose key is out of date are skipped when met."""

    __slots__ = ("_heap", "_keys")

    def __init__(self) -> None:
        self._keys: dict[Node, float] = {}
        self._heap: list[tuple[float, int, Node]] = []

    def set(self, node: Node, key: float) -> None:
        keys = self._keys
        if keys.get(node) == key:
            return
        keys[node] = key
        heap = self._heap
        if heap and heap[0][2] is node:
            heapreplace(heap, (key, node.serial, node))
        else:
            heappush(heap, (key, node.serial, node))
        if len(heap) > 64 + 4 * len(keys):
            self._heap = [(rank, node.serial, node) for node, rank in keys.items()]
            heapify(self._heap)

    def remove(self, node: Node) -> None:
        self._keys.pop(node, None)

    def first(self) -> Node | None:
        heap, keys = self._heap, self._keys
        while heap:
            key, _, node = heap[0]
            if keys.get(node) == key:
                return node
            heappop(heap)
        return None


class Board:
    """The nodes, ranked by what they have free and by how much work waits at them."""

    __slots__ = (
        "_actors_max", "_candidates", "_candidates_version", "_changed", "_drained", "_free",
        "_nodes", "_only", "_overfull", "_packet_s", "_tasks_max", "_version", "_window_s", "_work",
        "_workers_max", "several",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        self._window_s = settings.window_s
        self._packet_s = settings.packet_s
        self._tasks_max = settings.window_tasks_max
        self._workers_max = settings.workers_max
        self._actors_max = settings.actors_max
        self._nodes: dict[PeerId, Node] = {}
        #: whether more nodes than one get work
        self.several = False
        #: the one that does: there is nothing to rank; None: there are several, or none
        self._only: Node | None = None
        #: are there and get nothing any more
        self._drained: dict[PeerId, Node] = {}
        #: changes with the nodes that exist
        self._version = 0
        self._changed: dict[Node, None] = {}
        #: nodes that have more than they can run
        self._overfull: dict[Node, None] = {}
        self._free = _Ranking()
        self._work = _Ranking()
        #: for each shape that asks for more than CPUs: the nodes that could ever run it
        self._candidates: dict[Shape, list[Node]] = {}
        self._candidates_version = 0

    def add(self, node: Node) -> None:
        """A node has joined."""
        self._nodes[node.id] = node
        self._changed[node] = None
        self._count()

    def remove(self, node: Node) -> None:
        """A node is gone."""
        if self._drained.pop(node.id, None) is None:
            self._take_off(node)

    def retire(self, node: Node) -> None:
        """A node gets nothing any more."""
        self._take_off(node)
        self._drained[node.id] = node

    def _take_off(self, node: Node) -> None:
        del self._nodes[node.id]
        self._count()
        self._changed.pop(node, None)
        self._overfull.pop(node, None)
        self._free.remove(node)
        self._work.remove(node)

    def _count(self) -> None:
        self._version += 1
        nodes = [*self._nodes.values()]
        self.several = len(nodes) > 1
        self._only = nodes[0] if len(nodes) == 1 else None

    def touch(self, node: Node) -> None:
        """What a node has, or whether it is suspect, has changed."""
        if not node.drain.active:
            self._changed[node] = None

    def has(self, node: Node) -> bool:
        """Return whether a node gets work."""
        return node.id in self._nodes

    @property
    def is_empty(self) -> bool:
        """Whether there is no node that gets work."""
        return not self._nodes

    def fits_ever(self, shape: Shape) -> bool:
        """Return whether some node could run the shape if it were idle."""
        if shape.feasible_version != self._version:
            shape.feasible_version = self._version
            shape.feasible = any(node.could_run(shape) for node in self._nodes.values())
        return shape.feasible

    def refusal(self, kind: Kind) -> Failure | None:
        """Return why no task of a kind can run, now that the nodes are known; None: one may."""
        shape = kind.shape
        if shape.wait_for_nodes or not self._nodes or self.fits_ever(shape):
            return None
        text = f"{kind.name} asks for {shape.describe()}; {self.describe_nodes()}"
        return Failure("Infeasible", text)

    def describe_nodes(self) -> str:
        """Return what the nodes have, as people say it."""
        if not self._nodes:
            gone = ", ".join(node.name for node in self._drained.values())
            return f"{gone} is drained, and no other node is there" if gone else NOBODY
        nodes = list(self._nodes.values())
        more = [f"and {len(nodes) - NAMED_MAX} more"] if len(nodes) > NAMED_MAX else []
        return "; ".join([*(node.describe() for node in nodes[:NAMED_MAX]), *more])

    def choose(self, kind: Kind) -> tuple[Node, int] | None:
        """Return where tasks of this kind go now and how many in a row, or None to keep them."""
        shape, only = kind.shape, self._only
        if only is None and self._changed:
            self._rank()
        if not shape.simple:
            one = self._choose_among(self._nodes_for(shape), kind)
            return None if one is None else (one, 1)
        node = self._free.first() if only is None else only
        if node is None or node.suspect:
            return None
        cpu = shape.cpu
        if node.free_cpu + node.lent_cpu >= cpu and (cpu or self._has_slot(node, kind)):
            return node, self._room(node, kind) or 1
        if kind.average_s < 0:
            return None
        node = self._work.first() if only is None else only
        if node is not None and node.could_run(kind.shape):
            room = self._room(node, kind)
            if room > 0:
                return node, room
        return None

    def could_take(self, node: Node, kind: Kind) -> bool:
        """Return whether a task of this kind could go to a node now."""
        if node.id not in self._nodes or node.suspect or not node.could_run(kind.shape):
            return False
        fits = node.fits(kind.shape) and self._has_slot(node, kind)
        return fits or (kind.average_s >= 0 and self._room(node, kind) > 0)

    def slots(self, node: Node, shape: Shape) -> int:
        """Return how many tasks of a shape a node runs at once, at least 1."""
        # Those that ask for no CPU are bound by the node's CPUs all the same.
        slots = node.cpu // (shape.cpu or UNITS)
        for name, amount in shape.others:
            slots = min(slots, node.total.get(name, 0) // amount)
        return max(1, slots)

    def _has_slot(self, node: Node, kind: Kind) -> bool:
        shape = kind.shape
        if shape.creates:
            return node.actors < self._actors_max
        if shape.cpu or shape.others:
            # What is free is the bound. A number on top of it could keep out the one task that
            # those already there wait for.
            return True
        # Resources bound nothing for those that ask for none: as many as could run at once.
        count_max = max(self._workers_max, self._tasks_max * self.slots(node, shape))
        return len(node.assigned) - node.actors - node.blocked < count_max

    def _room(self, node: Node, kind: Kind) -> int:
        """Return how many tasks may go to a node ahead of time, in one go.

        Not more in one go than a packet's worth of work, so that nodes are served in turn.
        """
        expected_s = kind.average_s
        if expected_s < 0:
            return 0
        shape, window_s = kind.shape, self._window_s
        slots = (
            node.cpu // shape.cpu or 1 if shape.simple and shape.cpu else self.slots(node, shape)
        )
        count: int = slots * kind.ramp - node.counts.get(kind.number, 0)
        all_count = len(node.assigned) - node.actors - node.blocked
        if slots * self._tasks_max - all_count < count:
            count = slots * self._tasks_max - all_count
        if count <= 0:
            return 0
        all_s = slots * window_s
        left_s = all_s - node.work_s
        if expected_s * 2 > window_s and expected_s <= window_s * AHEAD_WINDOWS:
            # A window would hold none beside the one that runs. Behind longer ones they still
            # do not go.
            most = slots + int(all_s * AHEAD_WINDOWS / expected_s)
            if all_count < max(2 * slots, most - slots + 1):
                room = min(most - all_count, round(most - node.work_s / expected_s))
                if room > 0:
                    return min(room, count)
        if left_s < expected_s or left_s < all_s * REFILL_SHARE:
            return 0
        if self._packet_s < left_s:
            left_s = self._packet_s
        room = int(left_s / max(SHORTEST_S, expected_s))
        return count if count < room else room or 1

    def _rank(self) -> None:
        for node in self._changed:
            spare_cpu = node.free_cpu + node.lent_cpu
            if spare_cpu < 0:
                self._overfull[node] = None
            elif self._overfull:
                self._overfull.pop(node, None)
            if node.suspect:
                self._free.remove(node)
                self._work.remove(node)
            else:
                self._free.set(node, -spare_cpu)
                self._work.set(node, node.work_s / (node.cpu or UNITS))
        self._changed.clear()

    def _nodes_for(self, shape: Shape) -> list[Node]:
        if self._candidates_version != self._version:
            self._candidates.clear()
            self._candidates_version = self._version
        nodes = self._candidates.get(shape)
        if nodes is None:
            nodes = [node for node in self._nodes.values() if node.could_run(shape)]
            self._candidates[shape] = nodes
        return nodes

    def forget(self, shape: Shape) -> None:
        """A shape is not used any more."""
        self._candidates.pop(shape, None)

    def _choose_among(self, nodes: Iterable[Node], kind: Kind) -> Node | None:
        shape, number = kind.shape, kind.number
        able = [node for node in nodes if not node.suspect]
        free = [node for node in able if node.fits(shape) and self._has_slot(node, kind)]
        if not free and kind.average_s >= 0 and not shape.creates:
            free = [node for node in able if self._room(node, kind)]
        if not free:
            return None
        if shape.creates:
            # Most ask for nothing: where few are they have more of what is there.
            return min(free, key=lambda n: (n.actors, -n.free_cpu - n.lent_cpu, n.serial))
        if shape.spread:
            return min(
                free, key=lambda node: (node.counts.get(number, 0), len(node.assigned), node.serial)
            )
        return min(free, key=lambda node: (-node.free_cpu - node.lent_cpu, node.serial))

    @property
    def may_be_overfull(self) -> bool:
        """Whether it is worth asking for `overfull`."""
        return bool(self._overfull or self._changed)

    def overfull(self) -> list[Node]:
        """Return the nodes that have more than they can run."""
        if self._changed:
            self._rank()
        if not self._overfull:
            return []
        return sorted(self._overfull, key=lambda node: node.serial)

    def idle(self, record: TaskRecord) -> Node | None:
        """Return a node that has everything free that a task asks for, if there is one."""
        shape = record.kind.shape
        if self._changed:
            self._rank()
        if shape.simple:
            node = self._free.first()
            return node if node is not None and node.fits(shape) else None
        for node in self._nodes_for(shape):
            if not node.suspect and node.fits(shape):
                return node
        return None
