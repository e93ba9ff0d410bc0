"""What a task yields when all runs here and now: a step each time somebody reads.

Never runs ahead of its reader, and never keeps what it has yielded.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..protocol.actor_calls import ActorExit
from ..protocol.errors import Interrupted
from ..protocol.ids import ObjectId, TaskId, item_of, show
from ..protocol.messages import Failure, Outcome, ValueRow
from ..protocol.outcomes import ERROR, VALUE, is_retryable
from ..protocol.payload import pack_error, pack_value
from ..protocol.session import Kind
from ..protocol.yielded import END, iterator_of, too_many
from ..protocol.yields import ITEMS_MAX


class InlineStream:
    """One task that yields.

    Args:
        kind: what is called.
        task: its id.
        node: the node's name, for people.
        needs: to be held until nobody reads any more: it begins when it is read, perhaps anew.
        begin: calls it; returns what that returned, and the exceptions after which to try again.
        around: what the code of an attempt of that number runs in.
    """

    def __init__(
        self,
        kind: Kind,
        task: TaskId,
        node: str,
        needs: Sequence[ObjectId],
        begin: Callable[[], tuple[Any, Any]],
        around: Callable[[int], AbstractContextManager[None]],
    ) -> None:
        self._kind = kind
        self._task = task
        self._node = node
        self.needs = needs
        self._begin = begin
        self._around = around
        self._items: Iterator[Any] | None = None
        self._retry_exceptions: Any = False
        self._attempt = 1
        #: so many rows were returned
        self.count = 0
        self._skips = 0
        self._is_cancelled = False
        #: to be raised where it yielded
        self._asked: Interrupted | None = None

    def cancel(self) -> None:
        """Have it interrupted when it is read next; once, as in a cluster."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self._asked = Interrupted()

    def next(self) -> ValueRow:
        """Return the row of what it yields next, or of its end."""
        while True:
            row, again = self._step()
            if not again or self._is_cancelled or self._attempt > self._kind.options.max_retries:
                row.id = item_of(self._task, self.count)
                self.count += 1
                return row
            self._attempt, self._items, self._skips = self._attempt + 1, None, self.count

    def _step(self) -> tuple[ValueRow, bool]:
        name, task = self._kind.name, self._task
        try:
            with self._around(self._attempt):
                value = self._value()
            packed = pack_value(value, f"item {self.count}")
            return ValueRow(task, VALUE, packed.payload, contained=packed.contained), False
        except StopIteration:
            return ValueRow(task, Outcome.FAILURE, failure=END), False
        except KeyboardInterrupt:
            raise  # the user's own
        except Interrupted:
            how = "was cancelled" if self._is_cancelled else "ended itself by Interrupted"
            failure = Failure("TaskCancelled", f"{name}() {how}")
            return ValueRow(task, Outcome.FAILURE, failure=failure), False
        except ActorExit:
            return ValueRow(task, Outcome.FAILURE, failure=END), False
        except BaseException as error:  # noqa: BLE001  # the task's outcome, sys.exit() too
            report = pack_error(
                error,
                name=name,
                task=show(task),
                node=self._node,
                pid=os.getpid(),
                attempt=self._attempt,
            )
            row = ValueRow(task, ERROR, report.payload, contained=report.contained)
            return row, is_retryable(error, self._retry_exceptions)

    def _value(self) -> Any:
        asked, self._asked = self._asked, None
        if asked is not None:
            # What has not begun, or is no generator, cannot be told.
            throw = getattr(self._items, "throw", None)
            if throw is None:
                raise asked
            return throw(asked)
        if self.count >= ITEMS_MAX:
            # One more than there may be is an error, and not before it comes.
            next(self._items or iter(()))
            raise too_many(self._kind.name)
        if self._items is None:
            made, self._retry_exceptions = self._begin()
            self._items = iterator_of(made, self._kind.name)
        while self._skips:
            self._skips -= 1
            next(self._items)
        return next(self._items)
