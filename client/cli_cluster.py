"""Finds the running local cluster that a command means, and connects to it.

Never starts one: where there is none, it says how to start one.
"""

from collections.abc import Iterator
from contextlib import contextmanager


from ..protocol.session import Session, current

HOW_TO_START = "a program that calls drumbeat.init() starts one, as `make demo` does"


class NoCluster(Exception):  # noqa: N818  # it is an answer to a person, not an error of the API
    """There is no cluster to talk to."""


@contextmanager
def connected(address: str | None) -> Iterator[Session]:
    """Connect to the cluster at an address, else to the newest local one of this user.

    Raises:
        NoCluster: there is none.
    """
    raise NotImplementedError
