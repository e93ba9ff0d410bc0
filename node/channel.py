"""A packet socket between two processes of a node: bounds kept, descriptors carried along.

Never opens what it carries. What is too long for the socket travels in a memory file whose
descriptor the packet holds; the receiver does not notice. A packet with descriptors stays in the
socket until the receiver has room for them: the kernel would drop them, and say so too late.
"""

import contextlib
import errno
import mmap
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from . import spare
from .kernel import memory_file, socket_pair

#: Longer ones go by memory file. Small enough that two fit any socket's buffer.
PACKET_BYTES_MAX: Final = 64 << 10
_FDS_MAX: Final = 80
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_FDS_MAX * 4)

#: The first byte of a packet with descriptors. Neither MessagePack nor UTF-8 ever uses it.
_CARRIES: Final = 0xC1
#: that byte, how many descriptors, and how long the memory file is, which is the last of them;
#: 0: there is none, what follows is the packet
_HEAD: Final = struct.Struct("!BBQ")
_LOOK_BYTES: Final = 2

#: so much of a memory file is written at once: whoever posts has others to see to
_STEP_BYTES: Final = 16 << 20

#: Errors that mean: the other side has not read enough yet.
_FULL: Final = (errno.EAGAIN, errno.ENOBUFS, errno.ETOOMANYREFS)
_RETRY_S: Final = 0.001
#: a receiver that has no room for descriptors for so long gives up
ROOM_WITHIN_S: Final = 10.0

#: descriptors that go beside a packet
Fds = tuple[int, ...]

# Plain numbers: operators of enumerations take a microsecond each.
_CLOSE_ON_EXEC: Final = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
_AT_ONCE: Final = int(socket.MSG_DONTWAIT)
_TRUNCATED: Final = int(socket.MSG_TRUNC)
_FDS_DROPPED: Final = int(socket.MSG_CTRUNC)
_LOOK: Final = int(socket.MSG_PEEK)
_NO_FDS: Final[Fds] = ()


class Packet(Struct, gc=False):
    """What came. `data` is overwritten by the next receive; whoever takes `fds` closes them."""

    data: memoryview | mmap.mmap
    fds: Fds = ()


class ClosedError(EOFError):
    """The other end is closed and everything it sent has been received."""


#: a packet, or what it is made of one after the other
Data = bytes | Sequence[bytes]


class _Waiting(NamedTuple):
    data: bytes
    fds: Fds
    #: what it was made of, and what of that is not in its memory file yet
    pieces: Sequence[bytes] = ()
    rest: deque[memoryview] | None = None


def buffer() -> bytearray:
    """Return memory to receive into; the channels of one thread may share it."""
    return bytearray(PACKET_BYTES_MAX)


