"""hosts.toml: the machines of a cluster, and how each is spoken to by the system's ssh.

Never a secret in a command line, and never a shell that reads what somebody wrote: all that a
machine is told goes through ssh's standard input, as one line of JSON (client/hosts_there.py).
"""

import json
import os
import re
import shlex
import subprocess
import threading
import tomllib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from .. import __version__
from ..protocol.errors import ConfigError
from ..protocol.labels import checked
from ..protocol.resources import AMOUNTS, fits
from ..protocol.settings import Settings, environment_name

#: what is started there
THERE: Final = "drumbeat.client.hosts_there"
#: machines spoken to at a time
AT_ONCE_MAX: Final = 32
#: longer lines of others are shown in pieces
LINE_CHARACTERS_MAX: Final = 2000
#: ssh's own exit code: it could not connect, or the connection was cut
SSH_FAILED: Final = 255
#: never asks on the terminal, and finds out within 15 s that nobody is there any more
_SSH: Final = ("ssh", "-T", "-o", "BatchMode=yes")
_SSH_DEFAULTS: Final = (
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
#: no option of ssh's begins so, and no shell sees it
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_\[][A-Za-z0-9_.:%\[\]-]{0,252}", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}", re.ASCII)


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One machine, as hosts.toml describes it."""

    #: the node's name
    name: str = ""
    #: how ssh reaches it; "": by its name
    address: str = ""
    user: str = ""
    port: int = 0
    #: a file with a private key
    identity: str = ""
    #: further options of ssh, each "Name=value"
    ssh_options: list[str] = []
    #: of an environment there that has Drumbeat; what does not begin with / is below the home
    python: str = "python3"
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: dict[str, float] = {}
    labels: dict[str, str] = {}
    preload: list[str] = []
    settings: dict[str, Any] = {}


class Hosts(NamedTuple):
    """A whole file."""

    hosts: list[Host]
    #: the nodes' cluster file on this machine; None: not said
    cluster: Path | None


class Ending(NamedTuple):
    """How it went with one machine."""

    host: Host
    exit_code: int
    #: the last line that came from there
    words: str


# --------------------------------------------------------------------------------------- reading


def read(path: Path) -> Hosts:
    """Return what a file says.

    Raises:
        ConfigError: it is missing, or something in it does not fit: says what and where.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from None
    return parse(data, path)


def parse(data: dict[str, Any], path: Path) -> Hosts:
    """Return what the tables of a file say; see `read`."""
    unknown = sorted(set(data) - {"cluster", "defaults", "hosts"})
    if unknown:
        raise ConfigError(f"{path}: there is no {unknown[0]!r}; there are cluster, defaults, hosts")
    tables, defaults, cluster = data.get("hosts"), data.get("defaults", {}), data.get("cluster", "")
    if not isinstance(tables, dict) or not tables:
        raise ConfigError(f"{path} lists no machine: one is a table of its own, [hosts.lab1]")
    if not isinstance(defaults, dict) or not isinstance(cluster, str):
        raise ConfigError(f"{path}: defaults is a table, and cluster the path of a file")
    hosts = []
    for name, table in tables.items():
        where = f"{path}, [hosts.{name}]"
        if not isinstance(table, dict) or "name" in table or "name" in defaults:
            raise ConfigError(f"{where} is a table of options; the node is called as the table is")
        hosts.append(_host(name, {**defaults, **table}, where))
    # As ssh does: what does not begin with / is beside the file that names it.
    return Hosts(hosts, path.parent / os.path.expanduser(cluster) if cluster else None)


def _host(name: str, options: dict[str, Any], where: str) -> Host:
    try:
        host = msgspec.convert({**options, "name": name}, Host)
    except msgspec.ValidationError as error:
        fields = ", ".join(field for field in Host.__struct_fields__ if field != "name")
        raise ConfigError(f"{where}: {error}; there are {fields}") from None
    host = msgspec.structs.replace(host, address=host.address or name)
    texts = [*host.ssh_options, host.python, host.identity, *host.preload]
    amounts = {"num_cpus": host.num_cpus, "num_gpus": host.num_gpus, **host.resources}
    wrong = {
        "its name is letters, digits, . _ -": not _NAME.fullmatch(name),
        f"address = {host.address!r} is no host": not _ADDRESS.fullmatch(host.address),
        f"user = {host.user!r} is no user": host.user and not _USER.fullmatch(host.user),
        f"port = {host.port} is no port": not 0 <= host.port <= 65535,
        "an ssh option looks like Compression=yes": not all(
            re.match(r"[A-Za-z]+[= ]", option) for option in host.ssh_options
        ),
        "a module's name holds no comma": any("," in module for module in host.preload),
        "a line break is in one of its texts": any(not text.isprintable() for text in texts),
        "python is empty": not host.python,
    }
    wrong |= {
        f"{what} = {amount} is not an amount ({AMOUNTS})": amount is not None and not fits(amount)
        for what, amount in amounts.items()
    }
    for what, is_so in wrong.items():
        if is_so:
            raise ConfigError(f"{where}: {what}")
    try:
        checked(host.labels, "labels")
        Settings.load(host.settings, environ={})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    return host


