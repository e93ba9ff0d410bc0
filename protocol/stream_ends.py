"""Sockets for connections within one machine: Unix sockets that speak ZeroMQ's protocol.

Never decides, and never reads the clock. Nothing stands between a loop and the
kernel: no thread has to be woken for each frame, as ZeroMQ's own would be (docs/decisions.md, 46).
Who may come is said by the directory in which the socket lies, so there are no keys.
"""

import errno
import os
import socket
from contextlib import suppress
from typing import Final

from . import zmtp
from .descriptors import connections_max
from .ends import BYTES_PER_TURN, FRAMES_PER_TURN_MAX
from .errors import ConfigError
from .excuses import Stage
from .poller import Poller
from .settings import Settings
from .streams import Stream, Streams, close_all

_BACKLOG: Final = 1024
#: let in in one turn
_COMERS_PER_TURN_MAX: Final = 64
#: nobody is let in as long as these are what the system says
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: kept for one who does not read; those who are honest wait for acknowledgements long before
_UNSENT_PIECES_MAX: Final = 4096
#: newcomers let in again when so much of what there may be is free
_FREE_PART: Final = 16
_SCHEME: Final = "ipc://"

_DIALLER_SAYS: Final = zmtp.first_words(zmtp.DEALER)
_LISTENER_SAYS: Final = zmtp.first_words(zmtp.ROUTER)


def _cannot_listen(endpoint: str, error: OSError) -> str:
    return f"cannot listen at {endpoint}: {error.strerror or error}"


class StreamDialing(Streams):
    """See `ends.Dialing`."""

    def __init__(self, endpoint: str, settings: Settings, poller: Poller) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        super().__init__(poller)
        #: how the connection, or the attempt to make one, stands: an `excuses.Stage`
        self.stage = Stage.BEGUN
        self._stream = stream = Stream(connection, zmtp.ROUTER, settings)
        self._streams[stream.fd] = stream
        poller.join(self, stream.fd)
        self._told = False
        # Frames that wait until the other end has said what it is: ZeroMQ's library takes one that
        # comes before it has said so for a command, and hangs up.
        self._held: list[bytes] = []
        try:
            connection.connect(endpoint.removeprefix(_SCHEME))
        except OSError as error:
            self._end(error.strerror or str(error))
        else:
            self.stage = Stage.CONNECTED
            stream.say(_DIALLER_SAYS)

    @classmethod
    def try_to(cls, endpoint: str, settings: Settings, poller: Poller) -> "StreamDialing | None":
        """Return such a socket, or None: the process has no descriptors for one now."""
        try:
            return cls(endpoint, settings, poller)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            return None

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        """See `ends.Dialing`."""
        stream = self._stream
        if stream.ended:
            return []
        frames = self._receive(stream, frames_max)
        if self.stage is not Stage.OPEN and stream.is_open:
            self.stage = Stage.OPEN
            for frame in self._held:
                self.send(frame)
            self._held.clear()
        if stream.ended:
            self._end(stream.ended)
        return frames

    def _end(self, why: str) -> None:
        stream = self._stream
        if self.stage is Stage.CONNECTED:
            self.stage = Stage.HUNG_UP if stream.ended == "disconnected" else Stage.STRANGER
        stream.ended = why
        self._poller.leave(stream.fd)
        self.ready[stream.fd] = None  # until it has been told

    def closing(self) -> str:
        """See `ends.Dialing`."""
        ended = self._stream.ended
        if not ended or self._told:
            return ""
        self._told = True
        self.ready.clear()
        return ended

    def send(self, frame: bytes) -> bool:
        """See `ends.Dialing`."""
        stream = self._stream
        if stream.ended:
            return False
        if self.stage is not Stage.OPEN:
            self._held.append(frame)
            return True
        sent = stream.send(frame)
        if stream.unsent:
            self._settle(stream)
        return sent

    def let_go_in_fork(self) -> None:
        """See `ends.Dialing`: or the other end would not see the parent's death."""
        self._stream.let_go_in_fork()

    def close(self, linger_s: float = 0.0) -> None:
        """See `ends.Dialing`."""
        stream = self._stream
        if not stream.ended:
            self._poller.leave(stream.fd)
        self._poller.remove_group(self)
        self.ready.clear()
        close_all([stream], linger_s)


