"""What a worker does for the call that it runs: progress, details, shield, who am I.

Never sends how far a call is: that is written into the pulse page, where the node looks. Only what
is told in the user's own words travels, seldom. Calls that use none of this pay nothing for it.
"""

import os
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ..protocol.ids import show
from ..protocol.inside import CurrentCall, pack_details, set_inside
from .actor_host import ActorHost
from .line import Line
from .loaded import LoadedKind
from .nested import WorkerSession
from .packets import RunRow
from .page import (
    INTERRUPT,
    PROGRESS,
    PROGRESS_DONE,
    PROGRESS_OF,
    PROGRESS_TOTAL,
    RUNNING,
    Words,
    times_of,
)  # fmt: skip

if TYPE_CHECKING:
    from ..protocol.inside import Inside


class WorkerInside:
    """See protocol.inside.Inside.

    Args:
        line: to the node.
        words: the worker's slot of the pulse page.
        session: knows what runs.
        host: knows the actor, if this is one.
        kinds: the functions, by their numbers.
        node: its name.
    """

    def __init__(
        self,
        line: Line,
        words: Words,
        session: WorkerSession,
        host: ActorHost,
        kinds: dict[int, LoadedKind],
        node: str,
    ) -> None:
        self._line = line
        self._words = words
        self._times = times_of(words)
        self._session = session
        self._host = host
        self._kinds = kinds
        self._node = node
        self._pid = os.getpid()
        #: what PROGRESS and PROGRESS_OF say: reading the page would take longer
        self._told = self._told_by = 0
        # A process that a task forks is no call: its own progress would be taken for the task's.
        os.register_at_fork(after_in_child=lambda: set_inside(None))

    def progress(self, done: float, total: float, details: Any) -> None:
        """Write down how far the call is; see Inside."""
        words, times = self._words, self._times
        seq = words[RUNNING]
        times[PROGRESS_DONE] = done
        times[PROGRESS_TOTAL] = total
        if seq == self._told_by:
            words[PROGRESS] = self._told = self._told + 1
        else:
            words[PROGRESS] = self._told = 1
            # At last: who reads that finds all the rest to be its own.
            words[PROGRESS_OF] = self._told_by = seq
        if details is not None:
            self._tell(seq, details)
        if words[INTERRUPT] == seq:
            self._line.cancellation_point()

    def _tell(self, seq: int, details: Any) -> None:
        payload = pack_details(details)
        line = self._line
        line.details[seq] = payload
        if perf_counter() >= line.details_due_s:
            # From here and not from the helper: the next thing may keep the GIL for good.
            line.tell_details(wait=False)

    def call(self) -> CurrentCall | None:
        """Return what runs; between the calls of an actor its creation."""
        creation = self._host.creation
        row = self._session.row if self._words[RUNNING] else creation
        if row is None:
            return None
        kind = self._kinds[row.kind]
        actor: RunRow | None = row if kind.creates else creation
        return CurrentCall(
            kind.name,
            show(row.id),
            row.attempt,
            self._node,
            self._pid,
            None if actor is None else show(actor.id),
            row.attempt if actor is None else actor.attempt,
            row.details,
        )

    def shield(self) -> AbstractContextManager[None]:
        """Return what holds interrupts back, if this is the main thread."""
        return _Shield(self._line)


class _Shield:
    """Between enter and exit, the call that runs in the main thread is not interrupted."""

    __slots__ = ("_line", "_seq")

    def __init__(self, line: Line) -> None:
        self._line = line
        self._seq = 0

    def __enter__(self) -> None:
        self._seq = self._line.begin_shield()

    def __exit__(self, *_: object) -> None:
        self._line.end_shield(self._seq)


if TYPE_CHECKING:

    def _is_an_inside(inside: WorkerInside) -> Inside:
        return inside
