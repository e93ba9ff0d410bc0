"""A fake worker process: reads packets, runs scripts, answers as the real worker does.

Its main thread is a generator that yields how long it sleeps, or that it reads its socket. All that
a real process could do at a bad moment (die between two packets, be stopped, hold results back) it
does too.

Never looks at the node's core.
"""

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from drumbeat.node.events import StartWorker
from drumbeat.node.packets import (
    ActorMade,
    Answered,
    CancelTasks,
    Exit,
    Finished,
    FinishedRow,
    Item,
    KindDefinition,
    NestedKind,
    Ready,
    Refs,
    Returned,
    Run,
    RunRow,
    Submitted,
    ToWorker,
    Want,
    WantOver,
)
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId, TaskId, objects_of
from drumbeat.protocol.messages import Failure, Outcome, TaskRow, ValueRow

from . import scripts
from .running import DIE, READ, Interrupted, Main, Request, Running, TaskRaisedError
from .scripts import Report, Script, Spec, Value

if TYPE_CHECKING:
    from .oracle import Execution
    from .pool import FakePool

FLUSH_AFTER_S: Final = 0.001
HELPER_AFTER_S: Final = 0.003


class Worker:
    """One process."""

    def __init__(self, pool: "FakePool", command: StartWorker) -> None:
        self.pool = pool
        self.clock = pool.clock
        self.random = pool.random
        self.oracle = pool.oracle
        self.number = command.worker
        self.client = command.client
        self.num_cpus = command.num_cpus
        self.is_alive = True
        self.is_deaf = False
        self.socket: deque[ToWorker] = deque()
        #: the pulse page
        self.started = 0
        self.running = 0
        self.revoked = 0
        self.interrupt_seq = 0
        self.stopped_until_s = 0.0
        self.execution: Execution | None = None
        #: its page says that this has started, and its code has not begun
        self._beginning: RunRow | None = None
        #: the actor that it has become, with the row of its creation
        self.life: Execution | None = None
        self._hosts: RunRow | None = None
        self._ids = IdFactory(PeerId(pool.peer), command.worker)
        self._backlog: deque[RunRow] = deque()
        self._kinds: dict[int, KindDefinition] = {}
        self._announced: dict[bytes, int] = {}
        self._functions: dict[bytes, None] = {}
        self._pending: list[FinishedRow] = []
        self._unreported: list[Execution] = []
        self._last_flush_s = 0.0
        self._unsent = Submitted(b"", 0, [], [])
        self._requests = 0
        self._seen_seq = 0
        self._exiting = False
        #: refs that live here, and those that the node knows of
        self._local: dict[bytes, int] = {}
        self._known: dict[bytes, None] = {}
        self._token = 0
        self._reading = False
        self._interruptible = False
        self._main = self._life()
        self._go_on(None, self._token)

    # -------------------------------------------------------------------------- how it is driven

    def arrive(self, packet: ToWorker) -> None:
        """A packet lies in the socket."""
        self.socket.append(packet)
        if self._reading:
            self.clock.after(self.random.uniform(5e-6, 1e-4), self._read, self._token)

    def interrupt(self) -> None:
        """Raise Interrupted in the main thread."""
        if not self.is_alive:
            return
        if self.clock.now_s < self.stopped_until_s:
            self.clock.at(self.stopped_until_s, self.interrupt)
        elif self._interruptible and not self.is_deaf:
            self.oracle.count("task interrupted")
            self._interruptible = False
            self._token += 1
            self._reading = False
            self._next(self._main.throw, Interrupted())

    def stop(self, for_s: float) -> None:
        """SIGSTOP, and SIGCONT later."""
        self.stopped_until_s = max(self.stopped_until_s, self.clock.now_s + for_s)

    def die(
        self, status: int, signal_name: str, *, no_memory: bool = False, overdue: bool = False
    ) -> None:
        """The process ends here and now."""
        if not self.is_alive:
            return
        self.is_alive = False
        self._token += 1
        self._main.close()
        for running in (self.execution, self.life):
            if running is not None:
                self.oracle.died(running)
        for execution in self._unreported:
            self.oracle.died(execution)
        if self._beginning is not None:
            self.oracle.died_beginning(self._beginning)
        self.pool.exited(self, status, signal_name, no_memory, overdue)

    def _go_on(self, packet: ToWorker | None, token: int) -> None:
        if token != self._token or not self.is_alive:
            return
        if self.clock.now_s < self.stopped_until_s:
            self.clock.at(self.stopped_until_s, self._go_on, packet, token)
            return
        self._token += 1
        self._next(self._main.send, packet)

    def _next(self, resume: "object", value: object) -> None:
        try:
            request = resume(value)  # type: ignore[operator]
        except StopIteration:
            self.die(0, "")
            return
        if request is DIE:
            self.die(-11, "SIGSEGV")
        elif request is READ:
            self._reading = True
            if self.socket:
                self.clock.after(5e-6, self._read, self._token)
        else:
            self.clock.after(request, self._go_on, None, self._token)

    def _read(self, token: int) -> None:
        if token != self._token or not self.socket or not self.is_alive:
            return
        if self.clock.now_s < self.stopped_until_s:
            self.clock.at(self.stopped_until_s, self._read, token)
            return
        self._reading = False
        self._go_on(self.socket.popleft(), token)

    # -------------------------------------------------------------------------- the main thread

    def _life(self) -> Main:
        yield self.random.uniform(0.0005, 0.01)
        self.pool.spoke(self, Ready(pid=1000 + self.number))
        while True:
            if not self._backlog:
                self._flush()
                if self._exiting:
                    self._end_life()
                    return
                packet = yield READ
                self._take_in(packet)
                continue
            row = self._backlog.popleft()
            self.started = row.seq
            if self.random.random() < 0.1:
                self._beginning = row
                yield self.random.uniform(1e-6, 5e-4)
                self._beginning = None
            if self.revoked and row.seq >= self.revoked:
                self._backlog.appendleft(row)
                self._give_back()
                continue
            yield from self._run(row)

    def _take_in(self, packet: ToWorker | None) -> None:
        if isinstance(packet, Run):
            for definition in packet.definitions:
                self._kinds[definition.number] = definition
            for row in packet.rows:
                if row.seq <= self._seen_seq:
                    self.oracle.wrong(f"seq {row.seq} after {self._seen_seq} in {self._who()}")
                self._seen_seq = row.seq
            self._backlog.extend(packet.rows)
        elif isinstance(packet, Exit):
            self._exiting = True

    def _who(self) -> str:
        return f"worker {self.number} of {self.pool.node}"

    def _give_back(self) -> None:
        if self._backlog:
            self.oracle.count("rows returned")
            self.pool.spoke(self, Returned([row.seq for row in self._backlog]))
            self._backlog.clear()

    def _run(self, row: RunRow) -> Main:
        kind = self._kinds.get(row.kind)
        if kind is None or row.args is None:
            what = "kind" if kind is None else "arguments"
            self.oracle.wrong(f"{row.id.hex()} came to {self._who()} without its {what}")
            yield DIE
            return
        if self.interrupt_seq == row.seq:
            self._finish_unrun(row)
            return
        if self.oracle.is_lost(row.id, row.args):
            self._finish_lost(row)
            return
        script = scripts.read_script(row.args)
        self.oracle.check_function(kind.payload, script.spec)
        self.is_deaf = script.spec.deaf
        self.running = row.seq
        hosts = b"" if self._hosts is None else self._hosts.id
        self.execution = self.oracle.started(self.pool, self.number, row, script, hosts)
        if kind.creates or self._hosts is not None:
            self.oracle.acts.acts(self, self._hosts or row)
        began_s = self.clock.now_s
        self._interruptible = True
        retry = False
        task = Running(self, row, kind, script)
        try:
            values = yield from task.perform()
        except TaskRaisedError as raised:
            retry = script.spec.options.get("retry_exceptions", False)
            payload = scripts.pack(raised.report)
            values = (ValueRow(row.id, Outcome.ERROR, payload),)
        except Interrupted:
            values = (_cancelled(row),)
        self._interruptible = False
        self.running = 0
        self.is_deaf = False
        execution, self.execution = self.execution, None
        if kind.creates and values[0].outcome == Outcome.VALUE:
            task.let_go()
            self._begin_life(row, execution)
            return
        self.oracle.ended(execution)
        self._unreported.append(execution)
        self._flush_calls()
        duration_s = self.clock.now_s - began_s
        self._pending.append(FinishedRow(row.seq, tuple(values), duration_s, retry))
        task.let_go()
        late = self.clock.now_s - self._last_flush_s > FLUSH_AFTER_S
        if late or kind.max_retries == 0 or not self._backlog:
            self._flush()
        else:
            self.clock.after(HELPER_AFTER_S, self._helper)

    def _begin_life(self, row: RunRow, execution: "Execution") -> None:
        """The constructor has returned: calls may come."""
        self.oracle.count("actor made")
        self.life, self._hosts = execution, row
        execution.waits_for_ever = True
        self._flush_calls()
        self.pool.spoke(self, ActorMade(row.seq, self._newly_held()))

    def _end_life(self) -> None:
        """It was told to exit: its creation has a value."""
        if self.life is not None and self._hosts is not None:
            self.oracle.ended(self.life)
            self.life = None
            value = ValueRow(self._hosts.id, Outcome.VALUE)
            self._pending.append(FinishedRow(self._hosts.seq, (value,), 0.0))
            self._flush()

    def _finish_unrun(self, row: RunRow) -> None:
        """The interrupt was there before the task's code."""
        self.oracle.count("task interrupted before it ran")
        self._pending.append(FinishedRow(row.seq, (_cancelled(row),), 0.0))
        self._flush()

    def _finish_lost(self, row: RunRow) -> None:
        """Its arguments cannot be loaded: that is its error."""
        payload = scripts.pack(Report(self.oracle.tasks[TaskId(row.id)].spec.label, "lost", row.id))
        value = ValueRow(row.id, Outcome.ERROR, payload)
        self._pending.append(FinishedRow(row.seq, (value,), 0.0))
        self._flush()

    def _helper(self) -> None:
        """The helper thread: what is ready does not wait for the main thread."""
        if self.is_alive and self.clock.now_s >= self.stopped_until_s:
            self._flush_calls()
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self.pool.spoke(self, Finished(self._pending, self._newly_held()))
            for execution in self._unreported:
                self.oracle.reported(execution)
            self._pending, self._unreported = [], []
            self._last_flush_s = self.clock.now_s
        self.tell_refs()

    # -------------------------------------------------------------------------- refs

    def hold(self, id_: bytes) -> None:
        """One more ref lives in this process."""
        self._local[id_] = self._local.get(id_, 0) + 1

    def drop(self, id_: bytes) -> None:
        """One ref less."""
        left = self._local[id_] - 1
        if left:
            self._local[id_] = left
        else:
            del self._local[id_]

    def _newly_held(self) -> list[bytes]:
        held = [id_ for id_ in self._local if id_ not in self._known]
        self._known.update(dict.fromkeys(held))
        return held

    def tell_refs(self) -> None:
        """Tell the node what came to life here and what has gone for good."""
        if self._unsent.rows or self._unsent.puts:
            self._flush_calls()
        held = self._newly_held()
        dropped = [id_ for id_ in self._known if id_ not in self._local]
        for id_ in dropped:
            del self._known[id_]
        if held or dropped:
            self.pool.spoke(self, Refs(held, dropped))

    # -------------------------------------------------------------------------- nested calls

    def submit(self, row: RunRow, spec: Spec, script: Script, refs: list[bytes]) -> list[bytes]:
        """Queue a child; its refs live here from now on."""
        unsent = self._open_batch(row)
        options = scripts.options_of(spec)
        payload = scripts.function_payload(spec.function)
        key = scripts.pack((spec.function, options))
        number = self._announced.get(key)
        if number is None:
            number = self._announced[key] = len(self._announced) + 1
            hash_ = self.oracle.function_hash(spec.function)
            name = f"function{spec.function}"
            given = None if hash_ in self._functions else payload
            self._functions[hash_] = None
            unsent.kinds.append(NestedKind(number, hash_, name, options, given))
        task = self._ids()
        args = scripts.pack(script)
        contained = tuple(script.contained)
        unsent.rows.append(TaskRow(task, number, args, 0, tuple(refs), contained))
        self.oracle.submitted(TaskId(task), script, refs, parent=row.id, attempt=row.attempt)
        ids: list[bytes] = list(objects_of(TaskId(task), scripts.num_returns(spec)))
        for id_ in ids:
            self.hold(id_)
            self._known[id_] = None
        if len(unsent.rows) >= 128:
            self._flush_calls()
        return ids

    def put(self, row: RunRow, value: Value) -> bytes:
        """Keep a value as an object."""
        if self._unsent.rows:
            # As in the real worker: in one packet, puts come before calls.
            self._flush_calls()
        unsent = self._open_batch(row)
        id_ = self._ids()
        payload = scripts.pack(value)
        unsent.puts.append(ValueRow(id_, Outcome.VALUE, payload, 0, tuple(value.refs)))
        self.oracle.was_put(ObjectId(id_), value, client=self.client)
        self.hold(id_)
        self._known[id_] = None
        return id_

    def _open_batch(self, row: RunRow) -> Submitted:
        if not self._unsent.rows and not self._unsent.puts:
            self._unsent = Submitted(row.id, row.depth + 1, [], [], [])
            self.clock.after(HELPER_AFTER_S, self._helper)
        return self._unsent

    def _flush_calls(self) -> None:
        unsent = self._unsent
        if unsent.rows or unsent.puts:
            self._unsent = Submitted(b"", 0, [], [])
            self.pool.spoke(self, unsent)

    def want(
        self, row: RunRow, ids: list[bytes], count: int, timeout_s: float | None, values: bool
    ) -> Generator[Request, ToWorker | None, Answered]:
        """Wait as get() and wait() do, CPUs lent, the rest of the packet given back."""
        self._flush_calls()
        self._give_back()
        self._flush()
        self._requests += 1
        request = self._requests
        execution = self.execution
        self.pool.spoke(self, Want(request, row.seq, ids, count, timeout_s, values))
        self.oracle.lent(execution, timeout_s)
        try:
            answered = yield from self._await_answer(request)
        except Interrupted:
            # It goes on when its CPUs are its own again, and nothing interrupts it twice.
            self.oracle.count("get interrupted")
            self.pool.spoke(self, WantOver(request))
            yield from self._await_answer(request)
            self.oracle.regained(execution)
            raise
        self.oracle.regained(execution)
        return answered

    def yields(self, item: Item) -> None:
        """Tell what a task has yielded, after all that it names."""
        self._flush_calls()
        self.pool.spoke(self, item)

    def await_reader(
        self, row: RunRow, received: int, read: int, *, lends: bool
    ) -> Generator[Request, ToWorker | None, tuple[int, int]]:
        """Wait until so many items were received, and so many read; return how many that are."""
        self._flush_calls()
        if lends:
            self._give_back()
        self._flush()
        self._requests += 1
        request, execution = self._requests, self.execution
        reads = (received, read)
        self.pool.spoke(self, Want(request, row.seq, [], 0, None, False, lends, reads=reads))
        if lends:
            self.oracle.lent(execution, None)
        try:
            answered = yield from self._await_answer(request)
        except Interrupted:
            self.oracle.count("wait for a reader interrupted")
            if lends:
                self.pool.spoke(self, WantOver(request))
                yield from self._await_answer(request)
                self.oracle.regained(execution)
            raise
        if lends:
            self.oracle.regained(execution)
        # Where its node has let go of the task nobody counts any more: it goes on, to its end.
        return tuple(answered.data or reads)

    def _await_answer(self, request: int) -> Generator[Request, ToWorker | None, Answered]:
        while True:
            packet = yield READ
            if isinstance(packet, Answered) and packet.request == request:
                return packet
            self._take_in(packet)
            self._give_back()

    def cancel(self, ids: list[bytes], force: bool) -> None:
        """Cancel other tasks."""
        self._flush_calls()
        self.pool.spoke(self, CancelTasks(ids, force, True))


def _cancelled(row: RunRow) -> ValueRow:
    failure = Failure("TaskCancelled", "the task was cancelled")
    return ValueRow(row.id, Outcome.FAILURE, failure=failure)
