"""What a no-op task costs the scheduler's core, and what a queued one weighs.

Usage: python benchmarks/core_scheduler.py [tasks] [nodes]
"""

import gc
import sys
import time
from pathlib import Path
from random import Random

from drumbeat.protocol.frames import Hello
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Assign,
    Define,
    Done,
    DoneRow,
    Enter,
    Environment,
    Join,
    KindRow,
    Options,
    Query,
    Results,
    Submit,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler import events
from drumbeat.scheduler.core import SchedulerCore

CLIENT = PeerId(b"client")
ROWS = 200


def setting(nodes: int) -> tuple[SchedulerCore, list[PeerId]]:
    core = SchedulerCore(Settings(), 1, Random(1))
    hello = Hello(1, "client", CLIENT, 0, 0, 0, "3.11", "bench")
    core.handle(events.PeerJoined(CLIENT, hello), 0.0)
    core.handle(events.Received(CLIENT, Enter("bench", Environment())), 0.0)
    row = KindRow(1, b"f" * 16, "noop", Options(), b"code")
    core.handle(events.Received(CLIENT, Define(CLIENT, [row])), 0.0)
    peers = [PeerId(number.to_bytes(6, "big")) for number in range(1, nodes + 1)]
    for number, peer in enumerate(peers):
        hello = Hello(1, "node", peer, 0, 0, 0, "3.11", f"node{number}")
        core.handle(events.PeerJoined(peer, hello), 0.0)
        join = Join(f"node{number}", "host", 1, {"CPU": 2.0})
        core.handle(events.Received(peer, join), 0.0)
    core.turn(0.0)
    return core, peers


def batches(count: int) -> list[Submit]:
    make = IdFactory(CLIENT)
    return [
        Submit(CLIENT, b"", 0, [TaskRow(make(), 1, b"args" * 10) for _ in range(ROWS)])
        for _ in range(count // ROWS)
    ]


def run(tasks: int, nodes: int) -> float:
    """Submit all, then answer whatever is assigned until all is done; return µs a task."""
    core, _ = setting(nodes)
    submits = batches(tasks)
    spent_s, now_s, told = 0.0, 0.0, 0
    gc.collect()
    gc.freeze()
    pending: list[events.Event] = []
    numbers: dict[PeerId, int] = {}
    while told < tasks:
        now_s += 0.001
        turn = [events.Received(CLIENT, submits.pop(0))] if submits else []
        turn += pending
        start_s = time.perf_counter()
        for event in turn:
            core.handle(event, now_s)
        commands = core.turn(now_s)
        spent_s += time.perf_counter() - start_s
        pending = []
        for command in commands:
            if isinstance(command, events.Send) and isinstance(command.message, Assign):
                rows = command.message.rows
                ended = [
                    DoneRow(row.id, row.attempt, (ValueRow(row.id, 0, b"v"),), 5e-6) for row in rows
                ]
                for at in range(0, len(ended), ROWS):
                    number = numbers[command.peer] = numbers.get(command.peer, 0) + 1
                    done = Done(ended[at : at + ROWS], number)
                    pending.append(events.Received(command.peer, done))
            elif isinstance(command, events.Mark):
                pending.append(events.Reached(command.peer, [command.mark]))
            elif isinstance(command, events.Send) and isinstance(command.message, Results):
                told += len(command.message.rows)
    return spent_s / tasks * 1e6


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def weigh(tasks: int) -> None:
    """Queue many tasks with no node there, and ask for the status meanwhile."""
    core, _ = setting(0)
    gc.freeze()
    make = IdFactory(CLIENT)
    before, start_s = resident_bytes(), time.perf_counter()
    for _ in range(tasks // ROWS):
        rows = [TaskRow(make(), 1, b"args" * 10 + bytes(1)) for _ in range(ROWS)]
        core.handle(events.Received(CLIENT, Submit(CLIENT, b"", 0, rows)), 0.0)
    spent_s = time.perf_counter() - start_s
    print(f"{tasks} queued: {(resident_bytes() - before) / tasks:.0f} bytes a task with its row, ")
    print(f"  submitted at {spent_s / tasks * 1e6:.2f} µs a task")
    start_s = time.perf_counter()
    core.handle(events.Received(CLIENT, Query(1, "status")), 1.0)
    core.turn(1.0)
    print(f"  status and a turn in {(time.perf_counter() - start_s) * 1e3:.2f} ms")
    start_s = time.perf_counter()
    core.handle(events.Received(CLIENT, Query(1, "tasks")), 1.0)
    core.turn(1.0)
    print(f"  tasks and a turn in {(time.perf_counter() - start_s) * 1e3:.2f} ms")


def main() -> None:
    """Print all figures."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    counts = [int(sys.argv[2])] if len(sys.argv) > 2 else [1, 2, 100, 1000]
    for nodes in counts:
        best_us = min(run(tasks, nodes) for _ in range(3))
        print(f"{tasks} no-op tasks, {nodes} nodes: {best_us:.2f} µs a task")
    weigh(max(tasks, 200_000))


if __name__ == "__main__":
    main()
