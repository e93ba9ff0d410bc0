"""Answers who may come in: the other end of ZeroMQ's questions, in the loop's own thread.

Never decides: protocol/door.py does.
"""

from typing import Any, Final

from . import door as rule
from .ends import FRAMES_PER_TURN_MAX
from .keys import Door
from .poller import Source

#: ZeroMQ's number for "do not wait", see protocol/sockets.py
_DONT_WAIT: Final = 1


class Porter:
    """See the module.

    Args:
        socket: bound to where the questions come.
        source: of it, for the loop's poller.
        door: who may come in, as it stands at the moment of each question.
    """

    def __init__(self, socket: Any, source: Source, door: Door) -> None:
        self._socket = socket
        self._roles = door.roles
        self.source = source
        #: who came with a key that is not on the list
        self.keys_refused = 0
        #: who was turned away, since there were as many as there may be
        self.full = 0

    def answer(self, *, full: bool) -> None:
        """Answer the questions that have come, at most so many as frames are taken."""
        source = self.source
        source.state = 0
        for _ in range(FRAMES_PER_TURN_MAX):
            if not source.ask():
                return
            route, empty, *question = self._socket.recv_multipart(_DONT_WAIT)
            answer = rule.decide(question, self._roles, full=full)
            self.keys_refused += answer.status == rule.KEY_REFUSED
            self.full += answer.status == rule.FULL
            # Who has gone meanwhile is not told; ZeroMQ drops it.
            self._socket.send_multipart([route, empty, *answer.parts], _DONT_WAIT)

    def close(self) -> None:
        """Answer no more."""
        self._socket.close(0)
