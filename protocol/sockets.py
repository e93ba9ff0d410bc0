"""Sockets with their monitors: the only door to ZeroMQ.

Never decides, and never reads the clock: protocol/transport.py moves what comes and goes here. Over
the network nothing goes without keys: there is no other way to bind or connect in here.
"""

import errno
import struct
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, Final

import zmq
from zmq.backend import zmq_poll
from zmq.utils import z85

from . import curve
from . import door as rule
from .comers import UNKNOWN, Comers
from .descriptors import connections_max
from .ends import BYTES_PER_TURN, ENDLESS, FRAME_SLACK_BYTES, FRAMES_PER_TURN_MAX, Bounds
from .errors import ConfigError
from .excuses import Stage
from .gate import Gate, hang_up
from .keys import Credentials, Door
from .poller import WAITING, Poller, Source
from .porter import Porter
from .settings import Settings

_CLOSINGS: Final = (
    zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip
#: what a dialler over the network wants to know besides: how far it came
_DIALLING: Final = _CLOSINGS | zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
#: each event wakes the loop, and strangers make them: no more than are looked at
_LISTENING: Final = (
    zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)  # fmt: skip
_ACCEPTED: Final = int(zmq.EVENT_ACCEPTED)
_BOUND: Final = int(zmq.EVENT_LISTENING)
_CONNECTED: Final = int(zmq.EVENT_CONNECTED)
_DISCONNECTED: Final = int(zmq.EVENT_DISCONNECTED)
_OPEN: Final = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_KEY_REFUSED: Final = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
#: those of the connection, not of the key
_NO_DETAIL: Final = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
_HANDSHAKES_FAILED: Final = _NO_DETAIL, int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
#: where ZeroMQ asks who may come in; a name within the process
_ZAP: Final = "inproc://zeromq.zap.01"
#: newcomers let in again when so much of what there may be is free
_FREE_PART: Final = 16
_EVENT: Final = struct.Struct("=hi")
# Plain numbers: arithmetic with pyzmq's enumerations costs more than the calls they go to.
_READABLE: Final = int(zmq.POLLIN)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
#: what is handed on of a frame
_COPY: Final = attrgetter("bytes")


def open_context() -> "zmq.Context[Any]":
    """Return what sockets are made from; `term` ends it, once they are closed."""
    return zmq.Context()


def new_keys() -> tuple[bytes, bytes]:
    """Return a new pair of keys: the public one and the secret one."""
    public, secret = zmq.curve_keypair()
    return z85.decode(public), z85.decode(secret)


def public_key(secret_key: bytes) -> bytes:
    """Return the public key that belongs to a secret one."""
    return z85.decode(zmq.curve_public(z85.encode(secret_key)))


def _asker(socket: Any) -> Callable[[], object]:
    # Asking takes in what the I/O thread has to say. This way is cheaper than the socket's option,
    # which is looked up in an enumeration first.
    return partial(zmq_poll, [(socket, _READABLE)], 0)


def _monitor(context: "zmq.Context[Any]", socket: Any, events: int) -> Any:
    """Return where the news of a socket's connections come."""
    address = f"inproc://monitor-{socket.FD}"
    socket.monitor(address, events)
    monitor = context.socket(zmq.PAIR)
    # Without end: the thread that does all input and output would wait for whoever reads here.
    monitor.setsockopt(zmq.RCVHWM, 0)
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    return monitor


class _Socket:
    """A socket with its monitor, both waited for by a poller."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        kind: int,
        settings: Settings,
        poller: Poller,
        events: int,
        bounds: Bounds,
    ) -> None:
        self._socket = socket = context.socket(kind)
        socket.setsockopt(zmq.MAXMSGSIZE, settings.frame_bytes_max + FRAME_SLACK_BYTES)
        socket.setsockopt(zmq.HANDSHAKE_IVL, max(1, int(settings.handshake_timeout_s * 1000)))
        socket.setsockopt(zmq.SNDHWM, bounds.frames_out_max)
        socket.setsockopt(zmq.RCVHWM, bounds.frames_in_max)
        socket.setsockopt(zmq.LINGER, 0)
        self._monitor = monitor = _monitor(context, socket, events)
        #: there is something to receive, or to be told of connections, when their `state` says so
        self.frames = Source(socket.FD, _asker(socket))
        self.news = Source(monitor.FD, _asker(monitor))
        # The methods of the class below the one that is for people, which wraps `send`.
        plain: Any = super(zmq.Socket, socket)
        # Not copied, a frame knows whether others follow: asking the socket costs twice as much.
        self._take: Callable[..., Any] = plain.recv
        self._give: Callable[..., object] = plain.send
        self._views = bounds.views
        self._content: Callable[[Any], Any] = self._pair if bounds.views else _COPY
        self.junk_dropped = 0
        self._join(poller)

    def _set(self, options: curve.Options) -> None:
        for name, value in options:
            self._socket.setsockopt(getattr(zmq, name), value)

    def attach(self, poller: Poller) -> None:
        """Be waited for by this poller from now on."""
        self._part()
        self._join(poller)

    def _join(self, poller: Poller) -> None:
        self._poller = poller
        poller.add_source(self.frames)
        poller.add_source(self.news)

    def _part(self) -> None:
        self._poller.remove_source(self.frames)
        self._poller.remove_source(self.news)

    def _drains(self) -> bool:
        """Say whether to read until nothing is left, now that this socket will be read.

        Who was asleep was woken by what is mostly a single frame: asking for a second one comes
        for free with the question before the next sleep. But what came before a closing is to be
        read with it.
        """
        frames = self.frames
        drains = frames.state == WAITING or self.news.state != 0
        frames.state = 0
        if not frames.used:
            self._poller.use(frames)
        return drains

    def _pair(self, frame: Any) -> tuple[memoryview, memoryview | None]:
        second = self._take(_NOBLOCK, False) if frame.more else None
        if second is not None and second.more:
            self._drop_rest()
        return frame.buffer, second and second.buffer

    def _send(self, frame: bytes, data: memoryview | None) -> None:
        self._give(frame, _NOBLOCK if data is None else _MORE)
        if data is not None:  # it is encrypted from where it lies, and kept until then
            self._give(data, _NOBLOCK, copy=False)

    def _drop_rest(self) -> None:
        """Drop the parts that a frame should not have."""
        self.junk_dropped += 1
        while self._take(_NOBLOCK, False).more:
            pass

    def _told(self) -> list[tuple[int, int]]:
        """Return (event, value) of what the monitor has to tell since last asked."""
        news = self.news
        news.state = 0
        told: list[tuple[int, int]] = []
        while news.ask():
            told.append(_EVENT.unpack(self._monitor.recv_multipart(_NOBLOCK)[0]))
        return told

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more, in the background."""
        self._part()
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger_s * 1000))


