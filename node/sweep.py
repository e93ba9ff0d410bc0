"""Ends what a node's tasks have started, when the keeper that would have done so is gone.

Never ends anything of another node: only workers' groups, and whatever carries the node's mark in
its environment or holds the lifeline open.

The template sweeps first. The daemon does so where there is no template, or one that was only just
being started; it leaves the template alone, so that the two never end each other half-way.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection, Iterable
from types import FrameType
from typing import Final

from . import kernel

_PAUSE_S: Final = 0.005
_SWEEP_MAX_S: Final = 5.0
#: the template has had its chance after
_TEMPLATE_S: Final = 0.3


def sweep(mark: str, lifeline: int, groups: Iterable[int] = (), *, after: bool = False) -> None:
    """End groups and carriers, again and again until there is none.

    Args:
        mark: of the node.
        lifeline: the pipe that ended.
        groups: of workers.
        after: by the daemon, after the template; this process's own session is left alone.
    """
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    if after:
        time.sleep(_TEMPLATE_S)
    until_s = time.monotonic() + _SWEEP_MAX_S
    # Again until there is none: one may have started another before it was found.
    while time.monotonic() < until_s:
        found = kernel.carriers(mark.encode(), lifeline)
        if after:
            found = [pid for pid in found if _session(pid) != os.getsid(0)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


class Sweeper:
    """What a daemon does as it ends, from its first moment on: it sweeps up if the keeper cannot.

    Args:
        keeper_pid: its parent.
        mark: of the node.
        lifeline: the pipe that ends with the keeper.
        workers: those that it has by now, by process id.
    """

    def __init__(self, keeper_pid: int, mark: str, lifeline: int, workers: Collection[int]) -> None:
        self._keeper_pid = keeper_pid
        self._mark = mark
        self._lifeline = lifeline
        self._workers = workers

    def told_to_end(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal, as long as the daemon has no handler of its own."""
        self.sweep_if_alone(0.0)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def sweep_if_alone(self, within_s: float) -> None:
        """End what tasks have started if the keeper has gone, or is found to go within a time."""
        if os.getppid() != self._keeper_pid or kernel.has_ended(self._lifeline, within_s):
            sweep(self._mark, self._lifeline, self._workers, after=True)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return 0
