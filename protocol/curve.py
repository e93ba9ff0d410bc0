"""What sockets over the network are set to: keys, and when a connection counts as dead.

Never a socket: the options are named here, and set in protocol/sockets.py.
"""

from typing import Final

from .door import DOMAIN
from .endpoints import is_ipv4
from .keys import Credentials, Door
from .settings import Settings

#: (name of the option, value), to be set in this order before bind or connect
Options = list[tuple[str, int | bytes]]

#: connections that wait to be accepted
_BACKLOG: Final = 256
#: a silent connection is asked after so often, and so many times in vain before it is closed
_KEEPALIVE_PAUSE_S: Final = 15
_KEEPALIVE_PROBES: Final = 4
#: of the time after which a silent node is given up, the part that a dialler waits for an answer
_PATIENCE: Final = 0.8


def dialling_options(
    credentials: Credentials, own_public_key: bytes, endpoint: str, settings: Settings
) -> Options:
    """Return what a dialling socket is set to."""
    beat_s = settings.heartbeat_interval_s
    return [
        ("CURVE_SERVERKEY", credentials.server_key),
        ("CURVE_SECRETKEY", credentials.secret_key),
        ("CURVE_PUBLICKEY", own_public_key),
        *family_options(endpoint),
        # A link that heals is found by a fresh attempt sooner than by the kernel's own, whose
        # pauses double.
        ("CONNECT_TIMEOUT", _ms(settings.handshake_timeout_s)),
        # Only this side asks whether the other is there. A short cut must close nothing: the
        # closing would be taken for the end of this process.
        ("HEARTBEAT_IVL", _ms(beat_s)),
        ("HEARTBEAT_TIMEOUT", _ms(_PATIENCE * settings.lost_after_intervals * beat_s)),
    ]


def listening_options(
    door: Door, endpoint: str, settings: Settings, frames_in_max: int = 0
) -> Options:
    """Return what the listening socket is set to: nobody comes in but with a key on the list.

    Args:
        door: who may come.
        endpoint: where it listens.
        settings: bounds and times.
        frames_in_max: see `ends.Bounds`.
    """
    # Connections of machines that vanished go away, but not before their peers are given up: a
    # closed connection says that a process has ended, and who is silent may come back.
    silence_s = max(
        settings.client_silence_s, settings.lost_after_intervals * settings.heartbeat_interval_s
    )
    return [
        ("CURVE_SERVER", 1),
        ("CURVE_SECRETKEY", door.secret_key),
        # With an empty domain, or with nobody to ask, ZeroMQ would admit any key.
        ("ZAP_DOMAIN", DOMAIN),
        ("ZAP_ENFORCE_DOMAIN", 1),
        *family_options(endpoint),
        ("BACKLOG", _BACKLOG),
        # Peers that keep to the protocol have no more on its way than their window. Who does not is
        # read no further until the loop has come round.
        ("RCVHWM", frames_in_max or 4 * settings.link_window_batches_max),
        ("TCP_KEEPALIVE", 1),
        ("TCP_KEEPALIVE_IDLE", max(1, int(silence_s))),
        ("TCP_KEEPALIVE_INTVL", _KEEPALIVE_PAUSE_S),
        ("TCP_KEEPALIVE_CNT", _KEEPALIVE_PROBES),
        ("TCP_MAXRT", _ms(silence_s)),
    ]


def family_options(endpoint: str) -> Options:
    """Return what any socket over the network needs for the kind of its address."""
    return [("IPV6", int(not is_ipv4(endpoint)))]


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))
