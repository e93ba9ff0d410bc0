"""What workers write to stdout and stderr, and when it is read.

Never decides who is told of it.
"""

from typing import Final

from .events import Event, Spoke
from .page import IDLE, PulsePage
from .process import Process

#: So often the output of busy workers is read though they say nothing.
EACH_S: Final = 0.25
NEVER_S: Final = float("inf")


class Writings:
    """The output of all workers of a pool.

    Args:
        page: says who is busy.
        workers: by number.
    """

    __slots__ = ("_page", "_workers", "due_s", "expects")

    def __init__(self, page: PulsePage, workers: dict[int, Process]) -> None:
        self._page = page
        self._workers = workers
        #: somebody was given work since the last look
        self.expects = False
        #: when to look; NEVER_S: nobody is busy
        self.due_s = NEVER_S

    def expect(self, at_s: float) -> None:
        """Somebody is given work, and may have something to say."""
        self.expects = True
        self.due_s = min(self.due_s, at_s + EACH_S)

    def look(self, at_s: float, events: list[Event]) -> None:
        """When due, read what busy workers have printed; idle ones cost nothing."""
        # Who was given work a moment ago may not have begun: looked at once more.
        goes_on, self.expects = self.expects, False
        for worker in self._workers.values():
            if worker.busy:
                read_output(worker, events, whole=False)
            worker.busy = self._page.sample(worker.command.page_slot).phase != IDLE
            goes_on = goes_on or worker.busy
        self.due_s = at_s + EACH_S if goes_on else NEVER_S


def read_output(worker: Process, events: list[Event], *, whole: bool) -> None:
    """Take in what a worker has written; also an unfinished line, if it is to be `whole`."""
    number = worker.command.worker
    pieces = worker.output.read(whole=whole)
    if pieces:
        events.append(Spoke([(number, text, dropped) for text, dropped in pieces]))
    pieces = worker.errors.read(whole=whole)
    if pieces:
        events.append(Spoke([(number, text, dropped) for text, dropped in pieces], 2))
