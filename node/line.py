"""A worker's socket to its node, shared by all threads of the worker.

Never decides what is said. Whoever waits reads for all: one thread at a time receives and hands
the others theirs. What is to be sent gathers in one ordered outbox and goes in packets.

An interrupt (SIGUSR1) raises `Interrupted` in the main thread, but only while the task that it is
meant for runs the user's code, or waits; never while a packet is half handled.
"""

import select
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn, TypeVar

from ..protocol.codec import decoder, encode
from ..protocol.errors import Interrupted
from ..protocol.ids import TASK_BYTES
from ..protocol.messages import Failure, Outcome, TaskRow, ValueRow
from ..protocol.payload_files import Filing
from .apart import told, whole
from .channel import Channel
from .held import Held
from .kernel import ends_if_it_fails
from .packets import (
    ActorMade,
    Answered,
    Ask,
    CancelTasks,
    CheckpointKept,
    Exit,
    Finished,
    FinishedRow,
    Item,
    NestedKind,
    Progressed,
    Returned,
    Run,
    RunRow,
    Setup,
    Submitted,
    ToWorker,
    Want,
    WantOver,
)  # fmt: skip
from .page import INTERRUPT, PHASE, REASON, REASONS, RUNNING, RUNNING_CODE, WAITS, Words

_decode: Callable[[Any], ToWorker] = decoder(ToWorker)

#: so often the main thread, waiting while another thread reads, looks for an interrupt
_LOOK_S: Final = 0.05
#: no sooner after the last ones are details told, unless their row ends
_DETAILS_S: Final = 0.25

Callback = Callable[[Answered], Any]
T = TypeVar("T")


class Made(NamedTuple):
    """Something that user code made, on its way out: a call, or a put."""

    parent: bytes
    depth: int
    kind: NestedKind | None
    row: TaskRow | None
    put: ValueRow | None


