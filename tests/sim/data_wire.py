"""Data connections over the simulated network: the real mover without its thread.

protocol/carriage.py, mover.py and shelf.py are loaded a second time, as wire.py does with the
shells: in these copies the thread is turned by the virtual clock, the pipe that wakes a loop wakes
a simulated one, and some of what comes lies in what stands for a file. Keys are not simulated.
Never decides what goes where.
"""

from collections.abc import Callable, Sequence
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from drumbeat.protocol import carriage, mover, shelf
from drumbeat.protocol.ends import FRAMES_PER_TURN_MAX, Bounds
from drumbeat.protocol.excuses import Stage
from drumbeat.protocol.frames import Role
from drumbeat.protocol.keys import KEY_BYTES, Credentials
from drumbeat.protocol.landing import Landing
from drumbeat.protocol.settings import Settings

from . import operations as op
from .network import Connection, Door
from .wire import Dialing, Listening, Place, load

if TYPE_CHECKING:
    from .process import Process

#: what peers come to one another with
KEYS: Final = (b"k" * KEY_BYTES,)
TURN_S: Final = 2e-5
HOST: Final = "10.0.0.1"
FIRST_PORT: Final = 10_000
NEVER_S: Final = float("inf")
#: what the word that carries bytes of a payload begins with
PIECE: Final = b"piece"
PIECE_WITHIN_BYTES: Final = 16


class Pipe:
    """Both ends of one."""

    def __init__(self) -> None:
        self.is_full = False
        self.wake: Callable[[], None] = lambda: None


class _System:
    """Stands in for `os`."""

    def pipe(self) -> tuple[Pipe, Pipe]:
        pipe = Pipe()
        return pipe, pipe

    def set_blocking(self, pipe: Pipe, blocking: bool) -> None:
        """A simulated one never blocks."""

    def write(self, pipe: Pipe, _data: bytes) -> None:
        pipe.is_full = True
        pipe.wake()

    def read(self, pipe: Pipe, _bytes_max: int) -> bytes:
        if not pipe.is_full:
            raise BlockingIOError
        pipe.is_full = False
        return b"x"

    def close(self, pipe: Pipe) -> None:
        pipe.wake = lambda: None


class _Clock:
    """Stands in for protocol/clock.py: whoever turns a mover sets it first."""

    shown_s = 0.0

    def now_s(self) -> float:
        return self.shown_s


class _Thread:
    """Stands in for a mover's thread: its turns are made by its place."""

    def __init__(self, target: Any, **_names: Any) -> None:
        self._target = target

    def start(self) -> None:
        its = self._target.__self__
        its._poller.begin(its)

    def join(self, _timeout_s: float) -> None:
        self._target()  # it is over: only its end is left

    def is_alive(self) -> bool:
        return False


class _Landing(Landing):
    """Two of three lie in a file: what came can be asked for as long as somebody keeps it."""

    def finish(self) -> Any:
        payload = super().finish()
        return memoryview(payload) if self._size % 3 else payload


def joined(frame: bytes, data: memoryview | None) -> bytes:
    """Return a frame and its second part as the simulated network carries them."""
    return len(frame).to_bytes(4, "big") + frame + (data or b"")


def parted(frame: bytes) -> tuple[memoryview, memoryview | None]:
    """Return what was joined."""
    begin = 4 + int.from_bytes(frame[:4], "big")
    view = memoryview(frame)
    return view[4:begin], view[begin:] if len(view) > begin else None


class DataDialing(Dialing):
    """A data connection at the end that dialled."""

    def __init__(self, place: "MoverPlace", door: Door, frames_max: int) -> None:
        self._frames_max = frames_max
        super().__init__(place, door)

    def send(self, frame: bytes, data: memoryview | None = None) -> bool:
        waiting = self._unsent if self._unsent is not None else self.connection.up.queue
        if len(waiting) >= self._frames_max:
            return False
        place: Any = self._place
        return super().send(place.passed(joined(frame, data)))

    def receive(self, frames_max: int = FRAMES_PER_TURN_MAX) -> list[Any]:
        return [parted(frame) for frame in super().receive(frames_max)]

    def opened(self, connection: Connection) -> None:
        self.stage = Stage.OPEN
        super().opened(connection)

    def die(self, random: Random) -> None:
        """The process is gone."""
        self.connection.die_at_dialler(lost=random.random() < 0.5)


