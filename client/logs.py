"""The log files of a local cluster's processes: their ends, and their bounds.

Never written here: each process appends to its own. Whatever it writes, a log takes no more room
than LOG_BYTES_MAX and what comes between two looks, and what is cut off leaves its end behind.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

#: a log that has grown beyond this is begun anew
LOG_BYTES_MAX: Final = 4 << 20
#: what is kept of it, in a file beside it whose name ends in ".1"
KEPT_BYTES: Final = 256 << 10
#: logs are looked at this often
LOOK_S: Final = 10.0
TAIL_LINES: Final = 20
TAIL_BYTES: Final = 4096


def tail_of(path: Path) -> str:
    """Return the last lines of a file, or nothing."""
    try:
        text = _end_of(path, TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-TAIL_LINES:])


def keep_short(path: Path) -> bool:
    """Begin a log anew if it is too long; return whether it was."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_BYTES_MAX:
            end = _end_of(path, KEPT_BYTES)
            # Who writes it appends: what comes next stands at the new beginning.
            os.truncate(path, 0)
            path.with_name(path.name + ".1").write_bytes(end)
            return True
    return False


def _end_of(path: Path, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - length))
        return file.read(length)
