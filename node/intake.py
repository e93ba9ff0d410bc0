"""What the scheduler sends: kinds, attempts and values, whole before anybody sees them.

Never lets an attempt into the queue before its function, its arguments and all its values are here:
large ones come on the bulk link, before or after the rows that name them.
"""

from msgspec.structs import replace

from ..protocol.ahead import task_ahead
from ..protocol.checkpoints import CHECKPOINT
from ..protocol.ids import show
from ..protocol.messages import Assign, AssignRow, NodeKindRow, Options, Prepare, ValueRow
from ..protocol.resources import UNITS
from .actors import Actors
from .arrivals import Arrivals
from .attempts import ARRIVING, GONE, Attempt, Demand, Function, Kind, WorkerKey
from .dispatch import Dispatch
from .events import BlobReceived
from .lives import Lives
from .state import NodeState

#: places of large payloads in an attempt, where they are not among its values
ARGUMENTS = -1
STATE = -2
#: what the scheduler counts in one life is less
ORDER_OF_A_LIFE = 1 << 62

_KindKey = tuple[bytes, bytes, str, Options]


class Intake:
    """Kinds and functions, and everything that waits for a large payload."""

    def __init__(self, state: NodeState, lives: Lives, dispatch: Dispatch, actors: Actors) -> None:
        self._state = state
        self._lives = lives
        self._dispatch = dispatch
        self._actors = actors
        #: by the scheduler's numbers, which go with its life
        self.kinds: dict[int, Kind] = {}
        #: our own, by which workers know them: the same in all lives
        self._numbers: dict[_KindKey, int] = {}
        self._last_number = 0
        self._functions: dict[tuple[bytes, bytes], Function] = {}
        self.blobs: Arrivals[tuple[Attempt, int] | Function | tuple[ValueRow, bool]] = Arrivals()
        #: by task: an attempt that came before an earlier one has ended here
        self.later: dict[bytes, AssignRow] = {}
        self._stops_later: list[tuple[bytes, int, int]] = []

    def forget_client(self, client: bytes) -> None:
        """A client has left, and its kinds with it."""
        for number in [number for number, kind in self.kinds.items() if kind.client == client]:
            self.forget_kind(number)
        # Those of a former life that were not used again.
        self._numbers = {key: n for key, n in self._numbers.items() if key[0] != client}

    def restarted(self) -> None:
        """The scheduler is another: what is not whole will not be, and kinds get other numbers.

        Attempts that are here go on as they are, before all that this life brings: but for calls
        whose callers have made earlier ones that are not whole, and come again.
        """
        state = self._state
        behind = self._actors.behind_arriving()
        arriving = [one for one in state.attempts.values() if one.state == ARRIVING]
        for attempt in (*arriving, *behind):
            state.forget(attempt)
        for refs in self.pins():
            state.objects.unpin(refs)
        self.blobs.clear()
        self.kinds.clear()
        self._functions.clear()
        self._forget_later()
        state.queue.tidy()
        for attempt in state.attempts.values():
            attempt.row.order -= ORDER_OF_A_LIFE

    @property
    def is_receiving(self) -> bool:
        """Whether something is not whole yet, or has to wait until an earlier attempt ends."""
        return bool(self.blobs.count() or self.later)

    def clear(self) -> None:
        """The link's life is over."""
        self.kinds.clear()
        self._numbers.clear()
        self._functions.clear()
        self.blobs.clear()
        self._forget_later()

    def pins(self) -> list[tuple[bytes, ...]]:
        """Return the refs that values on their way hold."""
        return [
            consumer[0].contained
            for consumer in self.blobs.consumers()
            if isinstance(consumer, tuple) and isinstance(consumer[0], ValueRow)
        ]

    def prepare(self, message: Prepare, now_s: float) -> None:
        """Learn of clients and kinds that later rows will name."""
        for client in message.clients:
            self._lives.environments[client.client] = client.environment
        for row in message.kinds:
            function = self._functions.get((row.client, row.function))
            if function is None:
                function = self._functions[row.client, row.function] = Function()
            function.kinds += 1
            payload = row.payload
            if payload is None and row.size:
                payload = self.blobs.expect(row.function, function)
            if payload is not None:
                self._arrive(function, payload)
            key, demand = WorkerKey.of(row.client, row.options), Demand.of(row.options)
            shape = self._dispatch.shape(key, demand)
            self.kinds[row.number] = Kind(self._number(row), row, shape, function)
            if key == WorkerKey(row.client, (), "", 1.0, "") and demand == Demand(UNITS, 0, ()):
                self._lives.prestart(key, now_s)

    def _number(self, row: NodeKindRow) -> int:
        key = row.client, row.function, row.name, row.options
        number = self._numbers.get(key)
        if number is None:
            self._last_number = number = self._numbers[key] = self._last_number + 1
        return number

    def forget_kind(self, number: int) -> None:
        """A kind is not used again."""
        kind = self.kinds.pop(number, None)
        if kind is None:
            return
        self._numbers.pop((kind.client, kind.hash, kind.name, kind.options), None)
        kind.function.kinds -= 1
        if not kind.function.kinds:
            del self._functions[kind.client, kind.hash]

    def assign(self, message: Assign, now_s: float) -> None:
        """Take attempts in (hot: one row a task)."""
        attempts, kinds, queue = self._state.attempts, self.kinds, self._state.queue
        for row in message.rows:
            kind = kinds.get(row.kind)
            if kind is None or row.id in attempts:
                self._refuse(row, kind, now_s)
                continue
            attempt = Attempt(row, kind, kind.rank - row.depth)
            attempts[row.id] = attempt
            if row.values or row.contained or (row.args is None and row.size):
                self._gather(attempt)
            if row.checkpoint_size:
                self._expect(attempt, STATE, row.id + CHECKPOINT)
            if kind.function.payload is None:
                attempt.missing += 1
                kind.function.waiting.append(attempt)
            if kind.actor:
                self._actors.push(attempt)
            elif attempt.missing:
                attempt.state = ARRIVING
            elif kind.shape.fits:
                queue.push(attempt)
            else:
                self._oversized(attempt)

    def assign_later(self, now_s: float) -> list[tuple[bytes, int, int]]:
        """Take in the attempts whose forerunners have ended; return what was said of them."""
        for task in [task for task in self.later if task not in self._state.attempts]:
            self.assign(Assign([self.later.pop(task)]), now_s)
        said = [stop for stop in self._stops_later if stop[0] not in self.later]
        self._stops_later = [stop for stop in self._stops_later if stop[0] in self.later]
        return said

    def give_back_later(self) -> list[tuple[bytes, int]]:
        """Let go of the attempts whose forerunners have not ended; return them."""
        rows = [(row.id, row.attempt) for row in self.later.values()]
        self._forget_later()
        return rows

    def stops_later(self, task: bytes, attempt: int, mode: int) -> bool:
        """An attempt is to be stopped; return whether that has to wait until it is taken in."""
        row = self.later.get(task)
        if row is None or row.attempt != attempt:
            return False
        self._stops_later.append((task, attempt, mode))
        return True

    @property
    def later_count(self) -> int:
        """How much waits until an earlier attempt has ended: attempts, and what is said of them."""
        return len(self.later) + len(self._stops_later)

    def _forget_later(self) -> None:
        self.later.clear()
        self._stops_later.clear()

    def _refuse(self, row: AssignRow, kind: Kind | None, now_s: float) -> None:
        former = self._state.attempts.get(row.id)
        if kind is not None and former is not None and former.row.attempt < row.attempt:
            # Left over from an earlier life of the scheduler; this one has stopped it by now.
            self.later[row.id] = row
            return
        # Should not happen. An attempt that is here already is answered when it ends.
        self._state.counters["stale_dropped"] += 1
        self._state.note(now_s, f"cannot take {show(row.id)}: kind {row.kind} is {kind}")

    def _oversized(self, attempt: Attempt) -> None:
        attempt.state = ARRIVING
        text = f"node {self._state.name} is too small for {attempt.kind.name}"
        self._state.fail(attempt, "Infeasible", text)

    def _gather(self, attempt: Attempt) -> None:
        # Refs that came along are ours to hold; large parts come on the bulk link.
        row = attempt.row
        attempt.pins = row.contained + tuple(id_ for value in row.values for id_ in value.contained)
        self._state.objects.deliver(attempt.pins)
        self._state.objects.pin(attempt.pins)
        if row.args is None and row.size:
            self._expect(attempt, ARGUMENTS, row.id + b"a")
        for place, value in enumerate(row.values):
            if value.payload is None and value.size:
                self._expect(attempt, place, value.id)

    def _expect(self, attempt: Attempt, place: int, key: bytes) -> None:
        payload = self.blobs.expect(key, (attempt, place))
        if payload is None:
            attempt.missing += 1
        else:
            _fill(attempt, place, payload)

    def blob(self, event: BlobReceived) -> None:
        """A large payload is here in whole."""
        task = task_ahead(event.key)
        if task is not None:
            objects = self._state.objects
            if task in objects.calls:
                objects.ahead.came(event.key, event.payload)
            return
        consumer = self.blobs.arrived(event.key, event.payload)
        if consumer is None:
            return
        if isinstance(consumer, Function):
            self._function_arrived(event.key, event.payload)
            return
        thing, place = consumer
        if isinstance(thing, Attempt):
            _fill(thing, place, event.payload)
            self._less_missing(thing)
        else:
            self._value(replace(thing, payload=event.payload), mine=bool(place))
            self._state.objects.unpin(thing.contained)

    def _function_arrived(self, hash_: bytes, payload: bytes) -> None:
        # The same code for all who wait for it. An empty one stands for code that will not come:
        # its client left before it was whole.
        for (_, other), function in self._functions.items():
            if other == hash_ and payload and function.payload is None:
                self._arrive(function, payload)

    def _arrive(self, function: Function, payload: bytes) -> None:
        function.payload = payload
        waiting, function.waiting = function.waiting, []
        for attempt in waiting:
            self._less_missing(attempt)

    def _less_missing(self, attempt: Attempt) -> None:
        if attempt.state != ARRIVING:
            return
        attempt.missing -= 1
        if attempt.missing:
            return
        if attempt.kind.actor:
            self._actors.whole(attempt)
        elif attempt.kind.shape.fits:
            self._state.queue.push(attempt)
        else:
            self._oversized(attempt)

    def values(self, rows: list[ValueRow], *, mine: bool) -> None:
        """Values have come: results of our workers' calls (mine), or what they fetched."""
        objects = self._state.objects
        for row in rows:
            objects.deliver(row.contained)
            if row.payload is None and row.size:
                # Pinned until the payload is here: then the value itself pins them.
                payload = objects.ahead.take(row.id) if mine else None
                if payload is None:
                    payload = self.blobs.expect(row.id, (row, mine))
                if payload is None:
                    objects.pin(row.contained)
                    continue
                row = replace(row, payload=payload)  # noqa: PLW2901  # the row, made whole
            self._value(row, mine=mine)

    def _value(self, row: ValueRow, *, mine: bool) -> None:
        if mine:
            self._state.objects.result(row)
        else:
            self._state.objects.value(row)


def _fill(attempt: Attempt, place: int, payload: bytes) -> None:
    # A large part of an attempt has arrived.
    row = attempt.row
    if attempt.state == GONE:
        return
    if place == ARGUMENTS:
        attempt.row = replace(row, args=payload)
        return
    if place == STATE:
        attempt.row = replace(row, checkpoint=payload, checkpoint_size=0)
        return
    values = list(row.values)
    values[place] = replace(values[place], payload=payload)
    attempt.row = replace(row, values=tuple(values))
