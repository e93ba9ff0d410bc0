"""What callers read of actors that ended: the rows and texts of calls that have no value.

Never decides that one has none, and changes nothing.
"""

from typing import Final

from ..protocol.ids import show
from ..protocol.messages import Failure, Outcome, ValueRow
from .hosts import Actor
from .tasks import Kind, TaskRecord, as_cause

_KILLED: Final = "it was killed, or whoever created it was cancelled or has left"


def died(actor: Actor, call: bytes, kind: Kind) -> ValueRow:
    """Return the outcome of a call of an actor that has ended for good."""
    over = actor.over
    assert over is not None, "an actor that is over has an outcome"
    failure = over.failure
    text = f"{kind.name} cannot run: actor {_who(actor, kind)} is dead: {why(over)}"
    row = failed_call(actor, call, kind, "ActorDied", text)
    if row.failure is not None and failure is not None:
        for known in ("incarnation", "node"):  # of its last life
            row.failure.details[known] = row.failure.details[known] or failure.details.get(known)
        if failure.error == "ActorDied":
            row.failure.cause = as_cause(failure.cause)
        elif failure.error not in ("TaskCancelled", "ObjectLost"):
            row.failure.cause = as_cause(failure)
    row.payload = over.payload
    return row


def cannot_begin(id_: bytes, kind: Kind, why_not: str) -> ValueRow:
    """Return the outcome of a creation that does not begin."""
    text = f"{kind.name} cannot be created: {why_not}"
    details: dict[str, str | int | float | bool | None] = {
        "name": kind.name, "task": show(id_), "actor": show(id_), "node": "", "incarnation": 0,
    }  # fmt: skip
    failure = Failure("ActorDied", text, details)
    return ValueRow(id=id_, outcome=Outcome.FAILURE, failure=failure)


def why(over: ValueRow) -> str:
    """Return how an actor ended, as people say it."""
    failure = over.failure
    if over.outcome == Outcome.VALUE:
        return "it has ended, as it was told to: by exit_actor(), or since nobody held a handle"
    if over.outcome == Outcome.ERROR:
        return "its constructor raised"
    if failure is None:
        return "nothing is known about why"
    if failure.error == "TaskCancelled":
        return _KILLED
    if failure.error == "ObjectLost":
        return "it has ended, or was never created: nobody here knows it"
    return failure.text


def call_lost(record: TaskRecord, actor: Actor, last: Failure) -> ValueRow:
    """Return the outcome of a call that its actor had when it ended, and that is not repeated."""
    kind = record.kind
    again = (
        f"max_task_retries={kind.options.max_retries} allows no further attempt; give the method "
        "more if it may run twice"
    )
    if _is_killed(actor):
        again = f"The actor was to end for good: {_KILLED}"
    text = (
        f"{kind.name} may have run, in part or whole: its actor {_who(actor, kind)}, incarnation "
        f"{actor.incarnation}, ended while it had the call: {_in_short(last)}. {again}"
    )
    row = failed_call(actor, record.id, kind, "ActorCallLost", text, last)
    if row.failure is not None:
        row.failure.details["maybe_executed"] = True
    return row


def unavailable(record: TaskRecord, late: ValueRow) -> ValueRow:
    """Return the outcome of a call that has waited too long, if for an actor between two lives."""
    actor = record.kind.host
    if actor is None or actor.record is None or actor.node is not None or actor.up is None:
        return late
    why_not = actor.causes[-1] if actor.causes else "its node is not heard of"
    if actor.doubted:
        why_not = f"{why_not}; that node is not heard of, and the actor may still act there"
    text = f"its actor has to be restarted first: {why_not}; call again later"
    late_text = f"{record.kind.name} did not start" if late.failure is None else late.failure.text
    text = f"{late_text}; {text}"
    row = failed_call(actor, record.id, record.kind, "ActorUnavailable", text)
    if row.failure is not None:
        row.failure.details["maybe_executed"] = record.attempt > 1
    return row


def ended_for_good(record: TaskRecord, actor: Actor, last: Failure) -> ValueRow:
    """Return the outcome of an actor that may not be restarted any more."""
    kind, before = record.kind, actor.causes[:-1]
    chain = f"; before that, {'; '.join(reversed(before))}" if before else ""
    text = (
        f"{kind.name} has ended, and max_restarts={kind.options.max_retries} allows no further "
        f"restart: {_in_short(last)}{chain}"
    )
    return failed_call(actor, record.id, kind, "ActorDied", text, _chain(actor, last))


def not_restored(record: TaskRecord, actor: Actor, last: ValueRow) -> ValueRow:
    """Return the outcome of an actor that cannot take its last checkpoint, whatever is tried."""
    failure = Failure("ActorDied", "its __restore__ raised")
    row = ended_for_good(record, actor, failure)
    if row.failure is not None:
        row.failure.cause = None  # the payload is
    row.payload, row.contained = last.payload, last.contained
    return row


def _is_killed(actor: Actor) -> bool:
    """Return whether an actor ends because somebody wants that."""
    if actor.record is not None:
        return actor.record.stopping
    failure = None if actor.over is None else actor.over.failure
    return failure is not None and failure.error == "TaskCancelled"


def _who(actor: Actor, kind: Kind) -> str:
    """Return an actor as people know it: its class, name and id."""
    creates = None if actor.record is None else actor.record.kind.creates
    class_name = kind.name.rpartition(".")[0] if actor.record is None else actor.record.kind.name
    name = repr(creates.name) if creates is not None and creates.name else ""
    return " ".join(word for word in (class_name, name, show(actor.id)) if word)


def _in_short(failure: Failure) -> str:
    """Return what happened without the last words of the process: the cause has these."""
    return failure.text.partition("\n")[0]


def _chain(actor: Actor, last: Failure) -> Failure:
    """Return what ended the last incarnation, with what ended the one before it as its cause."""
    cause: Failure | None = None
    for failure in actor.ends:
        if failure is not last:
            cause = Failure(failure.error, failure.text, failure.details, cause)
    return last if cause is None else Failure(last.error, last.text, last.details, cause)


def failed_call(
    actor: Actor, id_: bytes, kind: Kind, error: str, text: str, cause: Failure | None = None
) -> ValueRow:
    """Return the row of a call, or of a creation, that an actor is the reason for."""
    node = "" if cause is None else str(cause.details.get("node") or "")
    details: dict[str, str | int | float | None] = {
        "name": kind.name,
        "task": show(id_),
        "actor": show(actor.id),
        "node": node,
        "incarnation": actor.incarnation,
    }
    failure = Failure(error=error, text=text, details=details, cause=cause)
    return ValueRow(id=id_, outcome=Outcome.FAILURE, failure=failure)
