"""Calls of an actor that runs several at once: what event loop and threads have in common.

Never decides which call comes next: they begin in the order in which the node sent them, and end in
any. A thread of its own reads all that the node says, so that a call that blocks keeps nobody from
being told to stop.

    queued    received; the node may still take it back, as from any worker
    open      begun: its seq is not above STARTED, and its result has not been handed over
    RUNNING   in the pulse page: the call that has the event loop, else the oldest that is open
"""

import math
import os
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..protocol.errors import Interrupted
from ..protocol.ids import show
from ..protocol.inside import CurrentCall, pack_details, set_inside
from ..protocol.messages import Failure, Outcome, ValueRow
from .actor_host import ActorHost
from .channel import ClosedError
from .helper import Helper
from .line import Line, start_thread
from .loaded import LoadedKind
from .nested import WorkerSession
from .packets import (
    ActorMade,
    Begun,
    BegunRow,
    CallsTold,
    Exit,
    FinishedRow,
    Returned,
    Run,
    RunRow,
    Setup,
    StopCalls,
    TellCalls,
)  # fmt: skip
from .page import BEGAN, IDLE, PHASE, REVOKED, RUNNING, STARTED, Words, times_of

if TYPE_CHECKING:
    from ..protocol.inside import Inside

#: calls that have run for so long are told of, and those told of again as they progress
_TOLD_AFTER_S: Final = 0.1
#: stacks of so many calls are told
_STACKS_MAX: Final = 200
_FRAMES_MAX: Final = 100

#: the call whose code runs here
running: Final[ContextVar["Call | None"]] = ContextVar("drumbeat_call", default=None)


class Call:
    """One that has begun."""

    __slots__ = (
        "began_s", "done", "heard", "is_over", "kind", "progress", "reason", "row", "seq",
        "shields", "thread", "told", "total", "where",
    )  # fmt: skip

    def __init__(self, row: RunRow, kind: LoadedKind) -> None:
        self.row = row
        self.seq = row.seq
        self.kind = kind
        self.began_s = perf_counter()
        #: its code has ended: nothing may interrupt it any more
        self.is_over = False
        #: why it is to end; "": it is not
        self.reason = ""
        #: it has been interrupted for that reason
        self.heard = False
        #: shields of the user's that are open
        self.shields = 0
        #: how often it has said that it progresses, and how far it is
        self.progress, self.done, self.total = 0, 0.0, -1.0
        #: of these, how often when the node was told last; -1: it has not been told of
        self.told = -1
        #: what stands for it where it runs: a task of the loop, a thread
        self.where: Any = None
        #: the thread that runs it, see BegunRow; (): an event loop does
        self.thread: tuple[int, ...] = ()

    @property
    def is_due(self) -> bool:
        """Whether it is to be interrupted, has not been, and does not shield itself."""
        return bool(self.reason) and not (self.heard or self.shields or self.is_over)


class Tools(NamedTuple):
    """What the worker has that its calls are run with."""

    words: Words
    line: Line
    helper: Helper
    session: WorkerSession
    host: ActorHost
    kinds: dict[int, LoadedKind]
    #: the node's name
    node: str
    define: Callable[[Run], None]
    #: loads a kind's function
    load: Callable[[LoadedKind], Callable[..., Any]]
    values: Callable[[RunRow, LoadedKind, Any], tuple[ValueRow, ...]]
    failed: Callable[[RunRow, LoadedKind, BaseException, float], FinishedRow | ActorMade]
    flush_streams: Callable[[], None]


