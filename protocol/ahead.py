"""Results that have come before their rows: their attempts may yet come to nothing.

Never decides which one counts: the row that names the value comes when that is known, and all that
was sent ahead of it has come by then. Of those the last attempt's is meant.
"""

from typing import Final

from .ids import TASK_BYTES, ObjectId, TaskId, task_of

ATTEMPT_BYTES: Final = 8


def ahead_key(id_: bytes, attempt: int) -> bytes:
    """Return the key of what an attempt has made of a value."""
    return id_ + attempt.to_bytes(ATTEMPT_BYTES, "big")


def task_ahead(key: bytes) -> TaskId | None:
    """Return of which task a payload with that key is a result; None: it is none that is ahead."""
    return task_of(ObjectId(key)) if len(key) >= TASK_BYTES + ATTEMPT_BYTES else None


class Ahead:
    """Those of one peer's own tasks."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        # By task and value: of which attempt, and the payload.
        self._of: dict[TaskId, dict[bytes, tuple[bytes, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._of)

    def came(self, key: bytes, payload: bytes) -> None:
        """Keep a result, unless one of a later attempt is here."""
        id_, attempt = key[:-ATTEMPT_BYTES], key[-ATTEMPT_BYTES:]
        of_task = self._of.setdefault(task_of(ObjectId(id_)), {})
        known = of_task.get(id_)
        if known is None or known[0] < attempt:
            of_task[id_] = attempt, payload

    def take(self, id_: bytes) -> bytes | None:
        """Return the payload of a value that a row names now; None: it was not sent ahead."""
        of_task = self._of.get(task_of(ObjectId(id_)))
        known = of_task.pop(id_, None) if of_task is not None else None
        return known[1] if known is not None else None

    def forget(self, task: TaskId) -> None:
        """A task has its outcome."""
        self._of.pop(task, None)

    def clear(self) -> None:
        """The link's life is over."""
        self._of.clear()
