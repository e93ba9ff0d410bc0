"""What detached actors are made of comes here before it is written down.

Never decides when: the core does. It waits for bytes that lie with peers, which the actor outlives.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from msgspec.structs import replace

from ..protocol.remotes import Remote
from .deeds import Deed


class _Waiting:
    """One deed, and how many payloads of it are still to come."""

    __slots__ = ("awaited", "come", "deed")

    def __init__(self, deed: Deed, awaited: int) -> None:
        self.deed = deed
        self.awaited = awaited
        self.come: dict[int, bytes] = {}


class Gathering:
    """See the module.

    Args:
        fetch: has the bytes of a payload come here, and gives them to whom it is told.
        keep: writes down a deed that is whole.
    """

    def __init__(
        self,
        fetch: Callable[[Remote, Callable[[bytes], None]], None],
        keep: Callable[[Deed], None],
    ) -> None:
        self._fetch = fetch
        self._keep = keep
        self._waiting: dict[bytes, _Waiting] = {}

    def keep(self, deed: Deed) -> None:
        """Write down a deed as soon as it is whole."""
        # To cores it is a payload as any other is, and so its type says.
        values = (value.payload for value in deed.values)
        payloads: tuple[Any, ...] = (deed.code, deed.args, *values)
        remotes = [payload for payload in payloads if isinstance(payload, Remote)]
        if not remotes:
            self._keep(deed)
            return
        self._waiting[deed.id] = waiting = _Waiting(deed, len(remotes))
        for remote in remotes:
            self._fetch(remote, partial(self._came, waiting, id(remote)))

    def withdraw(self, ids: Iterable[bytes]) -> None:
        """These actors have ended: nothing is to be written of them any more."""
        for id_ in ids:
            self._waiting.pop(id_, None)

    def _came(self, waiting: _Waiting, which: int, payload: bytes) -> None:
        waiting.come[which] = payload
        waiting.awaited -= 1
        deed = waiting.deed
        if waiting.awaited or self._waiting.get(deed.id) is not waiting:
            return
        del self._waiting[deed.id]
        come = waiting.come
        values = tuple(
            replace(value, payload=come.get(id(value.payload), value.payload))
            for value in deed.values
        )
        code = come.get(id(deed.code), deed.code)
        args = come.get(id(deed.args), deed.args)
        self._keep(replace(deed, code=code, args=args, values=values))
