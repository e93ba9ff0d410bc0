"""Keys: who may come to a scheduler and as what, and how that is written as one line.

Never opens a file or a socket, never makes a key, and shows a secret nowhere but in the one line
that `show_address` is asked for: no error quotes what may hold one.

    drumbeat://ROLE:SECRET@HOST:PORT/SERVERKEY

SECRET is the secret key of that role, SERVERKEY the scheduler's public key: 32 bytes each, written
as 43 characters of base64url. What a key proves is its role; nothing else about a peer is proven.
"""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Final, NamedTuple, NoReturn

from .endpoints import ANY_HOST, split_tcp, tcp_endpoint
from .errors import ConfigError
from .frames import Role

#: bytes of a key, public or secret
KEY_BYTES: Final = 32
#: characters of its text
KEY_CHARACTERS: Final = 43
SCHEME: Final = "drumbeat://"
#: what a key may prove
ROLES: Final = (Role.CLIENT, Role.NODE, Role.ADMIN)

_KEY: Final = re.compile(rf"[A-Za-z0-9_-]{{{KEY_CHARACTERS}}}", re.ASCII)
_LOOKS_LIKE: Final = "drumbeat://ROLE:SECRET@HOST:PORT/SERVERKEY"


def _stays_here() -> NoReturn:
    raise TypeError("keys are not pickled: they stay in the process that was given them")


class Credentials(NamedTuple):
    """What a peer dials with: the scheduler's public key and a secret key of its own role."""

    server_key: bytes
    secret_key: bytes

    def __repr__(self) -> str:
        return f"Credentials(server_key={show_key(self.server_key)!r}, secret_key=...)"

    def __reduce__(self) -> NoReturn:
        _stays_here()


class Door(NamedTuple):
    """What a scheduler opens its door with: its secret key, and what each admitted key proves."""

    secret_key: bytes
    #: role by public key; who is not in here is refused
    roles: Mapping[bytes, str]

    def __repr__(self) -> str:
        roles = {show_key(key): role for key, role in self.roles.items()}
        return f"Door(secret_key=..., roles={roles!r})"

    def __reduce__(self) -> NoReturn:
        _stays_here()


class Address(NamedTuple):
    """Where a scheduler is, and what to come with."""

    #: "tcp://HOST:PORT"
    endpoint: str
    #: what the key proves: a `Role`
    role: str
    credentials: Credentials


def show_key(key: bytes) -> str:
    """Return the text of a key."""
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def parse_key(text: str, what: str) -> bytes:
    """Return the key that `show_key` printed.

    Args:
        text: perhaps a secret: no error quotes it.
        what: what it is and where it stands, for the error.

    Raises:
        ConfigError: the text is no key.
    """
    if _KEY.fullmatch(text):
        key = urlsafe_b64decode(text + "=")
        if show_key(key) == text:  # one key has one text
            return key
    raise ConfigError(
        f"{what} is no key: a key is {KEY_CHARACTERS} letters, digits, - and _, and this has"
        f" {len(text)} characters; perhaps it was not copied whole",
        setting="address",
    )


def is_address(text: str) -> bool:
    """Say whether the text is meant as an address with a key in it, so as not to show it."""
    return text.strip().lower().startswith(SCHEME)


def parse_address(text: str) -> Address:
    """Return what `show_address` printed.

    Raises:
        ConfigError: it is no such address; says which part of it, and quotes no key.
    """
    text = text.strip()
    if not text.startswith(SCHEME):
        raise _wrong(f"it does not begin with {SCHEME}")
    who, at, rest = text.removeprefix(SCHEME).rpartition("@")
    role, colon, secret = who.partition(":")
    where, slash, server = rest.partition("/")
    if not (at and colon and slash):
        raise _wrong("a part of it is missing")
    if role not in ROLES:
        raise _wrong(f"its role is none of {', '.join(ROLES)}")
    try:
        host, port = split_tcp(where, "it")
    except ConfigError:
        # Not quoted: who has mixed up the parts may have a key here.
        raise _wrong("HOST:PORT is no host and port") from None
    if not port or host == ANY_HOST:
        raise _wrong("a scheduler may listen there, but nobody can reach it there")
    secret_key = parse_key(secret, "SECRET in the scheduler's address")
    server_key = parse_key(server, "SERVERKEY in the scheduler's address")
    return Address(tcp_endpoint(host, port), role, Credentials(server_key, secret_key))


def show_address(endpoint: str, role: str, credentials: Credentials) -> str:
    """Return the one line that holds all a peer needs. It is a secret."""
    host, port = split_tcp(endpoint.removeprefix("tcp://"), "the endpoint")
    where = tcp_endpoint(host, port).removeprefix("tcp://")
    secret, server = show_key(credentials.secret_key), show_key(credentials.server_key)
    return f"{SCHEME}{role}:{secret}@{where}/{server}"


def _wrong(why: str) -> ConfigError:
    return ConfigError(
        f"this is not the address of a scheduler: {why}; one looks like {_LOOKS_LIKE}",
        setting="address",
    )