class DataListening(Listening):
    """All data connections that come to a peer."""

    refusals = 0

    def __init__(self, place: "MoverPlace", frames_max: int) -> None:
        self._frames_max = frames_max
        super().__init__(place)
        self.endpoint = place.world.data_doors.open(place.door, place.owner.name)

    def attach(self, place: "MoverPlace") -> None:
        """It is its place's already."""

    def send(self, route: bytes, frame: bytes, data: memoryview | None = None) -> bool:
        connection = self._routes.get(route)
        if connection is not None and len(connection.down.queue) >= self._frames_max:
            return False
        place: Any = self._place
        return super().send(route, place.passed(joined(frame, data)))

    def receive(self, now_s: float, frames_max: int = FRAMES_PER_TURN_MAX) -> list[Any]:
        received = super().receive(now_s, frames_max)
        return [(route, parted(frame), proven) for route, frame, proven in received]

    def hang_up(self, route: bytes) -> None:
        connection = self._routes.pop(route, None)
        if connection is not None:
            connection.throw_out()
            self._closed.append(route)
            self._place.wake()

    def close(self, linger_s: float = 0.0) -> None:
        self._place.door.listener = None
        super().close(linger_s)


class _DataEnds:
    """Makes such sockets."""

    def dial(
        self, endpoint: str, settings: Settings, place: "MoverPlace", keys: object, bounds: Bounds
    ) -> DataDialing:
        return DataDialing(place, place.world.data_doors.at(endpoint), bounds[0])

    def close(self) -> None:
        """Nothing to wait for."""


_system, _clock = _System(), _Clock()
_shelf = load(shelf, Landing=_Landing)
_moving = load(
    mover, os=_system, clock=_clock, threading=SimpleNamespace(Thread=_Thread), signal=None,
    Ends=_DataEnds, Shelf=_shelf.Shelf,
)  # fmt: skip
_carrying = load(carriage, os=_system)


class _Mover(_moving.Mover):  # type: ignore[misc, name-defined]  # of the copy
    """The real one, but that its keys are no keys."""

    def _listen(self, _endpoint: str) -> None:
        self.public_key = self._poller.owner.random.randbytes(KEY_BYTES)
        self._listening = DataListening(self._poller, self._bounds[0])
        self._endpoint = self._listening.endpoint

    def _report(self, what: Any) -> None:
        arrived = isinstance(what, _moving.Moved)
        count = "payload came past the scheduler" if arrived else "payload could not be had"
        self._poller.world.oracle.count(count)
        super()._report(what)


class MoverPlace(Place):
    """Where a process's mover runs: its sockets and its turns, in the time of the host's clock."""

    def __init__(self, owner: "Process") -> None:
        super().__init__(owner.world.network, f"{owner.name} data", self._soon, Door())
        self.owner = owner
        self.world = owner.world
        self.record = owner.world.record
        self.mover: Any = None
        self._random = Random(f"{owner.world.scenario.seed} mover of {owner.name} {owner.number}")
        self._timeout_s: float | None = None
        self._wake_s = NEVER_S
        self._turns = 0
        #: so many pieces are yet to be sent with a wrong byte
        self.spoils = 0

    def passed(self, frame: bytes) -> bytes:
        """Return a frame as it goes to another peer."""
        if not self.spoils or PIECE not in frame[:PIECE_WITHIN_BYTES]:
            return frame
        self.spoils -= 1
        self.world.oracle.count("piece spoiled")
        return frame[:-1] + bytes([frame[-1] ^ 1])

    def begin(self, its: Any) -> None:
        """Its thread begins."""
        self.mover = its
        self.wake()

    def wait(self, timeout_s: float | None) -> tuple[Any, ...]:
        """What the mover calls at the end of a turn: note until when."""
        self._timeout_s = timeout_s
        return (self.mover._wake_fd,)

    def crash(self) -> None:
        """The process is gone."""
        for socket in list(self.sockets):
            socket.die(self._random)

    def sizes(self) -> dict[str, int]:
        """Return what must be nothing at rest."""
        its = self.mover
        if its is None:
            return {}
        core, shelf_ = its._core, its._shelf
        return {
            "mover.busy": int(not core.at_rest()),
            "mover.held": len(list(core._holding.held)),
            "mover.given": len(shelf_._given),
            "mover.landings": len(shelf_._landings),
            "mover.lent": len(shelf_._lent),
            "mover.checksums": len(its._checksums),
            "mover.awaited": len(core._awaited),
        }

    def _soon(self) -> None:
        self._turn_at(self.owner.clock.now_s + TURN_S * (0.3 + self._random.random()))

    def _turn_at(self, when_s: float) -> None:
        if when_s < self._wake_s:
            self._wake_s = when_s
            self.owner.clock.at(when_s, self._alarm, when_s)

    def _alarm(self, when_s: float) -> None:
        owner = self.owner
        if when_s != self._wake_s or not owner.is_alive or self.mover is None:
            return
        self._wake_s = NEVER_S
        now_s = owner.clock.now_s
        if now_s < owner.paused_until_s:
            self._turn_at(owner.paused_until_s)
            return
        _clock.shown_s = owner.host_clock.shows_s(now_s)
        self._turns += 1
        self.mover._turn()
        self.mover._poller_wait()
        if self._turns % self.world.scenario.audit_each == 0:
            self.mover._core.check_invariants()
        if self._timeout_s is not None:
            self._turn_at(max(now_s + TURN_S, owner.host_clock.true_s(
                _clock.shown_s + self._timeout_s
            )))  # fmt: skip


