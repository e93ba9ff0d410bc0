"""The dialling end of a connection: when to connect, what to say first, when to try again.

Never a socket, never the clock, never chance of its own: events in, commands out.

States: IDLE (not asked to connect) -> OPENING (socket open, Hello sent) -> UP (Welcome came), from
either of the two back to WAITING (for the next try), and STOPPED for good. The link, with all that
is queued and unacknowledged, outlives the connections of one link life.
"""

from enum import IntEnum
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from . import frames
from .codec import decode_frame, encode
from .errors import RemoteProtocolError
from .frames import PROTOCOL_VERSION, Ack, Batch, Channel, Hello, Reset, Welcome
from .ids import PeerId
from .link import Link
from .settings import Settings

if TYPE_CHECKING:
    from random import Random

#: Until it has first been connected, an eager dialler tries again at once for so long: a scheduler
#: on this machine is likely just starting.
EAGER_S = 2.0
EAGER_MIN_S = 0.010
EAGER_MAX_S = 0.020
#: A peer with nothing to say gives a sign of life so often.
KEEPALIVE_S = 10.0


class OpenSocket(Struct, gc=False, frozen=True):
    """Command: open a fresh socket to the endpoint."""


class CloseSocket(Struct, gc=False, frozen=True):
    """Command: close the socket, dropping what it still holds."""


class SendFrame(Struct, gc=False, frozen=True):
    """Command: send this on the open socket."""

    data: bytes


class Delivered(Struct, gc=False, frozen=True):
    """Report: messages came, in order, each for the first time."""

    messages: list[Raw]


class Up(Struct, gc=False, frozen=True):
    """Report: the link is up. Not resumed: a new link life, everything is to be told again."""

    epoch: int
    resumed: bool
    life: int
    #: the scheduler's, where it takes and gives payloads as files of it
    machine: str = ""
    #: see `frames.Welcome`
    admits: tuple[bytes, ...] = ()


class Down(Struct, gc=False, frozen=True):
    """Report: the connection that was up is gone; the dialler tries again."""

    reason: str


class Unknown(Struct, gc=False, frozen=True):
    """Report: the scheduler does not know this connection; the dialler tries again."""


class Refused(Struct, gc=False, frozen=True):
    """Report: the scheduler will not have us, in plain words; the dialler has stopped."""

    #: name of an error class
    error: str
    reason: str


class Unreachable(Struct, gc=False, frozen=True):
    """Report: why there is no connection yet, or no more; the dialler goes on trying."""

    #: in plain words
    reason: str
    #: "KeyRefused": trying goes on for ever and helps nobody; else "SchedulerUnreachable"
    error: str = "SchedulerUnreachable"


Command = OpenSocket | CloseSocket | SendFrame | Delivered | Up | Down | Unknown | Refused


class State(IntEnum):
    """Where a dialler stands."""

    IDLE = 0
    WAITING = 1
    OPENING = 2
    UP = 3
    STOPPED = 4


_UP = State.UP  # looked up once: it is asked for several times in every turn


