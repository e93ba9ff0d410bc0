"""A relay between two sockets, of files or ports, that can lose connections, as networks do."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Listens at one path, passes bytes to another; `cut` closes all connections at once.

    Args:
        path: of a Unix socket; or a host and a port of it, 0 for any that is free.
        target: where the connections go on to, of the same kind.
    """

    def __init__(self, path: str | tuple[str, int], target: str | tuple[str, int]) -> None:
        self._target = target
        self._family = socket.AF_UNIX if isinstance(path, str) else socket.AF_INET
        self._listener = socket.socket(self._family)
        self._listener.bind(path)
        #: of the port it listens at
        self.port = 0 if isinstance(path, str) else self._listener.getsockname()[1]
        self._listener.listen()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        self._cut_asked = self._stop_asked = False
        self.connections = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        """Close all connections; what is on its way is lost."""
        self._cut_asked = True
        self._wake_write.send(b"x")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._stop_asked = True
        self._wake_write.send(b"x")
        self._thread.join()
        self._selector.close()
        for one in (self._listener, self._wake_read, self._wake_write):
            one.close()

    def _run(self) -> None:
        while not self._stop_asked:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake_read:
                    self._wake_read.recv(16)
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                    self._pass_on(key.fileobj)
            if self._cut_asked or self._stop_asked:
                self._cut_asked = False
                for one in list(self._peers):
                    self._close(one)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket(self._family)
        try:
            far.connect(self._target)
        except OSError:
            near.close()
            far.close()
            return
        self.connections += 1
        for one, other in ((near, far), (far, near)):
            self._peers[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, one: socket.socket) -> None:
        try:
            data = one.recv(1 << 16)
            self._peers[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._close(one)

    def _close(self, one: socket.socket) -> None:
        other = self._peers.pop(one, None)
        if other is not None:
            self._selector.unregister(one)
            with contextlib.suppress(OSError):
                one.close()
            self._close(other)