class Several(ABC):
    """See the module. Base of what runs them; all threads may call what is here.

    Args:
        tools: the worker's.
    """

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self.words = tools.words
        self._times = times_of(tools.words)
        self._line = tools.line
        self.concurrency = tools.host.concurrency
        self.queue: deque[RunRow] = deque()
        #: by seq, rising
        self.open: dict[int, Call] = {}
        self._told_s = 0.0
        #: held while calls leave the queue
        self._taking = threading.Lock()
        self.doctor = tools.host.doctor
        #: it is being asked how it is: nothing begins meanwhile
        self.is_asked = False

    def begin(self) -> None:
        """Take over from the worker's main thread."""
        tools, line = self.tools, self._line
        creation = tools.host.creation
        assert creation is not None
        # Threads that belong to no call act for the actor.
        tools.session.row = creation
        tools.session.row_here = self.row_here
        tools.session.can_be_stuck = False
        tools.helper.ticked, tools.helper.goes_on = self.tick, self.has_queued
        line.deliver = line.while_waiting = self.deliver
        line.look_here = look_here
        set_inside(SeveralInside(self, tools.node))
        while line.inbox:
            self.deliver(line.inbox.popleft())
        start_thread(self._read, "drumbeat-reader")

    def row_here(self) -> RunRow | None:
        """Return what the calling thread runs."""
        call = running.get()
        return self.tools.host.creation if call is None else call.row

    def _read(self) -> None:
        try:
            self._line.read_for_all()
        except ClosedError:
            os._exit(1)  # the node is gone

    # ------------------------------------------------------------------------------- what is told

    def deliver(self, packet: Setup | Run | Exit | StopCalls | TellCalls) -> None:
        """Take what the node says."""
        if type(packet) is Run:
            self.tools.define(packet)
            self.queue.extend(packet.rows)
            self.tools.helper.begin()  # whether their turn comes is to be seen
            self.arrived()
        elif type(packet) is StopCalls:
            for seq, reason in packet.rows:
                call = self.open.get(seq)
                if call is not None and not call.heard:
                    call.reason = reason
                    self.interrupt(call)
        elif type(packet) is TellCalls:
            self._line.outbox.append(CallsTold(packet.number, self.stacks()))
            self._line.flush()
        elif type(packet) is Exit:
            self.leave()

    @abstractmethod
    def arrived(self) -> None:
        """Have calls begun that are queued."""

    @abstractmethod
    def interrupt(self, call: Call) -> None:
        """Have a call interrupted for its reason as soon as that is possible."""

    @abstractmethod
    def unshielded(self, call: Call) -> None:
        """The last shield of a call is over: interrupt it now, if it is to be."""

    @abstractmethod
    def leave(self) -> None:
        """End the actor: it has nothing to do."""

    @abstractmethod
    def stacks(self) -> str:
        """Return where the calls are."""

    # ---------------------------------------------------------------------------- begin and end

    def take(self) -> Call | None:
        """Begin the next call; None: there is none. For one thread at a time."""
        words, queue = self.words, self.queue
        with self._taking:
            if not queue:
                return None
            row = queue.popleft()
            # Started first, then a look at what the node took back: see Worker._run.
            words[STARTED] = row.seq
            revoked = words[REVOKED]
            if not revoked or row.seq < revoked:
                call = Call(row, self.tools.kinds[row.kind])
                self.open[row.seq] = call
                return call
            queue.appendleft(row)
        self._give_back()
        self._line.flush()
        return None

    def _give_back(self) -> None:
        """Return what the node took back: by any thread, for the one that takes may be stuck."""
        queue = self.queue
        with self._taking:
            revoked, seqs = self.words[REVOKED], []
            while revoked and queue and queue[-1].seq >= revoked:
                seqs.append(queue.pop().seq)
            if seqs:
                self._line.outbox.append(Returned(seqs[::-1]))

    def is_to_be_asked(self) -> bool:
        """Return whether it is time to ask the actor how it is, and none of its calls runs."""
        doctor = self.doctor
        return doctor is not None and not self.open and not self.is_asked and doctor.is_due()

    def has_queued(self) -> bool:
        """Return whether calls are to begin."""
        return bool(self.queue)

    def show(self, call: Call | None, phase: int) -> None:
        """Write into the page which call runs: this one, or the oldest there is."""
        words = self.words
        if call is None:
            call = next(iter(self.open.values()), None)
        if call is None:
            words[RUNNING], words[PHASE] = 0, IDLE
            return
        if words[RUNNING] != call.seq:
            words[RUNNING] = 0
            self._times[BEGAN] = call.began_s
            words[RUNNING] = call.seq
            self.tools.helper.begin()  # at last: it sleeps while nothing runs
        words[PHASE] = phase

    def outcome(self, call: Call, error: BaseException | None, value: Any) -> FinishedRow:
        """Return what became of a call whose code has ended."""
        row, kind, tools = call.row, call.kind, self.tools
        took_s = perf_counter() - call.began_s
        if error is None:
            try:
                return FinishedRow(row.seq, tools.values(row, kind, value), took_s)
            except BaseException as raised:  # noqa: BLE001  # pickling runs the user's code
                error = raised
        finished = tools.failed(row, kind, error, took_s)
        assert type(finished) is FinishedRow, "a call makes no actor"
        return finished

    def ended(self, call: Call, row: FinishedRow) -> None:
        """Hand over a result, unless the call was given up meanwhile."""
        if self.open.pop(call.seq, None) is not None:
            if self.doctor is not None:
                self.doctor.ended(row)
            self._line.outbox.append(row)

    def lost(self, calls: Iterable[Call]) -> None:
        """The actor ends itself beside these calls, which may have done anything."""
        for call in list(calls):
            name = call.kind.name
            text = f"{name}: the actor ended itself (exit_actor) while this call ran"
            failure = Failure(
                "ActorCallLost",
                text,
                {"name": name, "task": show(call.row.id), "maybe_executed": True},
            )
            value = ValueRow(call.row.id, Outcome.FAILURE, failure=failure)
            took_s = perf_counter() - call.began_s
            self.ended(call, FinishedRow(call.seq, (value,), took_s))

    def tick(self) -> None:
        """Tell of calls that have run for a while; by the helper, while any is open or queued."""
        if self.queue:
            self._give_back()
        now_s = perf_counter()
        if now_s - self._told_s < _TOLD_AFTER_S:
            return
        self._told_s = now_s
        rows = []
        for call in list(self.open.values()):
            progress = call.progress
            if progress != call.told and now_s - call.began_s >= _TOLD_AFTER_S:
                call.told = progress
                elapsed_s = now_s - call.began_s
                rows.append(
                    BegunRow(call.seq, elapsed_s, progress, call.done, call.total, *call.thread)
                )
        if rows:
            self._line.outbox.append(Begun(rows))

    def told_calls(self) -> list[Call]:
        """Return those whose stacks are told."""
        return list(self.open.values())[:_STACKS_MAX]


