"""Why a connection cannot be made, in plain words, and how often that is worth saying.

Never a socket, never the clock: what was seen comes in, what people should read comes out.
"""

from enum import IntEnum
from typing import Final

from .dialer import Unreachable

#: A scheduler that is away for less goes unmentioned: counted from when the first attempt began.
TELL_AFTER_S: Final = 1.0
#: another cause is told so long after the last one
TELL_EACH_S: Final = 5.0
#: causes may take turns (a machine that is off is silent, and now and then somebody on the way says
#: so): what was told before is told again after this, and after twice as long each time
TELL_AGAIN_S: Final = 10.0
TELL_AGAIN_MAX_S: Final = 640.0
#: so many causes are remembered; with more of them, all count as told before
TOLD_MAX: Final = 16


class Stage(IntEnum):
    """How far an attempt to connect came, and what ended it."""

    BEGUN = 0
    #: somebody listens there
    CONNECTED = 1
    #: and is the scheduler
    OPEN = 2
    #: somebody listens, and closes the connection
    HUNG_UP = 3
    #: somebody listens, and says nothing
    SILENT = 7
    #: somebody listens, and is not the one whose key was given
    STRANGER = 4
    KEY_REFUSED = 5
    #: the scheduler has as many connections as it may have
    FULL = 6


_KEY_REFUSED: Final = (
    "the scheduler at {where} does not admit this key: it is none of its keys, or has been"
    " replaced; use the cluster file, or the address, that this scheduler has written"
)
_SILENT: Final = (
    "whoever listens at {where} does not answer: the scheduler is stopped or very busy, or the port"
    " is another program's"
)
_TEXTS: Final = {
    Stage.HUNG_UP: "whoever listens at {where} closes the connection at once, as no scheduler"
    " does: the port is another program's, or something between answers in its place",
    Stage.OPEN: "the scheduler at {where} takes the connection and does not answer: it is stopped"
    " or very busy",
    Stage.CONNECTED: _SILENT,
    Stage.SILENT: _SILENT,
    Stage.STRANGER: "whoever listens at {where} is not this cluster's scheduler: it has another"
    " key, or is another program; use the cluster file, or the address, of the one you mean",
    Stage.KEY_REFUSED: _KEY_REFUSED,
    Stage.FULL: "the scheduler at {where} has as many connections as it may have; its setting"
    " connections_max says how many",
}

#: who is refused comes again all the same, since the keys may change, but not ten times a second
_PATIENCE_S: Final = {Stage.KEY_REFUSED: 2.0, Stage.FULL: 1.0}


def patience_s(stage: Stage) -> float:
    """Return how long to wait at least before the next attempt, when one came so far."""
    return _PATIENCE_S.get(stage, 0.0)


class Excuses:
    """What is to be said of attempts that fail.

    Args:
        where: HOST:PORT, as people wrote it.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._reason = ""
        self._error = ""
        self._told = ""
        self._told_s = float("-inf")
        self._told_before: set[str] = set()
        self._again_s = TELL_AGAIN_S
        self._failing_since_s: float | None = None

    def connected(self) -> None:
        """A connection stands: nothing is to be said, and what comes next is news."""
        self._reason = self._error = self._told = ""
        self._told_before.clear()
        self._again_s = TELL_AGAIN_S
        self._failing_since_s = None

    @property
    def known(self) -> bool:
        """Whether there is a reason, told or not."""
        return bool(self._reason)

    def failed(self, stage: Stage, reason: str, since_s: float) -> None:
        """An attempt failed at that stage.

        Args:
            stage: how far it came.
            reason: what else was found out, or "".
            since_s: when the first of the attempts began that have failed one after the other.
        """
        if self._failing_since_s is None:
            self._failing_since_s = since_s
        text = _TEXTS.get(stage, "").format(where=self._where) or reason
        if text:
            self._reason = text
            refused = stage is Stage.KEY_REFUSED
            self._error = "KeyRefused" if refused else "SchedulerUnreachable"

    @property
    def _is_old(self) -> bool:
        return self._reason in self._told_before or len(self._told_before) >= TOLD_MAX

    def due_s(self) -> float | None:
        """Return when something is to be said; None: nothing new."""
        since_s = self._failing_since_s
        if since_s is None or self._reason == self._told:
            return None
        if self._is_old:
            return self._told_s + self._again_s
        if self._error == "KeyRefused":
            return since_s
        first_s = since_s + TELL_AFTER_S
        return max(first_s, self._told_s + TELL_EACH_S) if self._told else first_s

    def due(self, now_s: float) -> Unreachable | None:
        """Return what is to be said now; None: nothing new."""
        due_s = self.due_s()
        if due_s is None or now_s < due_s:
            return None
        if self._is_old:
            self._again_s = min(2 * self._again_s, TELL_AGAIN_MAX_S)
        else:
            self._told_before.add(self._reason)
        self._told, self._told_s = self._reason, now_s
        return Unreachable(self._reason, self._error)
