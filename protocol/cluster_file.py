"""Cluster files: what it takes to reach a scheduler, where nobody else can read it.

Never follows a link, and neither reads nor writes a file that others could read or have written.
Never quotes a secret. The text of keys and addresses is understood in protocol/keys.py.
"""

import contextlib
import errno
import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any, Final

from .endpoints import split_tcp, tcp_endpoint
from .errors import ConfigError
from .keys import ROLES, Address, Credentials, is_address, parse_address, parse_key, show_key

#: what the first field of each file says: the form of the rest
FORM: Final = 1
#: many times what the longest one has
FILE_BYTES_MAX: Final = 1 << 16
#: the scheduler's own role, which no other process comes with
SCHEDULER: Final = "scheduler"

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def name_of(role: str) -> str:
    """Return how the file of a role is called in a scheduler's directory."""
    return f"{role}.cluster"


# ------------------------------------------------------------------------------------- addresses


def read_address(path: Path) -> Address:
    """Return what a cluster file of a client, a node or an admin holds.

    Raises:
        ConfigError: it is missing, no such file, or others could read it; says what mends that.
    """
    return address_in(read_private(path), f"the cluster file {path}")


def write_address(path: Path, address: Address) -> None:
    """Write the cluster file of a client, a node or an admin; whoever reads it meanwhile reads one.

    Raises:
        ConfigError: it cannot be written.
    """
    write_private(path, text_of(address))


def text_of(address: Address) -> str:
    """Return the text of a cluster file."""
    return show_fields(
        address.role,
        address.endpoint,
        server_key=show_key(address.credentials.server_key),
        secret_key=show_key(address.credentials.secret_key),
    )


def address_in(text: str, what: str) -> Address:
    """Return what a text says: that of a cluster file, or a drumbeat:// address.

    Args:
        text: holds a secret: no error quotes it.
        what: where it comes from, for errors.

    Raises:
        ConfigError: it is neither.
    """
    if is_address(text):
        return parse_address(text)
    fields = parse_fields(text, what)
    role = fields.get("role")
    if role == SCHEDULER:
        names = ", ".join(name_of(one) for one in ROLES)
        raise _wrong(what, f"is the scheduler's own; take one of {names} beside it")
    if role not in ROLES:
        raise _wrong(what, f'has a "role" that is none of {", ".join(ROLES)}')
    keys = (key_field(fields, name, what) for name in ("server_key", "secret_key"))
    return Address(endpoint_field(fields, what), role, Credentials(*keys))


# ------------------------------------------------------------------------------- text and fields


def show_fields(role: str, endpoint: str, **more: Any) -> str:
    """Return the text of a cluster file with these fields."""
    address = endpoint.removeprefix("tcp://")
    return json.dumps({"drumbeat": FORM, "role": role, "address": address, **more}, indent=2) + "\n"


def parse_fields(text: str, what: str) -> dict[str, Any]:
    """Return the fields of a cluster file's text.

    Raises:
        ConfigError: it is no such text.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None  # what is wrong in it is not said: it may be a secret
    if not isinstance(fields, dict) or "drumbeat" not in fields:
        raise _wrong(what, "is no cluster file: `drumbeat scheduler` writes them")
    if type(fields["drumbeat"]) is not int or fields["drumbeat"] != FORM:
        raise _wrong(what, "is of another version of Drumbeat than this; all of a cluster run one")
    return fields


def endpoint_field(fields: dict[str, Any], what: str) -> str:
    """Return the endpoint that a cluster file names.

    Raises:
        ConfigError: it names none.
    """
    address = fields.get("address")
    if not isinstance(address, str):
        raise _wrong(what, 'has no "address"')
    try:
        return tcp_endpoint(*split_tcp(address, what))
    except ConfigError:
        # Not quoted: who has mixed up the fields may have a key here.
        raise _wrong(what, 'has an "address" that is no host and port') from None


def key_field(fields: dict[str, Any], name: str, what: str) -> bytes:
    """Return a key that a cluster file holds.

    Raises:
        ConfigError: there is none of that name.
    """
    text = fields.get(name)
    return parse_key(text if isinstance(text, str) else "", f'"{name}" in {what}')


# -------------------------------------------------------------------------------- private files


def read_private(path: Path) -> str:
    """Return the text of a file that nobody else can read or could have written.

    Raises:
        ConfigError: it is missing or not private; says what mends that.
    """
    try:
        fd = os.open(path, _OPEN)
    except OSError as error:
        if error.errno == errno.ELOOP:
            why = "is a symbolic link, which somebody could turn; name the file itself"
            raise _wrong(f"the cluster file {path}", why) from None
        why = f"cannot be opened: {error.strerror}"
        raise _wrong(f"the cluster file {path}", why) from None
    try:
        why = distrust(os.fstat(fd), path)
        if why:
            raise _wrong(f"the cluster file {path}", why)
        data = os.read(fd, FILE_BYTES_MAX + 1)
    finally:
        os.close(fd)
    if len(data) > FILE_BYTES_MAX:
        raise _wrong(f"the cluster file {path}", "is far too long for one")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _wrong(f"the cluster file {path}", "is no text") from None


def distrust(found: os.stat_result, path: Path) -> str:
    """Return why a file must not hold a secret, and what mends that; "": all is well."""
    if not stat.S_ISREG(found.st_mode):
        return "is no regular file"
    if found.st_uid not in (os.geteuid(), 0):
        return (
            f"belongs to user {found.st_uid}, who could change it, and not to you"
            f" (user {os.geteuid()}); if you trust it, `sudo chown {os.geteuid()} {_quoted(path)}`"
        )
    if found.st_mode & 0o077:
        return (
            f"holds a secret and is open to others (mode {stat.S_IMODE(found.st_mode):03o}):"
            f" `chmod 600 {_quoted(path)}`"
        )
    return ""


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all, and safe from a crash.

    Raises:
        ConfigError: it cannot be written; what was there before is as it was.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        try:
            with open(os.open(beside, _MAKE, 0o600), "wb") as file:
                os.fchmod(file.fileno(), 0o600)  # whatever the umask took away
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        why = f"cannot be written: {error.strerror}"
        raise _wrong(f"the cluster file {path}", why) from None


def make_private_directory(path: Path) -> None:
    """Make a directory for cluster files, if need be.

    Raises:
        ConfigError: it cannot be made, or others could put files there.
    """
    what = f"the directory {path}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.stat()
    except OSError as error:
        raise _wrong(what, f"cannot be made: {error.strerror}") from None
    if found.st_uid not in (os.geteuid(), 0):
        raise _wrong(what, f"belongs to user {found.st_uid}, and not to you; name one of your own")
    if found.st_mode & 0o022:
        raise _wrong(
            what,
            f"can be written to by others (mode {stat.S_IMODE(found.st_mode):o}):"
            f" `chmod 700 {_quoted(path)}`",
        )


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _wrong(what: str, why: str) -> ConfigError:
    return ConfigError(f"{what} {why}", setting="cluster", origin="file")
