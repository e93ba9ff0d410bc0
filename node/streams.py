"""The standard streams of a worker: its output files line by line, and no input.

Never opens a descriptor: 0, 1 and 2 are there already, and stay open however Python ends.
"""

import os
import sys
from io import TextIOWrapper
from typing import Any


class Stream(TextIOWrapper):
    """A text stream that knows whether a line was begun, and whether anything was written."""

    begun = False
    written = False

    def write(self, text: str, /) -> int:
        """Write as any stream does."""
        if text:
            self.written = True
            self.begun = text[-1] != "\n"
        return super().write(text)

    def end_task(self) -> None:
        """End the line that was begun, so that it does not glue to what another task writes."""
        self.written = False
        if self.begun:
            try:
                self.write("\n")
            except Exception:  # noqa: BLE001  # the task has closed it, or broken it
                self.begun = False
            self.written = False


#: stdout and stderr, whatever a task puts in their place
opened: list[Stream] = []


def errors_at() -> int:
    """Return where in its file of stderr this process writes next; 0 when a task took it away."""
    try:
        return os.lseek(2, 0, os.SEEK_END)
    except OSError:
        return 0


def open_streams() -> None:
    """Make the standard streams anew on the descriptors of this process."""
    opened.clear()
    for fd, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        raw = open(fd, "wb" if fd else "rb", closefd=False)  # noqa: SIM115  # as long as the process
        coding: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace"}
        if fd:
            stream: TextIOWrapper = Stream(raw, line_buffering=True, **coding)
            opened.append(stream)  # type: ignore[arg-type]  # just made
        else:
            stream = TextIOWrapper(raw, **coding)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
