"""A protocol.session.Session in memory: the test says when a task runs and how it ends."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

from drumbeat.protocol import session as session_module
from drumbeat.protocol.actor_calls import visiting
from drumbeat.protocol.actors import ActorName
from drumbeat.protocol.errors import GetTimeoutError, ObjectLost
from drumbeat.protocol.ids import IdFactory, ObjectId, PeerId, TaskId, objects_of
from drumbeat.protocol.messages import Failure, Outcome, ValueRow
from drumbeat.protocol.parcels import Hint, Parcel
from drumbeat.protocol.payload import pack_error, pack_results, unpack_call, unpack_function
from drumbeat.protocol.references import ObjectRef
from drumbeat.protocol.session import Keeper, Kept, Kind, Packed

_HEAD_BYTES: Final = 64


class Call:
    """A call that was submitted."""

    def __init__(self, kind: Kind, packed: Packed, ids: list[ObjectId]) -> None:
        self.kind = kind
        self.packed = packed
        self.ids = ids


class FakeKeeper:
    """A protocol.session.Keeper in memory, for the objects of a fake session.

    Args:
        session: takes the segments, and finds them again.
        bytes_min: buffers below this stay in their pickle.
        room: how many bytes it takes in all; beyond that it keeps nothing.
    """

    def __init__(self, session: "FakeSession", bytes_min: int, room: int = 1 << 30) -> None:
        self.bytes_min = bytes_min
        self.room = room
        #: by id; a segment begins with a head, as real ones do
        self.segments: dict[bytes, bytes] = {}
        self._session = session
        session.keeper = self

    def __call__(self, buffers: Sequence[memoryview]) -> Kept | None:
        if sum(buffer.nbytes for buffer in buffers) > self.room:
            return None
        segment = bytearray(_HEAD_BYTES)
        spans = []
        for buffer in buffers:
            segment += bytes(-len(segment) % _HEAD_BYTES)
            spans.append((len(segment), buffer.nbytes))
            segment += buffer
        self.room -= len(segment)
        id_ = ObjectId(self._session.new_id())
        self.segments[id_] = bytes(segment)
        self._session.holds[id_] = 1
        hint = Hint("faked", 1, 1, 1, len(segment))
        return Kept(id_, hint, tuple(spans), ObjectRef(id_, self._session))

    def buffers(self, parcel: Parcel) -> tuple[bytes | memoryview, list[memoryview]]:
        found = []
        for part in parcel.parts:
            segment = self.segments.get(part.segment)
            if segment is None:
                raise ObjectLost("the segment is gone")
            memory = segment if parcel.frozen else bytearray(segment)
            view = memoryview(memory)[part.offset : part.offset + part.size]
            found.append(view.toreadonly() if part.read_only else view)
        return (found[0], found[1:]) if parcel.stream is None else (parcel.stream, found)


class FakeSession:
    """`automatic=True` runs each task as soon as it is submitted."""

    def __init__(self, automatic: bool = True, lends: bool = True) -> None:
        self.alive = True
        self.namespace = "~faked"
        self.asked: list[ActorName] = []
        self.named: dict[tuple[str, str], ActorName] = {}
        self.lends = lends
        self.keeper: Keeper | None = None
        self.automatic = automatic
        self.calls: list[Call] = []
        self.waiting: list[Call] = []
        self.rows: dict[ObjectId, ValueRow] = {}
        self.holds: dict[ObjectId, int] = {}
        self.pinned: list[ObjectId] = []
        #: how long each reader of a parcel would have waited for its bytes
        self.untils_s: list[float | None] = []
        self.cancelled: list[tuple[list[ObjectId], bool, bool]] = []
        self.actors: dict[ObjectId, Any] = {}
        self.killed: list[tuple[ObjectId, bool]] = []
        self.reads: list[tuple[TaskId, int, bool]] = []
        self.submitting: Exception | None = None
        #: raised amid a question for a name, that may have been heard
        self.asking: BaseException | None = None
        self._changed = threading.Condition()
        self._callbacks: dict[ObjectId, list[Callable[[ValueRow], Any]]] = {}
        self._ids = IdFactory(PeerId(b"faked!"))

    def __enter__(self) -> Self:
        session_module.set_current(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.alive = False
        session_module.set_current(None)

    # ------------------------------------------------------------------- what a test does

    def run(self, count: int = 1) -> None:
        """Run the oldest calls that wait."""
        for _ in range(count):
            call = self.waiting.pop(0)
            function, _ = unpack_function(call.kind.function.payload)
            try:
                args, kwargs = unpack_call(
                    call.packed.payload, [self.rows[id_] for id_ in call.packed.deps]
                )
                value = self._called(call, function, args, kwargs)
                packed = pack_results(value, call.kind.options.num_returns, call.kind.name)
                rows = [
                    ValueRow(call.ids[i], Outcome.VALUE, p.payload) for i, p in enumerate(packed)
                ]
            except BaseException as error:  # noqa: BLE001  # the task's outcome
                payload = pack_error(error, name=call.kind.name, pid=41, node="lab3").payload
                rows = [ValueRow(id_, Outcome.ERROR, payload) for id_ in call.ids]
            self.settle(rows)

    def _called(self, call: Call, function: Any, args: Any, kwargs: Any) -> Any:
        options = call.kind.options
        if options.creates is not None:
            self.actors[call.ids[0]] = function(*args, **kwargs)
            return None
        if not options.actor:
            return function(*args, **kwargs)
        with visiting(self.actors[ObjectId(options.actor)]):
            return function(*args, **kwargs)

    def fail(self, failure: Failure) -> None:
        """End the oldest call that waits with a failure."""
        call = self.waiting.pop(0)
        self.settle([ValueRow(id_, Outcome.FAILURE, failure=failure) for id_ in call.ids])

    def settle(self, rows: Sequence[ValueRow]) -> None:
        callbacks = []
        with self._changed:
            for row in rows:
                self.rows[row.id] = row
                callbacks += [(callback, row) for callback in self._callbacks.pop(row.id, [])]
            self._changed.notify_all()
        for callback, row in callbacks:
            callback(row)

    # --------------------------------------------------------------------------- Session

    def new_id(self) -> TaskId:
        return self._ids()

    def submit(self, kind: Kind, packed: Packed, task: TaskId | None = None) -> list[ObjectId]:
        if self.submitting is not None:
            raise self.submitting
        if kind.session is None:
            kind.session = self
        ids = objects_of(task or self._ids(), kind.options.num_returns)
        for id_ in ids:
            self.holds[id_] = 1
        call = Call(kind, packed, ids)
        self.calls.append(call)
        self.waiting.append(call)
        if self.automatic:
            self.run()
        return ids

    def put(self, packed: Packed) -> ObjectId:
        id_ = ObjectId(self._ids())
        self.holds[id_] = 1
        self.settle([ValueRow(id_, Outcome.VALUE, packed.payload, contained=packed.contained)])
        return id_

    def get(self, ids: Sequence[ObjectId], timeout_s: float | None) -> list[ValueRow]:
        def ended() -> list[ValueRow] | None:
            rows = [self.rows[id_] for id_ in ids if id_ in self.rows]
            failed = next((row for row in rows if row.outcome != Outcome.VALUE), None)
            if failed is not None:
                return [failed]
            return rows if len(rows) == len(ids) else None

        with self._changed:
            rows = self._changed.wait_for(ended, timeout_s)
        if rows is None:
            raise GetTimeoutError("not in time")
        return rows

    def wait(self, ids: Sequence[ObjectId], count: int, timeout_s: float | None) -> set[ObjectId]:
        with self._changed:
            self._changed.wait_for(lambda: sum(id_ in self.rows for id_ in ids) >= count, timeout_s)
            return {id_ for id_ in ids if id_ in self.rows}

    def peek(self, id_: ObjectId) -> ValueRow | None:
        return self.rows.get(id_)

    def when_ready(self, id_: ObjectId, callback: Callable[[ValueRow], Any]) -> None:
        with self._changed:
            row = self.rows.get(id_)
            if row is None:
                self._callbacks.setdefault(id_, []).append(callback)
        if row is not None:
            callback(row)

    def cancel(self, ids: Sequence[ObjectId], force: bool, recursive: bool) -> None:
        self.cancelled.append((list(ids), force, recursive))

    def cancel_queued(self, ids: Sequence[ObjectId]) -> list[bool]:
        answers = []
        for id_ in ids:
            call = next((call for call in self.waiting if id_ in call.ids), None)
            answers.append(call is not None)
            if call is not None:
                self.waiting.remove(call)
                failure = Failure("TaskCancelled", "cancelled before it started")
                self.settle([ValueRow(id_, Outcome.FAILURE, failure=failure)])
        return answers

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        self.killed.append((id_, restart))

    def hold(self, id_: ObjectId) -> None:
        self.holds[id_] = self.holds.get(id_, 0) + 1

    def drop(self, id_: ObjectId) -> None:
        self.holds[id_] -= 1

    def read(self, task: TaskId, count: int, *, over: bool) -> None:
        self.reads.append((task, count, over))

    def pin(self, id_: ObjectId) -> None:
        self.pinned.append(id_)

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Return them from the memory of a `FakeKeeper`."""
        self.untils_s.append(until_s)
        assert isinstance(self.keeper, FakeKeeper)
        return self.keeper.buffers(parcel)

    def query(
        self, what: str, limit: int = 100, match: str = "", *, named: ActorName | None = None
    ) -> Any:
        if named is not None:
            self.asked.append(named)
            key = named.namespace, named.name
            found = self.named.get(key)
            if found is None and named.id:
                found = self.named[key] = named
            if self.asking is not None:
                raise self.asking
            return {} if found is None else {"id": found.id, "told": found.told}
        return [
            {"name": "one", "state": "alive", "resources": {"CPU": 2.0}, "free": {"CPU": 0.5}},
            {"name": "two", "state": "suspect", "resources": {"CPU": 2.0, "tape": 1.0}, "free": {}},
            {"name": "old", "state": "lost", "resources": {"CPU": 9.0}, "free": {"CPU": 9.0}},
        ]

    def free_name(self, named: ActorName) -> None:
        self.asked.append(named.freed())
        self.named.pop((named.namespace, named.name), None)


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    """Wait, without a clock of its own, until another thread has made the condition true."""
    end_s = time.monotonic() + within_s
    tick = threading.Event()
    while not condition():
        if time.monotonic() > end_s:
            return False
        tick.wait(0.001)
    return True