def serve_calls(tools: Tools) -> None:
    """Run the calls of an actor until it ends."""
    if tools.host.loop is None:
        from .several_threads import ThreadCalls  # loads ctypes: for those who need it

        ThreadCalls(tools).serve()
    else:
        from .several_loop import LoopCalls  # loads asyncio: likewise

        LoopCalls(tools).serve()


def look_here() -> None:
    """Raise Interrupted if what the calling thread runs is to end; where it waits."""
    call = running.get()
    if call is not None and call.is_due:
        raise due(call)


def due(call: Call) -> Interrupted:
    """Return what a call that is to end is interrupted with."""
    call.heard = True
    return Interrupted(call.reason)


def frames_text(frames: Iterable[tuple[str, int, str]]) -> list[str]:
    """Return frames, innermost first, as `faulthandler` writes them."""
    lines = [f'  File "{file}", line {line} in {name}' for file, line, name in frames]
    if len(lines) > _FRAMES_MAX:
        lines[_FRAMES_MAX:] = ["  ..."]
    return lines


class SeveralInside:
    """What a call of such an actor can say of itself; see protocol.inside.Inside.

    Args:
        calls: the actor's.
        node: its name.
    """

    def __init__(self, calls: Several, node: str) -> None:
        self._calls = calls
        self._line = calls.tools.line
        self._node = node
        self._pid = os.getpid()

    def progress(self, done: float, total: float, details: Any) -> None:
        """Note how far the call is; the helper tells it. See Inside."""
        call = running.get()
        if call is None:
            return
        call.done, call.total = done, -1.0 if math.isnan(total) else total
        call.progress += 1
        if details is not None:
            self._line.details[call.seq] = pack_details(details)
        if call.is_due:
            raise due(call)

    def call(self) -> CurrentCall | None:
        """Return what runs here; outside of the actor's calls its creation."""
        creation = self._calls.tools.host.creation
        running_here = self._calls.row_here()
        if creation is None or running_here is None:
            return None
        kind = self._calls.tools.kinds[running_here.kind]
        return CurrentCall(
            kind.name,
            show(running_here.id),
            running_here.attempt,
            self._node,
            self._pid,
            show(creation.id),
            creation.attempt,
            running_here.details,
        )

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Hold interrupts back from the call that runs here."""
        call = running.get()
        if call is None:
            yield
            return
        call.shields += 1
        try:
            yield
        finally:
            call.shields -= 1
        if not call.shields:
            self._calls.unshielded(call)


if TYPE_CHECKING:

    def _is_an_inside(inside: SeveralInside) -> Inside:
        return inside
