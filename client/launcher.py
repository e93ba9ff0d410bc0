"""The processes of a local cluster: started together, restarted when they crash, ended.

Never uses SIGCHLD nor waits for processes it did not start: the program's own children are its own
affair. Each process has a session of its own, so a Ctrl-C does not reach it, and ends when the pipe
that this process holds open ends.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ..protocol.drain import EXIT_DRAINED
from ..protocol.errors import ConfigError, DrumbeatError, SchedulerUnreachable
from ..protocol.settings import Settings
from .addresses import without_secret
from .logs import LOOK_S as LOGS_LOOK_S
from .logs import keep_short, tail_of
from .runtime import STATE, Directory

CRASHES_MAX: Final = 3
CRASHES_WITHIN_S: Final = 60.0
#: signals by which a process ends through its own fault; by any other, somebody ended it
CRASH_SIGNALS: Final = frozenset(
    (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)
#: a process that ended is started again after so long; after each further end, 4 times as long
RESTART_S: Final = 0.02
RESTART_MAX_S: Final = 1.0
#: an end so long ago no longer delays a start
ENDS_WITHIN_S: Final = 5.0
#: where the system does not tell of a process's end, it is looked for this often
LOOK_S: Final = 0.2


class Member:
    """One process of the cluster and its history."""

    def __init__(self, name: str, module: str, arguments: list[str]) -> None:
        self.name = name
        self.module = module
        #: the flags of each of its lives
        self.arguments = arguments
        self.crashes: deque[float] = deque(maxlen=CRASHES_MAX)
        #: when it ended, through whatever
        self.ends: deque[float] = deque(maxlen=CRASHES_MAX)
        self.process: subprocess.Popen[bytes] | None = None
        #: readable when the process has ended; -1 where there is no such thing
        self.pidfd = -1
        self.due_s = 0.0
        #: a node that was drained: it does not come back
        self.is_drained = False


class Launcher:
    """See the module.

    Args:
        directory: the cluster's.
        settings: handed to all processes.
        nodes: name and flags of each node.
        failed: told, from a thread of its own, when the cluster is given up.
    """

    def __init__(
        self,
        directory: Directory,
        settings: Settings,
        nodes: Sequence[tuple[str, list[str]]],
        failed: Callable[[DrumbeatError], None],
    ) -> None:
        self.directory = directory
        self._failed = failed
        self._owner_read, self._owner_write = os.pipe()
        common = [
            "--directory", str(directory.path), "--owner-fd", str(self._owner_read),
            "--settings", json.dumps(settings.changed()),
        ]  # fmt: skip
        state = str(directory.path / STATE)
        self._members = [Member("scheduler", "drumbeat.scheduler", [*common, "--state", state])]
        for name, flags in nodes:
            arguments = [*common, "--name", name, *flags]
            self._members.append(Member(name, "drumbeat.node", arguments))
        self._lock = threading.Lock()
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._watch, name="drumbeat-launcher", daemon=True)
        _launchers.add(self)

    # -------------------------------------------------------------------------------- starting

    def start(self) -> None:
        """Start all processes at once, and watch over them."""
        for member in self._members:
            self._try_to_start(member)
        self._thread.start()

    def _try_to_start(self, member: Member) -> DrumbeatError | None:
        # The machine may be short of memory, processes or space for a moment.
        try:
            self._start(member)
        except OSError as error:
            return self._ended(member, f"when it could not be started: {error}", crashed=True)
        return None

    def _start(self, member: Member) -> None:
        executable = sys.executable
        if not executable:
            raise ConfigError("this Python does not know its own executable (sys.executable)")
        environ = environment()
        environ.pop("NOTIFY_SOCKET", None)  # this program's own: its cluster does not speak for it
        with open(self.log_of(member), "ab") as log:
            member.process = subprocess.Popen(
                [executable, "-P", "-m", member.module, *member.arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(self._owner_read,),
                start_new_session=True,
                env=environ,
                cwd="/",
            )
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                member.pidfd = os.pidfd_open(member.process.pid)

    def log_of(self, member: Member) -> Path:
        """Return the file that a process writes its log to."""
        return self.directory.path / f"{member.name}.log"

    def pids(self) -> dict[str, int]:
        """Return the process ids, by name."""
        # Looked at once each: the thread that watches may note its end at any moment.
        found = [(one.name, one.process) for one in self._members]
        return {name: process.pid for name, process in found if process is not None}

    def last_words(self) -> str:
        """Return the ends of all logs, for an error's text."""
        words = []
        for member in self._members:
            tail = tail_of(self.log_of(member))
            if tail:
                words.append(f"--- {member.name} wrote:\n{tail}")
        return "\n".join(words)

    # -------------------------------------------------------------------------------- watching

    def _watch(self) -> None:
        try:
            error = self._watch_until_given_up()
        except BaseException as reason:  # noqa: BLE001  # our bug: whoever waits must not wait on
            error = SchedulerUnreachable(
                "the local cluster is no longer watched over: "
                f"{type(reason).__name__}: {reason}\n{self.last_words()}"
            ).with_cause(reason)
        if error is not None and not self._stopping:
            self._failed(error)

    def _watch_until_given_up(self) -> DrumbeatError | None:
        while True:
            self._wait()
            with self._lock:
                if self._stopping:
                    return None
                error = next(filter(None, [self._look_at(one) for one in self._members]), None)
                for member in self._members:
                    keep_short(self.log_of(member))
            if error is not None:
                return error

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        timeout_s = LOGS_LOOK_S
        for member in self._members:
            if member.is_drained:
                continue
            if member.process is None:
                left = max(0.0, member.due_s - time.monotonic())
                timeout_s = min(timeout_s, left)
            elif member.pidfd >= 0:
                poll.register(member.pidfd, select.POLLIN)
            else:
                timeout_s = min(timeout_s, LOOK_S)
        poll.poll(timeout_s * 1000 + 1)

    def _look_at(self, member: Member) -> DrumbeatError | None:
        if member.process is None:
            is_due = time.monotonic() >= member.due_s and not member.is_drained
            return self._try_to_start(member) if is_due else None
        status = member.process.poll()
        if status is None:
            return None
        self._forget(member)
        if status == EXIT_DRAINED:
            member.is_drained = True
            return None
        return self._ended(member, f"with {words_for(status)}", crashed=is_crash(status))

    def _ended(self, member: Member, how: str, *, crashed: bool) -> DrumbeatError | None:
        """Have it started again; or return the error if that was one crash too many."""
        now_s = time.monotonic()
        if crashed:
            member.crashes.append(now_s)
            many = len(member.crashes) == CRASHES_MAX
            if many and now_s - member.crashes[0] < CRASHES_WITHIN_S:
                return SchedulerUnreachable(
                    f"the local cluster is given up: {member.name} crashed {CRASHES_MAX} times "
                    f"within {CRASHES_WITHIN_S:g} s, the last time {how}\n" + self.last_words()
                )
        earlier = sum(now_s - end_s < ENDS_WITHIN_S for end_s in member.ends)
        member.ends.append(now_s)
        member.due_s = now_s + min(RESTART_S * 4**earlier, RESTART_MAX_S)
        return None

    def _forget(self, member: Member) -> None:
        member.process = None
        if member.pidfd >= 0:
            os.close(member.pidfd)
            member.pidfd = -1

    # ---------------------------------------------------------------------------------- ending

    def stop(self, grace_s: float) -> None:
        """End all processes, kindly for `grace_s`; no process and no file is left."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        os.write(self._wake_write, b"x")
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(grace_s)
        os.close(self._owner_write)
        until = time.monotonic() + grace_s
        alive = [one.process for one in self._members if one.process is not None]
        for process in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.01, until - time.monotonic()))
        for process in alive:
            if process.poll() is None:
                process.kill()
                process.wait()
        for member in self._members:
            self._forget(member)
        for fd in (self._owner_read, self._wake_read, self._wake_write):
            os.close(fd)
        self.directory.remove()

    def let_go_in_fork(self) -> None:
        """In a forked child: keep nothing that would make the cluster outlive the parent."""
        if not self._stopping:
            self._stopping = True
            os.close(self._owner_write)
            self.directory.unlock()


_launchers: "weakref.WeakSet[Launcher]" = weakref.WeakSet()


def _after_fork() -> None:
    for launcher in list(_launchers):
        launcher.let_go_in_fork()


os.register_at_fork(after_in_child=_after_fork)


def environment() -> dict[str, str]:
    """Return the environment for a daemon: no secret, and a way to find this very package."""
    environ = without_secret(os.environ)
    environ.pop("PYTHONSTARTUP", None)
    environ.pop("PYTHONINSPECT", None)
    root = Path(__file__).parent.parent
    if root.name == "drumbeat" and root.parent.name not in ("site-packages", "dist-packages"):
        paths = [str(root.parent), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return environ


def is_crash(status: int) -> bool:
    """Return whether a process with this return code ended through a fault of its own.

    Not so when somebody ended it (kill, the system short of memory): it is started again however
    often that happens. A daemon that gets SIGTERM ends with exit code 0.
    """
    return status > 0 or -status in CRASH_SIGNALS


def words_for(status: int) -> str:
    """Return what a process's return code means."""
    return f"exit code {status}" if status >= 0 else f"signal {-status}"
