"""How tasks and actors are ended before their time: what is asked for, what nodes are told.

Nothing here may hold behaviour.
"""

from enum import IntEnum

from .forms import Count, Message, TaskBytes
from .limits import CANCELLED, Reason


class Cancel(Message, tag="cancel"):
    """Client or node -> scheduler. With a request number it is answered by Cancelled."""

    ids: list[TaskBytes]
    force: bool
    recursive: bool
    request: int = 0
    #: creations of actors that nobody holds any more: each ends when it has done what is queued
    exit: bool = False
    #: creations of actors: each is killed as if its process had died, so that it may be restarted
    restart: bool = False


class Cancelled(Message, tag="cancelled"):
    """Scheduler -> canceller: for each id, whether it had not started and now never will."""

    request: int
    dropped: list[bool]


class StopMode(IntEnum):
    """How an attempt is cancelled."""

    #: interrupted, terminated, killed, with time between
    SOFT = 0
    #: killed at once
    FORCE = 1
    #: only if it has not started; else it goes on, and a Beat that names it follows
    UNSTARTED = 2
    #: an actor: its process ends when it has nothing to do, and its creation has a value
    EXIT = 3
    #: an actor: its process is killed as if it had died, so that it may be restarted
    RESTART = 4


class Stop(Message, tag="stop"):
    """Scheduler -> node: cancel these attempts (see `StopMode`); Done rows tell what came of it."""

    rows: list[tuple[TaskBytes, Count, int]]
    #: of all rows: cancelled, or timed_out: a limit of the scheduler's (queue or total) is over
    reason: Reason = CANCELLED
