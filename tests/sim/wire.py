"""The real connection shells over simulated sockets.

protocol/dialshell.py and listenshell.py are loaded a second time under other names, and in these
copies the sockets are those of the simulated network. So dialer, listener, link, blobs and the
shells that join them run here as they are. Never changes the modules that everybody else uses.
"""

import importlib.util
from collections import deque
from random import Random
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from drumbeat.protocol import dialshell, listenshell
from drumbeat.protocol.excuses import Stage
from drumbeat.protocol.frames import Role
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.keys import Door as KeyDoor
from drumbeat.protocol.settings import Settings

from .network import Connection, Door, Network

if TYPE_CHECKING:
    from collections.abc import Callable

#: frames that a shell takes from a socket in one turn
FRAMES_PER_TURN_MAX: Final = 256
ENDPOINT: Final = "ipc:///simulated"
NETWORK_ENDPOINT: Final = "tcp://10.0.0.1:7788"


class Place:
    """A process, as its sockets see it: stands in for the poller that shells are attached to."""

    def __init__(self, network: Network, name: str, wake: "Callable[[], None]", door: Door) -> None:
        self.network = network
        self.name = name
        self.wake = wake
        self.record: Callable[[bytes], object] = bytes
        #: where a dialler's connections lead, and where a listener listens
        self.door = door
        self.sockets: list[Any] = []

    def __call__(self) -> "Place":
        return self

    def add(self, pipe: Any) -> None:
        """Wake the process whenever something is written into that (see `data_wire.Pipe`)."""
        pipe.wake = self.wake


class Dialing:
    """One connection, as transport.Dialing offers it."""

    # Always looked at.
    ready = True

    def __init__(self, poller: Place, door: Door | None = None) -> None:
        self._place = poller
        self._incoming: deque[bytes] = deque()
        self._unsent: list[bytes] | None = []
        self._said = ""
        self.junk_dropped = 0
        self.stage = Stage.BEGUN
        self.connection = poller.network.connect(poller.name, self, door or poller.door)
        poller.sockets.append(self)

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[bytes]:
        if not self._incoming:
            return []
        count = min(frames_max, len(self._incoming))
        return [self._incoming.popleft() for _ in range(count)]

    def send(self, frame: bytes) -> bool:
        if self._unsent is not None:
            self._unsent.append(frame)
            return True
        self.connection.up.send(frame)
        return not self.connection.dialler_knows_end

    def closing(self) -> str:
        said, self._said = self._said, ""
        if self._incoming and said:
            self._said = said
            return ""
        return said

    def close(self, linger_s: float = 0.0) -> None:
        self._place.sockets.remove(self)
        self.connection.hang_up()

    # what the network tells

    def opened(self, connection: Connection) -> None:
        unsent, self._unsent = self._unsent, None
        for frame in unsent or ():
            connection.up.send(frame)

    def closed(self, connection: Connection) -> None:
        self._said = "disconnected"
        self._place.wake()

    def arrived(self, connection: Connection, frame: bytes) -> None:
        self._place.record(frame)
        self._incoming.append(frame)
        self._place.wake()


class Listening:
    """All connections of the scheduler, as transport.Listening offers them."""

    # Always asked.
    has_news = True

    def __init__(self, poller: Place) -> None:
        self._place = poller
        self._incoming: deque[tuple[bytes, bytes, str]] = deque()
        self._routes: dict[bytes, Connection] = {}
        #: routes of connections that have ended since last asked
        self._closed: list[bytes] = []
        self.junk_dropped = 0
        poller.sockets.append(self)
        poller.door.listener = self

    def receive(
        self, now_s: float, frames_max: int = FRAMES_PER_TURN_MAX
    ) -> list[tuple[bytes, bytes, str]]:
        if not self._incoming:
            return []
        count = min(frames_max, len(self._incoming))
        return [self._incoming.popleft() for _ in range(count)]

    def send(self, route: bytes, frame: bytes) -> bool:
        connection = self._routes.get(route)
        if connection is None:
            return False
        connection.down.send(frame)
        return True

    def closed(self) -> list[bytes]:
        closed, self._closed = self._closed, []
        return closed

    def close(self, linger_s: float = 0.0) -> None:
        for connection in self._routes.values():
            connection.throw_out()
        self._routes.clear()

    def die(self, random: Random) -> None:
        """The process is gone; its kernel sends on what it had taken, or not."""
        self._place.door.listener = None
        for connection in self._routes.values():
            connection.die_at_listener(lost=random.random() < 0.5)
        self._routes.clear()

    # what the network tells

    def accepted(self, connection: Connection) -> None:
        self._routes[connection.routing_id] = connection

    def ended(self, connection: Connection) -> None:
        self._routes.pop(connection.routing_id, None)
        self._closed.append(connection.routing_id)
        self._place.wake()

    def arrived(self, connection: Connection, frame: bytes) -> None:
        self._place.record(frame)
        self._incoming.append((connection.routing_id, frame, ""))
        self._place.wake()


class Ends:
    """Makes such sockets; there are always descriptors for them."""

    def dial(self, endpoint: str, settings: Settings, poller: Place, keys: None) -> Dialing:
        return Dialing(poller)

    def listen(self, endpoint: str, settings: Settings, poller: Place, door: None) -> Listening:
        return Listening(poller)

    def close(self) -> None:
        """Nothing to wait for."""


def load(real: ModuleType, **replaced: Any) -> ModuleType:
    """Return another copy of a module, in which some names stand for something else."""
    spec = importlib.util.spec_from_file_location(
        f"drumbeat.protocol.simulated_{real.__name__.rpartition('.')[2]}", real.__file__
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.__dict__.update(replaced)
    return module


dialling, listening = load(dialshell, Ends=Ends), load(listenshell, Ends=Ends)


def dial(
    place: Place, role: str, peer: PeerId, settings: Settings, random: Random, carriage: Any = None
) -> Any:
    """Return a DialShell whose sockets belong to `place`."""
    dialling.Poller = place  # type: ignore[attr-defined]  # what the shell makes for itself
    shell = dialling.DialShell(
        ENDPOINT, role, peer, place.name, settings, random, carriage=carriage
    )
    shell.attach(place)
    return shell


def listen(place: Place, settings: Settings, epoch: int, keys: tuple[bytes, ...] = ()) -> Any:
    """Return a ListenShell whose socket belongs to `place`.

    Args:
        keys: with which peers may come to one another; none: nothing goes past the scheduler.
    """
    listening.Poller = place  # type: ignore[attr-defined]
    if not keys:
        return listening.ListenShell(ENDPOINT, settings, epoch)
    # That there are keys is all that is real: whoever comes has proven nothing, as on ipc.
    door = KeyDoor(b"", dict.fromkeys(keys, Role.CLIENT))
    return listening.ListenShell(NETWORK_ENDPOINT, settings, epoch, door)
