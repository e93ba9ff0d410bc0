"""What workers write to stdout and stderr, and when it is read.

Never decides who is told of it.
"""

from typing import Final

from .events import Event, Spoke
from .page import IDLE, PulsePage
from .process import Process

#: So often the output of busy workers is read though they say nothing.
EACH_S: Final = 0.25


class Writings:
    """The output of all workers of a pool.

    Args:
        page: says who is busy.
        workers: by number.
    """

    __slots__ = ("_page", "_workers", "busy", "due_s")

    def __init__(self, page: PulsePage, workers: dict[int, Process]) -> None:
        self._page = page
        self._workers = workers
        #: some worker may have something to say
        self.busy = False
        #: when to look; None: not yet known
        self.due_s: float | None = None

    def deadline_s(self, now_s: float) -> float | None:
        """Return when `look` is due; None: when somebody is busy."""
        return now_s + EACH_S if self.due_s is None and self.busy else self.due_s

    def look(self, at_s: float, events: list[Event]) -> None:
        """Four times a second read what busy workers have printed; idle ones cost nothing."""
        if self.due_s is None:
            if self.busy:
                self.due_s = at_s + EACH_S
        elif at_s >= self.due_s:
            self.busy = False
            for worker in self._workers.values():
                if worker.busy:
                    read_output(worker, events, whole=False)
                worker.busy = self._page.sample(worker.command.page_slot).phase != IDLE
                self.busy = self.busy or worker.busy
            self.due_s = at_s + EACH_S if self.busy else None


def read_output(worker: Process, events: list[Event], *, whole: bool) -> None:
    """Take in what a worker has written; also an unfinished line, if it is to be `whole`."""
    number = worker.command.worker
    pieces = worker.output.read(whole=whole)
    if pieces:
        events.append(Spoke([(number, text, dropped) for text, dropped in pieces]))
    pieces = worker.errors.read(whole=whole)
    if pieces:
        events.append(Spoke([(number, text, dropped) for text, dropped in pieces], 2))
