"""Values that tasks and peers wait for, and where they come from.

Never keeps a value longer than unfinished tasks depend on it: its home keeps it. A value comes
from a task that is not finished yet, or else from its home, which is asked once.
"""

from collections.abc import Callable
from typing import Final

from ..protocol.ids import TASK_BYTES, ObjectId, PeerId, home_of, objects_of, show, task_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.remotes import Remote
from .orphans import Orphans
from .state import State
from .tasks import TaskRecord, lost

#: so many peers that are gone are remembered by name
GONE_MAX: Final = 1000


class Entry:
    """An object that somebody waits for or depends on."""

    __slots__ = ("dependants", "fetchers", "row", "watched")

    def __init__(self, row: ValueRow | None = None) -> None:
        #: its value with the payload complete; None: awaited
        self.row = row
        #: unfinished tasks that have it as an argument
        self.dependants: dict[bytes, TaskRecord] = {}
        #: peers that asked for it
        self.fetchers: dict[PeerId, None] = {}
        #: it is what becomes of an actor, whose calls wait to hear of it
        self.watched = False


class Objects:
    """All objects that are waited for."""

    __slots__ = ("_gone", "_state", "entries", "heard_of", "orphans", "remotes")

    def __init__(self, state: State) -> None:
        self._state = state
        #: takes what became of an actor that is watched
        self.heard_of: Callable[[ValueRow], None] = _nobody_watches
        self.entries: dict[ObjectId, Entry] = {}
        #: peers that are gone, who they were, and why: for people who miss their values
        self._gone: dict[PeerId, tuple[str, str]] = {}
        #: how many of them lie with a peer
        self.remotes = 0
        self.orphans = Orphans(state)

    def need(self, record: TaskRecord) -> ValueRow | None:
        """Have a new task wait for its dependencies; return one that has failed already."""
        row = record.row
        given = {value.id: value for value in row.values}
        failed = None
        for id_ in row.deps:
            value = given.get(id_)
            if value is None:
                if id_[:TASK_BYTES] == row.id:
                    return lost(id_, f"task {show(row.id)} cannot wait for its own value")
                entry = self._entry(ObjectId(id_), None)
                if row.id in entry.dependants:
                    continue
                entry.dependants[row.id] = record
                value = entry.row
                if value is None:
                    record.unmet += 1
                    continue
            if value.outcome != Outcome.VALUE and failed is None:
                failed = value
        return failed

    def values_for(self, record: TaskRecord) -> list[ValueRow]:
        """Return the values of a task's dependencies, all of which are there, in their order."""
        row = record.row
        given = {value.id: value for value in row.values}
        values = []
        for id_ in row.deps:
            value = given.get(id_)
            if value is None:
                value = self.entries[ObjectId(id_)].row
                assert value is not None
            values.append(value)
        return values

    def release(self, record: TaskRecord) -> None:
        """A task has its outcome: it depends on nothing any more."""
        for id_ in record.row.deps:
            entry = self.entries.get(ObjectId(id_))
            if entry is not None and entry.dependants.pop(record.row.id, None) is not None:
                self._tidy(ObjectId(id_), entry)

    def fetch(self, peer: PeerId, ids: list[bytes]) -> None:
        """A peer asks for objects."""
        for id_ in ids:
            entry = self._entry(ObjectId(id_), peer)
            if entry.row is None:
                entry.fetchers[peer] = None
            else:
                self._state.out.value(peer, entry.row)

    def watch(self, id_: ObjectId) -> ValueRow | None:
        """Ask the home of an actor what became of it; return that if it is known already."""
        entry = self._entry(id_, None)
        entry.watched = entry.row is None
        return entry.row

    def unwatch(self, id_: ObjectId) -> None:
        """Nobody waits to hear of an actor any more."""
        entry = self.entries.get(id_)
        if entry is not None:
            entry.watched = False
            self._tidy(id_, entry)

    def awaits(self, id_: ObjectId) -> bool:
        """Return whether a value would be of use."""
        entry = self.entries.get(id_)
        return entry is not None and entry.row is None

    def arrived(self, row: ValueRow) -> list[TaskRecord]:
        """A value is there: answer those who fetched it, return the tasks that waited for it."""
        id_ = ObjectId(row.id)
        entry = self.entries.get(id_)
        if entry is None or entry.row is not None:
            return []
        entry.row = row
        self.remotes += isinstance(row.payload, Remote)
        for peer in entry.fetchers:
            self._state.out.value(peer, row)
        entry.fetchers.clear()
        if entry.watched:
            entry.watched = False
            self.heard_of(row)
        self._tidy(id_, entry)
        return list(entry.dependants.values())

    def of_task(self, record: TaskRecord, row: ValueRow) -> list[ValueRow]:
        """Return a task's one row as rows for those of its objects that somebody waits for."""
        return [
            ValueRow(
                id=id_, outcome=row.outcome, payload=row.payload, size=row.size,
                contained=row.contained, failure=row.failure,
            )
            for id_ in objects_of(record.id, record.kind.options.num_returns)
            if id_ in self.entries
        ]  # fmt: skip

    def forget_peer(self, peer: PeerId, name: str = "", why: str = "") -> list[ValueRow]:
        """A peer is gone; return rows for the objects that went with it.

        Args:
            peer: it.
            name: its role and its name, for people; "": it has none that they know.
            why: is gone: goes on after "that".
        """
        self.orphans.forget_home(peer)
        rows = []
        if name:
            self._gone[peer] = name, why
            if len(self._gone) > GONE_MAX:
                del self._gone[next(iter(self._gone))]
        for id_, entry in list(self.entries.items()):
            entry.fetchers.pop(peer, None)
            if entry.row is None and home_of(id_) == peer:
                rows.append(self._lost_with_home(id_))
            else:
                self._tidy(id_, entry)
        return rows

    def home_came(self, home: PeerId) -> None:
        """A home is back: ask it for what is waited for."""
        for id_, entry in self.entries.items():
            if entry.row is None and home_of(id_) == home and not self._maker(id_):
                self._state.out.want(home, id_)

    def forget_absent(self) -> list[ValueRow]:
        """Homes that are not there will not come; return rows for the objects that they had."""
        return [
            self._lost_with_home(id_)
            for id_, entry in self.entries.items()
            if entry.row is None and not self._state.has_home(id_)
        ]

    def lacks(self, record: TaskRecord) -> tuple[int, ValueRow | None]:
        """Return how many values a task has to wait for, and one that has failed."""
        given = {value.id: value for value in record.row.values}
        unmet = 0
        for id_ in record.row.deps:
            value = given.get(id_)
            if value is None:
                entry = self.entries.get(ObjectId(id_))
                if entry is None:
                    return 0, self._lost_with_home(ObjectId(id_))
                value = entry.row
            if value is None:
                unmet += 1
            elif value.outcome != Outcome.VALUE:
                return 0, value
        return unmet, None

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"objects": len(self.entries), **self.orphans.sizes()}

    def check_invariants(self) -> None:
        """Assert that no value is kept for nobody, and that those who wait are there."""
        rows = [entry.row for entry in self.entries.values() if entry.row is not None]
        assert self.remotes == sum(isinstance(row.payload, Remote) for row in rows)
        for id_, entry in self.entries.items():
            assert entry.dependants or entry.fetchers or entry.watched
            assert entry.row is None or not (entry.fetchers or entry.watched)
            assert entry.row is not None or self._state.has_home(id_)
            for task, record in entry.dependants.items():
                assert record.row.id == task
                assert id_ in record.row.deps
            for peer in entry.fetchers:
                assert self._state.out.is_here(peer)

    def _entry(self, id_: ObjectId, asker: PeerId | None) -> Entry:
        """Return the entry of an object, asking its home if need be.

        An object that is lost gets an entry of its own that is not kept.
        """
        entry = self.entries.get(id_)
        if entry is not None:
            return entry
        record = self._maker(id_)
        home = home_of(id_)
        if record is not None:
            count = record.kind.options.num_returns
            index = int.from_bytes(id_[TASK_BYTES:], "big")
            if (len(id_) == TASK_BYTES) != (count == 1) or index >= count:
                text = f"task {show(record.row.id)} returns {count} values; {show(id_)} is none"
                return Entry(lost(id_, text))
        elif home == asker or not self._state.has_home(id_):
            return Entry(self._lost_with_home(id_))
        elif self._state.out.is_here(home):
            self._state.out.want(home, id_)
        entry = self.entries[id_] = Entry()
        return entry

    def _maker(self, id_: ObjectId) -> TaskRecord | None:
        """Return the task whose outcome an object comes with; what is yielded is at its home."""
        record = self._state.find(task_of(id_))
        return None if record is not None and record.kind.options.stream_buffer_max else record

    def _lost_with_home(self, id_: ObjectId) -> ValueRow:
        gone = self._gone.get(home_of(id_))
        if gone is None:
            return lost(id_, f"the value of {show(id_)} is gone: nobody here keeps it any more")
        name, why = gone
        text = (
            f"the value of {show(id_)} is gone with {name}, whose it was: that {why}; what a task "
            "puts or calls is kept on its node, and what it returns by whoever called it"
        )
        return lost(id_, text, node=name.partition(" ")[2])

    def _tidy(self, id_: ObjectId, entry: Entry) -> None:
        if not entry.dependants and not entry.fetchers and not entry.watched:
            self.entries.pop(id_, None)
            if entry.row is not None:
                self.remotes -= isinstance(entry.row.payload, Remote)


def _nobody_watches(_row: ValueRow) -> None:
    raise AssertionError("nobody has asked what became of an actor")
