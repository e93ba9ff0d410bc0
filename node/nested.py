"""The session of a worker: what user code in a task asks of the cluster, through the node.

Never talks to the scheduler and never keeps results beyond what this process's refs need: the node
is home of everything that its workers submit and put.
"""

import itertools
import os
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..protocol import errors
from ..protocol.actors import ActorName
from ..protocol.errors import DrumbeatError, GetTimeoutError
from ..protocol.ids import IdFactory, ObjectId, PeerId, TaskId, item_of, objects_of, show, task_of
from ..protocol.messages import Failure, Outcome, TaskRow, ValueRow
from ..protocol.outcomes import error_of
from ..protocol.parcels import Parcel
from ..protocol.session import Keeping, Kind, Packed
from ..protocol.store import Store
from ..protocol.unparcel import Segments
from .held import DROP, HOLD, OWN, Held
from .line import Line, Made
from .packets import Answered, Ask, CancelTasks, ItemsRead, NestedKind, RunRow, Want, WantOver
from .page import (
    CHECKPOINTING,
    FETCHING,
    HEALTH_CHECK,
    IMPORTING,
    PHASE,
    PICKLING,
    RUNNING_CODE,
    UNPICKLING,
    WAITING,
    YIELDING,
    Words,
)
from .puts import Puts

if TYPE_CHECKING:
    from ..protocol.session import Session

#: So many calls are sent at once; fewer wait for a get, the task's end, or some milliseconds.
_CALLS_MAX: Final = 128
#: Larger values are not kept here as well as in the node.
_KEPT_BYTES_MAX: Final = 64 << 10

#: Where a main thread is when it waits for other threads, or in an event loop.
_WAITING_MODULES: Final = frozenset(
    ("threading", "queue", "selectors", "concurrent.futures._base", "concurrent.futures.thread")
)
#: The node asks about once a second; after so many times the user is told.
_DOUBTS_MAX: Final = 10
#: So many nodes are looked at to know whether there are others.
_NODES_MAX: Final = 1 << 20

#: phase -> (while it waits in it, after that); all others wait, and run code again
_PHASES: Final = {
    # What runs between calls goes on to be that while it waits: it is under a limit.
    CHECKPOINTING: (CHECKPOINTING, CHECKPOINTING),
    HEALTH_CHECK: (HEALTH_CHECK, HEALTH_CHECK),
    # The time of a call begins after these, and not with a wait in them.
    IMPORTING: (FETCHING, IMPORTING),
    UNPICKLING: (FETCHING, UNPICKLING),
    # Whoever waits may be interrupted; a result that is being pickled may not.
    PICKLING: (WAITING, PICKLING),
    YIELDING: (YIELDING, PICKLING),
}

_VALUE: Final = int(Outcome.VALUE)
T = TypeVar("T")


