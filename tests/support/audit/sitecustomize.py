"""Python loads this at start when the folder is on PYTHONPATH: it notes who opens a pickle.

Never changes what a process does. In AUDIT_DIRECTORY each process that listens leaves a file
`PID.listens`, and one that looked up a name for a pickle a file `PID.opened` with the names.
"""

import os
import sys
from typing import Any

FOLDER = os.environ.get("AUDIT_DIRECTORY", "")


def note(what: str, text: str) -> None:
    with open(os.path.join(FOLDER, f"{os.getpid()}.{what}"), "a", encoding="utf-8") as file:
        file.write(text + "\n")


def hear(event: str, args: tuple[Any, ...]) -> None:
    if event == "pickle.find_class":
        note("opened", ".".join(map(str, args)))


if FOLDER:
    note("listens", " ".join(sys.orig_argv))
    os.register_at_fork(after_in_child=lambda: note("listens", "forked"))
    sys.addaudithook(hear)
