"""The driver's session: what any thread of a program asks of the cluster, through one loop.

Never touches a socket: callers leave events in the inbox, read results from the board, and wait.
"""

import itertools
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..protocol.actors import ActorName
from ..protocol.drain import Drain
from ..protocol.errors import (
    DrumbeatError,
    GetTimeoutError,
    NotInitialized,
    ObjectLost,
    SchedulerUnreachable,
)
from ..protocol.ids import IdFactory, ObjectId, PeerId, TaskId, home_of, objects_of, show, task_of
from ..protocol.keys import Credentials
from ..protocol.messages import (
    AnyMessage,
    Environment,
    Failure,
    KindRow,
    Outcome,
    Query,
    Shape,
    Shapes,
    TaskRow,
    ValueRow,
)
from ..protocol.outcomes import error_of
from ..protocol.parcels import Parcel, bytes_behind
from ..protocol.payload import limit_values
from ..protocol.session import Keeping, Kind, Packed
from ..protocol.settings import Settings
from ..protocol.store import Store
from ..protocol.transport import Unreachable
from ..protocol.unparcel import Segments
from .absence import Absence
from .board import AllWaiter, Board, ConditionWaiter, ReplyWaiter, SomeWaiter
from .core import ClientCore
from .dialling import dialler
from .events import Asked, Call, CancelAsked
from .feasible import fits, infeasible, too_large
from .inbox import Inbox
from .keeper import SegmentKeeper, are_wanted
from .output import Speaker
from .room import Room
from .service import Service

#: how long cancel_queued waits for the scheduler's word
CANCEL_ANSWER_S: Final = 5.0
#: how long a query waits for it
QUERY_ANSWER_S: Final = 30.0


