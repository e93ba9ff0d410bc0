"""Finds the running cluster that a command means, and connects to it.

Never starts one: where there is none, it says how to start one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..protocol.cluster_file import name_of
from ..protocol.errors import ConfigError, KeyRefused, NotInitialized
from ..protocol.session import Session, current
from ..protocol.settings import Settings
from . import runtime
from .absence import in_words
from .addresses import FOR_COMMANDS, may_hold_key, place_of
from .cli_tables import plain

#: a person waits
CONNECT_TIMEOUT_S = 5.0

HOW_TO_START = "a program that calls drumbeat.init() starts one"
#: where addresses of commands come from, in errors
ORIGIN = "address"


class NoCluster(Exception):  # noqa: N818  # it is an answer to a person, not an error of the API
    """There is no cluster to talk to."""


@contextmanager
def connected(address: str | None) -> Iterator[Session]:
    """Connect to the cluster at an address, else to the newest local one of this user.

    Raises:
        NoCluster: there is none.
    """
    # here and not above: `drumbeat --help` needs none of it
    from . import local

    settings = Settings.load()
    given = {**settings.changed(), "connect_timeout_s": CONNECT_TIMEOUT_S}
    with local.visit(find(address, settings), Settings.load(given)):
        session = current()
        if session is None:
            raise NotInitialized("the connection ended as soon as it was made; try again")
        yield session


def find(address: str | None, settings: Settings) -> str:
    """Return the address of the cluster that is meant, as init() takes it.

    Raises:
        NoCluster: there is none, or none that can be trusted.
    """
    running = runtime.running(settings)
    if address:
        if _is_nothing(address):
            there = f"; try --address {running[0]}" if running else f"; {HOW_TO_START}"
            raise NoCluster(f"no cluster runs at {address}{there}")
        return _checked(address)
    if running:
        return str(running[0])
    own = runtime.scheduler_directory()
    if any((own / name_of(role)).exists() for role in FOR_COMMANDS):
        return _checked(str(own))
    root = runtime.root_of(settings)
    raise NoCluster(
        f"no local cluster of yours runs (looked in {root}), and no scheduler was ever started"
        f" here; {HOW_TO_START}, `drumbeat scheduler` one of several machines"
    )


def where(session: Session) -> str:
    """Return which cluster a session is of, for people: a directory, or HOST:PORT."""
    return in_words(str(getattr(session, "endpoint", "")))


def others(shown: str) -> list[str]:
    """Return lines about the other local clusters of this user, where there are any."""
    found = [path for path in runtime.running(Settings.load()) if str(path) != shown]
    if not found or not runtime.holds_socket(Path(shown)):
        return []
    one = "one other local cluster of yours runs" if len(found) == 1 else ""
    text = one or f"{len(found)} other local clusters of yours run"
    lines = [f"{text}, {'which' if one else 'each of which'} --address shows:"]
    return lines + [f"  {path}{_program_of(path)}" for path in found]


def _program_of(path: Path) -> str:
    """Return which program has started a local cluster, as far as that can be known."""
    import psutil  # type: ignore[import-untyped]  # only where there are several

    pid = path.name.partition("-")[0]
    try:
        words = psutil.Process(int(pid)).cmdline()
    except (psutil.Error, ValueError):
        return ""
    return f"  (started by process {pid}: {plain(' '.join(words)):.60})"


def _checked(address: str) -> str:
    """Return an address that can be trusted; of a scheduler's directory, the best file in it."""
    try:
        place_of(address, ORIGIN, FOR_COMMANDS)
    except (ConfigError, KeyRefused) as error:
        raise NoCluster(str(error)) from None
    if not may_hold_key(address):
        path = Path(os.path.expanduser(address))
        for role in FOR_COMMANDS:
            if not runtime.holds_socket(path) and (path / name_of(role)).exists():
                return str(path / name_of(role))
    return address


def _is_nothing(address: str) -> bool:
    """Say whether an address is a path where no cluster could be."""
    path = Path(os.path.expanduser(address))
    if may_hold_key(address) or runtime.holds_socket(path):
        return False
    if os.path.isdir(path):
        return not any(os.path.lexists(path / name_of(role)) for role in FOR_COMMANDS)
    return not os.path.lexists(path)
