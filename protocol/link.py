"""A link: batches, each delivered once and in order, over connections that come and go.

Never a socket, never the clock. One `Link` is one end of one link life; a connection that is lost
is followed by `resume` with what the peer has received, and a new life needs a new `Link`.

A connection should lose, double and reorder nothing. One that does is survived: duplicates and
what comes too early are dropped, and who misses a batch says so. Whoever is not acknowledged for
long says what it has sent, so that the loss of a last batch is noticed too. Nothing is sent again
on suspicion: a slow connection is not made slower.
"""

from collections import deque
from typing import Final

from msgspec import Raw

from .codec import encode_ack, encode_batch, message_bytes_max
from .errors import MessageTooLarge, RemoteProtocolError
from .frames import Ack, Batch
from .settings import Settings

#: A peer that does not acknowledge is asked less and less often, down to this.
ASK_EACH_MAX_S: Final = 8.0


class Link:
    """One end. The owner queues encoded messages, and flushes once a turn."""

    __slots__ = (
        "_ack_delay_s", "_ack_told", "_acked_bytes", "_acked_seq", "_ask_after_s",
        "_message_bytes_max", "_misses", "_packed", "_queue", "_resend", "_resend_after_s",
        "_resent_from", "_sent_bytes", "_sent_seq", "_unacked", "_untold_bytes",
        "_window_batches_max", "_window_bytes_max", "ack_due_s", "acked", "acks_sent",
        "ask_due_s", "batches_received", "batches_resent", "confirmed_s", "duplicates_dropped",
        "gaps_dropped", "queued_bytes", "received_seq",
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        #: of one message, and of all in one batch
        self._message_bytes_max = message_bytes_max(settings.frame_bytes_max)
        self._window_batches_max = settings.link_window_batches_max
        self._window_bytes_max = settings.link_window_bytes_max
        self._ack_delay_s = settings.ack_delay_s
        self._resend_after_s = self._ask_after_s = settings.resend_after_s
        self._queue: deque[bytes] = deque()
        #: bytes queued that no batch carries yet
        self.queued_bytes = 0
        # (number, frame, messages and bytes up to its end, when) of batches sent and not
        # acknowledged
        self._unacked: deque[tuple[int, bytes, int, int, float]] = deque()
        # of all batches sent, and of those of them that were acknowledged
        self._sent_bytes = self._acked_bytes = 0
        self._resend: list[bytes] = []
        # The first batch of the last resend: asked for again, it is on its way.
        self._resent_from = 0
        # Whether the peer is to be told that a batch is missing.
        self._misses = False
        self._sent_seq = 0
        self._acked_seq = 0
        # messages that batches have carried so far
        self._packed = 0
        #: messages that the peer has acknowledged so far
        self.acked = 0
        #: when the last batch that the peer has acknowledged was first sent
        self.confirmed_s = float("-inf")
        #: number of the last batch received
        self.received_seq = 0
        self._ack_told = 0
        self._untold_bytes = 0
        #: when the next flush is due though nothing new is queued; None: never
        self.ack_due_s: float | None = None
        #: when the peer is asked whether it has what it does not acknowledge; None: it has all
        self.ask_due_s: float | None = None
        self.acks_sent = 0
        self.batches_received = 0
        self.batches_resent = 0
        self.duplicates_dropped = 0
        self.gaps_dropped = 0

    @property
    def backlog(self) -> int:
        """How many messages wait for a batch: not zero while the window is full."""
        return len(self._queue)

    @property
    def unacked(self) -> int:
        """How many batches were sent and are not acknowledged."""
        return len(self._unacked)

    @property
    def queued_ever(self) -> int:
        """How many messages were queued so far: `acked` comes to that when all have arrived."""
        return self._packed + len(self._queue)

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits to be sent, resent or acknowledged by this end."""
        return not self._queue and not self._resend and self.ack_due_s is None

    def queue(self, encoded: bytes) -> None:
        """Queue one encoded message.

        Raises:
            MessageTooLarge: no frame can hold it; the caller should have split it.
        """
        size_bytes = len(encoded)
        if size_bytes > self._message_bytes_max:
            raise MessageTooLarge(
                f"a message of {size_bytes:,} bytes does not fit a frame",
                size_bytes=size_bytes,
                limit_bytes=self._message_bytes_max,
            )
        self._queue.append(encoded)
        self.queued_bytes += size_bytes

    def flush(self, now_s: float) -> list[bytes]:
        """Return the frames to send now, in order; to be called while a connection is up.

        Everything queued goes, in as few batches as can be, as far as the window allows.
        """
        frames: list[bytes] = []
        if self._resend:
            frames, self._resend = self._resend, []
            self.batches_resent += len(frames)
        unacked = self._unacked
        while (
            self._queue
            and self._sent_seq - self._acked_seq < self._window_batches_max
            and self._sent_bytes - self._acked_bytes < self._window_bytes_max
        ):
            if self.queued_bytes <= self._message_bytes_max:
                messages = [*self._queue]
                self._queue.clear()
                self.queued_bytes = 0
            else:
                messages = self._take_some()
            self._sent_seq += 1
            self._packed += len(messages)
            frame = encode_batch(self._sent_seq, self.received_seq, messages)
            self._sent_bytes += len(frame)
            unacked.append((self._sent_seq, frame, self._packed, self._sent_bytes, now_s))
            frames.append(frame)
            self._ack_told = self.received_seq
            self._untold_bytes = 0
            self.ack_due_s = None
        due_s = self.ack_due_s
        if self._misses or (due_s is not None and now_s >= due_s):
            frames.append(self.acknowledge())
        due_s = self.ask_due_s
        if due_s is None:
            if unacked:
                self.ask_due_s = now_s + self._resend_after_s
        elif now_s >= due_s:
            frames.append(self._ask(now_s))
        return frames

    def _take_some(self) -> list[bytes]:
        """Take from the queue what fits a frame: not all does."""
        queue, messages, taken_bytes = self._queue, [], 0
        while taken_bytes + len(queue[0]) <= self._message_bytes_max:
            messages.append(queue.popleft())
            taken_bytes += len(messages[-1])
        self.queued_bytes -= taken_bytes
        return messages

    def hurry(self, now_s: float) -> bool:
        """Have what has come be acknowledged with the next flush; return whether that is due."""
        due_s = self.ack_due_s
        if due_s is None:
            return False
        self.ack_due_s = min(due_s, now_s)
        return True

    def acknowledge(self) -> bytes:
        """Return an Ack frame: due or not, it is also the sign of life and the probe."""
        self._told()
        self.acks_sent += 1
        missing, self._misses = self._misses, False
        return encode_ack(self.received_seq, missing=missing)

    def _ask(self, now_s: float) -> bytes:
        """Return an Ack frame that says what was sent: whoever misses some of it will tell."""
        self.ask_due_s = now_s + self._ask_after_s
        self._ask_after_s = min(2 * self._ask_after_s, ASK_EACH_MAX_S)
        self._resent_from = 0  # what was sent again has not come either
        self._told()
        self.acks_sent += 1
        return encode_ack(self.received_seq, self._sent_seq)

    def _told(self) -> None:
        self._ack_told = self.received_seq
        self._untold_bytes = 0
        self.ack_due_s = None

    def received(self, frame: Batch | Ack, now_s: float, size_bytes: int = 0) -> list[Raw]:
        """Take in a Batch or Ack that came on the connection; return its messages.

        Args:
            frame: what came.
            now_s: the clock.
            size_bytes: the frame's length, for the acknowledgement at half the window's bytes.

        Raises:
            RemoteProtocolError: it acknowledges what was never sent. The connection is of no use
                any more; the link is, once resumed.
        """
        ack = frame.ack
        if ack != self._acked_seq:
            if ack > self._sent_seq:
                raise RemoteProtocolError(f"ack: {ack} acknowledged, {self._sent_seq} sent")
            self._acknowledged(ack)
            self._ask_after_s = self._resend_after_s
            self.ask_due_s = now_s + self._resend_after_s if self._unacked else None
        if type(frame) is not Batch:
            if isinstance(frame, Ack) and (frame.sent or frame.missing):
                self._told_of_loss(frame, now_s)
            return []
        expected = self.received_seq + 1
        if frame.seq != expected:
            if frame.seq > expected:
                self.gaps_dropped += 1
                self._misses = True
            else:
                self.duplicates_dropped += 1
            self.ack_due_s = now_s
            return []
        self.received_seq = expected
        self.batches_received += 1
        self._untold_bytes += size_bytes
        if (
            2 * (expected - self._ack_told) >= self._window_batches_max
            or 2 * self._untold_bytes >= self._window_bytes_max
        ):
            self.ack_due_s = now_s
        elif self.ack_due_s is None:
            self.ack_due_s = now_s + self._ack_delay_s
        return frame.messages

    def _acknowledged(self, ack: int) -> None:
        unacked = self._unacked
        while unacked and unacked[0][0] <= ack:
            _, _, self.acked, self._acked_bytes, self.confirmed_s = unacked.popleft()
        # A resent batch says what was received when it was first sent: older news are no news.
        if ack > self._acked_seq:
            self._acked_seq = ack

    def _told_of_loss(self, frame: Ack, now_s: float) -> None:
        """The peer asks what has come, or says that something has not."""
        if frame.sent:
            self._misses = frame.sent > self.received_seq
            self.ack_due_s = now_s
        if frame.missing:
            self._peer_misses(frame.ack, now_s)

    def _peer_misses(self, ack: int, now_s: float) -> None:
        """The peer has something later than the batch after `ack`, but not that one."""
        if ack != self._acked_seq or self._resent_from == ack + 1:
            return  # old news, or it is on its way
        self._resent_from = ack + 1
        self._resend = [frame for _, frame, *_ in self._unacked]
        # What is sent again acknowledges what was received when it was first sent: say the rest.
        self.ack_due_s = now_s

    def resume(self, peer_received: int) -> None:
        """Go on over a new connection: the next flush first resends what the peer has not received.

        Raises:
            RemoteProtocolError: the peer cannot have received that; only a new life helps.
        """
        if not self._acked_seq <= peer_received <= self._sent_seq:
            raise RemoteProtocolError(
                f"received: {peer_received} is not between {self._acked_seq} and {self._sent_seq}"
            )
        self._acknowledged(peer_received)
        self._resend = [frame for _, frame, *_ in self._unacked]
        # Hello and Welcome have told the peer what this end has received.
        self._told()
        self._misses = False
        self._resent_from = 0
        self._ask_after_s = self._resend_after_s
        self.ask_due_s = None

    def deadline_s(self) -> float | None:
        """Return when the next flush is due though nothing new is queued; None: never."""
        due_s, ask_s = self.ack_due_s, self.ask_due_s
        return ask_s if due_s is None or (ask_s is not None and ask_s < due_s) else due_s
