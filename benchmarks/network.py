"""A cluster as on several machines: started by command, over TCP with CURVE.

Never shares a process with the program, and leaves none behind: each is ended by its id, and the
kernel ends them if the program is killed.
"""

import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = (sys.executable, "-P", "-m", "drumbeat.client.cli")
LOOPBACK = "127.0.0.1"
START_S = 20.0
END_S = 10.0
LOOK_EACH_S = 0.005


def kept_port() -> socket.socket:
    """Return a socket that keeps a port for who will listen there: nobody else is given it."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the scheduler says so, too
    one.bind((LOOPBACK, 0))
    return one


class NetworkCluster:
    """A scheduler and a node, with keys that are made for them and removed with them.

    Args:
        num_cpus: CPUs of the node.

    Raises:
        RuntimeError: one of them did not start; nothing is left of either.
    """

    def __init__(self, num_cpus: int) -> None:
        self._home = tempfile.TemporaryDirectory()
        home = Path(self._home.name)
        directory = home / "cluster"
        #: what a program connects with
        self.client_file = directory / "client.cluster"
        #: in the order in which they are ended
        self._processes: list[subprocess.Popen[bytes]] = []
        self._port = kept_port()
        listen = f"{LOOPBACK}:{self._port.getsockname()[1]}"
        scheduler = ("scheduler", "--directory", str(directory), "--listen", listen)
        node = ("node", "--cluster", str(directory / "node.cluster"), "--num-cpus", str(num_cpus))
        try:
            self._start(scheduler, home / "scheduler.log", "listening at")
            self._start(node, home / "node.log", "connected to the scheduler")
        except BaseException:
            self.end()
            raise

    def _start(self, words: tuple[str, ...], log: Path, ready: str) -> None:
        """Start a command that goes on, and wait until it has said that it is ready."""
        # here and not above: other systems are measured without it
        from drumbeat.node.kernel import die_with_parent

        with log.open("wb") as file:
            process = subprocess.Popen(
                COMMAND + words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                # Ctrl-C is the program's to hear: it ends them in their order.
                start_new_session=True,
                preexec_fn=functools.partial(  # noqa: PLW1509  # no other thread runs yet
                    die_with_parent, os.getpid(), signal.SIGTERM
                ),
            )
        self._processes.insert(0, process)
        end_s = time.monotonic() + START_S
        while ready not in (said := log.read_text(encoding="utf-8")):
            if process.poll() is not None or time.monotonic() > end_s:
                how = f"did not say {ready!r} within {START_S:g} s"
                if process.returncode is not None:
                    how = f"ended with exit code {process.returncode}"
                raise RuntimeError(f"drumbeat {words[0]} {how}, and said: {said or 'nothing'}")
            time.sleep(LOOK_EACH_S)

    def end(self) -> None:
        """End the node, then the scheduler: by force whichever does not in time."""
        for process in self._processes:
            process.terminate()
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        self._port.close()
        self._home.cleanup()
