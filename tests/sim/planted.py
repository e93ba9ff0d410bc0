"""Bugs that a careless change could bring, one at a time: the simulator must see each.

Those that worlds of tasks show; see `plants.py` for all of them.

Never leaves anything changed behind: a bug is there only within its `plant()` block.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from drumbeat.client.budget import Budget
from drumbeat.client.credits import Credits
from drumbeat.node.beats import Beats
from drumbeat.node.core import NodeCore
from drumbeat.node.dispatch import Dispatch
from drumbeat.node.drain import Drain
from drumbeat.node.ended import Ended
from drumbeat.node.events import Finish
from drumbeat.node.objects import Objects as NodeObjects
from drumbeat.node.slots import CPU, Slots
from drumbeat.node.state import NodeState
from drumbeat.protocol.drain import Farewell
from drumbeat.protocol.frames import Batch
from drumbeat.protocol.link import Link
from drumbeat.scheduler import pauses
from drumbeat.scheduler.attempts import Attempts
from drumbeat.scheduler.deliveries import Deliveries
from drumbeat.scheduler.matching import Matching
from drumbeat.scheduler.objects import Objects
from drumbeat.scheduler.outbox import Outbox
from drumbeat.scheduler.presence import Presence
from drumbeat.scheduler.recovery import Recovery
from drumbeat.scheduler.roster import Roster
from drumbeat.scheduler.standstill import Standstill
from drumbeat.scheduler.submissions import Submissions
from drumbeat.scheduler.tasks import QUEUED, RETURN, move
from drumbeat.scheduler.work import Work

#: what hardly any seed draws is seen by the story of the bug that it once was
TOLD_BY: Final = {
    "count_before_it_is_there": "a_node_dies_while_a_submitter_gets_its_large_result",
    "give_up_at_a_second_hello": "a_client_whose_welcome_is_cut_while_its_tasks_run",
    "part_before_it_is_written": "a_drained_node_that_leaves_just_before_the_scheduler_dies",
    "forget_who_was_given_up": "calls_of_a_node_that_was_given_up_before_the_restart",
    "take_what_is_kept_for_told": "calls_that_are_kept_for_a_client_of_a_node_that_was_given_up",
}

#: given the true method, returns the wrong one
Wrong = Callable[[Callable[..., Any]], Callable[..., Any]]


class Planted(NamedTuple):
    """One bug: where it sits, and how the method there goes wrong."""

    about: str
    owner: Any
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


def _told_when_it_says_so(true: Callable[..., Any]) -> Callable[..., Any]:
    def registered(recovery: Any, peer: Any, message: Any) -> None:
        recovery._roster.told(peer.id)
        true(recovery, peer, message)

    return registered


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


def _says_nothing(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_arguments, **_options: []


def _says_yes(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_arguments, **_options: True


def _says_no(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_arguments, **_options: False


def _asks_for_nothing(_true: Callable[..., Any]) -> Callable[..., Any]:
    def ask(link: Any, now_s: float) -> Any:
        link.ask_due_s = now_s + 1.0
        return link.acknowledge()

    return ask


def _takes_it_twice(true: Callable[..., Any]) -> Callable[..., Any]:
    def received(link: Any, frame: Any, now_s: float, size_bytes: int = 0) -> Any:
        if type(frame) is Batch and frame.seq <= link.received_seq:
            return frame.messages
        return true(link, frame, now_s, size_bytes)

    return received


def _takes_it_too_early(true: Callable[..., Any]) -> Callable[..., Any]:
    def received(link: Any, frame: Any, now_s: float, size_bytes: int = 0) -> Any:
        if type(frame) is Batch and frame.seq > link.received_seq:
            link.received_seq = frame.seq - 1
        return true(link, frame, now_s, size_bytes)

    return received


def _takes_without_asking(true: Callable[..., Any]) -> Callable[..., Any]:
    def ask_back(attempts: Any, node: Any) -> None:
        true(attempts, node)
        if node.taking_back:
            record = next(reversed(node.assigned.values()))
            node.release(record)
            move(record, RETURN)
            attempts._work.queue.push(record)

    return ask_back


def _retries_at_once(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *_arguments: 0.0


def _strikes_out_early(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda roster, entry, *, missing=False: roster._struck(entry, missing)


def _waits_for_nobody(true: Callable[..., Any]) -> Callable[..., Any]:
    def turn(recovery: Any) -> None:
        recovery._state.recovering = False
        true(recovery)

    return turn


def _beats_without_connection(true: Callable[..., Any]) -> Callable[..., Any]:
    def deadline_s(core: Any) -> float:
        due_s, beat_s = true(core), core._beats.due_s
        return beat_s if due_s is None else min(due_s, beat_s)

    return deadline_s


def _starts_from_nothing(_true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda ended: ended.clear()


def _forgets_who_shares(true: Callable[..., Any]) -> Callable[..., Any]:
    def restarted(objects: Any) -> None:
        true(objects)
        for entry in objects.entries.values():
            entry.was_shared = False

    return restarted


def _never_pays_back(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda credits_, rows, out, _finished_bytes: true(credits_, rows, out, 0)


def _gives_up_who_comes_again(true: Callable[..., Any]) -> Callable[..., Any]:
    def joined(presence: Any, event: Any) -> None:
        known = presence._state.peers.get(event.peer)
        if known is not None:
            presence.forget(known, "is given up")
        true(presence, event)

    return joined


def _takes_what_was_started(true: Callable[..., Any]) -> Callable[..., Any]:
    return lambda dispatch, worker, started, now_s: true(dispatch, worker, started - 1, now_s)


def _ends_when_nothing_runs(_true: Callable[..., Any]) -> Callable[..., Any]:
    def look(drain: Any, _has_met: bool) -> None:
        if not drain._state.attempts:
            drain._state.commands.append(Finish())

    return look


def _parts_before_it_is_written(_true: Callable[..., Any]) -> Callable[..., Any]:
    def depart(roster: Any, peer: Any, number: int) -> None:
        roster._state.out.letter(peer, Farewell(number))

    return depart


PLANTED: dict[str, Planted] = {
    "work_while_drained": Planted(
        "a node that is drained keeps what has not started", Drain, "_give_back", _does_nothing
    ),
    "leave_before_handed_over": Planted(
        "a node that is drained leaves as soon as nothing runs on it",
        Drain, "look", _ends_when_nothing_runs,
    ),
    "part_before_it_is_written": Planted(
        "a node that is drained leaves while a next life of the scheduler would wait for it",
        Roster, "depart", _parts_before_it_is_written,
    ),
    "drop_an_ack": Planted(
        "acknowledgements are not honoured, so the window fills",
        Link, "_acknowledged", _does_nothing,
    ),
    "forget_a_charge": Planted(
        "a lost attempt is not charged", Work, "retry", _charges_nothing
    ),
    "forget_a_slot": Planted(
        "a part of a task's CPUs is not given back", Slots, "give", _keeps_a_fifth
    ),
    "regain_without_room": Planted(
        "a get() that is over goes on without its CPUs", Slots, "regain", _always_free
    ),
    "run_the_dead_again": Planted(
        "what died with its worker is taken for what had not started",
        NodeState, "died", _runs_the_dead_again,
    ),
    "cancel_leaves_the_queued": Planted(
        "a queued task is told to be dropped and is not",
        Work, "cancel_one", _leaves_the_queued,
    ),
    "forget_a_dependant": Planted(
        "the first task that waits for a value is not told of it",
        Objects, "arrived", _supplies_nobody,
    ),
    "free_what_is_shared": Planted(
        "a node frees its workers' values though others hold them",
        NodeObjects, "share", _does_nothing,
    ),
    "forget_to_hand_over": Planted(
        "nodes are not told that submitters have their results",
        Deliveries, "reached", _does_nothing,
    ),
    "never_sleep": Planted(
        "a node whose connection is gone does not sleep: its beat is due",
        NodeCore, "deadline_s", _beats_without_connection,
    ),
    "forget_who_was_given_up": Planted(
        "the scheduler's next life does not know who was given up in the one before",
        Roster, "lost", _does_nothing,
    ),
    "take_what_is_kept_for_told": Planted(
        "who was given up counts as well again while its calls wait for their client",
        Recovery, "registered", _told_when_it_says_so,
    ),
    "forget_to_send_again": Planted(
        "who misses a batch does not get it", Link, "_peer_misses", _does_nothing
    ),
    "forget_to_ask": Planted(
        "nobody notices that the last batch was lost",
        Link, "_ask", _asks_for_nothing,
    ),
    "take_it_twice": Planted(
        "a batch that comes twice is taken in twice",
        Link, "received", _takes_it_twice,
    ),
    "take_it_too_early": Planted(
        "a batch that has overtaken another is taken in",
        Link, "received", _takes_it_too_early,
    ),
    "hand_over_too_early": Planted(
        "nodes forget results that submitters do not have yet",
        Outbox, "told", _says_nothing,
    ),
    "keep_a_retry_secret": Planted(
        "a submitter is not told that an attempt was charged",
        Outbox, "retry", _does_nothing,
    ),
    "forget_what_was_told": Planted(
        "a client forgets how many attempts there were",
        Budget, "told", _does_nothing,
    ),
    "keep_a_dropped_blob": Planted(
        "the large arguments of a task that is refused are not dropped with it",
        Submissions, "drop_args", _does_nothing,
    ),
    "go_on_when_given_up": Planted(
        "a node that was given up goes on with what it has",
        NodeCore, "_drop_everything", _does_nothing,
    ),
    "never_pay_credit_back": Planted(
        "what has ended still counts against a client's credit",
        Credits, "take", _never_pays_back,
    ),
    "take_back_without_asking": Planted(
        "a task is placed again before its node has given it back",
        Attempts, "_ask_back", _takes_without_asking,
    ),
    "ignore_the_page": Planted(
        "what a worker has just started is taken for unstarted",
        Dispatch, "page_read", _takes_what_was_started,
    ),
    "retry_at_once": Planted(
        "a retry does not wait", pauses, "backoff_s", _retries_at_once
    ),
    "forget_who_holds": Planted(
        "nobody counts the refs inside what is sent",
        Outbox, "contain", _does_nothing,
    ),
    "match_no_claim": Planted(
        "the scheduler's next life runs again what runs already",
        Matching, "met", _says_no,
    ),
    "wait_for_nobody": Planted(
        "the scheduler's next life places tasks before its nodes are back",
        Recovery, "turn", _waits_for_nobody,
    ),
    "write_nothing_down": Planted(
        "the scheduler's next life knows of no nodes",
        Roster, "commands", _says_nothing,
    ),
    "strike_out_too_early": Planted(
        "a lost node is struck out before its submitters know",
        Roster, "_strike", _strikes_out_early,
    ),
    "ask_for_no_report": Planted(
        "what ended in the scheduler's absence is not asked for",
        Outbox, "report", _does_nothing,
    ),
    "forget_what_ended": Planted(
        "a node keeps nothing of what ended for the scheduler's next life",
        Ended, "restarted", _starts_from_nothing,
    ),
    "free_before_recovered": Planted(
        "a node takes what nobody has shared again yet for unshared",
        NodeObjects, "restarted", _forgets_who_shares,
    ),
    "overlook_a_deadlock": Planted(
        "nobody is told of a deadlock", Standstill, "beat", _does_nothing
    ),
    "give_up_at_a_second_hello": Planted(
        "who never heard the Welcome to its Hello and says Hello again is given up",
        Presence, "joined", _gives_up_who_comes_again,
    ),
    "rest_while_it_runs": Planted(
        "a node that works says that nothing moves there",
        Beats, "is_still", _says_yes,
    ),
}  # fmt: skip
