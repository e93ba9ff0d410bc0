"""A client core, with short words for what tests do to it and look for in its commands."""

from typing import Any

from drumbeat.client import events
from drumbeat.client.core import ClientCore
from drumbeat.client.events import (
    Call,
    Connected,
    Free,
    Put,
    Received,
    RefsChanged,
    Resolve,
    Send,
    Submitted,
)
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId, TaskId
from drumbeat.protocol.messages import (
    Environment,
    KindRow,
    Options,
    Outcome,
    Results,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.settings import Settings

PEER = PeerId(b"client")
NODE = PeerId(b"node01")
LARGE = b"x" * (Settings().inline_bytes_max + 1)


class Client:
    """A core, with short words for what tests do to it."""

    def __init__(self, connected: bool = True, **settings: Any) -> None:
        self.core = ClientCore(Settings(**settings), PEER, "program", Environment(host="here"))
        self.next_id = IdFactory(PEER)
        self.kind_numbers = 0
        self.options: dict[int, Options] = {}
        if connected:
            self.connect(1)

    def do(self, *some: events.Event) -> list[Any]:
        commands: list[Any] = []
        for event in some:
            commands += self.core.handle(event, 0.0)
        commands += self.core.turn(0.0)
        self.core.check_invariants()
        return commands

    def connect(self, epoch: int, resumed: bool = False) -> list[Any]:
        return self.do(Connected(epoch, resumed))

    def kind(self, function: bytes = b"f", payload: bytes = b"code", **options: Any) -> KindRow:
        self.kind_numbers += 1
        self.options[self.kind_numbers] = Options(**options)
        return KindRow(
            self.kind_numbers, function * 16, "work", self.options[self.kind_numbers], payload
        )

    def call(self, kind: int, **row: Any) -> Call:
        return Call(TaskRow(self.next_id(), kind, **row), self.options[kind])

    def submit(self, _options: dict[str, Any] | None = None, **row: Any) -> TaskId:
        kind = self.kind(**(_options or {}))
        call = self.call(kind.number, **row)
        self.do(Submitted([kind], [call]))
        return TaskId(call.row.id)

    def put(self, payload: bytes = b"v", contained: tuple[bytes, ...] = ()) -> ObjectId:
        id_ = ObjectId(self.next_id())
        self.do(Put([ValueRow(id_, Outcome.VALUE, payload, contained=contained)]))
        return id_

    def segment(self, size: int = 1 << 20) -> ObjectId:
        id_ = ObjectId(self.next_id())
        self.do(Put([ValueRow(id_, Outcome.VALUE, None, size)]))
        return id_

    def result(self, *rows: ValueRow) -> list[Any]:
        return self.do(Received(Results(list(rows))))

    def drop(self, *ids: bytes) -> list[Any]:
        return self.do(RefsChanged([(ObjectId(id_), -1) for id_ in ids]))

    def at_rest(self) -> bool:
        return not any(self.core.at_rest().values())


def value(id_: bytes, payload: bytes = b"v", contained: tuple[bytes, ...] = ()) -> ValueRow:
    return ValueRow(id_, Outcome.VALUE, payload, len(payload), contained)


def sent(commands: list[Any], type_: type[Any] | None = None) -> list[Any]:
    messages = [command.message for command in commands if isinstance(command, Send)]
    return [one for one in messages if type_ is None or isinstance(one, type_)]


def resolved(commands: list[Any]) -> list[ValueRow]:
    return [row for one in commands if isinstance(one, Resolve) for row in one.rows]


def freed(commands: list[Any]) -> list[bytes]:
    return [id_ for one in commands if isinstance(one, Free) for id_ in one.ids]


def foreign(number: int = 1) -> ObjectId:
    return ObjectId(foreign_ids(number)[-1])


def foreign_ids(number: int) -> list[ObjectId]:
    """Return so many ids of what another peer has made."""
    ids = IdFactory(NODE, 3)
    return [ObjectId(ids()) for _ in range(number)]


def received_with(client: Client, *contained: bytes) -> TaskId:
    """Have a result come in that delivers these refs."""
    task = client.submit()
    client.result(value(task, contained=contained))
    return task
