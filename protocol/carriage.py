"""What of a peer's large payloads goes past the scheduler: offered to others, or got there.

Never moves a byte (mover.py does, in a thread of its own), and never decides who gets what from
whom: the scheduler does (remotes.py). Exists over the network only; within a machine payloads are
files that are opened where they are.
"""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from msgspec.structs import astuple

from .endpoints import ANY_HOST, split_tcp, tcp_endpoint
from .errors import RemoteProtocolError
from .frames import Bring, Offered, Pointed, Taken
from .ids import NO_PEER, PeerId
from .keys import Credentials
from .moving_words import Moved, Source
from .settings import Settings
from .traffic import Blob, Traffic

if TYPE_CHECKING:
    from .mover import Mover

#: of one that cannot be dialled: that it moves payloads at all
DIALS_ONLY: Final = bytes(32)
#: payloads that are under way from others at a time
PULLS_MAX: Final = 4096
#: a name of the scheduler's is waited for so long; known later, it serves the next connection
NAME_S: Final = 0.5
_WOKEN_BYTES: Final = 4096


class _Served:
    """A payload that others may have, and how often it is offered."""

    __slots__ = ("count", "payload")

    def __init__(self, payload: bytes | memoryview) -> None:
        self.payload = payload
        self.count = 0


class Carriage:
    """One peer's; see the module. Outlives its link lives.

    Args:
        open_mover: makes what moves payloads; takes what wakes this peer's loop.
        bytes_min: what is smaller goes through the scheduler.
        bytes_max: of a payload.
        host: where others are to dial this peer; "": whence it dials the scheduler.
        listens: it can be dialled, and does not wait for the first payload to be ready for it.
    """

    def __init__(
        self,
        open_mover: Callable[[Callable[[], None]], "Mover"],
        bytes_min: int,
        bytes_max: int,
        host: str = "",
        *,
        listens: bool,
    ) -> None:
        self._open_mover = open_mover
        self._bytes_min = bytes_min
        self._bytes_max = bytes_max
        self._host = host
        self._listens = listens
        self._admits: tuple[bytes, ...] = ()
        self._wake_write: int | None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        #: None: nothing had to be moved yet
        self._mover: Mover | None = open_mover(self._wake) if listens else None
        #: finds the address that others may dial, where the scheduler has a name
        self._asking: threading.Thread | None = None
        self._found: list[str] = []
        #: by id: for which link life, key and number
        self._pulls: dict[bytes, list[tuple[Traffic, bytes, int]]] = {}
        #: by the number in this link life, what others may have; and how often each id is in there
        self._offered: dict[int, bytes] = {}
        self._served: dict[bytes, _Served] = {}
        #: what was to be got and is here
        self._here: list[Blob] = []

    @property
    def wake_fd(self) -> int:
        """To be waited for: `turn` has something to do."""
        return self._wake_read

    def place(self, scheduler: str) -> tuple[str, bytes]:
        """Return where others find this peer, and the key of that place.

        Args:
            scheduler: where the scheduler listens.
        """
        mover = self._mover
        if mover is None or not self._listens:
            return "", DIALS_ONLY
        host = self._host or self._host_towards(scheduler)
        if not host:
            return "", DIALS_ONLY
        _, port = split_tcp(mover.endpoint.removeprefix("tcp://"), "the data socket")
        return tcp_endpoint(host, port), mover.public_key

    def new_life(self, admits: tuple[bytes, ...]) -> None:
        """A link life begins: nothing of the one before is offered or waited for any more."""
        self._admits = admits
        mover = self._mover
        if mover is not None:
            mover.admit(admits)
            for id_ in self._served:
                mover.unserve(id_)
            for id_ in self._pulls:
                mover.cancel(id_)
        self._served.clear()
        self._offered.clear()
        self._pulls.clear()
        self._here.clear()

    def offer(self, traffic: Traffic, key: bytes, payload: bytes | memoryview, id_: bytes) -> bool:
        """Offer a payload to whoever the scheduler sends; False: it is to be sent as it ever was.

        Args:
            traffic: of the present link life.
            key: as which the scheduler expects it.
            payload: stays what it is as long as it is offered.
            id_: the same id is the same payload, whoever has it.
        """
        if not self._admits or traffic.lends or len(payload) < self._bytes_min:
            return False
        mover = self._opened()
        self._offered[traffic.chunker.offer(key, payload, id_)] = id_
        served = self._served.get(id_)
        if served is None:
            served = self._served[id_] = _Served(payload)
            mover.serve(id_, payload)
        served.count += 1
        return True

    def turn(self) -> list[Blob]:
        """Return the payloads that have come; ask the scheduler for what could not be had."""
        mover = self._mover
        if mover is None:
            return []
        try:
            os.read(self._wake_read, _WOKEN_BYTES)
        except BlockingIOError:
            return []
        blobs, self._here = self._here, []
        for moved in mover.happened():
            for traffic, key, number in self._pulls.pop(moved.key, ()):
                if isinstance(moved, Moved):
                    traffic.chunker.say(Taken(number, True))
                    blobs.append(Blob(key, moved.payload, NO_PEER))
                else:
                    traffic.ask_for(key, number)
        return blobs

    # -------------------------------------------------------------------- what a link tells

    def heard(self, traffic: Traffic, message: Offered | Pointed | Bring) -> None:
        """See `traffic.Moves`."""
        match message:
            case Pointed():
                self._pull(traffic, message)
            case Bring():
                # Whether it is still here the mover knows: it may have been got from others.
                if self._mover is not None:
                    self._mover.offer(message.id, Source(*astuple(message.to)))
            case _:
                raise RemoteProtocolError("an Offered is out of place")

    def taken(self, _traffic: Traffic, answer: Taken, _refused: object) -> None:
        """See `traffic.Moves`."""
        if not answer.opened:
            return  # some get it here all the same; once the bytes are there this is said again
        id_ = self._offered.pop(answer.number, None)
        if id_ is None:
            return
        served = self._served[id_]
        served.count -= 1
        if served.count:
            return
        del self._served[id_]
        if self._mover is not None:
            self._mover.unserve(id_)

    def relayed(self, _traffic: Traffic, _number: int, _payload: bytes) -> bool:
        """See `traffic.Moves`."""
        return False

    def _pull(self, traffic: Traffic, message: Pointed) -> None:
        traffic.unask(message.key, message.number)
        served = self._served.get(message.id)
        if served is not None:
            # What this peer has made is to be used here.
            traffic.chunker.say(Taken(message.number, True))
            self._here.append(Blob(message.key, cast("bytes", served.payload), NO_PEER))
            self._wake()
            return
        if message.size > self._bytes_max:
            # Another peer's limit is higher: that is no fault of this link's.
            traffic.ask_for(message.key, message.number)
            return
        waiting = self._pulls.get(message.id)
        if waiting is not None:
            waiting.append((traffic, message.key, message.number))
            return
        if len(self._pulls) >= PULLS_MAX:
            traffic.ask_for(message.key, message.number)
            return
        self._pulls[message.id] = [(traffic, message.key, message.number)]
        sources = [Source(*astuple(source)) for source in message.sources]
        self._opened().pull(message.id, message.size, sources)

    # ------------------------------------------------------------------------------- the end

    def let_go_in_fork(self) -> None:
        """In a forked child: have nothing of the connections, which are the parent's."""
        if self._mover is not None:
            self._mover.let_go_in_fork()

    def close(self) -> None:
        """End all that is under way."""
        if self._mover is not None:
            self._mover.close()
            self._mover = None
        wake_write, self._wake_write = self._wake_write, None
        if wake_write is not None:
            os.close(wake_write)
        os.close(self._wake_read)

    def _host_towards(self, scheduler: str) -> str:
        """Return the address that packets to the scheduler come from; "": not known so far."""
        host, port = split_tcp(scheduler.removeprefix("tcp://"), "the scheduler's endpoint")
        found: list[str] = []
        _source_address(host, port, socket.AI_NUMERICHOST, found)
        if found:
            return found[0]
        # A name: whoever knows it may take long, and this peer has more to do.
        if self._asking is None:
            self._asking = threading.Thread(
                target=_source_address, args=(host, port, 0, self._found), daemon=True
            )
            self._asking.start()
            self._asking.join(NAME_S)
        elif not self._asking.is_alive():
            self._asking = None
        return self._found[-1] if self._found else ""

    def _opened(self) -> "Mover":
        mover = self._mover
        if mover is None:
            mover = self._mover = self._open_mover(self._wake)
            mover.admit(self._admits)
        return mover

    def _wake(self) -> None:
        # From the mover's thread, which may be about to end.
        wake_write = self._wake_write
        if wake_write is not None:
            with suppress(BlockingIOError):  # then it is awake
                os.write(wake_write, b"x")


