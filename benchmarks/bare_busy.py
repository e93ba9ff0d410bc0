"""The same bare hops with two workers that compute: what any such cluster loses.

Program, scheduler, node and two workers as in bare_plain.py, with nothing in them; each worker has
a call that it runs and one that waits, so that it never waits itself. Whoever passes on a call
takes a processor from one that computes: the efficiency that is left here is what cannot be had
more of in this shape, on this machine and in Python.
"""

# ruff: noqa: D102  # the methods are described once, in adapters.Caller

import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from . import workloads
from .bare import CALL, PACKET_BYTES_MAX, START_MS, FourProcesses
from .bare_plain import READY, arrivals, dial, scheduler
from .rows import WORKERS

#: so many calls are on their way at once at most: more would fill the sockets
CALLS_MAX = 500
#: what a worker has: one that it runs, and one
AHEAD = 2
_SECONDS = struct.Struct("<d")


def calls_in(end: socket.socket, rest: bytearray) -> Iterator[bytes]:
    """Yield the whole calls that have come; `rest` keeps what there is of the next one."""
    rest += end.recv(PACKET_BYTES_MAX)
    while len(rest) >= len(CALL):
        yield bytes(rest[: len(CALL)])
        del rest[: len(CALL)]


def node(path: str) -> None:
    """Give workers what the scheduler sends, and the scheduler what they answer."""
    workers: list[socket.socket] = []
    for _ in range(WORKERS):
        workers.append(start_worker(workers))
    end = dial(path)
    end.recv(len(READY))
    rest, waiting = bytearray(), deque[bytes]()
    has = dict.fromkeys(workers, 0)
    for source in arrivals(end, *workers):
        if source is end:
            waiting.extend(calls_in(end, rest))
        else:
            end.send(source.recv(PACKET_BYTES_MAX))
            has[source] -= 1
        for one in workers:
            while waiting and has[one] < AHEAD:
                one.send(waiting.popleft())
                has[one] += 1


def start_worker(others: list[socket.socket]) -> socket.socket:
    """Fork a worker; return the node's end of what joins the two."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        for end in (near, *others):  # whoever has them keeps the other ends open
            end.close()
        while packet := far.recv(PACKET_BYTES_MAX):
            (seconds,) = _SECONDS.unpack_from(packet)
            if seconds:
                workloads.burn(seconds)
            far.send(packet)
        os._exit(0)
    far.close()
    return near


class BareBusy(FourProcesses):
    """Joined by plain sockets, with two workers."""

    def start(self) -> None:
        self.end = dial(self.launch(scheduler, node))
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        if not poll.poll(START_MS):
            raise TimeoutError("the bare processes did not start")
        self.end.recv(len(READY))

    def round_trip(self) -> None:
        self.run([0.0])

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:  # noqa: ARG002  # only computing can be had
        for first in range(0, len(argument_lists), CALLS_MAX):
            some = argument_lists[first : first + CALLS_MAX]
            self.run([arguments[0] if arguments else 0.0 for arguments in some])

    def run(self, all_seconds: list[float]) -> None:
        """Have so much computed in so many calls, and wait for all."""
        calls = [_SECONDS.pack(seconds).ljust(len(CALL), b"\0") for seconds in all_seconds]
        self.end.sendall(b"".join(calls))
        rest, left = bytearray(), len(calls)
        while left:
            left -= sum(1 for _ in calls_in(self.end, rest))

    def stop(self) -> None:
        self.end.close()
        super().stop()
