"""The thread that writes down what detached actors are made of, beside the scheduler's loop.

Never decides, and never touches the core: it is given files and says what became of each, in
order. Until it has, nobody is told that an actor is kept; so a disk that is slow holds up those who
wait for that, and nobody else.
"""

import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Final

from ..protocol.codec import encode
from .deed_files import DeedFiles
from .deeds import Deed

#: so many bytes are written before anybody hears of it
TOGETHER_BYTES: Final = 64 << 20


class DeedWriter:
    """See the module. All methods are for the loop's thread.

    Args:
        files: where to write; nobody else may write the same actors' files meanwhile.
    """

    def __init__(self, files: DeedFiles) -> None:
        self._files = files
        #: what the thread has to do; data of None: remove what was written
        self._orders: SimpleQueue[tuple[bytes, bytes | None]] = SimpleQueue()
        self._done: deque[tuple[bytes, str, bool]] = deque()
        #: how many orders there are for each actor
        self._open: dict[bytes, int] = {}
        self._thread: threading.Thread | None = None
        #: readable when something is done
        self.wake_fd, self._told_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._told_fd, False)

    def keep(self, deed: Deed) -> None:
        """Have an actor written down; `take` says when it is."""
        # Packed here: what it is made of belongs to the core, which goes on.
        self._order(deed.id, encode(deed))

    def drop(self, id_: bytes) -> bool:
        """Have an actor removed behind what is being written of it; False: nothing is."""
        if id_ not in self._open:
            return False
        self._order(id_, None)
        return True

    def _order(self, id_: bytes, data: bytes | None) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="deeds", daemon=True)
            self._thread.start()
        self._open[id_] = self._open.get(id_, 0) + 1
        self._orders.put((id_, data))

    def take(self) -> tuple[list[tuple[bytes, str]], list[str]]:
        """Return what was kept, each with why it could not be or "", and what else went wrong."""
        try:
            os.read(self.wake_fd, 4096)
        except BlockingIOError:
            return [], []
        kept: list[tuple[bytes, str]] = []
        troubles: list[str] = []
        while self._done:
            id_, why, is_kept = self._done.popleft()
            self._open[id_] -= 1
            if not self._open[id_]:
                del self._open[id_]
            if is_kept:
                kept.append((id_, why))
            elif why:
                troubles.append(why)
        return kept, troubles

    # ------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while True:
            orders = [self._orders.get()]
            room = TOGETHER_BYTES - len(orders[0][1] or b"")
            while room > 0 and not self._orders.empty():
                orders.append(self._orders.get())
                room -= len(orders[-1][1] or b"")
            self._carry_out(orders)
            try:
                os.write(self._told_fd, b"!")
            except BlockingIOError:
                continue  # it is full of the same

    def _carry_out(self, orders: list[tuple[bytes, bytes | None]]) -> None:
        """Carry out orders in their order, those of one sort together."""
        while orders:
            drops = orders[0][1] is None
            count = next(
                (at for at, (_, data) in enumerate(orders) if (data is None) is not drops),
                len(orders),
            )
            some, orders = orders[:count], orders[count:]
            if drops:
                why = self._files.drop([id_ for id_, _ in some])
                self._done.extend((id_, why, False) for id_, _ in some)
            else:
                whys = self._files.keep_packed([(id_, data or b"") for id_, data in some])
                self._done.extend(
                    (id_, why, True) for (id_, _), why in zip(some, whys, strict=True)
                )
