"""A cluster of real processes to be hurt: each is found by its kind, and replaced.

Never judges anything. It does what a service manager does (starts whatever has ended), and says
which process is what, so that a schedule can name its victims.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from drumbeat.scheduler.__main__ import parser as scheduler_flags
from support.process_table import alive, carrying, children_of, is_daemon, state_of, words_of

#: the variable whose value every process of the cluster inherits
MARK_VARIABLE = "NEMESIS_MARK"
#: the times of the product, at a tenth and less
QUICK: dict[str, Any] = {
    "heartbeat_interval_s": 0.1,
    "lost_after_intervals": 15.0,
    "connection_lost_s": 0.2,
    "client_grace_s": 1.0,
    "client_silence_s": 60.0,
    "recovery_wait_s": 1.0,
    "lease_margin_s": 0.2,
    "pulse_interval_s": 0.05,
    "reconnect_min_s": 0.02,
    "reconnect_max_s": 0.06,
    "handshake_timeout_s": 1.0,
    "cancel_grace_s": 0.5,
    "term_grace_s": 0.2,
    "retry_backoff_max_s": 0.5,
}
_PAUSE_S = 0.05
_START_S = 20.0


class Member:
    """A process that is started again whenever it has ended."""

    def __init__(self, name: str, command: Callable[[int], list[str]], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.life = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.due_s = 0.0
        #: exit codes that nobody else has caused
        self.failures: list[int] = []


class NemesisCluster:
    """See the module.

    Args:
        directory: for sockets, logs and what tasks write; short, since sockets lie in it.
        nodes: how many.
        cpus: of each.
        settings: what differs from the defaults.
    """

    def __init__(
        self, directory: Path, nodes: int, cpus: int, settings: dict[str, Any] | None = None
    ) -> None:
        self.directory = directory
        self.settings = dict(QUICK if settings is None else settings)
        self.mark = uuid.uuid4().hex
        self.shared_before = shared_memory()
        self._owner_read, self._owner_write = os.pipe()
        common = [
            "--directory", str(directory), "--owner-fd", str(self._owner_read),
            "--settings", json.dumps(self.settings),
        ]  # fmt: skip
        self.members = [Member("scheduler", self._scheduler(common), directory / "scheduler.log")]
        for number in range(1, nodes + 1):
            name = f"n{number}"
            command = [
                sys.executable, "-P", "-m", "drumbeat.node", *common,
                "--name", name, "--num-cpus", str(cpus),
            ]  # fmt: skip
            self.members.append(Member(name, lambda _, c=command: c, directory / f"{name}.log"))
        self.stopping = False

    def _scheduler(self, common: list[str]) -> Callable[[int], list[str]]:
        command = [sys.executable, "-P", "-m", "drumbeat.scheduler", *common]
        if "--state" in scheduler_flags().format_help():
            state = str(self.directory / "scheduler.state")
            return lambda _: [*command, "--state", state]
        return lambda life: [*command, "--epoch", str(life)]

    # ------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Start all; programs can connect when it returns."""
        self.wait(_START_S, (self.directory / "scheduler.sock").exists)

    def tend(self) -> None:
        """Start anew whatever has ended; to be called often."""
        for member in self.members:
            process = member.process
            if process is not None and process.poll() is not None:
                if process.returncode > 0 and not self.stopping:
                    member.failures.append(process.returncode)
                member.process = None
                member.due_s = time.monotonic() + _PAUSE_S
            if member.process is None and not self.stopping and time.monotonic() >= member.due_s:
                self._spawn(member)

    def _spawn(self, member: Member) -> None:
        member.life += 1
        with open(member.log, "ab") as log:
            member.process = subprocess.Popen(
                member.command(member.life),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[self._owner_read],
                start_new_session=True,
                cwd="/",
                env=self.environment(),
            )

    def environment(self) -> dict[str, str]:
        """Return what every process of the cluster, and every client, inherits."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DRUMBEAT_")}
        return {**kept, MARK_VARIABLE: self.mark}

    def wait(self, seconds: float, until: Callable[[], object] = bool) -> bool:
        """Tend for so long, or until it holds; say whether it does."""
        end_s = time.monotonic() + seconds
        while True:
            self.tend()
            if until():
                return True
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(0.01, left_s))

    def stop(self, kindly_s: float = 5.0) -> list[str]:
        """End all as the end of their owner does; return what is left, in words."""
        self.stopping = True
        for pid in carrying(self.mark):
            signal_to(pid, signal.SIGCONT)
        with contextlib.suppress(OSError):
            os.close(self._owner_write)
        end_s = time.monotonic() + kindly_s
        while time.monotonic() < end_s:
            for member in self.members:
                if member.process is not None:
                    member.process.poll()
            if not carrying(self.mark):
                break
            time.sleep(0.01)
        left = [words_of(pid) for pid in carrying(self.mark)]
        left += sorted(shared_memory() - self.shared_before)
        return left

    def close(self) -> None:
        """End with force whatever is left; for when something has gone wrong already."""
        self.stopping = True
        for _ in range(100):
            pids = carrying(self.mark)
            if not pids:
                break
            for pid in pids:
                signal_to(pid, signal.SIGKILL)
            time.sleep(0.02)
        for member in self.members:
            if member.process is not None:
                member.process.wait()
        for fd in (self._owner_read, self._owner_write):
            with contextlib.suppress(OSError):
                os.close(fd)

    # ------------------------------------------------------------------------------- who is who

    def pids(self, kind: str) -> list[int]:
        """Return the living processes of a kind, in an order of their own.

        Kinds: scheduler, keeper, daemon, template, worker.
        """
        if kind == "scheduler":
            return [p.pid for m in self.members[:1] if (p := m.process) is not None]
        keepers = [m.process.pid for m in self.members[1:] if m.process is not None]
        if kind == "keeper":
            return [pid for pid in keepers if alive(pid)]
        return [pid for keeper in keepers for pid in parts_of(keeper)[kind]]

    def hurt(self, kind: str, pick: int, number: int) -> int:
        """Send a signal to one of a kind; return its pid, 0 if there is none."""
        pids = self.pids(kind)
        if not pids:
            return 0
        pid = pids[pick % len(pids)]
        return pid if signal_to(pid, number) else 0

    def sizes(self, timeout_s: float = 5.0) -> dict[str, dict[str, Any]] | None:
        """Ask scheduler and daemons what they hold; None if one does not answer in time."""
        asked = [(member, member.log.stat().st_size) for member in self.members]
        pids = self.pids("scheduler") + self.pids("daemon")
        for pid in pids:
            signal_to(pid, signal.SIGUSR2)
        found: dict[str, dict[str, Any]] = {}

        def answered() -> bool:
            for member, offset in asked:
                with open(member.log, "rb") as file:
                    file.seek(offset)
                    for line in file.read().decode(errors="replace").splitlines():
                        head, word, rest = line.partition(" sizes ")
                        if word and rest.endswith("}"):
                            found[head.removeprefix("drumbeat ")] = json.loads(rest)
            return len(found) == len(self.members)

        return found if self.wait(timeout_s, answered) else None

    def logs(self) -> str:
        """Return the ends of all logs."""
        words = []
        for member in self.members:
            text = member.log.read_text(errors="replace") if member.log.exists() else ""
            words.append(f"--- {member.name} (life {member.life})\n{text[-3000:]}")
        return "\n".join(words)


def parts_of(keeper: int) -> dict[str, list[int]]:
    """Return what a keeper's children are."""
    found: dict[str, list[int]] = {"daemon": [], "template": [], "worker": []}
    for pid in children_of(keeper):
        try:
            session = os.getsid(pid)
        except OSError:
            continue
        if state_of(pid) in ("", "Z"):
            continue
        if session == pid:
            found["worker"].append(pid)
        elif session == os.getsid(keeper):
            found["daemon" if is_daemon(pid) else "template"].append(pid)
    return found


def shared_memory() -> set[str]:
    """Return the files of ours in the system's shared memory."""
    try:
        return {name for name in os.listdir("/dev/shm") if name.startswith("drumbeat")}
    except OSError:
        return set()


def signal_to(pid: int, number: int) -> bool:
    """Send a signal; say whether there was somebody."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
