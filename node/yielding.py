"""The worker's end of a task that yields its values: not too far ahead of its reader.

Never keeps an item: each goes to the node as it is made. Never decides how far ahead is too far:
the task's options say that, and the node how far its reader is.
"""

from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any, Final

from ..protocol.errors import Interrupted
from ..protocol.ids import TaskId, item_of
from ..protocol.messages import Outcome, ValueRow
from ..protocol.payload import pack_value
from ..protocol.session import current
from ..protocol.yielded import iterator_of, too_many
from ..protocol.yields import ITEMS_MAX
from .actor_host import ActorHost
from .helper import FLUSH_S, Helper, flush_streams
from .line import Line
from .loaded import LoadedKind
from .nested import WorkerSession
from .packets import Answered, Item, RunRow, Want
from .page import INTERRUPT, PHASE, PICKLING, RUNNING_CODE, YIELDING, Words

#: a reader that is but a little behind is waited for with the task's CPUs kept
KEEPS_CPUS_S: Final = 0.02
#: of a method of an actor that runs several calls at once
NOT_BESIDE: Final = (
    '{} cannot yield its values (num_returns="streaming"): its actor runs several calls at once. '
    "Have it return a list, or leave out max_concurrency and `async def` methods"
)
_VALUE: Final = int(Outcome.VALUE)


class Yielder:
    """Runs what tasks yield in the main thread of a worker.

    Args:
        line: to the node.
        words: the worker's slot of the pulse page.
        helper: has the outbox sent within milliseconds.
        host: of the actor that the worker becomes, if it does.
    """

    def __init__(self, line: Line, words: Words, helper: Helper, host: ActorHost) -> None:
        self._line = line
        self._words = words
        self._helper = helper
        self._host = host

    def run(self, row: RunRow, kind: LoadedKind, made: Any) -> tuple[ValueRow, ...]:
        """Send each value that a task yields; return its outcome when its submitter has them.

        Args:
            row: the task.
            kind: what it calls.
            made: what that returned: the generator.

        Raises:
            TypeError: that yields nothing.
            ValueError: it yields more than ITEMS_MAX.
            BaseException: whatever it raises itself; what it had yielded has been received by then.
        """
        if self._host.concurrency:
            raise TypeError(NOT_BESIDE.format(kind.name))
        steps = _Steps(iterator_of(made, kind.name), self._advance)
        try:
            self._send_all(row, kind, steps)
        except Interrupted:
            raise
        except BaseException:
            # Whoever reads is to have what was yielded before the error, or the end of the actor.
            self._wait(row, steps.count, 0, lends=False)
            raise
        self._wait(row, steps.count, 0, lends=False)
        return ()

    def _send_all(self, row: RunRow, kind: LoadedKind, steps: "_Steps") -> None:
        task, line = TaskId(row.id), self._line
        received = read = 0
        while True:
            try:
                if steps.count - read >= kind.stream and steps.interrupt is None:
                    received, read = self._wait(row, 0, steps.count - kind.stream + 1, lends=True)
                steps.advance(row)
            except Interrupted as asked:
                if steps.is_over:
                    raise
                steps.interrupt = asked  # raised where it yielded
                if not steps.made:
                    continue
            if not steps.made:
                return
            if steps.count >= ITEMS_MAX:
                steps.close()
                raise too_many(kind.name)
            while steps.count - received >= kind.stream:
                # It was interrupted while it waited, and goes on: more the node would not take.
                try:
                    ahead = steps.count - kind.stream + 1
                    received, read = self._wait(row, ahead, 0, lends=True)
                except Interrupted as asked:
                    steps.interrupt = asked
            value = steps.made.pop()
            if steps.count >= received:  # else an earlier attempt has yielded it
                what = f"item {steps.count}"
                packed = pack_value(value, what, line.filing, frozen=False)
                id_ = item_of(task, steps.count)
                item = ValueRow(id_, _VALUE, packed.payload, 0, packed.contained)
                line.outbox.append(Item(row.seq, item))
            steps.count += 1
            del value
            if perf_counter() - line.flushed_s > FLUSH_S:
                flush_streams()
                line.flush_results()
            else:
                self._helper.hurry()

    def _advance(self, row: RunRow, step: Callable[[], None]) -> None:
        words = self._words
        words[PHASE] = RUNNING_CODE
        try:
            if words[INTERRUPT] == row.seq:
                self._line.check_interrupt()
            step()
        finally:
            words[PHASE] = PICKLING

    def _wait(self, row: RunRow, received: int, read: int, *, lends: bool) -> tuple[int, int]:
        """Wait until so many items were received and read; return how many that are.

        Args:
            row: the task.
            received: by its submitter.
            read: of these.
            lends: whether other tasks may have its CPUs, if that takes long.
        """
        answer = self._ask(row, received, read, KEEPS_CPUS_S if lends else None, lends=False)
        if answer.timed_out:
            answer = self._ask(row, received, read, None, lends=True)
        now_received, now_read = answer.data or (received, read)
        return now_received, now_read

    def _ask(
        self, row: RunRow, received: int, read: int, timeout_s: float | None, *, lends: bool
    ) -> Answered:
        self._words[PHASE] = YIELDING
        session = current()
        assert isinstance(session, WorkerSession), "there is one before the first task"
        return session.ask(
            lambda number: Want(
                number, row.seq, [], 0, timeout_s, values=False, lends=lends,
                reads=(received, read),
            ),
            gives_back=lends,
        )  # fmt: skip


class _Steps:
    """A generator on its way, and what is to be raised in it."""

    __slots__ = ("_advance", "_iterator", "count", "interrupt", "made")

    def __init__(
        self, iterator: Iterator[Any], advance: Callable[[RunRow, Callable[[], None]], None]
    ) -> None:
        self._iterator = iterator
        self._advance = advance
        #: so many were yielded
        self.count = 0
        self.interrupt: Interrupted | None = None
        #: what was yielded and is to be sent
        self.made: list[Any] = []

    def advance(self, row: RunRow) -> None:
        """Have what is yielded next in `made`; nothing is in it at the end."""
        asked, self.interrupt = self.interrupt, None
        # An interrupt may come as the value does. It is raised between two steps of ours, and this
        # is one: what was yielded is in the list, or was not yielded.
        if asked is None:
            step = map(next, (self._iterator,))
        else:
            step = map(self._iterator.throw, (asked,))  # type: ignore[attr-defined]  # a generator
        self._advance(row, partial(self.made.extend, step))

    @property
    def is_over(self) -> bool:
        """Whether nothing can be raised in it."""
        frame: Any = getattr(self._iterator, "gi_frame", None)
        return frame is None

    def close(self) -> None:
        """End it before its time."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()
