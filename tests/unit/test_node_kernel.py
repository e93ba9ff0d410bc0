"""What the system tells of a process."""

import os
import sys

import pytest
from drumbeat.node import kernel
from drumbeat.protocol.clock import now_s


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")
def test_when_a_process_was_started_is_told_by_our_clock() -> None:
    first, own = kernel.started_s(1), kernel.started_s(os.getpid())
    assert first is not None
    assert own is not None
    assert first <= own <= now_s()


def test_of_a_process_that_is_not_there_nothing_is_told() -> None:
    assert kernel.started_s(2**22 + 1) is None
