"""A stage with actors on it: creations and calls, and nodes that say what became of them."""

from typing import Any

from drumbeat.protocol.actors import ActorOptions, ActorsUp
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import AssignRow, Cancel, Failure, Stop, StopMode, TakenBack

from .scheduling import Stage, died

CLIENT = PeerId(b"c" * 6)


class Acting(Stage):
    """See the module. One client is there, and names what it makes."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("retry_backoff_max_s", 0.001)
        super().__init__(**settings)
        self.names: dict[tuple[PeerId, int], IdFactory] = {}
        self.call_kinds: dict[tuple[PeerId, bytes, str, int], int] = {}
        self.caller = self.client()

    def name(self, peer: PeerId, worker: int = 0) -> TaskId:
        """Return the next id that a process makes."""
        return self.names.setdefault((peer, worker), IdFactory(peer, worker))()

    # ---------------------------------------------------------------------------------- submitted

    def create(self, peer: PeerId | None = None, restarts: int = 0, **more: Any) -> TaskId:
        """Submit a creation."""
        peer = peer or self.caller
        fields = {key: more.pop(key) for key in ("deps", "parent", "client") if key in more}
        options = {
            key: more.pop(key) for key in ("num_cpus", "node", "retry_backoff_s") if key in more
        }
        kind = self.define(
            peer, fields.get("client"), name="Counter", creates=ActorOptions(**more),
            max_retries=restarts, **{"num_cpus": 0.0, **options},
        )  # fmt: skip
        actor = self.name(peer)
        self.submit(peer, kind, [actor], **fields)
        return actor

    def call(
        self,
        actor: TaskId,
        peer: PeerId | None = None,
        worker: int = 0,
        method: str = "add",
        retries: int = 0,
        **fields: Any,
    ) -> TaskId:
        """Submit a call."""
        peer = peer or self.caller
        key = peer, actor, method, retries
        kind = self.call_kinds.get(key)
        if kind is None:
            kind = self.call_kinds[key] = self.define(
                peer, fields.get("client"), name=f"Counter.{method}", actor=bytes(actor),
                num_cpus=0.0, max_retries=retries,
            )  # fmt: skip
        id_ = self.name(peer, worker)
        self.submit(peer, kind, [id_], **fields)
        return id_

    def calls(self, actor: TaskId, count: int, **more: Any) -> list[TaskId]:
        """Submit several."""
        return [self.call(actor, **more) for _ in range(count)]

    # ------------------------------------------------------------------------------------- at nodes

    def started(self, actor: TaskId, node: PeerId) -> AssignRow:
        """Have the node to which a creation is given run its constructor."""
        self.turn()
        (row,) = [row for row in self.assigned(node) if row.id == actor]
        self.up(node, row)
        return row

    def up(self, node: PeerId, *rows: AssignRow) -> None:
        """Constructors have returned."""
        self.say(node, ActorsUp([(row.id, row.attempt) for row in rows]))
        self.turn()

    def sent(self, node: PeerId) -> list[bytes]:
        """Return the ids of what a node has been given since it was asked last."""
        return [row.id for row in self.assigned(node)]

    def process_ends(
        self,
        node: PeerId,
        creation: AssignRow,
        *ran: AssignRow,
        unstarted: tuple[AssignRow, ...] = (),
    ) -> None:
        """The process of an actor dies, with calls that had begun and others that had not."""
        if unstarted:
            self.say(node, TakenBack([(row.id, row.attempt) for row in unstarted]))
        self.done(node, *(died(row) for row in (*ran, creation)))

    def stops(self, node: PeerId) -> list[tuple[bytes, int, StopMode]]:
        """Return what a node was told to stop."""
        rows = [row for message in self.take(node, Stop) for row in message.rows]
        return [(id_, attempt, StopMode(mode)) for id_, attempt, mode in rows]

    # ------------------------------------------------------------------------------------- the end

    def drop(self, actor: TaskId, peer: PeerId | None = None) -> None:
        """The home of an actor says that nobody holds it."""
        self.say(peer or self.caller, Cancel([actor], False, False, exit=True))

    def failure(self, id_: TaskId, peer: PeerId | None = None) -> Failure:
        """Return why a call or a creation has no value; everything else that was told is lost."""
        failure = self.results(peer or self.caller)[id_].failure
        assert failure is not None
        return failure

    def errors(self, peer: PeerId | None = None) -> dict[bytes, str]:
        """Return the errors that were told, by call; "" for those that have a value."""
        results = self.results(peer or self.caller)
        return {
            id_: row.failure.error if row.failure is not None else "ERROR" if row.outcome else ""
            for id_, row in results.items()
        }

    def rows(self) -> list[dict[str, Any]]:
        """Ask for the actors."""
        rows: list[dict[str, Any]] = self.ask(self.caller, "actors")
        return rows
