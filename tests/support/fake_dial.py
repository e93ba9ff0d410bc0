"""A connection to a scheduler that exists only as a function of the messages sent to it."""

from collections import deque
from collections.abc import Callable
from typing import Any

from drumbeat.protocol.dialer import Refused, Up
from drumbeat.protocol.messages import Outcome, Results, Submit, ValueRow
from drumbeat.protocol.transport import Message, Poller


class FakeDial:
    """What client/service.py wants of a DialShell, without a socket.

    Args:
        answer: given each message that is sent; returns the messages that come back.
    """

    def __init__(self, answer: Callable[[Any], list[Any]]) -> None:
        self.answer = answer
        self.sent: list[Any] = []
        self.blobs: list[tuple[bytes, bytes]] = []
        self.happenings: deque[Any] = deque([Up(1, False, 1)])
        self.closed = False

    def attach(self, poller: Poller) -> None:
        pass

    def turn(self, now_s: float) -> list[Any]:
        return [self.happenings.popleft() for _ in range(len(self.happenings))]

    def send(self, message: Any) -> None:
        self.sent.append(message)
        self.happenings.extend(Message(one) for one in self.answer(message))

    def send_blob(self, key: bytes, payload: bytes, id_: bytes = b"") -> None:
        self.blobs.append((key, payload))

    def flush(self, now_s: float) -> None:
        pass

    def deadline_s(self) -> float | None:
        return float("-inf") if self.happenings else None

    def let_go_in_fork(self) -> None:
        """Nothing is open."""

    def close(self, linger_s: float = 0.0) -> None:
        self.closed = True

    def refuse(self, error: str, reason: str) -> None:
        self.happenings.append(Refused(error, reason))


def echo(message: Any) -> list[Any]:
    """Answer each submitted call with its own arguments."""
    if not isinstance(message, Submit):
        return []
    return [Results([ValueRow(row.id, Outcome.VALUE, row.args or b"none") for row in message.rows])]


def silent(message: Any) -> list[Any]:
    """Answer nothing."""
    return []
