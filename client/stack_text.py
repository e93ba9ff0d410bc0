"""Stacks as people read them: innermost first, Drumbeat's own frames left out.

Never trusts what it reads: a worker's process has written it. Whatever could steer a terminal is
written out, and what does not look like a stack is shown as it stands.
"""

from ..protocol.stack_text import Thread as Thread
from ..protocol.stack_text import read as read
from .cli_tables import plain


def lines(text: str, *, whole: bool = False, task: str = "") -> list[str]:
    """Return a worker's stacks as lines for a terminal.

    Args:
        text: as it came from the worker.
        whole: Drumbeat's own frames, and threads that have no others, as well.
        task: the id of the call that is asked for: where that is comes first.
    """
    shown: list[str] = []
    for thread in sorted(read(text), key=lambda thread: thread.name.split()[-1:] != [task]):
        frames = [frame for frame in thread.frames if whole or not frame.is_own]
        if not frames and not thread.others and not whole:
            if thread.is_main:
                shown.append("  main thread: in Drumbeat's own code")
            continue
        shown.append(f"  {_title(thread)}:")
        shown += [f"    {plain(f.file)}:{plain(f.line)} {plain(f.function)}" for f in frames]
        shown += [f"    {plain(other.strip())}" for other in thread.others]
    return shown


def _title(thread: Thread) -> str:
    if thread.is_coroutine:
        return f"coroutine of {plain(thread.name)}"
    if thread.name:
        return f"thread of {plain(thread.name)}"
    return "main thread" if thread.is_main else "another thread"
