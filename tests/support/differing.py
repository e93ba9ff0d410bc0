"""A cluster whose nodes differ: homes, directories, resources, labels, machines.

Scheduler and nodes are processes started by their command lines; the program is one too, a script
in a directory of its own, since its own code is what its nodes have not got.
"""

import contextlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from drumbeat.protocol.settings import ENVIRONMENT_PREFIX
from support.waiting import until

_PROGRAM_S = 60.0


class Program:
    """A script with the modules beside it, and what it printed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def write(self, name: str, source: str) -> Path:
        """Write a file below the program's directory."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        return path


class DifferingCluster:
    """See the module; a context manager that ends all processes.

    Args:
        directory: for sockets, programs and homes.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cluster = directory / "c"
        self.cluster.mkdir(mode=0o700)
        self.program = Program(directory / "program")
        self._processes: list[subprocess.Popen[str]] = []
        self._owner_read, self._owner_write = os.pipe()

    def __enter__(self) -> Self:
        ready_read, ready_write = os.pipe()
        with os.fdopen(ready_read) as ready:
            self._start("drumbeat.scheduler", "--ready-fd", str(ready_write), keeps=(ready_write,))
            os.close(ready_write)
            if ready.read() != "ready\n":
                self.__exit__()
                raise RuntimeError("the scheduler does not start")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._owner_write)
        os.close(self._owner_read)
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.communicate()

    def _start(
        self,
        module: str,
        *flags: str,
        keeps: tuple[int, ...] = (),
        python: str = sys.executable,
        **more: Any,
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [python, "-P", "-m", module, "--directory", str(self.cluster),
             "--owner-fd", str(self._owner_read), *flags],
            pass_fds=(self._owner_read, *keeps), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, start_new_session=True, **{"env": environment(), **more},
        )  # fmt: skip
        self._processes.append(process)
        return process

    def node(
        self,
        name: str,
        *flags: str,
        environ: dict[str, str] | None = None,
        directory: Path | None = None,
        python: str = sys.executable,
        **settings: Any,
    ) -> subprocess.Popen[str]:
        """Start a node on a machine of its own, as far as anybody can tell."""
        settings = {"machine": f"machine of {name}", **settings}
        return self._start(
            "drumbeat.node", "--name", name, "--settings", json.dumps(settings), *flags,
            python=python, env={**environment(), "NODE_NAME": name, **(environ or {})},
            cwd=directory or "/",
        )  # fmt: skip

    def run(
        self,
        source: str,
        *flags: str,
        nodes: int = 1,
        directory: Path | None = None,
        **settings: Any,
    ) -> list[str]:
        """Run a program, and return the lines it printed.

        Args:
            source: what it does, once `drumbeat` is connected to so many nodes.
            flags: of Python; the script itself if there are none.
            nodes: how many have to be there before it begins.
            directory: the one it runs in.
            settings: of the program.
        """
        done = self._run(source, flags, nodes, directory, settings)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def fail(self, source: str, python: str) -> str:
        """Run a program that fails, in another Python, and return what it wrote to stderr."""
        done = self._run(source, ("-P", "-c", source), 0, None, {}, python)
        assert done.returncode != 0
        return done.stderr

    def _run(
        self,
        source: str,
        flags: tuple[str, ...],
        nodes: int,
        directory: Path | None,
        settings: dict[str, Any],
        python: str = sys.executable,
    ) -> "subprocess.CompletedProcess[str]":
        body = f"""
import os, sys, time
import drumbeat
from drumbeat import get, remote
drumbeat.init()
while len(drumbeat.nodes()) < {nodes}:
    time.sleep(0.01)
{textwrap.dedent(source)}
"""
        script = self.program.directory / "script.py"
        self.program.directory.mkdir(exist_ok=True)
        script.write_text(body, encoding="utf-8")
        given = {f"DRUMBEAT_{name.upper()}": str(value) for name, value in settings.items()}
        address = {"DRUMBEAT_ADDRESS": str(self.cluster), "DRUMBEAT_SHIP_CODE": "always"}
        return subprocess.run(
            [python, *(flags or (str(script),))],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROGRAM_S,
            env={**environment(), **address, **given}, cwd=directory or self.directory, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def when(self, holds: Callable[[], bool], act: Callable[[], Any]) -> Iterator[None]:
        """Do something as soon as something holds, while the block runs."""

        def wait_and_act() -> None:
            until(holds)
            act()

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def environment() -> dict[str, str]:
    """Return this process's environment without Drumbeat's own variables."""
    names = (ENVIRONMENT_PREFIX, "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}
