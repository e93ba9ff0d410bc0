"""Endpoints: how the place where a scheduler listens is written, and which ones can be used.

Never opens anything, and never asks what a name stands for.
"""

import re
from typing import Final

from .errors import ConfigError

#: Longest path of a Unix socket that every system takes (the kernels' limits are 104 to 108).
PATH_BYTES_MAX: Final = 100
PORT_MAX: Final = 65535
#: longest name of a host that the domain name system knows
HOST_CHARACTERS_MAX: Final = 253
#: all interfaces, for whoever listens
ANY_HOST: Final = "*"

_TCP: Final = "tcp://"
#: names and IPv4 addresses; an underscore is no part of a host's name, but of many a service's
_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", re.ASCII)
#: an IPv6 address, perhaps with the interface that a link-local one needs
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?", re.ASCII)
_LOOPBACK: Final = re.compile(r"127\.[0-9.]+|::1|localhost", re.ASCII | re.IGNORECASE)
_IPV4: Final = re.compile(r"[0-9.]+", re.ASCII)
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


def check_endpoint(endpoint: str) -> str:
    """Return the endpoint if it is one that this version can use.

    Raises:
        ConfigError: it is not, and why.
    """
    scheme, separator, path = endpoint.partition("://")
    if separator and scheme == "tcp":
        return tcp_endpoint(*split_tcp(path, f"the endpoint {endpoint!r}"))
    if not separator or scheme != "ipc" or not path:
        raise ConfigError(
            f"{endpoint!r} is not an endpoint; one looks like ipc:///run/user/1000/drumbeat/socket"
            " or tcp://host:7788",
            setting="endpoint",
        )
    if len(path.encode()) > PATH_BYTES_MAX:
        raise ConfigError(
            f"the path of a Unix socket may have {PATH_BYTES_MAX} bytes, {path!r} has"
            f" {len(path.encode())}; set runtime_directory to a shorter one",
            setting="runtime_directory",
        )
    return endpoint


def check_keys(endpoint: str, given: bool) -> str:
    """Return the endpoint if it goes together with there being keys, or none.

    Raises:
        ConfigError: it is reached over the network and there are none, or by files and there are.
    """
    if is_tcp(endpoint) == given:
        return endpoint
    if given:
        text = f"{endpoint} is a Unix socket: its directory says who may come, keys have no use"
    else:
        text = (
            f"{endpoint} is reached over the network, which needs keys: use the cluster file that"
            " `drumbeat scheduler` has written"
        )
    raise ConfigError(text, setting="endpoint")


def is_tcp(endpoint: str) -> bool:
    """Say whether an endpoint is reached over the network, where keys are needed."""
    return endpoint.startswith(_TCP)


def split_tcp(text: str, what: str) -> tuple[str, int]:
    """Return host and port of "HOST:PORT"; an IPv6 address stands in brackets, and loses them.

    Args:
        text: no secret: errors quote it.
        what: what it is and where it stands, for the error.

    Raises:
        ConfigError: it is no host and port.
    """
    host, colon, port_text = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    port = int(port_text) if _PORT.fullmatch(port_text) else PORT_MAX + 1
    fits = bool(_IPV6.fullmatch(bare) if bracketed else _NAME.fullmatch(bare))
    fits = fits or host == ANY_HOST
    if colon and fits and port <= PORT_MAX and len(bare) <= HOST_CHARACTERS_MAX:
        return bare, port
    raise ConfigError(
        f"{what} has no host and port: {text!r} should look like lab1:7788, 10.0.0.7:7788 or"
        " [fd00::7]:7788",
        setting="address",
    )


def tcp_endpoint(host: str, port: int) -> str:
    """Return the endpoint of a host and a port."""
    return f"{_TCP}[{host}]:{port}" if ":" in host else f"{_TCP}{host}:{port}"


def is_loopback(host: str) -> bool:
    """Say whether a host, as it is written, is whatever machine looks for it there."""
    return bool(_LOOPBACK.fullmatch(host))


def is_ipv4(endpoint: str) -> bool:
    """Say whether a tcp endpoint names its host by an IPv4 address."""
    return bool(_IPV4.fullmatch(endpoint.removeprefix(_TCP).rpartition(":")[0]))
