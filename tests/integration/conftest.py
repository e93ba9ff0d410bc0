"""What several files of integration tests begin and end with."""

from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from support.machines import Machines
from support.remote_cluster import RemoteCluster
from support.stream_bench import Bench


@pytest.fixture
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A runtime directory of this test's own; afterwards nothing may be left of any cluster."""
    path = tmp_path_factory.mktemp("r")
    yield str(path)
    drumbeat.shutdown()
    assert not list(path.iterdir()), "files were left behind"
    assert not psutil.Process().children(recursive=True), "processes were left behind"


@pytest.fixture
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Both ends of connections within one machine."""
    made = Bench(tmp_path_factory.mktemp("s"))  # short: the paths of sockets have little room
    yield made
    made.close()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    cluster = RemoteCluster(tmp_path)
    try:
        yield Machines(cluster)
    finally:
        drumbeat.shutdown()
        cluster.end()
