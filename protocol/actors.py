"""Actors on the wire: what a creation asks for, and what nodes say of those they host.

An actor is a task that does not end: its creation is submitted, placed and tried again like any
task, its attempt's number is the actor's *incarnation*. A call is a task of a kind that names the
actor; it goes where that lives.

Nothing here may hold behaviour.
"""

from typing import Annotated

from msgspec import Meta, Struct

from .forms import SECONDS_MAX, Count, Message, ParentBytes, Row, TaskBytes

#: of max_pending_calls: no bound
ANY_NUMBER = -1
#: so many calls of one actor may run at once
CONCURRENCY_MAX = 10_000
#: what handles know of a class
TOLD_BYTES_MAX = 256 << 10
NAME_CHARACTERS_MAX = 255
#: begins the namespace of a program that names none: nobody else's is the same
ANONYMOUS = "~"
Name = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]


class ActorOptions(Struct, array_like=True, gc=False, frozen=True):
    """How an actor lives; part of the options of its creation. Hashable."""

    #: calls that run at once; 0: one at a time, or what `async def` methods allow by default
    max_concurrency: Annotated[int, Meta(ge=0, le=CONCURRENCY_MAX)] = 0
    #: calls of one caller that have no result yet; -1: any number
    max_pending_calls: Annotated[int, Meta(ge=-1)] = ANY_NUMBER
    #: deaths longer ago than this count no more; 0: all count
    restart_window_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 0.0
    #: "" for none
    name: Name = ""
    namespace: Name = ""
    #: it lives on when nobody holds a handle, and when its creator has left
    detached: bool = False
    #: it is never replaced while its node is merely not heard of
    waits_on_partition: bool = False
    #: 0: never
    checkpoint_every_calls: Count = 0
    checkpoint_interval_s: Annotated[float, Meta(ge=0, le=SECONDS_MAX)] = 0.0
    #: of one with a name: what handles know of its class, pickled, for those who ask by that name
    told: Annotated[bytes, Meta(max_length=TOLD_BYTES_MAX)] = b""
    #: its __health__ is asked for so often between calls; 0: never, -1: as the settings say
    health_check_interval_s: Annotated[float, Meta(ge=-1, le=SECONDS_MAX)] = -1.0


class ActorName(Row):
    """A name of an actor, in a Query for it."""

    name: Name
    namespace: Name = ""
    #: take the name for this creation, which is about to be submitted; empty: only ask
    id: ParentBytes = b""
    told: Annotated[bytes, Meta(max_length=TOLD_BYTES_MAX)] = b""
    #: that creation comes to nothing: let its name go
    frees: bool = False

    def freed(self) -> "ActorName":
        """Return what lets this name go."""
        return ActorName(self.name, self.namespace, self.id, frees=True)


class ActorsUp(Message, tag="actors_up"):
    """Node -> scheduler: the constructors of these have returned; with each its incarnation.

    Said again in a new life of the link, of all that live there.
    """

    rows: list[tuple[TaskBytes, Count]]


class ActorsGone(Message, tag="actors_gone"):
    """Node -> scheduler: all workers have ended that it had before this life of the link.

    Said by a node that was given up and is back: it has killed them, and now they are dead. Said to
    a scheduler that was restarted: but for those of whom its inventory tells.
    """
