"""A stage with tasks that have limits, and what nodes say of those that go beyond one."""

from typing import Any

from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import (
    AssignRow,
    DoneRow,
    Failure,
    Outcome,
    Stop,
    StopMode,
    ValueRow,
)

from .scheduling import Stage, ids_of


class Limited:
    """A client with tasks that have limits, and perhaps a node."""

    def __init__(self, cpus: float | None = None, count: int = 1, **more: Any) -> None:
        limits = {key: more.pop(key) for key in list(more) if key in Limits.__struct_fields__}
        options = {key: more.pop(key) for key in list(more) if key in ("max_retries", "num_cpus")}
        self.stage = stage = Stage(**more)
        self.client = stage.client()
        self.node = None if cpus is None else stage.node(cpus=cpus)
        self.kind = stage.define(self.client, limits=Limits(**limits), **options)
        self.ids = ids_of(self.client, count)
        stage.submit(self.client, self.kind, self.ids)
        stage.turn()

    def given(self, node: PeerId | None = None) -> list[AssignRow]:
        to = node or self.node
        assert to is not None
        return self.stage.assigned(to)

    def stops(self) -> list[tuple[TaskId, StopMode, str]]:
        assert self.node is not None
        return [
            (TaskId(id_), StopMode(mode), message.reason)
            for message in self.stage.take(self.node, Stop)
            for id_, _, mode in message.rows
        ]

    def failures(self) -> dict[bytes, Failure | None]:
        return {id_: row.failure for id_, row in self.stage.results(self.client).items()}

    def failure(self) -> Failure:
        """Why the one task has no value."""
        (failure,) = self.failures().values()
        assert failure is not None
        return failure


def timed_out(row: AssignRow, limit: str, payload: bytes | None = None, **more: Any) -> DoneRow:
    """What a node says of an attempt that it has ended for a limit."""
    failure = Failure("TaskTimedOut", "it took too long", {"limit": limit, "node": "n", "pid": 7})
    value = ValueRow(row.id, Outcome.FAILURE, payload, failure=failure)
    return DoneRow(row.id, row.attempt, (value,), 1.0, **more)
