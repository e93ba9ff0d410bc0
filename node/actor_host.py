"""The actor of a worker's process: how it is made, told of, and ended.

Never runs a call by itself: the creation and the calls are rows like any other, run by the worker.
The class and its calls say by exceptions what is no value, so that tasks pay nothing for actors.
"""

from collections.abc import Callable
from typing import Any, Final

from ..protocol.actor_calls import ActorExit, set_instance
from ..protocol.ids import TaskId, objects_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.payload import pack_value
from .packets import ActorMade, FinishedRow, RunRow

_VALUE: Final = int(Outcome.VALUE)
_NONE: Final = pack_value(None).payload


class _Made(BaseException):
    """The constructor has returned."""


def constructor(made_by: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes the actor of this process, run as any function is."""

    def construct(*args: Any, **kwargs: Any) -> None:
        set_instance(made_by(*args, **kwargs))
        raise _Made

    return construct


class ActorHost:
    """What the worker knows of its actor."""

    __slots__ = ("creation", "over")

    def __init__(self) -> None:
        #: the row that made it; None: there is none
        self.creation: RunRow | None = None
        #: it has ended itself
        self.over = False

    def outcome(
        self, row: RunRow, num_returns: int, error: BaseException, duration_s: float
    ) -> FinishedRow | ActorMade | None:
        """Return what is to be told of a row that an exception ended; None: it is a plain error.

        Args:
            row: what was run.
            num_returns: how many values it was to have.
            error: what it raised.
            duration_s: how long it took.
        """
        if isinstance(error, _Made):
            self.creation = row
            return ActorMade(row.seq)
        if self.creation is None or not isinstance(error, ActorExit):
            return None
        self.over = True
        ids = objects_of(TaskId(row.id), num_returns)
        values = tuple(ValueRow(id_, _VALUE, _NONE) for id_ in ids)
        return FinishedRow(row.seq, values, duration_s)

    def ended(self) -> FinishedRow | None:
        """Return the end of the creation, if there is an actor."""
        row = self.creation
        if row is None:
            return None
        return FinishedRow(row.seq, (ValueRow(row.id, _VALUE, _NONE),), 0.0)
