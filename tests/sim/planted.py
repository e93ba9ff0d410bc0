"""Bugs that a careless change could bring, one at a time: the simulator must see each.

Every one names seeds that catch it. One is enough; several outlive more changes to the cores. When
none is left, look for others: `python tests/sim/run.py --planted NAME --seeds 2000 --shrink-s 0`.

Never leaves anything changed behind: a bug is there only within its `plant()` block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from drumbeat.node.objects import Objects as NodeObjects
from drumbeat.node.slots import CPU, Slots
from drumbeat.node.state import NodeState
from drumbeat.protocol.link import Link
from drumbeat.scheduler.deliveries import Deliveries
from drumbeat.scheduler.objects import Objects
from drumbeat.scheduler.tasks import QUEUED
from drumbeat.scheduler.work import Work

#: given the true method, returns the wrong one
Wrong = Callable[[Callable[..., Any]], Callable[..., Any]]


class Planted(NamedTuple):
    """One bug: where it sits, and how the method there goes wrong."""

    about: str
    #: each of these catches it; one that no longer does is replaced when no other is left
    seeds: tuple[int, ...]
    owner: type
    method: str
    wrong: Wrong

    @contextmanager
    def plant(self) -> Iterator[None]:
        """Have the bug within the block."""
        true = getattr(self.owner, self.method)
        setattr(self.owner, self.method, self.wrong(true))
        try:
            yield
        finally:
            setattr(self.owner, self.method, true)


def _does_nothing(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_arguments, **_options: None


def _forgets_to_resend(true: Callable[..., Any]) -> Callable[..., Any]:
    def resume(link: Any, peer_received: int) -> None:
        true(link, peer_received)
        link._resend = []

    return resume


def _charges_nothing(true: Callable[..., Any]) -> Callable[..., Any]:
    def retry(work: Any, record: Any, final: Any) -> None:
        before = record.attempt
        true(work, record, final)
        if record.id in work.backing_off:
            record.attempt = before

    return retry


def _keeps_a_fifth(true: Callable[..., Any]) -> Callable[..., Any]:
    def give(slots: Any, demand: Any, gpus: Any, lent: int = 0) -> None:
        true(slots, demand, gpus, lent)
        if demand.cpus and not lent:
            slots.free[CPU] -= demand.cpus // 5

    return give


def _always_free(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _slots, _cpus: True


def _runs_the_dead_again(_true: Callable[..., Any]) -> Callable[..., Any]:
    def died(state: Any, _worker: Any, attempt: Any, _event: Any, _now_s: float) -> None:
        state.requeue(attempt)

    return died


def _leaves_the_queued(true: Callable[..., Any]) -> Callable[..., Any]:
    def cancel_one(work: Any, record: Any, force: bool) -> None:
        if record.state != QUEUED:
            true(work, record, force)

    return cancel_one


def _supplies_nobody(true: Callable[..., Any]) -> Callable[..., Any]:
    def arrived(objects: Any, row: Any) -> list[Any]:
        dependants: list[Any] = true(objects, row)
        return dependants[1:]

    return arrived


PLANTED: dict[str, Planted] = {
    "drop_an_ack": Planted(
        "acknowledgements are not honoured, so the window fills", (8, 0, 12),
        Link, "_acknowledged", _does_nothing,
    ),
    "forget_to_resend": Planted(
        "after a reconnect, what the peer has not received is not sent again", (54, 106, 39),
        Link, "resume", _forgets_to_resend,
    ),
    "forget_a_charge": Planted(
        "a lost attempt is not charged", (17, 7, 15), Work, "retry", _charges_nothing
    ),
    "forget_a_slot": Planted(
        "a part of a task's CPUs is not given back", (2, 3, 0), Slots, "give", _keeps_a_fifth
    ),
    "regain_without_room": Planted(
        "a get() that is over goes on without its CPUs", (5, 0, 7), Slots, "regain", _always_free
    ),
    "run_the_dead_again": Planted(
        "what died with its worker is taken for what had not started", (13, 7, 15),
        NodeState, "died", _runs_the_dead_again,
    ),
    "cancel_leaves_the_queued": Planted(
        "a queued task is told to be dropped and is not", (12, 7, 9),
        Work, "cancel_one", _leaves_the_queued,
    ),
    "forget_a_dependant": Planted(
        "the first task that waits for a value is not told of it", (6, 2, 3),
        Objects, "arrived", _supplies_nobody,
    ),
    "free_what_is_shared": Planted(
        "a node frees its workers' values though others hold them", (19, 9, 7),
        NodeObjects, "share", _does_nothing,
    ),
    "forget_to_hand_over": Planted(
        "nodes are not told that submitters have their results", (0, 1, 2),
        Deliveries, "reached", _does_nothing,
    ),
}  # fmt: skip
