"""A cluster over a network that can be hurt: each of its processes on its own host.

Never judges anything. The commands are those that a user would type; the times of the product are
settings, handed to all processes by their environment.
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

from drumbeat.protocol.settings import environment_name
from nemesis.cluster import MARK_VARIABLE, Member, NemesisCluster, shared_memory, signal_to
from network.hosts import Host, Network
from network.links import Links
from support.process_table import carrying, words_of

HERE = Path(__file__).resolve().parent
DRUMBEAT = str(Path(sys.executable).with_name("drumbeat"))
PORT = 7788
#: the hosts; nodes have the names of theirs, and a program may also run beside the scheduler
SCHEDULER, CLIENT, NODES = "scheduler", "client", ("n1", "n2")
_START_S = 30.0


class Program:
    """A script of this directory, on one of the hosts."""

    def __init__(
        self, cluster: "NetworkCluster", directory: Path, host: Host, script: str, *words: object
    ) -> None:
        self.name = str(words[0])
        self.directory = directory
        self.log = directory / f"{self.name}.log"
        command = [
            sys.executable, str(HERE / script), str(directory), str(cluster.client_file),
            *map(str, words),
        ]  # fmt: skip
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                host.command(*command),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=True, env=cluster.environment(),
            )  # fmt: skip

    def is_ready(self) -> bool:
        """Return whether it has connected and has submitted all that it will."""
        return (self.directory / f"{self.name}.ready").exists()

    def has_ended(self) -> bool:
        """Return whether it is over."""
        return self.process.poll() is not None

    def told(self) -> dict[str, Any] | None:
        """Return what it says that it saw; None if it did not get so far."""
        path = self.directory / f"{self.name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


class NetworkCluster(NemesisCluster):
    """See the module.

    Args:
        directory: for keys, logs and what tasks write.
        cpus: of each node.
        settings: what differs from the defaults.
    """

    def __init__(self, directory: Path, cpus: int, settings: dict[str, Any]) -> None:
        self.directory = directory
        self.settings = settings
        self.mark = uuid.uuid4().hex
        self.shared_before = shared_memory()
        self.stopping = False
        self.network = Network([SCHEDULER, *NODES, CLIENT])
        self.links = Links(self.network)
        keys = directory / "keys"
        self.client_file = keys / "client.cluster"
        address = f"{self.network[SCHEDULER].address}:{PORT}"
        serve = ["scheduler", "--directory", str(keys), "--listen", address, "--advertise", address]
        self.members = [self._member(SCHEDULER, serve)]
        for name in NODES:
            node = ["node", "--cluster", str(keys / "node.cluster"), "--name", name]
            self.members.append(self._member(name, [*node, "--num-cpus", str(cpus)]))
        self.programs: list[Program] = []

    def _member(self, name: str, words: list[str]) -> Member:
        command = self.network[name].command(DRUMBEAT, *words)
        return Member(name, lambda _life: command, self.directory / f"{name}.log")

    def environment(self) -> dict[str, str]:
        """Return what every process of the cluster inherits."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("DRUMBEAT_")}
        times = {environment_name(name): str(value) for name, value in self.settings.items()}
        return {**kept, **times, MARK_VARIABLE: self.mark}

    def _spawn(self, member: Member) -> None:
        member.life += 1
        with open(member.log, "ab") as log:
            member.process = subprocess.Popen(
                member.command(member.life),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd="/", env=self.environment(),
            )  # fmt: skip

    def logs(self) -> str:
        """Return the ends of all logs, without what was asked for by a signal."""
        words = []
        for member in self.members:
            text = member.log.read_text(errors="replace") if member.log.exists() else ""
            told = [line for line in text.splitlines() if " sizes {" not in line]
            words.append("\n".join([f"--- {member.name}", *told[-40:]]))
        return "\n".join(words)

    # ------------------------------------------------------------------------------------ life

    def start(self) -> None:
        """Start scheduler and nodes; programs can connect when it returns."""
        self._spawn(self.members[0])
        self.wait(_START_S, lambda: self.client_file.exists() or self.members[0].failures)
        if not self.client_file.exists():
            raise RuntimeError(f"the scheduler did not come up:\n{self.logs()}")
        for member in self.members[1:]:
            self._spawn(member)

    def run(self, directory: Path, host: str, script: str, *words: object) -> Program:
        """Start a program on a host; what it says lies in the directory."""
        program = Program(self, directory, self.network[host], script, *words)
        self.programs.append(program)
        return program

    def wait(self, seconds: float, until: Callable[[], object] = bool) -> bool:
        """Wait for so long, or until it holds; say whether it does."""
        end_s = time.monotonic() + seconds
        while True:
            if until():
                return True
            self._notice_ends()
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(0.01, left_s))

    def _notice_ends(self) -> None:
        # Nothing here ends a process: whoever has ended did so by itself.
        for member in self.members:
            if member.process is not None and not self.stopping:
                code = member.process.poll()
                if code is not None and not member.failures:
                    member.failures.append(code)

    def stop(self, kindly_s: float = 15.0) -> list[str]:
        """End all as a service manager does; return what is left, in words."""
        self.stopping = True
        self.links.heal()
        for program in self.programs:
            program.process.terminate()
        for member in reversed(self.members):
            if member.process is None:
                continue
            if member.process.poll() is None:
                member.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                member.process.wait(kindly_s)
        end_s = time.monotonic() + kindly_s
        while carrying(self.mark) and time.monotonic() < end_s:
            for program in self.programs:
                program.process.poll()
            time.sleep(0.01)
        left = [words_of(pid) for pid in carrying(self.mark)]
        return left + sorted(shared_memory() - self.shared_before)

    def close(self) -> None:
        """End with force whatever is left, and take the network down."""
        self.stopping = True
        for pid in carrying(self.mark):
            signal_to(pid, signal.SIGKILL)
        self.network.close()
        processes = [member.process for member in self.members if member.process is not None]
        for process in [*processes, *(program.process for program in self.programs)]:
            process.wait()
