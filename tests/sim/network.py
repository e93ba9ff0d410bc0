"""The seeded network: connections that lose a suffix when cut, stall and crawl; or worse.

Network A of the design, the faithful one: a direction of a connection is a first-in-first-out
queue. A cut loses what is in flight and what either end sends until it notices. A stall (one-way
black hole) holds frames back; one that outlasts the sockets' own ping ends in a cut. Nothing is
duplicated and nothing overtakes.

Network B, the hostile one, also loses, doubles and reorders single frames of a connection.

Never looks into a frame.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import NamedTuple, Protocol

from .clock import Clock

#: the sockets' own ping gives a silent connection up after this long
PING_TIMEOUT_S = 1.5
#: network B: how much later a frame comes that is overtaken, on average
REORDERED_S = 0.01


class Hostility(NamedTuple):
    """How often network B does what to a frame."""

    loss: float
    duplicates: float
    reorder: float


class Dialler(Protocol):
    """What opens a connection."""

    def opened(self, connection: "Connection") -> None:
        """The handshake is done."""

    def closed(self, connection: "Connection") -> None:
        """It failed, or ended. Told at most once."""

    def arrived(self, connection: "Connection", frame: bytes) -> None:
        """A frame has come."""


class Listener(Protocol):
    """What takes connections."""

    def accepted(self, connection: "Connection") -> None:
        """A connection begins."""

    def ended(self, connection: "Connection") -> None:
        """A connection is over: sending on it fails from now on."""

    def arrived(self, connection: "Connection", frame: bytes) -> None:
        """A frame has come."""


class Door:
    """An address: connections lead to whoever listens there at the time."""

    __slots__ = ("listener",)

    def __init__(self) -> None:
        #: None: nobody does
        self.listener: Listener | None = None


class Flow:
    """One direction of a connection."""

    __slots__ = (
        "arrive", "flying", "last_s", "network", "open", "peer", "pumping", "queue", "way",
    )  # fmt: skip

    def __init__(
        self, network: "Network", peer: str, way: str, arrive: Callable[[bytes], None]
    ) -> None:
        self.network = network
        self.peer = peer
        self.way = way
        self.arrive = arrive
        self.queue: deque[tuple[float, bytes]] = deque()
        #: frames on their way by themselves (network B)
        self.flying = 0
        self.last_s = 0.0
        self.pumping = False
        self.open = True

    def send(self, frame: bytes) -> None:
        if not self.open:
            return
        network = self.network
        due_s = network.clock.now_s + network.delay_s(self.peer, len(frame))
        if network.hostility is not None:
            self._fly(frame, max(due_s, self.last_s), network.hostility)
            return
        self.last_s = due_s = max(due_s, self.last_s)
        self.queue.append((due_s, frame))
        if not self.pumping:
            self.pumping = True
            network.clock.at(due_s, self._pump)

    def _fly(self, frame: bytes, due_s: float, hostility: Hostility) -> None:
        """Lose the frame, or let it arrive once or twice, in its turn or later."""
        network = self.network
        chance = network.random.random
        if chance() < hostility.loss:
            network.frames_lost += 1
            return
        for _ in range(2 if chance() < hostility.duplicates else 1):
            late_s = 0.0
            if chance() < hostility.reorder:
                late_s = network.random.expovariate(1 / REORDERED_S)
            arrives_s = due_s + min(late_s, 10 * REORDERED_S)
            self.last_s = max(self.last_s, due_s)
            self.flying += 1
            network.clock.at(arrives_s, self._land, frame)

    def _land(self, frame: bytes) -> None:
        network = self.network
        held_s = network.held_until_s(self.peer, self.way)
        if self.open and held_s > network.clock.now_s:
            network.clock.at(held_s, self._land, frame)
            return
        self.flying -= 1
        if self.open:
            self.arrive(frame)

    def _pump(self) -> None:
        """Deliver what is due, then wait for the next."""
        self.pumping = False
        if not self.open or not self.queue:
            return
        now_s = self.network.clock.now_s
        held_s = self.network.held_until_s(self.peer, self.way)
        if held_s <= now_s:
            while self.open and self.queue and self.queue[0][0] <= now_s:
                self.arrive(self.queue.popleft()[1])
        if self.open and self.queue and not self.pumping:
            self.pumping = True
            self.network.clock.at(max(self.queue[0][0], held_s), self._pump)

    def cut(self) -> None:
        """Lose what is in flight and all that is to come."""
        self.network.frames_lost += len(self.queue) + self.flying
        self.queue.clear()
        self.open = False


class Connection:
    """One socket's life, from connect to close."""

    def __init__(
        self, network: "Network", number: int, peer: str, dialler: Dialler, door: "Door"
    ) -> None:
        self.network = network
        self.number = number
        self.peer = peer
        #: as the listener's socket names it
        self.routing_id = b"\0" + number.to_bytes(4, "big")
        self.dialler = dialler
        self.door = door
        #: whoever took it, once it is open
        self.listener: Listener | None = None
        self.up = Flow(network, peer, "up", self._arrived_at_listener)
        self.down = Flow(network, peer, "down", lambda frame: dialler.arrived(self, frame))
        self.dialler_knows_end = False
        #: the listener's socket knows no such connection (any more)
        self.listener_knows_end = True
        self.is_open = False

    def establish(self) -> None:
        """The handshake comes through, or does not."""
        network = self.network
        if self.dialler_knows_end:
            return
        held_s = max(network.held_until_s(self.peer, "up"), network.held_until_s(self.peer, "down"))
        if held_s > network.clock.now_s:
            network.clock.at(held_s, self.establish)
            return
        if self.door.listener is None:
            self._tell_dialler()
            return
        self.listener = self.door.listener
        self.is_open = True
        self.listener_knows_end = False
        self.listener.accepted(self)
        self.dialler.opened(self)

    def _arrived_at_listener(self, frame: bytes) -> None:
        if self.listener is not None:
            self.listener.arrived(self, frame)

    def cut(self, dialler_after_s: float, listener_after_s: float) -> None:
        """Break; each end learns of it in its own time."""
        self.up.cut()
        self.down.cut()
        self.is_open = False
        self.network.clock.after(dialler_after_s, self._tell_dialler)
        self.network.clock.after(listener_after_s, self._tell_listener)

    def hang_up(self) -> None:
        """The dialler closes: what it sent still arrives, then the listener learns of the end."""
        self.dialler_knows_end = True
        self.down.cut()
        self._end_after_flow(self.up, self._tell_listener)

    def throw_out(self) -> None:
        """The listener closes its side: what it sent still arrives, then the dialler learns."""
        self.listener_knows_end = True
        self.up.cut()
        self._end_after_flow(self.down, self._tell_dialler)

    def die_at_dialler(self, lost: bool) -> None:
        """The dialler's process is gone; the kernel still sends what it took, or not."""
        self.dialler_knows_end = True
        self.down.cut()
        if lost:
            self.up.cut()
        self._end_after_flow(self.up, self._tell_listener)

    def die_at_listener(self, lost: bool) -> None:
        """The listener's process is gone; the kernel still sends what it took, or not."""
        self.listener_knows_end = True
        self.up.cut()
        if lost:
            self.down.cut()
        self._end_after_flow(self.down, self._tell_dialler)

    def _end_after_flow(self, flow: Flow, tell: Callable[[], None]) -> None:
        self.is_open = False
        network = self.network
        under_way = flow.queue or flow.flying
        last_s = max(flow.last_s if under_way else 0.0, network.clock.now_s)
        last_s = max(last_s, network.held_until_s(self.peer, flow.way))
        network.clock.at(last_s + network.random.uniform(1e-5, 1e-3), tell)

    def _tell_dialler(self) -> None:
        if not self.dialler_knows_end:
            self.dialler_knows_end = True
            self.up.cut()
            self.down.cut()
            self.dialler.closed(self)

    def _tell_listener(self) -> None:
        if not self.listener_knows_end:
            self.listener_knows_end = True
            self.up.cut()
            self.down.cut()
            if self.listener is not None:
                self.listener.ended(self)


