"""What the rooms of the node core share: the records, the outboxes, and how an attempt ends.

Never decides when an attempt ends; only how that is written down and told.
"""

from collections import deque
from typing import Any

from msgspec.structs import replace

from ..protocol.ahead import ahead_key
from ..protocol.forms import Message
from ..protocol.ids import show
from ..protocol.messages import DoneRow, Failure, Fetch, Outcome, ValueRow, Values
from ..protocol.settings import Settings
from ..protocol.yields import HowFar, ItemsTaken
from .attempts import GONE, QUEUED, Attempt, Worker
from .cases import ERRORS, TIMED_OUT, UNHEALTHY, Case
from .events import Brought, Command, Send, SendBlob, SendWorker, Stow, WorkerExited
from .lease import Lease
from .objects import Objects
from .packets import Answered
from .slots import Queue, Slots
from .yields import Streams

STORY_LINES_MAX = 500
NEVER_S = float("inf")
#: so often, and not before, a call is looked at
LOOK_S = 0.25


class NodeState:
    """The node core's memory."""

    def __init__(
        self, settings: Settings, peer: bytes, name: str, resources: dict[str, float]
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.name = name
        self.slots = Slots(resources)
        self.lease = Lease(settings)
        self.queue = Queue()
        self.objects = Objects(peer, settings.small_value_bytes)
        self.streams = Streams(self)
        #: whether the connection to the scheduler stands, as far as is known
        self.connected = False
        #: when a turn is due though nothing happens: never too late, but perhaps too early; the
        #: turn at that time finds out anew
        self.due_s = NEVER_S
        self.attempts: dict[bytes, Attempt] = {}
        #: when workers are to be looked at; NEVER_S: when something is handed out
        self.look_due_s = NEVER_S
        #: all processes, also those that were told to end
        self.workers: dict[int, Worker] = {}
        #: outboxes: commands in order; rows that go in one message at the end of the turn
        self.commands: list[Command] = []
        self.done: list[DoneRow] = []
        #: places in `done` of rows with large payloads, or with refs inside
        self.rare: list[int] = []
        self.blocked: list[tuple[bytes, int, bool]] = []
        self.story: deque[tuple[float, str]] = deque(maxlen=STORY_LINES_MAX)
        self.counters: dict[str, int] = dict.fromkeys(
            (
                "cancelled", "deadlocks", "finished", "judged", "reports_unanswered", "requeued",
                "restarts", "scheduler_restarts", "stale_dropped", "taken_back", "workers_died",
                "workers_distrusted", "workers_failed", "workers_started", "workers_unkillable",
            ),
            0,
        )  # fmt: skip

    def note(self, now_s: float, text: str) -> None:
        """Remember a rare event, for whoever has to find out what happened."""
        self.story.append((now_s, text))

    def due_by(self, at_s: float) -> None:
        """Whoever will have something to do then says so."""
        if at_s < self.due_s:
            self.due_s = at_s

    def send(self, message: Message) -> None:
        """Send a message to the scheduler."""
        self.commands.append(Send(message))  # type: ignore[arg-type]  # one of AnyMessage

    def answer(self, worker: Worker, answered: Answered) -> None:
        """Answer a worker's request."""
        self.commands.append(SendWorker(worker.number, answered))

    def outgoing(self, row: ValueRow, attempt: int = 0) -> ValueRow:
        """Return the row as it is sent: a large payload goes by the bulk link, or is got here.

        Args:
            row: a value.
            attempt: of which it is a result: another one may have another; 0: it is a value for
                good.
        """
        payload = row.payload
        if payload is None or len(payload) <= self.settings.inline_bytes_max:
            return row
        id_ = ahead_key(row.id, attempt) if attempt else row.id
        self.commands.append(SendBlob(row.id, payload, id_))
        return replace(row, payload=None, size=len(payload))

    def tell_objects(self) -> None:
        """Tell the values that the scheduler wants of here, and fetch those of elsewhere."""
        objects = self.objects
        if objects.values:
            values, objects.values = objects.values, []
            self.send(Values([self.outgoing(row) for row in values]))
        if objects.fetches:
            fetches, objects.fetches = objects.fetches, []
            self.send(Fetch(fetches))
        if objects.takings.news:
            self.send(ItemsTaken(objects.takings.told()))

    def stow(self) -> None:
        """Have what came and what went counted towards what memory may have."""
        objects = self.objects
        if objects.filed:
            self.commands.append(Stow(objects.filed))
            objects.filed = []
        if objects.brought:
            self.commands += [Brought(number, size) for number, size in objects.brought.items()]
            objects.brought = {}

    def how_far(self, message: HowFar) -> None:
        """The scheduler asks about what is yielded, by tasks here or for tasks here."""
        self.streams.say_again(message)
        self.objects.takings.asked(message.ids)

    def restarted(self) -> None:
        """The scheduler is another: what was to be said to the one before is void."""
        self._unsay()
        self.objects.restarted()
        self.streams.restarted()

    def clear(self) -> None:
        """The link's life is over, and with it all that was here."""
        self._unsay()
        self.objects.clear()
        self.stow()
        self.streams.clear()

    def _unsay(self) -> None:
        self.commands = [command for command in self.commands if not isinstance(command, Send)]
        self.blocked.clear()

    def finish(
        self,
        attempt: Attempt,
        values: tuple[ValueRow, ...],
        duration_s: float,
        *,
        retry: bool = False,
        died: bool = False,
        bystander: bool = False,
    ) -> None:
        """An attempt has ended: tell the scheduler and forget it."""
        row = attempt.row
        # Of use for the next attempt only.
        details = attempt.details if retry or (values and values[0].failure is not None) else None
        done = DoneRow(row.id, row.attempt, values, duration_s, retry, died, bystander, details)
        self.objects.pin(refs_in(done))
        self.ended(done)
        self.forget(attempt)

    def ended(self, row: DoneRow) -> None:
        """A row, of which the refs inside are pinned, is to be told at the end of the turn."""
        bytes_max = self.settings.inline_bytes_max
        for value in row.values:
            if value.contained or (value.payload is not None and len(value.payload) > bytes_max):
                self.rare.append(len(self.done))
                break
        self.done.append(row)

    def fail(
        self,
        attempt: Attempt,
        error: str,
        text: str,
        *,
        duration_s: float = -1.0,
        died: bool = False,
        bystander: bool = False,
        payload: bytes | None = None,
        **details: Any,
    ) -> None:
        """An attempt has ended without a value, for a reason that is not the user's code."""
        row = attempt.row
        worker = self.workers.get(attempt.worker)
        details |= {
            "name": attempt.kind.name,
            "task": show(row.id),
            "node": self.name,
            "pid": worker.pid if worker else 0,
            "attempt": row.attempt,
        }
        failure = Failure(error, text, details)
        value = ValueRow(row.id, Outcome.FAILURE, payload, failure=failure)
        self.finish(attempt, (value,), duration_s, died=died, bystander=bystander)

    def died(self, worker: Worker, attempt: Attempt, event: WorkerExited, now_s: float) -> None:
        """An attempt has ended with its worker."""
        where = f"(pid {worker.pid}, node {self.name}, {attempt.which})"
        tail = f"\n{event.stderr_tail}" if event.stderr_tail else ""
        why = f", since {attempt.case.offence}" if attempt.case and attempt.case.offence else ""
        self.fail(
            attempt,
            "WorkerOutOfMemory" if event.out_of_memory else "WorkerDied",
            f"{attempt.kind.name}: its worker {where} {how_it_ended(event)}{why}{tail}",
            duration_s=max(0.0, now_s - worker.since_s),
            died=True,
            bystander=attempt.seq < worker.started,
            exit_code=None if event.signal_name else event.status,
            signal_name=event.signal_name,
            stderr_tail=event.stderr_tail,
        )

    def cancelled(self, attempt: Attempt, duration_s: float = -1.0) -> None:
        """An attempt has ended because it was cancelled, without a value."""
        case = attempt.case
        if case is not None and case.is_verdict:
            self.judged(attempt, case, duration_s)
            return
        self.counters["cancelled"] += 1
        began = "before it started" if duration_s < 0 else f"while it ran on node {self.name!r}"
        text = f"{attempt.kind.name} was cancelled {began}"
        details = case.details(None) if case is not None else {}
        self.fail(attempt, "TaskCancelled", text, duration_s=duration_s, **details)

    def drained(self, attempt: Attempt, duration_s: float) -> None:
        """An attempt has ended because this node is drained: it is as if the node were lost."""
        text = f"{attempt.kind.name} was ended: node {self.name!r}, which ran it, was drained"
        text = f"{text} ({attempt.which})"
        self.fail(attempt, "NodeLost", text, duration_s=duration_s, died=True, bystander=True)

    def stopped(self, attempt: Attempt, duration_s: float) -> None:
        """An attempt that was to end has ended, and its worker with it."""
        if attempt.drained and (attempt.case is None or not attempt.case.is_verdict):
            self.drained(attempt, duration_s)
        else:
            self.cancelled(attempt, duration_s)

    def judged(self, attempt: Attempt, case: Case, duration_s: float) -> None:
        """An attempt has ended because of the case against it."""
        row, worker = attempt.row, self.workers.get(attempt.worker)
        attempts = attempt.kind.options.max_retries + 1
        pid = worker.pid if worker else 0
        text = case.headline(attempt.kind.name, self.name, pid, attempt.which)
        if case.raised:
            text = f"{text}\n{case.raised}"
        details = case.details(attempt.details)
        if case.reason == UNHEALTHY:
            details |= {"actor": show(row.id), "incarnation": row.attempt}
        # A value that is of no use any more, for whoever can do with it what there is.
        partial, case.partial = case.partial, None
        self.fail(
            attempt,
            ERRORS[case.reason],
            text,
            duration_s=duration_s,
            died=case.reason != TIMED_OUT,
            bystander=True,  # if its worker went along, that was our doing: it is no poison
            payload=partial,
            attempts=attempts,
            **details,
        )

    def forget(self, attempt: Attempt) -> None:
        """An attempt is no more ours: reported, taken back, or its client has gone."""
        if attempt.state == QUEUED:
            self.queue.drop(attempt)
        attempt.state = GONE
        # Its place in a lane may be cleared away much later.
        attempt.row.args, attempt.row.values = None, ()
        del self.attempts[attempt.row.id]
        if attempt.pins:
            self.objects.unpin(attempt.pins)
        if attempt.kind.options.stream_buffer_max:
            self.streams.forget(attempt.row.id)

    def requeue(self, attempt: Attempt) -> None:
        """An attempt, no call, that has surely not started leaves its worker's hands."""
        attempt.worker = attempt.seq = 0
        if (attempt.stop and not attempt.drained) or attempt.unwanted:
            self.cancelled(attempt)
        else:
            self.counters["requeued"] += 1
            self.queue.push(attempt)


def refs_in(row: DoneRow) -> tuple[bytes, ...]:
    """Return the objects whose refs lie inside an attempt's values."""
    return tuple(id_ for value in row.values for id_ in value.contained)


def how_it_ended(event: WorkerExited) -> str:
    """Return the end of a worker in words."""
    if event.overdue:
        return "was ended because the scheduler had not heard of its node for too long"
    if event.out_of_memory:
        return f"was ended by {event.signal_name}: the kernel had run out of memory"
    if event.signal_name:
        return f"was ended by {event.signal_name}"
    return f"ended with exit code {event.status}"
