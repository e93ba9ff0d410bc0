"""The oracle: what users saw and what workers executed, and whether the promises were kept.

Never looks into a core. What can be judged at once (a wrong value, a task run too often, a node
over-committed) is judged at once; what needs the whole story is judged at the end, in `judge.py`.
"""

from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING

from drumbeat.node.packets import Answered, RunRow
from drumbeat.protocol.absent import reason_of
from drumbeat.protocol.ids import ObjectId, TaskId, objects_of, task_of
from drumbeat.protocol.messages import Options, Outcome, ValueRow
from drumbeat.protocol.standstill import Deadlock
from msgspec.structs import replace

from . import scripts, streams
from .actors import Acts
from .limits import Limited
from .scripts import Script, Spec, Thing, Value

if TYPE_CHECKING:
    from .clock import Clock
    from .pool import FakePool


class Execution:
    """One run of a task's code."""

    __slots__ = (
        "attempt", "began_s", "ended_s", "gpus", "has_cpus", "is_running", "node", "peer", "task",
        "waits_for_ever",
    )  # fmt: skip

    def __init__(
        self, task: "Known", attempt: int, pool: "FakePool", gpus: tuple[int, ...], began_s: float
    ) -> None:
        self.task = task
        self.attempt = attempt
        self.node = pool.node
        self.peer = pool.peer
        self.gpus = gpus
        self.began_s = began_s
        self.ended_s = float("inf")
        self.is_running = True
        self.has_cpus = True
        #: it is in a get() or wait() without a timeout
        self.waits_for_ever = False


class Known:
    """One task, from its submit on."""

    __slots__ = (
        "cancelled_s", "deps", "died", "dropped_s", "ended", "executions", "hearsay", "id",
        "is_asked_to_stop", "options", "parent", "rows", "seen_in", "spec", "submitted_s",
    )  # fmt: skip

    def __init__(
        self, id_: TaskId, spec: Spec, deps: list[bytes], parent: bytes, submitted_s: float
    ) -> None:
        self.id = id_
        self.spec = spec
        self.options: Options = scripts.options_of(spec)
        self.deps = deps
        self.parent = parent
        self.submitted_s = submitted_s
        self.executions: list[Execution] = []
        #: attempts that ended with their worker, and executions that came to their end
        self.died = 0
        self.ended = 0
        self.is_asked_to_stop = False
        #: since when its user knows that it was cancelled, and that it never ran
        self.cancelled_s = -1.0
        self.dropped_s = -1.0
        #: the final rows that somebody saw, by object
        self.rows: dict[bytes, ValueRow] = {}
        #: and in which life of their home
        self.seen_in: dict[bytes, int] = {}
        #: what others saw before its submitter did, and in which epoch of the scheduler
        self.hearsay: dict[bytes, int] = {}

    def ran_too_often(self) -> str:
        """Say so if it was run more often than it may."""
        count, retries = len(self.executions), self.options.max_retries
        creates = self.options.creates
        if count <= 1 + retries or (creates is not None and creates.restart_window_s):
            return ""
        return f"{self.id.hex()} was run {count} times, with max_retries={retries}"


