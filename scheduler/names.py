"""The names of actors: who has which, and who asks for one.

Never ends an actor, and keeps no name that nobody has. A name is taken before its actor is
submitted, so that of two who want it one is told so at once; it is free again when its actor has
ended for good, or when its creation comes to nothing: is cancelled before it was sent, or refused,
or the program or node leaves that has taken it.

Whoever asks for the name of an actor that is being ended waits for that end: to be given a handle
of it, or to be refused for it, would be of no use. But a process that does not die may not keep a
name: `ENDING_S` later it is free, and that is told.

After a restart of the scheduler a name that nobody has yet may be that of an actor whose program
has still to come back: whoever asks for it waits until all have. An actor that had lost its name
since it did not die may be named before the one that has it: that one is the name's *heir*.
"""

from typing import TYPE_CHECKING, Any, Final

from ..protocol.ids import TASK_BYTES, PeerId, TaskId, home_of, show
from ..protocol.liveness import NEVER_S
from ..protocol.messages import Answer, Query
from .chronicle import WARNING

if TYPE_CHECKING:
    from ..protocol.actors import ActorName, ActorOptions
    from .state import Peer, State
    from .tasks import TaskRecord

#: so long an actor that is being ended keeps its name; callers wait longer than that for an answer
ENDING_S: Final = 5.0

#: a name within its namespace
Key = tuple[str, str]


class _Entry:
    __slots__ = ("id", "is_born", "taker", "told")

    def __init__(self, id_: TaskId, told: bytes, taker: PeerId) -> None:
        #: the creation
        self.id = id_
        #: what handles know of the class
        self.told = told
        #: who has taken it
        self.taker = taker
        #: its actor has been submitted
        self.is_born = False


