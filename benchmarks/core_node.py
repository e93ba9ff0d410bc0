"""What the node core costs a task: Assign row, Run row, Finished row, Done row.

    python benchmarks/core_node.py [tasks]

No sockets and no processes: the workers' answers are made up beforehand, and only the time inside
the core is counted.
"""

import gc
import sys
import time
from collections.abc import Callable, Sequence

from drumbeat.node import events
from drumbeat.node.core import NodeCore
from drumbeat.node.packets import Finished, FinishedRow, Ready, Run
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import (
    Assign,
    AssignRow,
    Done,
    Environment,
    EnvironmentRow,
    NodeKindRow,
    Options,
    Outcome,
    Prepare,
    ValueRow,
)
from drumbeat.protocol.recovery import HandedOver
from drumbeat.protocol.settings import Settings

NODE, CLIENT = PeerId(b"node01"), PeerId(b"client")
BATCH = 200
QUEUED_MAX = 2000
WORKERS = 2
#: Done messages that a scheduler hands over at once
NUMBERS = 64


def at_once(core: NodeCore, happened: Sequence[events.Event], now_s: float) -> list[events.Command]:
    """Have one loop turn of the core; return what it asks for. All that is measured is in here."""
    commands: list[events.Command] = []
    for event in happened:
        commands += core.handle(event, now_s)
    commands += core.turn(now_s)
    core.deadline_s()
    return commands


def measure(
    tasks: int,
    expected_s: float,
    turn: Callable[..., list[events.Command]] = at_once,
    rate: float = 0.0,
) -> float:
    """Return the microseconds a task, through a node of two workers.

    Args:
        tasks: so many.
        expected_s: what each is known to take; negative: that is not known.
        turn: has a loop turn of the core, as `at_once` does.
        rate: tasks a second by the core's clock, which also measures itself once a second then;
            0: a loop turn takes a millisecond.
    """
    core = NodeCore(Settings(), NODE, "lab", "here", {"CPU": WORKERS})
    kind = NodeKindRow(1, CLIENT, b"f" * 16, "noop", Options(), payload=b"code")
    prepare = Prepare([EnvironmentRow(CLIENT, Environment())], [kind])
    core.handle(events.Connected(1, False), 0.0)
    core.handle(events.Received(prepare), 0.0)
    for number in range(1, WORKERS + 1):
        core.handle(events.WorkerSpoke(number, Ready(number)), 0.0)
    core.turn(0.0)
    names = IdFactory(CLIENT)
    rows = [AssignRow(names(), 1, 1, order, 0, expected_s, b"args") for order in range(tasks)]
    sent = done = 0
    spent_s, now_s, clock = 0.0, 1.0, time.perf_counter
    measured_s = now_s
    answers: list[events.Event] = []
    numbers: list[int] = []
    gc.disable()
    while done < tasks:
        happened = answers
        while sent < tasks and sent - done < QUEUED_MAX:
            happened.append(events.Received(Assign(rows[sent : sent + BATCH])))
            sent += BATCH
        if len(numbers) >= NUMBERS:
            happened.append(events.Received(HandedOver(numbers)))
            numbers = []
        if rate and now_s >= measured_s + 1.0:
            measured_s = now_s
            happened.append(events.Measured(0.001, 30 << 20, 0.5, 4 << 30, 8 << 30))
        before_s = clock()
        commands = turn(core, happened, now_s)
        spent_s += clock() - before_s
        answers = []
        for command in commands:
            if isinstance(command, events.SendWorker) and isinstance(command.packet, Run):
                ended = [
                    FinishedRow(row.seq, (ValueRow(row.id, Outcome.VALUE, b"N."),), 1e-6)
                    for row in command.packet.rows
                ]
                answers.append(events.WorkerSpoke(command.worker, Finished(ended)))
            elif isinstance(command, events.Send) and isinstance(command.message, Done):
                done += len(command.message.rows)
                numbers.append(command.message.number)
            elif isinstance(command, events.LookAt):
                raise RuntimeError("a worker was looked at: these tasks were to be shorter")
        now_s = 1.0 + done / rate if rate else now_s + 0.001
    gc.enable()
    core.check_invariants()
    return spent_s / tasks * 1e6


def main() -> None:
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    for text, expected_s in (("known, 5 µs", 5e-6), ("known, 0.5 ms", 5e-4), ("unknown", -1.0)):
        best = min(measure(tasks, expected_s) for _ in range(3))
        print(f"node core, tasks {text:14} {best:6.2f} µs a task")


if __name__ == "__main__":
    main()