def carriage_of(
    settings: Settings, peer: PeerId, credentials: Credentials | None, *, listens: bool
) -> Carriage | None:
    """Return what brings a peer's large payloads past the scheduler; None: nothing does.

    Args:
        settings: say what is large, and where a node can be reached.
        peer: whose they are.
        credentials: what it comes with over the network; None: it is not there.
        listens: it is a node.

    Raises:
        ConfigError: nobody can listen at `data_port`.
    """
    if credentials is None or not settings.data_bytes_min:
        return None

    def open_mover(wake: Callable[[], None]) -> "Mover":
        from .mover import Mover  # only what is used is loaded

        where = tcp_endpoint(ANY_HOST, settings.data_port) if listens else None
        return Mover(settings, peer, credentials, where, wake)

    sizes = settings.data_bytes_min, settings.segment_bytes_max
    return Carriage(open_mover, *sizes, settings.data_host, listens=listens)


def _source_address(host: str, port: int, flags: int, found: list[str]) -> None:
    """Find the address of this machine from which packets go there, if there is a way."""
    try:
        ways = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except OSError:
        return
    for family, kind, protocol, _, address in ways:
        try:
            with socket.socket(family, kind, protocol) as asking:
                asking.connect(address)  # sends nothing: it only asks the kernel for the way
                found.append(str(asking.getsockname()[0]))
                return
        except OSError:
            continue
