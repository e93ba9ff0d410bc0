"""What nodes, clients and a scheduler in its next life say to find each other's work again.

A scheduler keeps nothing over its end but its epoch and who was there. Nodes keep what they run
and what ended until its submitter has it; submitters keep what they submitted. So whoever meets a
scheduler of a later epoch says anew who it is, what it has, what it holds, and then `Registered`.

Nothing here may hold behaviour.
"""

from enum import IntEnum
from typing import Annotated

from msgspec import Meta

from .forms import Count, Message, ObjectBytes, PeerBytes, Row, TaskBytes


class Phase(IntEnum):
    """How far an attempt is that a node has over from an earlier life of the scheduler."""

    QUEUED = 0
    RUNNING = 1
    #: it waits in get() and lends its CPUs
    BLOCKED = 2
    #: its Done row is kept at the node until `HandedOver`; `Report` asks for it
    ENDED = 3


class InventoryRow(Row):
    """One attempt that a node has over from an earlier life of the scheduler."""

    id: TaskBytes
    attempt: Count
    phase: Annotated[int, Meta(ge=0, le=3)]


class Inventory(Message, tag="inventory"):
    """Node -> scheduler, after Join in the scheduler's new life: what it has. Comes in pieces."""

    #: whose workers or tasks it has
    clients: list[PeerBytes]
    rows: list[InventoryRow]
    #: whether this is the last piece
    last: bool


class Report(Message, tag="report"):
    """Scheduler -> node: say Done again for these attempts, which ended in an earlier life."""

    rows: list[tuple[TaskBytes, Count]]


class HandedOver(Message, tag="handed_over"):
    """Scheduler -> node: the submitters have what these Done messages told. Forget it."""

    numbers: list[Count]


class Holding(Message, tag="holding"):
    """Client or node -> scheduler, in its new life: refs held, each with the deliveries it had."""

    rows: list[tuple[ObjectBytes, Count]]


class Registered(Message, tag="registered"):
    """Client or node -> scheduler: all of the life before has been told again."""


class Recovered(Message, tag="recovered"):
    """Scheduler -> all: whoever was to come back has; what was not `Shared` again is not shared."""
