"""The shells around the sockets: what comes is decoded, what is to go is sent.

Never decides: dialer, listener, link and blobs do, the shells carry out. Never reads the clock:
whoever turns a loop hands `now_s` in.

A loop around a shell:

    poller = Poller(); poller.add(some_fd); shell.attach(poller)
    while running:
        ready = poller.wait(timeout until shell.deadline_s() and the core's deadline)
        for happening in shell.turn(clock.now_s()): ...       tell the core, send what it wants
        shell.flush(clock.now_s())                            once a turn, always
"""

from .dialer import Down, Refused, Unreachable, Up
from .dialshell import DialHappening, DialShell
from .ends import FRAMES_PER_TURN_MAX
from .listener import Disconnected, Joined, Lags, Returned
from .listenshell import HEARD_EACH_S, ListenHappening, ListenShell
from .poller import Poller
from .remotes import Orphaned, Relays, Unread
from .traffic import Blob, Heard, Message, Reached, Rejected

__all__ = [
    "FRAMES_PER_TURN_MAX", "HEARD_EACH_S", "Blob", "DialHappening", "DialShell", "Disconnected",
    "Down", "Heard",
    "Joined", "Lags", "ListenHappening", "ListenShell", "Message", "Orphaned", "Poller", "Reached",
    "Refused", "Rejected", "Relays", "Returned", "Unreachable", "Unread", "Up",
]  # fmt: skip
