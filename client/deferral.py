"""Holds back Python's signal handlers while the main thread turns the client's loop.

Never loses a signal: what came meanwhile is given to the program's own handler right afterwards.
Without this a Ctrl-C could raise KeyboardInterrupt in the middle of a core's work.
"""

# the same functions as in `signal`, without turning each handler into an enum
import _signal  # type: ignore[import-not-found]
import signal
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from typing import Any, Final, Self

#: signals for which programs have handlers that raise
SIGNALS: Final = tuple(
    int(getattr(signal, name))
    for name in ("SIGINT", "SIGTERM", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


class Deferral:
    """A context in which handlers only note that a signal came. For the main thread alone.

    Args:
        wake: called when a signal came, to end a poll.
    """

    __slots__ = ("_saved", "_wake", "caught")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._saved: list[tuple[int, Any]] = []
        self.caught: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> Self:
        try:
            for number in SIGNALS:
                handler = _signal.getsignal(number)
                if callable(handler):
                    self._saved.append((number, handler))
                    _signal.signal(number, self._note)
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        saved = self._saved
        handlers = saved
        try:
            if len(saved) == 1:  # Ctrl-C alone, as in most programs
                _signal.signal(*saved[0])
            else:
                handlers = list(saved)
                self._restore()
        finally:
            # Only now: until all are restored, a further one may come.
            if self.caught:
                self._hand_over(dict(handlers))

    def _hand_over(self, handlers: dict[int, Any]) -> None:
        # Each is called, in order, whatever the ones before it raise; the last to raise counts.
        with ExitStack() as stack:
            for number, frame in reversed(self.caught):
                stack.callback(handlers[number], number, frame)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.caught.append((number, frame))
        self._wake()

    def _restore(self) -> None:
        # A handler that is back may raise at once: the others are restored all the same.
        if not self._saved:
            return
        number, handler = self._saved.pop()
        try:
            self._restore()
        finally:
            _signal.signal(number, handler)
