"""The directory of a scheduler on the network: its keys, and a cluster file for each role.

Never makes a key twice: files that were copied to other machines stay good for ever. Only their
address is written anew where it has changed. One scheduler at a time has a directory.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..protocol.cluster_file import (
    SCHEDULER,
    endpoint_field,
    key_field,
    make_private_directory,
    name_of,
    parse_fields,
    read_address,
    read_private,
    show_fields,
    write_address,
    write_private,
)
from ..protocol.errors import ConfigError
from ..protocol.keys import KEY_BYTES, ROLES, Address, Credentials, Door, parse_key, show_key

#: not the name of a local cluster's lock: what belongs to a dead one of those is removed
LOCK: Final = "scheduler.lock"
#: the keys of a first start that did not come to its end
UNFINISHED: Final = name_of(SCHEDULER) + ".new"


class _Own(NamedTuple):
    """What the scheduler's own file holds."""

    endpoint: str
    server_key: bytes
    secret_key: bytes
    #: the public key of each role
    keys: dict[str, bytes]


class ClusterDirectory:
    """See the module. Opened, it is this process's as long as it lives.

    Args:
        path: where it lies; made if need be.
        endpoint: where others reach the scheduler.
        public_key_of: returns the public key of a secret one.

    Raises:
        ConfigError: another scheduler has it, or its files are not to be trusted or not whole.
    """

    def __init__(self, path: Path, endpoint: str, public_key_of: Callable[[bytes], bytes]) -> None:
        self.path = path.absolute()
        self.endpoint = endpoint
        self._public_key_of = public_key_of
        make_private_directory(self.path)
        self._lock_fd = _lock(self.path)
        try:
            self._open()
        except BaseException:
            os.close(self._lock_fd)
            raise

    def _open(self) -> None:
        own_path = self.path / name_of(SCHEDULER)
        if not os.path.lexists(own_path):
            self._make()
        (self.path / UNFINISHED).unlink(missing_ok=True)
        own = _read_own(own_path)
        if self._public_key_of(own.secret_key) != own.server_key:
            raise ConfigError(f"the two keys in the cluster file {own_path} do not belong together")
        #: where others reached it before, if that has changed
        self.endpoint_before = own.endpoint if own.endpoint != self.endpoint else ""
        self.door = Door(own.secret_key, {key: role for role, key in own.keys.items()})
        #: the cluster file of each role; one that was taken away is not among them
        self.files = self._look(own)
        if self.endpoint_before:
            _write_own(own_path, own._replace(endpoint=self.endpoint))

    def file_of(self, role: str) -> Path:
        """Return where the cluster file of a role lies."""
        return self.path / name_of(role)

    def copy(self, wish: str) -> Path:
        """Put a copy of one role's file elsewhere, for who must not see this directory.

        Args:
            wish: "ROLE=DIRECTORY".

        Raises:
            ConfigError: there is no such file, or it cannot be written there.
        """
        role, _, where = wish.partition("=")
        if role not in ROLES or not where:
            roles = ", ".join(ROLES)
            raise ConfigError(f"--copy {wish!r}: it is ROLE=DIRECTORY, with a role of {roles}")
        if role not in self.files:
            raise ConfigError(f"--copy {wish!r}: there is no {self.file_of(role)} any more")
        path = Path(where).absolute()
        make_private_directory(path)
        write_address(path / name_of(role), read_address(self.file_of(role)))
        return path / name_of(role)

    def _make(self) -> None:
        """Make all keys. A start that is killed meanwhile is begun anew by the next one."""
        unfinished = self.path / UNFINISHED
        if not unfinished.exists():
            stray = [self.file_of(role) for role in ROLES if os.path.lexists(self.file_of(role))]
            if stray:
                raise ConfigError(
                    f"there is {stray[0]}, but no {name_of(SCHEDULER)} beside it: bring that back"
                    " from a copy, or name another directory, or remove what is there"
                )
        secret_key = os.urandom(KEY_BYTES)
        server_key = self._public_key_of(secret_key)
        secrets = {role: os.urandom(KEY_BYTES) for role in ROLES}
        keys = {role: self._public_key_of(secret) for role, secret in secrets.items()}
        own = _Own(self.endpoint, server_key, secret_key, keys)
        _write_own(unfinished, own)
        for role, secret in secrets.items():
            address = Address(self.endpoint, role, Credentials(server_key, secret))
            write_address(self.file_of(role), address)
        _write_own(self.path / name_of(SCHEDULER), own)

    def _look(self, own: _Own) -> dict[str, Path]:
        """Check the files of the roles, and write a new address into them."""
        found = {}
        for role in ROLES:
            path = self.file_of(role)
            if not os.path.lexists(path):
                continue
            endpoint, claimed, credentials = read_address(path)
            proven = own.keys[role] == self._public_key_of(credentials.secret_key)
            if claimed != role or credentials.server_key != own.server_key or not proven:
                raise ConfigError(f"the cluster file {path} is of another cluster; take it away")
            if endpoint != self.endpoint:
                write_address(path, Address(self.endpoint, role, credentials))
            found[role] = path
        return found


def _lock(path: Path) -> int:
    try:
        lock_fd = os.open(path / LOCK, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path / LOCK} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock_fd)
        raise ConfigError(
            f"another scheduler runs with the directory {path}; end it first, or give this one a"
            " directory of its own with --directory"
        ) from None
    return lock_fd


def _read_own(path: Path) -> _Own:
    what = f"the cluster file {path}"
    fields = parse_fields(read_private(path), what)
    if fields.get("role") != SCHEDULER:
        raise ConfigError(f'{what} is not the scheduler\'s: its "role" is another')
    keys: Any = fields.get("keys")
    if not isinstance(keys, dict) or set(keys) != set(ROLES):
        raise ConfigError(f'{what} has no "keys" of {", ".join(ROLES)}')
    return _Own(
        endpoint_field(fields, what),
        key_field(fields, "server_key", what),
        key_field(fields, "secret_key", what),
        {role: parse_key(str(keys[role]), f'"{role}" in {what}') for role in ROLES},
    )


def _write_own(path: Path, own: _Own) -> None:
    text = show_fields(
        SCHEDULER,
        own.endpoint,
        server_key=show_key(own.server_key),
        secret_key=show_key(own.secret_key),
        keys={role: show_key(key) for role, key in own.keys.items()},
    )
    write_private(path, text)
