"""Actors on the wire: what a creation asks for, and what nodes say of those they host.

An actor is a task that does not end: its creation is submitted, placed and tried again like any
task, its attempt's number is the actor's *incarnation*. A call is a task of a kind that names the
actor; it goes where that lives.

Nothing here may hold behaviour.
"""

from typing import Annotated

from msgspec import Meta, Struct

from .forms import SECONDS_MAX, Count, Message, TaskBytes

#: of max_pending_calls: no bound
ANY_NUMBER = -1


class ActorOptions(Struct, array_like=True, gc=False, frozen=True):
    """How an actor lives; part of the options of its creation. Hashable."""

    #: calls that run at once; 0: one at a time, or what `async def` methods allow by default
    max_concurrency: Count = 0
    #: calls of one caller that have no result yet; -1: any number
    max_pending_calls: Annotated[int, Meta(ge=-1)] = ANY_NUMBER
    #: deaths longer ago than this count no more; 0: all count
    restart_window_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 0.0
    #: "" for none
    name: str = ""
    namespace: str = ""
    #: it lives on when nobody holds a handle, and when its creator has left
    detached: bool = False
    #: it is never replaced while its node is merely not heard of
    waits_on_partition: bool = False
    #: 0: never
    checkpoint_every_calls: Count = 0
    checkpoint_interval_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 0.0


class ActorsUp(Message, tag="actors_up"):
    """Node -> scheduler: the constructors of these have returned; with each its incarnation.

    Said again in a new life of the link, of all that live there.
    """

    rows: list[tuple[TaskBytes, Count]]
