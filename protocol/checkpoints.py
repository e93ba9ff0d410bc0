"""Checkpoints of actors on the wire: the last state of each, for its next incarnation.

The state is a pickle that a worker has made and that only a worker opens. Of each actor there is
one checkpoint, the newest: that with the highest (incarnation, number).

Nothing here may hold behaviour.
"""

from msgspec import field

from .forms import Count, Message, Row, TaskBytes

#: a large state follows on the bulk link under the id of the actor's creation and this
CHECKPOINT = b"c"


class CheckpointRow(Row):
    """What one actor was when it told so. Blob key: id + b"c"."""

    #: of its creation
    id: TaskBytes
    incarnation: Count
    #: counts those of one incarnation, from 1; 0: that from which this incarnation was made
    number: Count
    #: the pickled state; None: it follows
    payload: bytes | None = None
    size: Count = 0


class Checkpoint(Message, tag="checkpoint"):
    """Node -> scheduler: before what those actors said after that. Again to each new scheduler."""

    rows: list[CheckpointRow]


class CheckpointsKept(Message, tag="checkpoints_kept"):
    """Scheduler -> node: these it has; with each its incarnation and number.

    Of a large one also where it was refused, after CheckpointsGone: the next may follow.
    """

    rows: list[tuple[TaskBytes, Count, Count]]


class CheckpointsGone(Message, tag="checkpoints_gone"):
    """Scheduler -> node: forget those of these actors, up to this incarnation.

    Of `refused` exactly those: incarnation and number. They had no room; the one before is kept,
    by the node too.
    """

    rows: list[tuple[TaskBytes, Count]]
    refused: list[tuple[TaskBytes, Count, Count]] = field(default_factory=list)
