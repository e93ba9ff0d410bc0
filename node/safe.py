"""A process of its own that keeps what the node's daemons come to the scheduler with.

Never gives it to anybody but those who hold its link: the keeper has the link, and hands it on to
daemons only. So the secret is neither in the keeper, nor in anything else that is forked from it,
as the template and all workers are; and a daemon that follows a crashed one gets it all the same.
"""

import contextlib
import os
import signal
import socket
from typing import Final

from . import kernel

#: what the scheduler's address with its keys has at most
TEXT_BYTES_MAX: Final = 1 << 16
#: for an answer, which takes no time unless the process is gone
ANSWER_S: Final = 5.0


class Safe:
    """The process, made by the one that is to become the keeper.

    Args:
        secret_fd: a pipe with the secret in it, which nobody else may read.
    """

    def __init__(self, secret_fd: int) -> None:
        maker = os.getpid()
        self._link, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            try:
                self._link.close()
                kernel.die_with_parent(maker)
                # It ends with the keeper, which takes its time over these.
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
                _keep(secret_fd, theirs)
            finally:
                os._exit(0)
        theirs.close()
        os.close(secret_fd)

    def open(self) -> str:
        """Return the secret, and close the link: for a daemon, which asks once.

        Raises:
            OSError: the process is gone.
        """
        read_fd, write_fd = os.pipe()
        try:
            # What is asked by one that dies is not there for the next one to read.
            self._link.settimeout(ANSWER_S)
            socket.send_fds(self._link, [b"?"], [write_fd])
        finally:
            os.close(write_fd)
            self.close()
        with open(read_fd, "rb") as pipe:
            data = pipe.read(TEXT_BYTES_MAX)
        if not data:
            raise BrokenPipeError("the process that keeps the scheduler's address has ended")
        return data.decode()

    def close(self) -> None:
        """Let go of it; when all have, it ends."""
        self._link.close()


def _keep(secret_fd: int, link: socket.socket) -> None:
    with open(secret_fd, "rb") as pipe:
        secret = pipe.read(TEXT_BYTES_MAX)
    while True:
        asked, fds, _, _ = socket.recv_fds(link, 1, 4)
        if not asked:
            return  # all who could ask are gone
        for fd in fds:
            with contextlib.suppress(OSError):  # who asked is gone
                os.write(fd, secret)
            os.close(fd)
