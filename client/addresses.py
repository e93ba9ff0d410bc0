"""What an address means: a local cluster's directory, a cluster file, a drumbeat:// string.

Never shows a string with a key in it, and never takes one from where others could read it. Where
`DRUMBEAT_ADDRESS` is read, that is done here.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ..protocol.cluster_file import name_of, read_address
from ..protocol.errors import ConfigError, KeyRefused
from ..protocol.frames import Role
from ..protocol.keys import KEY_CHARACTERS, Address, Credentials, is_address, parse_address
from . import runtime

VARIABLE: Final = "DRUMBEAT_ADDRESS"

_KEY: Final = re.compile(rf"[A-Za-z0-9_-]{{{KEY_CHARACTERS - 1}}}")

#: whose cluster file is taken from a scheduler's directory, the first that is there
FOR_PROGRAMS: Final = (Role.CLIENT, Role.ADMIN)
FOR_COMMANDS: Final = (Role.ADMIN, Role.CLIENT)
FOR_NODES: Final = (Role.NODE,)


class Place(NamedTuple):
    """Where a scheduler is, and what to come with."""

    endpoint: str
    #: for people; holds no secret
    shown: str
    #: None: a local cluster, for which the directory is proof enough
    credentials: Credentials | None = None


def given(environ: Mapping[str, str] = os.environ) -> str:
    """Return the address in the environment; "" if there is none."""
    return environ.get(VARIABLE, "")


def without_secret(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for processes that tasks may look into."""
    return {name: value for name, value in environ.items() if name != VARIABLE}


def place_of(text: str, origin: str, roles: Sequence[str] = FOR_PROGRAMS) -> Place:
    """Return the place that an address names.

    Args:
        text: the address; perhaps a secret.
        origin: where it comes from, for errors.
        roles: for a scheduler's directory: whose files to look for there, the best first.

    Raises:
        ConfigError: it names none, or nothing that can be trusted.
        KeyRefused: its key is not one that programs come with.
    """
    if not is_address(text):
        path = _path(text, origin)
        if runtime.holds_socket(path):
            return Place(f"ipc://{_trusted(path, text, origin) / runtime.SOCKET}", str(path))
    endpoint, role, credentials = remote(text, origin, roles)
    if role not in FOR_PROGRAMS:
        raise KeyRefused(
            f"{_shown(text, origin)} holds the key of a {role}, which is not admitted as a program:"
            f" take {name_of(Role.CLIENT)}"
        )
    return Place(endpoint, endpoint.replace("tcp://", "drumbeat://", 1), credentials)


def remote(text: str, origin: str, roles: Sequence[str]) -> Address:
    """Return what an address of a scheduler on the network says.

    Raises:
        ConfigError: it is none, or nothing that can be trusted.
    """
    if is_address(text):
        return parse_address(text)
    path = _path(text, origin)
    if os.path.isdir(path):
        found = [path / name_of(role) for role in roles if os.path.lexists(path / name_of(role))]
        if not found:
            names = " or ".join(name_of(role) for role in roles)
            raise ConfigError(
                f"{_shown(text, origin)} is neither the directory of a running local cluster (no "
                f"{runtime.SOCKET} in it) nor a scheduler's (no {names})",
                setting="address",
                origin=origin,
            )
        path = found[0]
    elif not os.path.lexists(path):
        raise ConfigError(
            f"{_shown(text, origin)} is not there; an address is the directory of a running local "
            "cluster (`Cluster.address` is one), a cluster file, or a drumbeat:// string",
            setting="address",
            origin=origin,
        )
    return read_address(path)


def may_hold_key(text: str) -> bool:
    """Say whether an address may be a secret, perhaps one that was mistyped."""
    return is_address(text) or _KEY.search(text) is not None


def _path(text: str, origin: str) -> Path:
    """Return the path that an address names; what the system will not even look at is refused."""
    path = Path(os.path.expanduser(text)).absolute()
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # perhaps it is no path: whoever looks for something there says so
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(
            f"{_shown(text, origin)} cannot be looked at: {why}", setting="address", origin=origin
        ) from None
    return path


def _shown(text: str, origin: str) -> str:
    return origin if may_hold_key(text) else f"{origin} = {text!r}"


def _trusted(directory: Path, text: str, origin: str) -> Path:
    reason = runtime.distrust(directory)
    if reason:
        raise ConfigError(
            f"{origin} = {text!r} {reason}: whoever could have made it would be sent this "
            "program's functions and values",
            setting="address",
            origin=origin,
        )
    return directory
