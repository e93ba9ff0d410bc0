"""The keeper's judgement of its daemon, by the daemon's beat in the pulse page.

Never hasty: only time in which both could run counts. Aborted first, so that the daemon says where
it is stuck; killed when that does not end it.
"""

from collections.abc import Callable
from typing import Final

from ..protocol.settings import Settings

#: verdicts
LEAVE: Final = ""
ABORT: Final = "SIGABRT"
KILL: Final = "SIGKILL"

_ABORT_GRACE_S: Final = 1.0
_NEVER_S: Final = float("inf")


class DaemonWatch:
    """Told of the beats it sees, it says when to intervene.

    Args:
        settings: a daemon without a beat for as long as makes a node lost is stuck.
        tick_s: it is asked at least this often.
        alive: told the time whenever the daemon has beaten.
    """

    def __init__(
        self,
        settings: Settings,
        tick_s: float,
        alive: Callable[[float], None] = lambda _now_s: None,
    ) -> None:
        self._alive = alive
        self._stale_max_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        self._start_max_s = settings.start_timeout_s
        self._step_max_s = 1.5 * tick_s
        self.end()

    def begin(self, beats: int, now_s: float) -> None:
        """A new daemon: it may take its time until the first beat."""
        self._beats, self._seen_s, self._stale_s = beats, now_s, 0.0
        self._limit_s = self._start_max_s
        self._aborted = self._stopped = False

    def end(self) -> None:
        """There is no daemon."""
        self.begin(0, 0.0)
        self._limit_s = _NEVER_S

    def verdict(self, beats: int, now_s: float, stopped: bool) -> str:
        """Return the name of the signal to send to the daemon now, or LEAVE."""
        if self._limit_s == _NEVER_S:
            return LEAVE
        passed_s, self._seen_s = now_s - self._seen_s, now_s
        was_stopped, self._stopped = self._stopped, stopped
        if beats != self._beats:
            self._beats, self._stale_s, self._aborted = beats, 0.0, False
            self._limit_s = self._stale_max_s
            self._alive(now_s)
            return LEAVE
        # Late ourselves, we do not know whether it could run: one step counts, no more, and never
        # suffices. Nor do we when it was stopped the last time: it may have gone on just now.
        if not (stopped or was_stopped):
            enough_s = _NEVER_S if self._aborted else self._limit_s / 2
            self._stale_s += min(passed_s, self._step_max_s, enough_s)
        if self._stale_s < self._limit_s:
            return LEAVE
        if self._aborted:
            return KILL
        self._aborted = True
        self._stale_s = self._limit_s - _ABORT_GRACE_S
        return ABORT
