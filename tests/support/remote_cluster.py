"""A cluster as on several machines: its parts started by command, over TCP with keys."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from .ports import own_port
from .stalls import Watch
from .waiting import until

COMMAND = (sys.executable, "-m", "drumbeat.client.cli")
#: a person who has typed a command is told within this time
SAYS_WITHIN_S = 5.0


class Process:
    """A command that goes on, and what it has said."""

    def __init__(self, words: tuple[str, ...], log: Path, environ: dict[str, str]) -> None:
        self._log = log
        self.is_scheduler = "scheduler" in words
        self.watch = Watch()
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environ, cwd="/"
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def until_it_says(self, words: str, within_s: float = 20.0) -> float:
        """Wait for words; return how long after the start they came, as far as that is its own."""

        def holds() -> bool:
            assert self.popen.poll() is None or words in self.said(), self.said()
            return words in self.said()

        try:
            until(holds, within_s)
        except AssertionError:
            raise AssertionError(f"never said {words!r}, but: {self.said()}") from None
        return self.watch.own_s()

    def end(self, number: int = signal.SIGTERM, within_s: float = 20.0) -> int:
        """Signal it and wait for its end; return its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(within_s)

    def end_soon(self) -> None:
        """End it in order; what a node has left to do is ended too, if it takes long."""
        try:
            self.end(within_s=2.0)
        except subprocess.TimeoutExpired:
            self.end()

    def family(self) -> list[psutil.Process]:
        """Return it and all processes below it."""
        own = psutil.Process(self.pid)
        return [own, *own.children(recursive=True)]


class RemoteCluster:
    """One machine that plays several: each process has its log in `home`."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.directory = home / ".local" / "state" / "drumbeat" / "cluster"
        self.port = own_port()
        self.processes: list[Process] = []
        self._environ = {
            name: value
            for name, value in os.environ.items()
            if name != "XDG_STATE_HOME" and not name.startswith("DRUMBEAT_")
        }
        runtime = home / "run"
        runtime.mkdir(mode=0o700)
        self._environ |= {
            "HOME": str(home),
            "DRUMBEAT_SCHEDULER_PORT": str(self.port),
            "DRUMBEAT_RUNTIME_DIRECTORY": str(runtime),
            "COLUMNS": "200",
        }

    def set(self, **settings: float) -> None:
        """Give settings to what is started from now on."""
        self._environ |= {f"DRUMBEAT_{name}".upper(): str(at) for name, at in settings.items()}

    def file(self, role: str) -> Path:
        return self.directory / f"{role}.cluster"

    def environ(self, **more: str) -> dict[str, str]:
        return {**self._environ, **more}

    def start(self, *words: str, name: str, **environ: str) -> Process:
        """Start something that goes on."""
        process = Process(words, self.home / f"{name}.log", self.environ(**environ))
        self.processes.append(process)
        return process

    def start_scheduler(self, *flags: str) -> Process:
        name = f"scheduler-{len(self.processes)}"
        listen = ("--listen", f"127.0.0.1:{self.port}")
        process = self.start(*COMMAND, "scheduler", *listen, *flags, name=name)
        process.until_it_says("listening at")
        return process

    def start_node(self, name: str, *flags: str, wait: bool = True, **environ: str) -> Process:
        where = () if environ else ("--cluster", str(self.file("node")))
        words = (*COMMAND, "node", *where, "--name", name, "--num-cpus", "2", *flags)
        process = self.start(*words, name=name, **environ)
        if wait:
            process.until_it_says("connected to the scheduler")
        return process

    def run(self, *words: str, code: int = 0, **environ: str) -> "subprocess.CompletedProcess[str]":
        """Run something to its end, and check its exit code."""
        done = subprocess.run(
            words,
            env=self.environ(**environ),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def command(self, *words: str, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a command on this cluster, as somebody on the scheduler's machine types it."""
        return self.run(*COMMAND, *words, code=code)

    def asked(self, *words: str) -> Any:
        """Return what a command answers as JSON."""
        return json.loads(self.command(*words, "--json").stdout)

    def until_nodes(self, *names: str, within_s: float = 20.0) -> None:
        """Wait until these nodes and no others are alive."""
        end_s = time.monotonic() + within_s
        there: list[str] = []
        while time.monotonic() < end_s:
            there = sorted(row["name"] for row in self.asked("nodes") if row["state"] == "alive")
            if there == sorted(names):
                return
        raise AssertionError(f"the nodes are {there}, and not {names}")

    def secrets(self) -> list[bytes]:
        """Return every secret key there is, as text and as what it stands for."""
        from drumbeat.protocol.keys import parse_key

        texts = [json.loads(file.read_text())["secret_key"] for file in self.files()]
        return [text.encode() for text in texts] + [parse_key(text, "it") for text in texts]

    def files(self) -> list[Path]:
        return sorted(self.directory.glob("*.cluster"))

    def spoiled(self, **changes: object) -> str:
        """Write a node's file in which something is wrong; return where it is."""
        from drumbeat.protocol.cluster_file import read_address, write_address

        path = self.home / "spoiled.cluster"
        address = read_address(self.file("node"))
        keys = {"server_key", "secret_key"} & changes.keys()
        credentials = address.credentials._replace(**{key: changes.pop(key) for key in keys})  # type: ignore[arg-type]  # bytes
        write_address(path, address._replace(credentials=credentials, **changes))  # type: ignore[arg-type]  # a text
        return str(path)

    def end(self, but: Process | None = None) -> None:
        """End everything, nodes first, and whatever would not end in time by force.

        Args:
            but: this one goes on.

        Raises:
            AssertionError: something had to be forced.
        """
        forced = []
        ending = [process for process in self.processes if process is not but]
        self.processes = [process for process in self.processes if process is but]
        for process in sorted(ending, key=lambda one: one.is_scheduler):
            try:
                process.end_soon()
            except subprocess.TimeoutExpired:
                process.end(signal.SIGKILL)
                forced.append(process.said())
        assert not forced, forced
