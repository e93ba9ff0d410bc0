"""The thread that writes down what detached actors are made of, beside the scheduler's loop.

Never decides, and never touches the core: it is given files and says what became of each, in
order. Until it has, nobody is told that an actor is kept; so a disk that is slow holds up those who
wait for that, and nobody else. Whatever goes wrong is said of the files it went wrong with: the
thread goes on, or those who come later would wait for ever.
"""

import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final

from ..protocol.codec import encode
from .deed_files import TOGETHER_MAX, DeedFiles
from .deeds import Deed

#: so many bytes are written before anybody hears of it
TOGETHER_BYTES: Final = 64 << 20
#: so long the loop waits for what is being written of an actor that has ended
WITHDRAW_S: Final = 2.0


class _Order:
    """A file to be written; data of None: one that was written is to be removed."""

    __slots__ = ("data", "id", "is_wanted", "why")

    def __init__(self, id_: bytes, data: bytes | None) -> None:
        self.id = id_
        self.data = data
        #: somebody waits to hear of it
        self.is_wanted = True
        #: why it could not be carried out
        self.why = ""


class DeedWriter:
    """See the module. All methods are for the loop's thread.

    Args:
        files: where to write; nobody else may write the same actors' files meanwhile.
    """

    def __init__(self, files: DeedFiles) -> None:
        self._files = files
        #: guards all below; told when there is something to do, and when something is done
        self._changed = threading.Condition()
        self._orders: deque[_Order] = deque()
        #: what the thread is at
        self._begun: list[_Order] = []
        #: what is still to be told
        self._done: list[_Order] = []
        self._closing = False
        self._thread: threading.Thread | None = None
        #: readable when something is done
        self.wake_fd, self._told_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._told_fd, False)

    def keep(self, deed: Deed) -> None:
        """Have an actor written down; `take` says when it is."""
        # Packed here: what it is made of belongs to the core, which goes on.
        order = _Order(deed.id, encode(deed))
        why = self._start()
        with self._changed:
            if why:
                order.why = why
                self._done.append(order)
            else:
                self._orders.append(order)
                self._changed.notify_all()
        if why:
            self._wake()

    def withdraw(self, ids: Sequence[bytes]) -> tuple[list[bytes], str]:
        """Actors have ended: of what was to be written of them nothing is said any more.

        What the thread is at is waited for, so that who hears of the end finds no such actor in the
        next life; only where the disk takes too long, the thread removes the file later.

        Returns:
            Those of whom something may be written, which is left to the caller to remove, and
            what went wrong.
        """
        gone = frozenset(ids)
        with self._changed:
            never_begun = {one.id for one in self._orders if _writes(one, gone)}
            self._orders = deque(one for one in self._orders if not _writes(one, gone))
            self._changed.wait_for(lambda: not self._writing(gone), WITHDRAW_S)
            writing = self._writing(gone)
            late = {one.id for one in writing}
            for one in (*writing, *self._done):
                one.is_wanted = one.is_wanted and not _writes(one, gone)
            self._orders.extendleft(_Order(id_, None) for id_ in ids if id_ in late)
        written = [id_ for id_ in ids if id_ not in never_begun and id_ not in late]
        if not late:
            return written, ""
        return written, (
            f"the disk has taken more than {WITHDRAW_S:g} s; {len(late)} that have ended meanwhile "
            "are removed when it is done, and would be created anew if this scheduler died before"
        )

    def take(self) -> tuple[list[tuple[bytes, str]], list[str]]:
        """Return what was kept, each with why it could not be or "", and what else went wrong."""
        try:
            os.read(self.wake_fd, 4096)
        except BlockingIOError:
            return [], []
        with self._changed:
            done, self._done = self._done, []
        kept = [(one.id, one.why) for one in done if one.data is not None and one.is_wanted]
        return kept, [one.why for one in done if one.data is None and one.why]

    def close(self, timeout_s: float) -> str:
        """Carry out what there is, for so long; return what was not done then, or ""."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._changed:
            left = [*self._begun, *self._orders]
        removals = sum(one.data is None for one in left)
        if not left:
            return ""
        return (
            f"the disk has taken more than {timeout_s:g} s, and the scheduler ends all the same: "
            f"{len(left) - removals} may not be written down, of which nobody was told that they "
            f"are, and {removals} that have ended may be created anew"
        )

    def _start(self) -> str:
        """Have the thread run; return why it cannot."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="deeds", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # of threads there may be no more either
                return str(error)
            self._thread = thread
        return ""

    def _wake(self) -> None:
        try:
            os.write(self._told_fd, b"!")
        except BlockingIOError:
            return  # it is full of the same

    def _writing(self, ids: frozenset[bytes]) -> list[_Order]:
        return [one for one in self._begun if _writes(one, ids)]

    # ------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while orders := self._next():
            try:
                self._carry_out(orders)
            except Exception as error:  # noqa: BLE001  # who waits must hear of it
                for order in orders:
                    order.why = f"{type(error).__name__}: {error}"
            with self._changed:
                self._done += orders
                self._begun = []
                self._changed.notify_all()
            self._wake()

    def _next(self) -> list[_Order]:
        """Wait for something to do; return what is done together, or nothing: the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._closing)
            room = TOGETHER_BYTES
            while self._orders and room > 0 and len(self._begun) < TOGETHER_MAX:
                if self._begun and _removes(self._begun[0]) is not _removes(self._orders[0]):
                    break
                order = self._orders.popleft()
                self._begun.append(order)
                room -= len(order.data or b"")
            return list(self._begun)

    def _carry_out(self, orders: list[_Order]) -> None:
        """Carry out orders of one sort."""
        if _removes(orders[0]):
            why = self._files.drop([one.id for one in orders])
            for order in orders:
                order.why = why
            return
        whys = self._files.keep_packed([(one.id, one.data or b"") for one in orders])
        for order, why in zip(orders, whys, strict=True):
            order.why = why


def _removes(order: _Order) -> bool:
    return order.data is None


def _writes(order: _Order, ids: frozenset[bytes]) -> bool:
    return order.data is not None and order.id in ids
