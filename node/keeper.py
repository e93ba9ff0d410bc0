"""The keeper: parent of all processes of a node. It starts them, watches them, ends them.

Never decides about work, never has a second thread, never loads ZeroMQ: nothing in it can hang. It
adopts every orphan below it, so nothing that a task started outlives what it belongs to.

What it is told, by packets of plain text: by the template `born TICKET PID`, `failed TICKET
REASON`, `preload TEXT`; by the daemon `signal PID NUMBER`, `group PID NUMBER`, `lease PID 0`,
`refused REASON`, `drains`. What it tells the daemon: the first three, `notice TEXT`, `exited PID
STATUS`, `overdue PID`, `stop TIMES`, and `template` (with the link to a new template).

Leased processes are actors. It kills them when their daemon's lease in the pulse page ends: the
daemon may stand still, and the scheduler counts on it.

A process that a task started in a session of its own lives no longer than its parent: the keeper
ends it as soon as it is an orphan. When the keeper itself is killed the kernel ends the workers,
and the template, or else the daemon, sweeps up the rest. What cannot hold then: docs/decisions.md.
"""

import contextlib
import faulthandler
import gc
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

from ..protocol import clock
from ..protocol.drain import EXIT_DRAINED
from ..protocol.lines import say
from ..protocol.machine import give_back_memory
from ..protocol.notify import ServiceManager
from ..protocol.settings import Settings
from . import kernel
from .channel import Channel, ClosedError, channel_pair, ready_of, texts_of
from .house import House
from .ladder import Ladder, Step
from .page import PulsePage
from .reaper import Reaper
from .restarts import CRASHES_MAX, CRASHES_WITHIN_S, Refusals, Restarts, ending
from .safe import Safe
from .sweep import Sweeper
from .template import Template
from .watch import DaemonWatch

#: exit code of a daemon or keeper that found a bug of its own
EXIT_BUG: Final = 70
#: exit code of a daemon that the cluster will not have as it is: another one tries later
EXIT_REFUSED: Final = 75
#: exit code of a node whose next daemon would not know where the scheduler is
EXIT_NO_ADDRESS: Final = 69
REFUSED_PAUSE_S: Final = 5.0
_TICK_S: Final = 1.0
_END_S: Final = 10.0
_NOTICES_MAX: Final = 16


def run(
    daemon_main: Callable[[House], int | None],
    settings: Settings,
    *,
    preload: Sequence[str] = (),
    owner_fd: int | None = None,
    safe: Safe | None = None,
) -> int:
    """Keep a node until its daemon stops cleanly, its owner ends or TERM comes.

    Args:
        daemon_main: called in each new daemon process; returns its exit code, 0: a clean stop.
        settings: of the node.
        preload: names of modules that the template imports.
        owner_fd: a pipe or socket; its end of file is the end of the node.
        safe: what daemons ask it for is for them only.

    Returns:
        The exit code: 0, EXIT_BUG when the daemon failed over and over, EXIT_DRAINED,
        EXIT_NO_ADDRESS.
    """
    return Keeper(daemon_main, settings, preload, owner_fd, safe).run()


