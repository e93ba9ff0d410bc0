"""Sockets and the shells around them: the only door to ZeroMQ.

Never decides: dialer, listener, link and blobs do, the shells here carry out. Never reads the
clock: whoever turns a loop hands `now_s` in.

A loop around a shell:

    poller = Poller(); poller.add(some_fd); shell.attach(poller)
    while running:
        ready = poller.wait(timeout until shell.deadline_s() and the core's deadline)
        for happening in shell.turn(clock.now_s()): ...       tell the core, send what it wants
        shell.flush(clock.now_s())                            once a turn, always
"""

import errno
import struct
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import zmq
from msgspec import Raw

from . import dialer, listener
from .codec import Reader, message_bytes_max, split
from .dialer import Dialer, Down, Refused, Up
from .endpoints import check_endpoint
from .errors import ConfigError, RemoteProtocolError
from .frames import Channel, Role
from .ids import NO_PEER, PeerId
from .listener import Disconnected, Joined, Listener, Returned
from .messages import (
    AnyMessage,
)
from .poller import Poller
from .settings import Settings
from .traffic import Blob, Heard, Message, Rejected, Traffic

#: Frames taken from one socket in one turn, so that one busy peer cannot starve the rest.
FRAMES_PER_TURN_MAX = 256
#: MAXMSGSIZE is above frame_bytes_max by what an encrypting transport adds.
FRAME_SLACK_BYTES = 4096

__all__ = [
    "Blob", "DialHappening", "DialShell", "Disconnected", "Down", "Heard", "Joined",
    "ListenHappening", "ListenShell", "Message", "Poller", "Refused", "Rejected", "Returned", "Up",
]  # fmt: skip

_CLOSINGS = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip
_EVENT = struct.Struct("=hi")
# Plain numbers: arithmetic with pyzmq's enumerations costs more than the calls they go to.
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)
_NOBLOCK, _MORE, _ROUTE = int(zmq.NOBLOCK), int(zmq.RCVMORE), int(zmq.NOBLOCK | zmq.SNDMORE)

DialHappening = Up | Down | Refused | Message | Blob | Rejected
ListenHappening = Joined | Returned | Disconnected | Heard | Message | Blob | Rejected


def _asker(socket: "zmq.Socket[bytes]") -> Callable[[], bool]:
    option = socket.getsockopt
    # Asking takes in what the I/O thread has to say, which reading alone does not always do.
    return lambda: bool(int(option(_EVENTS)) & _READABLE)


class _Socket:
    """A socket with its monitor, both waited for by a poller."""

    def __init__(
        self, context: zmq.Context[Any], kind: int, settings: Settings, poller: Poller
    ) -> None:
        self.socket = socket = context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, settings.frame_bytes_max + FRAME_SLACK_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, max(1, int(settings.handshake_timeout_s * 1000)))
        # The link's window bounds what is on its way; a limit here would only lose frames.
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        self._monitor = socket.get_monitor_socket(_CLOSINGS)
        self._is_readable = _asker(socket)
        self._has_news = _asker(self._monitor)
        self.junk_dropped = 0
        self._join(poller)

    def attach(self, poller: Poller) -> None:
        """Be waited for by this poller from now on."""
        self._part()
        self._join(poller)

    def _join(self, poller: Poller) -> None:
        self._poller = poller
        poller.add_socket(self.socket, self.socket.FD, self._is_readable)
        poller.add_socket(self._monitor, self._monitor.FD, self._has_news)

    def _part(self) -> None:
        for socket in (self.socket, self._monitor):
            self._poller.remove_socket(socket, socket.FD)

    def _receive(self, parts: int, frames_max: int) -> list[list[bytes]]:
        received: list[list[bytes]] = []
        if self.socket not in self._poller.ready:
            return received
        option, receive = self.socket.getsockopt, self.socket.recv
        for _ in range(frames_max):
            if not self._is_readable():
                self._poller.used.pop(self.socket, None)
                break
            frame = [receive(_NOBLOCK)]
            while option(_MORE):
                frame.append(receive(_NOBLOCK))
            if len(frame) == parts:
                received.append(frame)
            else:
                self.junk_dropped += 1
        else:
            self._poller.used[self.socket] = self._is_readable
        return received

    def closing(self) -> str:
        """Return what the monitor has to say of closed connections since last asked; or ""."""
        said = ""
        if self._monitor not in self._poller.ready:
            return said
        while self._has_news():
            event, _value = _EVENT.unpack(self._monitor.recv_multipart(_NOBLOCK)[0])
            said = str(zmq.Event(event).name).lower().replace("_", " ")
        self._poller.used.pop(self._monitor, None)
        return said

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more, in the background."""
        self._part()
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(int(linger_s * 1000))


class Dialing(_Socket):
    """A socket for one connection: ZeroMQ never reconnects it, so no loss goes unseen."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, settings: Settings, poller: Poller
    ) -> None:
        super().__init__(context, zmq.DEALER, settings, poller)
        self.socket.setsockopt(zmq.RECONNECT_IVL, -1)
        self.socket.connect(endpoint)

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        """Return the frames that have come, at most so many."""
        return [parts[0] for parts in self._receive(1, frames_max)]

    def send(self, frame: bytes) -> bool:
        """Send; False: there is no connection any more, which `closing` tells as well."""
        self._poller.used[self.socket] = self._is_readable
        try:
            self.socket.send(frame, _NOBLOCK)
        except zmq.Again:
            return False
        return True