def chosen(hosts: Iterable[Host], names: Sequence[str], path: Path) -> list[Host]:
    """Return the hosts of these names, or all if none is named.

    Raises:
        ConfigError: one of them is not there.
    """
    known = {host.name: host for host in hosts}
    for name in names:
        if name not in known:
            raise ConfigError(f"{path} has no machine {name!r}; it has {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())


# -------------------------------------------------------------------------------------- commands


def ssh_command(host: Host) -> list[str]:
    """Return the command that reaches a host; nothing in it is read by a shell on this side."""
    python = host.python.removeprefix("~/")  # ssh begins in the home
    command = [*_SSH]
    for option in (*host.ssh_options, *_SSH_DEFAULTS):  # the first of a kind counts
        command += ["-o", option]
    if host.port:
        command += ["-p", str(host.port)]
    if host.user:
        command += ["-l", host.user]
    if host.identity:
        command += ["-i", os.path.expanduser(host.identity), "-o", "IdentitiesOnly=yes"]
    address = host.address.removeprefix("[").removesuffix("]")
    # What follows is for the shell there: each word quoted.
    return [*command, "--", address, shlex.join([python, "-P", "-m", THERE])]


def node_flags(host: Host) -> list[str]:
    """Return the flags of `drumbeat node` for a host."""
    flags = []
    if host.num_cpus is not None:
        flags.append(f"--num-cpus={host.num_cpus:g}")
    if host.num_gpus is not None:
        flags.append(f"--num-gpus={host.num_gpus:g}")
    flags += [f"--resource={name}={amount:g}" for name, amount in host.resources.items()]
    flags += [f"--label={name}={value}" for name, value in host.labels.items()]
    if host.preload:
        flags.append(f"--preload={','.join(host.preload)}")
    return flags


def start_request(host: Host, cluster: str, wait_s: float) -> dict[str, Any]:
    """Return what a host is told, to have a node. It holds the secret of the cluster file."""
    variables = {
        environment_name(name): value if isinstance(value, str) else json.dumps(value)
        for name, value in host.settings.items()
    }
    return {
        "do": "start", "name": host.name, "version": __version__, "cluster": cluster,
        "flags": node_flags(host), "environment": variables, "wait_s": wait_s,
    }  # fmt: skip


def stop_request(host: Host, *, now: bool, wait_s: float) -> dict[str, Any]:
    """Return what a host is told, to have its node end."""
    return {
        "do": "stop", "name": host.name, "version": __version__, "now": now, "wait_s": wait_s,
    }  # fmt: skip


def status_request(host: Host) -> dict[str, Any]:
    """Return what a host is asked, to know how its node is."""
    return {"do": "status", "name": host.name, "version": __version__}


# --------------------------------------------------------------------------------------- running


class Conversations:
    """Speaks to many machines at a time.

    Args:
        show: shows a line of a host's; called by one thread at a time.
    """

    def __init__(self, show: Callable[[Host, str], None]) -> None:
        self._show = show
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._given_up = False

    def run(self, requests: Sequence[tuple[Host, dict[str, Any]]]) -> list[Ending]:
        """Tell each host its request; return how it went, in the same order."""
        with ThreadPoolExecutor(min(AT_ONCE_MAX, len(requests)) or 1) as pool:
            try:
                return list(pool.map(lambda pair: self._speak(*pair), requests))
            except BaseException:
                self._give_up()
                raise

    def _speak(self, host: Host, request: dict[str, Any]) -> Ending:
        try:
            process = subprocess.Popen(
                ssh_command(host),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for this program, which ends it
            )
        except OSError as error:
            return self._said(host, SSH_FAILED, f"ssh cannot be started: {error.strerror}")
        with process:
            with self._lock:
                self._running.append(process)
                if self._given_up:
                    process.kill()
            words = ""
            assert process.stdin is not None, "it was asked for"
            assert process.stdout is not None, "it was asked for"
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.close()
            except OSError:
                pass  # it has ended already, and says why
            while line := process.stdout.readline(LINE_CHARACTERS_MAX):
                text = line.decode(errors="replace").rstrip()
                if text:
                    words = text
                    self._tell(host, text)
        with self._lock:
            self._running.remove(process)
        return Ending(host, process.returncode, words)

    def _said(self, host: Host, exit_code: int, words: str) -> Ending:
        self._tell(host, words)
        return Ending(host, exit_code, words)

    def _tell(self, host: Host, text: str) -> None:
        with self._lock:
            if not self._given_up:
                self._show(host, text)

    def _give_up(self) -> None:
        with self._lock:
            self._given_up = True
            for process in self._running:
                process.kill()
