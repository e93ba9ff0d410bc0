"""Sockets with their monitors: the only door to ZeroMQ.

Never decides, and never reads the clock: protocol/transport.py moves what comes and goes here.
"""

import errno
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll

from .errors import ConfigError
from .poller import WAITING, Poller, Source
from .settings import Settings

#: Frames taken from one socket in one turn, so that one busy peer cannot starve the rest.
FRAMES_PER_TURN_MAX: Final = 256
#: a socket that many connections come to stops when it has read so much: what one peer says at
#: once, a program that names all its tasks anew say, keeps the others waiting for one turn only
BYTES_PER_TURN: Final = 1 << 20
#: MAXMSGSIZE is above frame_bytes_max by what an encrypting transport adds.
FRAME_SLACK_BYTES: Final = 4096

_CLOSINGS: Final = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip
_HANDSHAKES_FAILED: Final = (
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL), int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL),
    int(zmq.EVENT_HANDSHAKE_FAILED_AUTH),
)  # fmt: skip
_EVENT: Final = struct.Struct("=hi")
# Plain numbers: arithmetic with pyzmq's enumerations costs more than the calls they go to.
_READABLE: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_ROUTE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)


def open_context() -> "zmq.Context[Any]":
    """Return what sockets are made from; `term` ends it, once they are closed."""
    return zmq.Context()


def _asker(socket: Any) -> Callable[[], object]:
    # Asking takes in what the I/O thread has to say. This way is cheaper than the socket's option,
    # which is looked up in an enumeration first.
    return partial(zmq_poll, [(socket, _READABLE)], 0)


class _Socket:
    """A socket with its monitor, both waited for by a poller."""

    def __init__(
        self, context: "zmq.Context[Any]", kind: int, settings: Settings, poller: Poller
    ) -> None:
        self._socket = socket = context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, settings.frame_bytes_max + FRAME_SLACK_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, max(1, int(settings.handshake_timeout_s * 1000)))
        # The link's window bounds what is on its way; a limit here would only lose frames.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        self._monitor = monitor = socket.get_monitor_socket(_CLOSINGS)
        self._frames = Source(socket.FD, _asker(socket))
        self._news = Source(monitor.FD, _asker(monitor))
        # The methods of the class below the one that is for people, which wraps `send`.
        plain: Any = super(zmq.Socket, socket)
        # Not copied, a frame knows whether others follow: asking the socket costs twice as much.
        self._take: Callable[..., Any] = plain.recv
        self._give: Callable[[bytes, int], object] = plain.send
        self.junk_dropped = 0
        #: connections that did not speak ZeroMQ, or not its whole greeting
        self.handshakes_failed = 0
        self._join(poller)

    def attach(self, poller: Poller) -> None:
        """Be waited for by this poller from now on."""
        self._part()
        self._join(poller)

    def _join(self, poller: Poller) -> None:
        self._poller = poller
        poller.add_source(self._frames)
        poller.add_source(self._news)

    def _part(self) -> None:
        self._poller.remove_source(self._frames)
        self._poller.remove_source(self._news)

    def _drains(self) -> bool:
        """Say whether to read until nothing is left, now that this socket will be read.

        Who was asleep was woken by what is mostly a single frame: asking for a second one comes
        for free with the question before the next sleep. But what came before a closing is to be
        read with it.
        """
        frames = self._frames
        drains = frames.state == WAITING or self._news.state != 0
        frames.state = 0
        if not frames.used:
            self._poller.use(frames)
        return drains

    def _drop_rest(self) -> None:
        """Drop the parts that a frame should not have."""
        self.junk_dropped += 1
        more = True
        while more:
            more = self._take(_NOBLOCK, False).more

    def closing(self) -> str:
        """Return what the monitor has to say of closed connections since last asked; or ""."""
        news = self._news
        if not news.state:
            return ""
        news.state = 0
        said = ""
        while news.ask():
            event, _value = _EVENT.unpack(self._monitor.recv_multipart(_NOBLOCK)[0])
            self.handshakes_failed += event in _HANDSHAKES_FAILED
            said = str(zmq.Event(event).name).lower().replace("_", " ")
        return said

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more, in the background."""
        self._part()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger_s * 1000))


class Dialing(_Socket):
    """A socket for one connection: ZeroMQ never reconnects it, so no loss goes unseen."""

    def __init__(
        self, context: "zmq.Context[Any]", endpoint: str, settings: Settings, poller: Poller
    ) -> None:
        super().__init__(context, zmq.DEALER, settings, poller)
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self._socket.connect(endpoint)

    @classmethod
    def try_to(
        cls, context: "zmq.Context[Any]", endpoint: str, settings: Settings, poller: Poller
    ) -> "Dialing | None":
        """Return such a socket, or None: the process has no descriptors for one now."""
        try:
            return cls(context, endpoint, settings, poller)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        """Return the frames that have come, at most so many."""
        received: list[bytes] = []
        if not self._frames.state:
            return received
        drains = self._drains()
        take, ask = self._take, self._frames.ask
        try:
            for _ in range(frames_max):
                frame = take(_NOBLOCK, False)
                if frame.more:
                    self._drop_rest()
                else:
                    received.append(frame.bytes)
                if not drains or not ask():
                    break
        except zmq.Again:
            pass  # the news was something else
        return received

    def send(self, frame: bytes) -> bool:
        """Send; False: there is no connection any more, which `closing` tells as well."""
        if not self._frames.used:
            self._poller.use(self._frames)
        try:
            self._give(frame, _NOBLOCK)
        except zmq.Again:
            return False
        return True


class Listening(_Socket):
    """The socket that all connections come to."""

    def __init__(
        self, context: "zmq.Context[Any]", endpoint: str, settings: Settings, poller: Poller
    ) -> None:
        super().__init__(context, zmq.ROUTER, settings, poller)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            context.term()
            text = f"cannot listen at {endpoint}: {error.strerror}"
            raise ConfigError(text, setting="endpoint") from None

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[tuple[bytes, bytes]]:
        """Return the (route, frame) pairs that have come, at most so many."""
        received: list[tuple[bytes, bytes]] = []
        if not self._frames.state:
            return received
        drains = self._drains()
        take, ask = self._take, self._frames.ask
        received_bytes = 0
        try:
            for _ in range(frames_max):
                # ZeroMQ puts the route before whatever comes, so there is always a second part.
                route, frame = take(_NOBLOCK), take(_NOBLOCK, False)
                if frame.more:
                    self._drop_rest()
                else:
                    received.append((route, frame.bytes))
                    received_bytes += len(frame)
                if not drains or received_bytes >= BYTES_PER_TURN or not ask():
                    break
        except zmq.Again:
            pass  # the news was something else
        return received

    def send(self, route: bytes, frame: bytes) -> bool:
        """Send; False: the route leads nowhere any more."""
        if not self._frames.used:
            self._poller.use(self._frames)
        try:
            self._give(route, _ROUTE)
            self._give(frame, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return False
        return True
