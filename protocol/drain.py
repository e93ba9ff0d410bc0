"""What a node and the scheduler say to each other while a node is drained.

    node:       Draining            I start nothing any more; what has not started comes back
    scheduler:  (nothing new)       its work is placed elsewhere
    node:       Emptied             nothing runs here, nobody waits for anything of mine
    scheduler:  Farewell            no later life of mine will wait for you: go
    node:       Leave

An admin has a node drained with Drain, which the node hears as DrainNode. Nothing here may hold
behaviour.
"""

from typing import Final

from .forms import Count, Message

#: exit code of a node that was drained at the wish of the cluster, for whoever has started it with
#: a pipe to be ended by: it is not to be started again
EXIT_DRAINED: Final = 3


class Drain(Message, tag="drain"):
    """Client -> scheduler: drain these nodes. Answered by Answer once they have heard it."""

    request: int
    #: names or hexadecimal ids
    nodes: list[str]
    #: interrupt what runs there; it is tried again elsewhere, as after the loss of a node
    cancel: bool = False


class DrainNode(Message, tag="drain_node"):
    """Scheduler -> node: drain yourself. Answered by Draining."""

    cancel: bool


class Draining(Message, tag="draining"):
    """Node -> scheduler: from here on nothing starts here; with `cancel`, what runs is ended."""

    cancel: bool


class Emptied(Message, tag="emptied"):
    """Node -> scheduler: nothing is left here. Answered by Farewell once that is written down."""

    #: counts how often it said so in this link life
    number: Count


class Farewell(Message, tag="farewell"):
    """Scheduler -> node: nobody will ask for you; say Leave and end."""

    number: Count