class Channel:
    """One end. Any thread may send; only one at a time may receive."""

    __slots__ = ("_buffer", "_memory_files", "_short_since_s", "_view", "_waiting", "socket")

    def __init__(
        self, end: socket.socket, memory_files: str = "auto", shared: bytearray | None = None
    ) -> None:
        self.socket = end
        self._memory_files = memory_files
        self._buffer = buffer() if shared is None else shared
        self._view = memoryview(self._buffer)
        self._waiting: deque[_Waiting] = deque()
        self._short_since_s: float | None = None
        spare.keep()

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self.socket.fileno()

    def close(self) -> None:
        """Close this end; what waits to be sent is dropped."""
        while self._waiting:
            close_all(self._waiting.popleft().fds)
        self.socket.close()

    # ------------------------------------------------------------------------------- receiving

    def receive(self, wait: bool = True) -> Packet | None:
        """Return the next packet; without `wait`, None if there is none yet.

        Raises:
            ClosedError: there will be none any more.
            OSError: what came is no packet of ours, or there was no descriptor for it for long.
        """
        flags = _CLOSE_ON_EXEC if wait else _CLOSE_ON_EXEC | _AT_ONCE
        try:
            looked = self.socket.recv_into(self._buffer, _LOOK_BYTES, flags | _LOOK)
            if looked and self._buffer[0] == _CARRIES:
                # Who claims to carry more than is ever carried is refused, and needs no room.
                claimed = self._buffer[1]
                if claimed <= _FDS_MAX and not spare.make_room(claimed):
                    return self._receive_later(wait)
            length, ancillary, seen, _ = self.socket.recvmsg_into(
                (self._buffer,), _ANCILLARY_BYTES, flags
            )
        except BlockingIOError:
            return None
        except ConnectionResetError:
            # Said once, before the packets that are still there: the other end left some unread.
            return self.receive(wait)
        if not length:
            raise ClosedError
        if self._buffer[0] == _CARRIES:
            return self._unpacked(length, _fds_of(ancillary), bool(seen & _FDS_DROPPED))
        if ancillary:
            close_all(_fds_of(ancillary))  # nobody of ours sent them
        if seen & _TRUNCATED:
            raise OSError(errno.EMSGSIZE, "a packet was longer than agreed")
        return Packet(self._view[:length])

    def _receive_later(self, wait: bool) -> Packet | None:
        """There is no room for a packet's descriptors: not even the one in reserve."""
        now_s = time.monotonic()
        if self._short_since_s is None:
            self._short_since_s = now_s
        elif now_s - self._short_since_s > ROOM_WITHIN_S:
            raise spare.no_room(f"a packet that has come, for {ROOM_WITHIN_S:g} s")
        time.sleep(_RETRY_S)
        return self.receive(wait) if wait else None

    def _unpacked(self, length: int, fds: Fds, dropped: bool) -> Packet:
        """Return a packet that came with descriptors."""
        self._short_since_s = None
        try:
            _, count, file_bytes = _HEAD.unpack_from(self._view[:length])
            if dropped:
                # Another thread opened something between our look and our taking it.
                raise spare.no_room(f"a packet of {file_bytes or length:,} bytes, which is lost")
            if len(fds) != count or (file_bytes and not fds):
                raise OSError(errno.EBADMSG, "a packet lacks its descriptors")
            if not file_bytes:
                return Packet(self._view[_HEAD.size : length], fds)
            data = _content(fds[-1], file_bytes)
        except (struct.error, ValueError) as error:
            close_all(fds)
            raise OSError(errno.EBADMSG, f"a packet is not what its head says: {error}") from None
        except OSError:
            close_all(fds)
            raise
        finally:
            spare.keep()
        close_all(fds[-1:])
        return Packet(data, fds[:-1])

    # --------------------------------------------------------------------------------- sending

    def send(self, data: Data, fds: Fds = _NO_FDS) -> None:
        """Send a packet; wait while the other side has no room.

        Raises:
            ClosedError: the other side is gone.
            OSError: it is long, and there is no room for its memory file, or no descriptor.
        """
        if isinstance(data, bytes) and len(data) <= PACKET_BYTES_MAX and not fds:
            try:
                self.socket.send(data)
                return
            except ConnectionError:
                raise ClosedError from None
            except OSError as error:
                if error.errno not in (*_FULL, errno.EMSGSIZE):
                    raise
        packet = self._packed(data, fds)
        try:
            while not self._offer(packet, 0):
                if not packet.rest:
                    time.sleep(_RETRY_S)
        finally:
            close_all(packet.fds[len(fds) :])

    def has_room(self) -> bool:
        """Whether a packet could be sent without waiting."""
        poll = select.poll()
        poll.register(self.socket, select.POLLOUT)
        return bool(poll.poll(0))

    def post(self, data: Data, fds: Fds = _NO_FDS) -> bool:
        """Send a packet now, or when there is room; return whether nothing waits.

        A very long one is packed step by step by `flush`, and waits as if there were no room.
        `fds` are duplicated where they have to wait: the caller may close them at once.

        Raises:
            ClosedError: the other side is gone.
            OSError: there is no room for a memory file, or no descriptor.
        """
        is_short = isinstance(data, bytes) and len(data) <= PACKET_BYTES_MAX
        if is_short and not self._waiting and not fds:
            try:
                self.socket.send(data, _AT_ONCE)  # type: ignore[arg-type]  # it is bytes
                return True
            except ConnectionError:
                raise ClosedError from None
            except OSError as error:
                if error.errno not in (*_FULL, errno.EMSGSIZE):
                    raise
        packet = self._packed(data, fds)
        made = packet.fds[len(fds) :]
        try:
            if not self._waiting and self._offer(packet, _AT_ONCE):
                close_all(made)
                return True
            owned = _duplicates(fds)
        except (ClosedError, OSError):
            close_all(made)
            raise
        self._waiting.append(packet._replace(fds=(*owned, *made)))
        return False if packet.rest else self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as there is room; return whether nothing waits any more.

        Raises:
            ClosedError: the other side is gone.
            OSError: there is no room for what a packet holds, which is dropped.
        """
        waiting = self._waiting
        while waiting:
            try:
                if not self._offer(waiting[0], _AT_ONCE):
                    return False
            except OSError:
                close_all(waiting.popleft().fds)
                raise
            close_all(waiting.popleft().fds)
        return True

    @property
    def waits(self) -> bool:
        """Whether something waits for room."""
        return bool(self._waiting)

    def take_waiting(self) -> list[tuple[bytes, Fds]]:
        """Take back what waits for room, in order, memory files read. The caller closes the fds."""
        taken = []
        while self._waiting:
            data, fds, pieces, _ = self._waiting.popleft()
            if pieces:
                data = b"".join(pieces)
                close_all(fds[-1:])
                fds = fds[:-1]
            elif fds:
                data = data[_HEAD.size :]
            taken.append((data, fds))
        return taken

    def _offer(self, packet: _Waiting, flags: int) -> bool:
        data, fds, _, rest = packet
        if rest and not _fill(fds[-1], rest):
            return False
        try:
            if fds:
                rights = struct.pack(f"{len(fds)}i", *fds)
                self.socket.sendmsg(
                    (data,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, rights),), flags
                )
            else:
                self.socket.send(data, flags)
        except ConnectionError:
            raise ClosedError from None
        except OSError as error:
            if error.errno in _FULL:
                return False
            raise
        return True

    def _packed(self, data: Data, fds: Fds) -> _Waiting:
        """Return what is to be sent for this packet; a memory file is the last descriptor."""
        pieces = (data,) if isinstance(data, bytes) else data
        length = sum(map(len, pieces))
        if length <= PACKET_BYTES_MAX:
            whole = b"".join(pieces)
            short = _HEAD.pack(_CARRIES, len(fds), 0) + whole if fds else whole
            if len(short) <= PACKET_BYTES_MAX and not self._is_too_long(short):
                return _Waiting(short, fds)
        fds = (*fds, self._memory_file())
        rest = deque(memoryview(piece) for piece in pieces if piece)
        return _Waiting(_HEAD.pack(_CARRIES, len(fds), length), fds, pieces, rest)

    def _memory_file(self) -> int:
        try:
            return memory_file(self._memory_files)
        except OSError as error:
            if error.errno not in spare.NO_ROOM:
                raise
            if spare.make_room(1):
                with contextlib.suppress(OSError):
                    return memory_file(self._memory_files)
            raise spare.no_room("a large packet") from None

    def _is_too_long(self, data: bytes) -> bool:
        # A system whose sockets refuse what we asked for has a smaller buffer than we set.
        room = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return len(data) > room // 2


def channel_pair(
    socket_kind: str = "auto", memory_files: str = "auto", shared: bytearray | None = None
) -> tuple[Channel, Channel]:
    """Return two joined channels."""
    one, other = socket_pair(socket_kind)
    return Channel(one, memory_files, shared), Channel(other, memory_files, shared)


def channel_of(fd: int, memory_files: str = "auto", shared: bytearray | None = None) -> Channel:
    """Return the channel of a socket whose descriptor was received or inherited."""
    return Channel(socket.socket(fileno=fd), memory_files, shared)


def _fds_of(ancillary: Sequence[tuple[int, int, bytes]]) -> Fds:
    fds: Fds = ()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            count = len(data) // 4
            fds += struct.unpack(f"{count}i", data[: count * 4])
    if not _CLOSE_ON_EXEC:
        for fd in fds:
            os.set_inheritable(fd, False)
    return fds


def _content(file: int, length: int) -> memoryview | mmap.mmap:
    try:
        return mmap.mmap(file, length, prot=mmap.PROT_READ)
    except OSError as error:
        if error.errno not in spare.NO_ROOM:
            raise
    # The object wants a descriptor of its own, which there is not: read instead.
    data = memoryview(bytearray(length))
    done = 0
    while done < length:
        count = os.preadv(file, (data[done:],), done)
        if not count:
            raise ValueError("its memory file is shorter")
        done += count
    return data


def _fill(file: int, rest: deque[memoryview]) -> bool:
    """Write on what belongs into a memory file, but not too much at once; return whether all is."""
    room = _STEP_BYTES
    while rest and room > 0:
        written = os.write(file, rest[0][:room])
        room -= written
        rest[0] = rest[0][written:]
        if not rest[0]:
            rest.popleft()
    return not rest


def _duplicates(fds: Sequence[int]) -> list[int]:
    made: list[int] = []
    try:
        made += map(os.dup, fds)
    except OSError as error:
        close_all(made)
        if error.errno in spare.NO_ROOM:
            raise spare.no_room("what a packet carries") from None
        raise
    return made


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that go nowhere, and have one in reserve again."""
    for fd in fds:
        os.close(fd)
    if fds:
        spare.keep()


def ready_of(fds: Iterable[int], links: Iterable["Channel | None"], within_s: float) -> set[int]:
    """Wait for descriptors, and for links that are there; return which are ready."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    for link in links:
        if link is not None:
            poll.register(link, select.POLLIN | (select.POLLOUT if link.waits else 0))
    return {fd for fd, _ in poll.poll(within_s * 1000)}


def texts_of(link: Channel | None) -> list[str]:
    """Return the packets of text that have come, and send what waits; [] if there is no link."""
    texts: list[str] = []
    if link is not None:
        try:
            link.flush()
            while packet := link.receive(wait=False):
                texts.append(bytes(packet.data).decode())
        except ClosedError:
            pass  # its end is reaped in a moment
    return texts
