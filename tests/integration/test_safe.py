"""The process that keeps the scheduler's address, also where there is no descriptor left."""

import contextlib
import os
import resource
import signal
from collections.abc import Iterator

import pytest
from drumbeat.node import safe as safe_module
from drumbeat.node.safe import Safe
from support.waiting import until

SECRET = b"drumbeat://where and who"


@contextlib.contextmanager
def kept() -> Iterator[tuple[Safe, int]]:
    reader, writer = os.pipe()
    os.write(writer, SECRET)
    os.close(writer)
    safe = Safe(reader)
    try:
        yield safe, reader
    finally:
        safe.close()
        os.waitpid(safe.pid, 0)


def asked(safe: Safe) -> str:
    """Return the answer that a daemon gets; each closes the link, which is a copy of its own."""
    link = safe._link
    safe._link = link.dup()
    try:
        return safe.open()
    finally:
        safe._link = link


def limit(safe: Safe, descriptors: int) -> None:
    hard = resource.prlimit(safe.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(safe.pid, resource.RLIMIT_NOFILE, (descriptors, hard))


def leads_to(safe: Safe, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{safe.pid}/fd/{descriptor}")
    except FileNotFoundError:
        return ""


def test_every_daemon_that_asks_is_answered() -> None:
    with kept() as (safe, _):
        assert [asked(safe) for _ in range(3)] == [SECRET.decode()] * 3


def test_while_it_is_stopped_whoever_asks_is_told_so_and_keeps_no_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(safe_module, "ANSWER_S", 0.1)
    with kept() as (safe, _):
        os.kill(safe.pid, signal.SIGSTOP)
        before = os.listdir("/proc/self/fd")
        try:
            with pytest.raises(OSError, match="is it stopped"):
                asked(safe)
        finally:
            os.kill(safe.pid, signal.SIGCONT)
        assert os.listdir("/proc/self/fd") == before
        monkeypatch.setattr(safe_module, "ANSWER_S", 10.0)
        assert asked(safe) == SECRET.decode()


def test_who_asks_when_it_is_gone_keeps_no_descriptor() -> None:
    with kept() as (safe, _):
        os.kill(safe.pid, signal.SIGKILL)
        until(lambda: os.waitid(os.P_PID, safe.pid, os.WEXITED | os.WNOWAIT))
        before = os.listdir("/proc/self/fd")
        with pytest.raises(OSError, match=r"Broken pipe|has ended"):
            asked(safe)
        assert os.listdir("/proc/self/fd") == before


def test_at_its_limit_it_answers_by_the_descriptor_that_it_has_in_reserve() -> None:
    with kept() as (safe, secret_fd):
        asked(safe)
        # The lowest that was free: that of the pipe with the secret, which has been read.
        until(lambda: leads_to(safe, secret_fd) == os.devnull)
        limit(safe, secret_fd + 1)
        assert [asked(safe) for _ in range(3)] == [SECRET.decode()] * 3


def test_without_any_it_says_so_and_answers_again_when_there_is_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(safe_module, "ROOM_WITHIN_S", 0.05)
    with kept() as (safe, _):
        before = resource.prlimit(safe.pid, resource.RLIMIT_NOFILE)[0]
        limit(safe, 0)
        with pytest.raises(OSError, match="or it had no descriptor for the answer, and said so"):
            asked(safe)
        said = ""

        def is_told() -> bool:
            nonlocal said
            said += capfd.readouterr().err
            return "no descriptor for a daemon that asks where the scheduler is" in said

        until(is_told)
        assert "the limit is 0 a process" in said
        limit(safe, before)
        assert asked(safe) == SECRET.decode()