def open_carriage(owner: "Process", place: MoverPlace, role: str, peer: bytes) -> Any:
    """Return what brings a peer's large payloads past the scheduler."""
    settings = owner.world.settings
    listens = role == Role.NODE

    def open_mover(wake: Callable[[], None]) -> Any:
        _moving.Poller = place  # type: ignore[attr-defined]  # what the mover makes for itself
        where = "tcp://0.0.0.0:0" if listens else None
        return _Mover(settings, peer, Credentials(b"", b""), where, wake)

    sizes = settings.data_bytes_min, settings.segment_bytes_max
    return _carrying.Carriage(open_mover, *sizes, HOST, listens=listens)


def carriage_sizes(its: Any) -> dict[str, int]:
    """Return what must be nothing at rest."""
    return {
        "carriage.pulls": len(its._pulls),
        "carriage.offered": len(its._offered),
        "carriage.served": len(its._served),
    }


def rest_of_links(shell: Any) -> dict[str, int]:
    """Return what of the scheduler's links must be nothing at rest."""
    traffics = shell._traffic.values()
    return shell._remotes.sizes() | {
        "links.marked": len(shell._marked),
        "links.lent": sum(traffic.chunker.is_lent(1 << 62) for traffic in traffics),
        "links.tries": sum(len(traffic.tries) for traffic in traffics),
    }


class DataDoors:
    """Where peers can be dialled by others; to those behind a wall nobody has a way."""

    def __init__(self, walled: Sequence[str]) -> None:
        self._walled = walled
        self._doors: dict[str, Door] = {}

    def open(self, door: Door, name: str) -> str:
        """Return where a peer can be dialled from now on."""
        endpoint = f"tcp://{HOST}:{FIRST_PORT + len(self._doors)}"
        self._doors[endpoint] = Door() if name in self._walled else door
        return endpoint

    def at(self, endpoint: str) -> Door:
        """Return what is there."""
        return self._doors[endpoint]


def hurt(process: "Process", entry: op.Cut | op.Stall | op.Slow | op.Spoil) -> None:
    """Have a process's connections suffer: to the scheduler, or to other peers."""
    world, place = process.world, getattr(process, "mover_place", None)
    if isinstance(entry, op.Spoil):
        if place is not None:
            place.spoils += 1
        return
    name = place.name if entry.data and place is not None else process.name
    match entry:
        case op.Cut():
            if world.network.cut(name, 2 if entry.data else entry.which, entry.half_open):
                world.oracle.count("data cut" if entry.data else "connection cut")
        case op.Stall():
            world.network.stall(name, entry.way, entry.for_s)
        case op.Slow():
            world.network.slow(name, entry.factor, entry.for_s)
