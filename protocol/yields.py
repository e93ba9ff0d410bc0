"""What nodes, scheduler and submitters say of tasks that yield their values one by one.

Nobody on the way keeps count. The submitter knows what it has received and what was read of that;
it tells so as it changes, and whenever it is asked. A node keeps an item until it was received, and
says it again when the scheduler asks for that.

Nothing here may hold behaviour.
"""

from typing import Final

from .forms import Count, Message, ObjectBytes, Row, TaskBytes

#: so many a task may yield: an item's index is two bytes, and one more is where its end stands
ITEMS_MAX: Final = 65_535


class YieldRow(Row):
    """One item: see ValueRow. Blob key: id."""

    #: the task's, and the index of the item
    id: ObjectBytes
    attempt: Count
    payload: bytes | None = None
    size: Count = 0
    contained: tuple[ObjectBytes, ...] = ()


class Yielded(Message, tag="yielded"):
    """Node -> scheduler: attempts have yielded these; on to the submitter they go as Results."""

    rows: list[YieldRow]


class ItemsTaken(Message, tag="items_taken"):
    """Submitter -> scheduler -> node: with each task, how many items it has received and read."""

    rows: list[tuple[TaskBytes, Count, Count]]


class HowFar(Message, tag="how_far"):
    """Node -> scheduler -> submitter: say ItemsTaken. Scheduler -> node: say Yielded anew."""

    ids: list[TaskBytes]
