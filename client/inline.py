"""init(inline=True): every task runs here and now, so that pdb can step in.

Never skips what a cluster would do to arguments and results: they are pickled both ways, and what
is large lies in memory segments, so what works here works there.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..protocol.actor_calls import ActorExit, visiting
from ..protocol.actors import ActorName
from ..protocol.errors import Interrupted, NotInitialized, ObjectLost
from ..protocol.ids import (
    TASK_BYTES,
    IdFactory,
    ObjectId,
    PeerId,
    TaskId,
    index_of,
    item_of,
    objects_of,
    show,
    task_of,
)
from ..protocol.inside import CurrentCall, running
from ..protocol.machine import cpu_count
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.outcomes import ERROR, VALUE, is_retryable, value_of
from ..protocol.parcels import Parcel
from ..protocol.payload import (
    limit_values,
    pack_error,
    pack_results,
    pack_value,
    unpack_call,
    unpack_function,
)
from ..protocol.session import Keeping, Kind, Packed
from ..protocol.settings import Settings
from ..protocol.store import Store
from ..protocol.unparcel import Segments
from .inline_streams import InlineStream
from .keeper import SegmentKeeper, are_wanted

NODE_NAME = "inline"


class _Entry:
    """An object: its row, and how many references and values hold it."""

    __slots__ = ("holds", "row")

    def __init__(self, row: ValueRow) -> None:
        self.row = row
        self.holds = 1


class _Actor:
    """An actor of this process."""

    __slots__ = ("attempts", "end", "instance", "kind", "packed")

    def __init__(self, kind: Kind, packed: Packed) -> None:
        self.kind = kind
        self.packed = packed
        self.instance: Any = None
        #: how often it was made, or was to be
        self.attempts = 0
        #: why it is no more; "": it is
        self.end = ""


class InlineSession:
    """A protocol.session.Session without a cluster.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.alive = True
        self.namespace = "inline"
        self.lends = False
        settings = settings or Settings()
        limit_values(settings.value_bytes_max)
        self._store = Store.of(settings, is_trimmed=False)
        self.keeper: Keeping | None = None
        if are_wanted(settings):  # nobody else is to find them, so there is no machine
            self.keeper = SegmentKeeper(
                self, settings, "", self._store, _no_wait, self._leave, lambda *_: self._free()
            )
        self._peer = PeerId(os.urandom(6))
        self._ids = IdFactory(self._peer)
        self._objects: dict[ObjectId, _Entry] = {}
        #: references that went; handled by the next call, since they go at any moment
        self._dropped: deque[ObjectId] = deque()
        dropped = self._dropped
        self._segments = Segments(
            self._store,
            "",
            _lost,
            lambda id_: self.hold(ObjectId(id_)),
            lambda id_: dropped.append(ObjectId(id_)),
        )
        self._functions: dict[bytes, tuple[Callable[..., Any], Any]] = {}
        #: by their creations; as long as somebody holds them
        self._actors: dict[bytes, _Actor] = {}
        #: what tasks are yielding, until nobody reads any more
        self._streams: dict[TaskId, InlineStream] = {}
        self._names: dict[tuple[str, str], ActorName] = {}
        self._finished = 0

    # ------------------------------------------------------------------------------- Session

    def new_id(self) -> TaskId:
        """Return an id for a task that is to be submitted by it."""
        return self._ids()

    def submit(self, kind: Kind, packed: Packed, task: TaskId | None = None) -> list[ObjectId]:
        """Run a call to its end; return the ids of its values."""
        self._free()
        task = task or self._ids()
        ids = objects_of(task, kind.options.num_returns)
        if kind.options.creates is not None:
            self._actors[task] = _Actor(kind, packed)
        if kind.options.stream_buffer_max:
            self._streams[task] = stream = self._stream(kind, packed, task)
            for needed in stream.needs:
                self.hold(needed)
            return ids
        rows = self._outcome(kind, packed, task)
        for index, id_ in enumerate(ids):
            self._keep(id_, rows[index if len(rows) == len(ids) else 0])
        if kind.options.creates is not None and kind.options.creates.detached:
            self.hold(ids[0])
        self._finished += 1
        return ids

    def put(self, packed: Packed) -> ObjectId:
        """Keep a value."""
        self._free()
        id_ = ObjectId(self._ids())
        self._keep(id_, ValueRow(id_, VALUE, packed.payload, contained=packed.contained))
        return id_

    def get(
        self,
        ids: Sequence[ObjectId],
        timeout_s: float | None,  # noqa: ARG002  # nothing to wait for
    ) -> list[ValueRow]:
        """Return the rows up to the first that is not a value; all are here."""
        rows = []
        for id_ in ids:
            rows.append(self._row(id_))
            if rows[-1].outcome != VALUE:
                break
        return rows

    def wait(
        self,
        ids: Sequence[ObjectId],
        count: int,  # noqa: ARG002  # all are ready
        timeout_s: float | None,  # noqa: ARG002  # nothing to wait for
    ) -> set[ObjectId]:
        """Return all: nothing is ever on its way."""
        return set(ids)

    def peek(self, id_: ObjectId) -> ValueRow | None:
        """Return the row."""
        return self._row(id_)

    def when_ready(self, id_: ObjectId, callback: Callable[[ValueRow], Any]) -> None:
        """Call back at once."""
        callback(self._row(id_))

    def cancel(
        self,
        ids: Sequence[ObjectId],
        force: bool,  # noqa: ARG002  # it is interrupted either way
        recursive: bool,  # noqa: ARG002  # what it has called has ended
    ) -> None:
        """Interrupt what yields when it is read next; all else has ended."""
        for stream in [self._streams.get(task_of(id_)) for id_ in ids]:
            if stream is not None:
                stream.cancel()

    def cancel_queued(self, ids: Sequence[ObjectId]) -> list[bool]:
        """Return that none could be cancelled: all have ended."""
        return [False] * len(ids)

    def kill(self, id_: ObjectId, *, restart: bool) -> None:
        """Let an actor go, or make it anew."""
        actor = self._actors.get(id_)
        if actor is None or actor.end:
            return
        actor.instance = None
        most = actor.kind.options.max_retries
        if restart and actor.attempts <= most:
            rows = self._outcome(actor.kind, actor.packed, TaskId(id_))
            self._objects[id_].row = rows[0]
        else:
            left = f", and max_restarts={most} allows no further restart" if restart else ""
            actor.end = f"it was killed{left}"

    def hold(self, id_: ObjectId) -> None:
        """Count one more reference."""
        if (entry := self._objects.get(id_)) is not None:
            entry.holds += 1

    def drop(self, id_: ObjectId) -> None:
        """Count one reference less, later."""
        self._dropped.append(id_)

    def read(self, task: TaskId, count: int, *, over: bool) -> None:
        """Let go of what a task would yield, when nobody reads any more."""
        if over:
            stream = self._streams.pop(task, None)
            if stream is not None:
                self._dropped.extend(stream.needs)
            self._objects.pop(item_of(task, count), None)

    def pin(self, id_: ObjectId) -> None:
        """Keep a value for good."""
        self.hold(id_)

    def buffers(
        self, parcel: Parcel, until_s: float | None = None
    ) -> tuple[bytes | memoryview, list[memoryview]]:
        """Return the pickle stream of a parcel, and its buffers in their order."""
        return self._segments.buffers(parcel, until_s)

    def _leave(self, row: ValueRow) -> None:
        """Take a memory segment as an object."""
        if not self.alive:
            raise NotInitialized("shutdown() was called; call drumbeat.init() to start again")
        self._objects[ObjectId(row.id)] = _Entry(row)

    def query(
        self,
        what: str,
        limit: int = 100,  # noqa: ARG002  # one node, no tasks
        match: str = "",  # noqa: ARG002  # the same
        *,
        named: ActorName | None = None,
    ) -> Any:
        """Describe this process as if it were a cluster of one node."""
        if named is not None:
            return self._whose(named)
        cpus = float(cpu_count())
        if what == "nodes":
            return [
                {
                    "name": NODE_NAME,
                    "id": self._peer.hex(),
                    "state": "alive",
                    "resources": {"CPU": cpus},
                    "free": {"CPU": cpus},
                    "assigned": 0,
                    "running": 0,
                    "blocked": 0,
                    "workers": 1,
                }
            ]
        if what == "tasks":
            return []
        return {
            "nodes": {"alive": 1, "suspect": 0},
            "clients": 1,
            "tasks": {"finished": self._finished},
        }

    def free_name(self, named: ActorName) -> None:
        """Let a name go; see Session."""
        self._whose(named.freed())

    def _whose(self, named: ActorName) -> dict[str, bytes]:
        """Say whose a name is, and give it to whoever may have it."""
        self._free()
        key = named.namespace, named.name
        found = self._names.get(key)
        actor = None if found is None else self._actors.get(found.id)
        if found is None or (found.id != named.id and (actor is None or actor.end)):
            if not named.id or named.frees:
                return {}
            found = self._names[key] = named
        elif named.frees:
            del self._names[key]
        return {"id": found.id, "told": found.told}

    def close(self) -> None:
        """Forget all values."""
        self.alive = False
        self._objects.clear()
        self._store.close()
        self._streams.clear()
        self._actors.clear()
        self._functions.clear()

    # ------------------------------------------------------------------------------- running

    def _outcome(self, kind: Kind, packed: Packed, task: TaskId) -> list[ValueRow]:
        if kind.options.creates is not None:
            actor = self._actors[task]
            actor.attempts += 1
            rows = self._attempts(kind, packed, task)
            if rows[0].outcome != VALUE:
                failure = rows[0].failure
                actor.end = "its constructor raised" if failure is None else failure.text
            return rows
        if not kind.options.actor:
            return self._attempts(kind, packed, task)
        actor = self._actors[kind.options.actor]
        if actor.end:
            return [self._actor_died(kind, actor.end)]
        with visiting(actor.instance):
            return self._attempts(kind, packed, task)

    def _actor_died(self, kind: Kind, end: str) -> ValueRow:
        id_ = ObjectId(kind.options.actor)
        made = self._row(id_)
        text = f"{kind.name} cannot run: actor {show(id_)} is dead: {end}"
        failure = Failure("ActorDied", text, {"name": kind.name, "actor": show(id_)}, made.failure)
        payload = made.payload if made.outcome == ERROR else None
        return ValueRow(id_, Outcome.FAILURE, payload, contained=made.contained, failure=failure)

    def _stream(self, kind: Kind, packed: Packed, task: TaskId) -> InlineStream:
        """Return a call that will run as far as it is read."""

        def begin() -> tuple[Any, Any]:
            actor = self._actors.get(kind.options.actor)
            died = [] if actor is None or not actor.end else [self._actor_died(kind, actor.end)]
            rows = [self._row(id_) for id_ in packed.deps]
            for row in (*died, *rows):
                value_of(row)  # raises what keeps the call from beginning
            function, retry_exceptions = self._function(kind)
            args, kwargs = unpack_call(packed.payload, rows)
            return function(*args, **kwargs), retry_exceptions

        @contextmanager
        def around(attempt: int) -> Iterator[None]:
            actor = self._actors.get(kind.options.actor)
            call = CurrentCall(
                kind.name, show(task), attempt, NODE_NAME, os.getpid(),
                show(kind.options.actor) if kind.options.actor else None,
                actor.attempts if actor else attempt, None,
            )  # fmt: skip
            where = _environment(kind.options.env_vars, kind.options.working_dir)
            try:
                with running(call), visiting(actor and actor.instance), where:
                    yield
            except ActorExit:
                if actor is not None:
                    actor.end = "it has ended itself"
                raise

        needs = [*packed.deps, *packed.contained, ObjectId(kind.options.actor)]  # if it has one
        return InlineStream(kind, task, NODE_NAME, needs, begin, around)

    def _attempts(self, kind: Kind, packed: Packed, task: TaskId) -> list[ValueRow]:
        failed = next((row for row in map(self._row, packed.deps) if row.outcome != VALUE), None)
        if failed is not None:
            return [_dependency_failed(failed)]
        attempt, details = 0, None
        while True:
            attempt += 1
            actor = kind.options.actor or (task if kind.options.creates is not None else b"")
            fence = self._actors[actor].attempts if actor else attempt
            call = CurrentCall(
                kind.name, show(task), attempt, NODE_NAME, os.getpid(),
                show(actor) if actor else None, fence, details,
            )  # fmt: skip
            with running(call) as inside:
                rows, retry = self._attempt(kind, packed, task, attempt)
            details = inside.details or details
            if not retry or attempt > kind.options.max_retries:
                return rows

    def _attempt(
        self, kind: Kind, packed: Packed, task: TaskId, attempt: int
    ) -> tuple[list[ValueRow], bool]:
        retry_exceptions: Any = False
        try:
            function, retry_exceptions = self._function(kind)
            args, kwargs = unpack_call(packed.payload, [self._row(id_) for id_ in packed.deps])
            with _environment(kind.options.env_vars, kind.options.working_dir):
                value = function(*args, **kwargs)
            if kind.options.creates is not None:
                self._actors[task].instance, value = value, None
            results = pack_results(value, kind.options.num_returns, kind.name)
        except KeyboardInterrupt:
            raise  # the user's own
        except ActorExit:
            actor = self._actors.get(kind.options.actor)
            if actor is not None:
                actor.end = "it has ended itself"
            return [ValueRow(task, VALUE, pack_value(None).payload)], False
        except Interrupted:
            failure = Failure("TaskCancelled", f"{kind.name}() ended itself by Interrupted")
            return [ValueRow(task, Outcome.FAILURE, failure=failure)], False
        except BaseException as error:  # noqa: BLE001  # the task's outcome, sys.exit() too
            report = pack_error(
                error,
                name=kind.name,
                task=show(task),
                node=NODE_NAME,
                pid=os.getpid(),
                attempt=attempt,
            )
            row = ValueRow(task, ERROR, report.payload, contained=report.contained)
            return [row], is_retryable(error, retry_exceptions)
        finally:
            sys.stdout.flush()
        return [
            ValueRow(task, VALUE, result.payload, contained=result.contained) for result in results
        ], False

    def _function(self, kind: Kind) -> tuple[Callable[..., Any], Any]:
        found = self._functions.get(kind.function.hash)
        if found is None:
            found = unpack_function(kind.function.payload)
            self._functions[kind.function.hash] = found
        return found

    # ------------------------------------------------------------------------------- objects

    def _row(self, id_: ObjectId) -> ValueRow:
        entry = self._objects.get(id_)
        stream = self._streams.get(task_of(id_)) if entry is None else None
        if stream is not None and len(id_) > TASK_BYTES and index_of(id_) == stream.count:
            self._keep(id_, stream.next())
            entry = self._objects[id_]
        if entry is None:
            text = f"nobody holds object {show(id_)} any more; its value is gone"
            return ValueRow(id_, Outcome.FAILURE, failure=Failure("ObjectLost", text))
        return entry.row

    def _keep(self, id_: ObjectId, row: ValueRow) -> None:
        own = ValueRow(id_, row.outcome, row.payload, 0, row.contained, row.failure)
        self._objects[id_] = _Entry(own)
        for inner in row.contained:
            self.hold(ObjectId(inner))

    def _free(self) -> None:
        while self._dropped:
            id_ = self._dropped.popleft()
            entry = self._objects.get(id_)
            if entry is None:
                continue
            entry.holds -= 1
            if entry.holds == 0:
                del self._objects[id_]
                self._store.pop(id_)
                self._actors.pop(id_, None)
                self._dropped.extend(ObjectId(inner) for inner in entry.row.contained)


def _no_wait(_: int) -> None:
    """A call has ended when its successor is packed: there is always room."""


def _lost(id_: bytes, _: float | None) -> bytes:
    raise ObjectLost(f"the bytes of {show(id_)} are gone: nobody held them any more")


def _dependency_failed(failed: ValueRow) -> ValueRow:
    failure = Failure(
        "DependencyFailed",
        f"an argument could not be had: the task of {show(failed.id)} failed",
        cause=failed.failure,
    )
    payload = failed.payload if failed.outcome == ERROR else None
    return ValueRow(
        failed.id, Outcome.FAILURE, payload, contained=failed.contained, failure=failure
    )


@contextmanager
def _environment(env_vars: Sequence[tuple[str, str]], working_dir: str) -> Iterator[None]:
    """Give a task its environment and directory, and take them away again."""
    if not env_vars and not working_dir:
        yield
        return
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name, _ in env_vars}
    directory = os.getcwd()
    try:
        os.environ.update(dict(env_vars))
        if working_dir:
            os.chdir(working_dir)
        yield
    finally:
        os.chdir(directory)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
