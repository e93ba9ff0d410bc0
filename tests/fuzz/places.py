"""Clusters to talk nonsense to: one of Unix sockets, and one on the network.

Never judges.
"""

import os
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Protocol, Self

import drumbeat
from drumbeat.protocol.cluster_file import read_address
from fuzz.mob import Mob
from fuzz.strangers import Strangers
from support.process_table import children_of, words_of
from support.remote_cluster import RemoteCluster
from support.second_client import SecondClient


class Place(Protocol):
    """Where a scheduler is, and who comes to it."""

    #: for a program
    address: str

    def scheduler_pid(self) -> int:
        """Return the process id of the scheduler."""

    def status(self) -> dict[str, Any]:
        """Ask the scheduler for its status."""

    def strangers(self, rng: Random) -> Strangers:
        """Return who talks nonsense to it."""


def _status(asker: SecondClient) -> dict[str, Any]:
    try:
        status: dict[str, Any] = asker.ask("status")
    finally:
        asker.close()
    return status


class LocalPlace:
    """A local cluster of this process."""

    def __init__(self, directory: str) -> None:
        self._cluster = drumbeat.init(num_cpus=2, runtime_directory=directory)
        self.address = str(self._cluster.address)

    def scheduler_pid(self) -> int:
        for pid in children_of(os.getpid()):
            if "drumbeat.scheduler" in words_of(pid):
                return pid
        raise LookupError("no scheduler among the children")

    def status(self) -> dict[str, Any]:
        return _status(SecondClient(f"ipc://{self.address}/scheduler.sock"))

    def strangers(self, rng: Random) -> Strangers:
        return Strangers(f"{self.address}/scheduler.sock", rng)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        drumbeat.shutdown()


class NetworkPlace:
    """A scheduler with a port on this machine, and a node."""

    def __init__(self, home: Path) -> None:
        self._cluster = RemoteCluster(home)
        try:
            self._scheduler = self._cluster.start_scheduler()
            self._cluster.start_node("lab1")
        except BaseException:
            self._cluster.end()
            raise
        self.address = str(self._cluster.file("client"))
        #: the cluster files of clients and of nodes
        self.files = (self.address, str(self._cluster.file("node")))

    def scheduler_pid(self) -> int:
        below = self._scheduler.family()
        return next(one.pid for one in below if "drumbeat.scheduler" in one.cmdline())

    def status(self) -> dict[str, Any]:
        endpoint, _, credentials = read_address(self._cluster.file("client"))
        return _status(SecondClient(endpoint, keys=tuple(credentials)))

    def strangers(self, rng: Random) -> Strangers:
        client = read_address(self._cluster.file("client"))
        return Mob(client, read_address(self._cluster.file("node")).credentials, rng)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._cluster.end()
