"""A node core on the bench: events in, commands out, every turn checked.

Workers do nothing by themselves: tests say what they say.
"""

from collections.abc import Iterable
from typing import Any, TypeVar

from drumbeat.node import events
from drumbeat.node.core import NodeCore
from drumbeat.node.packets import (
    Answered,
    Finished,
    FinishedRow,
    NestedKind,
    Ready,
    Run,
    RunRow,
    Submitted,
    Want,
)
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import (
    Assign,
    AssignRow,
    Done,
    DoneRow,
    Environment,
    EnvironmentRow,
    NodeKindRow,
    Options,
    Outcome,
    Prepare,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.recovery import HandedOver
from drumbeat.protocol.settings import Settings

NODE = PeerId(b"node01")
CLIENT = PeerId(b"client")
OTHER = PeerId(b"other_")
T = TypeVar("T")


def options(**given: Any) -> Options:
    return Options(**given)


class NodeBench:
    """A core with a clock, and what it asked for last."""

    def __init__(
        self,
        resources: dict[str, float] | None = None,
        settings: dict[str, Any] | None = None,
        prepare: bool = True,
    ) -> None:
        self.settings = Settings(**(settings or {}))
        self.core = NodeCore(
            self.settings, NODE, "lab", "here", resources or {"CPU": 2.0}, 7, machine="m"
        )
        self.now_s = 100.0
        #: commands of the last `feed`
        self.commands: list[events.Command] = []
        self.ids = {client: IdFactory(client) for client in (CLIENT, OTHER)}
        self.order = 0
        #: rows that a worker has been sent and has not ended, by worker and seq
        self.rows: dict[int, dict[int, RunRow]] = {}
        #: of Done messages that were not handed over
        self.told_numbers: list[int] = []
        self.feed(events.Connected(1, False))
        if prepare:
            self.prepare(1)

    @classmethod
    def ready_with_two(cls) -> "NodeBench":
        """Return a node of two CPUs, both workers of the client's default kind ready."""
        bench = cls()
        bench.ready()
        return bench

    # ------------------------------------------------------------------------------------- time

    def feed(self, *happened: events.Event) -> list[events.Command]:
        """Let events happen in one loop turn; return what the core asks for."""
        self.commands = []
        for event in happened:
            if isinstance(event, events.Connected) and not event.resumed:
                self.told_numbers = []
            self.commands += self.core.handle(event, self.now_s)
        self.commands += self.core.turn(self.now_s)
        self.core.check_invariants()
        for command in self.commands:
            if isinstance(command, events.Send) and isinstance(command.message, Done):
                self.told_numbers.append(command.message.number)
            if isinstance(command, events.SendWorker) and isinstance(command.packet, Run):
                rows = self.rows.setdefault(command.worker, {})
                rows.update({row.seq: row for row in command.packet.rows})
        return self.commands

    def hear(self, *messages: Any) -> list[events.Command]:
        """Let messages come from the scheduler in one turn."""
        return self.feed(*(events.Received(message) for message in messages))

    def after(self, seconds: float) -> list[events.Command]:
        """Let time pass, at most to the core's own deadlines in between."""
        end_s = self.now_s + seconds
        commands: list[events.Command] = []
        while True:
            due_s = self.core.deadline_s()
            self.now_s = end_s if due_s is None else min(end_s, max(due_s, self.now_s))
            commands += self.feed()
            if self.now_s >= end_s:
                self.commands = commands
                return commands

    # -------------------------------------------------------------------------------- scheduler

    def prepare(self, number: int, client: PeerId = CLIENT, **given: Any) -> None:
        """Let the scheduler define a kind."""
        row = NodeKindRow(
            number, client, bytes([number]) * 16, f"kind{number}", options(**given), b"code"
        )
        self.hear(Prepare([EnvironmentRow(client, Environment(machine="m"))], [row]))

    def row(
        self, kind: int = 1, *, expected_s: float = -1.0, client: PeerId = CLIENT, **given: Any
    ) -> AssignRow:
        """Make an attempt as the scheduler assigns it."""
        self.order += 1
        fields: dict[str, Any] = {"attempt": 1, "depth": 0, "args": b"args", "order": self.order}
        fields |= given
        id_ = fields.pop("id", None) or self.ids[client]()
        return AssignRow(id=id_, kind=kind, expected_s=expected_s, **fields)

    def assign(self, count: int = 1, kind: int = 1, **given: Any) -> list[TaskId]:
        """Let the scheduler assign attempts; return their tasks."""
        rows = [self.row(kind, **given) for _ in range(count)]
        self.hear(Assign(rows))
        return [TaskId(row.id) for row in rows]

    # ---------------------------------------------------------------------------------- workers

    def ready(self, *workers: int) -> list[events.Command]:
        """Let workers be ready; all that start when none is named."""
        numbers = workers or tuple(self.core._processes.starting)
        return self.feed(*(events.WorkerSpoke(n, Ready(1000 + n)) for n in numbers))

    def say(self, worker: int, *packets: Any) -> list[events.Command]:
        """Let a worker send packets."""
        return self.feed(*(events.WorkerSpoke(worker, packet) for packet in packets))

    def finish(self, worker: int, *seqs: int, **given: Any) -> list[events.Command]:
        """Let a worker end rows with a value; all that it has when none is named."""
        return self.say(worker, self.finished(worker, *seqs, **given))

    def finished(self, worker: int, *seqs: int, held: Any = (), contained: Any = ()) -> Finished:
        rows = self.rows[worker]
        ended = []
        for seq in seqs or tuple(rows):
            row = rows.pop(seq)
            value = ValueRow(row.id, Outcome.VALUE, b"value", contained=tuple(contained))
            ended.append(FinishedRow(seq, (value,), 0.001))
        return Finished(ended, list(held))

    def die(self, worker: int, started: int, status: int = -9, name: str = "SIGKILL") -> Any:
        """Let a worker end, as the pool tells it: its page first."""
        self.rows.pop(worker, None)
        return self.feed(
            events.PageRead([(worker, started, True)]),
            events.WorkerExited(worker, status, name, "last words"),
        )

    def want(self, worker: int, *ids: bytes, request: int = 1, seq: int = 1, **given: Any) -> Any:
        """Let a worker's main thread get objects."""
        fields: dict[str, Any] = {"count": len(ids), "timeout_s": None, "values": True} | given
        return self.say(worker, Want(request, seq, list(ids), **fields))

    # ------------------------------------------------------------------------------ what came out

    def of(self, kind: type[T]) -> list[T]:
        """Return the last commands of a type."""
        return [command for command in self.commands if isinstance(command, kind)]

    def sent(self, kind: type[T]) -> list[T]:
        """Return the messages of a type that were sent to the scheduler last."""
        return [c.message for c in self.of(events.Send) if isinstance(c.message, kind)]

    def told(self, worker: int, kind: type[T]) -> list[T]:
        """Return the packets of a type that a worker was sent last."""
        return [
            command.packet
            for command in self.of(events.SendWorker)
            if command.worker == worker and isinstance(command.packet, kind)
        ]

    def started(self) -> list[int]:
        """Return the workers that were started last."""
        return [command.worker for command in self.of(events.StartWorker)]

    def ran(self) -> dict[int, list[bytes]]:
        """Return the tasks sent last, by worker."""
        runs: dict[int, list[bytes]] = {}
        for command in self.of(events.SendWorker):
            if isinstance(command.packet, Run):
                tasks = [row.id for row in command.packet.rows]
                runs[command.worker] = runs.get(command.worker, []) + tasks
        return runs

    def done(self) -> list[DoneRow]:
        """Return the rows of the last Done."""
        return [row for message in self.sent(Done) for row in message.rows]

    def answers(self, worker: int) -> list[Answered]:
        """Return what a worker was answered last."""
        return self.told(worker, Answered)


def value(id_: bytes, payload: bytes = b"value", contained: Iterable[bytes] = ()) -> ValueRow:
    return ValueRow(id_, Outcome.VALUE, payload, contained=tuple(contained))


def at_rest(bench: NodeBench) -> dict[str, int]:
    """Return what is left once the submitters have all that was told in this link life."""
    if bench.told_numbers:
        numbers, bench.told_numbers = bench.told_numbers, []
        bench.hear(HandedOver(numbers))
    return {name: size for name, size in bench.core.at_rest().items() if size}


def nest(
    bench: NodeBench,
    worker: int,
    *rows: TaskRow,
    options: Options | None = None,
    payload: bytes | None = b"nested",
    puts: Iterable[ValueRow] = (),
    number: int = 1,
    function: bytes = b"n" * 16,
) -> Any:
    """Let a worker's task call others; `rows`: TaskRows of its kind `number`."""
    kind = NestedKind(number, function, "child", options or Options(), payload)
    return bench.say(worker, Submitted(b"p" * 14, 1, [kind], list(rows), list(puts)))


def waiting(bench: NodeBench) -> tuple[TaskId, int, TaskId]:
    """Let a worker's task call another and get its value; return (task, worker, child)."""
    (task,) = bench.assign()
    worker = next(iter(bench.ran()))
    child = IdFactory(NODE, worker)()
    seq = list(bench.rows[worker])[-1]
    nest(bench, worker, TaskRow(child, 1))
    bench.want(worker, child, seq=seq)
    return task, worker, child


def restart(bench: NodeBench, epoch: int = 2, *before: events.Event) -> list[Any]:
    """Let the scheduler end and come back; return what it is told in that turn."""
    bench.feed(events.Disconnected())
    bench.feed(*before, events.Connected(epoch, False))
    return [command.message for command in bench.of(events.Send)]
