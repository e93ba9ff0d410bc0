"""What a worker may say: its own tasks' ends, and calls and values under its own ids.

Never acts. User code runs in a worker and can write anything into its socket. What does not decode
is refused there; what decodes and cannot be true is found here, so that it harms no other worker,
and so that the scheduler does not drop the whole node for it.
"""

from ..protocol.ids import ORDINAL_BYTES, PEER_BYTES, ObjectId, TaskId, objects_of, show
from ..protocol.messages import Outcome
from .attempts import Attempt, Worker
from .packets import FinishedRow, Submitted
from .state import NodeState


def fits(attempt: Attempt, row: FinishedRow) -> bool:
    """Return whether these can be the values of that attempt: see `messages.DoneRow`.

    The node's core knows the plain ones by itself, row by row, since each task pays for that.
    """
    values, task = row.values, TaskId(attempt.row.id)
    if len(values) == 1 and values[0].outcome != Outcome.VALUE:
        told = values[0].payload if values[0].outcome == Outcome.ERROR else values[0].failure
        return values[0].id == task and told is not None
    count = attempt.kind.options.num_returns
    ids = [ObjectId(value.id) for value in values]
    right = ids == (objects_of(task, count) if count else [])
    return right and not row.retry and all(value.outcome == Outcome.VALUE for value in values)


def put_back(worker: Worker, seq: int, attempt: Attempt) -> str:
    """Put an attempt that does not fit back into its worker's hands, to end with it; return why."""
    in_order = sorted((*worker.flight.items(), (seq, attempt)))
    worker.flight.clear()
    worker.flight.update(in_order)
    return f"it told of values that are not those of task {show(attempt.row.id)}"


def untruth(worker: Worker, packet: Submitted, state: NodeState) -> str:
    """Return what of a worker's calls and puts cannot be true, or "".

    Args:
        worker: who said it.
        packet: what it said.
        state: of this node.
    """
    objects = state.objects
    prefix = state.peer + worker.number.to_bytes(ORDINAL_BYTES, "big")
    entries, calls = objects.entries, objects.calls
    seen: dict[bytes, None] = {}
    # A detached actor is nobody's here: it has an id of its own, and its kind comes with it.
    detached = [one.number for one in packet.kinds if (how := one.options.creates) and how.detached]
    strange = [row.id for row in packet.rows if row.kind in detached] if detached else []
    for id_ in (*(row.id for row in packet.rows), *(row.id for row in packet.puts)):
        entry = entries.get(id_)
        used = id_ in calls or (entry is not None and (entry.pending or entry.row is not None))
        is_own = id_[: len(prefix)] == prefix
        if id_ in strange:
            is_own = id_[:PEER_BYTES] != state.peer
        if not is_own or used or id_ in seen:
            return f"it used the id {show(id_)}, which is another's or was used before"
        seen[id_] = None
    return ""
