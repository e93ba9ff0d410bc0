"""A pytest fixture: one local cluster for all tests that ask for it.

    def test_resize(drumbeat_cluster):
        assert drumbeat.get(resize.remote("a.png")) == ...

Never started unless a test asks for it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .local import Cluster

#: few CPUs: tests of tasks rarely need more, and the machine may have less
CPUS = 2


@pytest.fixture(scope="session")
def drumbeat_cluster() -> "Iterator[Cluster]":
    """A running local cluster with two CPUs; it ends with the test run."""
    from .local import init

    with init(num_cpus=CPUS) as cluster:
        yield cluster
