"""The standard streams of a worker: its output file line by line, and no input.

Never opens a descriptor: 0, 1 and 2 are there already, and stay open however Python ends.
"""

import sys


def open_streams() -> None:
    """Make the standard streams anew on the descriptors of this process."""
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        stream = open(  # noqa: SIM115  # lives as long as the process
            fd,
            "w" if fd else "r",
            buffering=1,
            encoding="utf-8",
            errors="backslashreplace",
            closefd=False,
        )
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
