"""The actor of a worker's process: how it is made, told of, and ended.

Never runs a call by itself: the creation and the calls are rows like any other, run by the worker.
The class and its calls say by exceptions what is no value, so that tasks pay nothing for actors.
"""

from collections.abc import Callable
from typing import Any, Final

from ..protocol.actor_calls import ActorExit, is_async, set_instance
from ..protocol.ids import TaskId, objects_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.payload import pack_value
from .health import Doctor
from .packets import ActorMade, FinishedRow, RunRow
from .saving import Saver, restored

_VALUE: Final = int(Outcome.VALUE)
_NONE: Final = pack_value(None).payload


#: of an actor with `async def` methods, where its options do not say
CONCURRENCY: Final = 1000


class _Made(BaseException):
    """The constructor has returned."""

    def __init__(
        self, concurrency: int, loop: Any, saver: Saver | None, doctor: Doctor | None
    ) -> None:
        self.concurrency = concurrency
        self.loop = loop
        self.saver = saver
        self.doctor = doctor


class Constructor:
    """Makes the actor of this process, run as any function is.

    Args:
        made_by: its class.
        concurrency: so many calls may run at once; 0: as the class says.
        saver: tells its state; None: it never does.
        doctor: asks how it is; None: nobody does.
    """

    def __init__(
        self,
        made_by: Callable[..., Any],
        concurrency: int = 0,
        saver: Saver | None = None,
        doctor: Doctor | None = None,
    ) -> None:
        self._made_by = made_by
        self._concurrency = concurrency
        self._saver = saver
        self._doctor = doctor

    def __call__(self, /, *args: Any, **kwargs: Any) -> None:
        """Make it of the arguments that it was created with."""
        made_by, concurrency = self._made_by, self._concurrency
        if not is_async(made_by):
            set_instance(made_by(*args, **kwargs))
            raise _Made(concurrency if concurrency > 1 else 0, None, self._saver, self._doctor)
        from .several_loop import make  # loads asyncio: for those who use it

        instance, loop = make(made_by, args, kwargs)
        set_instance(instance)
        raise _Made(concurrency or CONCURRENCY, loop, None, self._doctor)

    def restore(self, checkpoint: bytes) -> None:
        """Make it of what it told of itself in its last incarnation."""
        made_by, concurrency = self._made_by, self._concurrency
        if not is_async(made_by):
            set_instance(restored(made_by, checkpoint))
            raise _Made(concurrency if concurrency > 1 else 0, None, self._saver, self._doctor)
        from .several_loop import make  # loads asyncio: for those who use it

        instance, loop = make(restored, (made_by, checkpoint), {})
        set_instance(instance)
        raise _Made(concurrency or CONCURRENCY, loop, self._saver, self._doctor)


class ActorHost:
    """What the worker knows of its actor."""

    __slots__ = (
        "concurrency", "creation", "doctor", "inline_bytes_max", "loop", "over", "saver",
    )  # fmt: skip

    def __init__(self) -> None:
        #: the row that made it; None: there is none
        self.creation: RunRow | None = None
        #: it has ended itself
        self.over = False
        #: it runs so many calls at once; 0: one after the other
        self.concurrency = 0
        #: the event loop on which it lives; None: it lives on none
        self.loop: Any = None
        #: tells its state; None: it never does
        self.saver: Saver | None = None
        #: asks how it is; None: nobody does
        self.doctor: Doctor | None = None
        #: see `Saver.begin`
        self.inline_bytes_max = 0

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
            self.concurrency, self.loop = error.concurrency, error.loop
            in_threads = bool(error.concurrency) and error.loop is None
            self.saver = error.saver
            if self.saver is not None:
                self.saver.begin(self.inline_bytes_max)
            self.doctor = error.doctor
            if self.doctor is not None:
                self.doctor.begin()
            return ActorMade(row.seq, [], error.concurrency, in_threads)
        if self.creation is None or not isinstance(error, ActorExit):
            return None
        self.over = True
        ids = objects_of(TaskId(row.id), num_returns)
        values = tuple(ValueRow(id_, _VALUE, _NONE) for id_ in ids)
        return FinishedRow(row.seq, values, duration_s)

    @property
    def is_seen_to(self) -> bool:
        """Whether something is to be done with it while nobody calls."""
        return self.saver is not None or self.doctor is not None

    def wait_s(self) -> float | None:
        """Return after how long its state is to be told, or it is to be asked how it is."""
        wait_s = None if self.saver is None else self.saver.wait_s()
        if self.doctor is None:
            return wait_s
        asked_s = self.doctor.wait_s()
        return asked_s if wait_s is None else min(wait_s, asked_s)

    def ended(self) -> FinishedRow | None:
        """Return the end of the creation, if there is an actor."""
        row = self.creation
        if row is None:
            return None
        return FinishedRow(row.seq, (ValueRow(row.id, _VALUE, _NONE),), 0.0)