class Names:
    """All names in use."""

    __slots__ = ("_entries", "_heirs", "_keys", "_state", "_waiting", "dying")

    def __init__(self, state: "State") -> None:
        self._state = state
        self._entries: dict[Key, _Entry] = {}
        self._keys: dict[bytes, Key] = {}
        #: actors of an earlier life that were named while another one had their name
        self._heirs: dict[bytes, tuple[Key, _Entry]] = {}
        #: who has to wait for the answer until all are back
        self._waiting: list[tuple[Peer, Query]] = []
        #: who waits for the end of an actor that has the name, and until when
        self.dying: list[tuple[Peer, Query, float]] = []

    # --------------------------------------------------------------------------------- who asks

    def asked(self, peer: "Peer", query: Query) -> None:
        """A peer asks whose a name is, and perhaps takes it."""
        named = query.named
        if named is None:
            self._answer(peer, query, {"error": "a question for a name that names none"})
            return
        entry = self._entries.get(_key(named))
        if named.frees:
            self._frees(named)
            if query.request:
                self._answer(peer, query, {})
            return
        if entry is not None and self._is_ending(entry) and not self._hand_on(entry):
            self.dying.append((peer, query, self._state.now_s + ENDING_S))
            return
        if entry is None and self._state.claims.open:
            self._waiting.append((peer, query))
            return
        if entry is None and named.id:
            if len(named.id) != TASK_BYTES:
                self._answer(peer, query, {"error": "an actor's creation has an id of 14 bytes"})
                return
            entry = self._take(_key(named), TaskId(named.id), named.told, peer.id)
        elif entry is not None:
            entry = self._entries[_key(named)]  # it may be its heir's by now
        found = {} if entry is None else {"id": entry.id, "told": entry.told}
        self._answer(peer, query, found)

    def _frees(self, named: "ActorName") -> None:
        """Whoever has asked for a name needs it no more, and no answer to that either."""
        entry = self._entries.get(_key(named))
        if entry is not None and entry.id == named.id:
            self.comes_to_nothing(entry.id)
        self._waiting = [asked for asked in self._waiting if not _is_for(asked[1], named.id)]
        self.dying = [asked for asked in self.dying if not _is_for(asked[1], named.id)]

    def _answer(self, peer: "Peer", query: Query, data: Any) -> None:
        self._state.out.letter(peer.id, Answer(query.request, data))

    def turn(self) -> None:
        """Answer those who had to wait, once all are back."""
        if self._state.claims.open:
            return
        waiting, self._waiting = self._waiting, []
        for peer, query in waiting:
            if peer.here:
                self.asked(peer, query)

    def _is_ending(self, entry: _Entry) -> bool:
        """Return whether an actor has been told to end, for good."""
        actor = self._state.hosts.known.get(entry.id)
        record = None if actor is None else actor.record
        if actor is None or record is None:
            return False
        return record.stopping or actor.exit_told == record.attempt

    @property
    def due_s(self) -> float:
        """When `expire` has something to do."""
        return min([asked[2] for asked in self.dying]) if self.dying else NEVER_S

    def expire(self) -> None:
        """Free the names of those who should have ended by now, if others ask for them."""
        now_s = self._state.now_s
        for _, query, until_s in list(self.dying):
            named = query.named
            entry = None if named is None else self._entries.get(_key(named))
            if until_s > now_s or named is None:
                continue
            if entry is not None and self._is_ending(entry):
                text = (
                    f"actor {show(entry.id)} was told to end and has not, so its name "
                    f"{named.name!r} is free for others; its process may still run"
                )
                self._state.tell(text, "name freed", WARNING, task=entry.id)
                self._free(entry.id)
            else:
                self._ask_again(_key(named))

    def _ask_again(self, key: Key) -> None:
        """A name is free: who waits for it is answered, in the order in which they asked."""
        asked = [one for one in self.dying if one[1].named and _key(one[1].named) == key]
        if asked:
            self.dying = [one for one in self.dying if one not in asked]
            for peer, query, _ in asked:
                if peer.here:
                    self.asked(peer, query)

    # --------------------------------------------------------------------------------- who has one

    def _take(self, key: Key, id_: TaskId, told: bytes, taker: PeerId) -> _Entry:
        entry = self._entries[key] = _Entry(id_, told, taker)
        self._keys[id_] = key
        return entry

    def refusal(self, id_: bytes, options: "ActorOptions") -> str:
        """Return why an actor may not have the name that it asks for, or ""."""
        if not options.name:
            return ""
        entry = self._entries.get((options.namespace, options.name))
        if entry is None or entry.id == id_:
            return ""
        return f"its name {options.name!r} is that of another actor, {show(entry.id)}"

    def born(self, record: "TaskRecord") -> None:
        """An actor has been submitted: its name is its own from now on.

        Of those that an earlier life has left several may have the name, though all but one of them
        have been told to end, or will be when whoever told them so has come back.
        """
        options = record.kind.creates
        if options is None or not options.name:
            return
        key = options.namespace, options.name
        entry = self._entries.get(key)
        if entry is None:
            entry = self._take(key, record.id, options.told, home_of(record.id))
        if entry.id == record.id:
            entry.is_born = True
            return
        heir = _Entry(record.id, options.told, home_of(record.id))
        heir.is_born = True
        self._heirs[heir.id] = key, heir
        if self._is_ending(entry):
            self._hand_on(entry)

    def comes_to_nothing(self, id_: bytes) -> None:
        """A creation is not submitted after all, or refused: what was taken for it is free."""
        key = self._keys.get(id_)
        if key is not None and not self._entries[key].is_born:
            self._free(id_)

    def over(self, id_: TaskId) -> None:
        """An actor has ended for good."""
        self._heirs.pop(id_, None)
        if id_ in self._keys:
            self._free(id_)

    def _hand_on(self, entry: _Entry) -> bool:
        """Give the name of an actor to its heir; return whether one lives."""
        key = self._keys[entry.id]
        for whose, heir in self._heirs.values():
            if whose == key and not self._is_ending(heir):
                del self._heirs[heir.id], self._keys[entry.id]
                self._entries[key] = heir
                self._keys[heir.id] = key
                self._ask_again(key)
                return True
        return False

    def _free(self, id_: bytes) -> None:
        key = self._keys[id_]
        if self._hand_on(self._entries[key]):
            return
        del self._keys[id_], self._entries[key]
        if self.dying:
            self._ask_again(key)

    def forget_peer(self, peer: PeerId) -> None:
        """A peer is gone: what it has taken and not submitted is free, and it asks no more."""
        taken = [e.id for e in self._entries.values() if e.taker == peer and not e.is_born]
        for id_ in taken:
            self._free(id_)
        self._waiting = [asked for asked in self._waiting if asked[0].id != peer]
        self.dying = [asked for asked in self.dying if asked[0].id != peer]

    # -------------------------------------------------------------------------------------- insight

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        asked = len(self._waiting) + len(self.dying)
        return {"names": len(self._entries) + len(self._heirs), "names_asked": asked}

    def check_invariants(self) -> None:
        """Assert that both maps agree, and that each name is somebody's."""
        assert self._keys == {entry.id: key for key, entry in self._entries.items()}
        for entry in self._entries.values():
            actor = self._state.hosts.known.get(entry.id)
            submitted = actor is not None and actor.record is not None
            assert submitted if entry.is_born else entry.taker in self._state.peers
        for id_, (_, heir) in self._heirs.items():
            assert id_ == heir.id not in self._keys
            assert self._state.hosts.known[heir.id].record is not None


def _is_for(query: Query, id_: bytes) -> bool:
    return query.named is not None and query.named.id == id_


def _key(named: "ActorName") -> Key:
    return named.namespace, named.name
