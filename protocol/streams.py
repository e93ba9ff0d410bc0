"""Streams that speak ZeroMQ's protocol: what comes is read, what is to go is written.

Never decides, and never waits but where it is closed.
"""

import select
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from . import clock, zmtp
from .ends import FRAME_SLACK_BYTES
from .poller import Group, Poller
from .settings import Settings

#: read at once
_READ_BYTES: Final = 1 << 18
#: what the kernel may hold, as far as the system allows: the larger, the fewer turns a value takes
_KERNEL_BYTES: Final = 1 << 20
#: shorter frames are joined with their head, which costs less than a call with both
_JOINED_BYTES_MAX: Final = 1 << 14

#: an error instead of a signal, which ends programs that have SIGPIPE as the system has it
_NO_SIGNAL: Final = getattr(socket, "MSG_NOSIGNAL", 0)


class Stream:
    """One end of one connection.

    Args:
        connection: is this stream's from now on.
        peer_kind: see `zmtp.Incoming`.
        settings: bounds.
    """

    __slots__ = (
        "_connection", "_write", "ended", "fd", "incoming", "read_bytes", "route", "since_s",
        "spoke", "unsent", "unsent_bytes", "wants_room",
    )  # fmt: skip

    def __init__(self, connection: socket.socket, peer_kind: bytes, settings: Settings) -> None:
        connection.setblocking(False)
        with suppress(OSError):  # then it is as large as it is
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BYTES)
        self._connection = connection
        self._write = connection.send
        self.incoming = zmtp.Incoming(peer_kind, settings.frame_bytes_max + FRAME_SLACK_BYTES)
        self.fd = connection.fileno()
        #: what the kernel had no room for
        self.unsent: deque[memoryview] = deque()
        self.unsent_bytes = 0
        #: how much was read when `receive` was last called
        self.read_bytes = 0
        #: whether the poller was told that
        self.wants_room = False
        #: why there is nothing more to be read, or ""
        self.ended = ""
        #: how it is called at the listening end
        self.route = b""
        #: when it was let in there
        self.since_s = 0.0
        #: whether a frame of it was read there
        self.spoke = False

    @property
    def is_open(self) -> bool:
        """Whether the other end has said what it is."""
        return self.incoming.is_open

    def receive(self, buffer: memoryview, frames_max: int) -> list[bytes]:
        """Return the frames that have come, at most so many.

        Args:
            buffer: for this call.
            frames_max: more of what has been read waits, see `zmtp.Incoming`.
        """
        incoming = self.incoming
        data = b""
        self.read_bytes = 0
        if not incoming.more:
            try:
                count = self._connection.recv_into(buffer)
            except BlockingIOError:
                return []
            except OSError:  # it went without reading all that was sent
                count = 0
            if not count:
                self.ended = "disconnected"
                return []
            self.read_bytes = count
            data = bytes(buffer[:count])
        frames = incoming.take(data, frames_max)
        if incoming.answers:
            for answer in incoming.answers:
                # Who asks and does not read gets one answer; else what is kept had no end.
                if not self.unsent:
                    self._push(answer)
            incoming.answers.clear()
        if incoming.wrong:
            self.ended = incoming.wrong
        return frames

    def send(self, frame: bytes) -> bool:
        """Send, now or when there is room; False: there is nobody at the other end any more."""
        size = len(frame)
        if size <= _JOINED_BYTES_MAX:
            return self._push(zmtp.head(size) + frame)
        return self._push(zmtp.head(size)) and self._push(frame)

    def say(self, text: bytes) -> None:
        """Send what is no frame."""
        self._push(text)

    def _push(self, data: bytes) -> bool:
        unsent = self.unsent
        if not unsent:
            try:
                count = self._write(data, _NO_SIGNAL)
            except BlockingIOError:
                count = 0
            except OSError as error:
                self._cannot_write(error)
                return False
            if count == len(data):
                return True
            data = data[count:]
        unsent.append(memoryview(data))
        self.unsent_bytes += len(data)
        return True

    def go_on(self) -> None:
        """Send of what is left what there is room for."""
        unsent = self.unsent
        try:
            while unsent:
                first = unsent[0]
                count = self._write(first, _NO_SIGNAL)
                self.unsent_bytes -= count
                if count == len(first):
                    unsent.popleft()
                else:
                    unsent[0] = first[count:]
        except BlockingIOError:
            pass
        except OSError as error:
            unsent.clear()
            self.unsent_bytes = 0
            self._cannot_write(error)

    def _cannot_write(self, error: OSError) -> None:
        """Reading will tell that this is the end."""
        if not isinstance(error, ConnectionError):
            # The other end is still there, maybe with half a frame: no memory, say.
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def let_go_in_fork(self) -> None:
        """Close the descriptor of a forked child, and not the connection."""
        self._connection.close()

    def close(self) -> None:
        """Close; what has not been sent is dropped."""
        with suppress(OSError):
            # A child that this process has forked may have it open, too: the other end is told.
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


def close_all(streams: Iterable[Stream], linger_s: float) -> None:
    """Close these; what has not been sent is sent for up to `linger_s`, waiting for it."""
    streams = list(streams)
    waiting = {stream.fd: stream for stream in streams if stream.unsent and not stream.ended}
    if linger_s > 0.0 and waiting:
        until_s = clock.now_s() + linger_s
        room = select.poll()
        for fd in waiting:
            room.register(fd, select.POLLOUT)
        while waiting and (left_s := until_s - clock.now_s()) > 0.0:
            for fd, _ in room.poll(left_s * 1000):
                waiting[fd].go_on()
                if not waiting[fd].unsent:
                    del waiting[fd]
                    room.unregister(fd)
    for stream in streams:
        stream.close()


class Streams(Group):
    """Streams that a poller waits for."""

    def __init__(self, poller: Poller) -> None:
        super().__init__()
        self._poller = poller
        self._streams: dict[int, Stream] = {}
        self._buffer = memoryview(bytearray(_READ_BYTES))
        #: messages of many parts
        self.junk_dropped = 0
        poller.add_group(self)

    def attach(self, poller: Poller) -> None:
        """Be waited for by this poller from now on."""
        fds, ready = self._fds(), dict(self.ready)
        for fd in fds:
            self._poller.leave(fd)
        self._poller.remove_group(self)
        self._poller = poller
        poller.add_group(self)
        for fd in fds:
            poller.join(self, fd)
        for stream in self._streams.values():
            stream.wants_room = False
            self._settle(stream)
        self.ready.update(ready)

    def _fds(self) -> list[int]:
        """Return what the poller waits for."""
        return [stream.fd for stream in self._streams.values() if not stream.ended]

    def _settle(self, stream: Stream) -> None:
        """Tell the poller whether to wait for room."""
        wants = bool(stream.unsent) and not stream.ended
        if wants != stream.wants_room:
            stream.wants_room = wants
            self._poller.want(stream.fd, room=wants)

    def _receive(self, stream: Stream, frames_max: int) -> list[bytes]:
        if stream.unsent:
            stream.go_on()
        frames = stream.receive(self._buffer, frames_max)
        incoming = stream.incoming
        if incoming.junk:
            self.junk_dropped += incoming.junk
            incoming.junk = 0
        if stream.unsent or stream.wants_room:
            self._settle(stream)
        if not incoming.more:
            self.ready.pop(stream.fd, None)
        return frames
