"""The loop around the client core: moves messages and results, turned by one thread.

Never decides anything about a task. Whoever holds the loop's lock turns it: the I/O thread, or a
thread that waits in get() and saves two handovers between threads by turning it itself. After such
a thread the I/O thread stands aside for a moment, since the next get() is likely to follow at once.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from ..protocol import clock, errors, machine
from ..protocol.errors import ClusterError, DrumbeatError, KeyRefused, SchedulerUnreachable
from ..protocol.messages import AnyMessage, Notice, ValueRow
from ..protocol.store import Store
from ..protocol.stowage import Stowage
from ..protocol.transport import (
    Blob,
    DialHappening,
    DialShell,
    Down,
    Message,
    Poller,
    Refused,
    Rejected,
    Unreachable,
    Up,
)
from . import events
from .absence import Absence
from .board import Board, Waiter
from .core import ClientCore
from .deferral import Deferral
from .events import Free, Received, Resolve, Send
from .inbox import Inbox, taken
from .looks import Looks
from .stock import placed

#: the I/O thread takes over when nobody has turned the loop for so long
ASIDE_S: Final = 0.003
#: it looks less often, down to this, while one get() follows the other: looking holds them up
ASIDE_MAX_S: Final = 0.012
#: a thread that waits for longer than this need not expect the next get() to follow at once
SETTLED_S: Final = 0.05
#: refs that went are told this late at most
IDLE_S: Final = 0.25
#: a thread that begins to wait looks for so long before it sleeps. Its processor does not go idle
#: meanwhile, and the others find one awake: on virtual machines, to wake an idle processor costs
#: more than the whole call. Longer than a call takes there when all sleep, 2 to 3 ms: else it would
#: never be found out that looking pays. Never where there is only one processor, and seldom while
#: it is in vain (looks.py): then others have need of it.
LOOK_S: Final = 0.005 if machine.cpu_count() > 1 else 0.0


log = logging.getLogger("drumbeat")


class Service:
    """See the module.

    Args:
        core: decides.
        board: where results go.
        inbox: where events of the program come from.
        dial: makes the connection; called in `start`.
        show: given Output, Notice and Shapes messages; must be quick.
        ended: told once, with the reason, when the loop has ended for good.
        absence: words for people while there is no scheduler.
        store: the memory segments of this client's values.
    """

    def __init__(
        self,
        core: ClientCore,
        board: Board,
        inbox: Inbox,
        dial: Callable[[], DialShell],
        show: Callable[[AnyMessage], None],
        ended: Callable[[DrumbeatError], None],
        absence: Absence,
        store: Store,
    ) -> None:
        self.core = core
        self._board = board
        self._inbox = inbox
        self._show = show
        self._ended = ended
        self._absence = absence
        self._store = store
        self._lock = threading.Lock()
        self._wake_fd: int = _spare_fds.pop() if _spare_fds else _new_fd()
        self._fd_is_ours = True
        self._stowage = Stowage(store, self.wake)
        self._shell = dial()
        self._shell.admits = self._stowage.admits
        self._poller = Poller()
        self._poller.add(self._wake_fd)
        self._shell.attach(self._poller)
        #: True while whoever turns the loop sleeps, or is about to
        self.sleeping = False
        self._stopping = False
        self._over = False
        #: a waiting thread found the I/O thread at the loop and would have turned it itself
        self._wished = False
        #: the thread that turns the loop
        self._holder = 0
        self._drives = 0
        self._driving = False
        self._settled = False
        self._looks = Looks(LOOK_S)
        self._back = threading.Event()
        self._main = threading.main_thread().ident
        self.connected = False
        #: why there is no connection, as far as that is known
        self.unreachable: Unreachable | None = None
        self._thread = threading.Thread(target=self._run, name="drumbeat-io", daemon=True)

    def start(self) -> None:
        """Start the I/O thread."""
        self._thread.start()

    def is_current_thread(self) -> bool:
        """Whether the I/O thread itself asks, which must never wait."""
        return threading.current_thread() is self._thread

    def has_news(self) -> bool:
        """Return whether something of the program's waits to be told."""
        return self._inbox.waits()

    def wake(self) -> None:
        """End the sleep of whoever turns the loop."""
        self.sleeping = False
        if not self._over:
            os.eventfd_write(self._wake_fd, 1)

    # --------------------------------------------------------------------- any thread: waiting

    def wait(self, waiter: Waiter, timeout_s: float | None) -> bool:
        """Wait until `waiter` is woken, turning the loop meanwhile if nobody else does."""
        if waiter.done:
            return True
        thread = threading.get_ident()
        if self._holder == thread:
            raise ClusterError(
                "this thread turns the loop of the session at this moment, so it cannot wait: a "
                "finalizer (__del__) must not call get() or wait()"
            )
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if not self._over and not self._lock.locked():
            if thread == self._main:
                with Deferral(self.wake) as deferral:
                    self._drive(waiter, until, deferral.caught, thread)
            else:
                self._drive(waiter, until, (), thread)
            if waiter.done:
                return True
        self._wished = True
        while not waiter.done:
            if self.sleeping:
                self.wake()
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            waiter.sleep(left)
        return True

    def _drive(
        self, waiter: Waiter, until: float | None, caught: Sequence[object], thread: int
    ) -> None:
        if not self._lock.acquire(blocking=False):
            return
        self._holder = thread
        self._driving = True
        self._drives += 1
        self._settled = self.sleeping = False
        try:
            begun = time.monotonic()
            look_s = self._looks.grant()
            # What has come is received after the poll, which returns at once if there is something.
            self._guarded_turn(receive=False)
            while not waiter.done and not self._over and not caught:
                now = time.monotonic()
                if until is not None and now >= until:
                    return
                self._settled = now - begun > SETTLED_S
                timeout_s = IDLE_S if self._settled else SETTLED_S
                self._poll(timeout_s if until is None else min(timeout_s, until - now), look_s)
                if look_s:
                    self._looks.told(paid=not self._poller.slept)
                    look_s = 0.0
                self._guarded_turn()
        finally:
            self.sleeping = False
            settled = self._settled
            self._settled = self._driving = False
            self._holder = 0
            self._lock.release()
            if settled or self._stopping or self._board.somebody_waits():
                self._back.set()

    # --------------------------------------------------------------------------- the I/O thread

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # signals go to the threads of the program, so that Ctrl-C ends their sleep at once
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._over:
            if self._lock.acquire(blocking=False):
                self._holder = threading.get_ident()
                try:
                    self._turn_until_wished()
                finally:
                    self._holder = 0
                    self._lock.release()
            self._stand_aside()

    def _turn_until_wished(self) -> None:
        while True:
            self._guarded_turn()
            if self._over:
                return
            if self._wished and not self._stopping and not self._board.somebody_waits():
                self._wished = False
                return
            self._poll(IDLE_S)

    def _stand_aside(self) -> None:
        aside_s = ASIDE_S
        while not self._over and not self._stopping:
            self._back.clear()
            drives = self._drives
            if self._back.wait(None if self._settled else aside_s):
                return
            drives = self._drives - drives
            if not self._driving and not drives:
                return
            aside_s = min(2 * aside_s, ASIDE_MAX_S) if drives > 1 else ASIDE_S

    # ------------------------------------------------------------------------- turning the loop

    def _guarded_turn(self, *, receive: bool = True) -> None:
        """Turn once. An exception is our bug: everybody who waits is told, nobody waits on."""
        try:
            self._turn(receive)
        except BaseException as error:
            story = "; ".join(f"{when:.3f} {what}" for when, what in list(self.core.story)[-10:])
            reason = SchedulerUnreachable(
                f"the client's loop failed: {type(error).__name__}: {error} (before it: {story})"
            )
            self._end(reason.with_cause(error))
            if not isinstance(error, Exception):
                raise

    def _poll(self, timeout_s: float, look_s: float = 0.0) -> None:
        deadline_s = self._shell.deadline_s()
        if deadline_s is not None:
            timeout_s = min(timeout_s, deadline_s - clock.now_s())
        self.sleeping = True
        if self._inbox.waits() or self._stopping or timeout_s <= 0:
            timeout_s = 0.0
        ready = self._poller.wait(timeout_s, look_s)
        self.sleeping = False
        if self._wake_fd in ready:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake_fd)

    def _turn(self, receive: bool) -> None:
        if self._over:
            return
        now_s = clock.now_s()
        core, shell = self.core, self._shell
        told = False
        for happening in shell.turn(now_s) if receive else ():
            told = True
            if type(happening) is Message:
                core.handle(Received(happening.message), now_s)
            else:
                self._take(happening, now_s)
        if not self.connected and not self._stopping:
            self._notice(self._absence.words(now_s))
        if self._inbox.waits():
            told = True
            self._empty_inbox(now_s)
        if told:
            for command in core.turn(now_s):
                self._do(command)
        if not self._over:
            shell.flush(now_s)
        self._store.trim()
        if receive:
            self._tell_room(now_s)
        if self._board.conditions:
            self._board.look_at_conditions()
        if self._stopping and not self._over:
            self._say_goodbye(now_s)

    def _tell_room(self, now_s: float) -> None:
        fullness = self._stowage.turn()
        if fullness is not None or self.core.home.fullness is not None:
            self.core.handle(events.RoomLeft(fullness), now_s)

    def _take(self, happening: DialHappening, now_s: float) -> None:
        match happening:
            case Blob():
                self.core.handle(events.BlobReceived(happening.key, happening.payload), now_s)
            case Up():
                self.connected = True
                self.unreachable = None
                self._notice(self._absence.back(now_s))
                self.core.handle(events.Connected(happening.epoch, happening.resumed), now_s)
            case Down():
                self.connected = False
                self._absence.gone(now_s)
                self.core.handle(events.Disconnected(), now_s)
            case Unreachable():
                self.unreachable = happening
                if happening.error != KeyRefused.__name__:  # who is refused waits no longer
                    self._absence.because(happening.reason)
                log.info("no connection to the scheduler: %s", happening.reason)
            case Refused():
                self._end(error_named(happening.error, happening.reason))
            case Rejected():
                log.warning("a message from the scheduler was dropped: %s", happening.reason)

    def _notice(self, text: str) -> None:
        if text:
            self._show(Notice(text))

    def _do(self, command: events.Command) -> None:
        kind = type(command)
        if self._over:
            pass
        elif kind is Send:
            self._shell.send(command.message)  # type: ignore[union-attr]
        elif kind is Resolve:
            for callback, row in self._board.resolve(command.rows):  # type: ignore[union-attr,arg-type]
                callback(row)
        elif kind is Free:
            self._board.free(command.ids)  # type: ignore[union-attr]
            self._stowage.free(command.ids)  # type: ignore[union-attr]
        else:
            self._do_rare(command)

    def _do_rare(self, command: events.Command) -> None:
        match command:
            case events.Stow():
                self._stowage.keep(command.rows)
            case events.SendBlob():
                self._shell.send_blob(command.key, command.payload, command.id)
            case events.SendSegment():
                data = self._store.read_out(command.id)
                if data is not None:  # else the session is being closed
                    self._shell.send_blob(command.id, data, command.id)
            case events.TellStock():
                self._shell.send(placed(command.message, self._store.is_spilled))
            case events.Reply():
                self._board.reply(command.request, command.data)
            case events.Print() | events.ShapesKnown():
                self._show(command.message)

    def _empty_inbox(self, now_s: float) -> None:
        # Taken in the opposite order of being filled: whatever an entry taken here presupposes (the
        # call behind a ref, the ref behind a wait) is taken after it, and told to the core before.
        inbox, handle = self._inbox, self.core.handle
        reads = taken(inbox.reads) if inbox.reads else None
        asked = taken(inbox.asked) if inbox.asked else None
        cancels = taken(inbox.cancels) if inbox.cancels else None
        awaited = taken(inbox.awaited) if inbox.awaited else None
        dropped = taken(inbox.kinds_dropped) if inbox.kinds_dropped else None
        refs = taken(inbox.refs) if inbox.refs else None
        pins = taken(inbox.pins) if inbox.pins else None
        # a kind is left before the first call that names it
        calls = taken(inbox.calls) if inbox.calls else []
        kinds = taken(inbox.kinds) if inbox.kinds else []
        if calls or kinds:
            self._submit(kinds, calls, now_s)
        if pins:
            handle(events.Pinned(pins), now_s)
        if refs:
            handle(events.RefsChanged(refs), now_s)
        if dropped:
            handle(events.KindsDropped(dropped), now_s)
        if awaited:
            for ids in awaited:
                handle(events.Awaited(ids), now_s)
        if cancels or asked:
            for event in (*(cancels or ()), *(asked or ())):
                handle(event, now_s)
        if reads:
            handle(events.ItemsRead(reads), now_s)

    def _submit(self, kinds: list[Any], calls: list[Any], now_s: float) -> None:
        handle = self.core.handle
        if ValueRow not in map(type, calls):
            handle(events.Submitted(kinds, calls), now_s)
            return
        some: list[events.Call] = []
        for item in calls:
            if type(item) is ValueRow:
                handle(events.Submitted(kinds, some), now_s)
                handle(events.Put([item]), now_s)
                kinds, some = [], []
            else:
                some.append(item)
        handle(events.Submitted(kinds, some), now_s)

    # ---------------------------------------------------------------------------------- the end

    def __del__(self) -> None:
        # not sooner: a thread that is about to write must not meet another's descriptor
        if self._fd_is_ours:
            os.close(self._wake_fd)

    def _pass_on_fd(self) -> None:
        """Leave the descriptor to the next service: a late write there does no harm."""
        # With the loop over and nobody at it, nobody reads from it any more.
        if self._over and self._fd_is_ours and self._lock.acquire(blocking=False):
            self._fd_is_ours = False
            self._lock.release()
            _spare_fds.append(self._wake_fd)

    def stop(self, timeout_s: float) -> None:
        """Tell the scheduler that this client leaves, and end; called once, from any thread."""
        self._stopping = True
        self._back.set()
        self.wake()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._pass_on_fd()

    def _say_goodbye(self, now_s: float) -> None:
        if self._inbox.refs:  # what went while this turn was under way: nobody takes it later
            self.core.handle(events.RefsChanged(taken(self._inbox.refs)), now_s)
        self.core.handle(events.Leaving(), now_s)
        for command in self.core.turn(now_s):
            if type(command) is Send or type(command) is Free:
                self._do(command)
        self._shell.flush(now_s)
        self._board.free(self.core.home.leave())
        self._end(None)

    @property
    def over(self) -> bool:
        """Whether the loop has ended: nobody takes anything from the inbox any more."""
        return self._over

    def let_go_in_fork(self) -> None:
        """In a forked child: connection and memory are the parent's, and end with it."""
        self._shell.let_go_in_fork()
        self._store.close()

    def let_go(self) -> None:
        """Let go of values whose refs went when the loop was over. Any thread, amid anything."""
        home = self.core.home
        home.change_refs(taken(self._inbox.refs))
        freed, home.freed = home.freed, []
        self._board.free(freed)
        for id_ in freed:
            self._store.pop(id_)
        self._stowage.forget(freed)

    def fail(self, error: DrumbeatError) -> None:
        """End because of something outside: the cluster's processes will not run."""
        self._ended(error)
        self.stop(1.0)

    def _end(self, error: DrumbeatError | None) -> None:
        if self._over:
            return
        self._over = True
        self.connected = False
        self._store.keep_none_warm()
        try:
            self._shell.close(0.2)
        finally:
            if error is not None:
                self._ended(error)


def _new_fd() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


#: descriptors of services that have ended, for those to come
_spare_fds: list[int] = []
# the parent's services may come to use them
os.register_at_fork(after_in_child=_spare_fds.clear)


def error_named(name: str, text: str) -> DrumbeatError:
    """Return the error of a class in protocol.errors."""
    found = getattr(errors, name, SchedulerUnreachable)
    if not (isinstance(found, type) and issubclass(found, DrumbeatError)):
        found = SchedulerUnreachable
    return found(text)