class Dialer:
    """Keeps one connection up, for ever, until it is stopped or refused.

    Args:
        role: a `frames.Role`.
        peer: who dials.
        channel: the control link decides about lives; the bulk link follows it by `renew`.
        name: the node's name, or the client program's.
        python: "3.11".
        settings: bounds and times.
        rng: for the jitter.
        machine: see `frames.Hello`.
        eager: whether the first attempts follow each other at once; not over the network.
    """

    def __init__(
        self,
        role: str,
        peer: PeerId,
        channel: Channel,
        name: str,
        python: str,
        settings: Settings,
        rng: "Random",
        machine: str = "",
        *,
        eager: bool = True,
    ) -> None:
        self._role = role
        self._machine = machine
        self._eager_s = EAGER_S if eager else 0.0
        self._peer = peer
        self._channel = channel
        self._name = name
        self._python = python
        self._settings = settings
        self._rng = rng
        self.link = Link(settings)
        self.state = State.IDLE
        #: the link life: the scheduler's epoch and the life's number within it; 0: none yet
        self.epoch = 0
        self.life = 0
        #: when `time_passed` has something to do; None: never
        self.due_s: float | None = None
        #: where others get what this peer keeps, see `frames.Hello.data` and `data_key`
        self.place: tuple[str, bytes] = ("", b"")
        self._eager_until_s = 0.0
        self._silent_until_s = 0.0
        self._keepalive_s = min(KEEPALIVE_S, settings.client_silence_s / 6)
        self.connects = 0
        self.frames_refused = 0

    @property
    def up(self) -> bool:
        """Whether the connection stands."""
        return self.state is _UP

    def start(self, now_s: float) -> list[Command]:
        """Connect, and stay connected."""
        if self.state is not State.IDLE:
            return []
        self._eager_until_s = now_s + self._eager_s
        return self._open(now_s)

    def renew(self, epoch: int, life: int, now_s: float) -> list[Command]:
        """Begin with an empty link in the life that the control link has just begun (bulk)."""
        if self.state is State.STOPPED:
            return []
        commands = self._close()
        self.epoch, self.life = epoch, life
        self.link = Link(self._settings)
        return commands + self._open(now_s)

    def abandon(self, reason: str, now_s: float) -> list[Command]:
        """Connect anew and in a new life: what was said in this one does not add up."""
        if self.state is State.STOPPED:
            return []
        # The epoch stays: it tells a scheduler of a later one that this process has something over.
        self.life = 0
        return self._retry(reason, now_s)

    def probe(self) -> list[Command]:
        """Find out whether the scheduler still knows this connection: if not, it says so."""
        return [SendFrame(self.link.acknowledge())] if self.up else []

    def stop(self) -> list[Command]:
        """Never connect again. The socket is left to whoever closes it (it may have to linger)."""
        self.state = State.STOPPED
        self.due_s = None
        return []

    def closed(self, reason: str, now_s: float, patience_s: float = 0.0) -> list[Command]:
        """The connection closed, or could not be made; try again after `patience_s` at least."""
        if self.state not in (State.OPENING, State.UP):
            return []
        return self._retry(reason, now_s, patience_s)

    def received(self, frame: bytes, now_s: float) -> list[Command]:
        """A frame came on the open socket."""
        state = self.state
        if state is not _UP and state is not State.OPENING:
            return []
        try:
            read = decode_frame(frame)
            if state is _UP and (type(read) is Batch or type(read) is Ack):
                delivered = self.link.received(read, now_s, len(frame))
                return [Delivered(delivered)] if delivered else []
            if isinstance(read, Welcome) and state is State.OPENING:
                return self._welcomed(read, now_s)
            if self._is_out_of_time(read):
                self.frames_refused += 1
                return []
        except RemoteProtocolError as error:
            self.frames_refused += 1
            return self._retry(str(error), now_s)
        if isinstance(read, frames.Refused):
            commands = self._close()
            self.stop()
            return [*commands, Refused(read.error, read.reason)]
        if isinstance(read, Reset):
            reset = self._retry("the scheduler does not know this connection", now_s)
            return [*reset, Unknown()]
        self.frames_refused += 1
        return self._retry(f"a {type(read).__name__} is out of place", now_s)

    def _is_out_of_time(self, read: frames.Frame) -> bool:
        """Say whether that frame makes sense, but came twice, or before the Welcome."""
        if self.state is not _UP:
            return type(read) is Batch or type(read) is Ack
        return isinstance(read, Welcome) and (read.epoch, read.life) == (self.epoch, self.life)

    def time_passed(self, now_s: float) -> list[Command]:
        """Do what is due. Receive first what has come: a late loop is no reason to give up."""
        if self.due_s is None or now_s < self.due_s:
            return []
        if self.state is State.WAITING:
            return self._open(now_s)
        return self._retry(f"no welcome within {self._settings.handshake_timeout_s:g} s", now_s)

    def flush(self, now_s: float) -> list[bytes]:
        """Return the frames to send now: all that is queued, as far as the window allows."""
        if self.state is not _UP:
            return []
        frames = self.link.flush(now_s)
        if not frames:
            if now_s < self._silent_until_s:
                return frames
            frames.append(self.link.acknowledge())
        self._silent_until_s = now_s + self._keepalive_s
        return frames

    def deadline_s(self) -> float | None:
        """Return when `time_passed` and `flush` are due at the latest; None: never."""
        if self.state is not _UP:
            return self.due_s
        first_s, link = self._silent_until_s, self.link
        if link.ack_due_s is not None and link.ack_due_s < first_s:
            first_s = link.ack_due_s
        if link.ask_due_s is not None and link.ask_due_s < first_s:
            first_s = link.ask_due_s
        return first_s

    # ----------------------------------------------------------------------------------- inside

    def _open(self, now_s: float) -> list[Command]:
        self.state = State.OPENING
        self.due_s = now_s + self._settings.handshake_timeout_s
        hello = Hello(
            PROTOCOL_VERSION,
            self._role,
            self._peer,
            int(self._channel),
            self.epoch,
            self.link.received_seq,
            self._python,
            self._name,
            self.life,
            self._machine,
            *self.place,
        )
        return [OpenSocket(), SendFrame(encode(hello))]

    def _close(self) -> list[Command]:
        return [CloseSocket()] if self.state in (State.OPENING, State.UP) else []

    def _welcomed(self, welcome: Welcome, now_s: float) -> list[Command]:
        same_life = (welcome.epoch, welcome.life) == (self.epoch, self.life)
        if welcome.resumed:
            if not same_life:
                raise RemoteProtocolError("welcome.life: not the life that was asked for")
            try:
                self.link.resume(welcome.received)
            except RemoteProtocolError:
                # The two ends disagree about what was said: only a new life helps.
                self.life = 0
                raise
        else:
            self.epoch, self.life = welcome.epoch, welcome.life
            self.link = Link(self._settings)
        self.state = State.UP
        self.due_s = None
        self._silent_until_s = now_s + self._keepalive_s
        self.connects += 1
        return [Up(welcome.epoch, welcome.resumed, welcome.life, welcome.machine, welcome.admits)]

    def _retry(self, reason: str, now_s: float, patience_s: float = 0.0) -> list[Command]:
        was_up = self.state is State.UP
        commands = self._close()
        self.state = State.WAITING
        if not self.connects and now_s < self._eager_until_s:
            pause_s = self._rng.uniform(EAGER_MIN_S, EAGER_MAX_S)
        else:
            settings = self._settings
            pause_s = self._rng.uniform(
                settings.reconnect_min_s, max(settings.reconnect_min_s, settings.reconnect_max_s)
            )
        self.due_s = now_s + max(pause_s, patience_s)
        if was_up:
            commands.append(Down(reason))
        return commands
