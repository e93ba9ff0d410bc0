"""The node as home of what its workers submit and put, and as holder of others' refs.

Never looks inside a value; refs that lie in one are named in its row. A value lives as long as a
worker holds its ref, something here pins it, others share it, or somebody waits for it. What a
holder owes the scheduler is counted by deliveries: see Holders in docs/protocol.md.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.ahead import Ahead
from ..protocol.ids import TASK_BYTES, ObjectId, TaskId, home_of, objects_of, show, task_of
from ..protocol.messages import Failure, Outcome, TaskRow, ValueRow
from ..protocol.payload_files import may_be_file
from ..protocol.stowage import Fullness
from .attempts import Waiter, Worker
from .puts import counted
from .takings import Takings


class Entry(Struct, gc=False, eq=False):
    """What the node knows of one object."""

    #: True: submitted or put by a worker of this node
    home: bool
    row: ValueRow | None = None
    #: home: its task is not over
    pending: bool = False
    #: workers that hold it, and pins: attempts, calls and results in which it lies
    count: int = 0
    #: deliveries from the scheduler since the last Release
    received: int = 0
    #: home: others hold it
    shared: bool = False
    #: home: others held it in a former life of the scheduler, and may still
    was_shared: bool = False
    #: home: the scheduler wants the value
    wanted: bool = False
    #: foreign: asked for
    fetched: bool = False
    waiters: tuple[Waiter, ...] = ()
    #: home: of the function that makes it, for people; "": it was put
    name: str = ""


class Call(Struct, gc=False, eq=False):
    """A task that one of our workers submitted and whose result is not here yet."""

    client: bytes
    num_returns: int
    #: dependencies and refs inside its arguments
    pins: tuple[bytes, ...]
    #: results still to come
    left: int
    #: as it is submitted, large arguments included
    row: TaskRow
    #: the task whose code submitted it, and how deep in the tree of calls it is
    parent: bytes
    depth: int
    #: the last that the scheduler told of; 0: it was surely never submitted
    attempt: int
    #: to be cancelled, and how
    cancelled: bool = False
    force: bool = False
    recursive: bool = False
    #: the creation of an actor that ends when nobody holds it; the scheduler has been told so
    creates: bool = False
    exits: bool = False
    #: of the function, for people
    name: str = ""
    #: it yields its values
    yields: bool = False


class Objects:
    """All objects that this node knows."""

    def __init__(self, peer: bytes, small_value_bytes: int) -> None:
        self._peer = peer
        self._small_value_bytes = small_value_bytes
        self.entries: dict[bytes, Entry] = {}
        self.calls: dict[bytes, Call] = {}
        #: of those, what came before its row
        self.ahead = Ahead()
        #: to be told to the scheduler
        self.fetches: list[bytes] = []
        self.values: list[ValueRow] = []
        #: waiters whose wait is over
        self.satisfied: list[Waiter] = []
        #: creations of actors that nobody holds any more, to be told
        self.unheld: list[bytes] = []
        #: actors that workers here have called, and the numbers of those kinds
        self.called: dict[bytes, list[int]] = {}
        #: kinds of calls of actors that nobody here can call any more
        self.uncalled: list[int] = []
        #: values that lie in files, in order: kept from now on, or gone (None)
        self.filed: list[tuple[ObjectId, ValueRow | None]] = []
        #: worker -> so much of it was put by now, where that is new
        self.brought: dict[int, int] = {}
        #: how full memory and disk are; None: they have room
        self.fullness: Fullness | None = None
        # Entries that may have lost their last reason to exist. Looked at once a turn, so that a
        # pin that moves from one owner to the next is never seen as gone.
        self.loose: dict[bytes, None] = {}
        self.takings = Takings(self)

    # ------------------------------------------------------------------------------------ holding

    def hold(self, worker: Worker, ids: Iterable[bytes]) -> None:
        """Refs live in a worker now."""
        for id_ in ids:
            if id_ not in worker.holds:
                worker.holds[id_] = None
                self._entry(id_).count += 1

    def drop(self, worker: Worker, ids: Iterable[bytes]) -> None:
        """A worker's last ref to these has gone."""
        held = []
        for id_ in ids:
            if id_ in worker.holds:
                del worker.holds[id_]
                held.append(id_)
        self.unpin(held)

    def worker_gone(self, worker: Worker) -> None:
        """A worker has ended: it holds nothing."""
        self.unpin(worker.holds)
        worker.holds = {}

    def pin(self, ids: Iterable[bytes]) -> None:
        """Something here needs these."""
        for id_ in ids:
            self._entry(id_).count += 1

    def unpin(self, ids: Iterable[bytes]) -> None:
        """Something here needs these no more."""
        for id_ in ids:
            self.entries[id_].count -= 1
            self.loose[id_] = None

    def deliver(self, ids: Iterable[bytes]) -> None:
        """The scheduler sent us refs: it counts us as holder of each."""
        for id_ in ids:
            self._entry(id_).received += 1
            self.loose[id_] = None

    def sweep(self) -> list[tuple[bytes, int]]:
        """Free what nobody needs; return what is to be released at the scheduler."""
        released: list[tuple[bytes, int]] = []
        loose, entries = self.loose, self.entries
        while loose:
            id_ = loose.popitem()[0]
            entry = entries.get(id_)
            if entry is None or entry.count or entry.waiters or entry.wanted:
                continue
            if entry.received:
                released.append((id_, entry.received))
                entry.received = 0
            if entry.home and (entry.shared or entry.was_shared):
                continue
            if entry.pending:
                self._unhold(id_)
                continue
            del entries[id_]
            if id_ in self.called:
                self.uncalled += self.called.pop(id_)
            if entry.row is not None:
                self._unfile(entry.row)
                self.unpin(entry.row.contained)
        return released

    def _unhold(self, id_: bytes) -> None:
        # Nobody holds it, though its task goes on: if that is an actor, none can call it any more.
        call = self.calls.get(id_)
        if call is not None and call.creates and not call.exits:
            call.exits = True
            self.unheld.append(id_)

    # ----------------------------------------------------------------------- what workers submit

    def submit(self, task: TaskId, call: Call, worker: Worker) -> None:
        """A worker submitted a task: we are home of its values, which the worker holds."""
        self.calls[task] = call
        self.pin(call.pins)
        if call.yields:
            self.takings.begin(task, worker)
        ids = objects_of(task, call.num_returns)
        for id_ in ids:
            entry = self._entry(id_)
            entry.pending, entry.name = True, call.name
        self.hold(worker, ids)

    def put(self, row: ValueRow, worker: Worker) -> None:
        """A worker put a value."""
        self.hold(worker, (row.id,))
        size = counted(row.payload)
        if size:
            worker.put_bytes += size
            self.brought[worker.number] = worker.put_bytes
        self.resolve(row)

    def known(self, id_: bytes) -> ValueRow | None:
        """Return a dependency's row if it is here and small enough to be sent along."""
        entry = self.entries.get(id_)
        if entry is None or entry.row is None:
            return None
        row = entry.row
        if len(row.payload or b"") > self._small_value_bytes:
            return None
        return row if entry.home or row.outcome == Outcome.VALUE else None

    def result(self, row: ValueRow) -> None:
        """A submitted task has a final outcome (its contained refs are delivered already)."""
        task = task_of(ObjectId(row.id))
        call = self.calls.get(task)
        if call is None:
            return
        if call.yields and len(row.id) > TASK_BYTES:
            self.takings.came(row, task)
            return
        if call.yields:
            self.takings.ended(row, task)
            call.left = 0
        elif row.outcome != Outcome.VALUE and len(row.id) == TASK_BYTES:
            call.left = 0
            for id_ in objects_of(task, call.num_returns):
                self.resolve(row if id_ == row.id else replace(row, id=id_))
        else:
            if call.num_returns:
                entry = self.entries.get(row.id)
                if entry is None or not entry.pending:
                    return  # it came in a former life of the scheduler; others had yet to come
                self.resolve(row)
            call.left -= 1
        if call.left <= 0:
            del self.calls[task]
            self.ahead.forget(task)
            self.unpin(call.pins)

    def fail(self, task: TaskId, failure: Failure) -> None:
        """A submitted task comes to nothing, for a reason found here."""
        self.result(ValueRow(task, Outcome.FAILURE, failure=failure))

    def client_left(self, client: bytes) -> None:
        """A client has gone, and with it all that its workers submitted."""
        for task in [task for task, call in self.calls.items() if call.client == client]:
            self.fail(TaskId(task), Failure("ObjectLost", "its client has left the cluster"))

    # ------------------------------------------------------------------------ what the others say

    def value(self, row: ValueRow) -> None:
        """The answer to a Fetch (its contained refs are delivered already)."""
        entry = self.entries.get(row.id)
        if entry is not None and not entry.home:
            self.resolve(row)

    def want(self, ids: Iterable[bytes]) -> None:
        """The scheduler wants values of ours as soon as they are there."""
        for id_ in ids:
            entry = self.entries.get(id_)
            if entry is not None and entry.row is not None:
                self.values.append(entry.row)
            elif entry is not None and entry.pending:
                entry.wanted = True
            else:
                self.values.append(lost(id_))

    def share(self, ids: Iterable[bytes]) -> None:
        """Others hold these."""
        for id_ in ids:
            self._entry(id_).shared = True

    def unshare(self, ids: Iterable[bytes]) -> None:
        """Nobody else holds these."""
        for id_ in ids:
            entry = self.entries.get(id_)
            if entry is not None:
                entry.shared = False
                self.loose[id_] = None

    # ------------------------------------------------------------------- another scheduler life

    def restarted(self) -> None:
        """The scheduler is another: it wants nothing yet, and is asked anew for what is awaited.

        What was shared may still be: that is known with `recovered`.
        """
        self.values.clear()
        self.fetches.clear()
        self.unheld.clear()
        for id_, entry in self.entries.items():
            entry.was_shared = entry.was_shared or entry.shared
            entry.shared = entry.wanted = False
            if entry.fetched:
                entry.fetched = bool(entry.waiters)
                if entry.waiters:
                    self.fetches.append(id_)
            self.loose[id_] = None

    def holding(self) -> list[tuple[bytes, int]]:
        """Return what a scheduler has to release, with the deliveries of each."""
        return [(id_, entry.received) for id_, entry in self.entries.items() if entry.received]

    def recovered(self) -> None:
        """Who was to come back has: what was not shared again is not shared."""
        for id_, entry in self.entries.items():
            if entry.was_shared:
                entry.was_shared = False
                self.loose[id_] = None

    # ------------------------------------------------------------------------------------ waiting

    def wait(self, waiter: Waiter) -> None:
        """Register a worker's get or wait; it may be satisfied at once."""
        for id_ in waiter.ids:
            entry = self._entry(id_)
            entry.waiters = (*entry.waiters, waiter)
            if entry.row is None and entry.home and not entry.pending:
                entry.row = lost(id_)
            if entry.row is not None:
                self._count(waiter, entry.row)
            elif not entry.home and not entry.fetched:
                entry.fetched = True
                self.fetches.append(id_)

    def rows_for(self, waiter: Waiter) -> list[ValueRow]:
        """Return what a waiter is to be told: a get's list ends with its first failure."""
        found = []
        for id_ in waiter.ids:
            row = self.entries[id_].row
            if row is None:
                continue
            found.append(row if waiter.values else ValueRow(row.id, row.outcome))
        if waiter.values:
            for place, row in enumerate(found):
                if row.outcome != Outcome.VALUE:
                    return found[: place + 1]
        return found

    def leave(self, waiter: Waiter) -> None:
        """A waiter has been answered, or its worker has gone."""
        for id_ in waiter.ids:
            entry = self.entries[id_]
            entry.waiters = tuple(other for other in entry.waiters if other is not waiter)
            self.loose[id_] = None

    def are_needed(self) -> bool:
        """Return whether calls are to end yet, or others hold or want values of this node."""
        return bool(self.calls) or any(
            entry.home and (entry.shared or entry.was_shared or entry.wanted)
            for entry in self.entries.values()
        )

    def clear(self) -> None:
        """The link's life is over: nobody needs anything of this."""
        for entry in self.entries.values():
            if entry.row is not None:
                self._unfile(entry.row)
        self.entries.clear()
        self.calls.clear()
        self.ahead.clear()
        self.fetches.clear()
        self.values.clear()
        self.satisfied.clear()
        self.unheld.clear()
        self.called.clear()
        self.uncalled.clear()
        self.loose.clear()
        self.takings.clear()

    # ------------------------------------------------------------------------------------ inside

    def _entry(self, id_: bytes) -> Entry:
        entry = self.entries.get(id_)
        if entry is None:
            home = home_of(ObjectId(id_)) == self._peer
            entry = self.entries[id_] = Entry(home)
        return entry

    def resolve(self, row: ValueRow) -> None:
        """Store the row that came; tell those who wait for it."""
        entry = self.entries.get(row.id)
        if entry is None or entry.row is not None:
            return
        if may_be_file(row.payload):
            row = self._file(row)
        entry.row = row
        entry.pending = entry.fetched = False
        self.pin(row.contained)
        if entry.wanted:
            entry.wanted = False
            self.values.append(row)
        for waiter in entry.waiters:
            self._count(waiter, row)
        self.loose[row.id] = None

    def _file(self, row: ValueRow) -> ValueRow:
        """Count a value that lies in a file; return what stands for it if there is no room."""
        full, id_, size = self.fullness, ObjectId(row.id), len(row.payload or b"")
        if full is not None and size > full.room_bytes:
            return full.refusal(id_, size)
        if full is not None:
            self.fullness = full._replace(room_bytes=full.room_bytes - size)
        self.filed.append((id_, row))
        return row

    def _unfile(self, row: ValueRow) -> None:
        if may_be_file(row.payload):
            self.filed.append((ObjectId(row.id), None))

    def has_room(self, fullness: Fullness | None) -> None:
        """Memory and disk are full but for that much; None: they have room."""
        self.fullness = fullness

    def _count(self, waiter: Waiter, row: ValueRow) -> None:
        waiter.ready += 1
        failed = waiter.values and row.outcome != Outcome.VALUE
        if not waiter.over and (failed or waiter.ready >= waiter.count):
            waiter.over = True
            self.satisfied.append(waiter)

    # -------------------------------------------------------------------------------- for checking

    def check_invariants(self, holds: dict[bytes, int]) -> None:
        """Check every count against what it counts; `holds`: by workers and attempts."""
        counted = dict(holds)
        owners: list[Iterable[bytes]] = [call.pins for call in self.calls.values()]
        owners += self.takings.pins()
        owners += [entry.row.contained for entry in self.entries.values() if entry.row is not None]
        for ids in owners:
            for id_ in ids:
                counted[id_] = counted.get(id_, 0) + 1
        for id_, entry in self.entries.items():
            assert entry.count == counted.get(id_, 0), (show(id_), entry, counted.get(id_, 0))
            assert entry.home == (home_of(ObjectId(id_)) == self._peer), show(id_)
            assert not (entry.pending and entry.row is not None), show(id_)
            assert not entry.pending or task_of(ObjectId(id_)) in self.calls, show(id_)
        for id_ in counted:
            assert id_ in self.entries, show(id_)


def lost(id_: bytes) -> ValueRow:
    """Return the row of an object that nobody has."""
    text = f"the object {show(id_)} is gone: nobody held it any more"
    return ValueRow(id_, Outcome.FAILURE, failure=Failure("ObjectLost", text))
