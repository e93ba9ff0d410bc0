"""What the daemon's pool keeps of one worker's process.

Never acts: pool.py does, and fills this in.
"""

import select
from signal import Signals
from typing import Final

from .channel import Channel
from .events import StartWorker
from .output import Output

_SIGNALS: Final = frozenset(map(int, Signals))


class Process:
    """A worker from its start to the report of its exit."""

    __slots__ = (
        "channel", "command", "errors", "far", "heard", "interest", "killed", "output", "pending",
        "pid", "sent", "ticket",
    )  # fmt: skip

    def __init__(self, command: StartWorker, ticket: int) -> None:
        self.command = command
        #: names this request for a fork
        self.ticket = ticket
        self.channel: Channel
        #: a duplicate of the worker's end: what lies unread there can be taken back
        self.far: Channel
        #: what it writes to stdout, and to stderr
        self.output: Output
        self.errors: Output
        #: 0: not born yet
        self.pid = 0
        #: the template has been asked
        self.sent = False
        self.interest = int(select.EPOLLIN)
        #: the turn in which it last spoke
        self.heard = 0
        #: we have asked for its end by SIGKILL
        self.killed = False
        #: signals to be sent when it is born
        self.pending: list[tuple[str, Signals]] = []


def signal_name(status: int) -> str:
    """Return the name of the signal that ended a process of this status, or ""."""
    if status >= 0:
        return ""
    return Signals(-status).name if -status in _SIGNALS else f"signal {-status}"