class ClusterSession:
    """See protocol.session.Session for what each method means.

    Args:
        endpoint: where the scheduler listens.
        settings: of this process.
        name: the program's name, for people.
        environment: what workers need to find its code.
        peer: this client's id.
        dial: makes the connection; None: a real one.
        credentials: what to come with over the network.
    """

    def __init__(
        self,
        endpoint: str,
        settings: Settings,
        name: str,
        environment: Environment,
        peer: PeerId | None = None,
        dial: Callable[[], Any] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.peer = peer = PeerId(os.urandom(6)) if peer is None else peer
        #: False once shut down; a cluster that failed is alive until then, and says why it failed
        self.alive = True
        self.namespace = environment.namespace
        self.lends = False
        self._open = True
        self.settings = settings
        limit_values(settings.value_bytes_max)
        self.endpoint = endpoint
        #: the nodes there are; None: not known yet
        self.shapes: list[Shape] | None = None
        self._error: DrumbeatError | None = None
        self._pid = os.getpid()
        self._board, self._inbox = Board(), Inbox()
        self._results, self._calls = self._board.results, self._inbox.calls
        self._core = ClientCore(settings, peer, name, environment, moves=credentials is not None)
        #: the memory segments of what was packed here
        self._store = Store.of(settings)
        self._speaker = Speaker()
        self._next_id = IdFactory(peer).__call__
        #: guards what calls share; a finalizer or a signal handler may submit while it is held
        self._lock = threading.RLock()
        self._requests = itertools.count(1)
        self._kind_numbers = itertools.count(1)
        self._kinds: dict[int, weakref.ref[Kind]] = {}
        #: kinds found feasible with the present nodes
        self._feasible: dict[int, None] = {}
        self._service = Service(
            self._core,
            self._board,
            self._inbox,
            dial or (lambda: dialler(endpoint, peer, name, settings, credentials)),
            self._show,
            self._ended,
            Absence.of(endpoint, settings),
            self._store,
        )
        self._room = Room(
            settings, self._core.results, self._board, self._service, lambda: self._open
        )
        self.keeper: Keeping | None = None
        if are_wanted(settings):
            room, leave = self._room, self._leave
            self.keeper = SegmentKeeper(
                self, settings, environment.machine, self._store, room.wait_for, leave, room.settle
            )
        refs = self._inbox.refs
        self._segments = Segments(
            self._store, environment.machine, self._fetched,
            lambda id_: refs.append((ObjectId(id_), 1)),
            lambda id_: self.drop(ObjectId(id_)), keeps_fetched=True,
        )  # fmt: skip
        _sessions.add(self)

    def let_go_in_fork(self) -> None:
        """In a forked child: refuse every call, and wait for no lock of the parent's threads."""
        self.alive = self._open = False
        self._lock = threading.RLock()
        self._board.renew_lock()
        self._service.let_go_in_fork()

    def start(self) -> None:
        """Begin to connect."""
        self._service.start()

    @property
    def failed(self) -> bool:
        """Whether the cluster is gone, though nobody shut it down."""
        return self._error is not None

    @property
    def connected(self) -> bool:
        """Whether the scheduler is there at the moment."""
        return self._service.connected

    @property
    def unreachable(self) -> Unreachable | None:
        """Why there is no connection to the scheduler, as far as that is known."""
        return self._service.unreachable

    # --------------------------------------------------------------------------- submitting

    def new_id(self) -> TaskId:
        """Return an id for a task that is to be submitted by it."""
        return self._next_id()

    def submit(self, kind: Kind, packed: Packed, task: TaskId | None = None) -> list[ObjectId]:
        """Queue one call; return the ids of its values."""
        if kind.session is not self:
            self._announce(kind)
        if kind.number not in self._feasible:
            self._check_feasible(kind)
        options = kind.options
        payload, deps, contained, _ = packed
        behind = bytes_behind(payload) if contained else 0
        size = behind + (0 if payload is None else len(payload))
        room = self._room
        while True:
            with self._lock:
                if not self._open:
                    raise self._not_alive()
                if room.take(size):
                    id_ = task or self._next_id()
                    row = TaskRow(id_, kind.number, payload, behind, deps, contained)
                    self._calls.append(Call(row, options))
                    break
            room.wait_for(size)
        if self._service.sleeping:
            self._service.wake()
        num_returns = options.num_returns
        return [ObjectId(id_)] if num_returns == 1 else objects_of(id_, num_returns)

    def _announce(self, kind: Kind) -> None:
        with self._lock:
            if not self._open:
                raise self._not_alive()
            if kind.session is self:
                return
            function = kind.function
            if len(function.payload) > self.settings.value_bytes_max:
                raise too_large(f"the function {kind.name}", len(function.payload), self.settings)
            number = kind.number = next(self._kind_numbers)
            kinds, feasible, dropped = self._kinds, self._feasible, self._inbox.kinds_dropped.append
            kinds[number] = weakref.ref(
                kind, lambda _: (kinds.pop(number), feasible.pop(number, None), dropped(number))
            )
            row = KindRow(number, function.hash, kind.name, kind.options, function.payload)
            self._inbox.kinds.append(row)
            kind.session = self

    def _check_feasible(self, kind: Kind) -> None:
        shapes, options = self.shapes, kind.options
        if not shapes or options.wait_for_nodes or any(fits(options, one) for one in shapes):
            if shapes:
                self._feasible[kind.number] = None
            return
        raise infeasible(kind.name, options, shapes)

    def put(self, packed: Packed) -> ObjectId:
        """Keep a value as an object, held once."""
        payload = packed.payload or b""
        if len(payload) > self.settings.value_bytes_max:
            raise too_large("the value", len(payload), self.settings)
        refs = (*packed.deps, *packed.contained)
        behind = bytes_behind(payload) if refs else 0
        id_ = ObjectId(self._next_id())
        self._leave(ValueRow(id_, Outcome.VALUE, payload, behind, refs))
        return id_

    def _leave(self, row: ValueRow) -> None:
        """Leave an object of this process to the core, before anything that names it."""
        with self._lock:
            if not self._open:
                raise self._not_alive()
            if row.payload is not None:  # nobody waits for a segment
                self._results[ObjectId(row.id)] = row
            self._calls.append(row)
        if self._service.sleeping:
            self._service.wake()

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Return the pickle stream of a parcel, and its buffers in their order; see Session."""
        return self._segments.buffers(parcel, until_s)

    def _fetched(self, id_: bytes, timeout_s: float | None) -> bytes:
        """Return the bytes of a memory segment that cannot be mapped here."""
        if home_of(ObjectId(id_)) == self.peer:
            raise ObjectLost(f"the bytes of {show(id_)} are gone: nobody held them any more")
        row = self.get((ObjectId(id_),), timeout_s)[-1]
        if (error := error_of(row)) is not None:
            raise error
        return row.payload or b""

    # ------------------------------------------------------------------------------ waiting

    def get(self, ids: Sequence[ObjectId], timeout_s: float | None) -> list[ValueRow]:
        """Wait for all, or for the first that is not a VALUE."""
        if (rows := self._rows(ids)) is not None:
            return rows
        waiter = AllWaiter(ids)
        if not self._wait_on_board(waiter, ids, timeout_s):
            missing = [id_ for id_ in ids if id_ not in self._results]
            raise GetTimeoutError(
                f"{len(missing)} of {len(ids)} values were not there within {timeout_s:g} s; "
                "their tasks go on"
            )
        if waiter.failure is not None:
            return [waiter.failure]
        rows = self._rows(ids)
        if rows is None:
            raise self._not_alive()
        return rows

    def _rows(self, ids: Sequence[ObjectId]) -> list[ValueRow] | None:
        results = self._results
        rows = []
        missing = False
        for id_ in ids:
            row = results.get(id_)
            if row is None:
                missing = True
                continue
            if row.outcome:
                return [row]
            rows.append(row)
        return None if missing else rows

    def wait(self, ids: Sequence[ObjectId], count: int, timeout_s: float | None) -> set[ObjectId]:
        """Wait until `count` are ready or the time is over; return those that are ready."""
        results = self._results
        ready = {id_ for id_ in ids if id_ in results}
        if len(ready) < count:
            waiter = SomeWaiter(ids, count)
            self._wait_on_board(waiter, ids, timeout_s)
            ready = {id_ for id_ in ids if id_ in results or id_ not in waiter.missing}
            if len(ready) < count and not self._open:
                raise self._not_alive()
        return ready

    def _wait_on_board(
        self, waiter: AllWaiter | SomeWaiter, ids: Sequence[ObjectId], timeout_s: float | None
    ) -> bool:
        board = self._board
        board.waiters[waiter] = None
        try:
            if not self._open:
                raise self._not_alive()
            waiter.look(board.results)
            if waiter.done:
                return True
            self._inbox.awaited.append([id_ for id_ in ids if id_ not in board.results])
            if not self._service.wait(waiter, timeout_s):
                return False
        finally:
            board.waiters.pop(waiter, None)
        return True

    def peek(self, id_: ObjectId) -> ValueRow | None:
        """Return the row if it is here."""
        return self._results.get(id_)

    def when_ready(self, id_: ObjectId, callback: Callable[[ValueRow], Any]) -> None:
        """Call `callback(row)` once, from the loop: it must be quick and never wait."""
        row = self._board.when_ready(id_, callback)
        if row is not None:
            callback(row)
            return
        if not self._open:
            # it may have been registered after the end had called all there were
            self._call_off()
            return
        self._tell(self._inbox.awaited, [id_])

    # ---------------------------------------------------------------- cancelling, holding, asking

    def cancel(self, ids: Sequence[ObjectId], force: bool, recursive: bool) -> None:
        """Cancel the tasks of these objects; returns at once."""
        self._cancel(CancelAsked(list(dict.fromkeys(map(task_of, ids))), force, recursive))

    def cancel_queued(self, ids: Sequence[ObjectId]) -> list[bool]:
        """Cancel those that have not started; False also where the answer did not come in time."""
        self._must_be_alive()
        tasks = [task_of(id_) for id_ in ids]
        asked, cancels = CancelAsked(tasks, False, True, next(self._requests)), self._inbox.cancels
        answer = self._ask(asked.request, lambda: cancels.append(asked), CANCEL_ANSWER_S)
        return [False] * len(ids) if answer is None else list(answer)

    def query(
        self, what: str, limit: int = 100, match: str = "", *, named: ActorName | None = None
    ) -> Any:
        """Ask the scheduler; plain data."""
        return self.answer_to(Query(0, what, limit, match, named=named))

    def free_name(self, named: ActorName) -> None:
        """Let a name go; see Session."""
        self._tell(self._inbox.asked, Asked(Query(0, "name", named=named.freed())))

    def answer_to(self, message: Query | Drain) -> Any:
        """Return what the scheduler answers to a question, or to an admin's order."""
        self._must_be_alive()
        asked, message.request = self._inbox.asked, next(self._requests)
        answer = self._ask(message.request, lambda: asked.append(Asked(message)), QUERY_ANSWER_S)
        if answer is None:
            self._must_be_alive()
            text = f"the scheduler at {self.endpoint} did not answer within {QUERY_ANSWER_S:g} s"
            raise SchedulerUnreachable(text)
        return answer

    def _ask(self, request: int, leave: Callable[[], None], timeout_s: float) -> Any:
        waiter = self._board.requests[request] = ReplyWaiter()
        try:
            leave()
            if self._open:
                self._service.wait(waiter, timeout_s)
            return waiter.data
        finally:
            self._board.requests.pop(request, None)

    def _tell(self, queue: Any, event: Any) -> None:
        queue.append(event)
        if self._service.sleeping:
            self._service.wake()

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        """Kill an actor; returns at once."""
        self._cancel(CancelAsked([task_of(id_)], True, True, restart=restart))

    def _cancel(self, asked: CancelAsked) -> None:
        self._must_be_alive()
        self._tell(self._inbox.cancels, asked)

    def hold(self, id_: ObjectId) -> None:
        """One more ObjectRef to this object lives here."""
        self._inbox.refs.append((id_, 1))

    def drop(self, id_: ObjectId) -> None:
        """One ObjectRef less."""
        self._inbox.refs.append((id_, -1))
        if self._service.over:
            self._service.let_go()

    def read(self, task: TaskId, count: int, *, over: bool) -> None:
        """Of what a task yields so many were read; see Session."""
        self._tell(self._inbox.reads, (task, count, over))

    def pin(self, id_: ObjectId) -> None:
        """A ref was pickled outside Drumbeat."""
        self._inbox.pins.append(id_)

    # ------------------------------------------------------------------------ for init and the end

    def wait_until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something holds that a turn of the loop may change."""
        waiter = ConditionWaiter(lambda: holds() or not self._open)
        self._board.conditions[waiter] = None
        try:
            if not waiter.holds():
                self._service.wait(waiter, timeout_s)
        finally:
            self._board.conditions.pop(waiter, None)
        if not self._open:
            raise self._not_alive()
        return holds()

    def unfinished(self) -> int:
        """Return how many tasks have no result yet."""
        return self._room.unfinished()

    def close(self, timeout_s: float = 1.0) -> None:
        """Leave the cluster: what is unfinished is cancelled, whoever waits gets an error."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if not self.alive:
                return
            self.alive = False
            was_open, self._open = self._open, False
        if was_open:
            self._service.stop(timeout_s)
            self._call_off()
        self._store.close()
        self._speaker.last_words()

    def fail(self, error: DrumbeatError) -> None:
        """End with an error for everybody: the cluster cannot go on. From any thread."""
        if self._pid != os.getpid():
            return
        self._ended(error)
        self._service.stop(1.0)

    def _ended(self, error: DrumbeatError) -> None:
        with self._lock:
            if not self._open:
                return
            self._error = error
            self._open = False
        self._call_off()

    def _call_off(self) -> None:
        error = self._not_alive()
        for callback, row in self._board.close(Failure(type(error).__name__, str(error))):
            callback(row)

    def _must_be_alive(self) -> None:
        if not self._open or self._pid != os.getpid():
            raise self._not_alive()

    def _not_alive(self) -> DrumbeatError:
        if self._pid != os.getpid():
            return NotInitialized(
                "this process was forked from one that uses Drumbeat, and cannot use its "
                "connection; call drumbeat.init() here, or start processes by spawn"
            )
        if self._error is None:
            return NotInitialized("shutdown() was called; call drumbeat.init() to start again")
        return type(self._error)(*self._error.args).with_cause(self._error.__cause__)

    def _show(self, message: AnyMessage) -> None:
        if type(message) is Shapes:
            self.shapes = message.rows
            self._feasible.clear()
        else:
            self._speaker.say(message)


_sessions: "weakref.WeakSet[ClusterSession]" = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.let_go_in_fork()


os.register_at_fork(after_in_child=_after_fork)
