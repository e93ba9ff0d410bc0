"""A program with large values, told step by step what to do with them.

`data_program.py CLUSTER`. Each line of its input is a step as JSON, each line of its output what
came of it: `[seconds, result]`. Values have names, and their bytes follow from their names.
"""

import hashlib
import json
import random
import sys
import time
from typing import Any

import drumbeat


def bytes_of(name: str, size: int) -> bytes:
    """Return the bytes of a value."""
    return random.Random(name).randbytes(size)


def digest(data: bytes) -> str:
    """Return what tells bytes from others."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_of(name: str, size: int) -> str:
    """Return the digest of a value."""
    return digest(bytes_of(name, size))


class Program:
    """The steps, by their names."""

    def __init__(self) -> None:
        self.refs: dict[str, Any] = {}

        # Made here, so that nodes need not have this module.
        @drumbeat.remote(max_retries=5)
        def make(name: str, size: int) -> bytes:
            return random.Random(name).randbytes(size)

        @drumbeat.remote(max_retries=5)
        def read(data: bytes, pause_s: float) -> str:
            time.sleep(pause_s)
            return hashlib.blake2b(data, digest_size=16).hexdigest()

        self._make, self._read = make, read

    def put(self, name: str, size: int) -> None:
        """Put a value."""
        self.refs[name] = drumbeat.put(bytes_of(name, size))

    def make(self, name: str, node: str, size: int) -> None:
        """Have a node make a value; do not wait for it."""
        self.refs[name] = self._make.options(node=node).remote(name, size)

    def read(self, name: str, node: str, of: str) -> None:
        """Have a node read a value; do not wait for it."""
        self.refs[name] = self._read.options(node=node).remote(self.refs[of], 0.0)

    def give(self, name: str, node: str, size: int) -> None:
        """Have a node read a value that goes along with the call; do not wait for it."""
        self.refs[name] = self._read.options(node=node).remote(bytes_of(name, size), 0.0)

    def get(self, *names: str) -> list[str]:
        """Return what was read, and the digests of values."""
        values = drumbeat.get([self.refs[name] for name in names], timeout=120.0)
        return [value if isinstance(value, str) else digest(value) for value in values]

    def is_ready(self, name: str) -> bool:
        """Return whether a task has ended."""
        return bool(drumbeat.wait([self.refs[name]], timeout=0.0)[0])

    def drop(self) -> None:
        """Keep nothing."""
        self.refs.clear()


def main() -> None:
    """Take steps until the input ends."""
    with drumbeat.init(sys.argv[1]):
        program = Program()
        for line in sys.stdin:
            step, *words = json.loads(line)
            begun_s = time.monotonic()
            result = getattr(program, step)(*words)
            print(json.dumps([time.monotonic() - begun_s, result]), flush=True)


if __name__ == "__main__":
    main()
