"""What workers print, as the user sees it: whole lines that say which task and node.

Never passes on a control character that could move the user's cursor or change the terminal.
"""

import logging
import select
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final, TextIO

from ..protocol.messages import AnyMessage, Notice, Output, OutputRow

#: an unfinished line is shown in pieces when it grows beyond this
LINE_CHARACTERS_MAX: Final = 16_384

#: how long the end waits for the program's streams to take what workers printed
LAST_WORDS_S: Final = 0.5

#: so much waits for streams that take nothing; what comes then is dropped and counted
WAITING_CHARACTERS_MAX: Final = 4 << 20

#: a pipe that takes anything takes this much (PIPE_BUF, 4 bytes a character) without a wait
PIECE_CHARACTERS: Final = 1024

#: so often, while standard output takes nothing, it is looked whether the end has come
LOOK_S: Final = 0.1

#: the stream of an OutputRow
STDERR: Final = 2

log = logging.getLogger("drumbeat")

_ESCAPES: Final = {
    number: f"\\x{number:02x}" for number in (*range(0x20), *range(0x7F, 0xA0)) if number != 0x09
}


class Printer:
    """Makes lines of pieces."""

    def __init__(self) -> None:
        #: unfinished lines by (node, pid, task's name)
        self._begun: dict[tuple[str, int, str], str] = {}

    def take(self, rows: Iterable[OutputRow]) -> str:
        """Return the lines that are complete with these rows, ready to be written."""
        lines: list[str] = []
        for row in rows:
            key = (row.node, row.pid, row.name)
            prefix = prefix_of(key)
            if row.dropped:
                lines.append(f"{prefix} … {row.dropped:,} bytes of output were cut here …\n")
            text = self._begun.pop(key, "") + row.text.decode(errors="replace")
            *whole, rest = text.replace("\r\n", "\n").split("\n")
            lines += [f"{prefix} {clean(line)}\n" for line in whole]
            while len(rest) > LINE_CHARACTERS_MAX:
                lines.append(f"{prefix} {clean(rest[:LINE_CHARACTERS_MAX])}\n")
                rest = rest[LINE_CHARACTERS_MAX:]
            if rest:
                self._begun[key] = rest
        return "".join(lines)

    def rest(self) -> str:
        """Return the unfinished lines, at the end."""
        begun, self._begun = self._begun, {}
        return "".join(f"{prefix_of(key)} {clean(rest)}\n" for key, rest in begun.items())


def prefix_of(key: tuple[str, int, str]) -> str:
    """Return "(resize pid=41 node=lab3)"."""
    node, pid, name = key
    return f"({clean(name)} pid={pid} node={clean(node)})"


def clean(text: str) -> str:
    """Return the text with control characters, save the tab, written out."""
    if text.isprintable():
        return text
    # a progress bar returns to the line's start: what it showed last is what counts
    return text.rstrip("\r").rsplit("\r", 1)[-1].translate(_ESCAPES)


class Speaker:
    """Says what came from the cluster, in a thread of its own: streams may take any time.

    `say` is called by one thread at a time; only the speaker's own thread ever waits for a stream.
    """

    def __init__(self) -> None:
        #: for stdout, and for stderr
        self._printers = (Printer(), Printer())
        self._queue: SimpleQueue[tuple[Callable[[str], Any], str] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        #: characters left for the thread; written by whoever calls `say`
        self._left = 0
        #: characters that the thread is done with; written by the thread
        self._done = 0
        #: lines and notices dropped since the last that was taken, and in all
        self._dropped = 0
        self.dropped = 0
        self._over = False

    def say(self, message: AnyMessage) -> None:
        """Print Output, and log a Notice; returns at once."""
        if isinstance(message, Notice):
            self._say(warn, message.text)
        elif isinstance(message, Output):
            for errors, rows in groupby(message.rows, lambda row: row.stream == STDERR):
                text = self._printers[errors].take(rows)
                if text:
                    self._say(self._write_errors if errors else self._write, text)

    def _say(self, say: Callable[[str], Any], text: str) -> None:
        waiting = self._left - self._done
        if waiting and waiting + len(text) > WAITING_CHARACTERS_MAX:
            lines = text.count("\n") or 1
            self._dropped += lines
            self.dropped += lines
            return
        self._confess()
        self._leave(say, text)

    def _confess(self) -> None:
        if self._dropped:
            text = f"(drumbeat) … {self._dropped:,} lines were dropped here: nobody took them …\n"
            self._dropped = 0
            self._leave(self._write, text)

    def _leave(self, say: Callable[[str], Any], text: str) -> None:
        self._left += len(text)
        self._queue.put((say, text))
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="drumbeat-output", daemon=True)
            # Where no thread can be had, the next message may find one.
            with suppress(RuntimeError):
                thread.start()
                self._thread = thread

    def last_words(self) -> None:
        """Let what workers printed be shown before this program goes on to its end."""
        for printer, write in zip(self._printers, (self._write, self._write_errors), strict=True):
            rest = printer.rest()
            if rest:
                self._say(write, rest)
        self._confess()
        self._queue.put(None)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(LAST_WORDS_S)
        self._over = True

    def _run(self) -> None:
        while not self._over:
            item = self._queue.get()
            if item is None:
                return
            say, text = item
            with suppress(Exception):  # the user's streams and log handlers may do anything
                say(text)
            self._done += len(text)

    def _write(self, text: str) -> None:
        """Write what workers printed to where this program prints now."""
        self._write_to(sys.stdout, sys.__stdout__, text)

    def _write_errors(self, text: str) -> None:
        self._write_to(sys.stderr, sys.__stderr__, text)

    def _write_to(self, stream: TextIO | None, own: TextIO | None, text: str) -> None:
        if stream is None:
            return
        if own is None or stream is not own:
            stream.write(text)
            stream.flush()
            return
        # Python cannot end well while a thread is stuck inside its standard output. So the wait is
        # before each piece, and a piece is what a pipe takes at once.
        poll = select.poll()
        poll.register(own.fileno(), select.POLLOUT)
        start = 0
        while start < len(text):
            while not poll.poll(LOOK_S * 1000):
                if self._over:
                    return
            end = text.rfind("\n", start, start + PIECE_CHARACTERS) + 1 or start + PIECE_CHARACTERS
            own.write(text[start:end])
            own.flush()
            start = end


def warn(text: str) -> None:
    """Log what the user should know."""
    log.warning("%s", text)
