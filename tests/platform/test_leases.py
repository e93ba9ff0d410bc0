"""What the kernel says of who has a file in memory open: what protocol/warm.py rests on."""

import fcntl
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Iterator

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(sys.platform != "linux", reason="leases and memory files are Linux's"),
]

SIZE = 1 << 16
F_SEAL_FUTURE_WRITE, F_SETOWN_EX, F_OWNER_PGRP = 0x10, 15, 2


def opened(fd: int, flags: int = os.O_RDONLY) -> int:
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC | os.O_NONBLOCK)


def is_granted(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return False
    return True


@pytest.fixture
def file() -> Iterator[int]:
    first = os.memfd_create("probe", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd = opened(first, os.O_RDWR)
    os.close(first)
    os.ftruncate(fd, SIZE)
    yield fd
    os.close(fd)


def test_a_lease_is_granted_only_while_nobody_else_has_the_file_open_or_mapped(file: int) -> None:
    mine = mmap.mmap(file, SIZE)
    assert is_granted(file)
    reader = opened(file)
    assert not is_granted(file)
    read = mmap.mmap(reader, SIZE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    os.close(reader)
    assert not is_granted(file), "a map counts though its descriptor is closed"
    pid = os.fork()
    if not pid:
        signal.pause()
    read.close()
    try:
        assert not is_granted(file), "that of a child counts too"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert is_granted(file)
    mine.close()


def test_the_map_that_was_there_before_the_seal_is_the_one_that_can_be_written_to(
    file: int,
) -> None:
    mine = mmap.mmap(file, SIZE)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(file, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(file, SIZE)
    mine[:1] = b"m"
    assert os.pread(file, 1, 0) == b"m"
    os.posix_fallocate(file, 0, SIZE)


def test_who_holds_a_lease_is_told_by_a_signal_and_a_group_that_is_a_thread_is_told_nothing(
    file: int,
) -> None:
    told: list[int] = []
    before = signal.signal(signal.SIGIO, lambda number, _: told.append(number))

    def ask() -> None:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with pytest.raises(BlockingIOError):
            opened(file)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def name() -> None:
        owner = struct.pack("ii", F_OWNER_PGRP, threading.get_native_id())
        fcntl.fcntl(file, F_SETOWN_EX, owner)

    def named() -> None:
        thread = threading.Thread(target=name)
        thread.start()
        thread.join()

    try:
        ask()
        assert len(told) == 1
        for _ in range(3):
            named()
            ask()
            assert len(told) == 1
        ask()
        assert len(told) == 2, "who was named is forgotten with the lease"
    finally:
        signal.signal(signal.SIGIO, before)
