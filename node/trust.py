"""What a worker may say: its own tasks' ends, and calls and values under its own ids.

Never acts. User code runs in a worker and can write anything into its socket. What does not decode
is refused there; what decodes and cannot be true is found here, so that it harms no other worker,
and so that the scheduler does not drop the whole node for it.
"""

from ..protocol.ids import ORDINAL_BYTES, ObjectId, TaskId, objects_of, show
from ..protocol.messages import Outcome
from .attempts import Attempt, Worker
from .objects import Objects
from .packets import Finished, FinishedRow, Submitted


def untruth(worker: Worker, packet: object, peer: bytes, objects: Objects) -> str:
    """Return what of a worker's packet cannot be true, or "".

    Args:
        worker: who said it.
        packet: what it said.
        peer: this node.
        objects: all that are known here.
    """
    if type(packet) is Finished:
        flight = worker.flight
        for row in packet.rows:
            attempt = flight.get(row.seq)
            if attempt is None:
                continue  # it was taken from the worker meanwhile
            values = row.values
            if len(values) == 1 and values[0].id == attempt.row.id and not values[0].outcome:
                fits = attempt.kind.options.num_returns == 1
            else:
                fits = _fits(attempt, row)
            if not fits:
                return f"it told of values that are not those of task {show(attempt.row.id)}"
    elif type(packet) is Submitted:
        return _of_others(worker, packet, peer, objects)
    return ""


def _fits(attempt: Attempt, row: FinishedRow) -> bool:
    """Return whether these can be the values of that attempt: see `messages.DoneRow`."""
    values, task = row.values, TaskId(attempt.row.id)
    if len(values) == 1 and values[0].outcome != Outcome.VALUE:
        told = values[0].payload if values[0].outcome == Outcome.ERROR else values[0].failure
        return values[0].id == task and told is not None
    count = attempt.kind.options.num_returns
    ids = [ObjectId(value.id) for value in values]
    right = ids == (objects_of(task, count) if count else [])
    return right and not row.retry and all(value.outcome == Outcome.VALUE for value in values)


def _of_others(worker: Worker, packet: Submitted, peer: bytes, objects: Objects) -> str:
    prefix = peer + worker.number.to_bytes(ORDINAL_BYTES, "big")
    entries, calls = objects.entries, objects.calls
    seen: dict[bytes, None] = {}
    for id_ in (*(row.id for row in packet.rows), *(row.id for row in packet.puts)):
        entry = entries.get(id_)
        used = id_ in calls or (entry is not None and (entry.pending or entry.row is not None))
        if id_[: len(prefix)] != prefix or used or id_ in seen:
            return f"it used the id {show(id_)}, which is another's or was used before"
        seen[id_] = None
    return ""
