"""A cluster whose nodes and program have hosts of their own, to move large values between.

Never judges. The program is `data_program.py`, which does what it is told, one line after another.
"""

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from network.data_program import digest_of
from network.hosts import INTERFACE, Host, Network
from network.links import Links
from support.remote_cluster import COMMAND, Process, RemoteCluster

SCHEDULER, PROGRAM = "scheduler", "program"
MIB = 1 << 20
#: a fifth of the times that users have
QUICK: dict[str, float] = {
    "data_silence_s": 2.0,
    "heartbeat_interval_s": 0.2,
    "connection_lost_s": 0.2,
    "lease_margin_s": 0.4,
    "resend_after_s": 0.3,
}
_ANSWERS_WITHIN_S = 60.0


class Steps:
    """The program: `tell` begins a step, `answer` waits for what came of it."""

    def __init__(self, host: Host, cluster: RemoteCluster, name: str) -> None:
        script = Path(__file__).with_name("data_program.py")
        words = host.command(sys.executable, str(script), str(cluster.file("client")))
        self._log = (cluster.home / f"{name}.log").open("wb")
        self.popen = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=cluster.environ(DRUMBEAT_MACHINE=f"machine of {name}"), cwd="/",
        )  # fmt: skip
        self._answers: queue.Queue[Any] = queue.Queue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def tell(self, *words: object) -> None:
        """Have a step done."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps(words) + "\n")
        self.popen.stdin.flush()

    def answer(self, within_s: float = _ANSWERS_WITHIN_S) -> Any:
        """Return what came of the next step."""
        answer = self._answers.get(timeout=within_s)
        assert answer is not None, Path(self._log.name).read_text(encoding="utf-8")
        return answer

    def do(self, *words: object) -> Any:
        """Have a step done, and return what came of it."""
        self.tell(*words)
        return self.answer()

    def end(self) -> None:
        """End it in order; with force, if it does not end soon."""
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.popen.stdin.close()
        try:
            self.popen.wait(5.0)
        except subprocess.TimeoutExpired:
            self.popen.kill()
        self._listener.join()
        self.popen.stdout.close()
        self._log.close()


class DataLab:
    """See the module.

    Args:
        home: of all users on all hosts.
        names: of the nodes, and their hosts.
    """

    def __init__(self, home: Path, *names: str) -> None:
        self.cluster = RemoteCluster(home)
        self.cluster.set(**QUICK)
        self.names = names
        self.network = Network([SCHEDULER, PROGRAM, *names])
        self.links = Links(self.network)
        self.nodes: dict[str, Process] = {}
        self.scheduler = self.start_scheduler()
        for name in names:
            self.start_node(name)
        self.program = self.start_program()

    def close(self) -> None:
        """End all of it."""
        self.links.heal()
        self.program.end()
        try:
            self.cluster.end()
        finally:
            self.network.close()

    # ------------------------------------------------------------------------------- what runs

    def start_scheduler(self) -> Process:
        """Start the scheduler, for the first time or again."""
        where = f"{self.network[SCHEDULER].address}:{self.cluster.port}"
        words = (*COMMAND, "scheduler", "--listen", where, "--advertise", where)
        self.scheduler = self._start(SCHEDULER, words)
        self.scheduler.is_scheduler = True
        self.scheduler.until_it_says("listening at")
        return self.scheduler

    def start_node(self, name: str) -> None:
        """Start a node on its host, for the first time or again."""
        file = str(self.cluster.file("node"))
        words = (*COMMAND, "node", "--cluster", file, "--name", name, "--num-cpus", "4")
        self.nodes[name] = self._start(name, words)
        self.nodes[name].until_it_says("connected to the scheduler")

    def start_program(self, name: str = PROGRAM) -> Steps:
        """Start a program on the host of programs."""
        return Steps(self.network[PROGRAM], self.cluster, name)

    def _start(self, name: str, words: tuple[str, ...]) -> Process:
        life = f"{name}-{len(self.cluster.processes)}"
        command = self.network[name].command(*words)
        return self.cluster.start(*command, name=life, DRUMBEAT_MACHINE=f"machine of {name}")

    def kill(self, process: Process) -> None:
        """End a command and all below it at once."""
        for one in process.family():
            one.kill()
        process.popen.wait()
        self.cluster.processes.remove(process)

    # ----------------------------------------------------------------------------- what is seen

    def has(self, name: str, size: int) -> str:
        """Return the digest of what the program makes under a name."""
        return digest_of(name, size)

    def relays(self) -> list[str]:
        """Return what was told of values that had to go through the scheduler."""
        return [row["text"] for row in self.asked("events") if row["kind"] == "relay"]

    def asked(self, *words: str) -> Any:
        """Return what a command answers on the scheduler's host."""
        file = str(self.cluster.file("client"))
        command = (*COMMAND, *words, "--json", "--address", file)
        return json.loads(self.cluster.run(*self.network[SCHEDULER].command(*command)).stdout)

    def sent(self, name: str) -> int:
        """Return how many bytes have left a host."""
        path = f"/sys/class/net/{INTERFACE}/statistics/tx_bytes"
        return int(self.network[name].call("cat", path))

    def until_sent(self, name: str, more: int, within_s: float = 30.0) -> None:
        """Wait until so many more bytes have left a host."""
        begun, end_s = self.sent(name), time.monotonic() + within_s
        while self.sent(name) < begun + more:
            assert time.monotonic() < end_s, f"{name} has sent {self.sent(name) - begun:,} bytes"
            time.sleep(0.02)


def memory_of(process: Process) -> int:
    """Return what the largest of a command's processes has in memory, workers left out."""
    own = [one for one in process.family() if "worker" not in " ".join(one.cmdline())]
    return max(int(one.memory_info().rss) for one in own)
