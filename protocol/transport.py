"""The shells around the sockets: what comes is decoded, what is to go is sent.

Never decides: dialer, listener, link and blobs do, the shells here carry out. Never reads the
clock: whoever turns a loop hands `now_s` in.

A loop around a shell:

    poller = Poller(); poller.add(some_fd); shell.attach(poller)
    while running:
        ready = poller.wait(timeout until shell.deadline_s() and the core's deadline)
        for happening in shell.turn(clock.now_s()): ...       tell the core, send what it wants
        shell.flush(clock.now_s())                            once a turn, always
"""

import sys
from random import Random

from msgspec import Raw

from . import dialer, listener
from .codec import Reader, encode, message_bytes_max, split_long
from .dialer import Dialer, Down, Refused, Unreachable, Up
from .doorcheck import try_door
from .endpoints import check_endpoint, check_keys
from .errors import RemoteProtocolError
from .excuses import patience_s
from .frames import Channel, Role
from .ids import NO_PEER, PeerId
from .keys import Credentials, Door
from .listener import Disconnected, Joined, Lags, Listener, Returned
from .messages import AnyMessage
from .poller import Poller
from .route import Route
from .settings import Settings
from .sockets import FRAMES_PER_TURN_MAX, Dialing, Listening, open_context
from .traffic import NEVER_S, NOW_S, Blob, Heard, Line, Message, Reached, Rejected, Traffic

__all__ = [
    "FRAMES_PER_TURN_MAX", "Blob", "DialHappening", "DialShell", "Disconnected", "Down", "Heard",
    "Joined", "Lags", "ListenHappening", "ListenShell", "Message", "Poller", "Reached", "Refused",
    "Rejected", "Returned", "Unreachable", "Up",
]  # fmt: skip

#: A peer that speaks all the time is reported as heard this often.
HEARD_EACH_S = 0.05
_CONTROL = int(Channel.CONTROL)

