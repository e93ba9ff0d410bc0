"""Ctrl-C while a process only begins: one plain line, and no page of tracebacks.

Never loads what takes time: it is there before all else is. While modules are loaded there is
nothing to be cleaned up, and an exception in the middle of that may turn up anywhere; so the
process simply ends. While a program does something, Ctrl-C raises KeyboardInterrupt as everywhere.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Final

#: as shells say it of a process that a signal has ended: 128 and the signal's number
EXIT_INTERRUPTED: Final = 130

_WORDS: Final = "drumbeat: interrupted"


def leave_at_once() -> None:
    """From here on Ctrl-C ends the process, with one line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))  # see `hold`


def hold() -> None:
    """Keep a Ctrl-C until this process has become another program that can take it."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))


@contextmanager
def raised() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt for so long, as it does in any Python program."""
    leaves = signal.getsignal(signal.SIGINT) is _leave
    if leaves:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if leaves:
            leave_at_once()


@contextmanager
def put_off() -> Iterator[None]:
    """Let a Ctrl-C come only when something is over that takes no longer than a moment.

    Modules that are loaded half are of no use to anybody; and an exception while msgspec makes a
    decoder, as some do when they are loaded, can end the interpreter with a segmentation fault.
    """
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield  # nothing is raised here
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _number, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(signal.SIGINT, came[0])


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(2, f"{_WORDS}\n".encode())
    os._exit(EXIT_INTERRUPTED)


def say_and_exit() -> None:
    """Say that it was interrupted, and exit; a second Ctrl-C does not disturb that."""
    if signal.getsignal(signal.SIGINT) in (signal.default_int_handler, _leave):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(_WORDS, file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)


def plainly(interrupt: KeyboardInterrupt, doing: str) -> KeyboardInterrupt:
    """Return an interrupt for the program to catch; if it does not, one line is printed of it.

    What Drumbeat was about to do when Ctrl-C came says nothing to anybody.

    Args:
        interrupt: that came while Drumbeat was busy with itself.
        doing: what it did then, for people: "while the cluster was being started".
    """
    before = sys.excepthook
    if before is sys.__excepthook__:

        def hook(
            type_: type[BaseException], error: BaseException, traceback: TracebackType | None
        ) -> None:
            if error is interrupt:
                print(f"{_WORDS} {doing}", file=sys.stderr)
            else:
                before(type_, error, traceback)

        sys.excepthook = hook
    return interrupt
