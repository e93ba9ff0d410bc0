"""The file that one life of the scheduler leaves to the next: its epoch, its nodes.

Never decides anything. What `begin` and `remember` have written is safe from any crash when they
return: it goes to a file beside, which takes the place of the old one in one step.
"""

import json
import os
from pathlib import Path
from typing import Final

from ..protocol.errors import ConfigError

#: one more each second would come to that in a lifetime
EPOCH_MAX: Final = 1 << 31


class StateFile:
    """See the module.

    Args:
        path: where it lies; made by the first life of all.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._epoch = 0

    def begin(self) -> tuple[int, list[str]]:
        """Begin a life: return its epoch, and the names of the nodes of the life before.

        Raises:
            ConfigError: the file cannot be read or written, or is none of a scheduler's.
        """
        epoch, nodes = self._read()
        self._epoch = epoch + 1
        try:
            self.remember(nodes)
        except OSError as error:
            raise ConfigError(
                f"the scheduler cannot write {self._path} ({error}); it has to, since its next "
                "life could not be told from this one otherwise"
            ) from None
        return self._epoch, nodes

    def remember(self, nodes: list[str]) -> None:
        """Write down which nodes the next life is to wait for.

        Raises:
            OSError: it cannot be written; what was written before is as it was.
        """
        data = json.dumps({"epoch": self._epoch, "nodes": nodes}).encode()
        beside = self._path.with_name(self._path.name + ".new")
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _read(self) -> tuple[int, list[str]]:
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return 0, []
        except (OSError, UnicodeDecodeError) as error:
            raise self._broken(str(error)) from None
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._broken(f"it is not JSON: {error}") from None
        epoch = data.get("epoch") if isinstance(data, dict) else None
        nodes = data.get("nodes") if isinstance(data, dict) else None
        if type(epoch) is not int or not 1 <= epoch <= EPOCH_MAX:
            raise self._broken(f'its "epoch" is {epoch!r}, and no number from 1')
        if not isinstance(nodes, list) or not all(isinstance(name, str) for name in nodes):
            raise self._broken(f'its "nodes" are {nodes!r}, and no list of names')
        return epoch, nodes

    def _broken(self, why: str) -> ConfigError:
        return ConfigError(
            f"the scheduler's state file {self._path} cannot be used: {why}. Bring it back from a "
            "copy; or stop all nodes and programs of the cluster, remove it, and start anew"
        )