class Line:
    """The worker's end. `outbox` takes whatever is to be sent, in order; `flush` sends it."""

    def __init__(self, channel: Channel, words: Words, held: Held) -> None:
        self._channel = channel
        self._words = words
        self._held = held
        #: FinishedRow, Made, or a whole packet
        self.outbox: deque[Any] = deque()
        #: packets for the main thread
        self.inbox: deque[Setup | Run | Exit] = deque()
        self.flushed_s = 0.0
        #: called with the Run packets that come while the main thread waits in get()
        self.while_waiting: Callable[[Run], None] = lambda _run: None
        #: called with packets that answer nothing
        self.deliver: Callable[[Any], None] = self.inbox.append
        #: called by a thread that waits for an answer, and may raise Interrupted
        self.look_here: Callable[[], None] = _nothing
        self._main = threading.get_ident()
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._woken = threading.Condition(self._lock)
        #: a thread is receiving, and so many wait for what it gets
        self._reading = False
        self._sleepers = 0
        #: request -> what to do with its answer; None: somebody waits for it
        self._expected: dict[int, Callback | None] = {}
        self._answers: dict[int, Answered] = {}
        self._requests = 0
        #: callbacks still expected, and those whose answer is here
        self._callbacks = 0
        self._called: deque[tuple[Callback, Answered]] = deque()
        self._listening = False
        #: the main thread is at a point where an interrupt would lose something
        self._masked = 0
        #: the main thread waits, holding nothing
        self._interruptible = False
        #: of the user's shields in the row of that seq, so many are open
        self._shields = self._shielded = 0
        #: seq -> what its row told last with progress(), and has not been sent
        self.details: dict[int, bytes] = {}
        #: makes files of large payloads, if it is to
        self.filing: Filing | None = None
        #: number of the last checkpoint that is known to be safe
        self._kept = 0
        self.details_due_s = 0.0

    def close(self) -> None:
        """Close the socket: in a forked child, whose it is not."""
        self._channel.close()

    # -------------------------------------------------------------------------------- interrupts

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """SIGUSR1: raise Interrupted if it is meant for what runs and nothing would be lost."""
        phase = self._words[PHASE]
        if (phase == RUNNING_CODE and not self._masked) or (phase in WAITS and self._interruptible):
            self.check_interrupt()

    def check_interrupt(self) -> None:
        """Raise Interrupted if the running task is to stop and has not been told so yet.

        Not while it is in a shield of its own: it will be told at the end of that.
        """
        words = self._words
        target = words[INTERRUPT]
        if target and target == words[RUNNING]:
            if self._shields and self._shielded == target:
                return
            words[INTERRUPT] = 0
            raise Interrupted(REASONS[words[REASON]])

    def cancellation_point(self) -> None:
        """As `check_interrupt`, for user code: only where a signal would raise it."""
        is_main = threading.get_ident() == self._main
        if is_main and not self._masked and self._words[PHASE] == RUNNING_CODE:
            self.check_interrupt()

    def begin_shield(self) -> int:
        """Hold interrupts of the running row back; return what `end_shield` wants to know."""
        seq = self._words[RUNNING]
        if threading.get_ident() != self._main or not seq:
            return 0
        if self._shielded != seq:
            # One that an earlier row has left open does not count any more.
            self._shielded, self._shields = seq, 0
        self._shields += 1
        return int(seq)

    def end_shield(self, seq: int) -> None:
        """The shield is over; raise Interrupted if that was to be raised meanwhile."""
        if seq and seq == self._shielded:
            self._shields -= 1
            self.cancellation_point()

    @contextmanager
    def _shield(self) -> Iterator[None]:
        """Hold interrupts back meanwhile, if this is the main thread."""
        if threading.get_ident() != self._main:
            yield
            return
        self._masked += 1
        try:
            yield
        finally:
            self._masked -= 1
        if not self._masked and self._words[PHASE] == RUNNING_CODE:
            self.check_interrupt()

    def undisturbed(self) -> AbstractContextManager[None]:
        """Hold interrupts back for as long as the user's code runs that belongs to no call."""
        return self._shield()

    # ----------------------------------------------------------------------------------- sending

    def flush(self) -> None:
        """Send all that has gathered."""
        with self._shield(), self._sending:
            self._send_all()

    def flush_results(self) -> None:
        """As `flush`, for the main thread outside of user code, where no interrupt can hit."""
        with self._sending:
            self._send_all()

    def _send_all(self) -> None:
        outbox, send = self.outbox, self._channel.send
        finished: list[FinishedRow] = []
        # What goes later than this may be named by a result that is left only after we have looked.
        gone = self._held.gone() if self._held.changed else []
        while outbox:
            item = outbox.popleft()
            if type(item) is FinishedRow:
                finished.append(item)
                continue
            if finished:
                self._send_finished(finished)
                finished = []
            if type(item) is Made:
                self._tell(self._made(item))
            elif type(item) is Item:
                with ends_if_it_fails():
                    self._tell(item)
            elif type(item) is ActorMade:
                self._send_details((item.seq,))
                held = self._held.report_held()  # as with results: told no later
                send(encode(ActorMade(item.seq, held, item.concurrency, item.in_threads)))
            else:
                send(encode(item))
        if finished:
            self._send_finished(finished)
        if self._held.changed:
            refs = self._held.report(gone)
            if refs is not None:
                send(encode(refs))
        self.flushed_s = perf_counter()

    def tell_details(self, wait: bool) -> None:
        """Send what running rows have told since it was sent last, if it is time for that.

        Args:
            wait: False: leave it to the helper where it would take long.
        """
        if perf_counter() < self.details_due_s:
            return
        with self._shield():
            if not self._sending.acquire(blocking=wait):
                return
            try:
                if wait or self._channel.has_room():
                    self._send_details(tuple(self.details))
            finally:
                self._sending.release()

    def _send_details(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            details = self.details.pop(seq, None)
            if details is not None:
                self._channel.send(encode(Progressed(seq, details)))
                self.details_due_s = perf_counter() + _DETAILS_S

    def _send_finished(self, rows: list[FinishedRow]) -> None:
        if self.details:
            self._send_details([row.seq for row in rows])
        # A task's arguments are unpinned by its result: what it keeps is told no later.
        held = self._held.report_held() if self._held.changed else []
        try:
            self._tell(Finished(rows, held))
        except OSError as error:
            # No room for a memory file, no descriptor: each is told of alone, and what cannot be
            # handed over is its task's error.
            self._channel.send(encode(Finished([], held)))
            for row in rows:
                self._send_alone(row, error)

    def _send_alone(self, row: FinishedRow, error: OSError) -> None:
        try:
            self._tell(Finished([row]))
        except OSError:
            why = f"its result cannot be handed to the node: {error.strerror}"
            failure = Failure("TaskError", why)
            value = ValueRow(row.values[0].id[:TASK_BYTES], Outcome.FAILURE, failure=failure)
            self._channel.send(encode(Finished([FinishedRow(row.seq, (value,), row.duration_s)])))

    def _tell(self, packet: Finished | Submitted | Item) -> None:
        if self.filing is not None and self.filing.has_made:
            self._channel.send(*told(packet))
        else:
            self._channel.send(encode(packet))

    def _made(self, first: Made) -> Submitted:
        """Gather what follows of the same task in one packet."""
        packet = Submitted(first.parent, first.depth, [], [])
        item: Any = first
        while True:
            if item.kind is not None:
                packet.kinds.append(item.kind)
            if item.row is not None:
                packet.rows.append(item.row)
            if item.put is not None:
                packet.puts.append(item.put)
            following = self.outbox[0] if self.outbox else None
            if type(following) is not Made or following.parent != first.parent:
                return packet
            # A put may hold refs to calls of this packet, but calls may need it: puts come first.
            if following.put is not None and packet.rows:
                return packet
            item = self.outbox.popleft()

    # --------------------------------------------------------------------------------- receiving

    def next(self) -> Setup | Run | Exit:
        """Return the next packet for the idle main thread."""
        while not self.inbox:
            self._read(lambda: bool(self.inbox))
        return self.inbox.popleft()

    def has_next(self, timeout_s: float) -> bool:
        """Return whether there is such a packet, after some time if need be."""
        until_s = perf_counter() + timeout_s
        while True:
            # What is there is seen even when there is no time left to wait for it.
            left_s = max(0.0, until_s - perf_counter())
            if not self.inbox:
                self._read(lambda: bool(self.inbox), left_s)
            if self.inbox or not left_s:
                return bool(self.inbox)

    def wait_until_kept(self, number: int) -> None:
        """Wait until the checkpoint of that number is safe."""
        while self._kept < number:
            self._read(lambda: self._kept >= number)

    def request(
        self,
        make: Callable[[int], Want | Ask | CancelTasks],
        callback: Callback | None = None,
        lends: bool = False,
    ) -> Answered | None:
        """Send a request; return its answer, or with a callback None: that gets it later.

        In the main thread it may raise Interrupted instead; where the request lends CPUs, not
        before they are this task's own again.
        """
        with self._lock:
            self._requests = number = self._requests + 1
            self._expected[number] = callback
            self._callbacks += callback is not None
        self.outbox.append(make(number))
        self.flush()
        if callback is not None:
            self._listen()
            return None
        answers = self._answers
        try:
            try:
                while number not in answers:
                    self.look_here()
                    self._read(lambda: number in answers)
            except Interrupted:
                self._interruptible = False
                if lends:
                    self._give_up(number)
                raise
            return answers[number]
        finally:
            with self._lock:
                self._expected.pop(number, None)
                answers.pop(number, None)

    def sleep(self, wait: Callable[[], T]) -> T:
        """Let the main thread wait for something else, where it may be interrupted."""
        try:
            self._interruptible = True
            self.check_interrupt()
            return wait()
        finally:
            self._interruptible = False

    def _give_up(self, number: int) -> None:
        """Wait until the node has ended a request that lends CPUs; interrupts do nothing here."""
        answers = self._answers
        self._masked += 1
        try:
            self.outbox.append(WantOver(number))
            self.flush()
            while number not in answers:
                self._read(lambda: number in answers)
        finally:
            self._masked -= 1

    def _read(self, done: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Receive one packet for whoever it is, or wait while another thread does."""
        waiting = self._words[PHASE] in WAITS and threading.get_ident() == self._main
        with self._lock:
            if done():
                return
            mine = not self._reading
            if mine:
                self._reading = True
            else:
                self._sleepers += 1
                self._woken.wait(_LOOK_S if waiting else timeout_s)
                self._sleepers -= 1
        if mine:
            try:
                if waiting:
                    self._await_packet()
                elif timeout_s is not None:
                    self._await_until(timeout_s)
                self._receive(wait=not waiting and timeout_s is None)
            finally:
                with self._lock:
                    self._reading = False
                    if self._sleepers:
                        self._woken.notify_all()
        elif waiting and not self._masked:
            self.check_interrupt()

    def read_for_all(self) -> NoReturn:
        """Receive whatever comes, for ever: in a thread of its own."""
        while True:
            self._read(lambda: False)

    def _receive(self, wait: bool) -> None:
        packet = self._channel.receive(wait)
        if packet is not None:
            self._dispatch(whole(_decode, packet))

    def _await_until(self, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.poll(timeout_s * 1000.0)

    def _await_packet(self) -> None:
        """Wait until there is a packet; being interrupted loses nothing here."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        if self._masked:
            poll.poll()
            return
        try:
            self._interruptible = True
            self.check_interrupt()
            poll.poll()
        finally:
            self._interruptible = False

    def _dispatch(self, packet: ToWorker) -> None:
        if type(packet) is Answered:
            with self._lock:
                if packet.request not in self._expected:
                    return  # whoever asked was interrupted
                callback = self._expected[packet.request]
                if callback is None:
                    self._answers[packet.request] = packet
                    return
                del self._expected[packet.request]
                self._callbacks -= 1
                self._called.append((callback, packet))
        elif type(packet) is CheckpointKept:
            self._kept = packet.number
        elif type(packet) is Run and self._words[PHASE] in WAITS:
            self.while_waiting(packet)
        else:
            self.deliver(packet)

    def _listen(self) -> None:
        """Have somebody read for those who gave callbacks, while the main thread runs code."""
        with self._lock:
            if self._listening:
                return
            self._listening = True
        start_thread(self._listen_for_callbacks, "drumbeat-listener")

    def _listen_for_callbacks(self) -> None:
        called = self._called
        while True:
            while called:
                callback, answer = called.popleft()
                try:
                    callback(answer)
                except Exception:  # noqa: BLE001  # the user's; the other callbacks go on
                    traceback.print_exc()
            with self._lock:
                if not self._callbacks and not called:
                    self._listening = False
                    return
            self._read(lambda: bool(called) or not self._callbacks)


def _nothing() -> None:
    """Nothing is to be looked at: the main thread is told by a signal."""


def start_thread(target: Callable[[], None], name: str) -> None:
    """Start a thread that no signal is delivered to: signals belong to the main thread."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        threading.Thread(target=target, name=name, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def returned(rows: list[RunRow]) -> Returned:
    """Return the packet that gives these rows back unstarted."""
    return Returned([row.seq for row in rows])
