"""What a task costs the scheduler's core with many nodes and a long queue: simulated nodes.

    python -m benchmarks.scale [--fast] [--turns 3] [--nodes 1,10,1000] [--queues 1000,1000000]

The core is the real one, and so are the messages; nodes and client are simulated, without sockets
or processes. Only the processor's time inside the core counts, so what else the machine does hardly
matters. While a figure is taken the queue is kept at its length: as many tasks are submitted as
nodes have taken. Each point is measured in fresh processes, once a turn, in three slices, after its
windows have settled; the points take turns, so that a core that runs slower for a while does so
for all. Nodes answer in one of two ways:

  full     what a scheduler at its limit sees: a node answers all that it had, up to 200 a message
  single   what long tasks look like: a message tells of one task; on few nodes a turn is one task

Beside that: what a queued task weighs, and what the beats of idle nodes cost with their decoding.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from drumbeat.protocol.codec import decoder, encode
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Assign,
    AssignRow,
    Beat,
    Done,
    DoneRow,
    Results,
    Submit,
    TakeBack,
    TakenBack,
    TaskRow,
    ValueRow,
)
from drumbeat.scheduler import events

from . import figures, results
from .core_scheduler import CLIENT, ROWS, resident_bytes, setting
from .tables import print_columns, tell

NODES = (1, 10, 100, 1_000)
QUEUES = (1_000, 10_000, 100_000, 1_000_000)
#: what is held while the other changes
NODES_HELD, QUEUE_HELD = 100, 100_000
#: of each measured point
SLICES = 3
SLICE_TASKS, SLICE_TASKS_FAST = 40_000, 4_000
#: at most so many tasks end in a loop turn, and so many nodes speak in one
TURN_TASKS, TURN_NODES = 1_000, 256
#: simulated seconds: of a loop turn, and of a task that is short or long beside the nodes' window
TURN_S, SHORT_S, LONG_S = 0.002, 0.0001, 0.05
BEAT_S = 1.0
#: of a beat that tells of two calls
BEATS = 20_000
#: smaller growth of memory is noise
WEIGHED_MIN = 100_000
LIMIT_S = 900.0
#: budgets of the core
FLAT, BEATS_PERCENT, QUEUED_BYTES = 0.30, 3.0, 1_000


class Point(NamedTuple):
    """One place on a line of the plot."""

    nodes: int
    queue: int
    way: str


class Cluster:
    """Simulated nodes around a core.

    Args:
        nodes: so many, with two CPUs each.
        way: "full" or "single", see the module.
    """

    def __init__(self, nodes: int, way: str) -> None:
        self.core, self.peers = setting(nodes)
        self.is_full = way == "full"
        self.spent_s = 0.0
        self.done = self.messages = 0
        self.held: dict[PeerId, list[AssignRow]] = {peer: [] for peer in self.peers}
        self._numbers = dict.fromkeys(self.peers, 0)
        #: who speaks next; they take turns
        self._line = deque(self.peers)
        self._ids = IdFactory(CLIENT)
        self._now_s = self._beaten_s = 0.0
        self._submitted = self._given = 0
        self._next: list[events.Event] = []

    @property
    def queued(self) -> int:
        """How many tasks wait in the scheduler, given to no node."""
        return self._submitted - self._given

    def submit_up_to(self, queue: int) -> list[events.Event]:
        """Return what the client says so that the queue has its length again."""
        found: list[events.Event] = []
        while self.queued < queue:
            count = min(ROWS, queue - self.queued)
            rows = [TaskRow(self._ids(), 1, b"args" * 10) for _ in range(count)]
            found.append(events.Received(CLIENT, Submit(CLIENT, b"", 0, rows)))
            self._submitted += count
        return found

    def answers(self) -> list[events.Event]:
        """Return what nodes say in this turn of tasks that have ended."""
        found: list[events.Event] = []
        tasks = 0
        for _ in range(min(len(self._line), TURN_NODES)):
            if tasks >= TURN_TASKS:
                break
            peer = self._line[0]
            self._line.rotate(-1)
            rows = self.held[peer]
            ended = rows if self.is_full else rows[:1]
            self.held[peer] = [] if self.is_full else rows[1:]
            tasks += len(ended)
            parts = range(0, len(ended), ROWS)
            found += [self._done(peer, ended[at : at + ROWS]) for at in parts]
        return found

    def _done(self, peer: PeerId, ended: Sequence[AssignRow]) -> events.Event:
        took_s = SHORT_S if self.is_full else LONG_S
        rows = [DoneRow(row.id, row.attempt, (ValueRow(row.id, 0, b"v"),), took_s) for row in ended]
        self._numbers[peer] += 1
        self.done += len(rows)
        self.messages += 1
        return events.Received(peer, Done(rows, self._numbers[peer]))

    def turn(self, said: Sequence[events.Event]) -> None:
        """Have one loop turn; only what happens inside the core is counted."""
        self._now_s += TURN_S
        happened = [events.PeerHeard([CLIENT, *self.peers]), *self._next, *said]
        if self._now_s >= self._beaten_s + BEAT_S:
            self._beaten_s = self._now_s
            happened += [events.Received(peer, Beat(0.0, 2, 0, [])) for peer in self.peers]
        core, now_s, clock = self.core, self._now_s, time.thread_time
        # Who was heard is of all nodes here, as at the beat; that is not of the task.
        core.handle(happened[0], now_s)
        begun_s = clock()
        for event in happened[1:]:
            core.handle(event, now_s)
        commands = core.turn(now_s)
        core.deadline_s()
        self.spent_s += clock() - begun_s
        self._next = []
        for command in commands:
            if isinstance(command, events.Mark):
                self._next.append(events.Reached(command.peer, [command.mark]))
            elif isinstance(command, events.Send):
                self._hear(command.peer, command.message)

    def _hear(self, peer: PeerId, message: Any) -> None:
        if isinstance(message, Assign):
            self.held[peer] += message.rows
            self._given += len(message.rows)
        elif isinstance(message, TakeBack):
            self._next.append(events.Received(peer, TakenBack([])))
        elif isinstance(message, Results):
            assert all(row.outcome == 0 for row in message.rows), "every task returns its value"


def fill(cluster: Cluster, queue: int) -> int:
    """Bring the queue to its length; return how many bytes a task took, 0 for short queues."""
    before = resident_bytes()
    for said in cluster.submit_up_to(queue):
        # As a client does whom credits hold back: not all in one turn.
        cluster.core.handle(said, 0.0)
    grown = resident_bytes() - before
    return round(grown / queue) if queue >= WEIGHED_MIN else 0


def settle(cluster: Cluster, queue: int) -> None:
    """Have turns until the nodes' windows grow no more."""
    held = -1
    for _ in range(200):
        before, held = held, sum(map(len, cluster.held.values()))
        if before == held and cluster.done:
            return
        for _ in range(1 + len(cluster.peers) // TURN_NODES):
            cluster.turn([*cluster.answers(), *cluster.submit_up_to(queue)])


def measure(point: Point, slice_tasks: int) -> dict[str, Any]:
    """Measure a point in this process."""
    cluster = Cluster(point.nodes, point.way)
    weight = fill(cluster, point.queue)
    settle(cluster, point.queue)
    # As the scheduler does: garbage is collected when it is idle.
    gc.collect()
    gc.freeze()
    gc.disable()
    found_us: list[float] = []
    messages, done = cluster.messages, cluster.done
    for _ in range(SLICES):
        spent_s, before = cluster.spent_s, cluster.done
        while cluster.done < before + slice_tasks:
            cluster.turn([*cluster.answers(), *cluster.submit_up_to(point.queue)])
        found_us.append((cluster.spent_s - spent_s) / (cluster.done - before) * 1e6)
    rows = (cluster.done - done) / (cluster.messages - messages)
    return {
        **point._asdict(), "us": found_us, "rows_a_message": rows, "queued_bytes": weight,
        "held_by_nodes": sum(map(len, cluster.held.values())),
    }  # fmt: skip


def beats_percent(nodes: int) -> float:
    """Return how much of a core the beats of idle nodes take, decoded and handled."""
    core, peers = setting(nodes)
    frame = encode(Beat(0.001, 2, 0, [], 30 << 20))
    decode: Callable[[bytes], Beat] = decoder(Beat)
    now_s, told = 0.0, 0
    begun_s = time.thread_time()
    while told < BEATS:
        now_s += BEAT_S
        core.handle(events.PeerHeard([CLIENT, *peers]), now_s)
        for peer in peers:
            core.handle(events.Received(peer, decode(frame)), now_s)
        core.turn(now_s)
        told += nodes
    return 100 * (time.thread_time() - begun_s) / (told / nodes) / BEAT_S


# ------------------------------------------------------------------------------------ all points


def points(nodes: Sequence[int], queues: Sequence[int]) -> list[Point]:
    """Return all that is measured: first over nodes, in both ways, then over the queue."""
    longest = max(queues)
    held = min(QUEUE_HELD, longest)
    found = [Point(count, held, way) for way in ("full", "single") for count in nodes]
    found += [Point(min(NODES_HELD, max(nodes)), queue, "full") for queue in queues]
    return list(dict.fromkeys(found))


def apart(words: Sequence[str]) -> Any:
    """Run this module with these words in a fresh process; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *words],
        cwd=results.ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"benchmarks.scale {' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout)


def measure_all(wanted: Sequence[Point], turns: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """Take turns: every point once, then all again; return the points with the slices of all."""
    found: dict[Point, dict[str, Any]] = {}
    for turn in range(turns):
        for point in wanted:
            tell(f"turn {turn + 1}/{turns}: {point.nodes} nodes, {point.queue} queued, {point.way}")
            one = apart(["--point", *map(str, point), *words])
            if point in found:
                one["us"] = [*found[point]["us"], *one["us"]]
            found[point] = one
    tell("")
    return list(found.values())


def flat_over(found: Sequence[dict[str, Any]], key: str) -> str:
    """Return how flat the cost is over nodes or queue lengths, and whether that is within budget.

    Args:
        found: the points; those of one line have the same of the other key.
        key: "nodes" or "queue".
    """
    other = {"nodes": "queue", "queue": "nodes"}[key]
    lines: dict[int, list[dict[str, Any]]] = {}
    for point in found:
        if point["way"] == "full":
            lines.setdefault(point[other], []).append(point)
    line = max(lines.values(), key=len)
    least, most = min(one[key] for one in line), max(one[key] for one in line)
    flat = figures.spread([statistics.median(one["us"]) for one in line])
    verdict = "kept" if flat <= FLAT else "OVER"
    over = f"cost a task over {key} {least:,} to {most:,}"
    return f"{over}: ± {flat:.0%}, budget ± {FLAT:.0%}: {verdict}"


def show(found: Sequence[dict[str, Any]], beats: dict[str, float]) -> None:
    """Print everything in words."""
    print_columns(
        ["nodes", "queued", "answers", "rows a message", "µs a task", "held by nodes", "bytes"],
        [
            [
                f"{one['nodes']:,}", f"{one['queue']:,}", one["way"],
                figures.figure(one["rows_a_message"]), figures.shown(one["us"]),
                f"{one['held_by_nodes']:,}",
                f"{one['queued_bytes']:,}" if one["queued_bytes"] else "",
            ]
            for one in found
        ],
    )  # fmt: skip
    for key in ("nodes", "queue"):
        print(flat_over(found, key))
    if weights := [one["queued_bytes"] for one in found if one["queued_bytes"]]:
        print(f"a queued task: up to {max(weights):,} bytes, budget {QUEUED_BYTES:,}")
    for nodes, percent in beats.items():
        print(f"beats of {int(nodes):,} idle nodes: {percent:.3f} % of a core")
    print(f"budget of 1,000 nodes' beats: {BEATS_PERCENT:g} %")


def main() -> None:
    """Measure all points, or one of them for `apart`."""
    flags = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    flags.add_argument("--nodes", default=",".join(map(str, NODES)))
    flags.add_argument("--queues", default=",".join(map(str, QUEUES)))
    flags.add_argument("--turns", type=int, default=3)
    flags.add_argument("--fast", action="store_true", help="a tenth of the tasks a slice")
    flags.add_argument("--point", nargs=3, metavar=("NODES", "QUEUE", "WAY"), help="this one only")
    flags.add_argument("--beats", type=int, metavar="NODES", help="the beats of so many only")
    given = flags.parse_args()
    fast = ["--fast"] * given.fast
    if given.point:
        point = Point(int(given.point[0]), int(given.point[1]), given.point[2])
        print(json.dumps(measure(point, SLICE_TASKS_FAST if given.fast else SLICE_TASKS)))
        return
    if given.beats:
        print(json.dumps(beats_percent(given.beats)))
        return
    about = results.machine()
    nodes, queues = (
        [int(part) for part in text.split(",")] for text in (given.nodes, given.queues)
    )
    found = measure_all(points(nodes, queues), given.turns, fast)
    beats = {str(count): apart(["--beats", str(count)]) for count in nodes}
    show(found, beats)
    path: Path = results.keep("scale", about, points=found, beats_percent=beats)
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
