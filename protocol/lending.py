"""Payloads in files go to a process of the same machine as what they are: it opens the file.

Never decides whether that worked (blobs.py does), and never keeps a file.
"""

from .blobs import Place
from .codec import Reader
from .frames import Hello, Source
from .ids import PeerId
from .payload_files import file_of, opened_at, place_of
from .settings import Settings
from .traffic import Moves, Traffic


def traffic_with(
    reader: Reader, settings: Settings, mine: str, theirs: str, moves: Moves | None = None
) -> Traffic:
    """Return the traffic of a new link life.

    Args:
        reader: understands what comes.
        settings: bounds.
        mine: the machine of this process, see `frames.Hello`.
        theirs: that of the peer.
        moves: see `Traffic`.
    """
    return Traffic(reader, settings, _open_file if mine and mine == theirs else None, moves)


def traffic_of(
    reader: Reader, settings: Settings, mine: str, peer: PeerId, hello: Hello, moves: Moves
) -> Traffic:
    """Return the traffic of a new link life of a peer, at the listening end."""
    open_file = _open_file if mine and mine == hello.machine else None
    source = Source(peer, hello.data, hello.data_key) if hello.data_key else None
    return Traffic(reader, settings, open_file, moves, peer, hello.name, source)


def send_payload(traffic: Traffic, key: bytes, payload: bytes | memoryview) -> None:
    """Queue a large payload: where it lies, if the peer can get at that."""
    file = file_of(payload) if traffic.lends else None
    if file is None:
        traffic.chunker.add(key, payload)
    else:
        traffic.chunker.lend(key, payload, place_of(file))


def _open_file(place: Place) -> bytes | None:
    return opened_at(*place)