class WorkerSession:
    """See protocol.session.Session. Any thread of the task's may use it.

    Args:
        line: to the node.
        words: the worker's slot of the pulse page.
        held: the refs of this process.
        peer: the node's id.
        worker: the worker's number.
        give_back: returns what has not been started to the node; called before a wait.
        hurry: has the outbox sent within milliseconds.
        machine: the word of the node's machine; "": it has none.
    """

    def __init__(
        self,
        line: Line,
        words: Words,
        held: Held,
        peer: PeerId,
        worker: int,
        give_back: Callable[[], None],
        hurry: Callable[[], None],
        machine: str = "",
    ) -> None:
        self.alive = True
        #: where the names of actors are looked up; set before the first task runs
        self.namespace = ""
        self.lends = True
        #: what is large and made here goes to the node as a file
        self.keeper: Keeping | None = line.filing
        #: the attempt that runs, or ran last
        self.row: RunRow | None = None
        #: says which runs in the calling thread, where several do at once
        self.row_here: Callable[[], RunRow | None] | None = None
        #: False: it cannot be known here whether all that runs waits
        self.can_be_stuck = True
        self._line = line
        self._puts = Puts(words, line.flush)
        self._words = words
        self._held = held
        self._values = held.values
        self._change = held.changes.append
        self._ids = IdFactory(peer, worker)
        self._give_back = give_back
        self._hurry = hurry
        self._main = threading.get_ident()
        self._lock = threading.Lock()
        self._kinds = itertools.count(1)
        self._functions: dict[bytes, None] = {}
        self._read: dict[TaskId, int] = {}  # of what each task yields, so many
        self._unsent = 0
        #: how often the node suspected that this attempt waits for ever
        self._doubted = self._doubts = 0
        self._segments = Segments(Store(), machine, self._fetch, self._hold, self._drop)
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        self.alive = False
        self._line.close()

    # ------------------------------------------------------------------------------------ making

    def new_id(self) -> TaskId:
        """Return an id for a task that is to be submitted by it."""
        return self._ids()

    def submit(self, kind: Kind, packed: Packed, task: TaskId | None = None) -> list[ObjectId]:
        """Queue one call; see Session."""
        parent, depth = self._parent()
        with self._lock:
            definition = self._define(kind) if kind.session is not self else None
            task = task or self._ids()
            ids = objects_of(task, kind.options.num_returns)
            row = TaskRow(task, kind.number, packed.payload, 0, packed.deps, packed.contained)
            for id_ in ids:
                self._change((id_, OWN))
            self._line.outbox.append(Made(parent, depth, definition, row, None))
            self._unsent = unsent = self._unsent + 1
        self._sent_soon(unsent)
        return ids

    def put(self, packed: Packed) -> ObjectId:
        """Keep a value in the node; see Session."""
        parent, depth = self._parent()
        self._puts.wait(packed.payload)
        with self._lock:
            id_ = ObjectId(self._ids())
            row = ValueRow(id_, _VALUE, packed.payload, 0, packed.contained)
            self._puts.count(packed.payload)
            self._change((id_, OWN))
            self._keep(row)
            self._line.outbox.append(Made(parent, depth, None, None, row))
            self._unsent = unsent = self._unsent + 1
        self._sent_soon(unsent)
        return id_

    def _parent(self) -> tuple[bytes, int]:
        row = self._row()
        return (b"", 1) if row is None else (row.id, row.depth + 1)

    def _define(self, kind: Kind) -> NestedKind:
        function = kind.function
        known = function.hash in self._functions
        self._functions[function.hash] = None
        kind.number = next(self._kinds)
        kind.session = self
        payload = None if known else function.payload
        return NestedKind(kind.number, function.hash, kind.name, kind.options, payload)

    def _sent_soon(self, unsent: int) -> None:
        if unsent >= _CALLS_MAX:
            self._unsent = 0
            self._line.flush()
        else:
            self._hurry()

    # ----------------------------------------------------------------------------------- waiting

    def get(self, ids: Sequence[ObjectId], timeout_s: float | None) -> list[ValueRow]:
        """Wait for all, or for the first that is not a VALUE; see Session."""
        values = self._values
        found: dict[ObjectId, ValueRow] = {}
        missing: dict[ObjectId, None] = {}
        for id_ in ids:
            row = values.get(id_)
            if row is None:
                missing[id_] = None
            elif row.outcome != _VALUE:
                return [row]
            else:
                found[id_] = row
        if missing:
            answer = self._want(list(missing), len(missing), timeout_s, values=True)
            for row in answer.rows:
                found[ObjectId(row.id)] = row
                self._keep(row)
                if row.outcome != _VALUE:
                    return [row]
            if answer.timed_out:
                late = sum(id_ not in found for id_ in missing)
                raise GetTimeoutError(
                    f"{late} of {len(set(ids))} values were not there within {timeout_s} s;"
                    " their tasks go on"
                )
        return [found[id_] for id_ in ids]

    def wait(self, ids: Sequence[ObjectId], count: int, timeout_s: float | None) -> set[ObjectId]:
        """Wait until `count` are ready or the time is over; see Session."""
        ready = {id_ for id_ in ids if id_ in self._values}
        missing = list(dict.fromkeys(id_ for id_ in ids if id_ not in ready))
        if len(ready) < count and missing:
            wanted = min(count - len(ready), len(missing))
            answer = self._want(missing, wanted, timeout_s, values=False)
            ready.update(ObjectId(row.id) for row in answer.rows)
        return ready

    def peek(self, id_: ObjectId) -> ValueRow | None:
        """Return the row if it is here or at the node, without waiting for it to be made."""
        row = self._values.get(id_)
        if row is None:
            answer = self._want([id_], 1, 0.0, values=True, lends=False)
            for row in answer.rows:
                self._keep(row)
        return row

    def _keep(self, row: ValueRow) -> None:
        """Have a value at hand while its refs live, unless it is large."""
        if len(row.payload or b"") <= _KEPT_BYTES_MAX:
            self._values[id_ := ObjectId(row.id)] = row
            # Perhaps none does: whoever waited was interrupted, or it is an end of what is yielded.
            self._held.seen.append(id_)

    def when_ready(self, id_: ObjectId, callback: Callable[[ValueRow], Any]) -> None:
        """Call back from a thread of the session as soon as the row is here; see Session."""
        row = self._values.get(id_)
        if row is not None:
            callback(row)
            return

        def answered(answer: Answered) -> None:
            if answer.error and not self._ask_anew(answer, ask):
                failure = Failure(answer.error, answer.text)
                callback(ValueRow(id_, Outcome.FAILURE, failure=failure))
            for row in answer.rows:
                self._keep(row)
                callback(row)

        def ask(stuck: bool) -> None:
            self._line.request(
                lambda number: Want(
                    number, self._seq(), [id_], 1, None, values=True, lends=False, stuck=stuck
                ),
                answered,
            )

        ask(False)

    def in_main_thread(self) -> bool:
        """Return whether the caller is the thread that runs tasks."""
        return threading.get_ident() == self._main

    def lend_during(
        self, wait: Callable[[], T], awaited: ObjectId, over: Callable[[Answered], None]
    ) -> T:
        """Lend the task's CPUs while its main thread waits for something else.

        Args:
            wait: returns when it need wait no more.
            awaited: an object that may end the wait; so may anything else.
            over: called in another thread when CPUs are lent no more, perhaps for an error.

        Raises:
            ResourceDeadlock: nothing could ever end the wait.
        """
        answers: list[Answered] = []
        here = threading.Event()
        number = 0

        def make(request: int) -> Want:
            nonlocal number
            number = request
            return Want(request, self._seq(), [awaited], 1, None, values=False)

        def answered(answer: Answered) -> None:
            answers.append(answer)
            here.set()
            over(answer)

        line, words = self._line, self._words
        self._unsent = 0
        words[PHASE] = WAITING
        try:
            self._give_back()
            line.request(make, answered)
            try:
                found = line.sleep(wait)
            finally:
                # It goes on when its CPUs are its own again, whatever woke it.
                if not here.is_set():
                    line.outbox.append(WantOver(number))
                    line.flush()
                here.wait()
        finally:
            words[PHASE] = RUNNING_CODE
        line.check_interrupt()
        _raise(answers[0])
        return found

    def _want(
        self,
        ids: list[ObjectId],
        count: int,
        timeout_s: float | None,
        *,
        values: bool,
        lends: bool = True,
    ) -> Answered:
        lends = lends and threading.get_ident() == self._main
        wanted: list[bytes] = list(ids)
        stuck = False

        def again(is_stuck: bool) -> None:
            nonlocal stuck
            stuck = is_stuck

        while True:
            answer = self.ask(
                lambda number: Want(
                    number, self._seq(), wanted, count, timeout_s, values, lends, stuck
                ),
                gives_back=lends,
            )
            if not answer.error or lends or not self._ask_anew(answer, again):
                _raise(answer)
                return answer

    def _ask_anew(self, answer: Answered, ask: Callable[[bool], None]) -> bool:
        """The node suspects that nothing can go on; return False if it is right.

        Args:
            answer: what it said.
            ask: asks once more, given whether the main thread waits.
        """
        frame = sys._current_frames().get(self._main)
        stuck = frame is not None and frame.f_globals.get("__name__") in _WAITING_MODULES
        stuck = stuck and self.can_be_stuck
        if answer.text and stuck:
            # Where there are others, one of them may still come to run what is waited for.
            nodes = self.query("nodes", _NODES_MAX)
            if sum(node.get("state") == "alive" for node in nodes) <= 1:
                return False
        row, seq = self._row(), self._seq()
        self._doubts = self._doubts + 1 if seq == self._doubted else 1
        self._doubted = seq
        if self._doubts == _DOUBTS_MAX and row is not None:
            print(
                f"drumbeat: task {show(row.id)} keeps its CPUs while values that it asked for "
                "may need them to be made; should it wait for those: wait in the main thread "
                "with drumbeat.get, or give the node more CPUs",
                file=sys.stderr,
            )
        ask(stuck)
        return True

    def _seq(self) -> int:
        row = self._row()
        return 0 if row is None else row.seq

    def _row(self) -> RunRow | None:
        return self.row if self.row_here is None else self.row_here()

    def ask(
        self, make: Callable[[int], Want | Ask | CancelTasks], gives_back: bool = False
    ) -> Answered:
        """Send a request and wait for its answer; in the main thread Interrupted may end it."""
        self._unsent = 0
        words = self._words
        main = threading.get_ident() == self._main
        if not main:
            answer = self._line.request(make)
        else:
            words[PHASE], after = _PHASES.get(words[PHASE], (WAITING, RUNNING_CODE))
            try:
                if gives_back:
                    self._give_back()
                answer = self._line.request(make, lends=gives_back)
            finally:
                words[PHASE] = after
            self._line.check_interrupt()
        assert answer is not None
        return answer

    # ---------------------------------------------------------------------------------- the rest

    def cancel(self, ids: Sequence[ObjectId], force: bool, recursive: bool) -> None:
        """Cancel the tasks of these objects; see Session."""
        self._line.outbox.append(CancelTasks(_tasks(ids), force, recursive))
        self._line.flush()

    def cancel_queued(self, ids: Sequence[ObjectId]) -> list[bool]:
        """Cancel those that have not started; see Session."""
        answer = self.ask(lambda request: CancelTasks(_tasks(ids), False, True, request))
        _raise(answer)
        dropped = dict(zip(_tasks(ids), answer.data or (), strict=False))
        return [bool(dropped.get(task_of(id_))) for id_ in ids]

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        """Kill an actor; see Session."""
        self._line.outbox.append(CancelTasks([task_of(id_)], True, True, restart=restart))
        self._line.flush()

    def hold(self, id_: ObjectId) -> None:
        """One more ObjectRef lives here."""
        self._change((id_, HOLD))

    def drop(self, id_: ObjectId) -> None:
        """One ObjectRef less."""
        self._change((id_, DROP))

    def read(self, task: TaskId, count: int, *, over: bool) -> None:
        """Of what a task yields so many were read; see Session. Each has its first ref by now."""
        for index in range(self._read.pop(task, 0), count):
            self._change((item_of(task, index), OWN))
        if not over:
            self._read[task] = count
        self._line.outbox.append(ItemsRead(task, count, over))
        self._hurry()

    def pin(self, id_: ObjectId) -> None:
        """A ref was pickled outside Drumbeat: it is never dropped."""
        self._change((id_, HOLD))

    # ----------------------------------------------------------------------------- large values

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[memoryview | bytes, list[memoryview]]:
        """Return the stream and the buffers of a parcel; see Session."""
        return self._segments.buffers(parcel, until_s)

    def _fetch(self, id_: bytes, timeout_s: float | None) -> bytes:
        """Return the bytes of a segment that cannot be mapped here: the node asks for them."""
        answer = self._want([ObjectId(id_)], 1, timeout_s, values=True)
        if answer.timed_out:
            raise GetTimeoutError(f"{show(id_)} was not there within {timeout_s} s")
        row = answer.rows[0]
        if (error := error_of(row)) is not None:
            error.__dict__["object"] = show(id_)  # by this `arguments` knows what is missing
            raise error
        return row.payload or b""

    def _hold(self, id_: bytes) -> None:
        self._change((ObjectId(id_), HOLD))

    def _drop(self, id_: bytes) -> None:
        self._change((ObjectId(id_), DROP))

    def query(
        self, what: str, limit: int = 100, match: str = "", *, named: ActorName | None = None
    ) -> Any:
        """Ask the scheduler; see Session."""
        answer = self.ask(lambda request: Ask(request, what, limit, match, named))
        _raise(answer)
        return answer.data

    def free_name(self, named: ActorName) -> None:
        """Let a name go; see Session."""
        self._line.outbox.append(Ask(0, "name", 0, "", named.freed()))
        self._line.flush()


def _raise(answer: Answered) -> None:
    if answer.error:
        raise getattr(errors, answer.error, DrumbeatError)(answer.text)


def _tasks(ids: Sequence[ObjectId]) -> list[bytes]:
    return list(dict.fromkeys(task_of(id_) for id_ in ids))


if TYPE_CHECKING:

    def _is_a_session(session: WorkerSession) -> Session:
        return session
