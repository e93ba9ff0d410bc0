"""What several files of integration tests begin and end with."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import drumbeat
import psutil
import pytest
from drumbeat.protocol.spill import IN_MEMORY, kind_of
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
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty directory that lies on a disk."""
    if kind_of(str(tmp_path)) not in IN_MEMORY:
        yield tmp_path
    elif Path("/var/tmp").is_dir() and kind_of("/var/tmp") not in IN_MEMORY:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as there:
            yield Path(there)
    else:
        pytest.skip("nothing goes to disk here: /var/tmp and the temporary directory are memory")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    cluster = RemoteCluster(tmp_path)
    try:
        yield Machines(cluster)
    finally:
        drumbeat.shutdown()
        cluster.end()
