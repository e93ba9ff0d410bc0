"""Stacks as `faulthandler` writes them, taken apart.

Never trusts what it reads: a worker's process has written it. What does not look like a stack is
kept as it stands.
"""

import re
from typing import Final, NamedTuple

_THREAD: Final = re.compile(
    r"^(Current thread|Thread) (0x[0-9a-f]+)(.*) \(most recent call first\):$"
)
_FRAME: Final = re.compile(r'^  File "(.*)", line (\d+|\?\?\?) in (.*)$')
#: what Drumbeat's frames are called here
_OWN: Final = ("client", "node", "protocol", "scheduler")
#: what every thread begins with
_THREADING: Final = {"_bootstrap", "_bootstrap_inner"}
_ENTRY: Final = re.compile(r"[/\\]node[/\\](worker|several_loop|several_threads)\.py$")
#: where a call is that awaits something, and which call a thread runs: a worker's own words
_COROUTINE: Final = re.compile(r"^Coroutine (.*) \(most recent call first\):$")
_NAMED: Final = re.compile(r"^Named (0x[0-9a-f]+) (.*)$")
#: what an interpreter writes as it dies: why, where, and which libraries it had loaded
_FATAL: Final = "Fatal Python error: "
_STACK: Final = re.compile(r"\(most recent call first\):$")
_EXTENSIONS: Final = "Extension modules: "
_MORE: Final = "  ..."
_DIRECTORY: Final = re.compile(r"^.*[/\\]")

#: a stack in one line has so many frames, and none longer than that
_FRAMES_MAX: Final = 8
_FRAME_LENGTH_MAX: Final = 120


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
    #: the call that runs in it, or the coroutine that it is none but; "": not known
    name: str = ""
    is_coroutine: bool = False


def read(text: str) -> list[Thread]:
    """Return the threads of what `faulthandler` wrote, the main one first, coroutines last."""
    threads: list[Thread] = []
    names: dict[int, str] = {}
    for line in text.splitlines():
        frame = _FRAME.match(line)
        thread, coroutine, named = _THREAD.match(line), _COROUTINE.match(line), _NAMED.match(line)
        if thread is not None:
            threads.append(Thread(False, [], [], names.get(int(thread[2], 16), "")))
        elif coroutine is not None:
            threads.append(Thread(False, [], [], coroutine[1], True))
        elif named is not None:
            names[int(named[1], 16)] = named[2]
        elif not threads:
            threads.append(Thread(False, [], [line]))
        elif frame is None:
            if line.strip():
                threads[-1].others.append(line)
        else:
            file, number, function = frame.groups()
            threads[-1].frames.append(Frame(file, number, function, False))
    if threads and not threads[-1].is_coroutine:
        # The interpreter lists the newest thread first, so its first one comes last.
        threads[-1] = threads[-1]._replace(is_main=True)
    root = _root(threads)
    marked = [_marked(thread, root) for thread in threads]
    coroutines = [thread for thread in marked if thread.is_coroutine]
    return [thread for thread in reversed(marked) if not thread.is_coroutine] + coroutines


def in_a_line(text: str) -> str:
    """Return where the main thread is in one line: "tool.py:88 blur < pipeline.py:31 resize".

    Of a call that runs beside others, where that is; if its code has yet to begin, what keeps it.
    """
    threads = read(text)
    named = [one for one in threads if one.name and any(not at.is_own for at in one.frames)]
    named = named or [one for one in threads if not one.name] or threads
    frames = [frame for thread in named[:1] for frame in thread.frames if not frame.is_own]
    shown = [
        f"{_DIRECTORY.sub('', frame.file)}:{frame.line} {frame.function}"[:_FRAME_LENGTH_MAX]
        for frame in frames[:_FRAMES_MAX]
    ]
    if len(frames) > _FRAMES_MAX:
        shown.append(f"{len(frames) - _FRAMES_MAX} more")
    line = " < ".join(shown)
    # It is printed by whoever meets the error: nothing in it may steer a terminal.
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def of_crash(text: str, frames_max: int) -> str:
    """Return what a dying interpreter wrote, with the user's innermost frames alone.

    Args:
        text: the end of what the process wrote; if no interpreter died, it is given back.
        frames_max: so many frames at most.
    """
    lines = text.splitlines()
    heads = [number for number, line in enumerate(lines) if _STACK.search(line)]
    if not heads or not any(line.startswith(_FATAL) for line in lines[: heads[0]]):
        return text
    begin = end = heads[0] + 1
    found: list[Frame] = []
    while end < len(lines) and (match := _FRAME.match(lines[end])) is not None:
        found.append(Frame(match[1], match[2], match[3], False))
        end += 1
    thread = Thread(True, found, [])
    frames = [one for one in _marked(thread, _root([thread])).frames if not one.is_own]
    shown = [f'  File "{one.file}", line {one.line} in {one.function}' for one in frames]
    if len(shown) > frames_max or (end < len(lines) and lines[end] == _MORE):
        shown = [*shown[:frames_max], _MORE]
    rest = [line for line in lines[end:] if line not in ("", _MORE)]
    rest = [line for line in rest if not line.startswith(_EXTENSIONS)]
    return "\n".join(lines[:begin] + shown + rest)


def part_of(text: str, name: str) -> str:
    """Return what a worker says of one call among those that run beside each other.

    Args:
        text: where its calls are.
        name: of the one, or its id.
    """
    part: list[str] = []
    is_it = False
    for line in text.splitlines(keepends=True):
        if _COROUTINE.match(line.rstrip()) or _NAMED.match(line.rstrip()):
            is_it = name in line
        if is_it:
            part.append(line)
    return "".join(part)


def thread_of(text: str, named: str) -> str:
    """Return the stack of the thread that a worker has named, as it stands; "": there is none.

    Args:
        text: the stacks of all threads.
        named: the line that says which one runs the call.
    """
    name = _NAMED.match(named.rstrip())
    part: list[str] = []
    is_it = False
    for line in text.splitlines(keepends=True):
        head = _THREAD.match(line.rstrip())
        if head is not None:
            is_it = name is not None and int(head[2], 16) == int(name[1], 16)
        if is_it:
            part.append(line)
    return "".join(part)


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
    frames: list[Frame] = []
    for frame in thread.frames:
        # What a thread of ours was begun by is ours as well.
        begins = frame.function == "run" and frame.file.endswith("threading.py")
        is_own = _is_own(frame, root) or (begins and bool(frames) and frames[-1].is_own)
        frames.append(frame._replace(is_own=is_own))
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
