"""What clients are to read: their workers' output, and what this node says to all of them.

Never cuts a text (the shell bounds what workers print), and never tells a client one thing twice.
"""

from ..protocol.messages import NodeKindRow, Output, OutputRow
from .events import Noticed, Spoke
from .state import NodeState

#: what stands in a notice where the name of a task is in a line of output
NOTICE_NAME = "preload"
#: later ones are dropped: a node that cannot load so many modules has said enough
NOTICES_MAX = 32


class Texts:
    """What is to be shown to each client, until the end of the turn."""

    def __init__(self, state: NodeState, pid: int) -> None:
        self._state = state
        self._pid = pid
        self._rows: dict[bytes, list[OutputRow]] = {}
        #: clients that have kinds here
        self._clients: dict[bytes, None] = {}
        #: for every client; they outlive the link's life
        self._notices: dict[str, None] = {}

    def spoke(self, event: Spoke) -> None:
        """Workers wrote text."""
        for number, text, dropped in event.rows:
            worker = self._state.workers.get(number)
            if worker is None or worker.dropped:
                continue
            running = next(iter(worker.flight.values()), None)
            name = running.kind.name if running is not None else worker.name
            row = OutputRow(name, worker.pid, self._state.name, text, dropped)
            self._rows.setdefault(worker.crew.key.client, []).append(row)

    def noticed(self, event: Noticed) -> None:
        """Something that every client should read, those that come later as well."""
        text = event.text
        if text in self._notices or len(self._notices) >= NOTICES_MAX:
            return
        self._notices[text] = None
        for client in self._clients:
            self._notify(client, text)

    def meet(self, kinds: list[NodeKindRow]) -> None:
        """Clients have kinds here: a new one reads what there is to know of this node."""
        for kind in kinds:
            if kind.client not in self._clients:
                self._clients[kind.client] = None
                for text in self._notices:
                    self._notify(kind.client, text)

    def flush(self) -> None:
        """Send what there is."""
        if not self._rows:
            return
        rows, self._rows = self._rows, {}
        for client, lines in rows.items():
            self._state.send(Output(client, lines))

    def forget_client(self, client: bytes) -> None:
        """A client has left."""
        self._clients.pop(client, None)
        self._rows.pop(client, None)

    def clear(self) -> None:
        """The link's life is over."""
        self._clients.clear()
        self._rows.clear()

    def _notify(self, client: bytes, text: str) -> None:
        line = f"{text}\n".encode(errors="replace")
        row = OutputRow(NOTICE_NAME, self._pid, self._state.name, line)
        self._rows.setdefault(client, []).append(row)
