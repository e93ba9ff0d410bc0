"""Bugs in what makes actors, one at a time: worlds with actors in them must show each.

Never leaves anything changed behind.
"""

from collections.abc import Callable
from typing import Any, Final

from drumbeat.client import lives
from drumbeat.node.actors import Actors as NodeActors
from drumbeat.node.lease import Lease
from drumbeat.scheduler.actors import Actors
from drumbeat.scheduler.lines import Lines
from drumbeat.scheduler.presence import Presence
from drumbeat.scheduler.work import Work

from .planted import Planted

Method = Callable[..., Any]


def _does_nothing(_true: Method) -> Method:
    return lambda *_arguments, **_options: None


def _goes_to_the_end(_true: Method) -> Method:
    def put_back(lines: Any, record: Any) -> None:
        lines.push(record)

    return put_back


def _always_goes_on(true: Method) -> Method:
    def goes_on(actors: Any, record: Any, final: Any) -> Any:
        return record.kind.host is not None or true(actors, record, final)

    return goes_on


def _is_never_charged(_true: Method) -> Method:
    return lambda *_: True


def _puts_nothing_back(true: Method) -> Method:
    def come_back(work: Any, record: Any, step: int) -> None:
        if record.kind.host is None:
            true(work, record, step)

    return come_back


def _counts_from_the_answer(true: Method) -> Method:
    def confirmed(lease: Any, sent_s: float) -> Any:
        return true(lease, sent_s + 0.5 * lease._lasts_s)

    return confirmed


def _is_at_once(_true: Method) -> Method:
    return lambda *_: 0.0


def _says_no(_true: Method) -> Method:
    return lambda *_: False


PLANTED_ACTORS: Final[dict[str, Planted]] = {
    "overtake": Planted(
        "a call that came back goes behind others", Lines, "put_back", _goes_to_the_end
    ),
    "leave_the_queued": Planted(
        "calls of a dead actor are not ended", Actors, "_over", _does_nothing
    ),
    "repeat_what_may_not_be": Planted(
        "a call that died is run again", Actors, "goes_on", _always_goes_on
    ),
    "restart_for_ever": Planted(
        "an actor is restarted more often than it may be", Actors, "allows", _is_never_charged
    ),
    "never_let_go": Planted(
        "an actor that nobody holds does not end", Actors, "_exit", _does_nothing
    ),
    "forget_who_lives": Planted(
        "a node does not tell the scheduler's next life what lives there",
        NodeActors,
        "tell_again",
        _does_nothing,
    ),
    "lose_what_came_back": Planted(
        "a call that a node gives back is forgotten", Work, "come_back", _puts_nothing_back
    ),
    "lease_for_longer": Planted(
        "a node counts its lease from later than it was heard",
        Lease,
        "confirmed",
        _counts_from_the_answer,
    ),
    "replace_at_once": Planted(
        "actors of a lost node begin elsewhere at once", Presence, "_acts_until_s", _is_at_once
    ),
    "create_anew_what_may_live": Planted(
        "a client that was given up creates its actors anew", lives, "_is_own_actor", _says_no
    ),
}
