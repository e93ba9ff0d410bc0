"""What has to be done before a pickled function can be loaded: directories, modules.

Never pickles anything: these are plain values around pickled bytes, met by whoever loads those.
"""

import zlib
from _blake2 import blake2b  # the one of hashlib, which would load OpenSSL: 1.5 MB a process
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from .brought import Carried, brought
from .errors import MessageTooLarge
from .modules import carry, extend_path

_HASH_BYTES: Final = 16
#: quick, and source is easily made small
_LEVEL: Final = 3


class Need(ABC):
    """Pickled bytes, and what they need."""

    payload: bytes

    @abstractmethod
    def meet(self) -> None:
        """Do what has to be done before `payload` can be loaded."""


class Directories(Need):
    """Further directories in sys.path.

    A program that extends sys.path after init() expects its tasks to find the same modules. The
    function takes the directories along, since it is loaded before its arguments.
    """

    def __init__(
        self, machine: str, before: Sequence[str], after: Sequence[str], payload: bytes
    ) -> None:
        self._where = machine, before, after
        self.payload = payload

    def __reduce__(self) -> tuple[Any, ...]:
        return (Directories, (*self._where, self.payload))

    def meet(self) -> None:
        """Look for modules where the program does."""
        extend_path(*self._where)


class Modules(Need):
    """Modules of the program, as source."""

    def __init__(self, hash_: bytes, packed: Sequence[tuple[Any, ...]], payload: bytes) -> None:
        self._hash, self._packed = hash_, packed
        self.payload = payload

    @classmethod
    def of(cls, modules: Sequence[Carried], payload: bytes) -> "Modules":
        """Return the bytes with these modules."""
        packed = [
            tuple(module._replace(source=zlib.compress(module.source, _LEVEL)))
            for module in modules
        ]
        return cls(
            blake2b(repr(packed).encode(), digest_size=_HASH_BYTES).digest(), packed, payload
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Modules, (self._hash, self._packed, self.payload))

    def meet(self) -> None:
        """Have the modules found by whoever imports them, here and where this process sends to."""
        if brought.is_known(self._hash):
            return
        modules = [Carried(*one) for one in self._packed]
        unpacked = [one._replace(source=zlib.decompress(one.source)) for one in modules]
        brought.take(self._hash, unpacked)
        carry(brought)


def too_large_with(
    name: str, modules: Sequence[Carried], size_bytes: int, limit_bytes: int
) -> MessageTooLarge:
    """Return the error for a function that is too large with its modules."""
    largest = max(modules, key=lambda module: len(module.source))
    return MessageTooLarge(
        f"the function {name} takes {size_bytes:,} bytes with the {len(modules)} modules of this "
        f"program that go with it (the largest is {largest.name}, {largest.path}), and at most "
        f"{limit_bytes:,} can be sent (the setting value_bytes_max); install them on the nodes "
        'and set ship_code="never", or start the program from a directory that holds fewer',
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
    )
