"""A scheduler core with people around it: says events for peers, and sorts what it commands."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

from drumbeat.protocol.frames import PROTOCOL_VERSION, Hello
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import (
    Assign,
    AssignRow,
    Beat,
    Blocked,
    Cancel,
    Define,
    Done,
    DoneRow,
    Enter,
    Environment,
    Failure,
    Join,
    KindRow,
    Options,
    Outcome,
    Query,
    Results,
    Submit,
    TakenBack,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.running import RunningRow
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler import events
from drumbeat.scheduler.core import SchedulerCore
from drumbeat.scheduler.deeds import Course, Deed, Will

M = TypeVar("M")


class Stage:
    """A core, a clock, and a mailbox for each peer.

    Args:
        seed: of chance.
        epoch: the scheduler's life.
        expected: names of the nodes of the life before.
        gone: submitters that it had given up.
        daemons: ids of the expected nodes.
        closed: the last life in which nodes that had not come back were given up.
        wills: detached actors that the life before has left.
        acting: actors whose last incarnation may still act, with their nodes and keepers.
        settings: the scheduler's.
    """

    def __init__(
        self,
        seed: int = 0,
        epoch: int = 1,
        expected: Sequence[str] = (),
        gone: Sequence[str] = (),
        daemons: Sequence[str] = (),
        closed: int = 0,
        wills: Sequence[Will] = (),
        acting: Sequence[tuple[str, str, str]] = (),
        **settings: Any,
    ) -> None:
        self.now_s = 100.0
        left = expected, gone, daemons, closed, wills, acting
        self.core = SchedulerCore(Settings(**settings), epoch, Random(seed), *left)
        #: detached actors as they are written down, and why they cannot be
        self.deeds: dict[bytes, Deed] = {}
        self.courses: dict[bytes, Course] = {}
        self.disk_error = ""
        self._answers: list[events.Kept | events.Unread] = []
        #: whether somebody is getting what a node that would leave has offered
        self.reads = False
        #: what was to be written down, each time: nodes, and clients that were given up
        self.remembered: list[list[str]] = []
        self.gone: list[list[str]] = []
        self.closed: list[int] = []
        #: actors whose last incarnation may still act
        self.acting: list[list[tuple[str, str, str]]] = []
        self.mail: dict[PeerId, list[Any]] = {}
        self.blobs: list[events.SendBlob] = []
        self.restores: list[events.Restore] = []
        self.drops: list[events.Drop] = []
        #: marks that peers have not reached; each does before the next turn if `prompt`
        self.marks: dict[PeerId, list[int]] = {}
        self.prompt = True
        #: whether each turn is checked; with very many tasks that takes long
        self.checks = True
        self.kind_numbers: dict[PeerId, int] = {}

    def event(self, event: events.Event) -> None:
        self._keep(self.core.handle(event, self.now_s))

    def say(self, peer: PeerId, message: Any) -> None:
        self.event(events.Received(peer, message))

    def turn(self, after_s: float = 0.0) -> "Stage":
        self.now_s += after_s
        if self.prompt:
            for peer in list(self.marks):
                self.reach(peer)
        self._turn_once()
        while self._answers:
            answers, self._answers = self._answers, []
            for event in answers:
                self.event(event)
            self._turn_once()
        return self

    def _turn_once(self) -> None:
        self._keep(self.core.turn(self.now_s))
        if self.checks:
            self.core.check_invariants()

    def live(self, for_s: float, step_s: float = 0.25, *silent: PeerId) -> "Stage":
        """Let time pass with everybody but `silent` heard."""
        end_s = self.now_s + for_s
        while self.now_s < end_s:
            self.event(events.PeerHeard([peer for peer in self.mail if peer not in silent]))
            self.turn(min(step_s, end_s - self.now_s))
        return self

    def _keep(self, commands: list[events.Command]) -> None:
        for command in commands:
            if isinstance(command, events.Send):
                self.mail.setdefault(command.peer, []).append(command.message)
            elif isinstance(command, events.SendBlob):
                self.blobs.append(command)
            elif isinstance(command, events.Restore):
                self.restores.append(command)
            elif isinstance(command, events.Leaves):
                if not self.reads:
                    self._answers.append(events.Unread(command.peer))
            elif isinstance(command, events.Remember):
                self.remembered.append(command.nodes)
                self.gone.append(command.gone)
                self.closed.append(command.closed)
                self.acting.append(command.acting)
            elif isinstance(command, events.Keep):
                if not self.disk_error:
                    self.deeds[command.deed.id] = command.deed
                self._answers.append(events.Kept(command.deed.id, self.disk_error))
            elif isinstance(command, events.KeepCourse):
                self.courses[command.id] = command.course
            elif isinstance(command, events.Unkeep):
                self.deeds.pop(command.id, None)
                self.courses.pop(command.id, None)
            elif isinstance(command, events.Mark):
                self.marks.setdefault(command.peer, []).append(command.mark)
            else:
                self.drops.append(command)

    def wills(self) -> list[Will]:
        """Return what this life of the scheduler leaves to the next."""
        return [Will(deed, self.courses.get(id_, Course())) for id_, deed in self.deeds.items()]

    def reach(self, peer: PeerId, count: int | None = None) -> None:
        """Have a peer acknowledge what was sent before its first `count` marks, or all."""
        marks = self.marks.pop(peer, [])
        count = len(marks) if count is None else count
        if marks[count:]:
            self.marks[peer] = marks[count:]
        if marks[:count]:
            self.event(events.Reached(peer, marks[:count]))

    def take(self, peer: PeerId, kind: type[M]) -> list[M]:
        """Take all messages of a kind out of a peer's mailbox."""
        mail = self.mail.get(peer, [])
        self.mail[peer] = [message for message in mail if not isinstance(message, kind)]
        return [message for message in mail if isinstance(message, kind)]

    def assigned(self, node: PeerId) -> list[AssignRow]:
        return [row for message in self.take(node, Assign) for row in message.rows]

    def results(self, peer: PeerId) -> dict[bytes, ValueRow]:
        return {row.id: row for message in self.take(peer, Results) for row in message.rows}

    # ------------------------------------------------------------------------------------- peers

    def hello(
        self, peer: PeerId, role: str, name: str = "", python: str = "3.11", epoch: int = 0
    ) -> None:
        self.mail.setdefault(peer, [])
        hello = Hello(PROTOCOL_VERSION, role, peer, 0, epoch, 0, python, name)
        self.event(events.PeerJoined(peer, hello))

    def client(self, letter: str = "c") -> PeerId:
        peer = PeerId(letter.encode() * 6)
        self.hello(peer, "client", letter)
        self.say(peer, Enter(f"client-{letter}", Environment(directory="/home")))
        return peer

    def node(
        self,
        letter: str = "n",
        cpus: float = 2,
        name: str = "",
        labels: dict[str, str] | None = None,
        **more: float,
    ) -> PeerId:
        peer = PeerId(letter.encode() * 6)
        self.hello(peer, "node", name or letter)
        resources = {"CPU": float(cpus), **more}
        given, keeper = name or letter, f"keeper of {name or letter}"
        self.say(peer, Join(given, "host", 1, resources, labels=labels or {}, keeper=keeper))
        return peer

    # -------------------------------------------------------------------------------------- work

    def define(
        self, peer: PeerId, client: PeerId | None = None, name: str = "work", **options: Any
    ) -> int:
        number = self.kind_numbers[peer] = self.kind_numbers.get(peer, 0) + 1
        row = KindRow(number, name.encode().ljust(16)[:16], name, Options(**options), b"code")
        self.say(peer, Define(client or peer, [row]))
        return number

    def submit(
        self,
        peer: PeerId,
        kind: int,
        ids: list[TaskId],
        client: PeerId | None = None,
        parent: bytes = b"",
        depth: int = 0,
        **fields: Any,
    ) -> None:
        rows = [TaskRow(id_, kind, **fields) for id_ in ids]
        self.say(peer, Submit(client or peer, parent, depth, rows))

    def done(self, node: PeerId, *rows: DoneRow) -> None:
        self.say(node, Done(list(rows)))

    def finish(self, node: PeerId, rows: list[AssignRow], duration_s: float = 1.0) -> None:
        """Have a node end attempts with a value each."""
        self.done(node, *(value_done(row, duration_s=duration_s) for row in rows))

    def cancel(self, peer: PeerId, *ids: TaskId, **more: Any) -> None:
        force, recursive = more.get("force", False), more.get("recursive", True)
        self.say(peer, Cancel(list(ids), force, recursive, more.get("request", 0)))

    def blocked(self, node: PeerId, row: AssignRow, waits: bool = True) -> None:
        self.say(node, Blocked([(row.id, row.attempt, waits)]))

    def taken_back(self, node: PeerId, *rows: AssignRow) -> None:
        self.say(node, TakenBack([(row.id, row.attempt) for row in rows]))

    def beat(self, node: PeerId, *running: tuple[bytes, int, float]) -> None:
        self.say(node, Beat(0.01, 2, 0, [RunningRow(*row) for row in running]))

    def ask(self, peer: PeerId, what: str, **more: Any) -> Any:
        from drumbeat.protocol.messages import Answer

        self.say(peer, Query(1, what, **more))
        self.turn()
        (answer,) = self.take(peer, Answer)
        return answer.data

    def at_rest(self) -> bool:
        return not any(self.core.at_rest().values())


def value_done(
    row: AssignRow, payload: bytes = b"v", contained: tuple[bytes, ...] = (), **more: Any
) -> DoneRow:
    value = ValueRow(row.id, Outcome.VALUE, payload, 0, contained)
    return DoneRow(row.id, row.attempt, (value,), more.pop("duration_s", 1.0), **more)


def error_done(row: AssignRow, **more: Any) -> DoneRow:
    return DoneRow(row.id, row.attempt, (ValueRow(row.id, Outcome.ERROR, b"report"),), 1.0, **more)


def failure_done(row: AssignRow, error: str, **more: Any) -> DoneRow:
    failure = Failure(error, f"it was {error}", {"exit_code": 3})
    value = ValueRow(row.id, Outcome.FAILURE, failure=failure)
    return DoneRow(row.id, row.attempt, (value,), more.pop("duration_s", 1.0), **more)


def died(row: AssignRow) -> DoneRow:
    return failure_done(row, "WorkerDied", died=True)


def ids_of(peer: PeerId, count: int, worker: int = 0) -> list[TaskId]:
    make = IdFactory(peer, worker)
    return [make() for _ in range(count)]
