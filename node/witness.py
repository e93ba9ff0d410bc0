"""A worker's thread that writes down where all its threads are whenever the node rings.

Never waits for anything but the bell and the interpreter. While it looks it has the interpreter, so
that no frame changes under its eyes. Where something keeps that for itself it can say nothing, and
the node has a handler in C write instead (`dumps`), which needs nothing: but a thread that goes on
meanwhile pulls the frames away from under that one, and the process dies of it.
"""

import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from ..protocol.running import STACK_BYTES_MAX
from .page import WITNESS, Words

#: stands before and after what it writes, all of which is written at once
MARK: Final = b"\x1e"
#: as many as `faulthandler` shows
_FRAMES_MAX: Final = 100


def serve(bell: int, file: int, words: Words) -> None:
    """Write whenever it rings, until the node is gone.

    Args:
        bell: descriptor of the bell.
        file: descriptor of the file, to whose end is written.
        words: the worker's slot of the pulse page.
    """
    words[WITNESS] = threading.get_native_id()
    try:
        while os.read(bell, 8):
            os.write(file, MARK + told(STACK_BYTES_MAX) + MARK)
    except OSError:
        words[WITNESS] = 0  # the user's code has closed them, or there is no room


def told(bytes_max: int) -> bytes:
    """Return where all threads but this one are, as `faulthandler` writes it: the main one last.

    Args:
        bytes_max: what does not fit is left out, from the oldest thread but the main one on.
    """
    main, own = threading.main_thread().ident, threading.get_ident()
    frames = sys._current_frames()
    texts = [_text(ident, frames.pop(ident)) for ident in list(frames) if ident not in (main, own)]
    last = _text(main, frames[main]) if main in frames else b""
    room = bytes_max - len(last)
    kept = []
    for text in texts:
        room -= len(text) + 1
        if room < 0:
            break
        kept.append(text)
    return b"\n".join([*kept, last])[:bytes_max]


def _text(ident: int, frame: FrameType) -> bytes:
    lines = [f"Thread 0x{ident:016x} (most recent call first):", *_lines(frame)]
    return "".join(f"{line}\n" for line in lines).encode("ascii", "backslashreplace")


def _lines(innermost: FrameType) -> Iterator[str]:
    frame: FrameType | None = innermost
    for _ in range(_FRAMES_MAX):
        if frame is None:
            return
        code = frame.f_code
        yield f'  File "{code.co_filename}", line {frame.f_lineno or 0} in {code.co_name}'
        frame = frame.f_back
    if frame is not None:
        yield "  ..."
