"""Lines for the log of a daemon: its stderr, which may be a file on a disk that is full.

Never raises: a line that cannot be written is lost, and nothing else is.
"""

import contextlib
import os

STDERR_FD = 2


def say(text: str) -> None:
    """Write lines; what could steer a terminal is written out, since peers choose their words."""
    plain = "".join(
        one if one == "\n" or one.isprintable() else one.encode("unicode_escape").decode()
        for one in text
    )
    with contextlib.suppress(OSError):
        os.write(STDERR_FD, plain.encode(errors="backslashreplace") + b"\n")