class Network:
    """All connections, and what is wrong with them."""

    def __init__(
        self, clock: Clock, random: Random, delay_s: float, jitter_s: float, bytes_per_s: float
    ) -> None:
        self.clock = clock
        self.random = random
        self._delay_s = delay_s
        self._jitter_s = jitter_s
        self._bytes_per_s = bytes_per_s
        self._connections: list[Connection] = []
        self._made = 0
        self._held: dict[tuple[str, str], float] = {}
        self._slow: dict[str, tuple[float, float]] = {}
        self.frames_lost = 0
        #: None: network A
        self.hostility: Hostility | None = None
        #: until when something was wrong with each peer's connections
        self.troubled_s: dict[str, float] = {}

    def connect(self, peer: str, dialler: Dialler, door: "Door") -> Connection:
        """Begin a connection of `peer`; the dialler is told how it went."""
        self._made += 1
        made = Connection(self, self._made, peer, dialler, door)
        self._connections = [one for one in self._connections if self._is_alive(one)]
        self._connections.append(made)
        self.clock.after(2 * self.delay_s(peer, 100), made.establish)
        return made

    @staticmethod
    def _is_alive(connection: Connection) -> bool:
        return not (connection.dialler_knows_end and connection.listener_knows_end)

    def delay_s(self, peer: str, size: int) -> float:
        """Draw how long a frame is under way."""
        delay_s = self._delay_s + self._jitter_s * self.random.random() + size / self._bytes_per_s
        factor, until_s = self._slow.get(peer, (1.0, 0.0))
        return delay_s * factor if until_s > self.clock.now_s else delay_s

    def held_until_s(self, peer: str, way: str) -> float:
        """Until when frames of this direction are held back."""
        return self._held.get((peer, way), 0.0)

    def connections_of(self, peer: str) -> list[Connection]:
        """Return the open connections of a peer, oldest first."""
        return [one for one in self._connections if one.peer == peer and one.is_open]

    def cut(self, peer: str, which: int, half_open: bool) -> int:
        """Cut a peer's connections: the control's (0), the bulk's (1), or all (2)."""
        cut = 0
        self._trouble(peer, self.clock.now_s)
        for number, connection in enumerate(self.connections_of(peer)):
            if which in (number, 2):
                late_s = PING_TIMEOUT_S if half_open else 0.005
                draw = self.random.uniform
                connection.cut(draw(1e-5, late_s), draw(1e-5, late_s))
                cut += 1
        return cut

    def stall(self, peer: str, way: str, for_s: float) -> None:
        """Hold back one direction; the sockets' ping ends the connection when it takes too long."""
        until_s = self.clock.now_s + for_s
        self._trouble(peer, until_s)
        self._held[peer, way] = max(until_s, self._held.get((peer, way), 0.0))
        if for_s > PING_TIMEOUT_S:
            for connection in self.connections_of(peer):
                late_s = self.random.uniform(PING_TIMEOUT_S, 2 * PING_TIMEOUT_S)
                self.clock.after(min(late_s, for_s), self._cut_if_open, connection)

    def _cut_if_open(self, connection: Connection) -> None:
        if connection.is_open:
            connection.cut(1e-4, 1e-4)

    def slow(self, peer: str, factor: float, for_s: float) -> None:
        """Make everything of a peer take `factor` times as long."""
        self._slow[peer] = (factor, self.clock.now_s + for_s)
        self._trouble(peer, self.clock.now_s + for_s)

    def _trouble(self, peer: str, until_s: float) -> None:
        self.troubled_s[peer] = max(until_s, self.troubled_s.get(peer, until_s))

    def heal(self) -> None:
        """Nothing is wrong with the network any more."""
        self.hostility = None
        self._held.clear()
        self._slow.clear()
