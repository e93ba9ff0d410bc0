"""How much one client may have under way: tasks without an outcome, results it has not read.

Never waits and drops nothing. Who does not read its results gets no more work placed until it has
caught up; who submits more than it was granted, and was told of in time, broke the protocol.
"""

from collections.abc import Callable

from ..protocol.ids import PeerId
from ..protocol.messages import FIRST_CREDIT, Credit, Submit, TaskRow
from . import events
from .state import Peer, PeerError, State

#: so many pairs of peers are remembered that cannot reach each other; then they are told of again
RELAYED_MAX = 1000


class Bounds:
    """See the module."""

    __slots__ = ("_bytes_max", "_granted", "_lagging", "_relayed", "_state", "_tasks_max")

    def __init__(self, state: State) -> None:
        settings = state.settings
        self._state = state
        self._granted = Credit(settings.submit_credit_tasks, settings.submit_credit_bytes)
        # Before it knew its credit a client may have used up the first one; and it may send a task
        # while there is any credit left, however large the arguments.
        self._tasks_max = self._granted.tasks + FIRST_CREDIT.tasks
        self._bytes_max = self._granted.bytes + FIRST_CREDIT.bytes + settings.value_bytes_max
        #: peers that do not read what they are sent -> the clients whose work waits for that
        self._lagging: dict[PeerId, list[PeerId]] = {}
        #: who cannot get at whose large values, as far as it has been told
        self._relayed: dict[tuple[PeerId, PeerId], None] = {}

    # -------------------------------------------------------------------------------------- results

    def lags(self, event: events.PeerLags) -> None:
        """A peer does not read what it is sent, or has caught up."""
        peer = self._state.peers.get(event.peer)
        if peer is None:
            return
        if event.channel:
            peer.payload_lag_bytes = event.queued_bytes
        else:
            peer.lag_bytes = event.queued_bytes
        waiting_bytes = peer.lag_bytes
        if peer.node is None:
            # What waits for a node is mostly what it is to run.
            waiting_bytes += peer.payload_lag_bytes
        lags = waiting_bytes > self._state.settings.results_backlog_bytes_max
        if lags != (peer.id in self._lagging):
            self._change(peer, lags)

    def relays(self, event: events.Relays) -> None:
        """Large payloads go through the scheduler, though they should go past it."""
        pair = event.holder, event.reader
        holder, reader = (self._state.peers.get(peer) for peer in pair)
        if holder is None or reader is None or pair in self._relayed:
            return
        if len(self._relayed) >= RELAYED_MAX:
            self._relayed.clear()
        self._relayed[pair] = None
        text = (
            f"{reader.role} {reader.name!r} cannot get at large values of {holder.role} "
            f"{holder.name!r}: they go through the scheduler, which is slower (is a firewall "
            "between them? see data_port)"
        )
        self._state.tell(text, "relay", "warning")

    def _change(self, peer: Peer, lags: bool) -> None:
        who = f"{peer.role} {peer.name!r}"
        if lags:
            # The calls of a node's workers are their clients'.
            clients = [peer.id] if peer.node is None else list(peer.node.clients)
            self._lagging[peer.id] = clients
            text = f"{who} does not read its results as fast as they come: its work waits"
            self._state.tell(text, "client lags", "warning")
        else:
            del self._lagging[peer.id]
            self._state.tell(f"{who} has caught up with its results", "client lags")
        held_back = self._state.held_back
        held_back.clear()
        for clients in self._lagging.values():
            held_back.update(dict.fromkeys(clients))

    def forget(self, peer: Peer) -> None:
        """A peer is gone."""
        if peer.id in self._lagging:
            self._change(peer, False)

    # ---------------------------------------------------------------------------------- submissions

    def grant(self, client: Peer) -> None:
        """Tell a client how much it may have unfinished."""
        living, living_bytes = self._state.hosts.living(client.id)
        granted = self._granted
        credit = Credit(granted.tasks + living, granted.bytes + living_bytes) if living else granted
        self._state.out.letter(client.id, credit)

    def grant_again(self) -> None:
        """Living actors use up no credit: tell clients who have more of them, or fewer."""
        hosts = self._state.hosts
        regranted, hosts.regranted = hosts.regranted, {}
        for id_ in regranted:
            client = self._state.client(id_)
            if client is not None:
                self.grant(client)

    def within(self, submit: Callable[[Peer, Submit], None]) -> Callable[[Peer, Submit], None]:
        """Return `submit` for clients, which refuses what is far beyond what was granted."""

        def submit_within_bounds(client: Peer, message: Submit) -> None:
            # What was granted in an earlier life may have been more.
            if not message.attempts:
                rows = message.rows
                for row in rows:
                    args = row.args
                    client.args_bytes += row.size if args is None else len(args)
                tasks = len(client.tasks) + len(rows)
                if tasks > self._tasks_max or client.args_bytes > self._bytes_max:
                    self._judge(client, tasks, rows)
            submit(client, message)

        return submit_within_bounds

    def _judge(self, peer: Peer, tasks: int, rows: list[TaskRow]) -> None:
        """Refuse a client more than it was granted, unless its living actors account for it."""
        living, living_bytes = self._state.hosts.living(peer.id)
        if tasks > self._tasks_max + living:
            granted = self._granted.tasks + living
            raise PeerError(f"it has {tasks} unfinished tasks; it was granted {granted}")
        if peer.args_bytes > self._bytes_max + living_bytes:
            # Ends are not counted as they come, which would be paid by every task.
            unfinished = [record.row for record in peer.tasks.values()]
            peer.args_bytes = _args_bytes(unfinished) + _args_bytes(rows)
            if peer.args_bytes > self._bytes_max + living_bytes:
                text = f"it has {peer.args_bytes} bytes of arguments in unfinished tasks"
                raise PeerError(f"{text}; it was granted {self._granted.bytes + living_bytes}")

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return {"lagging": len(self._lagging), "held_back": len(self._state.held_back)}


def _args_bytes(rows: list[TaskRow]) -> int:
    return sum([row.size if (args := row.args) is None else len(args) for row in rows])
