"""Waits until a socket or a raw descriptor is ready, with as few system calls as can be.

Never reads anything, and knows nothing of what the sockets are.
"""

import select
from collections.abc import Callable, Hashable


class Poller:
    """Waits for sockets and for raw descriptors.

    A messaging socket has a descriptor too, but that tells only of news since the socket was last
    used; and asking the socket itself costs a system call each time. So only those are asked that
    were used since they were last found empty: whoever uses one says so in `used`.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sockets: dict[int, Hashable] = {}
        #: sockets that may have something to read though their descriptor does not say so
        self.used: dict[Hashable, Callable[[], bool]] = {}
        #: sockets that were ready at the last wait
        self.ready: dict[Hashable, None] = {}

    def add(self, fd: int) -> None:
        """Wait also for a raw descriptor that becomes readable, or closes."""
        self._poll.register(fd, select.POLLIN)

    def remove(self, fd: int) -> None:
        """Wait no more for a raw descriptor; before it is closed."""
        self._poll.unregister(fd)

    def add_socket(self, socket: Hashable, fd: int, is_readable: Callable[[], bool]) -> None:
        """Wait also for a socket with this descriptor; `is_readable` asks the socket itself."""
        self._sockets[fd] = socket
        self.used[socket] = is_readable
        self.add(fd)

    def remove_socket(self, socket: Hashable, fd: int) -> None:
        """Wait no more for a socket; before it is closed."""
        del self._sockets[fd]
        self.used.pop(socket, None)
        self.ready.pop(socket, None)
        self.remove(fd)

    def wait(self, timeout_s: float | None) -> list[int]:
        """Wait until anything is ready or the time is over; return the ready raw descriptors."""
        ready: dict[Hashable, None] = {}
        if self.used:
            # A socket that is ready stays among the used ones until it has been read empty.
            self.used = {socket: ask for socket, ask in self.used.items() if ask()}
            ready = dict.fromkeys(self.used)
        timeout_ms = None if timeout_s is None else max(0, -int(-timeout_s * 1000 // 1))
        fds: list[int] = []
        for fd, _ in self._poll.poll(0 if ready else timeout_ms):
            if fd in self._sockets:
                ready[self._sockets[fd]] = None
            else:
                fds.append(fd)
        self.ready = ready
        return fds