class Dialing(_Socket):
    """A socket for one connection: ZeroMQ never reconnects it, so no loss goes unseen."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        endpoint: str,
        settings: Settings,
        poller: Poller,
        credentials: Credentials | None,
        bounds: Bounds = ENDLESS,
    ) -> None:
        events = _CLOSINGS if credentials is None else _DIALLING
        super().__init__(context, zmq.DEALER, settings, poller, events, bounds)
        #: how the connection, or the attempt to make one, stands: an `excuses.Stage`
        self.stage = Stage.BEGUN
        self._socket.setsockopt(zmq.RECONNECT_IVL, -1)
        if credentials is not None:
            own = public_key(credentials.secret_key)
            self._set(curve.dialling_options(credentials, own, endpoint, settings))
        else:  # a stranger who tries the scheduler's door, which may have an IPv6 address
            self._set(curve.family_options(endpoint))
        self._socket.connect(endpoint)

    @classmethod
    def try_to(
        cls,
        context: "zmq.Context[Any]",
        endpoint: str,
        settings: Settings,
        poller: Poller,
        credentials: Credentials | None,
        bounds: Bounds = ENDLESS,
    ) -> "Dialing | None":
        """Return such a socket, or None: the process has no descriptors for one now."""
        try:
            return cls(context, endpoint, settings, poller, credentials, bounds)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return None

    @property
    def ready(self) -> bool:
        """See `ends.Dialing`."""
        return bool(self.frames.state or self.news.state)

    def closing(self) -> str:
        """Return what the monitor has to say of closed connections since last asked; or ""."""
        said = ""
        if not self.news.state:
            return said
        for event, value in self._told():
            if event == _CONNECTED:
                self.stage = Stage.CONNECTED
            elif event == _OPEN:
                self.stage = Stage.OPEN
            else:
                said = str(zmq.Event(event).name).lower().replace("_", " ")
                if event == _KEY_REFUSED:
                    self.stage = Stage.FULL if value == rule.FULL else Stage.KEY_REFUSED
                elif event in _HANDSHAKES_FAILED:
                    silent = value == errno.EAGAIN
                    self.stage = Stage.SILENT if silent else Stage.STRANGER
                elif event == _DISCONNECTED and self.stage is Stage.CONNECTED:
                    self.stage = Stage.HUNG_UP
        return said

    def let_go_in_fork(self) -> None:
        """Nothing: what ZeroMQ has open in a forked child is not to be had."""

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        """Return the frames that have come, at most so many."""
        received: list[bytes] = []
        if not self.frames.state:
            return received
        drains = self._drains()
        take, ask, content = self._take, self.frames.ask, self._content
        try:
            for _ in range(frames_max):
                frame = take(_NOBLOCK, False)
                if frame.more and not self._views:
                    self._drop_rest()
                else:
                    received.append(content(frame))
                if not drains or not ask():
                    break
        except zmq.Again:
            pass  # the news was something else
        return received

    def send(self, frame: bytes, data: memoryview | None = None) -> bool:
        """Send, `data` as a second part; False: no connection any more, as `closing` says too."""
        if not self.frames.used:
            self._poller.use(self.frames)
        try:
            self._send(frame, data)
        except zmq.Again:
            return False
        return True


class Listening(_Socket):
    """The socket that all connections come to."""

    def __init__(
        self,
        context: "zmq.Context[Any]",
        endpoint: str,
        settings: Settings,
        poller: Poller,
        door: Door,
        bounds: Bounds = ENDLESS,
    ) -> None:
        # It answers before anybody can ask.
        asked = context.socket(zmq.ROUTER)
        asked.setsockopt(zmq.LINGER, 0)
        asked.bind(_ZAP)
        self._porter = Porter(asked, Source(asked.FD, _asker(asked)), door)
        #: what the key of whoever is behind a route proves
        self._proven: dict[bytes, str] = {}
        self._comers = Comers()
        self._connections_max = 0
        self._gate: Gate | None = None
        # How often nobody was let in any more, since there were as many as there may be.
        self._door_shut = 0
        #: whether `closed` had something to tell when `receive` was last called
        self.has_news = False
        super().__init__(context, zmq.ROUTER, settings, poller, _LISTENING, bounds)
        self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        try:
            # Before bind: they count from then on.
            self._set(curve.listening_options(door, endpoint, settings, bounds.frames_in_max))
            self._connections_max = connections_max(settings.connections_max)
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.close()
            context.term()
            # ZeroMQ says ENODEV, "No such device", of what is neither an address nor a name.
            why = error.strerror if error.errno != errno.ENODEV else "no address of this machine"
            text = f"cannot listen at {endpoint}: {why}"
            raise ConfigError(text, setting="endpoint") from None
        self.closed()

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has picked."""
        return str(self._socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode())

    @property
    def connections(self) -> int:
        """How many connections there are, of whoever it may be."""
        return len(self._comers)

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped and refused before it was a frame of a peer's."""
        porter = self._porter
        return {
            "junk_dropped": self.junk_dropped,
            "handshakes_failed": self._comers.failed,
            "ended_unheard": self._comers.unheard,
            "keys_refused": porter.keys_refused,
            "connections_refused": porter.full,
            "door_shut": self._door_shut,
        }

    @property
    def refusals(self) -> int:
        """How much of that there was: changes with each."""
        refused = self.junk_dropped + self._comers.silent + self._door_shut
        return refused + self._porter.keys_refused + self._porter.full

    def forget_strangers(self) -> None:
        """Two who were refused came to test that: one with a foreign key, one with none."""
        self._comers.refused()  # its closing may not have been told yet
        self._porter.keys_refused -= 1

    def _join(self, poller: Poller) -> None:
        super()._join(poller)
        poller.add_source(self._porter.source)

    def _part(self) -> None:
        super()._part()
        self._poller.remove_source(self._porter.source)

    def answer(self) -> None:
        """Answer who wants to come in."""
        porter = self._porter
        if porter.source.state:
            self._poller.use(porter.source)
            porter.answer(full=len(self._comers) > self._connections_max)

    def closed(self) -> list[bytes]:
        """Return the routes of those whose connection may have closed since last asked.

        Who wants to come in is answered here as well: by then it is known how many there are.
        """
        routes = self._hear() if self.news.state or self._porter.source.state else []
        self.answer()
        return routes

    def _hear(self) -> list[bytes]:
        routes: list[bytes] = []
        comers = self._comers
        for event, value in self._told():
            if event == _ACCEPTED:
                comers.came(value)
            elif event == _OPEN:
                comers.entered()
            elif event == _DISCONNECTED:
                gone = comers.gone(value)
                for route in gone:
                    self._proven.pop(route, None)
                routes += gone
            elif event == _BOUND:
                self._gate = Gate(value)
            elif event == _KEY_REFUSED:
                comers.refused()
        comers.settle()
        if self._gate is not None:
            self._swing(self._gate)
        return routes

    def _swing(self, gate: Gate) -> None:
        most, count = self._connections_max, len(self._comers)
        if count >= most and not gate.shut:
            self._door_shut += 1
            gate.turn(shut=True)
        elif gate.shut and count <= most - max(1, most // _FREE_PART):
            gate.turn(shut=False)

    def receive(
        self,
        now_s: float,  # noqa: ARG002  # ZeroMQ looks after those who say nothing itself
        frames_max: int = FRAMES_PER_TURN_MAX,
    ) -> list[tuple[bytes, bytes, str]]:
        """Return (route, frame, what the sender's key proves) of what has come, at most so many."""
        received: list[tuple[bytes, bytes, str]] = []
        self.has_news = bool(self.news.state or self._porter.source.state)
        if not self.frames.state:
            return received
        drains = self._drains()
        take, ask, content = self._take, self.frames.ask, self._content
        known = self._proven.get
        received_bytes = 0
        try:
            for _ in range(frames_max):
                # ZeroMQ puts the route before whatever comes, so there is always a second part.
                route, frame = take(_NOBLOCK), take(_NOBLOCK, False)
                proven = known(route)
                # A peer may choose its own route, and so another's who has just gone.
                if proven is None or proven != str(frame.get("User-Id")):
                    proven = self._meet(route, frame)
                if frame.more and not self._views:
                    self._drop_rest()
                else:
                    received.append((route, content(frame), proven))
                    received_bytes += len(frame)
                if not drains or received_bytes >= BYTES_PER_TURN or not ask():
                    break
        except zmq.Again:
            pass  # the news was something else
        return received

    def _meet(self, route: bytes, frame: Any) -> str:
        """Learn who is behind a route, and on which descriptor."""
        self._proven[route] = proven = str(frame.get("User-Id"))
        try:
            descriptor = frame.get(zmq.SRCFD)
        except zmq.ZMQError:
            descriptor = UNKNOWN  # its version of ZeroMQ's protocol is one without properties
        self._comers.spoke(descriptor, route)
        return proven

    def send(self, route: bytes, frame: bytes, data: memoryview | None = None) -> bool:
        """Send; False: the route leads nowhere any more. See `Dialing.send`."""
        if not self.frames.used:
            self._poller.use(self.frames)
        try:
            self._give(route, _MORE)
            self._send(frame, data)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return False
        return True

    def hang_up(self, route: bytes) -> None:
        """End a connection; `closed` tells of it as of any other that has ended."""
        descriptor = self._comers.descriptor_of(route)
        if descriptor != UNKNOWN:
            hang_up(descriptor, int(self.endpoint.rpartition(":")[2]))

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more, in the background."""
        super().close(linger_s)
        if self._gate is not None:
            self._gate.close()
        self._porter.close()
