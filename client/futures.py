"""Iterate over results as they come: `as_completed` and `map`.

Never holds more than it must: a reference that was handed out is let go, and `map` has only so much
in flight.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

from ..protocol.errors import GetTimeoutError, MessageTooLarge
from ..protocol.ids import ObjectId
from ..protocol.messages import ValueRow
from ..protocol.modules import portable
from ..protocol.outcomes import task_error, value_of
from ..protocol.parcels import bytes_behind
from ..protocol.payload import load_error, pack_call, pack_error
from ..protocol.references import ObjectRef, check_timeout
from ..protocol.session import Session
from .functions import RemoteFunction, refuse_no_function, remote, session_or_start
from .handles import no_refs
from .keeper import for_divisible

T = TypeVar("T")

#: a chunk is to take about so long: 200 times what a task costs
CHUNK_S: Final = 0.004
#: a chunk's arguments, and its results, are to have at most about so many bytes
CHUNK_BYTES: Final = 256 << 10
CHUNK_ITEMS_MAX: Final = 4096
#: a chunk is at most so many times as large as what has been measured
GROWTH: Final = 8
#: chunks in flight for each CPU, and at least
CHUNKS_PER_CPU: Final = 8
CHUNKS_MIN: Final = 32
#: above so many references, hear of each instead of asking for all of them again and again
LISTEN_ABOVE: Final = 64


# ------------------------------------------------------------------------------------ as_completed


def as_completed(
    refs: Iterable[ObjectRef[T]], timeout: float | None = None
) -> Generator[ObjectRef[T], None, None]:
    """Yield references as they become ready, each once; failed ones too.

    Args:
        refs: references; duplicates are yielded once.
        timeout: seconds from the first `next` until all must have come.

    Raises:
        GetTimeoutError: some were not ready in time.
        TypeError, ValueError: no references, or a timeout that is none; at once.
    """
    check_timeout(timeout)
    if isinstance(refs, ObjectRef):
        raise TypeError(
            "as_completed takes a list of ObjectRefs; for one, write as_completed([ref])"
        )
    try:
        listed = list(refs)
    except TypeError:
        raise no_refs("as_completed", refs) from None
    pending: dict[ObjectId, ObjectRef[T]] = {}
    session: Session | None = None
    for ref in listed:
        if type(ref) is not ObjectRef:
            raise no_refs("as_completed", ref)
        if ref._session is not session:
            if session is not None:
                raise ValueError("as_completed: the references belong to different clusters")
            session = ref.session
        pending[ref.id] = ref
    return _completed(session, pending, timeout)


def _completed(
    session: Session | None, pending: dict[ObjectId, ObjectRef[T]], timeout: float | None
) -> Generator[ObjectRef[T], None, None]:
    if session is None:
        return
    end_s = None if timeout is None else time.monotonic() + timeout
    # In a worker only wait() lends the task's CPU to others meanwhile.
    listen = len(pending) > LISTEN_ABOVE and not getattr(session, "lends", True)
    ready = _listen(session, pending, end_s) if listen else _ask(session, pending, end_s)
    for id_ in ready:
        yield pending.pop(id_)


def _ask(
    session: Session, pending: dict[ObjectId, ObjectRef[T]], end_s: float | None
) -> Iterator[ObjectId]:
    while pending:
        ids = list(pending)
        done = session.wait(ids, 1, _remaining(end_s))
        if not done:
            raise _late(len(pending))
        yield from [id_ for id_ in ids if id_ in done]


def _listen(
    session: Session, pending: dict[ObjectId, ObjectRef[T]], end_s: float | None
) -> Iterator[ObjectId]:
    arrived: SimpleQueue[ObjectId] = SimpleQueue()
    for id_ in list(pending):
        session.when_ready(id_, _Teller(arrived, id_))
    while pending:
        try:
            yield arrived.get(timeout=_remaining(end_s))
        except Empty:
            raise _late(len(pending)) from None


class _Teller:
    __slots__ = ("arrived", "id")

    def __init__(self, arrived: "SimpleQueue[ObjectId]", id_: ObjectId) -> None:
        self.arrived = arrived
        self.id = id_

    def __call__(self, _: ValueRow) -> None:
        self.arrived.put(self.id)


def _remaining(end_s: float | None) -> float | None:
    return None if end_s is None else max(0.0, end_s - time.monotonic())


def _late(count: int) -> GetTimeoutError:
    return GetTimeoutError(f"{count} of the references were not ready in time; their tasks go on")


# --------------------------------------------------------------------------------------------- map


class Chunk:
    """Calls a function for several items in one task; runs in the worker."""

    def __init__(self, function: Callable[..., Any], name: str, raises: bool) -> None:
        self.function = portable(function)
        self.__name__ = name
        #: True: an error ends the task, which may then be tried again
        self.raises = raises

    def __call__(self, width: int, *flat: Any) -> tuple[list[Any], float, bytes | None]:
        """Call the function for each `width` arguments; end with the first error.

        The arguments come flat, so that references among them are passed by value.

        Returns:
            (results, how long they took, the packed error that ended it early or None)
        """
        function, values = self.function, []
        start_s = time.perf_counter()
        error = None
        try:
            for index in range(0, len(flat), width):
                # One by one: an error keeps those before it.
                values.append(function(*flat[index : index + width]))  # noqa: PERF401  # see above
        except Exception as raised:
            if self.raises:
                raise
            packed = pack_error(raised, name=self.__name__)
            if packed.contained:
                raise  # references inside are counted only in a task's own outcome
            error = packed.payload
        return values, time.perf_counter() - start_s, error


class _Sizes:
    """How many items the next chunk takes, by what those before have cost."""

    def __init__(self, fixed: int | None) -> None:
        self.items = fixed or 1
        self.fixed = fixed is not None
        self._item_s = 0.0
        self._item_bytes = 0.0

    def learn(self, items: int, duration_s: float, bytes_: int) -> None:
        """Take in what a chunk has cost."""
        if self.fixed or not items:
            return
        first = not self._item_s
        weight = 1.0 if first else 0.25
        self._item_s += weight * (duration_s / items - self._item_s)
        self._item_bytes += weight * (bytes_ / items - self._item_bytes)
        by_time = CHUNK_S / max(self._item_s, 1e-9)
        by_size = CHUNK_BYTES / max(self._item_bytes, 1.0)
        wanted = int(min(by_time, by_size, GROWTH * items, CHUNK_ITEMS_MAX))
        self.items = max(1, wanted)


def map_calls(
    function: Callable[..., T] | RemoteFunction[..., T],
    iterable: Iterable[Any],
    *iterables: Iterable[Any],
    chunk: int | None = None,
    progress: bool = False,
    window: int | None = None,
) -> Generator[T, None, None]:
    """Call a function for each item in the cluster; yield the results in order, as they come.

    Calls that are short are put together, so that a million of them cost little. What is in flight
    is bounded, so the iterable may be endless. Closing the generator cancels what is left.

    Args:
        function: a function or a remote function (its options hold).
        iterable: its first arguments.
        iterables: its further arguments, as with the builtin map.
        chunk: items a task; None: found by how long they take and how large they are.
        progress: show a progress bar.
        window: tasks in flight; None: by the number of CPUs in the cluster.

    Raises:
        TaskError: a call failed; an exception of the function's code is of its own type, too.
    """
    refuse_no_function(function)
    call = function if isinstance(function, RemoteFunction) else remote(function)
    for name, value in (("chunk", chunk), ("window", window)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"{name} must be a whole number, not {value!r}")
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value!r}")
    if call.num_returns != 1:
        raise ValueError(f"map needs a function with num_returns=1, not {call.num_returns}")
    total = _length_of(iterable, *iterables)
    items = zip(iterable, *iterables)  # noqa: B905  # ends with the shortest, as map does
    return _map(call, items, 1 + len(iterables), _Sizes(chunk), window, total, progress)


def _map(  # the arguments of map_calls, checked
    call: RemoteFunction[..., T],
    items: Iterator[tuple[Any, ...]],
    width: int,
    sizes: _Sizes,
    window: int | None,
    total: int | None,
    progress: bool,
) -> Generator[T, None, None]:
    session = session_or_start()
    chunks = call.around(lambda function: Chunk(function, call.name, call.retries))
    flight = _Flight(session, chunks, width, sizes, window or _window(session))
    advance = None
    with contextlib.ExitStack() as stack:
        stack.callback(flight.give_up)
        if progress:
            from .progress import bar

            advance = stack.enter_context(bar(call.name, total))
        while flight.fill(items, total):
            values, error = flight.land()
            for index, value in enumerate(values):
                values[index] = None
                if advance is not None:
                    advance(1)
                yield value
                del value
            if error is not None:
                raise task_error(load_error(error))


class _Flight:
    """The chunks of one map that are on their way."""

    def __init__(
        self,
        session: Session,
        chunks: RemoteFunction[..., Any],
        width: int,
        sizes: _Sizes,
        most: int,
    ) -> None:
        self._session = session
        self._chunks = chunks
        self._width = width
        self._sizes = sizes
        self._most = most
        #: reference, number of items, bytes of their arguments
        self._flying: deque[tuple[ObjectRef[Any], int, int]] = deque()
        #: the row of the first, once it was found to be here: to look may be to have it brought
        self._first: ValueRow | None = None
        self._taken = 0
        self._more = True

    def fill(self, items: Iterator[tuple[Any, ...]], total: int | None) -> bool:
        """Submit what may be in flight; return False when all is over."""
        flying = self._flying
        while self._more and len(flying) < self._most:
            count = self._sizes.items
            if total is not None and not self._sizes.fixed:
                # The last chunks are small, so that all CPUs end together.
                count = min(count, max(0, total - self._taken) // (2 * self._most) + 1)
            part = list(islice(items, count))
            self._more = len(part) == count
            self._taken += len(part)
            if part:
                self._submit([value for item in part for value in item])
            if flying:
                self._first = self._session.peek(flying[0][0].id)
                if self._first is not None:
                    break  # hand out what is there before reading on
        return bool(flying)

    def _submit(self, flat: list[Any]) -> None:
        count = len(flat) // self._width
        is_whole = count == 1 or self._sizes.fixed
        keeper = self._session.keeper
        try:
            packed = pack_call(
                (self._width, *flat), {}, keeper if is_whole else for_divisible(keeper)
            )
        except MessageTooLarge:
            if is_whole:
                raise
            half = count // 2 * self._width
            self._submit(flat[:half])
            self._submit(flat[half:])
            return
        (id_,) = self._chunks.submit(self._session, packed)
        ref: ObjectRef[Any] = ObjectRef(id_, self._session)
        sent_bytes = len(packed.payload or b"") + bytes_behind(packed.payload)
        self._flying.append((ref, count, sent_bytes))

    def land(self) -> tuple[list[Any], bytes | None]:
        """Wait for the first chunk; return its values and the error that ended it."""
        ref, count, sent_bytes = self._flying[0]
        row, self._first = self._first, None
        if row is None:
            row = self._session.get((ref.id,), None)[-1]
        self._flying.popleft()
        values, duration_s, error = value_of(row)
        self._sizes.learn(count, duration_s, sent_bytes + len(row.payload or b""))
        return values, error

    def give_up(self) -> None:
        """Cancel what is on its way."""
        if self._flying and self._session.alive:
            self._session.cancel([ref.id for ref, _, _ in self._flying], False, True)


def _window(session: Session) -> int:
    """Return how many chunks may be in flight."""
    cpus = sum(node.get("resources", {}).get("CPU", 0) for node in session.query("nodes", 1 << 20))
    return max(CHUNKS_MIN, int(CHUNKS_PER_CPU * cpus))


def _length_of(*iterables: Iterable[Any]) -> int | None:
    lengths = []
    for iterable in iterables:
        try:
            lengths.append(len(iterable))  # type: ignore[arg-type]  # those without are caught
        except TypeError:
            continue
    return min(lengths) if len(lengths) == len(iterables) else None
