"""The bare hops of a round trip: a cluster's four processes with nothing in them.

Program, scheduler, node and worker stand as in a local cluster, joined by the same kinds of
sockets: DEALER and ROUTER over Unix sockets, then a pair of SEQPACKET sockets. Each passes on what
comes and does nothing else: no task is run, checked or remembered. What a round trip costs here is
what it cannot cost less of in this shape, on this machine and in Python; what Drumbeat takes above
that is Drumbeat's own.
"""

# ruff: noqa: D102  # the methods are described once, in adapters.Caller

import multiprocessing
import os
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

PROGRAM, NODE = b"program", b"node"
#: as long as the frames of a call without arguments
CALL = bytes(90)
PACKET_BYTES_MAX = 4096
#: so often a process looks whether the program has gone without a word
LOOK_MS = 1_000
START_MS = 10_000


def arrivals(*sources: Any) -> Iterator[Any]:
    """Yield each source when it can be read, as long as the program lives."""
    import zmq

    parent = os.getppid()
    poller = zmq.Poller()
    for source in sources:
        poller.register(source, zmq.POLLIN)
    while True:
        ready = poller.poll(LOOK_MS)
        for source, _ in ready:
            yield source
        if not ready and os.getppid() != parent:
            return


def dial(endpoint: str, name: bytes) -> Any:
    """Return a connected socket that has said who it is."""
    import zmq

    dealer = zmq.Context().socket(zmq.DEALER)
    dealer.setsockopt(zmq.IDENTITY, name)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(endpoint)
    dealer.send(name)
    return dealer


def scheduler(path: str) -> None:
    """Pass on what the program says to the node, and the other way round."""
    import zmq

    router = zmq.Context().socket(zmq.ROUTER)
    router.bind(f"ipc://{path}")
    # Who is not known yet cannot be sent to: both come first.
    known: set[bytes] = set()
    while len(known) < 2:
        known.add(router.recv_multipart()[0])
    router.send_multipart([PROGRAM, b"ready"])
    other = {PROGRAM: NODE, NODE: PROGRAM}
    for _ in arrivals(router):
        name, frame = router.recv_multipart()
        router.send_multipart([other[name], frame])


def node(path: str) -> None:
    """Pass on what the scheduler says to a worker, and the other way round."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        near.close()
        worker(far)
        os._exit(0)
    far.close()
    dealer = dial(f"ipc://{path}", NODE)
    for source in arrivals(dealer, near):
        if source is dealer:
            near.send(dealer.recv())
        else:
            dealer.send(near.recv(PACKET_BYTES_MAX))


def worker(end: socket.socket) -> None:
    """Send back what comes, until the node is gone."""
    while packet := end.recv(PACKET_BYTES_MAX):
        end.send(packet)


class FourProcesses(ABC):
    """The program's end of them; only round trips can be had."""

    def launch(self, *targets: Callable[[str], None]) -> str:
        """Start the others; return the path of the socket at which they meet."""
        self.directory = tempfile.TemporaryDirectory()
        path = f"{self.directory.name}/scheduler"
        forking = multiprocessing.get_context("fork")
        self.processes = [
            forking.Process(target=target, args=(path,), daemon=True) for target in targets
        ]
        for process in self.processes:
            process.start()
        return path

    @abstractmethod
    def round_trip(self) -> None:
        """Send a call and wait for its answer."""

    def call(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ARG002  # never runs
        self.round_trip()

    def gather(self, function: Callable[..., Any], argument_lists: list[tuple[Any, ...]]) -> None:
        for arguments in argument_lists:
            self.call(function, *arguments)

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()
        self.directory.cleanup()


class Bare(FourProcesses):
    """Joined by libzmq."""

    def start(self) -> None:
        import zmq

        self.dealer = dial(f"ipc://{self.launch(scheduler, node)}", PROGRAM)
        if not self.dealer.poll(START_MS):
            raise TimeoutError("the bare processes did not start")
        self.dealer.recv()
        self.poller = zmq.Poller()
        self.poller.register(self.dealer, zmq.POLLIN)

    def round_trip(self) -> None:
        self.dealer.send(CALL)
        self.poller.poll()
        self.dealer.recv()

    def stop(self) -> None:
        super().stop()
        self.dealer.close()