DialHappening = Up | Down | Refused | Unreachable | Message | Blob | Rejected
ListenHappening = (
    Joined | Returned | Disconnected | Heard | Lags | Reached | Message | Blob | Rejected
)


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
        credentials: needed for tcp, where nothing goes without keys.

    Raises:
        ConfigError: the endpoint cannot be used, or not with or without credentials.
    """

    def __init__(
        self,
        endpoint: str,
        role: str,
        peer: PeerId,
        name: str,
        settings: Settings,
        rng: Random,
        credentials: Credentials | None = None,
    ) -> None:
        endpoint = check_keys(check_endpoint(endpoint), credentials is not None)
        self._credentials = credentials
        self._route = Route(endpoint, settings.handshake_timeout_s)
        self._settings = settings
        self._reader = Reader.to_node if role == Role.NODE else Reader.to_client
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        self._control, self._bulk = (
            Line(Dialer(role, peer, channel, name, python, settings, rng)) for channel in Channel
        )
        self._traffic = Traffic(self._reader(), settings)
        self._lines = (self._control, self._bulk)
        self._context = open_context()
        self._poller = Poller()
        self._started = False
        #: messages refused at decode, and junk on the sockets
        self.rejected = 0

    @property
    def up(self) -> bool:
        """Whether the control link is connected."""
        return self._control.dialer.up

    @property
    def queued_bytes(self) -> int:
        """Bytes of messages that no batch carries yet: the window is full, or nobody is there."""
        return self._control.dialer.link.queued_bytes

    @property
    def confirmed_s(self) -> float:
        """When the last batch was sent of this link's life that the scheduler has acknowledged."""
        return self._control.dialer.link.confirmed_s

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
        for line in self._lines:
            socket = line.socket
            if socket is not None and (socket.frames.state or socket.news.state):
                self._read(line, socket, now_s, out)
            due_s = line.dialer.due_s
            if due_s is not None and now_s >= due_s:
                self._do(line, line.dialer.time_passed(now_s), now_s, out)
        if self._route.failing:
            out += self._route.excuses(now_s)
        return out

    def send(self, message: AnyMessage) -> None:
        """Queue a message on the control link; it goes with the next flush."""
        control = self._control
        control.due_s = NOW_S
        queue = control.dialer.link.queue
        encoded = encode(message)
        if len(encoded) <= self._message_bytes_max:
            queue(encoded)
            return
        for piece in split_long(message, encoded, self._message_bytes_max):
            queue(piece)

    def send_blob(self, key: bytes, payload: bytes | memoryview) -> None:
        """Queue a large payload on the bulk link."""
        self._traffic.chunker.add(key, payload)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        traffic, bulk = self._traffic, self._bulk
        if traffic.chunker.pending and bulk.dialer.up:
            traffic.feed(bulk.dialer.link)
            bulk.due_s = NOW_S
        # Before the first turn a dialer knows of no time, though it is to begin at once.
        for line in self._lines if self._started else ():
            if now_s >= line.due_s:
                if line.socket is not None:
                    for frame in line.dialer.flush(now_s):
                        line.socket.send(frame)
                due_s = line.dialer.deadline_s()
                line.due_s = NEVER_S if due_s is None else due_s

    def deadline_s(self) -> float | None:
        """Return when the next turn is due though nothing comes; None: never."""
        bulk = self._bulk.dialer
        if self._traffic.chunker.pending and bulk.up and self._traffic.hungry(bulk.link):
            return NOW_S
        due_s = min(self._control.due_s, self._bulk.due_s)
        return None if due_s == NEVER_S else due_s

    def close(self, linger_s: float = 0.0) -> None:
        """Close for good; waits up to `linger_s` until the sockets have sent what they hold."""
        for line in self._lines:
            line.dialer.stop()
            if line.socket is not None:
                line.socket.close(linger_s)
                line.socket = None
        self._context.term()

    def _read(self, line: Line, socket: Dialing, now_s: float, out: list[DialHappening]) -> None:
        line.due_s = NOW_S
        frames = socket.receive()
        for frame in frames:
            commands = line.dialer.received(frame, now_s)
            if commands:
                self._do(line, commands, now_s, out)
                if line.socket is not socket:
                    return
        # What came before the closing is read to its end first.
        is_read = socket.news.state and len(frames) < FRAMES_PER_TURN_MAX
        if is_read and (closing := socket.closing()):
            again = line.dialer.closed(closing, now_s, patience_s(socket.stage))
            self._do(line, again, now_s, out)

    def _do(
        self, line: Line, commands: list[dialer.Command], now_s: float, out: list[DialHappening]
    ) -> None:
        line.due_s = NOW_S
        for command in commands:
            if type(command) is dialer.Delivered:
                if line is self._control:
                    self.rejected += self._traffic.take_in(command.messages, NO_PEER, out)
                else:
                    self._take_in_bulk(command.messages, now_s, out)
            else:
                self._do_rarely(line, command, now_s, out)

    def _do_rarely(
        self, line: Line, command: dialer.Command, now_s: float, out: list[DialHappening]
    ) -> None:
        match command:
            case dialer.SendFrame() if line.socket is not None:
                line.socket.send(command.data)
            case dialer.OpenSocket():
                if line is self._control:
                    self._route.begun(now_s)
                line.socket = Dialing.try_to(
                    self._context,
                    self._route.endpoint,
                    self._settings,
                    self._poller,
                    self._credentials,
                )
                if line.socket is None:
                    why = "no descriptors for a socket"
                    self._do(line, line.dialer.closed(why, now_s), now_s, out)
            case dialer.CloseSocket() if line.socket is not None:
                if line is self._control:
                    self._route.failed(line.socket.stage, now_s)
                self.rejected += line.socket.junk_dropped
                line.socket.close()
                line.socket = None
            case dialer.Unknown() if line is self._bulk:
                self._do(self._control, self._control.dialer.probe(), now_s, out)
            case Up() | Down() | Refused():
                self._changed(line, command, now_s, out)

    def _take_in_bulk(self, raws: list[Raw], now_s: float, out: list[DialHappening]) -> None:
        try:
            self._traffic.take_in_bulk(raws, NO_PEER, out)
        except RemoteProtocolError as error:
            self.rejected += 1
            out.append(Rejected(str(error)))
            control = self._control
            self._do(control, control.dialer.abandon(str(error), now_s), now_s, out)

    def _changed(
        self, line: Line, change: Up | Down | Refused, now_s: float, out: list[DialHappening]
    ) -> None:
        control, bulk = self._control, self._bulk
        if line is control:
            out.append(change)
            if not isinstance(change, Down):
                self._route.connected()
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

    Args:
        endpoint: where to listen.
        settings: bounds and times.
        epoch: this life of the scheduler.
        door: who may come; needed for tcp, where nothing goes without keys.

    Raises:
        ConfigError: nobody can listen there, or the endpoint and the door do not go together.
    """

    def __init__(
        self, endpoint: str, settings: Settings, epoch: int, door: Door | None = None
    ) -> None:
        endpoint = check_keys(check_endpoint(endpoint), door is not None)
        self._settings = settings
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        self._listener = Listener(settings, epoch)
        self._traffic: dict[PeerId, Traffic] = {}
        # Peers with payloads that their bulk link has not taken in whole.
        self._feeding: dict[PeerId, None] = {}
        # Peers with marks that they have not reached.
        self._marked: dict[PeerId, None] = {}
        self._pending: list[ListenHappening] = []
        self._context = open_context()
        self._socket = Listening(self._context, endpoint, settings, Poller(), door)
        self._rejected = 0
        # Of what has come as last looked at: as long as that is so nothing more was refused.
        self._unusual = 0
        #: whether `refusals` may have risen; for whoever looks and takes it back
        self.may_have_refused = True
        if door is not None:
            try_door(self._context, self._socket, door, settings)

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has picked if it was asked to."""
        return self._socket.endpoint

    @property
    def connections(self) -> int:
        """How many connections there are, of whoever it may be."""
        return self._socket.connections

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped, by reason."""
        return {
            "messages_rejected": self._rejected,
            "frames_refused": self._listener.frames_refused,
            "strangers_reset": self._listener.strangers_reset,
            "hellos_refused": self._listener.hellos_refused,
            "hellos_put_off": self._listener.hellos_put_off,
            **self._socket.counters,
        }

    @property
    def refusals(self) -> int:
        """How much was refused of connections: rises with each; `counters` tells what."""
        return self._listener.refusals + self._socket.refusals

    @property
    def last_refusal(self) -> str:
        """Why a frame or a Hello was last refused."""
        return self._listener.last_refusal

    def attach(self, poller: Poller) -> None:
        """Let `poller` wait for this shell's sockets."""
        self._socket.attach(poller)

    def turn(self, now_s: float) -> list[ListenHappening]:
        """Receive what has come, do what is due; return what happened, Heard first."""
        out, self._pending = self._pending, []
        heard: list[PeerId] = []
        listener_, socket, marked = self._listener, self._socket, self._marked
        for route, frame, proven in socket.receive():
            commands = listener_.received(route, frame, now_s, proven)
            if commands:
                first = commands[0]
                if type(first) is listener.Delivered and first.channel == _CONTROL:
                    peer = first.peer
                    self._rejected += self._traffic[peer].take_in(first.messages, peer, out)
                else:
                    self._do(commands, out)
            # One who says nothing is heard too: by its frames.
            connection = listener_.routes.get(route)
            if connection is None:
                continue
            if now_s >= connection.heard_again_s:
                connection.heard_again_s = now_s + HEARD_EACH_S
                heard.append(connection.peer)
            if connection.peer in marked:
                self._see_marks(connection.peer, out)
        unusual = listener_.unusual + socket.junk_dropped
        if socket.has_news or unusual != self._unusual:
            self._unusual = unusual
            self.may_have_refused = True
            closed = socket.closed()
            if closed:
                listener_.may_have_closed(closed, now_s)
        if listener_.probes_due_s:
            self._do(listener_.time_passed(now_s), out)
        if listener_.lagging:
            out[:0] = listener_.lagging
            listener_.lagging.clear()
        if heard:
            out.insert(0, Heard(heard))
        return out

    def send(self, peer: PeerId, message: AnyMessage) -> bool:
        """Queue a message for a peer; False: it has no link life, nothing is queued."""
        encoded = encode(message)
        if len(encoded) <= self._message_bytes_max:
            return self._listener.queue(peer, encoded)
        pieces = split_long(message, encoded, self._message_bytes_max)
        return all(self._listener.queue(peer, piece) for piece in pieces)

    def send_blob(self, peer: PeerId, key: bytes, payload: bytes) -> bool:
        """Queue a large payload for a peer; False: it has no link life, nothing is queued."""
        traffic = self._traffic.get(peer)
        if traffic is None:
            return False
        traffic.chunker.add(key, payload)
        self._feeding[peer] = None
        return True

    def mark(self, peer: PeerId, mark: int) -> None:
        """Report (`Reached`) when the peer has received all that was sent to it so far.

        With the peer's link life its marks end.
        """
        control = self._listener.connection(peer)
        bulk = self._listener.connection(peer, Channel.BULK)
        if control is not None and bulk is not None:
            self._traffic[peer].mark(mark, control.link, bulk.link)
            self._marked[peer] = None
            self._see_marks(peer, self._pending)

    def drop(self, peer: PeerId, error: str = "", reason: str = "") -> None:
        """Forget a peer and its links; with an error's name, tell it why and not to come again."""
        self._do(self._listener.drop(peer, error, reason), self._pending)
        self._traffic.pop(peer, None)
        self._feeding.pop(peer, None)
        self._marked.pop(peer, None)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        if self._feeding:
            for peer in list(self._feeding):
                self._feed(peer)
        send = self._socket.send
        for route, frame in self._listener.flush(now_s):
            if not send(route, frame):
                self._do(self._listener.unreachable(route), self._pending)

    def deadline_s(self) -> float | None:
        """Return when the next turn is due though nothing comes; None: never."""
        if self._pending:
            return NOW_S
        if self._feeding:
            for peer in self._feeding:
                bulk = self._listener.connection(peer, Channel.BULK)
                if bulk is not None and bulk.route and self._traffic[peer].hungry(bulk.link):
                    return NOW_S
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
        waiting_bytes = traffic.chunker.pending_bytes
        lags = waiting_bytes > self._settings.results_backlog_bytes_max
        if bulk is not None and (lags or bulk.lags):
            bulk.lags = lags
            told_bytes = waiting_bytes if lags else 0
            self._listener.lagging.append(Lags(peer, told_bytes, Channel.BULK))
        if not traffic.chunker:
            del self._feeding[peer]

    def _see_marks(self, peer: PeerId, out: list[ListenHappening]) -> None:
        control = self._listener.connection(peer)
        bulk = self._listener.connection(peer, Channel.BULK)
        if control is None or bulk is None:
            return
        traffic = self._traffic[peer]
        marks = traffic.reached(control.link, bulk.link)
        if marks:
            out.append(Reached(peer, marks))
            if not traffic.marked:
                del self._marked[peer]

    def _do(self, commands: list[listener.Command], out: list[ListenHappening]) -> None:
        for command in commands:
            match command:
                case listener.Delivered(peer, _, raws):
                    self._take_in_bulk(peer, raws, out)
                case listener.SendFrame(route, data):
                    if not self._socket.send(route, data):
                        self._do(self._listener.unreachable(route), out)
                case Joined(peer):
                    self._traffic[peer] = Traffic(Reader.to_scheduler(), self._settings)
                    self._feeding.pop(peer, None)
                    self._marked.pop(peer, None)
                    out.append(command)
                case Returned() | Disconnected():
                    out.append(command)

    def _take_in_bulk(self, peer: PeerId, raws: list[Raw], out: list[ListenHappening]) -> None:
        try:
            self._traffic[peer].take_in_bulk(raws, peer, out)
        except RemoteProtocolError as error:
            # A payload that never becomes whole would be waited for: this peer cannot go on.
            self._rejected += 1
            out += [Rejected(str(error), peer), Disconnected(peer)]
            self.drop(peer, type(error).__name__, str(error))
