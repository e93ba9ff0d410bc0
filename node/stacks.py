"""Answers who asks where the threads of this node's workers are.

Never looks itself: `Dump` has the shell do so, `Dumped` says what came of it. Whoever asks is
answered within ANSWER_S, whatever became of the workers.
"""

from ..protocol.running import STACK_BYTES_MAX, STACKS_BYTES_MAX, Stack, StackRow, Stacks
from .attempts import SENT, Attempt, Worker
from .call_threads import named
from .events import Dump, Dumped, SendWorker
from .packets import CallsTold, TellCalls
from .state import NodeState

ANSWER_S = 1.5
#: where coroutines are tells the interpreter, which may not turn: no longer is that awaited
CALLS_S = 0.05
#: questions that are not answered; more are answered at once, with nothing
ASKED_MAX = 100
#: workers that one answer tells of
WORKERS_MAX = 200


class _Asked:
    __slots__ = ("calls", "due_s", "left", "left_off", "number", "rows")

    def __init__(self, number: int, due_s: float) -> None:
        self.number = number
        self.due_s = due_s
        self.rows: list[StackRow] = []
        self.left_off = 0
        #: worker -> the row it is to fill
        self.left: dict[int, StackRow] = {}
        #: the row of a worker -> until when it is awaited where its calls are
        self.calls: dict[int, tuple[StackRow, float]] = {}


class StackAsks:
    """All questions that are open."""

    def __init__(self, state: NodeState) -> None:
        self._state = state
        self.open: list[_Asked] = []

    def asked(self, message: Stack, now_s: float) -> None:
        """The scheduler wants stacks."""
        asked = _Asked(message.number, now_s + ANSWER_S)
        if len(self.open) >= ASKED_MAX:
            self._state.send(Stacks(message.number, [], len(message.tasks) + len(message.pids)))
            return
        state = self._state
        workers = [w for w in state.workers.values() if w.pid and not w.dropped]
        chosen = {w.number: w for w in workers if w.pid in message.pids}
        if message.all:
            chosen.update({worker.number: worker for worker in workers if worker.is_watched})
        #: what is asked for of each
        wanted: dict[int, Attempt] = {}
        for task in message.tasks:
            attempt = state.attempts.get(task)
            worker = state.workers.get(attempt.worker) if attempt is not None else None
            if attempt is None or attempt.state != SENT or worker is None:
                why = "it is not here" if attempt is None else "it has not started"
                name = "" if attempt is None else attempt.kind.name
                asked.rows.append(StackRow(0, task, name, "", why))
            else:
                chosen[worker.number] = worker
                wanted.setdefault(worker.number, attempt)
        for worker in list(chosen.values())[:WORKERS_MAX]:
            asked.left[worker.number] = self._row(worker, wanted.get(worker.number))
        asked.left_off = max(0, len(chosen) - WORKERS_MAX)
        for number in asked.left:
            hosted = state.workers[number].actor
            if hosted is not None and hosted.concurrency:
                row = asked.left[number]
                row.text = "".join(
                    named(hosted.hand[seq], one)
                    for seq, one in hosted.begun.items()
                    if seq in hosted.hand
                )
                asked.calls[number] = asked.left[number], now_s + CALLS_S
                state.commands.append(SendWorker(number, TellCalls(message.number)))
        if asked.left:
            state.commands.append(Dump(list(asked.left)))
        self.open.append(asked)

    @staticmethod
    def _row(worker: Worker, attempt: Attempt | None) -> StackRow:
        # What runs there. Of an actor with several calls the actor itself: each is named beneath;
        # and an actor that has nothing to do.
        hosted = worker.actor
        if attempt is None or attempt.kind.creates:
            is_several = hosted is not None and hosted.up and hosted.concurrency > 0
            rows = worker.flight if is_several else worker.rows() or worker.flight
            attempt = next(iter(rows.values()), None)
        if attempt is None:
            return StackRow(worker.pid, b"", "", "")
        return StackRow(worker.pid, attempt.row.id, attempt.kind.name, "")

    def dumped(self, event: Dumped) -> None:
        """A worker has told, or cannot."""
        for asked in self.open:
            row = asked.left.pop(event.worker, None)
            if row is not None:
                row.text, row.why = row.text + event.text, event.why
                asked.rows.append(row)

    def told(self, worker: Worker, packet: CallsTold) -> None:
        """A worker says where its calls are: before its threads, of which the main one is last."""
        for asked in self.open:
            if asked.number == packet.number and worker.number in asked.calls:
                row, _ = asked.calls.pop(worker.number)
                text = packet.text[:STACK_BYTES_MAX].encode("ascii", "backslashreplace")
                row.text = text[:STACK_BYTES_MAX].decode("ascii") + row.text

    def turn(self, now_s: float) -> None:
        """Answer what can be answered."""
        for asked in list(self.open):
            waits_s = max((due_s for _, due_s in asked.calls.values()), default=0.0)
            if now_s < (asked.due_s if asked.left else waits_s):
                continue
            self.open.remove(asked)
            for row in asked.left.values():
                row.why = f"nothing came within {ANSWER_S:g} s"
                asked.rows.append(row)
            rows, room = [], STACKS_BYTES_MAX
            for row in asked.rows:
                room -= len(row.text) + len(row.why) + len(row.name)
                if room >= 0:
                    rows.append(row)
            left_off = asked.left_off + len(asked.rows) - len(rows)
            self._state.send(Stacks(asked.number, rows, left_off))

    def deadline_s(self) -> float | None:
        """Return when `turn` is due for time alone."""
        return min(
            (
                min((due_s for _, due_s in asked.calls.values()), default=asked.due_s)
                if not asked.left
                else asked.due_s
                for asked in self.open
            ),
            default=None,
        )

    def clear(self) -> None:
        """Forget all: whoever asked is gone."""
        self.open.clear()
