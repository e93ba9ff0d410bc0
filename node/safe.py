"""A process of its own that keeps what the node's daemons come to the scheduler with.

Never gives it to anybody but those who hold its link: the keeper has the link, and hands it on to
daemons only. So the secret is neither in the keeper, nor in anything else that is forked from it,
as the template and all workers are; and a daemon that follows a crashed one gets it all the same.
"""

import contextlib
import os
import select
import signal
import socket
import time
from typing import Final

from ..protocol.lines import say
from . import kernel, spare

#: what the scheduler's address with its keys has at most
TEXT_BYTES_MAX: Final = 1 << 16
#: for an answer, which takes no time unless it waits for a descriptor, or the process is stopped
ANSWER_S: Final = 10.0
#: so long a question waits for a descriptor to be free, and so often it is looked for
ROOM_WITHIN_S: Final = 5.0
_RETRY_S: Final = 0.01


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
            OSError: the process is gone, or does not answer.
        """
        read_fd, write_fd = os.pipe()
        with open(read_fd, "rb") as pipe:
            try:
                # What is asked by one that dies is not there for the next one to read.
                self._link.settimeout(ANSWER_S)
                socket.send_fds(self._link, [b"?"], [write_fd])
            finally:
                os.close(write_fd)
                self.close()
            poll = select.poll()
            poll.register(pipe, select.POLLIN)
            if not poll.poll(ANSWER_S * 1000):
                raise TimeoutError(
                    f"the process that keeps the scheduler's address (pid {self.pid}) has not "
                    f"answered within {ANSWER_S:g} s; is it stopped?"
                )
            data = pipe.read(TEXT_BYTES_MAX)
        if not data:
            raise BrokenPipeError(
                "the process that keeps the scheduler's address has ended, or it had no descriptor "
                "for the answer, and said so"
            )
        return data.decode()

    def close(self) -> None:
        """Let go of it; when all have, it ends."""
        self._link.close()


def _keep(secret_fd: int, link: socket.socket) -> None:
    with open(secret_fd, "rb") as pipe:
        secret = pipe.read(TEXT_BYTES_MAX)
    spare.keep()
    # It is looked for first: what finds no room for its descriptor would be lost without a word.
    while link.recv(1, socket.MSG_PEEK):
        _make_room()
        _, fds, _, _ = socket.recv_fds(link, 1, 1)
        if not fds:
            say(f"drumbeat node: {spare.no_room('a daemon that asks where the scheduler is')}")
        for fd in fds:
            with contextlib.suppress(OSError):  # who asked is gone
                os.write(fd, secret)
            os.close(fd)
        spare.keep()


def _make_room() -> None:
    """Wait until a descriptor is free, but not for ever: whoever asks is told of it then."""
    until_s = time.monotonic() + ROOM_WITHIN_S
    while not spare.make_room(1) and time.monotonic() < until_s:
        time.sleep(_RETRY_S)
