"""What the benchmarks run: plain functions that every system is given alike.

Imported by workers of all systems: nothing but the standard library is loaded here.
"""

import os
import signal
import time


def nothing() -> None:
    """Do nothing: what is left is the price of the call."""


def one(leaf: int) -> int:
    """Return what was given."""
    return leaf


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


def length(data: bytes) -> int:
    """Look at what was given only so far that it must have come."""
    return len(data)


def fail(number: int) -> None:
    """Raise an exception of an everyday kind."""
    raise ValueError(f"task {number} was told to fail")


def burn(seconds: float) -> None:
    """Use so much time of a core: computing, not sleeping."""
    end_s = time.thread_time() + seconds
    while time.thread_time() < end_s:
        pass


def burn_or_die(seconds: float, once: str) -> None:
    """Compute; but if a path is given where no file is, make it and kill this process."""
    if once and not os.path.exists(once):
        os.close(os.open(once, os.O_CREAT))
        os.kill(os.getpid(), signal.SIGKILL)
    burn(seconds)


class Counter:
    """State in place: what an actor is measured with."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        """Count one more."""
        self.count += 1
        return self.count
