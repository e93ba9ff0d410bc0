"""The same bare hops over plain sockets: what libzmq's threads cost of a round trip.

Program, scheduler, node and worker as in bare.py, with nothing in them, but joined by Unix streams
that each process reads and writes itself. The difference to bare.py is what decision 46 is about.
"""

# ruff: noqa: D102  # the methods are described once, in adapters.Caller

import os
import select
import socket
import time
from collections.abc import Iterator

from .bare import CALL, LOOK_MS, PACKET_BYTES_MAX, START_MS, FourProcesses, worker

#: said to both once both are there; a call may follow at once
READY = b"ready"


def arrivals(*ends: socket.socket) -> Iterator[socket.socket]:
    """Yield each end when it can be read, as long as the program lives."""
    parent = os.getppid()
    poll = select.poll()
    by_fd = {end.fileno(): end for end in ends}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    while True:
        ready = poll.poll(LOOK_MS)
        for fd, _ in ready:
            yield by_fd[fd]
        if not ready and os.getppid() != parent:
            return


def dial(path: str) -> socket.socket:
    """Return a connected stream; a listener that is just starting is waited for."""
    until_s = time.monotonic() + START_MS / 1000
    while True:
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            end.connect(path)
        except OSError:
            end.close()
            if time.monotonic() >= until_s:
                raise
            time.sleep(0.005)
        else:
            return end


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Pass on what comes on either end to the other one, until one is closed."""
    to = {one: other, other: one}
    for end in arrivals(one, other):
        data = end.recv(PACKET_BYTES_MAX)
        if not data:
            return
        to[end].send(data)


def scheduler(path: str) -> None:
    """Join the two that come."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen()
    first, _ = listener.accept()
    second, _ = listener.accept()
    for end in (first, second):
        end.send(READY)
    pass_on(first, second)


def node(path: str) -> None:
    """Pass on what the scheduler says to a worker, and the other way round."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        near.close()
        worker(far)
        os._exit(0)
    far.close()
    end = dial(path)
    end.recv(len(READY))
    pass_on(end, near)


class BarePlain(FourProcesses):
    """Joined by plain sockets."""

    def start(self) -> None:
        self.end = dial(self.launch(scheduler, node))
        self.poll = select.poll()
        self.poll.register(self.end, select.POLLIN)
        if not self.poll.poll(START_MS):
            raise TimeoutError("the bare processes did not start")
        self.end.recv(len(READY))

    def round_trip(self) -> None:
        self.end.send(CALL)
        self.poll.poll()
        self.end.recv(PACKET_BYTES_MAX)

    def stop(self) -> None:
        self.end.close()
        super().stop()
