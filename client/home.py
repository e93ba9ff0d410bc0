"""What this client keeps: values whose home it is, values it fetched, and who holds them.

Never sends by itself: it fills outboxes (`resolved`, `freed`, `releases`, `fetches`, `answers`,
`blobs`, `segments`) that the core empties once a turn. Never walks contained refs by recursion: a
chain of refs may be as long as the user's data.
"""

from collections.abc import Iterable

from msgspec import Struct

from ..protocol.ahead import Ahead
from ..protocol.ids import ObjectId, PeerId, home_of, show
from ..protocol.messages import Failure, Fetch, Outcome, Release, TaskRow, ValueRow, Values
from ..protocol.payload_files import may_be_file
from ..protocol.settings import Settings
from ..protocol.stowage import Fullness
from .events import Command, Send

#: the task that makes it has no result yet
PENDING = 0
#: the row is here
HERE = 1
#: somebody else's, asked for
FETCHING = 2
#: only its name is known
ABSENT = 3

#: in place of the number of a kind: it was put
NO_KIND = -1


class Entry(Struct, gc=False):
    """One object, as this process knows it."""

    #: ObjectRefs alive in this process
    refs: int = 1
    #: unfinished tasks that use it, values here that contain it, refs pickled elsewhere
    pins: int = 0
    state: int = PENDING
    #: own: other peers hold it as well
    shared: bool = False
    #: own: the scheduler waits for its value
    wanted: bool = False
    #: how often the scheduler delivered a ref to it, since the last Release
    received: int = 0
    row: ValueRow | None = None
    #: own, pending: what makes an actor, which ends when nobody holds it any more
    is_actor: bool = False
    #: own: number of the kind whose calls make it, for people
    kind: int = NO_KIND


