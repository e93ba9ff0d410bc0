"""Signs of life for who supervises a daemon: systemd's notify socket, a file for containers.

Never needed and never in the way: where nobody listens nothing is sent, and what cannot be sent or
written is lost. Both say only what a loop says of itself, so a loop that stands still is silent.
"""

import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final, Self

from .lines import say

#: what systemd hands down; removed once read, so that no task can speak in our name
SOCKET: Final = "NOTIFY_SOCKET"
WATCHDOG: Final = "WATCHDOG_USEC"
WATCHDOG_PID: Final = "WATCHDOG_PID"

#: a sign of life goes this often within the time after which the absence of one is acted upon
SIGNS: Final = 3
#: the file is touched at most so often
TOUCH_S: Final = 1.0
NEVER_S: Final = float("inf")


class ServiceManager:
    """What is told to the service manager that started this process: ready, alive, stopping.

    Args:
        send: sends one message.
        watchdog_s: the manager restarts what it does not hear of for so long; 0: it does not watch.
    """

    def __init__(self, send: Callable[[str], None], watchdog_s: float = 0.0) -> None:
        self._send = send
        self._pause_s = watchdog_s / SIGNS
        #: `alive` says nothing before
        self.due_s = 0.0
        self._ready = False
        self._stopping = False

    @classmethod
    def of_environment(cls, environ: MutableMapping[str, str] = os.environ) -> Self:
        """Return the manager that the environment names, and take it out of there."""
        address = environ.pop(SOCKET, "")
        for_us = environ.pop(WATCHDOG_PID, str(os.getpid())) == str(os.getpid())
        try:
            watchdog_s = int(environ.pop(WATCHDOG, "0")) / 1e6
        except ValueError:
            watchdog_s = 0.0  # whoever wrote it does not watch
        if not address.startswith(("/", "@")):
            return cls(_to_nobody)
        # An address that begins with @ is a name without a file.
        path = "\0" + address[1:] if address[0] == "@" else address
        return cls(lambda text: _send_to(path, text), watchdog_s if for_us else 0.0)

    def alive(self, now_s: float) -> None:
        """Called by a loop each time it has come round, or when it is due."""
        if not self._ready:
            self._ready = True
            self._send("READY=1")
        if not self._pause_s:
            self.due_s = NEVER_S
        elif now_s >= self.due_s:
            self.due_s = now_s + self._pause_s
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """It is over, or it will be as soon as what runs has ended."""
        if not self._stopping:
            self._stopping = True
            self._send("STOPPING=1")


class HealthFile:
    """A file that is there and young as long as all is well.

    Args:
        path: where; "": nowhere.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        #: `alive` does nothing before
        self.due_s = 0.0 if path else NEVER_S
        self._complained = False

    def alive(self, now_s: float) -> None:
        """Make it, or make it young again."""
        if now_s >= self.due_s:
            self.due_s = now_s + TOUCH_S
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                fd = os.open(self._path, flags, 0o644)
                try:
                    os.utime(fd)
                finally:
                    os.close(fd)
            except OSError as error:
                self._complain(error)

    def gone(self) -> None:
        """Remove it: all is not well, or over."""
        if self._path:
            self.due_s = 0.0
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            say(f"drumbeat: health_file = {self._path!r} cannot be written: {error.strerror}")


def _to_nobody(_text: str) -> None:
    """Nobody asked to be told."""


def _send_to(path: str, text: str) -> None:
    # A manager that does not read must not stop us; neither must one that is gone.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as one,
    ):
        one.setblocking(False)
        one.sendto(text.encode(), path)
