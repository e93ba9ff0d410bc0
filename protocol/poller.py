"""Waits until a socket or a raw descriptor is ready, with as few system calls as can be.

Never reads anything, and knows nothing of what the sockets are.
"""

import select
from collections.abc import Callable
from typing import Final

from .clock import now_s

#: nothing is known to have come
QUIET: Final = 0
#: the descriptor has told of news, of which kind nobody knows
NEWS: Final = 1
#: the socket was asked, and has something to read
WAITING: Final = 2


class Source:
    """A messaging socket, as its poller sees it.

    Args:
        fd: its descriptor, which tells only of news since the socket was last used.
        ask: asks the socket itself whether there is something to read: a system call each time.
    """

    __slots__ = ("ask", "fd", "state", "used")

    def __init__(self, fd: int, ask: Callable[[], object]) -> None:
        self.fd = fd
        self.ask = ask
        #: QUIET, NEWS or WAITING: set by the poller, taken back by whoever reads
        self.state = WAITING
        #: whether the poller will ask
        self.used = False


class Group:
    """Connections that are read together: where something is to be read, or to be written on.

    As long as there is anything in `ready`, their poller does not sleep.
    """

    def __init__(self) -> None:
        #: descriptors: put there by the poller, taken out by whoever reads
        self.ready: dict[int, None] = {}


class Poller:
    """Waits for messaging sockets, for groups of connections, and for raw descriptors.

    Only those sockets are asked that were used since they were last found empty: whoever sends or
    reads says so by `use`.
    """

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sources: dict[int, Source] = {}
        self._used: list[Source] = []
        self._groups: list[Group] = []
        self._members: dict[int, Group] = {}
        #: whether the last wait went to sleep, having found nothing at once or by looking
        self.slept = False

    def add(self, fd: int) -> None:
        """Wait also for a raw descriptor that becomes readable, or closes."""
        self._poll.register(fd, select.POLLIN)

    def remove(self, fd: int) -> None:
        """Wait no more for a raw descriptor; before it is closed."""
        self._poll.unregister(fd)

    def add_group(self, group: Group) -> None:
        """Wait also for the connections of a group, which join and leave."""
        self._groups.append(group)

    def remove_group(self, group: Group) -> None:
        """Wait no more for a group; its connections have left it."""
        self._groups.remove(group)

    def join(self, group: Group, fd: int) -> None:
        """Wait for what comes on a group's connection, and for its end."""
        self._members[fd] = group
        self.add(fd)

    def want(self, fd: int, *, room: bool) -> None:
        """Wait also until there is room to write on a group's connection, or no more."""
        self._poll.modify(fd, select.POLLIN | select.POLLOUT if room else select.POLLIN)

    def leave(self, fd: int) -> None:
        """Wait no more for a group's connection; before it is closed."""
        self._members.pop(fd).ready.pop(fd, None)
        self.remove(fd)

    def add_source(self, source: Source) -> None:
        """Wait also for a socket."""
        self._sources[source.fd] = source
        source.used = False
        self.use(source)
        self.add(source.fd)

    def remove_source(self, source: Source) -> None:
        """Wait no more for a socket; before it is closed."""
        del self._sources[source.fd]
        if source.used:
            self._used.remove(source)
            source.used = False
        source.state = QUIET
        self.remove(source.fd)

    def use(self, source: Source) -> None:
        """Ask this socket before the next sleep: it may hold what its descriptor does not tell."""
        if not source.used:
            source.used = True
            self._used.append(source)

    def wait(self, timeout_s: float | None, look_s: float = 0.0) -> list[int]:
        """Wait until anything is ready or the time is over; return the ready raw descriptors.

        Args:
            timeout_s: None waits for ever; not at all if there is none left.
            look_s: look again and again for so long before going to sleep: a processor that does
                not go idle answers sooner than one that has to be woken.
        """
        if timeout_s is None:
            timeout_ms = None
        else:
            timeout_ms = -int(-timeout_s * 1000 // 1) if timeout_s > 0.0 else 0
        if self._used:
            used, self._used = self._used, []
            for source in used:
                if source.ask():
                    # It stays among the used ones until it has been read empty.
                    source.state = WAITING
                    self._used.append(source)
                    timeout_ms = 0
                else:
                    source.used = False
        for group in self._groups:
            if group.ready:
                timeout_ms = 0
        fds: list[int] = []
        poll = self._poll.poll
        news: list[tuple[int, int]] = []
        if timeout_ms != 0 and look_s > 0.0:
            until_s = now_s() + (look_s if timeout_s is None else min(look_s, timeout_s))
            while not news and now_s() < until_s:
                news = poll(0)
        self.slept = timeout_ms != 0 and not news
        members = self._members
        for fd, _ in news or poll(timeout_ms):
            if fd in members:
                members[fd].ready[fd] = None
                continue
            source_at = self._sources.get(fd)
            if source_at is None:
                fds.append(fd)
            elif not source_at.state:
                source_at.state = NEWS
                if not source_at.used:
                    # Whoever owns it will read it now.
                    source_at.used = True
                    self._used.append(source_at)
        return fds
