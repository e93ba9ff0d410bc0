"""The users: programs that submit, wait, cancel, let go, and remember what they were told.

A user holds refs, gets values, finds further refs inside them, and knows only what a program at the
client's face would know. Never looks into the client's core.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from drumbeat.client import events
from drumbeat.client.events import Call
from drumbeat.protocol.absent import reason_of
from drumbeat.protocol.actors import ActorName
from drumbeat.protocol.drain import Drain
from drumbeat.protocol.ids import IdFactory, ObjectId, TaskId, home_of, objects_of, task_of
from drumbeat.protocol.messages import KindRow, Outcome, Query, TaskRow, ValueRow

from . import scripts
from .actors import Cast, detached_id, is_detached
from .scripts import Script, Spec, Value
from .streams import Reader, is_end

if TYPE_CHECKING:
    from .shells import ClientProcess


class Getter:
    """A thread that waits."""

    __slots__ = ("count", "ids", "is_open", "is_wait", "until_s")

    def __init__(self, ids: list[ObjectId], until_s: float, count: int, is_wait: bool) -> None:
        self.ids = ids
        self.until_s = until_s
        self.count = count
        self.is_wait = is_wait
        self.is_open = True


class User:
    """One client program."""

    def __init__(self, process: "ClientProcess") -> None:
        self.process = process
        process.user = self
        self.clock = process.clock
        self.oracle = process.world.oracle
        self.name = process.name
        #: refs at hand -> how many ObjectRefs
        self.hand: dict[ObjectId, int] = {}
        #: the same for refs that only somebody's get() or wait() holds
        self._waited: dict[ObjectId, int] = {}
        #: segments whose value, or arguments, is being packed
        self._fresh: dict[ObjectId, int] = {}
        self.results: dict[ObjectId, ValueRow] = {}
        self.getters: list[Getter] = []
        self.readers: list[Reader] = []
        self.has_pinned = False
        #: refs that others have pickled for it, which it has not loaded yet
        self.loading = 0
        self.is_gone = False
        self._ids = IdFactory(process.peer)
        self._kinds: dict[bytes, int] = {}
        #: by number: what takes the answer; None: nobody cares, or it has come
        self._requests: dict[int, Callable[[Any], None] | None] = {}
        self._calls: list[events.Event] = []
        self._refs: list[tuple[ObjectId, int]] = []
        self._after: list[events.Event] = []
        self.cast = Cast(self)

    # -------------------------------------------------------------------------- towards the core

    def taken(self) -> list[events.Event]:
        """Return what the program did since last asked, as its session would tell it."""
        made = self._calls
        if self._refs:
            made.append(events.RefsChanged(self._refs))
        made += self._after
        self._calls, self._refs, self._after = [], [], []
        return made

    def do(self, event: events.Event, *, late: bool = False) -> None:
        """Tell the core something, with the next turn."""
        (self._after if late else self._calls).append(event)
        self.process.wake()

    def hold(self, id_: ObjectId, where: dict[ObjectId, int]) -> None:
        """One ref more."""
        where[id_] = where.get(id_, 0) + 1
        self._refs.append((id_, 1))
        self.process.wake()

    def let_go(self, id_: ObjectId, where: dict[ObjectId, int]) -> None:
        """One ref less."""
        count = where.pop(id_)
        if count > 1:
            where[id_] = count - 1
        self._refs.append((id_, -1))
        self.process.wake()

    def _picked(self, picks: list[int]) -> list[ObjectId]:
        at_hand = list(self.hand)
        return [at_hand[index] for index in scripts.distinct(picks, len(at_hand))]

    # -------------------------------------------------------------------------- operations

    def submit(self, spec: Spec, copies: int, lets_go: bool = False, segment: int = 0) -> None:
        """Call a function, or call it several times in a row."""
        for id_ in self.call(spec, copies, lets_go, segment):
            self.hand[id_] = 1

    def call(
        self,
        spec: Spec,
        copies: int,
        lets_go: bool = False,
        segment: int = 0,
        given: TaskId | None = None,
    ) -> list[ObjectId]:
        """The same; return the refs, which nobody has at hand yet. `given`: the id of the first."""
        options = scripts.options_of(spec)
        key = scripts.pack((spec.function, options))
        number = self._kinds.get(key)
        kinds = []
        if number is None:
            number = self._kinds[key] = len(self._kinds) + 1
            payload = scripts.function_payload(spec.function)
            hash_ = self.oracle.function_hash(spec.function)
            name = f"function{spec.function}"
            kinds.append(KindRow(number, hash_, name, options, payload, len(payload)))
        deps, contained = self._picked(spec.deps), self._picked(spec.contains)
        calls = []
        made: list[ObjectId] = []
        fresh: list[ObjectId] = []
        refs = contained
        for copy in range(copies):
            if segment:
                fresh.append(self._segment(spec.label + copy, segment))
                contained = list(dict.fromkeys((fresh[-1], *refs)))
            outlives = options.creates is not None and options.creates.detached
            task = detached_id(spec.label + copy) if outlives else given or self._ids()
            given = None
            named = scripts.named(spec, spec.label + copy)
            script = Script(named, list(contained), b"." * spec.weight)
            args = scripts.pack(script)
            size = segment or len(args)  # beside a parcel it is what lies behind that
            row = TaskRow(task, number, args, size, tuple(deps), tuple(contained))
            calls.append(Call(row, options))
            self.oracle.submitted(task, script, list(deps))
            made += objects_of(task, options.num_returns)
        self.do(events.Submitted(kinds, calls))
        if spec.items:
            self.readers += [Reader(self, TaskId(call.row.id), spec) for call in calls]
        self._close_fresh(fresh)
        if lets_go:
            for id_ in dict.fromkeys((*deps, *refs)):
                self.let_go(id_, self.hand)
        return made

    def _segment(self, label: int, size: int) -> ObjectId:
        """Make a segment; who made it holds it until what needs it is told."""
        value = Value(scripts.mix(label, 55), [], b"." * size)
        id_ = ObjectId(self._ids())
        self.oracle.was_put(id_, value)
        payload = scripts.pack(value)
        self.process.store.put(id_, payload)
        self.results[id_] = row = ValueRow(id_, Outcome.VALUE, None, len(payload))
        self.do(events.Put([row]))
        self._fresh[id_] = 1
        return id_

    def _close_fresh(self, ids: list[ObjectId]) -> None:
        for id_ in ids:
            self.let_go(id_, self._fresh)

    def put(self, label: int, size: int, contains: list[int], segment: int = 0) -> None:
        """Keep a value as an object."""
        fresh = [self._segment(label, segment)] if segment else []
        refs = [*fresh, *self._picked(contains)]
        value = Value(scripts.mix(label), list(refs), b"." * size)
        id_ = ObjectId(self._ids())
        payload = scripts.pack(value)
        self.oracle.was_put(id_, value, behind=segment)
        row = ValueRow(id_, Outcome.VALUE, payload, segment or len(payload), tuple(refs))
        self.do(events.Put([row]))
        self.results[id_] = row
        self.hand[id_] = 1
        self._close_fresh(fresh)

    def get(self, picks: list[int], timeout_s: float | None) -> None:
        """Wait for values."""
        ids = self._picked(picks)
        self._wait_for(ids, timeout_s, len(ids), is_wait=False)

    def wait(self, picks: list[int], count: int, timeout_s: float | None) -> None:
        """Wait until some are ready."""
        ids = self._picked(picks)
        self._wait_for(ids, timeout_s, min(count, len(ids)), is_wait=True)

    def _wait_for(
        self, ids: list[ObjectId], timeout_s: float | None, count: int, *, is_wait: bool
    ) -> None:
        if not ids:
            return
        until_s = float("inf") if timeout_s is None else self.clock.now_s + timeout_s
        getter = Getter(ids, until_s, count, is_wait)
        for id_ in ids:
            self.hold(id_, self._waited)
        missing = [id_ for id_ in ids if id_ not in self.results]
        if missing:
            self.do(events.Awaited(missing), late=True)
        self.getters.append(getter)
        if timeout_s is not None:
            self.clock.at(until_s, self._times_out, getter)
        self._look_at(getter)

    def drop(self, picks: list[int]) -> None:
        """Let refs go."""
        for id_ in self._picked(picks):
            self.let_go(id_, self.hand)

    def cancel(self, picks: list[int], force: bool, recursive: bool, asks: bool) -> None:
        """Cancel tasks."""
        ids = list(dict.fromkeys(task_of(id_) for id_ in self._picked(picks)))
        if not ids:
            return
        self.oracle.cancel_asked(list(ids))
        request = 0
        if asks:
            request = len(self._requests) + 1
            self._requests[request] = partial(self.oracle.cancel_answered, list(ids))
        self.do(events.CancelAsked(ids, force, recursive, request), late=True)

    def query(self, what: str) -> None:
        """Ask the scheduler something."""
        for asked in ("tasks", "objects") if what == "tasks" else (what,):
            request = len(self._requests) + 1
            self._requests[request] = None
            self.do(events.Asked(Query(request, asked, 20)), late=True)

    def ask_for_name(self, name: str, namespace: str, then: Callable[[TaskId, Any], None]) -> None:
        """Ask for the name of an actor to be; `then` takes the actor's id and the answer."""
        request, task = len(self._requests) + 1, self._ids()
        self._requests[request] = partial(then, task)
        named = ActorName(name, namespace, task)
        self.do(events.Asked(Query(request, "name", named=named)), late=True)

    def drain(self, node: str) -> None:
        """Have a node drained."""
        request = len(self._requests) + 1
        self._requests[request] = None
        self.do(events.Asked(Drain(request, [node])), late=True)

    def share(self, pick: int, other: "User") -> None:
        """Pickle a ref outside Drumbeat; another program loads it."""
        ids = self._picked([pick])
        own = bool(ids) and home_of(ids[0]) == self.process.peer
        # The home of a value must have been there: else it is not known, and the value is lost.
        if own and other is not self and self.process.has_been_up:
            self.has_pinned = True
            self.do(events.Pinned(ids))
            self.oracle.count("ref pickled outside")
            other.loading += 1
            self.clock.after(0.01, other.load, ids[0])

    def load(self, id_: ObjectId) -> None:
        """Unpickle a ref that came from outside."""
        self.loading -= 1
        if not self.is_gone:
            self.hold(id_, self.hand)

    # -------------------------------------------------------------------------- what comes back

    def resolved(self, rows: list[ValueRow]) -> None:
        """Values are here."""
        for row in rows:
            id_ = ObjectId(row.id)
            if id_ in self.results and home_of(id_) == self.process.peer:
                self.oracle.wrong(f"{self.name} is told twice of {id_.hex()}")
            if not is_end(row):
                self.oracle.check_row(row, self.name, self.process.peer)
            self.results[id_] = row
            if is_detached(id_):
                self.cast.handed_over(id_, row)
        for reader in self.readers:
            reader.look()
        told = {row.id for row in rows}
        for getter in list(self.getters):
            if not told.isdisjoint(getter.ids):
                self._look_at(getter)

    def freed(self, ids: list[ObjectId]) -> None:
        """Nobody is said to hold these."""
        changing = dict(self._refs)
        for id_ in ids:
            held = id_ in self.hand or id_ in self._waited or id_ in self.cast.hand
            if held and id_ not in changing:
                self.oracle.wrong(f"{id_.hex()} is freed though {self.name} holds it")
            self.results.pop(id_, None)

    def replied(self, request: int, data: Any) -> None:
        """An answer."""
        if request not in self._requests:
            self.oracle.wrong(f"{self.name} was answered {request}, which it had not asked")
            return
        then = self._requests.pop(request)
        self._requests[-request] = None
        if then is not None:
            then(data)

    def unanswered(self) -> int:
        """Return how many requests are still open."""
        return sum(1 for request in self._requests if request > 0)

    def _look_at(self, getter: Getter) -> None:
        rows = [self.results[id_] for id_ in getter.ids if id_ in self.results]
        failed = any(row.outcome != Outcome.VALUE for row in rows)
        if len(rows) >= getter.count or (failed and not getter.is_wait):
            if not getter.is_wait and not failed:
                self._unpickle(rows)
            self._close(getter)

    def _unpickle(self, rows: list[ValueRow]) -> None:
        """Values come to life in the program, and the refs inside them."""
        for row in rows:
            if reason_of(row.payload or b""):
                continue  # get() raises ObjectLost
            for id_ in row.contained:
                self.hold(ObjectId(id_), self.hand)

    def _times_out(self, getter: Getter) -> None:
        if getter.is_open:
            self.oracle.count("get timed out")
            self._close(getter)

    def _close(self, getter: Getter) -> None:
        if getter.is_open:
            getter.is_open = False
            self.getters.remove(getter)
            for id_ in getter.ids:
                self.let_go(id_, self._waited)

    # -------------------------------------------------------------------------- the end

    def end(self) -> None:
        """The program ends: nobody waits any more."""
        self.is_gone = True
        for getter in self.getters:
            getter.is_open = False
        self.getters.clear()

    def get_all(self) -> None:
        """Wait for everything at hand, and for what that holds, without a timeout."""
        for id_ in list(self.hand):
            self._wait_for([id_], None, 1, is_wait=False)

    def cancel_endless(self) -> None:
        """Cancel what waits for nodes that will never come."""
        ids = [
            known.id
            for known in self.oracle.tasks.values()
            if home_of(known.id) == self.process.peer and known.options.wait_for_nodes
        ]
        if ids:
            self.oracle.cancel_asked(list(ids))
            self.do(events.CancelAsked(ids, force=True, recursive=True), late=True)

    def let_all_go(self) -> None:
        """Drop every ref."""
        for reader in self.readers:
            reader.close()
        for id_ in list(self.hand):
            while id_ in self.hand:
                self.let_go(id_, self.hand)
        self.cast.let_all_go()
