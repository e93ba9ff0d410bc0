"""What clients are to read: their workers' output, and what this node says to all of them.

Never cuts a text (the shell bounds what workers print), and never tells a client one thing twice.
Never keeps text for a scheduler that is away or does not read: it is dropped and counted.
"""

from ..protocol.messages import NodeKindRow, Output, OutputRow
from .events import Noticed, SchedulerLags, Spoke
from .state import NodeState

#: what stands where the name of a task is in a line of output, in what is told of workers
WORKERS = "workers"
#: later ones are dropped: a node that cannot load so many modules has said enough
NOTICES_MAX = 32


class Texts:
    """What is to be shown to each client, until the end of the turn."""

    def __init__(self, state: NodeState, pid: int) -> None:
        self._state = state
        self._pid = pid
        self.rows: dict[bytes, list[OutputRow]] = {}
        #: what waits for the scheduler, if that is much
        self._lag_bytes = 0
        #: bytes that were dropped since a client was last sent some
        self._dropped: dict[bytes, int] = {}
        #: clients that have kinds here
        self._clients: dict[bytes, None] = {}
        #: for every client, with what they are about; they outlive the link's life
        self._notices: dict[str, str] = {}

    def spoke(self, event: Spoke) -> None:
        """Workers wrote text."""
        for number, text, dropped in event.rows:
            worker = self._state.workers.get(number)
            if worker is None or worker.dropped:
                continue
            running = next(iter(worker.flight.values()), None)
            name = running.kind.name if running is not None else worker.name
            row = OutputRow(name, worker.pid, self._state.name, text, dropped, event.stream)
            self.rows.setdefault(worker.crew.key.client, []).append(row)

    def lags(self, event: SchedulerLags) -> None:
        """The scheduler does not read what it is sent, or has caught up."""
        self._lag_bytes = event.queued_bytes

    def noticed(self, event: Noticed) -> None:
        """Something that every client should read, those that come later as well."""
        text = event.text
        if text in self._notices or len(self._notices) >= NOTICES_MAX:
            return
        self._notices[text] = event.label
        for client in self._clients:
            self._notify(client, text, event.label)

    def warn(self, client: bytes, text: str) -> None:
        """Something that one client should read now."""
        self._notify(client, text, WORKERS)

    def meet(self, kinds: list[NodeKindRow]) -> None:
        """Clients have kinds here: a new one reads what there is to know of this node."""
        for kind in kinds:
            if kind.client not in self._clients:
                self._clients[kind.client] = None
                for text, label in self._notices.items():
                    self._notify(kind.client, text, label)

    def flush(self) -> None:
        """Send what there is, unless too much waits to be sent."""
        if not self.rows:
            return
        rows, self.rows = self.rows, {}
        lags = self._lag_bytes > self._state.settings.output_backlog_bytes_max
        for client, lines in rows.items():
            if lags:
                lost = sum(len(line.text) + line.dropped for line in lines)
                self._dropped[client] = self._dropped.get(client, 0) + lost
                continue
            lines[0].dropped += self._dropped.pop(client, 0)
            self._state.send(Output(client, lines))

    def forget_client(self, client: bytes) -> None:
        """A client has left."""
        self._clients.pop(client, None)
        self.rows.pop(client, None)
        self._dropped.pop(client, None)

    def clear(self) -> None:
        """The link's life is over."""
        self._clients.clear()
        self.rows.clear()
        self._dropped.clear()
        self._lag_bytes = 0

    def _notify(self, client: bytes, text: str, label: str) -> None:
        line = f"{text}\n".encode(errors="replace")
        row = OutputRow(label, self._pid, self._state.name, line)
        self.rows.setdefault(client, []).append(row)
