"""What the daemon's pool keeps of one worker's process.

Never decides: pool.py does, and fills this in.
"""

import contextlib
import os
import select
from collections.abc import Callable
from signal import Signals
from typing import Final

from ..protocol.codec import decoder, encode
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.settings import Settings
from . import kernel, spare
from .channel import Channel, Data, Fds, channel_pair, close_all
from .events import Event, StartWorker, WorkerSpoke
from .output import Output
from .packets import Answered, Finished, FinishedRow, Run, ToWorker

_decode_own: Callable[[bytes], ToWorker] = decoder(ToWorker)
_SIGNALS: Final = frozenset(map(int, Signals))


class Process:
    """A worker from its start to the report of its exit."""

    __slots__ = (
        "bell", "busy", "channel", "command", "errors", "far", "heard", "interest", "killed",
        "output", "overdue", "pending", "pid", "sent", "stacks", "ticket", "unreached",
    )  # fmt: skip

    def __init__(self, command: StartWorker, ticket: int) -> None:
        self.command = command
        #: names this request for a fork
        self.ticket = ticket
        #: as last seen in the pulse page
        self.busy = True
        self.channel: Channel
        #: a duplicate of the worker's end: what lies unread there can be taken back
        self.far: Channel
        #: what it writes to stdout, and to stderr
        self.output: Output
        self.errors: Output
        #: the file for where its threads are, and what asks for that
        self.stacks = -1
        self.bell: kernel.Bell
        #: 0: not born yet
        self.pid = 0
        #: the template has been asked
        self.sent = False
        self.interest = int(select.EPOLLIN)
        #: the turn in which it last spoke
        self.heard = 0
        #: we have asked for its end by SIGKILL
        self.killed = False
        #: the keeper has killed it at the end of the lease
        self.overdue = False
        #: signals to be sent when it is born
        self.pending: list[tuple[str, int]] = []
        #: why a packet could not be handed to it, or received from it: it is ended, for somebody
        #: would wait for that for ever
        self.unreached = ""

    def open(self, settings: Settings, shared: bytearray) -> None:
        """Make its socket and its files.

        Raises:
            OSError: there is no room, or no descriptor; nothing is left open.
        """
        try:
            self._open(settings, shared)
        except OSError as error:
            if error.errno in spare.NO_ROOM:
                raise spare.no_room("a worker") from None
            raise

    def _open(self, settings: Settings, shared: bytearray) -> None:
        files = settings.memory_files
        with contextlib.ExitStack() as opened:
            self.output = Output(files, settings.output_bytes_max)
            opened.callback(self.output.close)
            self.errors = Output(files, settings.output_bytes_max)
            opened.callback(self.errors.close)
            self.stacks = kernel.memory_file(files, "drumbeat-stacks")
            opened.callback(os.close, self.stacks)
            kernel.append_only(self.stacks)
            self.bell = kernel.Bell()
            opened.callback(self.bell.close)
            self.channel, self.far = channel_pair(settings.socket_kind, files, shared)
            opened.pop_all()

    def close(self) -> None:
        """Close them."""
        self.channel.close()
        self.far.close()
        self.output.close()
        self.errors.close()
        self.bell.close()
        os.close(self.stacks)

    def far_fds(self) -> tuple[int, ...]:
        """Return the descriptors that it begins with, in the order that the template knows."""
        return self.far.fileno(), self.output.fd, self.errors.fd, self.stacks, self.bell.fd

    def has_written(self) -> bool:
        """Whether there is output that has not been read."""
        output, errors = self.output, self.errors
        return (
            os.fstat(output.fd).st_size != output.offset
            or os.fstat(errors.fd).st_size != errors.offset
        )

    def unread(self) -> list[tuple[bytes, Fds]]:
        """Take back what lies in its socket, or waits for room; the caller closes descriptors."""
        unread = []
        try:
            while packet := self.far.receive(wait=False):
                unread.append((bytes(packet.data), packet.fds))
        except OSError as error:  # one is lost, or no descriptor was free for it for long
            self.unreached = str(error)
        return [*unread, *self.channel.take_waiting()]

    def take_rows(self) -> tuple[list[int], list[tuple[bytes, Fds]]]:
        """Take back what it has not read: the numbers of its rows, and what else there was."""
        seqs: list[int] = []
        others: list[tuple[bytes, Fds]] = []
        for data, fds in self.unread():
            packet = _decode_own(data)
            if type(packet) is not Run:
                others.append((data, fds))
                continue
            close_all(fds)
            seqs += [row.seq for row in packet.rows]
            if packet.definitions:
                others.append((encode(Run(packet.definitions, [])), ()))
        return seqs, others

    def hand(self, data: Data, fds: Fds = ()) -> bool:
        """Send a packet; return whether nothing waits for room."""
        try:
            return self.channel.post(data, fds)
        except OSError as error:  # no room for a memory file, no descriptor for it
            self.unreached = f"the node could not hand it its work: {error.strerror}"
            return True

    def flush(self) -> bool:
        """Send what waits, as far as there is room; return whether that can be done."""
        try:
            self.channel.flush()
        except OSError as error:
            self.unreached = f"the node could not hand it its work: {error.strerror}"
        return not self.unreached

    def make_good(self, packet: ToWorker) -> list[Event]:
        """A packet could not be handed over: have what it was about fail, and nothing else.

        Returns what the worker would have said of that, if it stays.
        """
        reason = self.unreached
        stand_in: ToWorker
        if type(packet) is Run:
            stand_in = Run(packet.definitions, [])
        elif type(packet) is Answered:
            stand_in = Answered(packet.request, error="TaskError", text=reason)
        else:
            return []
        self.unreached = ""
        self.hand(encode(stand_in))
        if self.unreached or type(packet) is not Run:
            return []
        failure = Failure("TaskError", reason)
        rows = [
            FinishedRow(row.seq, (ValueRow(row.id, Outcome.FAILURE, failure=failure),), 0.0)
            for row in packet.rows
        ]
        return [WorkerSpoke(self.command.worker, Finished(rows))]

    def last_words(self, errors_at: int) -> str:
        """Return the end of what it wrote to stderr from there on, and what else is known."""
        return "\n".join(filter(None, (self.errors.tail(errors_at), self.unreached)))


def signal_name(status: int) -> str:
    """Return the name of the signal that ended a process of this status, or ""."""
    if status >= 0:
        return ""
    return Signals(-status).name if -status in _SIGNALS else f"signal {-status}"
