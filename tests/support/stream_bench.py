"""Both ends of connections within one machine, and whoever else may be at one of them."""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq
from drumbeat.protocol import zmtp
from drumbeat.protocol.clock import now_s
from drumbeat.protocol.poller import Poller
from drumbeat.protocol.settings import Settings
from drumbeat.protocol.stream_ends import StreamDialing, StreamListening

DEALER_SAYS = zmtp.first_words(zmtp.DEALER)
ROUTER_SAYS = zmtp.first_words(zmtp.ROUTER)
SETTINGS = Settings()
MIB = 1 << 20


class Bench:
    """A listener and diallers, each with a poller of its own; what came is kept."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "s")
        self.endpoint = f"ipc://{self.path}"
        self.context: zmq.Context[Any] = zmq.Context()
        self.listening: StreamListening | None = None
        self.dialing: StreamDialing | None = None
        self.pollers = Poller(), Poller()
        #: (route, frame) at the listener, and frames at the dialler
        self.came: list[tuple[bytes, bytes]] = []
        self.went: list[bytes] = []
        #: other sockets, which are closed at the end
        self.raws: list[Any] = []

    def listen(self, settings: Settings = SETTINGS) -> StreamListening:
        self.listening = StreamListening(self.endpoint, settings, self.pollers[0])
        return self.listening

    def dial(self) -> StreamDialing:
        self.dialing = StreamDialing(self.endpoint, SETTINGS, self.pollers[1])
        return self.dialing

    def foreign(self, kind: int, **options: int | bytes) -> Any:
        """Return a socket of ZeroMQ's; a DEALER is connected, a ROUTER bound."""
        made = self.context.socket(kind)
        self.raws.append(made)
        made.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            made.setsockopt(getattr(zmq, name), value)
        if kind == zmq.ROUTER:
            made.bind(self.endpoint)
        else:
            made.connect(self.endpoint)
        return made

    def raw(self, said: bytes = b"") -> socket.socket:
        """Return a plain socket that is connected and has said something."""
        made = socket.socket(socket.AF_UNIX)
        self.raws.append(made)
        made.connect(self.path)
        made.sendall(said)
        return made

    def raw_listener(self, backlog: int = 10) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        self.raws.append(made)
        made.bind(self.path)
        made.listen(backlog)
        return made

    def turn(self) -> None:
        if self.listening is not None:
            self.pollers[0].wait(0.002)
            self.came += [(route, frame) for route, frame, _ in self.listening.receive(now_s())]
        if self.dialing is not None:
            self.pollers[1].wait(0.002)
            self.went += self.dialing.receive()

    def until(self, holds: Callable[[], Any], within_s: float = 10.0) -> None:
        end_s = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end_s, (self.came[-3:], self.went[-3:])
            self.turn()

    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.came]

    def open(self) -> tuple[StreamListening, StreamDialing, bytes]:
        """Return both ends of a connection on which a frame went each way, and its route."""
        listening, dialing = self.listen(), self.dial()
        dialing.send(b"hello")
        self.until(lambda: self.came)
        ((route, _),) = self.came
        listening.send(route, b"welcome")
        self.until(lambda: self.went)
        self.came.clear()
        self.went.clear()
        return listening, dialing, route

    def close(self) -> None:
        for end in (self.dialing, self.listening):
            if end is not None:
                end.close()
        for raw in self.raws:
            raw.close()
        self.context.destroy(0)


def sleeps(poller: Poller) -> bool:
    """Whether there is nothing to do: three waits in a row come to their end."""
    for _ in range(3):
        began_s = time.monotonic()
        poller.wait(0.03)
        if not poller.slept or time.monotonic() - began_s < 0.029:
            return False
    return True


def stands_still(poller: Poller, receive: Callable[[], Any]) -> bool:
    """Whether it comes to rest when nothing comes and only one end does its work."""
    for _ in range(20):
        assert not receive()
        if sleeps(poller):
            return True
    return False


def frame(body: bytes) -> bytes:
    return zmtp.head(len(body)) + body


def ended(raw: socket.socket) -> bool:
    """Whether the other end has hung up."""
    raw.setblocking(False)
    try:
        while raw.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True
