"""What connects a client to its cluster: its two links, and the way past the scheduler.

Never decides anything, and keeps nothing.
"""

from random import Random

from ..protocol.carriage import carriage_of
from ..protocol.frames import Role
from ..protocol.ids import PeerId
from ..protocol.keys import Credentials
from ..protocol.payload_files import machine_of
from ..protocol.settings import Settings
from ..protocol.transport import DialShell


def dialler(
    endpoint: str,
    peer: PeerId,
    name: str,
    settings: Settings,
    credentials: Credentials | None = None,
) -> DialShell:
    """Return the shell that connects a client to an endpoint."""
    return DialShell(
        endpoint, Role.CLIENT, peer, name, settings, Random(peer), credentials,
        machine_of(settings), carriage=carriage_of(settings, peer, credentials, listens=False),
    )  # fmt: skip
