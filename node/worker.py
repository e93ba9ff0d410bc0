"""A worker: runs tasks in its main thread, one after the other, and tells what became.

Never decides what runs or what is tried again elsewhere, and never outlives its keeper. Whatever a
task does, short of ending the process, the next one runs.
"""

import faulthandler
import importlib
import os
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, NoReturn

from ..protocol.brought import brought
from ..protocol.errors import Interrupted
from ..protocol.ids import NO_PEER, ObjectId, PeerId, TaskId, objects_of, show
from ..protocol.inside import set_inside
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.modules import path_was_told
from ..protocol.outcomes import is_retryable
from ..protocol.payload import limit_values, pack_error, pack_results, pack_value
from ..protocol.payload_files import Filing
from ..protocol.segments import are_to_be_had
from ..protocol.session import set_current
from . import kernel, missing, witness
from .actor_host import ActorHost
from .arguments import Missing, arguments, missed
from .asyncio_hook import lend_in_loops
from .channel import Channel, ClosedError
from .held import Held
from .helper import FLUSH_S, Helper, flush_streams
from .inside import WorkerInside
from .line import Line, start_thread
from .loaded import LoadedKind
from .nested import WorkerSession
from .packets import (
    ActorMade,
    Exit,
    FinishedRow,
    Ready,
    Returned,
    Run,
    RunRow,
    Setup,
)
from .page import (
    BEGAN,
    ERRORS_AT,
    IDLE,
    IMPORTING,
    INTERRUPT,
    PHASE,
    PICKLING,
    REVOKED,
    RUNNING,
    RUNNING_CODE,
    STARTED,
    UNPICKLING,
    Words,
    times_of,
)  # fmt: skip
from .saving import Saver
from .several import Tools, serve_calls
from .spawn import Ends
from .streams import errors_at, opened
from .yielding import Yielder

_VALUE: Final = int(Outcome.VALUE)
_NONE: Final = pack_value(None).payload


def main(
    channel: Channel,
    words: Words,
    ends: Ends,
    *,
    parent_pid: int,
    pulse_interval_s: float,
    free_variables: Sequence[str] = (),
    notices: Sequence[str] = (),
) -> NoReturn:
    """Be a worker until the node says Exit or is gone.

    Args:
        channel: the socket to the node.
        words: this worker's slot of the pulse page.
        ends: among them the file into which it writes where its threads are, when it is asked.
        parent_pid: the process that this one must not outlive.
        pulse_interval_s: time between pulses while a task runs.
        free_variables: thread variables that the user has not set; they follow num_cpus.
        notices: what users should read of how this process was started.
    """
    kernel.name_process("worker")
    # For when the interpreter does not turn, and the witness cannot look.
    faulthandler.register(signal.SIGUSR2, file=ends.stacks, all_threads=True)
    start_thread(partial(witness.serve, ends.bell, ends.stacks, words), "drumbeat-witness")
    worker = Worker(channel, words, parent_pid, pulse_interval_s, free_variables, notices)
    status = 1
    try:
        status = worker.serve()
    except ClosedError:
        pass  # the node is gone
    finally:
        flush_streams()
        os._exit(status)


