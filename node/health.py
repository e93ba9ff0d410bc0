"""Asks an actor whether it is well: between calls, by its own `__health__`.

Never asks one whose calls end well, and never lets the process go on that is not: it says why, and
ends. How long the method may take its node knows, which reads in the pulse page that it is asked.
"""

import os
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final

from ..protocol.actor_calls import MethodCall
from ..protocol.blame import shorten
from ..protocol.messages import Outcome
from ..protocol.traceback_text import describe
from .helper import Helper, flush_streams
from .line import Line
from .packets import FinishedRow, Health
from .page import BEGAN, HEALTH_CHECK, IDLE, PHASE, Words, times_of

#: the method that says so
METHOD: Final = "__health__"
#: of the traceback so much is told, the end
TEXT_MAX: Final = 8 << 10
#: no oftener: between two questions there is time for a call
_INTERVAL_MIN_S: Final = 0.05
_VALUE: Final = int(Outcome.VALUE)


class Doctor:
    """See the module.

    Args:
        interval_s: it is asked when so long no call has ended well, and it has not been asked.
        leave: ends the process; for tests.
    """

    def __init__(self, interval_s: float, leave: Callable[[int], Any] = os._exit) -> None:
        self._interval_s = max(interval_s, _INTERVAL_MIN_S)
        self._leave = leave
        self._last_s = perf_counter()

    def begin(self) -> None:
        """The actor has been made."""
        self._last_s = perf_counter()

    def ended(self, row: FinishedRow) -> None:
        """A call has ended; one that has a value says that the actor is well."""
        if all(value.outcome == _VALUE for value in row.values):
            self._last_s = perf_counter()

    def is_due(self) -> bool:
        """Whether it is to be asked before its next call begins."""
        return perf_counter() - self._last_s >= self._interval_s

    def wait_s(self) -> float:
        """Return after how long it is to be asked though nobody calls."""
        return max(0.0, self._last_s + self._interval_s - perf_counter())

    def asks(self, line: Line, words: Words, helper: Helper) -> None:
        """It is about to be asked: say so, and what has ended before."""
        # In this order: who sees that it is asked sees since when.
        times_of(words)[BEGAN] = perf_counter()
        words[PHASE] = HEALTH_CHECK
        helper.begin()
        flush_streams()
        line.outbox.append(Health())
        line.flush()

    def ask(self, line: Line, words: Words, helper: Helper) -> None:
        """Ask it in this thread, where no call runs."""
        self.asks(line, words, helper)
        with line.undisturbed():
            try:
                answer = MethodCall(METHOD)()
            except BaseException as error:  # noqa: BLE001  # whatever the user's code raises
                self.raised(line, error)
            else:
                self.answered(line, answer)
        words[PHASE] = IDLE

    def answered(self, line: Line, answer: object) -> None:
        """It has answered: well is whatever is not False."""
        self._last_s = perf_counter()
        if answer is False:
            self._is_unwell(line, f"{METHOD} returned False", "")

    def raised(self, line: Line, error: BaseException) -> None:
        """It has raised instead."""
        name, _, text = describe(error)
        said = shorten(error)
        what = f"{METHOD} raised {name}: {said}" if said else f"{METHOD} raised {name}"
        self._is_unwell(line, what, text.rstrip()[-TEXT_MAX:])

    def _is_unwell(self, line: Line, fault: str, text: str) -> None:
        # The process ends here and not by its node: what comes to it from now on is not begun.
        line.outbox.append(Health(fault, text))
        flush_streams()
        line.flush()
        self._leave(1)


def doctor_of(made_by: object, interval_s: float) -> Doctor | None:
    """Return who asks what this class makes; None: it is not asked."""
    if not interval_s or not callable(getattr(made_by, METHOD, None)):
        return None
    return Doctor(interval_s)
