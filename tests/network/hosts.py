"""Machines made of network namespaces: each a host with an address, all at one switch.

Never starts a program of the cluster. Everything lies within namespaces, interfaces too, so two
runs cannot meet, and a namespace that is gone has taken all of its own with it. A namespace's name
says which process made it: what a killed run has left is swept by the next one.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

#: where `ip netns` keeps its names
NAMED = Path("/run/netns")
PREFIX = "drumbeat"
TOOLS = ("ip", "nft", "tc")
#: the interface of each host
INTERFACE = "eth0"
_SWITCH = "switch"
_KILLED_WITHIN_S = 10.0


class NetworkError(RuntimeError):
    """A tool did not do what it was asked for."""


def call(*words: str, given: str = "") -> str:
    """Run a tool; return what it printed.

    Raises:
        NetworkError: it failed; says what it said.
    """
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip() or f"exit code {done.returncode}"
        raise NetworkError(f"{' '.join(words)}: {said}")
    return done.stdout


class Host:
    """One machine."""

    def __init__(self, name: str, namespace: str, number: int) -> None:
        self.name = name
        self.namespace = namespace
        self.address = f"10.77.0.{number}"
        #: the switch's end of its cable
        self.port = f"to{number}"

    def command(self, *words: str) -> list[str]:
        """Return the words that run a program on this machine, in the same process id."""
        return ["ip", "netns", "exec", self.namespace, *words]

    def call(self, *words: str, given: str = "") -> str:
        """Run a tool on this machine; return what it printed."""
        return call(*self.command(*words), given=given)

    def pids(self) -> list[int]:
        """Return who runs on this machine."""
        return _pids(self.namespace)


class Network:
    """Hosts at one switch; to be closed, which ends whoever still runs on them.

    Args:
        names: of the hosts.
    """

    _made = 0

    def __init__(self, names: Sequence[str]) -> None:
        sweep()
        Network._made += 1
        stem = f"{PREFIX}-{os.getpid()}-{_started(os.getpid())}-{Network._made}"
        self._switch = f"{stem}-{_SWITCH}"
        self.hosts = [
            Host(name, f"{stem}-{name}", number) for number, name in enumerate(names, start=1)
        ]
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Nothing more: it stands."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.close()

    def __getitem__(self, name: str) -> Host:
        """Return a host by its name."""
        return next(host for host in self.hosts if host.name == name)

    @property
    def switch(self) -> str:
        """The namespace of the switch."""
        return self._switch

    def namespaces(self) -> list[str]:
        """Return the names of all of its namespaces."""
        return [self._switch, *(host.namespace for host in self.hosts)]

    def _build(self) -> None:
        for namespace in self.namespaces():
            call("ip", "netns", "add", namespace)
        call("ip", "-n", self._switch, "link", "add", "name", _SWITCH, "type", "bridge")
        call("ip", "-n", self._switch, "link", "set", _SWITCH, "up")
        for host in self.hosts:
            call(
                "ip", "link", "add", "name", INTERFACE, "netns", host.namespace,
                "type", "veth", "peer", "name", host.port, "netns", self._switch,
            )  # fmt: skip
            call("ip", "-n", self._switch, "link", "set", host.port, "master", _SWITCH, "up")
            call(
                "ip", "-n", host.namespace, "address", "add", f"{host.address}/24",
                "dev", INTERFACE,
            )  # fmt: skip
            for interface in (INTERFACE, "lo"):
                call("ip", "-n", host.namespace, "link", "set", interface, "up")

    def close(self) -> None:
        """End whoever runs on the hosts, and remove them."""
        for namespace in reversed(self.namespaces()):
            _remove(namespace)


def sweep() -> list[str]:
    """Remove what runs have left that are dead; return the names of those namespaces."""
    dead = [name for name in _named() if not _is_owned(name)]
    for name in dead:
        _remove(name)
    return dead


def missing() -> str:
    """Return why there can be no networks here; "": there can be."""
    if os.geteuid() != 0:
        return "network namespaces are root's to make, and this is another user"
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return f"{tool} is not installed (it comes with iproute2 or nftables)"
    try:
        with Network(["trial"]) as network:
            from network.links import Links  # it imports this module

            Links(network).slow(network.hosts[0])
    except (NetworkError, OSError) as error:
        return f"this machine cannot make networks: {error}"
    return ""


def _named() -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(NAMED) if name.startswith(f"{PREFIX}-"))
    return []


def _is_owned(name: str) -> bool:
    """Return whether the process that made a namespace still lives."""
    words = name.split("-")
    return len(words) < 4 or (words[1].isdigit() and _started(int(words[1])) == words[2])


def _started(pid: int) -> str:
    """Return when a process was started, in the kernel's ticks; "": there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _pids(namespace: str) -> list[int]:
    try:
        return list(map(int, call("ip", "netns", "pids", namespace).split()))
    except NetworkError:
        return []


def _remove(namespace: str) -> None:
    end_s = time.monotonic() + _KILLED_WITHIN_S
    while (pids := _pids(namespace)) and time.monotonic() < end_s:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    # Somebody else may sweep at the same time.
    with contextlib.suppress(NetworkError):
        call("ip", "netns", "delete", namespace)


def _main() -> Iterator[str]:
    yield missing() or "networks can be made here"
    yield from (f"swept {name}" for name in sweep())


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    print("\n".join(_main()))
