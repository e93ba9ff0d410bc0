"""Networks for tests: skipped where none can be made, failed where they are promised."""

import os

import pytest
from network.hosts import missing

#: "required": a machine that cannot make networks fails the tests
PROMISE_VARIABLE = "DRUMBEAT_NETWORK_TESTS"


@pytest.fixture(scope="session", autouse=True)
def networks_can_be_made() -> None:
    """Look once whether the tests of this directory can run."""
    reason = missing()
    if reason and os.environ.get(PROMISE_VARIABLE) == "required":
        pytest.fail(f"{PROMISE_VARIABLE}=required, but {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)
