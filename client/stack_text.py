"""Stacks as people read them: innermost first, Drumbeat's own frames left out.

Never trusts what it reads: a worker's process has written it. Whatever could steer a terminal is
written out, and what does not look like a stack is shown as it stands.
"""

import re
from typing import Final, NamedTuple

from .cli_tables import plain

_THREAD: Final = re.compile(
    r"^(Current thread|Thread) (0x[0-9a-f]+)(.*) \(most recent call first\):$"
)
_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')
#: what Drumbeat's frames are called here
_OWN: Final = ("client", "node", "protocol", "scheduler")
#: what every thread begins with
_THREADING: Final = {"_bootstrap", "_bootstrap_inner"}
_ENTRY: Final = re.compile(r"[/\\]node[/\\]worker\.py$")


class Frame(NamedTuple):
    """One line of a stack."""

    file: str
    line: str
    function: str
    is_own: bool


class Thread(NamedTuple):
    """The stack of one thread, innermost first."""

    is_main: bool
    frames: list[Frame]
    #: lines that are no frames: "...", or whatever else
    others: list[str]


def read(text: str) -> list[Thread]:
    """Return the threads of what `faulthandler` wrote, the main one first."""
    threads: list[Thread] = []
    for line in text.splitlines():
        frame = _FRAME.match(line)
        if _THREAD.match(line):
            threads.append(Thread(False, [], []))
        elif not threads:
            threads.append(Thread(False, [], [line]))
        elif frame is None:
            if line.strip():
                threads[-1].others.append(line)
        else:
            file, number, function = frame.groups()
            threads[-1].frames.append(Frame(file, number, function, False))
    if threads:
        # The interpreter lists the newest thread first, so its first one comes last.
        threads[-1] = threads[-1]._replace(is_main=True)
    root = _root(threads)
    return [_marked(thread, root) for thread in reversed(threads)]


def _root(threads: list[Thread]) -> str:
    """Return the directory of the package that runs the worker; "" if none of it is seen."""
    for thread in threads:
        for frame in thread.frames:
            entry = _ENTRY.search(frame.file)
            if entry is not None:
                return frame.file[: entry.start()]
    return ""


def _marked(thread: Thread, root: str) -> Thread:
    """Mark Drumbeat's frames: what called the user's code, and what that called of us."""
    frames = [frame._replace(is_own=_is_own(frame, root)) for frame in thread.frames]
    entries = [i for i, frame in enumerate(frames) if frame.is_own and _ENTRY.search(frame.file)]
    if entries:  # whatever is outside of the worker is how the process came to be
        frames = frames[: entries[-1] + 1]
    return thread._replace(frames=frames)


def _is_own(frame: Frame, root: str) -> bool:
    if frame.function in _THREADING:
        return True
    if not root or not frame.file.startswith(root):
        return False
    parts = frame.file[len(root) :].replace("\\", "/").split("/")
    return len(parts) == 3 and parts[1] in _OWN


def lines(text: str, *, whole: bool = False) -> list[str]:
    """Return a worker's stacks as lines for a terminal.

    Args:
        text: as it came from the worker.
        whole: Drumbeat's own frames, and threads that have no others, as well.
    """
    shown: list[str] = []
    for thread in read(text):
        frames = [frame for frame in thread.frames if whole or not frame.is_own]
        if not frames and not thread.others and not whole:
            if thread.is_main:
                shown.append("  main thread: in Drumbeat's own code")
            continue
        shown.append("  main thread:" if thread.is_main else "  another thread:")
        shown += [f"    {plain(f.file)}:{plain(f.line)} {plain(f.function)}" for f in frames]
        shown += [f"    {plain(other.strip())}" for other in thread.others]
    return shown
