"""The limits that a user sets on a call: how long it may take, and how much memory.

    timeout            one attempt, from its start to its end              the node watches it
    queue_timeout      from the submission until it starts                 the scheduler
    total_timeout      from the submission to the outcome, all attempts    the scheduler
    heartbeat_timeout  between two calls of progress()                     the node
    memory_max         of its worker's process                             the node

Nothing here may hold behaviour beyond the arithmetic of defaults.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from .forms import SECONDS_MAX, Count

#: 0: no such limit
Limit = Annotated[float, Meta(ge=0, le=SECONDS_MAX)]

# reasons of a Stop
CANCELLED: Final = "cancelled"
TIMED_OUT: Final = "timed_out"
Reason = Annotated[str, Meta(max_length=32)]

#: `details` of progress(), pickled
DETAILS_BYTES_MAX: Final = 4 << 10
Details = Annotated[bytes, Meta(max_length=DETAILS_BYTES_MAX)]


class Limits(Struct, array_like=True, gc=False, frozen=True):
    """What a call may take; 0: any amount. Hashable."""

    timeout_s: Limit = 0.0
    queue_timeout_s: Limit = 0.0
    total_timeout_s: Limit = 0.0
    heartbeat_timeout_s: Limit = 0.0
    memory_max_bytes: Count = 0


NO_LIMITS: Final = Limits()
