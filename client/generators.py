"""ObjectRefGenerator: the references to what a task yields, each as soon as it is there.

Never holds a value, and never more than one reference: what was not read yet the session keeps. It
tells that session how far it has read, since the task waits when it is too far ahead.
"""

import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, NoReturn, TypeVar, final

from ..protocol.ids import ObjectId, TaskId, item_of, show
from ..protocol.messages import ValueRow
from ..protocol.outcomes import VALUE
from ..protocol.references import ObjectRef, check_timeout, gone, refuse_force, refuse_fork
from ..protocol.session import Kind, Packed, Session
from ..protocol.yielded import END

T = TypeVar("T")

#: the session hears of what was read after this part of what the task may be ahead
TELL_PART: Final = 2


@final
class ObjectRefGenerator(Generic[T]):
    """The references to what a task with `num_returns="streaming"` yields, in order, once each.

    `for ref in generator` and `async for ref in generator` wait until the next value is there, and
    end with the task. If it fails, the last reference is one whose `get` raises why. One thread or
    coroutine reads at a time: another that tries meanwhile gets a ValueError. When it is closed,
    by whichever thread, or nobody holds it any more, the task is cancelled if it has not ended;
    whoever waits for the next value finds that there is none, and references that were handed out
    stay good.
    """

    __slots__ = (
        "__weakref__", "_buffer", "_guard", "_is_call", "_is_over", "_is_read", "_pid", "_read",
        "_session", "_task", "_told",
    )  # fmt: skip

    def __init__(self, task: TaskId, session: Session, buffer: int, *, is_call: bool) -> None:
        self._task = task
        self._session = session
        self._buffer = buffer
        self._is_call = is_call
        self._pid = os.getpid()
        #: so many were handed out, and so many of those the session knows of
        self._read = 0
        self._told = 0
        self._is_over = False
        #: somebody waits for the next one, or takes it
        self._is_read = False
        #: for what follows, which another thread may end. A signal's handler may close it, too
        self._guard = threading.RLock()

    def __del__(self) -> None:
        try:
            if self._pid == os.getpid():
                self._end()
        except Exception:  # noqa: BLE001  # at interpreter exit anything may be gone already
            return

    def __iter__(self) -> Iterator[ObjectRef[T]]:
        return self

    def __next__(self) -> ObjectRef[T]:
        ref = self.next()
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> AsyncIterator[ObjectRef[T]]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        if self._is_over:
            raise StopAsyncIteration
        session = self._checked()
        with self._reading():
            id_ = self._next_id()
            row = session.peek(id_)
            if row is None:
                from ..protocol.futures import row_in_loop  # loads asyncio: for those who use it

                self._tell()
                row = await row_in_loop(id_, session)
            ref = self._handed_out(id_, row)
        if ref is None:
            raise StopAsyncIteration
        return ref

    def next(self, timeout: float | None = None) -> ObjectRef[T] | None:
        """Wait for the next value; return its reference, or None when there is none any more.

        Args:
            timeout: seconds; None waits for as long as it takes.

        Raises:
            GetTimeoutError: it was not there in time; ask again.
            TypeError, ValueError: `timeout` is no number of seconds.
            ValueError: another thread, or a coroutine, is reading it.
        """
        check_timeout(timeout)
        if self._is_over:
            return None
        session = self._checked()
        with self._reading():
            id_ = self._next_id()
            row = session.peek(id_)
            if row is None:
                self._tell()
                row = session.get((id_,), timeout)[-1]
            return self._handed_out(id_, row)

    def cancel(self, force: bool = False, recursive: bool = True) -> None:
        """Cancel the task; see `drumbeat.cancel`. What it has yielded can be read."""
        if force and self._is_call:
            refuse_force((self,))
        self._checked().cancel((ObjectId(self._task),), force, recursive)

    def close(self) -> None:
        """Read no more: what was not read is let go of, and the task cancelled if it goes on."""
        if self._pid == os.getpid():
            self._end()

    # -------------------------------------------------------------------------------------- inside

    def _checked(self) -> Session:
        if self._pid != os.getpid():
            raise refuse_fork()
        if not self._session.alive:
            raise gone(repr(self), "what it yielded is gone; submit the task again")
        return self._session

    def _next_id(self) -> ObjectId:
        return item_of(self._task, self._read)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Be the one that reads: two would have the same value, and nobody the one behind it."""
        is_mine = False
        try:
            with self._guard:
                if self._is_read:
                    raise ValueError(
                        f"{self!r} is being read by another thread, or coroutine: have one of them "
                        "read it, and pass on the references"
                    )
                is_mine = self._is_read = True
            yield
        finally:
            if is_mine:
                self._is_read = False

    def _handed_out(self, id_: ObjectId, row: ValueRow) -> ObjectRef[T] | None:
        with self._guard:
            if self._is_over:  # closed meanwhile, and what has come let go of
                return None
            if row.failure == END:
                self._end()
                return None
            self._read += 1
            if row.outcome != VALUE:
                self._end()
            elif self._session.lends or TELL_PART * (self._read - self._told) >= self._buffer:
                self._tell()  # in a task each, since its node hands over the hold that goes with it
            return ObjectRef(id_, self._session)

    def _tell(self) -> None:
        with self._guard:
            if self._told != self._read and not self._is_over:
                self._told = self._read
                self._session.read(self._task, self._read, over=False)

    def _end(self) -> None:
        with self._guard:
            if not self._is_over:
                self._is_over = True
                self._session.read(self._task, self._read, over=True)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({show(self._task)}, {self._read} read)"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} stays in the process that made it, where its values are: pass on the "
            "references that it yields"
        )


def several(
    session: Session, kind: Kind, packed: Packed, *, is_call: bool = False
) -> ObjectRefGenerator[Any] | list[ObjectRef[Any]] | None:
    """Submit a call that does not have one value; return what its caller gets.

    Args:
        session: where.
        kind: what is called.
        packed: its arguments.
        is_call: whether an actor is called.
    """
    options = kind.options
    if options.stream_buffer_max:
        task = session.new_id()
        session.submit(kind, packed, task)
        return ObjectRefGenerator(task, session, options.stream_buffer_max, is_call=is_call)
    return [ObjectRef(id_, session) for id_ in session.submit(kind, packed)] or None
