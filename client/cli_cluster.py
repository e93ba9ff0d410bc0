"""Finds the running local cluster that a command means, and connects to it.

Never starts one: where there is none, it says how to start one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..protocol.errors import ConfigError, NotInitialized
from ..protocol.session import Session, current
from ..protocol.settings import Settings

#: a person waits, and the cluster is on this machine
CONNECT_TIMEOUT_S = 5.0

HOW_TO_START = "a program that calls drumbeat.init() starts one"


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
    with local.init(find(address, settings), **given):
        session = current()
        if session is None:
            raise NotInitialized("the connection ended as soon as it was made; try again")
        yield session


def find(address: str | None, settings: Settings) -> Path:
    """Return the directory of the cluster that is meant.

    Raises:
        NoCluster: there is none.
    """
    from . import local, runtime

    running = runtime.running(settings)
    if address:
        try:
            return local.check_address(address, "address")
        except ConfigError as error:
            if runtime.holds_socket(Path(address)):
                raise NoCluster(str(error)) from None
            there = f"; try --address {running[0]}" if running else f"; {HOW_TO_START}"
            raise NoCluster(f"no local cluster runs at {address}{there}") from None
    if not running:
        root = runtime.root_of(settings)
        raise NoCluster(f"no local cluster of yours runs (looked in {root}); {HOW_TO_START}")
    return running[0]
