"""The large buffers of a pickle: taken out of it, kept elsewhere, and named by a parcel.

Never pickles, and never knows where they are kept: a session's keeper does.
"""

from typing import Any

from .absent import reason_of
from .errors import NotInitialized, ObjectLost
from .ids import ObjectId
from .parcels import Parcel, Part, opened, seal
from .payload_files import Filing, is_filed, parts_of
from .references import orphaned, refuse_fork
from .session import Keeping, current


class Large(list[memoryview]):
    """The buffers of one pickle that are large enough to lie outside of it.

    To be passed to pickle as `buffer_callback`; see `large_for`.
    """

    __slots__ = ("keeper",)
    keeper: Keeping

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

    def kept(
        self, stream: bytes, frozen: bool
    ) -> tuple[bytes, tuple[ObjectId, ...], tuple[Any, ...]] | None:
        """Have them kept, and the pickle's own stream with them if that is large as well.

        Returns:
            The payload, the ids of segments that it names, and the references that hold these;
            None: they cannot be kept.
        """
        if isinstance(self.keeper, Filing):
            payload = self.keeper(stream, self, frozen=frozen)
            return None if payload is None else (payload, (), ())
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
        return seal(parcel), (ObjectId(kept.id),), (kept.ref,)


def large_for(keeper: Keeping) -> Large:
    """Return one without buffers yet. Quicker than a constructor: many a call needs one."""
    large = Large()
    large.keeper = keeper
    return large


def bytes_of(
    payload: bytes, until_s: float | None = None
) -> tuple[bytes | memoryview, list[memoryview]]:
    """Return the pickle stream of a parcel or of a file, and its buffers; see Session.buffers.

    Raises:
        NotInitialized: this process has no cluster to have them from.
        ObjectLost: they are not to be had from anybody any more.
        DrumbeatError: see Session.buffers.
        ValueError, OSError: see payload_files.parts_of.
    """
    if is_filed(payload):
        return parts_of(payload)
    if reason := reason_of(payload):
        raise ObjectLost(f"the bytes of a large value are lost: {reason}")
    session = current()
    if session is None or not session.alive:
        if orphaned():
            raise refuse_fork()
        raise NotInitialized(
            "the bytes of a large value lie in the memory of a cluster, and this process has none; "
            "call drumbeat.init() first"
        )
    return session.buffers(opened(payload), until_s)
