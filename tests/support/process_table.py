"""What the kernel says of processes, read from /proc."""

import os
from pathlib import Path


def state_of(pid: int) -> str:
    """Return the letter of a process's state, or ""."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Return whether a process is there and not only waits to be reaped."""
    return state_of(pid) not in ("", "Z")


def children_of(pid: int) -> list[int]:
    """Return a process's children, the oldest first."""
    try:
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    except OSError:
        return []


def is_daemon(pid: int) -> bool:
    """Return whether a process is a node's daemon, by the name that it gives itself."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "drum:daemon"
    except OSError:
        return False


def carrying(mark: str) -> list[int]:
    """Return the living processes that were started with this text in their environment.

    Forks keep the environment that their parent was started with, whatever they do to their own.
    """
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment and alive(int(name)):
            found.append(int(name))
    return found


def words_of(pid: int) -> str:
    """Return a process in words, for a message."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        line = ""
    return f"{pid} ({state_of(pid) or 'gone'}) {line[:120]}"
