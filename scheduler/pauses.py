"""When the next attempt of a task may begin.

Never keeps anything: `Work` has what waits, and `Actors` what is known of an actor's node.
"""

from .actors import Actors
from .state import State
from .tasks import NOT_YET, TaskRecord, backoff_s


def next_due_s(state: State, record: TaskRecord, charged: int) -> float:
    """Return when the pause after the last of so many attempts is over."""
    limit_s, chance = state.settings.retry_backoff_max_s, state.rng.random()
    return state.now_s + backoff_s(record.kind.options, charged, limit_s, chance)


def begins_s(state: State, actors: Actors, record: TaskRecord) -> float:
    """Return when a task that waits for nothing any more may begin; 0: at once."""
    if record.kind.creates is not None:
        return actors.hosts.fences.not_before_s(record)
    if record.attempt == 1 or record.assigned_s != NOT_YET or record.kind.is_special:
        return 0.0
    # It was lost in an earlier life of the scheduler: how much of its pause is over nobody knows.
    return next_due_s(state, record, record.attempt - 1)
