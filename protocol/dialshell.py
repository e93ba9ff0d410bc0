"""A peer's end of its two links to the scheduler: the shell around their sockets.

Never decides: dialer, link and blobs do. Never reads the clock; see transport.py for the loop
around it.
"""

import sys
from collections.abc import Callable
from random import Random

from msgspec import Raw

from . import dialer
from .carriage import Carriage
from .codec import Reader, encode, message_bytes_max, split_long
from .dialer import Dialer, Down, Refused, Unreachable, Up
from .endpoints import check_endpoint, check_keys, is_tcp
from .ends import FRAMES_PER_TURN_MAX, Dialing, Ends
from .errors import RemoteProtocolError
from .excuses import patience_s
from .frames import Channel, Role
from .ids import NO_PEER, PeerId
from .keys import Credentials
from .lending import send_payload, traffic_with
from .messages import AnyMessage
from .poller import Poller
from .route import Route
from .settings import Settings
from .traffic import NEVER_S, NOW_S, Blob, Line, Message, Rejected, Traffic

DialHappening = Up | Down | Refused | Unreachable | Message | Blob | Rejected


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
        machine: see `frames.Hello`.
        asked_s: when the process was started, if its user waits since then.
        carriage: brings large payloads past the scheduler; None: all go through it.

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
        machine: str = "",
        asked_s: float | None = None,
        carriage: Carriage | None = None,
    ) -> None:
        endpoint = check_keys(check_endpoint(endpoint), credentials is not None)
        self._credentials = credentials
        self._machine = machine
        self._carriage = carriage
        self._scheduler = endpoint
        self._route = Route(endpoint, settings.handshake_timeout_s, asked_s)
        self._settings = settings
        self._reader = Reader.to_node if role == Role.NODE else Reader.to_client
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        eager = not is_tcp(endpoint)
        self._control, self._bulk = (
            Line(Dialer(role, peer, channel, name, python, settings, rng, machine, eager=eager))
            for channel in Channel
        )
        self._traffic = Traffic(self._reader(), settings)
        self._lines = (self._control, self._bulk)
        self._ends = Ends()
        self._poller = Poller()
        self._started = False
        #: see `Traffic`; set before the first turn
        self.admits: Callable[[int], bool] | None = None
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
        return not any(link.backlog or link.unacked for link in links) and self._traffic.settled

    def attach(self, poller: Poller) -> None:
        """Let `poller` wait for this shell's sockets, now and later; before the first turn."""
        self._poller = poller
        if self._carriage is not None:
            poller.add(self._carriage.wake_fd)

    def turn(self, now_s: float) -> list[DialHappening]:
        """Receive what has come, do what is due; return what happened. Starts with the first."""
        out: list[DialHappening] = []
        if not self._started:
            self._started = True
            self._find_place()
            self._do(self._control, self._control.dialer.start(now_s), now_s, out)
        for line in self._lines:
            socket = line.socket
            if socket is not None and socket.ready:
                self._read(line, socket, now_s, out)
            due_s = line.dialer.due_s
            if due_s is not None and now_s >= due_s:
                if line is self._control:
                    self._find_place()
                self._do(line, line.dialer.time_passed(now_s), now_s, out)
        if self._route.failing:
            out += self._route.excuses(now_s)
        if self._carriage is not None:
            out += self._carriage.turn()
        self._take_in_bulk([], now_s, out)
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

    def send_blob(self, key: bytes, payload: bytes | memoryview, id_: bytes = b"") -> None:
        """Queue a large payload on the bulk link, or the word where it is to be had.

        Args:
            key: as which the scheduler expects it.
            payload: the bytes.
            id_: names them wherever they lie; empty: the scheduler needs them itself.
        """
        carriage = self._carriage
        if id_ and carriage is not None and carriage.offer(self._traffic, key, payload, id_):
            return
        send_payload(self._traffic, key, payload)

    def flush(self, now_s: float) -> None:
        """Send what is queued, as far as the windows allow."""
        traffic, bulk = self._traffic, self._bulk
        if traffic.chunker.pending and bulk.dialer.up:
            traffic.feed(bulk.dialer.link)
            bulk.due_s = NOW_S
            if self._carriage is not None and self._control.dialer.link.hurry(now_s):
                # A result counts once its submitter has it, and all that it was told before.
                self._control.due_s = NOW_S
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
        if self._route.failing and self._route.due_s < due_s:
            due_s = self._route.due_s
        return None if due_s == NEVER_S else due_s

    def let_go_in_fork(self) -> None:
        """In a forked child: have nothing of the connections, which are the parent's."""
        for line in self._lines:
            if line.socket is not None:
                line.socket.let_go_in_fork()
        if self._carriage is not None:
            self._carriage.let_go_in_fork()

    def close(self, linger_s: float = 0.0) -> None:
        """Close for good; waits up to `linger_s` until the sockets have sent what they hold."""
        for line in self._lines:
            line.dialer.stop()
            if line.socket is not None:
                line.socket.close(linger_s)
                line.socket = None
        self._ends.close()
        if self._carriage is not None:
            self._carriage.close()

    def _find_place(self) -> None:
        """Find out where others reach this peer: that may change with each connection."""
        if self._carriage is not None:
            self._control.dialer.place = self._carriage.place(self._scheduler)

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
        if len(frames) < FRAMES_PER_TURN_MAX and (closing := socket.closing()):
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
                line.socket = self._ends.dial(
                    self._route.endpoint, self._settings, self._poller, self._credentials
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
            self._traffic.take_in_waiting(NO_PEER, out)
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
                reader = self._reader()
                carriage = self._carriage
                if carriage is not None:
                    carriage.new_life(change.admits)
                self._traffic = traffic_with(
                    reader, self._settings, self._machine, change.machine, carriage
                )
                self._traffic.admits = self.admits
                renewed = bulk.dialer.renew(change.epoch, change.life, now_s)
                self._do(bulk, renewed, now_s, out)
            elif isinstance(change, Refused):
                self._do(bulk, bulk.dialer.closed("refused", now_s), now_s, out)
                bulk.dialer.stop()
        elif isinstance(change, Refused):
            self._do(control, control.dialer.abandon(change.reason, now_s), now_s, out)