class Listening(_Socket):
    """The socket that all connections come to."""

    def __init__(
        self, context: zmq.Context[Any], endpoint: str, settings: Settings, poller: Poller
    ) -> None:
        super().__init__(context, zmq.ROUTER, settings, poller)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            context.destroy(0)
            text = f"cannot listen at {endpoint}: {error.strerror}"
            raise ConfigError(text, setting="endpoint") from None

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[list[bytes]]:
        """Return the [route, frame] pairs that have come, at most so many."""
        return self._receive(2, frames_max)

    def send(self, route: bytes, frame: bytes) -> bool:
        """Send; False: the route leads nowhere any more."""
        self._poller.used[self.socket] = self._is_readable
        try:
            self.socket.send(route, _ROUTE)
            self.socket.send(frame, _NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return False
        return True


class _Line:
    """One of a DialShell's two connections."""

    __slots__ = ("dialer", "socket")

    def __init__(self, dialer_: Dialer) -> None:
        self.dialer = dialer_
        self.socket: Dialing | None = None


class DialShell:
    """A peer's two links to the scheduler.

    Until `Up(resumed=False)` nobody listens: what is sent before is dropped, and after another one
    everything is to be told again. What is sent while the connection is down is kept.

    Args:
        endpoint: where the scheduler listens.
        role: a `frames.Role`.
        peer: who dials.
        name: the node's name, or the client program's.
        settings: bounds and times.
        rng: for the jitter of reconnects.
    """

    def __init__(
        self, endpoint: str, role: str, peer: PeerId, name: str, settings: Settings, rng: Random
    ) -> None:
        self._endpoint = check_endpoint(endpoint)
        self._settings = settings
        self._reader = Reader.to_node if role == Role.NODE else Reader.to_client
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        self._control, self._bulk = (
            _Line(Dialer(role, peer, channel, name, python, settings, rng)) for channel in Channel
        )
        self._traffic = Traffic(self._reader(), settings)
        self._context: zmq.Context[Any] = zmq.Context()
        self._poller = Poller()
        self._started = False
        #: messages refused at decode, and junk on the sockets
        self.rejected = 0

    @property
    def up(self) -> bool:
        """Whether the control link is connected."""
        return self._control.dialer.up

    @property
    def settled(self) -> bool:
        """Whether the scheduler has acknowledged all that was sent."""
        links = self._control.dialer.link, self._bulk.dialer.link
        return not any(link.backlog or link.unacked for link in links) and not self._traffic.chunker

    def attach(self, poller: Poller) -> None:
        """Let `poller` wait for this shell's sockets, now and later; before the first turn."""
        self._poller = poller

    def turn(self, now_s: float) -> list[DialHappening]:
        """Receive what has come, do what is due; return what happened. Starts with the first."""
        out: list[DialHappening] = []
        if not self._started:
            self._started = True
            self._do(self._control, self._control.dialer.start(now_s), now_s, out)
        for line in (self._control, self._bulk):
            self._read(line, now_s, out)
            self._do(line, line.dialer.time_passed(now_s), now_s, out)
        return out

    def send(self, message: AnyMessage) -> None:
        """Queue a message on the control link; it goes with the next flush."""
        queue = self._control.dialer.link.queue
        for piece in split(message, self._message_bytes_max):
            queue(piece)

    def send_blob(self, key: bytes, payload: bytes) -> None:
        """Queue a large payload on the bulk link."""
        self._traffic.chunker.add(key, payload)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        if self._bulk.dialer.up:
            self._traffic.feed(self._bulk.dialer.link)
        for line in (self._control, self._bulk):
            if line.socket is not None:
                for frame in line.dialer.flush(now_s):
                    line.socket.send(frame)

    def deadline_s(self) -> float | None:
        """Return when the next turn is due though nothing comes; None: never."""
        if not self._started:
            return float("-inf")
        bulk = self._bulk.dialer
        if bulk.up and self._traffic.hungry(bulk.link):
            return float("-inf")
        dues_s = [line.dialer.deadline_s() for line in (self._control, self._bulk)]
        return min((due_s for due_s in dues_s if due_s is not None), default=None)

    def close(self, linger_s: float = 0.0) -> None:
        """Close for good; waits up to `linger_s` until the sockets have sent what they hold."""
        for line in (self._control, self._bulk):
            line.dialer.stop()
            if line.socket is not None:
                line.socket.close(linger_s)
                line.socket = None
        self._context.term()

    def _read(self, line: _Line, now_s: float, out: list[DialHappening]) -> None:
        socket = line.socket
        if socket is None:
            return
        for frame in (frames := socket.receive()):
            self._do(line, line.dialer.received(frame, now_s), now_s, out)
            if line.socket is not socket:
                return
        # What came before the closing is read to its end first.
        closing = "" if len(frames) == FRAMES_PER_TURN_MAX else socket.closing()
        if closing:
            self._do(line, line.dialer.closed(closing, now_s), now_s, out)

    def _do(
        self, line: _Line, commands: list[dialer.Command], now_s: float, out: list[DialHappening]
    ) -> None:
        for command in commands:
            match command:
                case dialer.Delivered():
                    self._delivered(line, command.messages, now_s, out)
                case dialer.SendFrame() if line.socket is not None:
                    line.socket.send(command.data)
                case dialer.OpenSocket():
                    line.socket = Dialing(
                        self._context, self._endpoint, self._settings, self._poller
                    )
                case dialer.CloseSocket() if line.socket is not None:
                    self.rejected += line.socket.junk_dropped
                    line.socket.close()
                    line.socket = None
                case dialer.Unknown() if line is self._bulk:
                    self._do(self._control, self._control.dialer.probe(), now_s, out)
                case Up() | Down() | Refused():
                    self._changed(line, command, now_s, out)

    def _delivered(
        self, line: _Line, raws: list[Raw], now_s: float, out: list[DialHappening]
    ) -> None:
        if line is self._control:
            self.rejected += self._traffic.take_in(raws, NO_PEER, out)
            return
        try:
            self._traffic.take_in_bulk(raws, NO_PEER, out)
        except RemoteProtocolError as error:
            self.rejected += 1
            out.append(Rejected(str(error)))
            control = self._control
            self._do(control, control.dialer.abandon(str(error), now_s), now_s, out)

    def _changed(
        self, line: _Line, change: Up | Down | Refused, now_s: float, out: list[DialHappening]
    ) -> None:
        control, bulk = self._control, self._bulk
        if line is control:
            out.append(change)
            if isinstance(change, Up) and not change.resumed:
                self._traffic = Traffic(self._reader(), self._settings)
                renewed = bulk.dialer.renew(change.epoch, change.life, now_s)
                self._do(bulk, renewed, now_s, out)
            elif isinstance(change, Refused):
                self._do(bulk, bulk.dialer.closed("refused", now_s), now_s, out)
                bulk.dialer.stop()
        elif isinstance(change, Refused):
            self._do(control, control.dialer.abandon(change.reason, now_s), now_s, out)


class ListenShell:
    """The scheduler's end of all links.

    `epoch` is this life of the scheduler.
    """

    def __init__(self, endpoint: str, settings: Settings, epoch: int) -> None:
        check_endpoint(endpoint)
        self._settings = settings
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        self._listener = Listener(settings, epoch)
        self._traffic: dict[PeerId, Traffic] = {}
        # Peers with payloads that their bulk link has not taken in whole.
        self._feeding: dict[PeerId, None] = {}
        self._pending: list[ListenHappening] = []
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = Listening(self._context, endpoint, settings, Poller())
        self._rejected = 0

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped, by reason."""
        return {
            "messages_rejected": self._rejected,
            "frames_refused": self._listener.frames_refused,
            "strangers_reset": self._listener.strangers_reset,
            "junk_dropped": self._socket.junk_dropped,
        }

    def attach(self, poller: Poller) -> None:
        """Let `poller` wait for this shell's sockets."""
        self._socket.attach(poller)

    def turn(self, now_s: float) -> list[ListenHappening]:
        """Receive what has come, do what is due; return what happened, Heard first."""
        out, self._pending = self._pending, []
        heard: dict[PeerId, None] = {}
        received, speaker = self._listener.received, self._listener.speaker
        for route, frame in self._socket.receive():
            self._do(received(route, frame, now_s), out)
            peer = speaker(route)
            if peer is not None:
                heard[peer] = None
        if self._socket.closing():
            self._listener.some_connection_closed(now_s)
        self._do(self._listener.time_passed(now_s), out)
        if heard:
            out.insert(0, Heard(list(heard)))
        return out

    def send(self, peer: PeerId, message: AnyMessage) -> bool:
        """Queue a message for a peer; False: it has no link life, nothing is queued."""
        queue = self._listener.queue
        return all(queue(peer, piece) for piece in split(message, self._message_bytes_max))

    def send_blob(self, peer: PeerId, key: bytes, payload: bytes) -> bool:
        """Queue a large payload for a peer; False: it has no link life, nothing is queued."""
        traffic = self._traffic.get(peer)
        if traffic is None:
            return False
        traffic.chunker.add(key, payload)
        self._feeding[peer] = None
        return True

    def drop(self, peer: PeerId, error: str = "", reason: str = "") -> None:
        """Forget a peer and its links; with an error's name, tell it why and not to come again."""
        self._do(self._listener.drop(peer, error, reason), self._pending)
        self._traffic.pop(peer, None)
        self._feeding.pop(peer, None)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        for peer in list(self._feeding):
            self._feed(peer)
        for route, frame in self._listener.flush(now_s):
            if not self._socket.send(route, frame):
                self._do(self._listener.unreachable(route), self._pending)

    def deadline_s(self) -> float | None:
        """Return when the next turn is due though nothing comes; None: never."""
        if self._pending:
            return float("-inf")
        for peer in self._feeding:
            bulk = self._listener.connection(peer, Channel.BULK)
            if bulk is not None and bulk.route and self._traffic[peer].hungry(bulk.link):
                return float("-inf")
        return self._listener.deadline_s()

    def close(self, linger_s: float = 0.0) -> None:
        """Close for good; waits up to `linger_s` until the socket has sent what it holds."""
        self._socket.close(linger_s)
        self._context.term()

    def _feed(self, peer: PeerId) -> None:
        traffic = self._traffic[peer]
        bulk = self._listener.connection(peer, Channel.BULK)
        if bulk is not None and bulk.route is not None:
            traffic.feed(bulk.link)
            self._listener.mark_busy(bulk)
        if not traffic.chunker:
            del self._feeding[peer]

    def _do(self, commands: list[listener.Command], out: list[ListenHappening]) -> None:
        for command in commands:
            match command:
                case listener.Delivered(peer, channel, raws):
                    self._delivered(peer, channel, raws, out)
                case listener.SendFrame(route, data):
                    if not self._socket.send(route, data):
                        self._do(self._listener.unreachable(route), out)
                case Joined(peer):
                    self._traffic[peer] = Traffic(Reader.to_scheduler(), self._settings)
                    self._feeding.pop(peer, None)
                    out.append(command)
                case Returned() | Disconnected():
                    out.append(command)

    def _delivered(
        self, peer: PeerId, channel: int, raws: list[Raw], out: list[ListenHappening]
    ) -> None:
        traffic = self._traffic[peer]
        if channel == Channel.CONTROL:
            self._rejected += traffic.take_in(raws, peer, out)
            return
        try:
            traffic.take_in_bulk(raws, peer, out)
        except RemoteProtocolError as error:
            # A payload that never becomes whole would be waited for: this peer cannot go on.
            self._rejected += 1
            out += [Rejected(str(error), peer), Disconnected(peer)]
            self.drop(peer, type(error).__name__, str(error))