class StreamListening(Streams):
    """See `ends.Listening`."""

    def __init__(self, endpoint: str, settings: Settings, poller: Poller) -> None:
        self._settings = settings
        self.endpoint = endpoint
        self._path = endpoint.removeprefix(_SCHEME)
        try:
            self._listener = listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(_cannot_listen(endpoint, error), setting="endpoint") from None
        try:
            # Of a scheduler that has ended without taking it away; who runs holds a lock.
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            listener.bind(self._path)
            listener.listen(_BACKLOG)
            self._inode = os.stat(self._path).st_ino
        except OSError as error:
            listener.close()
            raise ConfigError(_cannot_listen(endpoint, error), setting="endpoint") from None
        listener.setblocking(False)
        super().__init__(poller)
        self._routes: dict[bytes, Stream] = {}
        self._last_route = 0
        # Let in, and have not said yet what they are.
        self._strangers: dict[int, Stream] = {}
        self._closed: list[bytes] = []
        #: whether `closed` has something to tell, or more was refused, since it was asked
        self.has_news = False
        self._connections_max = connections_max(settings.connections_max)
        # What is on its way to one who reads, and answers to what makes no sense.
        self._unsent_max = 2 * settings.link_window_bytes_max + (1 << 20)
        self._shut = False
        self._door_shut = self._handshakes_failed = self._unheard = 0
        self._fd = listener.fileno()
        poller.join(self, self._fd)

    @property
    def connections(self) -> int:
        """How many connections there are, of whoever it may be."""
        return len(self._streams)

    @property
    def counters(self) -> dict[str, int]:
        """What was dropped and refused before it was a frame of a peer's."""
        return {
            "junk_dropped": self.junk_dropped,
            "handshakes_failed": self._handshakes_failed,
            "ended_unheard": self._unheard,
            "keys_refused": 0,
            "connections_refused": 0,
            "door_shut": self._door_shut,
        }

    @property
    def refusals(self) -> int:
        """How much of that there was: changes with each."""
        return self.junk_dropped + self._handshakes_failed + self._unheard + self._door_shut

    def _fds(self) -> list[int]:
        return super()._fds() + ([] if self._shut else [self._fd])

    def receive(
        self, now_s: float, frames_max: int = FRAMES_PER_TURN_MAX
    ) -> list[tuple[bytes, bytes, str]]:
        """See `ends.Listening`."""
        received: list[tuple[bytes, bytes, str]] = []
        ready = self.ready
        if ready:
            received_bytes = 0
            streams = self._streams
            for fd in tuple(ready):
                stream = streams.get(fd)
                if stream is None:
                    del ready[fd]
                    if fd == self._fd and not self._let_in(now_s):
                        self._shut_door()
                    continue
                route = stream.route
                for frame in self._receive(stream, frames_max - len(received)):
                    received.append((route, frame, ""))
                    stream.spoke = True
                received_bytes += stream.read_bytes
                if stream.ended:
                    self._end(stream)
                elif stream.incoming.more or received_bytes >= BYTES_PER_TURN:
                    self._put_behind(fd)
                    break
        if self._strangers or self._shut:
            self._tend(now_s)
        return received

    def _put_behind(self, fd: int) -> None:
        """One that has more to say waits until others have been heard."""
        if fd in self.ready:
            del self.ready[fd]
            self.ready[fd] = None

    def _let_in(self, now_s: float) -> bool:
        """Let in who has come; return False if there is no room for more."""
        for _ in range(_COMERS_PER_TURN_MAX):
            if len(self._streams) >= self._connections_max:
                return False
            try:
                connection, _address = self._listener.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno in _NO_ROOM:
                    return False
                continue  # it has gone meanwhile
            stream = Stream(connection, zmtp.DEALER, self._settings)
            self._last_route += 1
            stream.route = self._last_route.to_bytes(8, "big")
            stream.since_s = now_s
            self._streams[stream.fd] = self._strangers[stream.fd] = stream
            self._routes[stream.route] = stream
            self._poller.join(self, stream.fd)
            stream.say(_LISTENER_SAYS)
        return True

    def _shut_door(self) -> None:
        """Let nobody in until there is room: those who come wait in the kernel."""
        self._shut = self.has_news = True
        self._door_shut += 1
        self._poller.leave(self._fd)

    def _tend(self, now_s: float) -> None:
        """End those who say nothing, and let others in again."""
        settings = self._settings
        for stream in list(self._strangers.values()):
            if stream.spoke:
                del self._strangers[stream.fd]
                continue
            limit_s = settings.enter_timeout_s if stream.is_open else settings.handshake_timeout_s
            if now_s >= stream.since_s + limit_s:
                stream.ended = "it says nothing"
                self._end(stream)
        most = self._connections_max
        free = len(self._streams) <= most - max(1, most // _FREE_PART)
        if self._shut and free and self._let_in(now_s):
            self._shut = False
            self._poller.join(self, self._fd)

    def _end(self, stream: Stream) -> None:
        fd = stream.fd
        self._poller.leave(fd)
        del self._streams[fd], self._routes[stream.route]
        self._strangers.pop(fd, None)
        stream.close()
        self.has_news = True
        if stream.spoke:
            self._closed.append(stream.route)
        elif stream.is_open:
            self._unheard += 1
        else:
            self._handshakes_failed += 1

    def closed(self) -> list[bytes]:
        """See `ends.Listening`."""
        closed, self._closed = self._closed, []
        self.has_news = False
        return closed

    def send(self, route: bytes, frame: bytes) -> bool:
        """See `ends.Listening`."""
        stream = self._routes.get(route)
        if stream is None:
            return False
        sent = stream.send(frame)
        if stream.unsent:
            if stream.unsent_bytes > self._unsent_max or len(stream.unsent) > _UNSENT_PIECES_MAX:
                stream.ended = "it does not read"
                self._end(stream)
                return False
            self._settle(stream)
        return sent

    def close(self, linger_s: float = 0.0) -> None:
        """See `ends.Listening`."""
        for stream in self._streams.values():
            self._poller.leave(stream.fd)
        close_all(self._streams.values(), linger_s)
        self._streams.clear()
        self._routes.clear()
        if not self._shut:
            self._poller.leave(self._fd)
        self._poller.remove_group(self)
        self.ready.clear()
        # As long as it is not closed no other file has its number.
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        self._listener.close()
