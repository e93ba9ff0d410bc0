"""What one life of the scheduler leaves to the next: its epoch, nodes, lost submitters.

Never decides anything. What `begin` and `remember` have written is safe from any crash when they
return: it goes to a file beside, which takes the place of the old one in one step.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from string import hexdigits
from typing import Final, NamedTuple

from ..protocol.errors import ConfigError
from ..protocol.ids import PEER_BYTES, TASK_BYTES

#: one more each second would come to that in a lifetime
EPOCH_MAX: Final = 1 << 31


class Memory(NamedTuple):
    """What a life of the scheduler knows of the one before."""

    #: its own number
    epoch: int
    #: names of the nodes that were there
    nodes: list[str]
    #: submitters that were given up
    gone: list[str]
    #: ids of the nodes, in the order of their names
    daemons: list[str]
    #: the last epoch in which nodes were struck out that had not come back
    closed: int = 0
    #: actors whose last incarnation may still act: the actor, its node, the node's keeper
    acting: Sequence[tuple[str, str, str]] = ()


class StateFile:
    """See the module.

    Args:
        path: where it lies; made by the first life of all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._epoch = 0

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path

    def begin(self) -> Memory:
        """Begin a life: return its epoch, and what the life before has left.

        Raises:
            ConfigError: the file cannot be read or written, or is none of a scheduler's.
        """
        before = self._read()
        memory = before._replace(epoch=before.epoch + 1)
        self._epoch = memory.epoch
        try:
            self.remember(*memory[1:])
        except OSError as error:
            raise ConfigError(
                f"the scheduler cannot write {self._path} ({error}); it has to, since its next "
                "life could not be told from this one otherwise"
            ) from None
        return memory

    def remember(
        self,
        nodes: list[str],
        gone: list[str],
        daemons: list[str],
        closed: int = 0,
        acting: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        """Write down what the next life is to know; see `Memory`.

        Raises:
            OSError: it cannot be written; what was written before is as it was.
        """
        memory = Memory(self._epoch, nodes, gone, daemons, closed, acting)
        data = json.dumps(memory._asdict()).encode()
        beside = self._path.with_name(self._path.name + ".new")
        with open(beside, "wb", opener=_own) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> Memory:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return Memory(0, [], [], [], 0, [])
        except (OSError, UnicodeDecodeError) as error:
            raise self._broken(str(error)) from None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._broken(f"it is not JSON: {error}") from None
        epoch = data.get("epoch") if isinstance(data, dict) else None
        nodes = data.get("nodes") if isinstance(data, dict) else None
        gone = data.get("gone", []) if isinstance(data, dict) else None
        if type(epoch) is not int or not 1 <= epoch <= EPOCH_MAX:
            raise self._broken(f'its "epoch" is {epoch!r}, and no number from 1')
        if not isinstance(nodes, list) or not all(isinstance(name, str) for name in nodes):
            raise self._broken(f'its "nodes" are {nodes!r}, and no list of names')
        if not isinstance(gone, list) or not all(map(_is_peer, gone)):
            raise self._broken(f'its "gone" are {gone!r}, and no list of ids')
        daemons = data.get("daemons")
        right = isinstance(daemons, list) and len(daemons) == len(nodes)
        if not right or not all(map(_is_peer, daemons)):
            raise self._broken(f'its "daemons" are {daemons!r}, and not one id for each node')
        closed = data.get("closed", 0)
        if type(closed) is not int or not 0 <= closed <= epoch:
            raise self._broken(f'its "closed" is {closed!r}, and no epoch up to {epoch}')
        acting = data.get("acting", [])
        if not isinstance(acting, list) or not all(map(_is_actor, acting)):
            raise self._broken(f'its "acting" are {acting!r}, and no list of actors')
        rows = [(actor, node, keeper) for actor, node, keeper in acting]
        return Memory(epoch, nodes, gone, daemons, closed, rows)

    def _broken(self, why: str) -> ConfigError:
        return ConfigError(
            f"the scheduler's state file {self._path} cannot be used: {why}. Bring it back from a "
            "copy; or stop all nodes and programs of the cluster, remove it, and start anew"
        )


def _own(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _is_peer(text: object) -> bool:
    return _is_id(text, PEER_BYTES)


def _is_actor(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 3:
        return False
    return _is_id(row[0], TASK_BYTES) and _is_peer(row[1]) and isinstance(row[2], str)


def _is_id(text: object, size: int) -> bool:
    digits = text if isinstance(text, str) else ""
    return len(digits) == 2 * size and all(digit in hexdigits for digit in digits)
