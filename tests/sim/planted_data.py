"""Bugs in how large payloads go past the scheduler: worlds with those show each.

Never leaves anything changed behind.
"""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.protocol.remotes import Remotes
from drumbeat.scheduler.attempts import Attempts
from drumbeat.scheduler.outbox import Outbox

from .planted import Planted

Method = Callable[..., Any]


def _does_nothing(_true: Method) -> Method:
    return lambda *_arguments, **_options: None


def _gives_up(_true: Method) -> Method:
    def relay(_remotes: Any, _remote: Any, _reader: Any, _then: Any) -> None:
        return

    return relay


def _never_with_it(true: Method) -> Method:
    def packed(outbox: Any, peer: Any, row: Any) -> Any:
        payload = row.payload
        held = getattr(payload, "is_with", None)
        made = true(outbox, peer, row)
        if held:
            payload.is_with = held
        return made

    return packed


def _counts_at_once(_true: Method) -> Method:
    return lambda _attempts, _record, _row, _arrival: False


PLANTED_DATA: Final[dict[str, Planted]] = {
    "never_tell_the_holder": Planted(
        "who has a payload is not told that nobody needs it", Remotes, "tidy", _does_nothing
    ),
    "never_relay": Planted(
        "what cannot be got elsewhere is not sent by way of the scheduler",
        Remotes, "_relay", _gives_up,
    ),
    "count_before_it_is_there": Planted(
        "a large result counts though only its node has it", Attempts, "_send_ahead",
        _counts_at_once,
    ),
    "name_twice_and_send_once": Planted(
        "what went ahead to a peer is never sent to it again", Outbox, "packed", _never_with_it
    ),
}  # fmt: skip
