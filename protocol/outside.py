"""The large buffers of a pickle: taken out of it, kept elsewhere, and named by a parcel.

Never pickles, and never knows where they are kept: a session's keeper does.
"""

from typing import Any

from .errors import NotInitialized
from .ids import ObjectId
from .parcels import Parcel, Part, opened, seal
from .references import orphaned, refuse_fork
from .session import Keeper, current


class Large(list[memoryview]):
    """The buffers of one pickle that are large enough to lie outside of it.

    To be passed to pickle as `buffer_callback`; see `large_for`.
    """

    __slots__ = ("keeper",)
    keeper: Keeper

    def __call__(self, buffer: Any) -> bool:
        """Take a buffer, unless it is small; return whether it stays in the pickle."""
        try:
            view: memoryview = buffer.raw()
        except BufferError:  # its bytes lie here and there
            return True
        if view.nbytes < self.keeper.bytes_min:
            return True
        self.append(view)
        return False

    def kept(self, stream: bytes, frozen: bool) -> tuple[bytes, ObjectId, Any] | None:
        """Have them kept, and the pickle's own stream with them if that is large as well.

        Returns:
            The parcel, the id of the one segment that it names, and the reference that holds this;
            None: they cannot be kept.
        """
        whole = len(stream) >= self.keeper.bytes_min
        views = [memoryview(stream), *self] if whole else self
        kept = self.keeper(views)
        if kept is None:
            return None
        parts = [
            Part(kept.id, offset, size, view.readonly)
            for view, (offset, size) in zip(views, kept.spans, strict=True)
        ]
        parcel = Parcel(None if whole else stream, tuple(parts), {kept.id: kept.hint}, frozen)
        return seal(parcel), ObjectId(kept.id), kept.ref


def large_for(keeper: Keeper) -> Large:
    """Return one without buffers yet. Quicker than a constructor: many a call needs one."""
    large = Large()
    large.keeper = keeper
    return large


def bytes_of(payload: bytes) -> tuple[bytes | memoryview, list[memoryview]]:
    """Return the pickle stream of a parcel, and its buffers in their order.

    Raises:
        NotInitialized: this process has no cluster to have them from.
        DrumbeatError: see Session.buffers.
    """
    session = current()
    if session is None or not session.alive:
        if orphaned():
            raise refuse_fork()
        raise NotInitialized(
            "the bytes of a large value lie in the memory of a cluster, and this process has none; "
            "call drumbeat.init() first"
        )
    return session.buffers(opened(payload))
