"""What a running call can say of itself and ask about itself: a face of workers and inline.

Never knows how anything is done: whoever runs calls in this process says so by `set_inside`. Where
nobody does, user code runs outside of any task, and whoever asks finds None.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, final

from .errors import MessageTooLarge
from .limits import DETAILS_BYTES_MAX
from .payload import pack_value, unpack_value


@final
class CurrentCall:
    """The task, or the call of an actor, that is running: what `drumbeat.current()` returns."""

    __slots__ = ("_details", "actor_id", "attempt", "fence", "name", "node", "pid", "task_id")

    def __init__(
        self,
        name: str,
        task_id: str,
        attempt: int,
        node: str,
        pid: int,
        actor_id: str | None = None,
        fence: int = 0,
        details: bytes | None = None,
    ) -> None:
        #: of the function, or "Class.method"
        self.name = name
        #: as the command line prints it
        self.task_id = task_id
        #: 1 for the first
        self.attempt = attempt
        #: the node's name
        self.node = node
        self.pid = pid
        #: as the command line prints it; None: this is no call of an actor
        self.actor_id = actor_id
        #: rises with each life of the actor, or with each attempt of the task: a store of your own
        #: that refuses lower numbers than it has seen is safe from those given up
        self.fence = fence
        self._details = details

    @property
    def last_details(self) -> Any:
        """What an earlier attempt of this call told last by progress(details=…); None: nothing.

        Raises:
            NotPicklable: they cannot be unpickled here; says why.
        """
        return unpack_value(self._details)

    def __repr__(self) -> str:
        actor = f", actor {self.actor_id}" if self.actor_id else ""
        place = f"node {self.node}, pid {self.pid}"
        return f"CurrentCall({self.name} {self.task_id}, attempt {self.attempt}, {place}{actor})"


class Inside(Protocol):
    """What runs the calls of this process. Any thread of a call's may ask."""

    def progress(self, done: float, total: float, details: Any) -> None:
        """Note how far the call is (`total` NaN: unknown); in its main thread end it if it is to.

        Raises:
            Interrupted: it is to end, and has not been told so yet.
        """

    def call(self) -> CurrentCall | None:
        """Return what runs; None: nothing does."""

    def shield(self) -> AbstractContextManager[None]:
        """Return what holds interrupts back between its enter and its exit."""


#: read in place: `progress` is called a million times
current: Inside | None = None


def set_inside(inside: Inside | None) -> None:
    """Say who runs calls in this process."""
    global current  # noqa: PLW0603  # one a process
    current = inside


class _Here:
    """A call that runs in the process that made it: nobody looks, and nobody interrupts."""

    def __init__(self, call: CurrentCall) -> None:
        self._call = call
        #: told last, pickled
        self.details: bytes | None = None

    def progress(self, _done: float, _total: float, details: Any) -> None:
        if details is not None:
            self.details = pack_details(details)

    def call(self) -> CurrentCall:
        return self._call

    def shield(self) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def running(call: CurrentCall) -> Iterator[_Here]:
    """Make a call the one that runs here, for so long."""
    outer, here = current, _Here(call)
    set_inside(here)
    try:
        yield here
    finally:
        set_inside(outer)


def pack_details(details: Any) -> bytes:
    """Return what a call tells with progress(), pickled.

    Raises:
        ValueError: it is too large.
        TypeError: a reference lies in it.
        NotPicklable: it cannot be pickled; names the part at fault.
    """
    try:
        packed = pack_value(details, "details")
    except MessageTooLarge as error:
        raise _too_large(error.size_bytes) from None
    if packed.contained:
        raise TypeError(
            "progress: a reference lies in the details, and nothing would keep its value until "
            "the next attempt; what is to outlive this one belongs into a file or an actor"
        )
    payload = packed.payload
    assert payload is not None
    if len(payload) > DETAILS_BYTES_MAX:
        raise _too_large(len(payload))
    return payload


def _too_large(size_bytes: int) -> ValueError:
    return ValueError(
        f"progress: the details are {size_bytes:,} bytes when pickled, and at most "
        f"{DETAILS_BYTES_MAX:,} are kept; write the bulk into a file, and its name here"
    )
