"""Text from workers on its way to clients: forwarded, or dropped and counted.

Never keeps a text: what a client does not read is dropped here, before it piles up on its link,
since a program that prints without end and one that has stopped reading must not fill the memory.
"""

from typing import Final

from ..protocol.ids import PeerId
from ..protocol.messages import Output
from . import events
from .state import Peer, State

#: what a row takes beside its text
ROW_BYTES: Final = 64


class Texts:
    """See the module."""

    __slots__ = ("_state", "forwarded")

    def __init__(self, state: State) -> None:
        self._state = state
        #: bytes forwarded in this turn, which no PeerLags knows of yet
        self.forwarded: dict[PeerId, int] = {}

    def rejected(self, event: events.MessageRejected) -> None:
        """A message made no sense and was dropped."""
        self._state.counters["messages_rejected"] += 1
        text = f"rejected from {event.peer.hex()}: {event.reason}"
        self._state.tell(text, "refused", "warning")

    def output(self, _node: Peer, message: Output) -> None:
        """Forward what a client's workers wrote, unless too much waits for that client."""
        client = self._state.client(PeerId(message.client))
        rows = message.rows
        if client is None or not client.here or not rows:
            return
        forwarded = self.forwarded.get(client.id, 0)
        if client.lag_bytes + forwarded > self._state.settings.output_backlog_bytes_max:
            text_bytes = sum(len(row.text) for row in rows)
            self._state.counters["output_bytes_dropped"] += text_bytes
            client.unread_bytes += text_bytes + sum(row.dropped for row in rows)
            return
        rows[0].dropped += client.unread_bytes
        client.unread_bytes = 0
        self.forwarded[client.id] = forwarded + sum(len(row.text) + ROW_BYTES for row in rows)
        self._state.out.text(client.id, message)
