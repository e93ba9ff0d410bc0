"""A command on a pseudo terminal: what it draws, and keys pressed.

Knows of terminals only what `drumbeat top` uses: the whole screen is drawn anew from its corner.
"""

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence

HOME = "\x1b[H"
STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """See the module.

    Args:
        arguments: of the command line, without `drumbeat`.
        environ: additional environment.
        width: columns.
        height: lines.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str] | None = None,
        width: int = 100,
        height: int = 30,
    ) -> None:
        self._fd, other = pty.openpty()
        self.resize(width, height, tell=False)
        command = [sys.executable, "-m", "drumbeat.client.cli", *arguments]
        self.before = termios.tcgetattr(other)
        environ = {**os.environ, "TERM": "xterm-256color", **(environ or {})}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):  # they would outdo the terminal's own size
            environ.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, env=environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self._other = other
        self._letters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.raw = ""

    def resize(self, width: int, height: int, *, tell: bool = True) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        if tell:
            os.killpg(self.process.pid, signal.SIGWINCH)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._fd, keys.encode())

    def read(self, for_s: float) -> bool:
        """Take in what is written for a while, or until it ends; say whether there was anything."""
        ready, _, _ = select.select([self._fd], [], [], for_s)
        if ready:
            try:
                # A letter of several bytes may come in two parts.
                self.raw += self._letters.decode(os.read(self._fd, 65_536))
            except OSError:
                time.sleep(min(for_s, 0.05))  # the other side is closed
                return False
        return bool(ready)

    def screen(self) -> list[str]:
        """Return the lines of the last whole picture, without colours."""
        pictures = self.raw.split(HOME)
        text = pictures[-2] if len(pictures) > 2 else ""
        return [line.rstrip() for line in STYLE.sub("", text).replace("\r", "").split("\n")]

    def until(self, seen: Callable[[str], object], timeout_s: float = 20.0) -> list[str]:
        """Read until a picture is right; return its lines."""
        until_s = time.monotonic() + timeout_s
        while time.monotonic() < until_s:
            lines = self.screen()
            if seen("\n".join(lines)):
                return lines
            self.read(0.2)
        raise AssertionError(f"it does not show that; the last picture:\n{self.raw[-6000:]}")

    def end(self, timeout_s: float = 10.0) -> int:
        """Wait for the command; return its exit code."""
        until_s = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < until_s:
            self.read(0.1)
        code = self.process.wait(1.0)
        while self.read(0.1):  # its last words may come in several parts
            pass
        return code

    def wait_until_stopped(self) -> None:
        """Return when the command has stopped itself; what it writes until then is read later."""
        told = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert told is not None
        assert told.si_code == os.CLD_STOPPED, "it has ended"

    def is_as_before(self) -> bool:
        """Return whether keys are given as they were before the command."""
        return termios.tcgetattr(self._other) == self.before

    def close(self) -> None:
        """Let go of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._fd)
        os.close(self._other)
