"""The listening end of all connections: who is behind which routing id, and in which life.

Never a socket, never the clock: frames and closings in, commands out. What a frame means to tasks
is not known here.

A *route* is the routing id of one connection. A peer has up to two, control and bulk; a Hello on a
new route replaces the old one. A peer's links live from its first Hello until `drop`: a connection
that comes back in between resumes them.
"""

from collections.abc import Iterable

from msgspec import Raw, Struct

from . import frames
from .codec import decode_frame, encode
from .errors import KeyRefused, RemoteProtocolError, VersionMismatch
from .frames import PROTOCOL_VERSION, Ack, Batch, Channel, Hello, Reset, Role, Welcome
from .ids import PeerId
from .link import Link
from .settings import Settings

#: A closed connection is seen by a probe that cannot be routed. The transport may be a little
#: slower to take a route out than to tell of the closing, so the probes are repeated.
PROBE_PAUSES_S = (0.001, 0.010, 0.100)

_ROLES = (Role.CLIENT, Role.NODE)
#: what who has proven this may say it is
_MAY_BE = {Role.CLIENT: Role.CLIENT, Role.NODE: Role.NODE, Role.ADMIN: Role.CLIENT}
_RESET = encode(Reset())


class SendFrame(Struct, gc=False, frozen=True):
    """Command: send this on a route."""

    route: bytes
    data: bytes


class Delivered(Struct, gc=False, frozen=True):
    """Report: messages came from a peer, in order, each for the first time."""

    peer: PeerId
    channel: int
    messages: list[Raw]


class Joined(Struct, gc=False, frozen=True):
    """Report: a new link life begins. If the peer was known, its earlier life is over."""

    peer: PeerId
    hello: Hello
    #: what the peer's key proves it to be; on a Unix socket, whose directory is the proof, ADMIN
    proven: str


class Returned(Struct, gc=False, frozen=True):
    """Report: the connection of the control link is back in the same life; nothing was lost."""

    peer: PeerId


class Disconnected(Struct, gc=False, frozen=True):
    """Report: the connection of the control link is gone. The peer may return."""

    peer: PeerId


class Lags(Struct, gc=False, frozen=True):
    """Report: so much waits for a peer whose window is full; 0: it has caught up."""

    peer: PeerId
    queued_bytes: int
    #: BULK: of large payloads
    channel: int = Channel.CONTROL


Command = SendFrame | Delivered | Joined | Returned | Disconnected


class Connection:
    """One of a peer's two links, and the route it has at present."""

    __slots__ = ("channel", "heard_again_s", "lags", "link", "peer", "route")

    def __init__(self, peer: PeerId, channel: int, settings: Settings) -> None:
        self.peer = peer
        self.channel = channel
        self.link = Link(settings)
        self.route: bytes | None = None
        #: its peer need not be reported as heard before
        self.heard_again_s = 0.0
        #: whether more waits for it than it should
        self.lags = False


class _Life:
    """A peer in one link life."""

    __slots__ = ("connections", "hello", "number", "proven")

    def __init__(self, hello: Hello, proven: str, number: int, settings: Settings) -> None:
        peer = PeerId(hello.peer)
        self.hello = hello
        self.proven = proven
        self.number = number
        self.connections = tuple(
            Connection(peer, channel, settings) for channel in (Channel.CONTROL, Channel.BULK)
        )


