"""What the kernel says of a process: of this one, and of one that there is not."""

import mmap
import os
import subprocess
import sys
import threading

import pytest
from drumbeat.node import probe
from drumbeat.node.events import FUTEX, IN_CPU, OTHER

NOBODY = 1 << 30

linux = pytest.mark.skipif(sys.platform != "linux", reason="it is /proc that is read")


@linux
def test_a_process_has_a_state_and_cpu_time_that_grows() -> None:
    state, before_s, memory_bytes = probe.process(os.getpid())
    assert 1 << 20 < memory_bytes < 1 << 40
    assert state == "R"
    while probe.process(os.getpid())[1] <= before_s:
        sum(range(10_000))


@linux
def test_memory_that_is_shared_is_nobodys_own_and_what_is_written_to_privately_is() -> None:
    size_bytes = 32 << 20
    fd = os.memfd_create("drumbeat-test")
    try:
        os.truncate(fd, size_bytes)
        for look in (probe.process, probe._process_elsewhere):
            before_bytes = look(os.getpid())[2]
            with mmap.mmap(fd, size_bytes) as shared:
                shared[:] = bytes(size_bytes)
                assert abs(look(os.getpid())[2] - before_bytes) < size_bytes // 4, look
            with mmap.mmap(fd, size_bytes, access=mmap.ACCESS_COPY) as private:
                assert abs(look(os.getpid())[2] - before_bytes) < size_bytes // 4, look
                private[:] = bytes(size_bytes)
                assert look(os.getpid())[2] - before_bytes > size_bytes * 3 // 4, look
    finally:
        os.close(fd)


def test_without_proc_the_state_and_the_time_are_known_still() -> None:
    state, cpu_s, memory_bytes = probe._process_elsewhere(os.getpid())
    assert state in ("R", "S")
    assert cpu_s > 0.0
    assert memory_bytes > 1 << 20
    assert probe._process_elsewhere(NOBODY) == ("", 0.0, 0)


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert probe.process(NOBODY) == ("", 0.0, 0)
    assert probe.io_of(NOBODY) == -1
    assert probe.call_of(NOBODY, NOBODY) == ""
    assert probe.all_threads(NOBODY) == ""


@linux
def test_without_a_descriptor_nothing_is_known_and_nothing_is_loaded() -> None:
    program = (
        "import os, resource, sys\n"
        "from drumbeat.node import probe\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "print(probe.process(os.getpid()), probe.io_of(os.getpid()), 'psutil' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "('', 0.0, 0) -1 False\n"), done.stderr


@linux
def test_what_is_read_counts_as_io() -> None:
    before = probe.io_of(os.getpid())
    with open(__file__, "rb") as file:
        file.read()
    assert probe.io_of(os.getpid()) > before


@linux
def test_a_thread_that_waits_for_a_lock_is_in_a_futex_and_this_one_has_a_processor() -> None:
    lock, waits = threading.Lock(), threading.Event()
    lock.acquire()

    def wait() -> None:
        waits.set()
        lock.acquire()

    thread = threading.Thread(target=wait)
    thread.start()
    waits.wait()
    try:
        assert thread.native_id is not None
        found = probe.call_of(os.getpid(), thread.native_id)
        for _ in range(10_000):
            if found == FUTEX:
                break
            found = probe.call_of(os.getpid(), thread.native_id)
        assert found in (FUTEX, "")  # hidden, on some systems
        assert probe.all_threads(os.getpid()) in (IN_CPU, OTHER, "")
    finally:
        lock.release()
        thread.join()
