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


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="each file has a name at first")
def test_a_file_in_memory_has_a_name_at_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def has_a_name(path: str) -> None:
        raise AssertionError(f"{path} would be left if its maker were killed now")

    monkeypatch.setattr(os, "unlink", has_a_name)
    fd = kernel.memory_file("file")
    try:
        assert os.fstat(fd).st_nlink == 0
        assert not os.get_inheritable(fd)
        os.write(fd, b"read again")
        assert os.pread(fd, 20, 0) == b"read again"
    finally:
        os.close(fd)
