"""The shell of data connections: a thread that moves large payloads from peer to peer.

Never decides: protocol/moving.py does. Never delays the loop of whoever owns it, which sends the
heartbeats: all that may take long is done here. There is no plain TCP.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from . import clock, moving_words
from .checksums import Checksums
from .codec import decode_move, encode
from .endpoints import check_endpoint, check_keys
from .ends import Bounds, Ends
from .errors import RemoteProtocolError
from .excuses import Stage
from .keys import KEY_BYTES, Credentials, Door
from .moves import Move, Piece, piece_bytes
from .moving import Moving
from .moving_words import Command, Connection, Event, Moved, NotMoved, Source
from .poller import Poller
from .settings import Settings
from .shelf import Shelf

#: pieces sent between two looks at what has come
_PIECES_PER_TURN: Final = 8
#: frames that a socket holds of one connection beyond a window
_SPARE_FRAMES: Final = 2
#: words that wait for one connection which takes nothing; then it is closed
_UNSAID_MAX: Final = 4096
_PAUSE_S: Final = 0.01
#: what an admitted key proves
_PEER: Final = "peer"
_JOIN_S: Final = 10.0
#: in a piece whose data goes as a second part
_BESIDE: Final = memoryview(b"")
_REASONS: Final = {
    Stage.BEGUN: "it cannot be reached",
    Stage.KEY_REFUSED: "it does not admit our key",
    Stage.STRANGER: "whoever listens there has another key",
    Stage.SILENT: "whoever listens there does not answer",
    Stage.FULL: "it has as many connections as it may have",
    Stage.OPEN: "the connection has ended",
}


class _Admitted(Mapping[bytes, str]):
    """The keys that are let in: changed by one thread, read by another."""

    def __init__(self) -> None:
        self.keys_now: dict[bytes, str] = {}

    def __getitem__(self, key: bytes) -> str:
        return self.keys_now[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys_now)

    def __len__(self) -> int:
        return len(self.keys_now)


class Mover:
    """Moves large payloads between this process and others, over the network.

    What was pulled may be asked of it for as long as somebody here keeps the payload, if that lies
    in a file. All methods are for the thread of its owner.

    Args:
        settings: bounds and times.
        peer: the own id.
        credentials: of which the secret key is dialled with; None: nobody is dialled.
        listen: where to listen, "tcp://0.0.0.0:0" say; None: nowhere.
        wake: called in the Mover's thread when `happened` has something to tell; returns at once.

    Raises:
        ConfigError: nobody can listen there, or strangers are not refused there.
    """

    def __init__(
        self,
        settings: Settings,
        peer: bytes,
        credentials: Credentials | None,
        listen: str | None,
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._wake = wake
        frames = -(-settings.data_window_bytes // piece_bytes(settings.frame_bytes_max))
        self._bounds = Bounds(frames + _SPARE_FRAMES, frames + _SPARE_FRAMES, views=True)
        self._core = Moving(peer, settings)
        self._poller = Poller()
        self._ends = Ends()
        self._admitted = _Admitted()
        self._listening: Any = None
        self._endpoint = ""
        #: the public key of the data socket, which those who dial it need; b"": it does not listen
        self.public_key = b""
        if listen is not None:
            self._listen(check_keys(check_endpoint(listen), given=True))
        self._dialled: dict[Connection, Any] = {}
        # Those that have come, both ways; 0: it was hung up on.
        self._routes: dict[Connection, bytes] = {}
        self._came: dict[bytes, Connection] = {}
        self._last_came: Connection = 0
        self._shelf = Shelf(self._poke)
        self._checksums = Checksums(piece_bytes(settings.frame_bytes_max))
        # What has followed from commands, pieces that are to be sent, words that wait for room.
        self._events: deque[Event] = deque()
        self._pieces: deque[moving_words.Send] = deque()
        self._unsaid: dict[Connection, deque[bytes]] = {}
        self._inbox: deque[tuple[Event, bytes | None]] = deque()
        self._outbox: deque[Moved | NotMoved] = deque()
        self._bytes_in = self._bytes_out = 0
        self._over = False
        self._failure: BaseException | None = None
        self._woken_fd: int | None
        self._wake_fd, self._woken_fd = os.pipe()
        os.set_blocking(self._wake_fd, False)
        os.set_blocking(self._woken_fd, False)
        self._poller.add(self._wake_fd)
        self._thread = threading.Thread(target=self._run, name="drumbeat-mover", daemon=True)
        self._thread.start()

    def _listen(self, endpoint: str) -> None:
        from .sockets import new_keys  # ZeroMQ is loaded only where it is used

        self.public_key, secret = new_keys()
        door = Door(secret, self._admitted)
        self._listening = self._ends.listen(
            endpoint, self._settings, self._poller, door, self._bounds
        )
        self._listening.attach(self._poller)
        self._endpoint = str(self._listening.endpoint)

    # ------------------------------------------------------------------------ the owner's thread

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has picked; "": it does not."""
        return self._endpoint

    def admit(self, public_keys: Iterable[bytes]) -> None:
        """Let in who has one of these keys, and nobody else, from now on."""
        keys = dict.fromkeys(public_keys, _PEER)
        if any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        self._admitted.keys_now = keys

    def pull(self, key: bytes, size: int, sources: Sequence[Source]) -> None:
        """Have a payload brought; `happened` tells how that ended.

        Args:
            key: names the payload.
            size: of it, in bytes.
            sources: who has it, in order of liking.
        """
        self._tell(moving_words.Pull(key, size, tuple(sources)))

    def offer(self, key: bytes, to: Source) -> None:
        """Let a peer know that it can have a payload which is served here."""
        self._tell(moving_words.Offer(key, to))

    def serve(self, key: bytes, payload: bytes | memoryview) -> None:
        """Let others ask for a payload from now on."""
        self._tell(moving_words.Serve(key, len(payload)), payload)  # type: ignore[arg-type]

    def unserve(self, key: bytes) -> None:
        """Keep a payload no longer: who is asking for it is told so."""
        self._tell(moving_words.Unserve(key))

    def cancel(self, key: bytes) -> None:
        """Need a payload no longer, whether it has come or not."""
        self._tell(moving_words.Cancel(key))

    def happened(self) -> list[Moved | NotMoved]:
        """Return what has happened since last asked.

        Raises:
            BaseException: what the Mover's thread has ended with, which is our bug.
        """
        if self._failure is not None:
            raise self._failure
        told: list[Moved | NotMoved] = []
        while self._outbox:
            told.append(self._outbox.popleft())
        return told

    def sizes(self) -> dict[str, int]:
        """Return what there is and was, for people to read."""
        refused = self._listening.refusals if self._listening is not None else 0
        return {
            "bytes_in": self._bytes_in,
            "bytes_out": self._bytes_out,
            "connections": self._core.connections,
            "payloads": len(self._shelf),
            "refused": refused + self._core.counters["junk"],
            **self._core.counters,
        }

    def close(self) -> None:
        """Close for good; what is on its way is dropped."""
        if self._over:
            return
        self._over = True
        self._poke()
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():  # else its descriptors are still waited for
            self._close_pipe()

    def _close_pipe(self) -> None:
        # First the number goes, which by then may be another file's: payloads are let go amid
        # anything, and say so here.
        woken_fd, self._woken_fd = self._woken_fd, None
        if woken_fd is not None:
            os.close(woken_fd)
        os.close(self._wake_fd)

    def let_go_in_fork(self) -> None:
        """In a forked child, which has no such thread: keep nothing of the payloads open.

        What ZeroMQ has open is not to be had.
        """
        self._over = True
        self._close_pipe()
        self._inbox.clear()
        self._outbox.clear()
        self._shelf.clear()

    def _tell(self, event: Event, payload: bytes | None = None) -> None:
        if not self._over:
            self._inbox.append((event, payload))
            self._poke()

    def _poke(self) -> None:
        woken_fd = self._woken_fd
        if woken_fd is not None:
            with suppress(BlockingIOError):  # then it is awake
                os.write(woken_fd, b"\0")

    # ------------------------------------------------------------------------- the Mover's thread

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while not self._over:
                self._turn()
                self._poller_wait()
        except BaseException as error:  # noqa: BLE001  # raised in the owner's thread
            self._failure = error
            self._wake()
        finally:
            self._end()

    def _poller_wait(self) -> None:
        due_s = self._core.deadline_s()
        timeout_s = None if due_s is None else due_s - clock.now_s()
        if self._unsaid:
            timeout_s = _PAUSE_S if timeout_s is None else min(timeout_s, _PAUSE_S)
        if self._pieces or self._inbox or self._shelf.has_let_go or self._over:
            timeout_s = 0.0
        if self._wake_fd in self._poller.wait(timeout_s):
            with suppress(BlockingIOError):
                os.read(self._wake_fd, 4096)

    def _turn(self) -> None:
        now_s = clock.now_s()
        while self._inbox:
            event, payload = self._inbox.popleft()
            if payload is not None:
                self._shelf.give(event.key, payload)  # type: ignore[union-attr]
            self._handle(event, now_s)
        for key in self._shelf.let_go() if self._shelf.has_let_go else ():
            self._handle(moving_words.Unserve(key), now_s)
        if self._listening is not None:
            self._receive(now_s)
        for connection, socket in list(self._dialled.items()):
            if socket.ready:
                self._hear_dialled(connection, socket, now_s)
        due_s = self._core.deadline_s()
        if due_s is not None and now_s >= due_s:
            self._handle(moving_words.Tick(), now_s)
        for connection in list(self._unsaid):
            self._say_rest(connection)
        for _ in range(_PIECES_PER_TURN):
            if not self._pieces:
                break
            self._send(self._pieces.popleft(), now_s)  # the next one joins at the end

    def _handle(self, event: Event, now_s: float) -> None:
        self._events.append(event)
        while self._events:
            for command in self._core.handle(self._events.popleft(), now_s):
                self._do(command)

    def _receive(self, now_s: float) -> None:
        listening = self._listening
        for route, frame, _ in listening.receive(now_s, _PIECES_PER_TURN):
            connection = self._came.get(route)
            if connection is None:
                self._last_came -= 1
                connection = self._came[route] = self._last_came
                self._routes[connection] = route
            if connection:
                self._hear(connection, frame, now_s)
        for route in listening.closed():
            connection = self._came.pop(route, 0)
            if connection:
                self._routes.pop(connection, None)
                self._unsaid.pop(connection, None)
                self._handle(moving_words.Down(connection, "it has hung up"), now_s)

    def _hear_dialled(self, connection: Connection, socket: Any, now_s: float) -> None:
        for frame in socket.receive(_PIECES_PER_TURN):
            if connection not in self._dialled:
                return
            self._hear(connection, frame, now_s)
        if connection in self._dialled:
            reason = socket.closing()
            if reason:
                reason = _REASONS.get(socket.stage, reason)
                self._close(connection)
                self._handle(moving_words.Down(connection, reason), now_s)

    def _hear(
        self, connection: Connection, frame: tuple[memoryview, memoryview | None], now_s: float
    ) -> None:
        try:
            word = decode_move(*frame)
        except RemoteProtocolError as error:
            self._handle(moving_words.Junk(connection, str(error)), now_s)
            return
        if type(word) is Piece:
            self._bytes_in += len(word.data)
        self._handle(moving_words.Heard(connection, word), now_s)

    # ------------------------------------------------------------------------------- commands

    def _do(self, command: Command) -> None:
        match command:
            case moving_words.Send():
                self._pieces.append(command)
            case moving_words.Write():
                self._write(command)
            case moving_words.SayTo(connection, word):
                self._say(connection, word)
            case moving_words.Dial(connection, source):
                self._dial(connection, source)
            case moving_words.Close(connection):
                self._close(connection)
            case moving_words.Finished(key):
                self._finish(key)
            case moving_words.Failed(key, peer, reason):
                self._report(NotMoved(key, reason, peer))
            case moving_words.Dropped(key):
                self._shelf.drop(key)
                self._checksums.drop(key)

    def _dial(self, connection: Connection, source: Source) -> None:
        socket = reason = None
        if self._credentials is None:
            reason = "nobody is dialled from here"
        else:
            credentials = Credentials(source.public_key, self._credentials.secret_key)
            socket = self._ends.dial(
                source.endpoint, self._settings, self._poller, credentials, self._bounds
            )
            reason = "no descriptors are left for a connection"
        if socket is None:
            self._events.append(moving_words.Down(connection, reason))
        else:
            self._dialled[connection] = socket

    def _say(self, connection: Connection, word: Move) -> None:
        encoded = encode(word)
        unsaid = self._unsaid.get(connection)
        if unsaid is None:
            if not self._give(connection, encoded):
                self._unsaid[connection] = deque((encoded,))
        else:
            unsaid.append(encoded)
            if len(unsaid) > _UNSAID_MAX:
                self._close(connection)
                self._events.append(moving_words.Down(connection, "it takes nothing any more"))

    def _say_rest(self, connection: Connection) -> None:
        unsaid = self._unsaid[connection]
        while unsaid:
            if not self._give(connection, unsaid[0]):
                return
            unsaid.popleft()
        del self._unsaid[connection]

    def _give(self, connection: Connection, frame: bytes, data: memoryview | None = None) -> bool:
        """Send; False: not now. What has ended is told of otherwise."""
        socket = self._dialled.get(connection)
        if socket is not None:
            return bool(socket.send(frame, data))
        route = self._routes.get(connection)
        return route is None or bool(self._listening.send(route, frame, data))

    def _send(self, send: moving_words.Send, now_s: float) -> None:
        connection, key, offset, length, size = (
            send.connection, send.key, send.offset, send.length, send.size,
        )  # fmt: skip
        event: Event = moving_words.Full(connection)
        if connection not in self._unsaid:
            try:
                data = self._shelf.read(key, offset, length)
            except (OSError, KeyError):
                event = moving_words.Unread(connection)
            else:
                checksum = self._checksums.of(key, offset, data)
                frame = encode(Piece(key, offset, size, checksum, _BESIDE))
                if self._give(connection, frame, data):
                    self._bytes_out += length
                    event = moving_words.Sent(connection)
        self._handle(event, now_s)

    def _write(self, write: moving_words.Write) -> None:
        try:
            self._shelf.write(write.key, write.size, write.data)
            self._checksums.note(write.key, write.offset, write.data, write.checksum)
        except (OSError, MemoryError) as error:
            reason = f"there is no room for it here: {error}"
            self._events.append(moving_words.Unwritten(write.key, reason))

    def _finish(self, key: bytes) -> None:
        try:
            payload, stays = self._shelf.finish(key)
        except (OSError, MemoryError) as error:
            stays = False
            self._report(NotMoved(key, f"there is no room for it here: {error}", b""))
        else:
            self._report(Moved(key, payload))
        if not stays:
            self._events.append(moving_words.Unserve(key))

    def _report(self, what: Moved | NotMoved) -> None:
        self._outbox.append(what)
        self._wake()

    def _close(self, connection: Connection) -> None:
        self._unsaid.pop(connection, None)
        socket = self._dialled.pop(connection, None)
        if socket is not None:
            socket.close()
        route = self._routes.pop(connection, None)
        if route is not None:
            self._came[route] = 0  # until its end is told of
            self._listening.hang_up(route)

    def _end(self) -> None:
        for connection in list(self._dialled):
            self._close(connection)
        if self._listening is not None:
            self._listening.close()
        self._ends.close()
        self._shelf.clear()
        self._pieces.clear()
