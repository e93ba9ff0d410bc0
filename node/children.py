"""What workers ask of the cluster: nested calls, puts, cancels and questions, passed on.

Never trusts a worker's numbers: kinds and requests go to the scheduler under the node's own. Never
lets go of a call before its result is here: another scheduler may have to be told of it.
"""

from collections.abc import Iterable
from itertools import groupby
from typing import Any, NamedTuple

from msgspec.structs import replace

from ..protocol.actors import ActorName
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
    Release,
    Retried,
    Submit,
    TakeStock,
    TaskRow,
    ValueRow,
)
from .attempts import Worker
from .events import SendBlob
from .objects import Call
from .packets import Answered, Ask, CancelTasks, ItemsRead, NestedKind, Submitted
from .state import NodeState
from .stock import stock_of

#: in one Submit that tells of former attempts: it cannot be divided on its way
SUBMIT_ROWS_MAX = 512


class KindKey(NamedTuple):
    """What makes two workers' kinds the same."""

    client: bytes
    function: bytes
    name: str
    options: Options


class Request(NamedTuple):
    """A worker's question that the scheduler has yet to answer."""

    worker: int
    #: the worker's number for it
    number: int
    message: Cancel | Query


class Children:
    """The node as submitter, on behalf of its workers."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self._last_kind = 0
        self._last_request = 0
        #: our number, and what a number stands for
        self._numbers: dict[KindKey, int] = {}
        self._kinds: dict[int, KindKey] = {}
        #: (client, function) -> its code
        self._codes: dict[tuple[bytes, bytes], bytes] = {}
        #: kinds, and functions, that this life of the scheduler does not have from us
        self._untold: dict[int, None] = {}
        self._unsent: dict[tuple[bytes, bytes], None] = {}
        #: how many kinds of each function this life of the scheduler has from us
        self._uses: dict[tuple[bytes, bytes], int] = {}
        #: of calls of actors: the workers that use one, and their numbers for it
        self._users: dict[int, list[tuple[int, int]]] = {}
        #: kinds to be told at the end of the turn: not used again
        self.forgotten: list[int] = []
        #: by our number
        self.requests: dict[int, Request] = {}
        #: by worker, by creation: names that it has asked for, for actors not submitted yet
        self._names: dict[int, dict[bytes, ActorName]] = {}

    def submitted(self, worker: Worker, packet: Submitted) -> None:
        """A worker's task calls others, or puts values."""
        client = worker.crew.key.client
        self._learn(worker, client, packet.kinds)
        if self._untold:
            numbers = [worker.nested.get(row.kind, 0) for row in packet.rows]
            self._define(client, numbers)
        for value in packet.puts:
            self._state.objects.put(value, worker)
        rows = [row for task in packet.rows if (row := self._row(worker, packet, task)) is not None]
        if rows:
            for row in rows if worker.number in self._names else ():
                self._no_name(worker.number, row.id)
            self._state.send(Submit(client, packet.parent, packet.depth, rows))

    def cancel(self, worker: Worker, packet: CancelTasks) -> None:
        """A worker's task cancels others."""
        message = Cancel(packet.ids, packet.force, packet.recursive, restart=packet.restart)
        if packet.request:
            message.request = self._ask(worker, packet.request, message)
        elif not packet.restart:  # what dies is not killed again because the scheduler is another
            calls = self._state.objects.calls
            for call in [calls[task] for task in packet.ids if task in calls]:
                call.cancelled = True
                call.force = call.force or packet.force
                call.recursive = call.recursive or packet.recursive
        self._state.send(message)

    def read(self, worker: Worker, packet: ItemsRead) -> None:
        """A worker has read what a task of its has yielded; if it reads no more, that is ended."""
        task = TaskId(packet.task)
        if self._state.objects.takings.read(worker, task, packet.count, over=packet.over):
            self.cancel(worker, CancelTasks([task], force=False, recursive=True))

    def ask(self, worker: Worker, packet: Ask) -> None:
        """A worker asks the scheduler something."""
        named = packet.named
        message = Query(0, packet.what, packet.limit, packet.match, named=named)
        if named is None or not named.frees:
            message.request = self._ask(worker, packet.request, message)
            if named is not None and named.id:
                self._names.setdefault(worker.number, {})[named.id] = named
        else:
            self._no_name(worker.number, named.id)
            self._drop_requests(named.id)
        self._state.send(message)

    def _no_name(self, worker: int, id_: bytes) -> None:
        """An actor has been submitted, or will not be: its name is nothing to be let go."""
        names = self._names.get(worker)
        if names is not None and names.pop(id_, None) is not None and not names:
            del self._names[worker]

    def _drop_requests(self, id_: bytes) -> None:
        """Whoever has asked for a name needs it no more: another scheduler is not asked again."""
        for number, asked in list(self.requests.items()):
            message = asked.message
            if isinstance(message, Query) and message.named is not None and message.named.id == id_:
                del self.requests[number]

    def answered(self, message: Answer | Cancelled) -> None:
        """The scheduler has answered a request."""
        request = self.requests.pop(message.request, None)
        worker = self._state.workers.get(request.worker) if request is not None else None
        if request is not None and worker is not None and not worker.dropped:
            data: Any = message.data if isinstance(message, Answer) else list(message.dropped)
            self._state.answer(worker, Answered(request.number, data=data))
            named = request.message.named if isinstance(request.message, Query) else None
            if named is not None and data.get("id") != named.id:
                self._no_name(worker.number, named.id)  # another actor has it

    def retried(self, message: Retried) -> None:
        """Attempts were charged, and others may start: those were the last we know of."""
        calls = self._state.objects.calls
        for task, attempt in message.rows:
            call = calls.get(task)
            if call is not None and call.attempt < attempt:
                call.attempt = attempt

    def take_stock(self, message: TakeStock) -> None:
        """Somebody wants to know what is kept here for the workers."""
        self._state.send(stock_of(message, self._state))

    def worker_gone(self, worker: Worker) -> None:
        """Nobody waits for the answers to a worker's requests any more."""
        unread: list[bytes] = [*self._state.objects.takings.worker_gone(worker)]
        if unread:
            self.cancel(worker, CancelTasks(unread, force=False, recursive=True))
        gone = [number for number, asked in self.requests.items() if asked.worker == worker.number]
        for number in gone:
            del self.requests[number]
        # What it has asked names for and not submitted comes to nothing.
        for named in self._names.pop(worker.number, {}).values():
            self._state.send(Query(0, "name", named=named.freed()))

    def forget_client(self, client: bytes) -> None:
        """A client has left: its kinds are not used again."""
        numbers = [number for key, number in self._numbers.items() if key.client == client]
        self._numbers = {key: n for key, n in self._numbers.items() if key.client != client}
        self._codes = {key: code for key, code in self._codes.items() if key[0] != client}
        self._unsent = {key: None for key in self._unsent if key[0] != client}
        self._uses = {key: count for key, count in self._uses.items() if key[0] != client}
        for number in numbers:
            del self._kinds[number]
            self._users.pop(number, None)
            if number in self._untold:
                del self._untold[number]
            else:
                self.forgotten.append(number)

    def sweep(self) -> None:
        """Let go of what nobody here needs any more, and tell whom that matters to."""
        objects = self._state.objects
        released = objects.sweep()
        if objects.filed or objects.brought:
            self._state.stow()
        if objects.uncalled:
            self._forget_calls()
        if objects.unheld:
            unheld, objects.unheld = objects.unheld, []
            self._state.send(Cancel(unheld, force=False, recursive=False, exit=True))
        if released:
            self._state.send(Release(released))

    def _forget_calls(self) -> None:
        """Forget how actors were called that nobody here can call any more."""
        numbers, self._state.objects.uncalled = self._state.objects.uncalled, []
        for number in numbers:
            key = self._kinds.pop(number, None)
            if key is None:
                continue  # its client has left
            del self._numbers[key]
            for user, own_number in self._users.pop(number, ()):
                worker = self._state.workers.get(user)
                if worker is not None:
                    worker.nested.pop(own_number, None)
            if number in self._untold:
                del self._untold[number]
                continue
            self.forgotten.append(number)
            function = key[:2]
            self._uses[function] -= 1
            if not self._uses[function]:
                # The scheduler forgets the function with the last of its kinds.
                del self._uses[function]
                self._unsent[function] = None

    def flush(self) -> None:
        """Tell what is not used again."""
        forgotten, self.forgotten = self.forgotten, []
        self._state.send(Forget(forgotten))

    def clear(self) -> None:
        """The scheduler has given this node up."""
        self._numbers.clear()
        self._kinds.clear()
        self._codes.clear()
        self._untold.clear()
        self._unsent.clear()
        self._uses.clear()
        self._users.clear()
        self.forgotten.clear()
        self.requests.clear()
        self._names.clear()

    # ------------------------------------------------------------------- another scheduler life

    def resumed(self) -> None:
        """The scheduler is there again, and is sent what was called meanwhile."""
        for call in self._state.objects.calls.values():
            call.attempt = call.attempt or 1

    def restarted(self) -> None:
        """The scheduler is another: it has nothing from us."""
        self._untold = dict.fromkeys(self._kinds)
        self._unsent = dict.fromkeys(self._codes)
        self._uses.clear()
        self.forgotten.clear()

    def submit_again(self) -> None:
        """Tell another scheduler of all calls that have no result, with the kinds they use."""
        calls = list(self._state.objects.calls.values())
        used = dict.fromkeys(call.row.kind for call in calls)
        for client in dict.fromkeys(self._kinds[number].client for number in used):
            self._define(client, [n for n in used if self._kinds[n].client == client])
        for (client, parent, depth), group in groupby(calls, _origin):
            siblings = list(group)
            for start in range(0, len(siblings), SUBMIT_ROWS_MAX):
                share = siblings[start : start + SUBMIT_ROWS_MAX]
                rows = [self._outgoing(call.row) for call in share]
                attempts = [call.attempt for call in share]
                self._state.send(Submit(client, parent, depth, rows, attempts))
        self.resumed()

    def ask_again(self) -> None:
        """Cancel again what was to be cancelled, and ask again what was not answered."""
        cancels: dict[tuple[bool, bool], list[bytes]] = {}
        calls = self._state.objects.calls
        for task, call in calls.items():
            if call.cancelled:
                cancels.setdefault((call.force, call.recursive), []).append(task)
        for (force, recursive), tasks in cancels.items():
            self._state.send(Cancel(tasks, force, recursive))
        unheld: list[bytes] = [task for task, call in calls.items() if call.exits]
        if unheld:
            self._state.send(Cancel(unheld, force=False, recursive=False, exit=True))
        for request in self.requests.values():
            self._state.send(request.message)

    # ------------------------------------------------------------------------------------ inside

    def _ask(self, worker: Worker, number: int, message: Cancel | Query) -> int:
        self._last_request += 1
        self.requests[self._last_request] = Request(worker.number, number, message)
        return self._last_request

    def _learn(self, worker: Worker, client: bytes, kinds: list[NestedKind]) -> None:
        # A worker sends a function once, and others may have sent it before.
        new = []
        for kind in kinds:
            key = KindKey(client, kind.function, kind.name, kind.options)
            number = self._numbers.get(key)
            if number is None:
                if (client, kind.function) not in self._codes:
                    if kind.payload is None:
                        continue
                    self._codes[client, kind.function] = kind.payload
                    self._unsent[client, kind.function] = None
                self._last_kind = number = self._last_kind + 1
                self._numbers[key] = number
                self._kinds[number] = key
                self._untold[number] = None
                new.append(number)
                if kind.options.actor:
                    self._state.objects.called.setdefault(kind.options.actor, []).append(number)
            worker.nested[kind.number] = number
            if kind.options.actor:
                self._users.setdefault(number, []).append((worker.number, kind.number))
        if new:
            self._define(client, new)

    def _define(self, client: bytes, numbers: Iterable[int]) -> None:
        rows = []
        for number in numbers:
            if number not in self._untold:
                continue
            del self._untold[number]
            key = self._kinds[number]
            row, function = KindRow(number, key.function, key.name, key.options), key[:2]
            self._uses[function] = self._uses.get(function, 0) + 1
            if function in self._unsent:
                del self._unsent[function]
                code = self._codes[function]
                if len(code) > self._state.settings.inline_bytes_max:
                    row.size = len(code)
                    self._state.commands.append(SendBlob(key.function, code))
                else:
                    row.payload = code
            rows.append(row)
        if rows:
            self._state.send(Define(client, rows))

    def _row(self, worker: Worker, packet: Submitted, task: TaskRow) -> TaskRow | None:
        objects = self._state.objects
        if task.id in objects.calls:
            return None
        number = worker.nested.get(task.kind)
        key = self._kinds[number] if number is not None else None
        options = Options() if key is None else key.options
        # Who calls an actor needs it at least until the result is here.
        actor = (options.actor,) if options.actor else ()
        values = self._values(task) if task.deps else task.values
        row = TaskRow(task.id, number or 0, task.args, 0, task.deps, task.contained, values)
        call = Call(
            client=worker.crew.key.client,
            num_returns=options.num_returns,
            pins=task.deps + task.contained + actor,
            left=max(1, options.num_returns),
            row=row,
            parent=packet.parent,
            depth=packet.depth,
            attempt=1 if self._state.connected else 0,
            creates=options.creates is not None and not options.creates.detached,
            name="a task" if key is None else key.name,
            yields=options.stream_buffer_max > 0,
        )
        objects.submit(TaskId(task.id), call, worker)
        if number is None:
            text = "a nested call names a function that its worker has not defined"
            objects.fail(TaskId(task.id), Failure("ObjectLost", text))
            return None
        return self._outgoing(row)

    def _outgoing(self, row: TaskRow) -> TaskRow:
        # As it is sent: large arguments go by the bulk link.
        args = row.args
        if args is None or len(args) <= self._state.settings.inline_bytes_max:
            return row
        key, kind = row.id + b"a", self._kinds.get(row.kind)
        # What makes a detached actor outlives this node.
        outlives = kind is None or kind.options.creates is not None
        self._state.commands.append(SendBlob(key, args, b"" if outlives else key))
        return replace(row, args=None, size=len(args))

    def _values(self, task: TaskRow) -> tuple[ValueRow, ...]:
        # What the scheduler would have to ask us for, and is small, goes along.
        given = {row.id: row for row in task.values}
        for id_ in task.deps:
            if id_ not in given:
                row = self._state.objects.known(ObjectId(id_))
                if row is not None:
                    given[id_] = row
        return tuple(given.values())


def _origin(call: Call) -> tuple[bytes, bytes, int]:
    return call.client, call.parent, call.depth