class Worker:
    """The main thread of a worker process."""

    def __init__(
        self,
        channel: Channel,
        words: Words,
        parent_pid: int,
        pulse_interval_s: float,
        free_variables: Sequence[str],
        notices: Sequence[str],
    ) -> None:
        self._words = words
        self._times = times_of(words)
        self._free_variables = free_variables
        self._notices = list(notices)
        self._held = Held()
        self._line = Line(channel, words, self._held)
        self._line.while_waiting = self._return_packet
        self._helper = Helper(self._line, self._held, words, parent_pid, pulse_interval_s)
        self._session: WorkerSession | None = None
        self._kinds: dict[int, LoadedKind] = {}
        #: what is still to be run of the packets received
        self._queue: deque[RunRow] = deque()
        self._node = ""
        self._pid = os.getpid()
        self._devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpus: tuple[int, ...] | None = None
        self._host = ActorHost()
        self._yielder = Yielder(self._line, words, self._helper, self._host)
        #: holds what its result names until that is in the outbox
        self._returned: Any = None

    def serve(self) -> int:
        """Do what the node says; return the exit code."""
        signal.signal(signal.SIGUSR1, self._line.on_signal)
        while True:
            packet = self._next() if self._host.is_seen_to else self._line.next()
            if type(packet) is Run:
                self._define(packet)
                self._queue.extend(packet.rows)
                # What is given back is not kept until the next packet comes, which may be long.
                packet.rows.clear()
                self._run()
                if self._host.concurrency:
                    self._serve_calls()
                if self._host.over:
                    return 0
            elif type(packet) is Setup:
                error = self._set_up(packet)
                self._line.outbox.append(Ready(self._pid, error, self._notices))
                self._line.flush()
                if error:
                    return 1
                self._words[PHASE] = IDLE
            elif type(packet) is Exit:
                self._tell_end()
                self._line.flush()
                return 0

    def _next(self) -> Setup | Run | Exit:
        """Return the next packet; meanwhile the actor tells its state, and how it is, when due."""
        host, line = self._host, self._line
        assert self._session is not None
        while True:
            wait_s = host.wait_s()
            if wait_s is None or line.has_next(wait_s):
                return line.next()
            self._session.row = host.creation
            if host.doctor is not None and host.doctor.is_due():
                host.doctor.ask(line, self._words, self._helper)
            if host.saver is not None:
                host.saver.save_idle(line, self._words)
            self._words[PHASE] = IDLE
            flush_streams()
            line.flush_results()

    def _serve_calls(self) -> None:
        """Run calls that may run beside each other, until the actor ends."""
        assert self._session is not None
        serve_calls(
            Tools(
                self._words, self._line, self._helper, self._session, self._host, self._kinds,
                self._node, self._define, self._load, self._values, self._failed, flush_streams,
            )
        )  # fmt: skip
        self._host.over = True
        self._tell_end()
        flush_streams()
        self._line.flush()

    def _tell_end(self) -> None:
        """The worker is about to end, and with it its actor."""
        ended = self._host.ended()
        if ended is not None:
            self._line.outbox.append(ended)

    # ------------------------------------------------------------------------------------- setup

    def _set_up(self, setup: Setup) -> str:
        """Become what the node says; return what went wrong."""
        self._node = setup.node
        self._host.inline_bytes_max = setup.inline_bytes_max
        limit_values(setup.value_bytes_max)
        if setup.segment_bytes_min and are_to_be_had():
            # What is smaller travels in messages anyway.
            self._line.filing = Filing(max(setup.segment_bytes_min, setup.inline_bytes_max + 1))
        count = str(max(1, int(setup.num_cpus)))
        for variable in self._free_variables:
            os.environ[variable] = count
        os.environ.update(setup.env_vars)
        environment = setup.environment
        if setup.same_machine:
            given = [path or environment.directory for path in environment.sys_path]
            sys.path[:] = given + [path for path in sys.path if path and path not in given]
            sys.path_importer_cache.clear()
            importlib.invalidate_caches()
            try:
                os.chdir(environment.directory or ".")
            except OSError as error:
                print(f"the client's directory cannot be entered: {error}", file=sys.stderr)
            brought.come_last()
        else:
            _settle()
        elsewhere = f"node {setup.node}"
        path_was_told(sys.path, environment.machine if setup.same_machine else elsewhere)
        if setup.working_dir:
            try:
                os.chdir(os.path.expanduser(setup.working_dir))
            except OSError as error:
                return (
                    f"working_dir {setup.working_dir!r} on node {setup.node}: {error.strerror}; "
                    "make it there, or send the task to a node that has it (the option node)"
                )
        # Ours is the node's program: a task's multiprocessing would start it once more.
        self._program = sys.modules["__main__"]
        sys.modules["__main__"] = types.ModuleType("__main__")
        sys.argv = ["drumbeat-worker"]
        self._session = WorkerSession(
            self._line,
            self._words,
            self._held,
            PeerId(setup.peer or NO_PEER),
            setup.worker,
            self._give_back_for_wait,
            self._helper.hurry,
            setup.machine,
        )
        self._session.namespace = setup.environment.namespace
        set_current(self._session)
        set_inside(
            WorkerInside(
                self._line, self._words, self._session, self._host, self._kinds, self._node
            )
        )
        lend_in_loops(self._session)
        self._helper.start()
        return ""

    # ----------------------------------------------------------------------------------- running

    def _define(self, run: Run) -> None:
        for definition in run.definitions:
            self._kinds[definition.number] = LoadedKind(definition)

    def _run(self) -> None:
        words, times, queue = self._words, self._times, self._queue
        line, helper = self._line, self._helper
        outbox, kinds, session = line.outbox, self._kinds, self._session
        assert session is not None
        saver, doctor = self._host.saver, self._host.doctor
        helper.begin()
        words[ERRORS_AT] = errors_at()
        while queue:
            if doctor is not None and doctor.is_due():
                session.row = self._host.creation
                doctor.ask(line, words, helper)
            row = queue.popleft()
            seq = row.seq
            # Started first, then a look at what the node took back; the node does it the other
            # way round: whichever comes first, at most one of us thinks that it is his.
            words[STARTED] = seq
            revoked = words[REVOKED]
            if revoked and seq >= revoked:
                queue.appendleft(row)
                self._give_back()
                break
            if outbox:
                helper.hurry()
            session.row = row
            kind = kinds[row.kind]
            # In this order: who sees the row runs sees when it began.
            times[BEGAN] = started_s = perf_counter()
            words[RUNNING] = seq
            finished = self._attempt(row, kind, started_s)
            if doctor is not None and type(finished) is FinishedRow:
                doctor.ended(finished)
            if saver is not None and type(finished) is FinishedRow and not self._host.over:
                finished = self._save(saver, row, kind, finished)
            words[RUNNING] = 0
            for stream in opened:
                if stream.written:
                    stream.end_task()
                    words[ERRORS_AT] = errors_at()
            outbox.append(finished)
            self._returned = None
            if perf_counter() - line.flushed_s > FLUSH_S or not kind.max_retries:
                flush_streams()
                line.flush_results()
        words[PHASE] = IDLE
        if self._host.over:
            self._tell_end()
        if outbox or self._held.changes:
            flush_streams()
            line.flush_results()

    def _attempt(self, row: RunRow, kind: LoadedKind, started_s: float) -> FinishedRow | ActorMade:
        """Run one task, whatever it does."""
        words = self._words
        words[PHASE] = UNPICKLING
        try:
            try:
                function = kind.function or self._load(kind)
                if row.gpus != self._gpus:
                    self._show_gpus(row.gpus)
                if row.args is None:
                    words[PHASE] = RUNNING_CODE
                    if words[INTERRUPT] == row.seq:
                        self._line.check_interrupt()
                    value = function()
                else:
                    args, kwargs = arguments(row)
                    words[PHASE] = RUNNING_CODE
                    if words[INTERRUPT] == row.seq:
                        self._line.check_interrupt()
                    value = function(*args, **kwargs)
                words[PHASE] = PICKLING
                values = self._values(row, kind, value)
                self._returned = value
            except BaseException as error:  # noqa: BLE001  # even SystemExit is the task's alone
                words[PHASE] = PICKLING
                self._returned = error
                return self._failed(row, kind, error, perf_counter() - started_s)
        except Interrupted as error:
            # It came between the end of the user's code and our taking note of that.
            words[PHASE] = PICKLING
            return self._failed(row, kind, error, perf_counter() - started_s)
        return FinishedRow(row.seq, values, perf_counter() - started_s)

    def _load(self, kind: LoadedKind) -> Callable[..., Any]:
        self._words[PHASE] = IMPORTING
        function = kind.load(self._node)
        self._times[BEGAN] = perf_counter()  # from here on its limits count
        self._words[PHASE] = UNPICKLING
        if kind.creates and self._session is not None:
            row = self._session.row
            if row is not None and row.checkpoint is not None:
                return kind.restorer(row.checkpoint)
        return function

    def _save(
        self, saver: Saver, row: RunRow, kind: LoadedKind, finished: FinishedRow
    ) -> FinishedRow:
        """Have the actor tell its state, if it is time; return what is told of the call."""
        why = saver.ended(self._line, self._words)
        if not why:
            return finished
        creation = self._host.creation
        assert creation is not None
        details = self._details_of(row, kind)
        details |= {"actor": show(creation.id), "incarnation": creation.attempt}
        failure = Failure("CheckpointFailed", f"{kind.name} has run, but {why}", {**details})
        value = ValueRow(row.id, Outcome.FAILURE, failure=failure)
        return FinishedRow(row.seq, (value,), finished.duration_s)

    def _details_of(self, row: RunRow, kind: LoadedKind) -> dict[str, str | int | float | None]:
        return {
            "name": kind.name,
            "task": show(row.id),
            "node": self._node,
            "pid": self._pid,
            "attempt": row.attempt,
        }

    def _failed(
        self, row: RunRow, kind: LoadedKind, error: BaseException, duration_s: float
    ) -> FinishedRow | ActorMade:
        outcome = self._host.outcome(row, kind.num_returns, error, duration_s)
        if outcome is not None:
            if self._host.over:
                self._queue.clear()  # the node knows that what it has not heard of did not start
            return outcome
        details = self._details_of(row, kind)
        if isinstance(error, Interrupted):
            text = f"{kind.name} was cancelled while it ran on node {self._node!r}"
            failure = Failure("TaskCancelled", text, details)
            value = ValueRow(row.id, Outcome.FAILURE, failure=failure)
            return FinishedRow(row.seq, (value,), duration_s)
        if isinstance(error, Missing):
            return FinishedRow(row.seq, (missed(row, kind.name, error, details),), duration_s)
        error = missing.explained(error, self._node)
        packed = pack_error(error, **details)  # type: ignore[arg-type]
        value = ValueRow(row.id, Outcome.ERROR, packed.payload, 0, packed.contained)
        # Another incarnation may fare better with the same checkpoint, but none without it.
        retry = row.checkpoint is not None or is_retryable(error, kind.retry)
        # The frames hold the task's arguments, perhaps refs: they go now, not some time later.
        error.__traceback__ = None
        return FinishedRow(row.seq, (value,), duration_s, retry)

    def _show_gpus(self, gpus: tuple[int, ...] | None) -> None:
        """Let the task see its GPUs only; one that asks for none sees what the node sees."""
        self._gpus = gpus
        if gpus is None:
            if self._devices is None:
                os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            else:
                os.environ["CUDA_VISIBLE_DEVICES"] = self._devices
            return
        names = self._devices.split(",") if self._devices else []
        shown = [names[gpu].strip() if gpu < len(names) else str(gpu) for gpu in gpus]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown)

    # ------------------------------------------------------------------------------- giving back

    def _give_back(self) -> None:
        """Return what has been received and not been started."""
        inbox = self._line.inbox
        for _ in range(len(inbox)):
            packet = inbox.popleft()
            if type(packet) is Run:
                self._define(packet)
                self._queue.extend(packet.rows)
            else:
                inbox.append(packet)
        if self._queue:
            seqs = [row.seq for row in self._queue]
            self._queue.clear()
            self._line.outbox.append(Returned(seqs))

    def _values(self, row: RunRow, kind: LoadedKind, value: Any) -> tuple[ValueRow, ...]:
        if kind.stream:
            return self._yielder.run(row, kind, value)
        filing = self._line.filing
        if kind.num_returns == 1:
            if value is None:
                return (ValueRow(row.id, _VALUE, _NONE),)
            packed = pack_value(value, "result", filing, frozen=False)
            return (ValueRow(row.id, _VALUE, packed.payload, 0, packed.contained),)
        several = pack_results(value, kind.num_returns, kind.name, filing)
        ids: list[ObjectId] = objects_of(TaskId(row.id), kind.num_returns)
        return tuple(
            ValueRow(id_, _VALUE, packed.payload, 0, packed.contained)
            for id_, packed in zip(ids, several, strict=True)
        )

    def _give_back_for_wait(self) -> None:
        """The main thread is about to wait: what others could run is not kept meanwhile."""
        if self._host.creation is None:
            self._give_back()

    def _return_packet(self, run: Run) -> None:
        """A packet came while the main thread waits: nothing of it is started."""
        if self._host.creation is not None:
            self._line.inbox.append(run)  # calls of an actor: nobody else could
            return
        self._define(run)
        if run.rows:
            self._line.outbox.append(Returned([row.seq for row in run.rows]))
            self._line.flush()


def _settle() -> None:
    """Be somewhere, where the client's directory is not: where the node is, if that is a place."""
    for place in (os.curdir, os.path.expanduser("~"), os.sep):
        try:
            os.chdir(place)
            os.getcwd()
        except OSError:
            continue  # it was removed, or may not be entered
        return


if __name__ == "__main__":  # a fresh interpreter, see spawn.py
    from .spawn import follow

    follow(sys.argv[1])