class Listener:
    """Answers Hello, keeps the links, tells who speaks.

    Args:
        settings: bounds and times.
        epoch: this life of the scheduler.
        machine: see `frames.Hello`.
        admits: see `frames.Welcome`.
    """

    def __init__(
        self, settings: Settings, epoch: int, machine: str = "", admits: tuple[bytes, ...] = ()
    ) -> None:
        self._settings = settings
        self._machine = machine
        self._admits = admits
        self._epoch = epoch
        self._lives: dict[PeerId, _Life] = {}
        self._lives_begun = 0
        #: the connection of each route
        self.routes: dict[bytes, Connection] = {}
        #: peers that have said Hello, and nothing since
        self._strangers: dict[PeerId, None] = {}
        # Connections with something to send, and those with something to acknowledge in time. The
        # latter are in the order of their dues, since all wait equally long.
        self._busy: dict[Connection, None] = {}
        self._owing: dict[Connection, None] = {}
        # When to look for links whose batches are not acknowledged; None: there are none.
        self._look_s: float | None = None
        # More than that is worth a report.
        self._lag_bytes = min(settings.output_backlog_bytes_max, settings.results_backlog_bytes_max)
        #: what the last flushes left behind; for whoever takes and clears it
        self.lagging: list[Lags] = []
        #: when routes are to be probed, the next one first; and which
        self.probes_due_s: list[float] = []
        self._doubtful: dict[bytes, None] = {}
        #: rises with every frame that is not simply one more of a known peer: as long as it does
        #: not, nothing of what follows does
        self.unusual = 0
        #: frames dropped because they made no sense where they came
        self.frames_refused = 0
        #: frames of connections that had not said Hello, or whose peer was dropped
        self.strangers_reset = 0
        #: connections whose Hello does not fit: another version, a role that is not theirs
        self.hellos_refused = 0
        #: connections that were told to come again, since too many have said nothing but Hello
        self.hellos_put_off = 0
        #: why a frame or a Hello was last refused
        self.last_refusal = ""

    @property
    def refusals(self) -> int:
        """How much was refused: rises with each."""
        refused = self.frames_refused + self.strangers_reset
        return refused + self.hellos_refused + self.hellos_put_off

    def __len__(self) -> int:
        """How many peers have a link life."""
        return len(self._lives)

    def received(self, route: bytes, frame: bytes, now_s: float, proven: str = "") -> list[Command]:
        """A frame came on a route, from who is `proven` to be that; "": no keys are used here."""
        connection = self.routes.get(route)
        try:
            read = decode_frame(frame)
            if (
                connection is not None
                and (type(read) is Batch or type(read) is Ack)
                and proven == self._lives[connection.peer].proven
            ):
                link = connection.link
                delivered = link.received(read, now_s, len(frame))
                due_s = link.ack_due_s
                if due_s is not None and due_s > now_s and not link.queued_bytes:
                    self._owing[connection] = None
                else:
                    # The window may have opened.
                    self._busy[connection] = None
                if delivered:
                    if self._strangers and connection.channel == Channel.CONTROL:
                        self._strangers.pop(connection.peer, None)
                    return [Delivered(connection.peer, connection.channel, delivered)]
                return []
            self.unusual += 1
            if connection is None:
                return self._from_stranger(route, read, proven)
            if proven != self._lives[connection.peer].proven:
                # The one that was here has gone, and another came by its route.
                return [*self.unreachable(route), *self._from_stranger(route, read, proven)]
            if isinstance(read, Hello) and (read.peer, read.channel) == (
                connection.peer, connection.channel,
            ):  # fmt: skip
                self.frames_refused += 1  # it came twice
                return []
            raise RemoteProtocolError(f"a {type(read).__name__} is out of place")
        except RemoteProtocolError as error:
            self.unusual += 1
            self.frames_refused += 1
            self.last_refusal = str(error)
            if connection is None:
                # Perhaps a Hello of another version of the protocol: it should know why.
                return [_refuse(route, error)]
            # The link may yet be good: the peer is to say Hello on a new connection.
            return [SendFrame(route, _RESET), *self.unreachable(route)]

    def connection(self, peer: PeerId, channel: Channel = Channel.CONTROL) -> Connection | None:
        """Return a peer's connection; None: it has no link life."""
        life = self._lives.get(peer)
        return None if life is None else life.connections[channel]

    def queue(self, peer: PeerId, encoded: bytes, channel: Channel = Channel.CONTROL) -> bool:
        """Queue one encoded message for a peer; False: it has no link life, nothing is queued."""
        life = self._lives.get(peer)
        if life is None:
            return False
        connection = life.connections[channel]
        connection.link.queue(encoded)
        self._busy[connection] = None
        return True

    def mark_busy(self, connection: Connection) -> None:
        """Flush this connection too: something was queued on its link."""
        self._busy[connection] = None

    def flush(self, now_s: float) -> list[tuple[bytes, bytes]]:
        """Return (route, frame) pairs to send now, in order."""
        for connection in self._owing:
            due_s = connection.link.ack_due_s
            if due_s is not None and now_s < due_s:
                break
            self._busy[connection] = None
        if self._look_s is not None and now_s >= self._look_s:
            self._look(now_s)
        sends: list[tuple[bytes, bytes]] = []
        if not self._busy:
            return sends
        lag_bytes = self._lag_bytes
        busy, self._busy = self._busy, {}
        for connection in busy:
            route = connection.route
            link = connection.link
            if route is None:
                if link.queued_bytes > lag_bytes:
                    self._judge_lag(connection)
                continue
            for frame in link.flush(now_s):
                sends.append((route, frame))  # noqa: PERF401  # mostly one frame
            if link.queued_bytes > lag_bytes or connection.lags:
                self._judge_lag(connection)
            if self._look_s is None:
                self._look_s = link.ask_due_s
            if link.ack_due_s is not None:
                self._owing[connection] = None
            elif connection in self._owing:
                del self._owing[connection]
        return sends

    def _look(self, now_s: float) -> None:
        """Find the links that are to ask their peers what they have received.

        All links are looked at together, and seldom: that costs less than to keep them in order.
        """
        waiting = False
        for connection in self.routes.values():
            due_s = connection.link.ask_due_s
            if due_s is not None:
                waiting = True
                if now_s >= due_s:
                    self._busy[connection] = None
        self._look_s = now_s + self._settings.resend_after_s / 2 if waiting else None

    def _judge_lag(self, connection: Connection) -> None:
        queued_bytes = connection.link.queued_bytes
        lags = queued_bytes > self._lag_bytes
        if connection.channel == Channel.CONTROL and (lags or connection.lags):
            connection.lags = lags
            self.lagging.append(Lags(connection.peer, queued_bytes if lags else 0))

    def unreachable(self, route: bytes) -> list[Command]:
        """The route leads nowhere any more: its connection has closed."""
        connection = self.routes.pop(route, None)
        if connection is None:
            return []
        connection.route = None
        self._busy.pop(connection, None)
        self._owing.pop(connection, None)
        if connection.channel == Channel.CONTROL:
            return [Disconnected(connection.peer)]
        return []

    def may_have_closed(self, routes: Iterable[bytes], now_s: float) -> None:
        """The connections of these routes have closed, or others in their place: probe them."""
        self._doubtful.update(dict.fromkeys(route for route in routes if route in self.routes))
        if self._doubtful:
            # Not later than was due: something may close all the time.
            first = self.probes_due_s[:1]
            self.probes_due_s = first + [now_s + pause_s for pause_s in PROBE_PAUSES_S]

    def time_passed(self, now_s: float) -> list[Command]:
        """Do what is due: probes."""
        if not self.probes_due_s or now_s < self.probes_due_s[0]:
            return []
        self.probes_due_s = [due_s for due_s in self.probes_due_s if due_s > now_s]
        commands: list[Command] = []
        for route in self._doubtful:
            connection = self.routes.get(route)
            if connection is not None:
                self._owing.pop(connection, None)  # a probe acknowledges
                commands.append(SendFrame(route, connection.link.acknowledge()))
        if not self.probes_due_s:
            self._doubtful.clear()
        return commands

    def drop(self, peer: PeerId, error: str = "", reason: str = "") -> list[Command]:
        """Forget a peer and its links; with an error's name, tell it why and not to come again."""
        life = self._lives.pop(peer, None)
        self._strangers.pop(peer, None)
        if life is None:
            return []
        commands: list[Command] = []
        for connection in life.connections:
            route = connection.route
            self._busy.pop(connection, None)
            self._owing.pop(connection, None)
            if route is None:
                continue
            del self.routes[route]
            if error and connection.channel == Channel.CONTROL:
                commands.append(SendFrame(route, encode(frames.Refused(error, reason))))
        return commands

    def deadline_s(self) -> float | None:
        """Return when `time_passed` and `flush` are due at the latest; None: never."""
        due_s = self._look_s
        if self.probes_due_s and (due_s is None or self.probes_due_s[0] < due_s):
            due_s = self.probes_due_s[0]
        for connection in self._owing:
            ack_s = connection.link.ack_due_s
            if ack_s is None:
                continue
            return ack_s if due_s is None or ack_s < due_s else due_s
        return due_s

    # ------------------------------------------------------------------------------------ Hello

    def _from_stranger(self, route: bytes, read: frames.Frame, proven: str) -> list[Command]:
        if not isinstance(read, Hello):
            self.strangers_reset += 1
            return [SendFrame(route, _RESET)]
        refusal = self._refusal(read, proven)
        if refusal is not None:
            self.hellos_refused += 1
            self.last_refusal = str(refusal)
            return [_refuse(route, refusal)]
        if read.channel == Channel.BULK:
            return self._bulk(route, read)
        peer = PeerId(read.peer)
        life = self._lives.get(peer)
        if life is not None and (read.epoch, read.life) == (self._epoch, life.number):
            connection = life.connections[Channel.CONTROL]
            try:
                connection.link.resume(read.received)
            except RemoteProtocolError:
                # The two ends disagree about what was said: a new life is all that helps.
                self.frames_refused += 1
            else:
                return [self._welcome(route, connection, life, resumed=True), Returned(peer)]
        strangers_max = self._settings.strangers_max
        if life is None and len(self._strangers) >= strangers_max:
            # No refusal, after which it would not come again: it may be one who has work here.
            self.hellos_put_off += 1
            self.last_refusal = (
                f"{read.name} is to come again: {strangers_max} others have said Hello and not yet"
                " who they are"
            )
            return [SendFrame(route, _RESET)]
        self.drop(peer)
        self._strangers[peer] = None
        self._lives_begun += 1
        self._lives[peer] = life = _Life(read, proven, self._lives_begun, self._settings)
        connection = life.connections[Channel.CONTROL]
        return [
            self._welcome(route, connection, life, resumed=False),
            Joined(peer, read, proven or Role.ADMIN),
        ]

    def _bulk(self, route: bytes, hello: Hello) -> list[Command]:
        peer = PeerId(hello.peer)
        life = self._lives.get(peer)
        if life is None or (hello.epoch, hello.life) != (self._epoch, life.number):
            self.strangers_reset += 1
            return [SendFrame(route, _RESET)]
        connection = life.connections[Channel.BULK]
        try:
            connection.link.resume(hello.received)
        except RemoteProtocolError:
            # Payloads are lost: the whole life is, and the control link is to know.
            self.frames_refused += 1
            control = life.connections[Channel.CONTROL].route
            self.drop(peer)
            resets: list[Command] = [
                SendFrame(lost, _RESET) for lost in (control, route) if lost is not None
            ]
            return [*resets, Disconnected(peer)]
        return [self._welcome(route, connection, life, resumed=True)]

    def _welcome(
        self, route: bytes, connection: Connection, life: _Life, *, resumed: bool
    ) -> SendFrame:
        if connection.route is not None:
            del self.routes[connection.route]
        connection.route = route
        self.routes[route] = connection
        self._busy[connection] = None
        received = connection.link.received_seq
        welcome = Welcome(self._epoch, received, resumed, life.number, self._machine, self._admits)
        return SendFrame(route, encode(welcome))

    def _refusal(self, hello: Hello, proven: str) -> Exception | None:
        if hello.protocol != PROTOCOL_VERSION:
            return VersionMismatch(
                f"{hello.name} speaks protocol {hello.protocol}, this scheduler speaks"
                f" {PROTOCOL_VERSION}; install the same version of Drumbeat on both sides"
            )
        if hello.role not in _ROLES:
            return RemoteProtocolError(f"hello.role: {hello.role!r} is neither client nor node")
        if hello.channel not in (Channel.CONTROL, Channel.BULK):
            return RemoteProtocolError(f"hello.channel: {hello.channel} is neither 0 nor 1")
        if proven and hello.role != _MAY_BE.get(proven):
            return KeyRefused(
                f"{hello.name} comes as a {hello.role} with the key of a {proven}; give it the"
                f" cluster file, or the address, of a {hello.role}"
            )
        known = self._lives.get(PeerId(hello.peer))
        if known is not None and known.hello.role != hello.role:
            return RemoteProtocolError(f"hello.role: this peer is a {known.hello.role}")
        if known is not None and known.proven != proven:
            return KeyRefused(f"{hello.name}: this peer has come with a key of another role")
        return None


def _refuse(route: bytes, error: Exception) -> SendFrame:
    refused = frames.Refused(type(error).__name__, str(error))
    return SendFrame(route, encode(refused))
