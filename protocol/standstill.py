"""What scheduler and nodes say to each other when nothing goes on any more.

A node knows whether anything moves on it; only the scheduler knows whether anything moves at all.
So beats hint at it, the scheduler looks at all nodes at once, and what it then finds is true: links
keep the order of what is said on them, so nothing that could move a node was under way.

Nothing here may hold behaviour.
"""

from .forms import Count, Message, Row, TaskBytes


class Look(Message, tag="look"):
    """Scheduler -> node: does anything move? Answered by Looked with the same number."""

    number: Count


class WaitRow(Row):
    """An attempt whose main thread waits in get() or wait(), without a timeout."""

    id: TaskBytes
    attempt: Count
    #: whether it lends its CPUs meanwhile
    lends: bool


class Looked(Message, tag="looked"):
    """Node -> scheduler: whether everything stands still here, after all that it has been told.

    It does when nothing runs, starts, arrives or ends, and nothing that is queued can start.
    """

    number: Count
    still: bool
    #: if it does: all attempts that have started here; whatever else is assigned is queued
    waits: list[WaitRow]


class Deadlock(Message, tag="deadlock"):
    """Scheduler -> node: have the get() or wait() of these raise ResourceDeadlock, with the text.

    One that does not wait any more goes on as if nothing had been said.
    """

    rows: list[tuple[TaskBytes, Count, str]]