class Keeper:
    """See the module."""

    def __init__(
        self,
        daemon_main: Callable[[House], int | None],
        settings: Settings,
        preload: Sequence[str] = (),
        owner_fd: int | None = None,
        safe: Safe | None = None,
    ) -> None:
        self._daemon_main = daemon_main
        self._settings = settings
        self._preload = tuple(preload)
        self._owner_fd, self._safe = owner_fd, safe
        self._safe_pid = 0 if safe is None else safe.pid
        self._pid = os.getpid()
        self._mark = f"{self._pid}-{os.urandom(8).hex()}"
        # What is no mere fork of this process can share memory by a descriptor only.
        self._spawns = kernel.spawns(settings.worker_start)
        self._page = PulsePage(
            kernel.memory_file(settings.memory_files, "drumbeat-page") if self._spawns else None
        )
        self._lifeline, self._life = os.pipe()
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._waker, False)
        self._workers: dict[int, int] = {}  # pid -> ticket
        self._template: Channel | None = None
        self._template_pid = 0
        self._template_ends = Restarts()
        self._template_due: float | None = None
        self._daemon: Channel | None = None
        self._daemon_pid = 0
        self._daemon_ends, self._daemon_bugs = Restarts(), Restarts()
        self._refusals = Refusals()
        self._daemon_due: float | None = None
        self._notices: deque[str] = deque(maxlen=_NOTICES_MAX)
        self._manager = ServiceManager.of_environment()
        self._watch = DaemonWatch(settings, _TICK_S, self._manager.alive)
        # Without a cluster file scheduler and node are on one machine.
        self._reaper = Reaper(sleeps_along=safe is None)
        self._ladder = Ladder(owner_fd is not None, settings.exit_grace_s)
        #: the daemon has said that the node is drained
        self._drains = False
        self._exit_code: int | None = None

    # ------------------------------------------------------------------------------------ loop

    def run(self) -> int:
        """Keep the node; return the exit code."""
        kernel.name_process("keeper")
        if not kernel.adopt_orphans():
            text = "this system leaves orphans to others: they may outlive a task"
            self._notices.append(f"notice {text}")
        previous = signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        handlers = {
            number: signal.signal(number, handler)
            for number, handler in (
                (signal.SIGCHLD, _nothing),
                (signal.SIGTERM, self._on_term),
                (signal.SIGINT, self._on_term),
            )
        }
        give_back_memory()
        # The collector of a fork leaves these objects alone, so their memory stays shared.
        gc.freeze()
        try:
            self._start_template()
            self._start_daemon()
            while self._exit_code is None:
                self._turn()
        finally:
            self._end_everything()
            signal.set_wakeup_fd(previous)
            for number, before in handlers.items():
                signal.signal(number, before)
            for fd in (self._lifeline, self._life, self._wake, self._waker):
                os.close(fd)
        return self._exit_code

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        self._ladder.terms += 1

    def _turn(self) -> None:
        fds = [self._wake] if self._owner_fd is None else [self._wake, self._owner_fd]
        ready = ready_of(fds, (self._template, self._daemon), self._pause_s())
        now_s = time.monotonic()
        if self._wake in ready:
            kernel.empty(self._wake)
        self._hear_template()
        self._hear_daemon()
        self._reap()
        self._end_orphans()
        if self._owner_fd in ready and not os.read(self._owner_fd or 0, 4096):
            self._exit_code = 0
        self._stop(now_s)
        self._restart(now_s)
        self._end_overdue(now_s)
        stopped = kernel.process_state(self._daemon_pid) in ("T", "t")
        verdict = self._watch.verdict(self._page.beats(), now_s, stopped)
        if verdict:
            say(f"drumbeat node: the daemon's loop does not turn: {verdict}")
            kernel.signal_to(self._daemon_pid, signal.Signals[verdict])

    def _pause_s(self) -> float:
        due = [
            at
            for at in (self._template_due, self._daemon_due, self._ladder.due_s)
            if at is not None
        ]
        now_s = time.monotonic()
        lease_s = self._reaper.left_s(clock.now_s(), now_s)
        return max(0.0, min([_TICK_S, lease_s, *(at - now_s for at in due)]))

    def _stop(self, now_s: float) -> None:
        match self._ladder.step(now_s, bool(self._daemon_pid)):
            case Step.LEAVE:
                self._manager.stopping()
                kernel.signal_to(self._daemon_pid, signal.SIGTERM)
            case Step.DRAIN:
                self._manager.stopping()
                say("drumbeat node: is drained; TERM again ends what runs here, a third one kills")
                self._tell_daemon("stop 1")
            case Step.HURRY:
                self._tell_daemon("stop 2")
            case Step.END:
                self._exit_code = 0

    def _restart(self, now_s: float) -> None:
        if self._exit_code is not None:
            return
        if self._template_due is not None and now_s >= self._template_due:
            self._start_template()
            self._introduce()
        if self._daemon_due is not None and now_s >= self._daemon_due:
            self._start_daemon()

    # --------------------------------------------------------------------------------- starting

    def _start_template(self) -> None:
        self._template_due = None
        settings = self._settings
        mine, theirs = channel_pair(settings.socket_kind, settings.memory_files)
        kernel.flush_output()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                kernel.name_process("template")
                self._leave(mine)
                if self._safe is not None:
                    self._safe.close()
                Template(
                    theirs, self._page, self._lifeline, self._pid, self._mark,
                    settings.pulse_interval_s, settings.memory_files, self._spawns,
                ).run(self._preload)  # fmt: skip
            except BaseException:  # noqa: BLE001  # reported, and the process ends
                traceback.print_exc()
            finally:
                os._exit(status)
        theirs.close()
        self._template, self._template_pid = mine, pid
        for worker in self._workers:
            self._tell_template(f"alive {worker}")

    def _start_daemon(self) -> None:
        self._daemon_due = None
        settings = self._settings
        mine, theirs = channel_pair(settings.socket_kind, settings.memory_files)
        kernel.flush_output()
        pid = os.fork()
        if not pid:
            status, workers = EXIT_BUG, dict[int, Any]()
            sweeper = Sweeper(self._pid, self._mark, self._lifeline, workers)
            try:
                kernel.name_process("daemon")
                self._leave(mine)
                # TERM, not KILL: it may have to end what the tasks have started; from now on, since
                # to import what it needs takes it seconds where others are busy.
                signal.signal(signal.SIGTERM, sweeper.told_to_end)
                kernel.die_with_parent(self._pid, signal.SIGTERM)
                faulthandler.enable()
                house = self._house(theirs, workers)
                status = self._daemon_main(house) or 0
            except SystemExit as error:
                status = error.code if isinstance(error.code, int) else 1 if error.code else 0
            except BaseException:  # noqa: BLE001  # reported, and the process ends
                traceback.print_exc()
            try:
                kernel.flush_output()
                # Whoever ends with an error may have seen the keeper's end before it was complete.
                sweeper.sweep_if_alone(0.1 if status else 0.0)
            finally:
                os._exit(status)
        theirs.close()
        self._daemon, self._daemon_pid = mine, pid
        self._watch.begin(self._page.beats(), time.monotonic())
        for text in self._notices:
            self._tell_daemon(text)
        self._introduce()

    def _house(self, theirs: Channel, workers: dict[int, Any]) -> House:
        page, owned = self._page, self._ladder.is_owned
        lifeline, settings = self._lifeline, self._settings
        hushed = self._refusals.is_recent(time.monotonic())
        return House(
            theirs, page, lifeline, self._pid, self._mark, settings, workers, not owned, hushed
        )

    def _leave(self, mine: Channel) -> None:
        """In a new child: give up all that is the keeper's own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for fd in (self._life, self._wake, self._waker):
            os.close(fd)
        if self._owner_fd is not None and self._owner_fd > 2:
            os.close(self._owner_fd)
        for link in (mine, self._template, self._daemon):
            if link is not None:
                link.close()

    def _introduce(self) -> None:
        """Join template and daemon by a link of their own."""
        if self._template is None or self._daemon is None:
            return
        ends = kernel.socket_pair(self._settings.socket_kind)
        self._tell_template("daemon", ends[0].fileno())
        self._tell_daemon("template", ends[1].fileno())
        for end in ends:
            end.close()

    # ------------------------------------------------------------------------------------ links

    def _tell_template(self, text: str, *fds: int) -> None:
        if self._template is not None:
            with contextlib.suppress(ClosedError):  # its end is reaped in a moment
                self._template.post(text.encode(), fds)

    def _tell_daemon(self, text: str, *fds: int) -> None:
        if self._daemon is not None:
            with contextlib.suppress(ClosedError):  # its end is reaped in a moment
                self._daemon.post(text.encode(), fds)

    def _hear_template(self) -> None:
        for text in texts_of(self._template):
            word, _, rest = text.partition(" ")
            if word == "born":
                ticket, pid = map(int, rest.split(" "))
                self._workers[pid] = ticket
                self._tell_template(f"alive {pid}")
            elif word == "preload" and text not in self._notices:
                self._notices.append(text)
            self._tell_daemon(text)

    def _hear_daemon(self) -> None:
        for text in texts_of(self._daemon):
            if text == "drains":
                self._drains = True
                continue
            if text.startswith("refused "):
                self._refusals.refused(text.removeprefix("refused "), time.monotonic())
                continue
            word, pid, number = text.split(" ")
            # Known means not reaped: the number cannot belong to anybody else yet.
            if int(pid) not in self._workers:
                continue
            if word == "lease":
                self._reaper.lease(int(pid))
            else:
                (kernel.signal_group if word == "group" else kernel.signal_to)(
                    int(pid), int(number)
                )

    # ------------------------------------------------------------------------------------ deaths

    def _reap(self) -> None:
        while True:
            try:
                # Look first: while the leader is a zombie, its group's number is still its own.
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if seen is None:
                return
            pid = seen.si_pid
            if pid not in self._workers and pid not in (self._template_pid, self._daemon_pid):
                self._hear_template()
            if pid in self._workers:
                kernel.signal_group(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            self._ended(pid, os.waitstatus_to_exitcode(status))

    def _ended(self, pid: int, status: int) -> None:
        if pid == self._template_pid:
            self._template_ended(status)
        elif pid == self._daemon_pid:
            self._daemon_ended(status)
        elif pid == self._safe_pid:
            self._safe_pid = 0
        elif self._workers.pop(pid, None) is not None:
            self._reaper.gone(pid)
            self._tell_daemon(f"exited {pid} {status}")
            self._tell_template(f"gone {pid}")

    def _template_ended(self, status: int) -> None:
        self._hear_template()
        if self._template is not None:
            self._template.close()
        self._template, self._template_pid = None, 0
        if self._ladder.terms or self._exit_code is not None:
            return
        now_s = time.monotonic()
        self._template_due = now_s + self._template_ends.ended(now_s)
        text = f"the template ended ({ending(status)}) and is started again"
        self._tell_daemon(f"notice {text}")

    def _daemon_ended(self, status: int) -> None:
        self._hear_daemon()
        if self._daemon is not None:
            self._daemon.close()
        self._daemon, self._daemon_pid = None, 0
        self._watch.end()
        self._reaper.begin()
        self._page.lease(0.0)
        if self._exit_code is not None:
            return
        if status == 0 or self._ladder.terms or self._drains:
            # What a drained node's daemon had is gone with it, and it is to have nothing new.
            self._exit_code = EXIT_DRAINED if self._drains and self._ladder.is_owned else 0
            if status:
                say(f"drumbeat node: the daemon ended ({ending(status)}); none takes its place")
            return
        if status == EXIT_NO_ADDRESS:
            self._exit_code = status
            return
        self._end_workers()
        now_s = time.monotonic()
        if status == EXIT_REFUSED:
            self._daemon_due = now_s + REFUSED_PAUSE_S
            return
        say(f"drumbeat node: the daemon ended ({ending(status)})")
        if status > 0:
            self._daemon_bugs.ended(now_s)
            if self._daemon_bugs.too_many:
                within = f"within {CRASHES_WITHIN_S:.0f} s"
                say(f"drumbeat node: {CRASHES_MAX} times {within}; this node stops for good")
                self._exit_code = EXIT_BUG
                return
        self._daemon_due = now_s + self._daemon_ends.ended(now_s)

    def _end_overdue(self, now_s: float) -> None:
        """Kill the actors whose time is up."""
        overdue = self._reaper.overdue(self._page.lease_until_s(), clock.now_s(), now_s)
        if overdue:
            say(f"drumbeat node: the lease has ended; its {len(overdue)} actors are killed")
        for pid in overdue:
            self._tell_daemon(f"overdue {pid}")
            kernel.signal_group(pid, signal.SIGKILL)

    def _end_orphans(self) -> bool:
        """End each child that is none of ours and in no worker's group; say if there was one."""
        known = (self._template_pid, self._daemon_pid, self._safe_pid)
        strangers = [
            pid
            for pid in kernel.children(self._pid)
            if pid not in self._workers and pid not in known
        ]
        if not strangers:
            return False
        # A worker is named before it is adopted: what is unnamed now is no worker.
        self._hear_template()
        found = False
        for pid in strangers:
            if pid in self._workers:
                continue
            try:
                group = os.getpgid(pid)
            except ProcessLookupError:
                continue
            if group in self._workers:
                continue
            found = True
            (kernel.signal_group if group == pid else kernel.signal_to)(pid, signal.SIGKILL)
        return found

    def _end_workers(self) -> None:
        """End all workers and whatever they started; template and daemon stay as they are."""
        until_s = time.monotonic() + _END_S
        while time.monotonic() < until_s:
            self._hear_template()
            for pid in self._workers:
                kernel.signal_group(pid, signal.SIGKILL)
            self._reap()
            if not self._end_orphans() and not self._workers:
                return
            time.sleep(0.002)

    def _end_everything(self) -> None:
        self._exit_code = self._exit_code or 0
        for pid in (self._daemon_pid, self._template_pid, self._safe_pid):
            kernel.signal_to(pid, signal.SIGKILL)
        until_s = time.monotonic() + _END_S
        while (
            self._daemon_pid or self._template_pid or self._safe_pid
        ) and time.monotonic() < until_s:
            self._reap()
            time.sleep(0.001)
        self._end_workers()
        self._reap()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Take a signal, so that it wakes the loop."""