class Home:
    """All entries, and the rules by which they come and go."""

    def __init__(
        self, peer: PeerId, settings: Settings, host: str = "", *, moves: bool = False
    ) -> None:
        self.peer = peer
        self._where = f"host {host}" if host else "another machine"
        self._value_bytes_max = settings.value_bytes_max
        if moves and settings.data_bytes_min:
            self._value_bytes_max = max(settings.value_bytes_max, settings.segment_bytes_max)
        self.inline_bytes_max = settings.inline_bytes_max
        self._small_value_bytes = settings.small_value_bytes
        self.entries: dict[ObjectId, Entry] = {}
        #: pinned for good: pickled outside Drumbeat
        self.pinned: dict[ObjectId, int] = {}
        #: rows whose large payload is still on its way, and payloads whose row is
        self.unfilled: dict[bytes, ValueRow] = {}
        self.unclaimed: dict[bytes, bytes] = {}
        #: results that came before their rows
        self.ahead = Ahead()
        #: payloads that nobody waits for any more -> how many of them will come
        self.unwelcome: dict[bytes, int] = {}
        #: own, others held these when the scheduler's life ended -> somebody said so again since.
        #: Empty but while a restarted scheduler waits for those who are to come back
        self.doubtful: dict[ObjectId, bool] = {}
        self.resolved: list[ValueRow] = []
        self.freed: list[ObjectId] = []
        self.releases: list[tuple[bytes, int]] = []
        self.fetches: list[bytes] = []
        self.answers: list[ValueRow] = []
        self.blobs: list[tuple[bytes, bytes]] = []
        #: whose bytes only the shell has
        self.segments: list[ObjectId] = []
        #: whose payloads have come and lie in files
        self.filed: list[tuple[ObjectId, ValueRow]] = []
        #: how full memory and disk are; None: they have room
        self.fullness: Fullness | None = None
        #: actors that nobody holds any more, perhaps named twice
        self.unheld: list[ObjectId] = []

    # ------------------------------------------------------------------------- what is sent

    def dressed(self, row: TaskRow, kind: int) -> TaskRow:
        """Return the row as it travels: small known values ride along, large arguments do not."""
        args, size = row.args, row.size
        if args is not None and len(args) > self.inline_bytes_max:
            size = len(args)
            args = None
        values = []
        for dependency in row.deps:
            entry = self.entries.get(ObjectId(dependency))
            value = None if entry is None else entry.row
            if (
                value is not None
                and value.outcome == Outcome.VALUE
                and (value.payload is not None or not value.size)
                and len(value.payload or b"") <= self._small_value_bytes
            ):
                values.append(value)
        return TaskRow(row.id, kind, args, size, row.deps, row.contained, tuple(values))

    def news(self) -> list[Command]:
        """Return what the scheduler is to be told, and be empty of it."""
        commands: list[Command] = []
        if self.answers:
            commands.append(Send(Values(self.answers)))
            self.answers = []
        if self.fetches:
            commands.append(Send(Fetch(self.fetches)))
            self.fetches = []
        if self.releases:
            commands.append(Send(Release(self.releases)))
            self.releases = []
        return commands

    # ------------------------------------------------------------------------- local counts

    def pin(self, ids: Iterable[bytes]) -> None:
        """Keep these until unpinned."""
        entries = self.entries
        for id_ in ids:
            entry = entries.get(id_)  # type: ignore[call-overload]
            if entry is None:
                entries[ObjectId(id_)] = Entry(refs=0, pins=1, state=ABSENT)
            else:
                entry.pins += 1

    def unpin(self, ids: Iterable[bytes]) -> None:
        """Take one pin from each; what nobody holds then goes, and what it contained."""
        entries = self.entries
        todo = list(ids)
        while todo:
            id_ = ObjectId(todo.pop())
            entry = entries.get(id_)
            if entry is None:
                continue
            entry.pins -= 1
            if entry.pins == 0 and entry.refs == 0:
                todo.extend(self._let_go(id_, entry))

    def change_refs(self, changes: list[tuple[ObjectId, int]]) -> None:
        """Count ObjectRefs that came to life or went."""
        entries, freed = self.entries, self.freed
        for id_, change in changes:
            entry = entries.get(id_)
            if entry is None:
                if change > 0:
                    entries[id_] = Entry(refs=change, state=ABSENT)
                continue
            entry.refs = refs = entry.refs + change
            if refs or entry.pins:
                continue
            row = entry.row
            if row is None or entry.shared or entry.wanted or entry.received or row.contained:
                self.settle(id_, entry)
            else:
                del entries[id_]
                freed.append(id_)

    def settle(self, id_: ObjectId, entry: Entry) -> None:
        """Let an entry go if nothing keeps it."""
        if entry.refs <= 0 and entry.pins <= 0:
            contained = self._let_go(id_, entry)
            if contained:
                self.unpin(contained)

    def _let_go(self, id_: ObjectId, entry: Entry) -> tuple[bytes, ...]:
        # Nobody in this process holds it. Returns what it contained if it goes.
        if entry.received:
            self.releases.append((id_, entry.received))
            entry.received = 0
        if entry.state == PENDING or entry.shared or entry.wanted:
            if entry.is_actor and entry.state == PENDING and not entry.shared:
                self.unheld.append(id_)
            return ()
        del self.entries[id_]
        self.freed.append(id_)
        return () if entry.row is None else entry.row.contained

    # ------------------------------------------------------------------------------- values

    def keep(self, rows: Iterable[ValueRow]) -> None:
        """Keep values that this process put; each starts with one ref."""
        for row in rows:
            self.pin(row.contained)
            self.entries[ObjectId(row.id)] = Entry(state=HERE, row=row)

    def resolve(self, id_: ObjectId, entry: Entry, row: ValueRow) -> None:
        """Store the row that came; answer who wanted it; free it if nobody holds it."""
        if may_be_file(row.payload):
            row = self._filed(id_, row)
        entry.row = row
        entry.state = HERE
        if row.contained:
            self.deliver(row.contained)
        self.resolved.append(row)
        if entry.wanted:
            entry.wanted = False
            self.answer(row)
        if entry.refs == 0 and entry.pins == 0:
            self.settle(id_, entry)

    def _filed(self, id_: ObjectId, row: ValueRow) -> ValueRow:
        """Count a value that lies in a file; return what stands for it if there is no room."""
        size, full = len(row.payload or b""), self.fullness
        if full is None or size <= full.room_bytes:
            if full is not None:
                self.fullness = full._replace(room_bytes=full.room_bytes - size)
            self.filed.append((id_, row))
            return row
        self.refuse(row)
        return full.refusal(id_, size)

    def deliver(self, ids: Iterable[bytes]) -> None:
        """Count refs that the scheduler delivered inside a row; the row pins them."""
        entries = self.entries
        for id_ in ids:
            entry = entries.get(ObjectId(id_))
            if entry is None:
                entries[ObjectId(id_)] = Entry(refs=0, pins=1, state=ABSENT, received=1)
            else:
                entry.pins += 1
                entry.received += 1

    def refuse(self, row: ValueRow) -> None:
        """Drop a row that nobody waits for, its refs and its payload, here or on its way."""
        if row.payload is None and row.size and self._claim(row.id) is None:
            self.unwelcome[row.id] = self.unwelcome.get(row.id, 0) + 1
        if row.contained:
            self.deliver(row.contained)
            self.unpin(row.contained)

    def filled(self, row: ValueRow) -> bool:
        """Say whether the row's payload is complete; if not, keep it until the payload comes."""
        if row.payload is not None or not row.size:
            return True
        payload = self._claim(row.id)
        if payload is None:
            self.unfilled[row.id] = row
            return False
        row.payload = payload
        return True

    def waits_again(self, row: ValueRow) -> bool:
        """Of a row whose bytes are lost: wait for those that were to be dropped, if any will come.

        Returns:
            Whether they will.
        """
        waiting = self.unwelcome.get(row.id, 0)
        if not waiting:
            return False
        if waiting > 1:
            self.unwelcome[row.id] = waiting - 1
        else:
            del self.unwelcome[row.id]
        row.payload = None
        self.unfilled[row.id] = row
        return True

    def payload_came(self, key: bytes, payload: bytes) -> ValueRow | None:
        """Return the row that is complete with this payload, if it is here already."""
        row = self.unfilled.pop(key, None)
        if row is not None:
            row.payload = payload
            return row
        waiting = self.unwelcome.get(key, 0)
        if waiting > 1:
            self.unwelcome[key] = waiting - 1
        elif waiting:
            del self.unwelcome[key]
        else:
            self.unclaimed[key] = payload
        return None

    def _claim(self, id_: bytes) -> bytes | None:
        payload = self.ahead.take(id_) if self.ahead else None
        return self.unclaimed.pop(id_, None) if payload is None else payload

    # ----------------------------------------------------------------------- what others ask

    def want(self, ids: Iterable[bytes]) -> None:
        """The scheduler asks for values that have their home here."""
        for id_ in ids:
            entry = self.entries.get(ObjectId(id_))
            if entry is not None and entry.row is not None:
                self.answer(entry.row)
            elif entry is not None and entry.state == PENDING:
                entry.wanted = True
            else:
                self.answers.append(lost(ObjectId(id_)))

    def answer(self, row: ValueRow) -> None:
        """Send a value to the scheduler, a large one on the bulk link."""
        payload = row.payload
        if payload is None and row.size:
            if row.size <= self._value_bytes_max:
                self.segments.append(ObjectId(row.id))
            else:
                row = self._too_large(row)
        elif payload is not None and len(payload) > self.inline_bytes_max:
            size = len(payload)
            self.blobs.append((row.id, payload))
            row = ValueRow(row.id, row.outcome, None, size, row.contained, row.failure)
        self.answers.append(row)

    def _too_large(self, row: ValueRow) -> ValueRow:
        limit = self._value_bytes_max
        text = (
            f"{row.size:,} bytes lie in memory of {self._where}, and only workers of that machine "
            f"can use them there: {limit:,} are the most that is sent (value_bytes_max)"
        )
        details: dict[str, str | int | float | bool | None] = {
            "size_bytes": row.size,
            "limit_bytes": limit,
        }
        failure = Failure("MessageTooLarge", text, details)
        return ValueRow(row.id, Outcome.FAILURE, failure=failure)

    def share(self, ids: Iterable[bytes], shared: bool) -> None:
        """Others hold these too, or no longer do."""
        for id_ in ids:
            entry = self.entries.get(ObjectId(id_))
            if entry is None:
                continue
            if ObjectId(id_) in self.doubtful:
                # Nobody of those who are back holds it; somebody who comes yet may.
                self.doubtful[ObjectId(id_)] = shared
                continue
            entry.shared = shared
            if not shared:
                self.settle(ObjectId(id_), entry)

    def fetch(self, ids: Iterable[ObjectId]) -> None:
        """Somebody here waits for these: ask for those of others, say which own ones are lost."""
        entries = self.entries
        for id_ in ids:
            entry = entries.get(id_)
            if entry is not None and entry.state != ABSENT:
                continue
            if entry is None:
                # no ref to it lives here: its value could not be kept, nor can this row
                self.resolved.append(lost(id_))
                self.freed.append(id_)
            elif home_of(id_) == self.peer:
                self.resolve(id_, entry, lost(id_))
            else:
                entry.state = FETCHING
                self.fetches.append(id_)

    def fetched(self, row: ValueRow) -> None:
        """A value that was asked for has come, complete."""
        id_ = ObjectId(row.id)
        entry = self.entries.get(id_)
        if entry is None or entry.state != FETCHING:
            self.refuse(row)
        else:
            self.resolve(id_, entry, row)

    # --------------------------------------------------------------------------- link lives

    def start_anew(self) -> None:
        """We were given up: the scheduler knows nothing of who holds, wants or fetches what."""
        self._forget_what_was_under_way()
        self.doubtful.clear()
        for id_, entry in list(self.entries.items()):
            entry.shared = entry.wanted = False
            entry.received = 0
            if entry.refs == 0 and entry.pins == 0:
                self.settle(id_, entry)

    def leave(self) -> list[ObjectId]:
        """We leave for good: forget what only others held, and return it."""
        self._forget_what_was_under_way()
        gone = [id_ for id_, entry in self.entries.items() if entry.refs <= 0]
        for id_ in gone:
            del self.entries[id_]
        return gone

    def outlive_scheduler(self) -> None:
        """It was restarted: who held own values holds them still; whoever wants one asks again."""
        self._forget_what_was_under_way()
        self.doubtful = {id_: False for id_, entry in self.entries.items() if entry.shared}
        for entry in self.entries.values():
            entry.wanted = False

    def _forget_what_was_under_way(self) -> None:
        self.unfilled.clear()
        self.unclaimed.clear()
        self.ahead.clear()
        self.unwelcome.clear()
        self.releases.clear()
        self.answers.clear()
        self.blobs.clear()
        self.segments.clear()
        self.fetches = [id_ for id_, entry in self.entries.items() if entry.state == FETCHING]

    def holding(self) -> list[tuple[bytes, int]]:
        """Return all refs that the scheduler delivered, each with the deliveries not released."""
        return [(id_, entry.received) for id_, entry in self.entries.items() if entry.received]

    def recovered(self) -> None:
        """All who were to come back have: what they do not hold, nobody does."""
        doubtful, self.doubtful = self.doubtful, {}
        self.share([id_ for id_, said_again in doubtful.items() if not said_again], shared=False)

    def sizes(self) -> dict[str, int]:
        """Return the size of every map."""
        return {
            "objects": len(self.entries),
            "unfilled": len(self.unfilled),
            "unclaimed": len(self.unclaimed),
            "ahead": len(self.ahead),
            "unwelcome": len(self.unwelcome),
            "doubtful": len(self.doubtful),
        }


def lost(id_: ObjectId) -> ValueRow:
    """Return the row of an object whose value is gone."""
    text = f"the value of {show(id_)} is gone: its home has left, or nobody held it any more"
    return ValueRow(id_, Outcome.FAILURE, failure=Failure("ObjectLost", text))
