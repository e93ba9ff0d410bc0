"""A scheduler core in a later life, with nodes and clients that come from the life before."""

from collections.abc import Sequence
from typing import Any

from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import (
    AssignRow,
    DoneRow,
    Enter,
    Environment,
    Join,
    Retried,
    Stop,
    Submit,
    TaskRow,
)
from drumbeat.protocol.recovery import Inventory, InventoryRow, Phase, Registered, Report

from .scheduling import Stage, ids_of, value_done

CLIENT = PeerId(b"c" * 6)
NODE = PeerId(b"n" * 6)
OTHER = PeerId(b"m" * 6)


def row(id_: bytes, attempt: int = 1, phase: Phase = Phase.RUNNING) -> InventoryRow:
    return InventoryRow(id_, attempt, phase)


def done(id_: bytes, attempt: int = 1, **more: Any) -> DoneRow:
    return value_done(AssignRow(id_, attempt, 1, 1, 0, -1.0), **more)


class Restarted(Stage):
    """A scheduler in its second life, from its first turn on."""

    def __init__(
        self,
        *expected: str,
        epoch: int = 2,
        gone: Sequence[str] = (),
        closed: int = 0,
        acting: Sequence[tuple[str, str, str]] = (),
        **settings: Any,
    ) -> None:
        names = sorted(expected)
        daemons = [(name.encode() * 6).hex() for name in names]
        super().__init__(0, epoch, names, gone, daemons, closed, (), acting, **settings)
        self.start_s = self.now_s
        self.turn()

    def at(self, after_start_s: float) -> "Restarted":
        """Live on until so long after the start."""
        self.live(self.start_s + after_start_s - self.now_s)
        return self

    def define(
        self, peer: PeerId, client: PeerId | None = None, name: str = "work", **options: Any
    ) -> int:
        """Whoever does not speak of pauses has none, after an attempt that was lost before."""
        return super().define(peer, client, name, **{"retry_backoff_s": 0.0, **options})

    def client_enters(self, letter: str = "c", settled: int = 1) -> PeerId:
        peer = PeerId(letter.encode() * 6)
        self.hello(peer, "client", letter, epoch=1)
        self.say(peer, Enter(f"client-{letter}", Environment(), settled))
        return peer

    def client_back(
        self,
        ids: Sequence[TaskId] = (),
        attempt: int = 1,
        letter: str = "c",
        options: dict[str, Any] | None = None,
        settled: int = 1,
        **fields: Any,
    ) -> PeerId:
        """A client comes back, names its tasks, and is done with it."""
        peer = self.client_enters(letter, settled)
        if ids:
            self.names(peer, self.define(peer, **(options or {})), ids, attempt, **fields)
        self.registered(peer)
        return peer

    def names(
        self, peer: PeerId, kind: int, ids: Sequence[TaskId], attempt: int = 1, **fields: Any
    ) -> None:
        """A submitter names tasks of an earlier life."""
        client = fields.pop("client", peer)
        parent, depth = fields.pop("parent", b""), fields.pop("depth", 0)
        rows = [TaskRow(id_, kind, **fields) for id_ in ids]
        self.say(peer, Submit(client, parent, depth, rows, [attempt] * len(rows)))

    def node_joins(self, letter: str = "n", cpus: float = 2) -> PeerId:
        peer = PeerId(letter.encode() * 6)
        self.hello(peer, "node", letter, epoch=1)
        self.say(peer, Join(letter, "host", 1, {"CPU": float(cpus)}))
        return peer

    def node_back(
        self,
        *rows: InventoryRow,
        letter: str = "n",
        clients: Sequence[PeerId] = (CLIENT,),
        cpus: float = 2,
    ) -> PeerId:
        """A node comes back, tells what it has, and is done with it."""
        peer = self.node_joins(letter, cpus)
        self.say(peer, Inventory(list(clients), list(rows), True))
        self.registered(peer)
        return peer

    def registered(self, peer: PeerId) -> None:
        self.say(peer, Registered())

    def stops(self, node: PeerId) -> list[tuple[bytes, int, int]]:
        return [row for message in self.take(node, Stop) for row in message.rows]

    def reports(self, node: PeerId) -> list[tuple[bytes, int]]:
        return [row for message in self.take(node, Report) for row in message.rows]

    def retried(self, peer: PeerId) -> dict[bytes, int]:
        return dict(row for message in self.take(peer, Retried) for row in message.rows)

    def task(self, id_: bytes) -> Any:
        """What `drumbeat tasks` would show of a task; None: it is unknown."""
        from drumbeat.protocol.ids import show

        asker = PeerId(b"asking")
        if asker not in self.mail:
            self.hello(asker, "client", "asker")
            self.say(asker, Enter("asker", Environment()))
        tasks = self.ask(asker, "tasks", match=show(id_))
        return tasks[0] if tasks else None


def ids(count: int, peer: PeerId = CLIENT, worker: int = 0) -> list[TaskId]:
    return ids_of(peer, count, worker)
