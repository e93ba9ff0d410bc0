"""Clocks that jump, of each side of a cluster by itself; faults/sitecustomize.py reads them."""

import struct
from pathlib import Path

_PAIR = struct.Struct("dd")


class Clocks:
    """How far the clocks of scheduler and nodes are ahead; none at first.

    Args:
        directory: the cluster's processes are started with FAULT_CLOCKS naming it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        for side in ("scheduler", "node"):
            (directory / side).write_bytes(bytes(4096))

    def jump(self, side: str, *, wall_s: float = 0.0, boot_s: float = 0.0) -> None:
        """Set one side's clocks: the one on the wall, and the one that also passes in suspend."""
        with open(self.directory / side, "r+b") as file:
            file.write(_PAIR.pack(wall_s, boot_s))
