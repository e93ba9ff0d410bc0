"""What workers ask of the cluster: nested calls, puts, cancels and questions, passed on.

Never trusts a worker's numbers: kinds and requests go to the scheduler under the node's own.
"""

from typing import Any

from ..protocol.ids import ObjectId, TaskId
from ..protocol.messages import (
    Answer,
    Cancel,
    Cancelled,
    Define,
    Failure,
    Forget,
    KindRow,
    Options,
    Query,
    Submit,
    TaskRow,
    ValueRow,
)
from .attempts import Worker
from .events import SendBlob
from .objects import Call
from .packets import Answered, Ask, CancelTasks, NestedKind, Submitted
from .state import NodeState


class Children:
    """The node as submitter, on behalf of its workers."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._last_kind = 0
        self._last_request = 0
        #: (client, function, name, options) -> our number, and what a number stands for
        self._kinds: dict[tuple[bytes, bytes, str, Options], int] = {}
        self._returns: dict[int, int] = {}
        #: functions that the scheduler has from us in this link life
        self._sent: dict[tuple[bytes, bytes], None] = {}
        #: our request -> (worker, its request)
        self.requests: dict[int, tuple[int, int]] = {}

    def submitted(self, worker: Worker, packet: Submitted) -> None:
        """A worker's task calls others, or puts values."""
        client = worker.crew.key.client
        self._define(worker, client, packet.kinds)
        for value in packet.puts:
            self._state.objects.put(value, worker)
        rows = [row for task in packet.rows if (row := self._row(worker, task)) is not None]
        if rows:
            self._state.send(Submit(client, packet.parent, packet.depth, rows))

    def cancel(self, worker: Worker, packet: CancelTasks) -> None:
        """A worker's task cancels others."""
        request = self._request(worker, packet.request) if packet.request else 0
        self._state.send(Cancel(packet.ids, packet.force, packet.recursive, request))

    def ask(self, worker: Worker, packet: Ask) -> None:
        """A worker asks the scheduler something."""
        request = self._request(worker, packet.request)
        self._state.send(Query(request, packet.what, packet.limit, packet.match))

    def answered(self, message: Answer | Cancelled) -> None:
        """The scheduler has answered a request."""
        number, request = self.requests.pop(message.request, (0, 0))
        worker = self._state.workers.get(number)
        if worker is not None and not worker.dropped:
            data: Any = message.data if isinstance(message, Answer) else list(message.dropped)
            self._state.answer(worker, Answered(request, data=data))

    def worker_gone(self, worker: Worker) -> None:
        """Nobody waits for the answers to a worker's requests any more."""
        gone = [number for number, asker in self.requests.items() if asker[0] == worker.number]
        for number in gone:
            del self.requests[number]

    def forget_client(self, client: bytes) -> None:
        """A client has left: its kinds are not used again."""
        numbers = [number for key, number in self._kinds.items() if key[0] == client]
        self._kinds = {key: number for key, number in self._kinds.items() if key[0] != client}
        self._sent = {key: None for key in self._sent if key[0] != client}
        for number in numbers:
            del self._returns[number]
        if numbers:
            self._state.send(Forget(numbers))

    def clear(self) -> None:
        """The link's life is over."""
        self._kinds.clear()
        self._returns.clear()
        self._sent.clear()
        self.requests.clear()

    # ------------------------------------------------------------------------------------ inside

    def _request(self, worker: Worker, request: int) -> int:
        self._last_request += 1
        self.requests[self._last_request] = (worker.number, request)
        return self._last_request

    def _define(self, worker: Worker, client: bytes, kinds: list[NestedKind]) -> None:
        rows = []
        for kind in kinds:
            options = kind.options
            key = (client, kind.function, kind.name, options)
            number = self._kinds.get(key)
            if number is None:
                payload: bytes | None = None
                if (client, kind.function) not in self._sent:
                    payload = kind.payload
                    if payload is None:
                        continue
                    self._sent[client, kind.function] = None
                self._last_kind = number = self._last_kind + 1
                self._kinds[key] = number
                self._returns[number] = options.num_returns
                row = KindRow(number, kind.function, kind.name, options, payload)
                if payload is not None and len(payload) > self._state.settings.inline_bytes_max:
                    row.payload, row.size = None, len(payload)
                    self._state.commands.append(SendBlob(kind.function, payload))
                rows.append(row)
            worker.nested[kind.number] = number
        if rows:
            self._state.send(Define(client, rows))

    def _row(self, worker: Worker, task: TaskRow) -> TaskRow | None:
        state, objects = self._state, self._state.objects
        if task.id in objects.calls:
            return None
        kind = worker.nested.get(task.kind)
        returns = self._returns.get(kind, 1) if kind is not None else 1
        pins = task.deps + task.contained
        call = Call(worker.crew.key.client, returns, pins, max(1, returns))
        objects.submit(TaskId(task.id), call, worker)
        if kind is None:
            text = "a nested call names a function that its worker has not defined"
            objects.fail(TaskId(task.id), Failure("ObjectLost", text))
            return None
        args, size = task.args, task.size
        if args is not None and len(args) > state.settings.inline_bytes_max:
            state.commands.append(SendBlob(task.id + b"a", args))
            size = len(args)
            args = None
        values = self._values(task) if task.deps else task.values
        return TaskRow(task.id, kind, args, size, task.deps, task.contained, values)

    def _values(self, task: TaskRow) -> tuple[ValueRow, ...]:
        # What the scheduler would have to ask us for, and is small, goes along.
        given = {row.id: row for row in task.values}
        for id_ in task.deps:
            if id_ not in given:
                row = self._state.objects.known(ObjectId(id_))
                if row is not None:
                    given[id_] = row
        return tuple(given.values())
