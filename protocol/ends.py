"""The two ends of a connection, as the shells use them, and which kind of socket makes them.

Never moves anything itself. Within a machine they are Unix sockets (stream_ends.py); over the
network they are ZeroMQ's (sockets.py), which is loaded only then.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from .endpoints import is_tcp
from .excuses import Stage
from .keys import Credentials, Door
from .poller import Poller
from .settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Frames taken from one socket in one turn, so that one busy peer cannot starve the rest.
FRAMES_PER_TURN_MAX: Final = 256
#: a socket that many connections come to stops when it has read so much: what one peer says at
#: once, a program that names all its tasks anew say, keeps the others waiting for one turn only
BYTES_PER_TURN: Final = 1 << 20
#: Sockets take frames that are longer than frame_bytes_max by what an encrypting transport adds.
FRAME_SLACK_BYTES: Final = 4096


class Bounds(NamedTuple):
    """What a socket over the network holds of one connection, and how frames are handed on."""

    #: that wait to be sent, and to be read; 0: without end, or what a link's window needs
    frames_out_max: int
    frames_in_max: int
    #: as views of what has come, not as copies: pairs of a frame and of its second part, or None
    views: bool


#: The link's window bounds what is on its way; a limit in the socket would only lose frames.
ENDLESS: Final = Bounds(0, 0, views=False)


class Dialing(Protocol):
    """A socket for one connection, which never reconnects: so no loss goes unseen."""

    #: how the connection, or the attempt to make one, stands
    stage: Stage
    #: messages of many parts, dropped
    junk_dropped: int

    @property
    def ready(self) -> object:
        """Whether there may be something to receive, or to be told of the connection's end."""

    def closing(self) -> str:
        """Return what there is to say of the connection's end since last asked; or ""."""

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        """Return the frames that have come, at most so many."""

    def send(self, frame: bytes) -> bool:
        """Send; False: there is no connection any more, which `closing` tells as well."""

    def let_go_in_fork(self) -> None:
        """In a forked child: close what it has of the connection, which goes on without it."""

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more."""


class Listening(Protocol):
    """The socket that all connections come to."""

    junk_dropped: int
    #: whether `closed` had something to tell when `receive` was last called
    has_news: bool

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has picked."""

    @property
    def connections(self) -> int:
        """How many connections there are, of whoever it may be."""

    @property
    def counters(self) -> "Mapping[str, int]":
        """What was dropped and refused before it was a frame of a peer's."""

    @property
    def refusals(self) -> int:
        """How much of that there was: changes with each."""

    def attach(self, poller: Poller) -> None:
        """Be waited for by this poller from now on."""

    def receive(
        self, now_s: float, frames_max: int = FRAMES_PER_TURN_MAX
    ) -> list[tuple[bytes, bytes, str]]:
        """Return (route, frame, what the sender's key proves) of what has come, at most so many."""

    def closed(self) -> list[bytes]:
        """Return the routes of those whose connection may have closed since last asked."""

    def send(self, route: bytes, frame: bytes) -> bool:
        """Send; False: the route leads nowhere any more."""

    def close(self, linger_s: float = 0.0) -> None:
        """Close; what has not been sent is sent for up to `linger_s` more."""


class Ends:
    """Makes the sockets of one shell, for an endpoint of one kind."""

    def __init__(self) -> None:
        # ZeroMQ's, once it is needed
        self._context: Any = None

    def dial(
        self,
        endpoint: str,
        settings: Settings,
        poller: Poller,
        credentials: Credentials | None,
        bounds: Bounds = ENDLESS,
    ) -> Dialing | None:
        """Return a socket that connects, or None: the process has no descriptors for one now."""
        if not is_tcp(endpoint):
            from .stream_ends import StreamDialing  # only what is used is loaded

            return StreamDialing.try_to(endpoint, settings, poller)
        from . import sockets

        context = self._context = self._context or sockets.open_context()
        return sockets.Dialing.try_to(context, endpoint, settings, poller, credentials, bounds)

    def listen(
        self,
        endpoint: str,
        settings: Settings,
        poller: Poller,
        door: Door | None,
        bounds: Bounds = ENDLESS,
    ) -> Listening:
        """Return a socket that listens; over the network once strangers were seen refused.

        Raises:
            ConfigError: nobody can listen there, or strangers are not refused.
        """
        if door is None:
            from .stream_ends import StreamListening

            return StreamListening(endpoint, settings, poller)
        from . import sockets
        from .doorcheck import try_door

        context = self._context = sockets.open_context()
        listening = sockets.Listening(context, endpoint, settings, poller, door, bounds)
        try_door(context, listening, door, settings)
        return listening

    def close(self) -> None:
        """End what the sockets were made from; they are closed."""
        if self._context is not None:
            self._context.term()