class Oracle:
    """All that was seen."""

    def __init__(
        self, clock: "Clock", capacities: dict[str, dict[str, float]], backoff_max_s: float
    ) -> None:
        self.clock = clock
        self.backoff_max_s = backoff_max_s
        self.capacities = capacities
        self.tasks: dict[bytes, Known] = {}
        self.things: dict[bytes, Thing] = {}
        #: what the rows of values with a segment state as their size
        self.behind: dict[bytes, int] = {}
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        #: peers one of whose link lives ended, by a crash or because they were given up
        self.lives_lost: dict[bytes, int] = {}
        #: of the scheduler that lives, or lived last
        self.epoch = 1
        #: nodes that the scheduler's next life did not wait for any longer: what they run may be
        #: started elsewhere, but they are not given up
        self.lives_late: dict[bytes, None] = {}
        #: nodes that are drained, and those that ended in peace: nothing was lost with them
        self.drains: dict[bytes, None] = {}
        self.parted: dict[bytes, None] = {}
        #: names of nodes that were drained: for a while there was none of that name
        self.drained: dict[str, None] = {}
        #: since when the scheduler has known of each node
        self.joined_s: dict[str, float] = {}
        #: clients that left or crashed: that is no trouble of anybody else's
        self.clients_gone: dict[bytes, None] = {}
        #: attempts that the scheduler has found to wait for ever
        self.deadlocked: dict[tuple[bytes, int], None] = {}
        #: rows that were no value -> who saw them
        self.failures: list[tuple[ValueRow, str]] = []
        #: two runs of one task at once: one of the nodes must turn out to be lost
        self.doubles: list[tuple[Known, tuple[bytes, bytes]]] = []
        self._used: dict[str, dict[str, float]] = {name: {} for name in capacities}
        self._gpus: dict[tuple[str, int], float] = {}
        self._hashes: dict[int, bytes] = {}
        self.acts = Acts(self)
        self.limited = Limited(self)
        #: whether a node may not have been heard for a while; set by the world
        self.may_be_silent: Callable[[bytes], bool] = lambda _peer: True

    def wrong(self, text: str) -> None:
        """A promise is broken."""
        self.violations.append(f"{self.clock.now_s:.6f}: {text}")

    def count(self, path: str, times: int = 1) -> None:
        """A rare path was taken."""
        self.counts[path] += times

    def life_lost(self, peer: bytes) -> None:
        """A link life of this peer ended."""
        if peer not in self.clients_gone and peer not in self.parted:
            self.lives_lost[peer] = self.lives_lost.get(peer, 0) + 1

    def reaped(self, peer: bytes, node: str) -> None:
        """The lease of a node has ended, and with it an actor."""
        self.count("actor ended with its node's lease")
        if not self.may_be_silent(peer):
            self.wrong(f"the lease of {node} has ended, and nothing is wrong with it")

    def life_late(self, peer: bytes) -> None:
        """The scheduler's next life goes on without this node."""
        if peer not in self.parted:
            self.lives_late[peer] = None

    def drain_begun(self, node: str, peer: bytes) -> None:
        """From here on nothing may start on a node."""
        self.count("node drained")
        self.drains[peer] = None
        self.drained[node] = None

    def drain_ended(self, peer: bytes) -> None:
        """A node that was drained has ended."""
        self.count("drain ended")
        if peer not in self.lives_lost:
            self.count("drain ended in peace")
        self.parted[peer] = None
        for known in self.tasks.values():
            if any(one.is_running and one.peer == peer for one in known.executions):
                self.wrong(f"{known.id.hex()} runs on a node that has ended in peace")

    def function_hash(self, function: int) -> bytes:
        """Return the name of a function's payload."""
        found = self._hashes.get(function)
        if found is None:
            payload = scripts.function_payload(function)
            found = self._hashes[function] = blake2b(payload, digest_size=16).digest()
        return found

    # -------------------------------------------------------------------------- what is asked for

    def submitted(
        self, id_: TaskId, script: Script, deps: list[bytes], parent: bytes = b"", attempt: int = 0
    ) -> None:
        """A user or a task submits."""
        if id_ in self.tasks:
            self.wrong(f"the id {id_.hex()} was given twice")
        spec = script.spec
        self.tasks[id_] = Known(id_, spec, deps, parent, self.clock.now_s)
        things = scripts.ideal(
            spec,
            spec.label,
            [self.things[dep] for dep in deps],
            [self.things[ref] for ref in script.contained],
        )
        ids = streams.ids_of(id_, spec) if spec.items else objects_of(id_, len(things))
        self.things.update(zip(ids, things, strict=True))

    def was_put(self, id_: ObjectId, value: Value, client: bytes = b"", behind: int = 0) -> None:
        """A user or a task puts a value; `behind`: so many bytes of it lie in a segment."""
        if behind:
            self.behind[id_] = behind
        self.things[id_] = Thing(value.number, [self.things[ref] for ref in value.refs])

    def cancel_asked(self, ids: list[bytes]) -> None:
        """Somebody cancels these."""
        for id_ in ids:
            if (known := self.tasks.get(id_)) is not None:
                known.is_asked_to_stop = True

    def cancel_answered(self, ids: list[bytes], dropped: list[bool]) -> None:
        """The canceller was told which had not started and never will."""
        if len(ids) != len(dropped):
            self.wrong(f"{len(ids)} tasks cancelled, {len(dropped)} answers")
        for id_, is_dropped in zip(ids, dropped, strict=False):
            known = self.tasks.get(id_)
            if known is None or not is_dropped:
                continue
            self.count("dropped by cancel")
            known.dropped_s = self.clock.now_s
            if any(execution.is_running for execution in known.executions):
                self.wrong(f"{id_.hex()} is said to be dropped and runs")

    # -------------------------------------------------------------------------- what is executed

    def check_function(self, payload: bytes, spec: Spec) -> None:
        """A worker must have the right function."""
        if payload != scripts.function_payload(spec.function):
            self.wrong(f"task {spec.label} came with another function: {payload[:20]!r}")

    def check_arguments(self, row: RunRow, script: Script) -> list[int]:
        """Every dependency must be there, right, and in its place; return their numbers."""
        known = self.tasks[row.id]
        if [value.id for value in row.values] != known.deps:
            self.wrong(f"{row.id.hex()} came with other dependencies than it was given")
            return []
        numbers = []
        for value in row.values:
            if value.outcome != Outcome.VALUE or value.payload is None:
                self.wrong(f"{row.id.hex()} came with {value.id.hex()} that has no value")
                return []
            self.check_row(value, "a task's arguments")
            if not reason_of(value.payload):
                numbers.append(scripts.read_value(value.payload).number)
        return numbers

    def started(
        self, pool: "FakePool", worker: int, row: RunRow, script: Script, hosts: bytes = b""
    ) -> Execution:
        """A task's code begins to run, perhaps in the process of an actor."""
        now_s = self.clock.now_s
        known = self.tasks.get(row.id)
        if known is None or known.spec.label != script.spec.label:
            self.wrong(f"{row.id.hex()} runs with the arguments of task {script.spec.label}")
            known = Known(TaskId(row.id), script.spec, [], b"", now_s)
        self.count("executions")
        if pool.peer in self.drains and not known.options.actor:
            self.wrong(f"{row.id.hex()} starts on {pool.node}, which is drained")
        for execution in known.executions:
            # A client that was given up numbers anew; that its attempts are charged is seen below.
            if execution.attempt == row.attempt and not self.lives_lost.get(row.id[:6]):
                self.wrong(f"attempt {row.attempt} of {row.id.hex()} was run twice")
            if execution.is_running:
                self.doubles.append((known, (execution.peer, pool.peer)))
        made = Execution(known, row.attempt, pool, row.gpus or (), now_s)
        known.executions.append(made)
        if known.options.actor or hosts:
            self.acts.ran(known, made, worker, hosts)
        self.acts.begun(known)
        moves = known.options.creates is not None and self.drained
        if (text := known.ran_too_often()) and not moves:
            self.wrong(text)
        self._check_backoff(made)
        if known.dropped_s >= 0:
            self.wrong(f"{row.id.hex()} starts though its canceller was told it never will")
        if known.cancelled_s >= 0 and not self.lives_lost:
            self.wrong(f"{row.id.hex()} starts though its user saw TaskCancelled")
        self.limited.started(known)
        self._take(made, 1.0)
        self._check_capacity(made)
        return made

    def _check_backoff(self, execution: Execution) -> None:
        """A retry does not follow at once, unless the attempt before was given up with its node."""
        options = execution.task.options
        creates = options.creates
        moves = creates is not None and self.drained
        if self.lives_lost or self.lives_late or options.actor or moves:
            return
        if creates is not None and creates.restart_window_s:
            return  # deaths before the window are forgotten, and the pauses after them
        pause_s = options.retry_backoff_s * 2.0 ** (execution.attempt - 2)
        pause_s = min(pause_s, self.backoff_max_s) / 2 * 0.99  # a clock may run fast
        for before in execution.task.executions:
            if before.attempt == execution.attempt - 1:
                since_s = execution.began_s - before.ended_s
                if since_s < pause_s:
                    self.wrong(f"{execution.task.id.hex()} was run again after {since_s:g} s")

    def ended(self, execution: Execution) -> None:
        """It came to its end, well or not."""
        execution.task.ended += 1
        self._give_back(execution)

    def reported(self, execution: Execution) -> None:
        """The worker has told the node."""

    def died(self, execution: Execution) -> None:
        """Its worker died with it, or with its result."""
        self.count("executions that died")
        execution.task.died += 1
        self._give_back(execution)

    def died_beginning(self, row: RunRow) -> None:
        """Its worker died when its page said that it had started, as it may have."""
        self.count("worker died before the code it had begun")
        if (known := self.tasks.get(row.id)) is not None:
            known.died += 1

    def lent(self, execution: "Execution | None", timeout_s: float | None) -> None:
        """It waits in get() and lends its CPUs."""
        if execution is not None and execution.is_running:
            execution.waits_for_ever = timeout_s is None
            self._use(execution, "CPU", -execution.task.options.num_cpus)
            execution.has_cpus = False

    def regained(self, execution: "Execution | None") -> None:
        """It goes on, so it must have its CPUs back."""
        if execution is not None and execution.is_running:
            self.count("CPUs lent and regained")
            execution.waits_for_ever = False
            self._use(execution, "CPU", execution.task.options.num_cpus)
            execution.has_cpus = True
            self._check_capacity(execution)

    def _give_back(self, execution: Execution) -> None:
        if execution.is_running:
            execution.is_running = False
            execution.ended_s = self.clock.now_s
            self.limited.ended(execution)
            self._take(execution, -1.0)

    def _take(self, execution: Execution, sign: float) -> None:
        options = execution.task.options
        if execution.has_cpus:
            self._use(execution, "CPU", sign * options.num_cpus)
        self._use(execution, "GPU", sign * options.num_gpus)
        for name, amount in options.resources:
            self._use(execution, name, sign * amount)
        if options.num_gpus:
            share = sign * (options.num_gpus / max(1, len(execution.gpus)))
            for gpu in execution.gpus:
                key = (execution.node, gpu)
                self._gpus[key] = self._gpus.get(key, 0.0) + share
                if self._gpus[key] > 1 + 1e-6:
                    self.wrong(f"GPU {gpu} of {execution.node} serves {self._gpus[key]:g} tasks")

    def _use(self, execution: Execution, name: str, amount: float) -> None:
        if amount:
            used = self._used[execution.node]
            used[name] = used.get(name, 0.0) + amount

    def _check_capacity(self, execution: Execution) -> None:
        capacity = self.capacities[execution.node]
        for name, amount in self._used[execution.node].items():
            if amount > capacity.get(name, 0.0) + 1e-6:
                self.wrong(f"{execution.node} uses {amount:g} {name} of {capacity.get(name, 0):g}")
        options = execution.task.options
        if options.num_gpus and sum(1 for _ in execution.gpus) < options.num_gpus:
            self.wrong(f"{execution.task.id.hex()} asked for {options.num_gpus} GPUs, got "
                       f"{len(execution.gpus)}")  # fmt: skip
        if options.node and options.node != execution.node:
            self.wrong(
                f"{execution.task.id.hex()} asked for {options.node}, is on {execution.node}"
            )

    # -------------------------------------------------------------------------- what is seen

    def check_row(self, row: ValueRow, who: str, peer: bytes = b"") -> None:
        """Somebody sees an object's final row; `peer`: it is the client of that id."""
        if self.is_lost(row.id, row.payload):
            return
        if type(row.payload) is memoryview:  # a file goes when nobody else has it
            row = replace(row, payload=bytes(row.payload))
        known = self.tasks.get(task_of(ObjectId(row.id)))
        if row.outcome == Outcome.VALUE:
            self._check_value(row, who)
        else:
            self.count(f"saw {row.failure.error if row.failure else 'an error'}")
            self.failures.append((row, who))
        if known is None or (row.failure is not None and row.failure.error == "ObjectLost"):
            return
        if row.failure is not None and row.failure.error == "TaskCancelled":
            known.cancelled_s = self.clock.now_s
        if row.failure is not None and row.failure.error in ("TaskTimedOut", "ActorUnavailable"):
            self.limited.saw(known, row.failure)
        # What a task saw and its submitter did not is void when the submitter is given up: it may
        # have no attempt left, or the next one may end otherwise.
        life = self.lives_lost.get(known.id[:6], 0)
        if known.seen_in.setdefault(row.id, life) != life:
            known.seen_in[row.id] = life
            known.rows[row.id] = row
        before = known.rows.setdefault(row.id, row)
        heard_in = self._heard_in(known, row.id, before is row, peer)
        if (before.outcome, before.payload, _error(before)) == (
            row.outcome, row.payload, _error(row),
        ):  # fmt: skip
            return
        if heard_in < self.epoch and "NodeLost" in (_error(before), _error(row)):
            # That a node was lost is known for good when the submitter has heard of it: if the
            # scheduler dies before, the next one waits for that node, which may bring the value.
            self.count("what others saw was not what the submitter saw over a restart")
            known.rows[row.id] = row
            return
        self.wrong(f"{row.id.hex()} was {_say(before)} and is {_say(row)} for {who}")

    def is_lost(self, id_: bytes, payload: bytes | None) -> bool:
        """Say whether somebody was sent what says that the bytes are lost; judge that."""
        gone = id_[:6] in self.lives_lost or id_[:6] in self.clients_gone
        if (reason := reason_of(payload or b"")) and not gone:
            self.wrong(f"bytes of {id_.hex()} are lost, and its home was not given up: {reason}")
        return bool(reason)

    def _heard_in(self, known: Known, id_: bytes, is_first: bool, peer: bytes) -> int:
        """Return in which epoch others saw what its submitter, a client, had not; else this one."""
        heard_in = known.hearsay.get(id_, self.epoch)
        if peer == known.id[:6]:
            known.hearsay.pop(id_, None)
        elif not known.parent and (is_first or heard_in < self.epoch):
            known.hearsay[id_] = self.epoch
        return heard_in

    def _check_value(self, row: ValueRow, who: str) -> None:
        if (known := self.tasks.get(row.id)) is not None and known.options.creates is not None:
            self.count("actor ended well")
            return
        thing = self.things.get(row.id)
        if thing is None or row.payload is None:
            self.wrong(f"{who} got {row.id.hex()} without payload, or unknown")
            return
        value = scripts.read_value(row.payload)
        if value.number != thing.number:
            self.wrong(f"{who} got {value.number} as {row.id.hex()}, it is {thing.number}")
        if tuple(value.refs) != tuple(row.contained):
            self.wrong(f"{who} got {row.id.hex()}: its refs are not those that its row names")
        if row.size not in (0, len(row.payload), self.behind.get(row.id)):
            self.wrong(f"{who} got {row.id.hex()}: {len(row.payload)} bytes, {row.size} stated")

    def check_wait(
        self, ids: list[bytes], count: int, timeout_s: float | None, answer: Answered
    ) -> None:
        """The answer to a task's wait()."""
        if any(row.id not in ids for row in answer.rows):
            self.wrong("wait() was answered with objects not asked for")
        if len(answer.rows) < count and not answer.timed_out and not answer.error:
            self.wrong(f"wait() for {count} was answered with {len(answer.rows)}")
        if answer.timed_out and timeout_s is None:
            self.wrong("wait() without a timeout timed out")

    def check_refusal(self, row: RunRow, answer: Answered) -> None:
        """The answer to a get() was an error."""
        self.count(f"get refused with {answer.error}")
        if answer.error != "ResourceDeadlock":
            self.wrong(f"get() was refused with {answer.error}: {answer.text}")
        elif (row.id, row.attempt) not in self.deadlocked:
            self.wrong(f"{row.id.hex()} was told of a deadlock that nobody has found")

    def deadlock(self, message: Deadlock, calm: bool) -> None:
        """The scheduler says that some wait for ever: then nothing may run anywhere.

        Args:
            message: its words.
            calm: no worker has died unseen, and no node.
        """
        self.count("deadlock")
        for id_, attempt, _ in message.rows:
            self.deadlocked[id_, attempt] = None
        running = [
            execution
            for known in self.tasks.values()
            for execution in known.executions
            if execution.is_running and not execution.waits_for_ever
        ]
        if calm and running:
            self.wrong(f"a deadlock is told while {running[0].task.id.hex()} runs")


def _error(row: ValueRow) -> str:
    return row.failure.error if row.failure is not None else ""


def _say(row: ValueRow) -> str:
    return _error(row) or ("a value" if row.outcome == Outcome.VALUE else "an error")
