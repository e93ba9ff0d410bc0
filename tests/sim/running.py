"""A script being run: the user's code, as far as the simulator has any.

Never talks to the node by itself: it asks its worker to.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, NoReturn

from drumbeat.node.packets import Answered, KindDefinition, RunRow, ToWorker
from drumbeat.protocol.absent import reason_of
from drumbeat.protocol.ids import TaskId, objects_of
from drumbeat.protocol.messages import Outcome, ValueRow

from . import scripts, streams
from .scripts import Report, Script, Step, Value

if TYPE_CHECKING:
    from .worker import Worker

#: what the main thread asks for: a sleep, its next packet, or its end
READ: Final = "read"
DIE: Final = "die"
Request = float | str
Main = Generator[Request, ToWorker | None, None]


class Interrupted(BaseException):
    """The task is to stop."""


class TaskRaisedError(Exception):
    """The script raises."""

    def __init__(self, report: Report, error: str = "") -> None:
        super().__init__(report)
        self.report = report


class Running:
    """One script being run."""

    def __init__(self, worker: "Worker", row: RunRow, kind: KindDefinition, script: Script) -> None:
        self.worker = worker
        self.row = row
        self.kind = kind
        self.script = script
        self.spec = script.spec
        self.cells: list[bytes] = []

    def perform(self) -> Generator[Request, ToWorker | None, tuple[ValueRow, ...]]:
        worker, spec, row = self.worker, self.spec, self.row
        numbers = worker.oracle.check_arguments(row, self.script)
        for value in row.values:
            self._check_bytes(value)
        accumulated = scripts.mix(spec.label, *numbers)
        for id_ in self.script.contained:
            self._grow(id_)
        for value in row.values:
            for id_ in value.contained:
                self._grow(id_)
        if spec.label % 13 == 0:
            worker.pool.wrote(worker, b"task %d\n" % spec.label)
        if spec.seconds:
            yield spec.seconds
        if (spec.deaths < 0 or row.attempt <= spec.deaths) and not spec.items:
            yield DIE
        for index, step in enumerate(spec.steps):
            accumulated = yield from self._step(index, step, accumulated)
        if spec.items:
            yield from streams.run(self, accumulated)
        if spec.after_s:
            yield spec.after_s
        if spec.errors < 0 or row.attempt <= spec.errors:
            raise TaskRaisedError(Report(spec.label, "raised"))
        return tuple(self._values(accumulated))

    def _grow(self, id_: bytes) -> None:
        self.cells.append(id_)
        self.worker.hold(id_)

    def _picked(self, picks: list[int]) -> list[bytes]:
        chosen = [self.cells[cell] for cell in scripts.distinct(picks, len(self.cells))]
        return list(dict.fromkeys(chosen))

    def _step(
        self, index: int, step: Step, accumulated: int
    ) -> Generator[Request, ToWorker | None, int]:
        worker, label = self.worker, self.spec.label
        picked = self._picked(step.cells)
        if step.do == "run":
            yield step.seconds
        elif step.do == "submit" and step.spec is not None:
            child = step.spec
            named = Script(
                scripts.named(child, scripts.child_label(label, index)),
                self._picked(child.contains),
                b"." * child.weight,
            )
            for id_ in worker.submit(self.row, child, named, self._picked(child.deps)):
                self.cells.append(id_)
        elif step.do == "put":
            value = Value(scripts.put_number(label, index), picked, b"." * step.size)
            self.cells.append(worker.put(self.row, value))
        elif step.do == "get" and picked:
            accumulated = yield from self._get(picked, step.timeout_s, accumulated)
        elif step.do == "wait" and picked:
            count = min(step.count, len(picked))
            answer = yield from worker.want(self.row, picked, count, step.timeout_s, False)
            if answer.error:
                self._refused(answer)
            worker.oracle.check_wait(picked, count, step.timeout_s, answer)
        elif step.do == "cancel" and picked:
            worker.oracle.cancel_asked([id_[:14] for id_ in picked])
            worker.cancel(list(dict.fromkeys(id_[:14] for id_ in picked)), step.force)
        return accumulated

    def _get(
        self, picked: list[bytes], timeout_s: float | None, accumulated: int
    ) -> Generator[Request, ToWorker | None, int]:
        worker = self.worker
        answer = yield from worker.want(self.row, picked, len(picked), timeout_s, True)
        if answer.timed_out:
            worker.oracle.count("get timed out in a task")
            answer = yield from worker.want(self.row, picked, len(picked), None, True)
        if answer.error:
            self._refused(answer)
        found = {row.id: row for row in answer.rows}
        for row in answer.rows:
            worker.oracle.check_row(row, worker.pool.node)
            if row.outcome != Outcome.VALUE:
                raise TaskRaisedError(Report(self.spec.label, "child", row.id))
            self._check_bytes(row)
        if any(id_ not in found for id_ in picked):
            worker.oracle.wrong(f"get in {self.row.id.hex()} was answered without all rows")
            raise TaskRaisedError(Report(self.spec.label, "raised"))
        values = [scripts.read_value(found[id_].payload or b"") for id_ in picked]
        for value in values:
            for id_ in value.refs:
                self._grow(id_)
        return scripts.mix(accumulated, *(value.number for value in values))

    def _check_bytes(self, row: ValueRow) -> None:
        if reason_of(row.payload or b""):
            raise TaskRaisedError(Report(self.spec.label, "lost", row.id))

    def _refused(self, answer: Answered) -> NoReturn:
        self.worker.oracle.check_refusal(self.row, answer)
        raise TaskRaisedError(Report(self.spec.label, "deadlock"))

    def _values(self, accumulated: int) -> list[ValueRow]:
        made = []
        sizes = self.spec.sizes
        ids = objects_of(TaskId(self.row.id), self.kind.num_returns)
        for index, id_ in enumerate(ids):
            refs = self._picked(self.spec.gives) if index == 0 else []
            padding = b"." * (sizes[index % len(sizes)] if sizes else 0)
            number = scripts.value_number(accumulated, index)
            payload = scripts.pack(Value(number, refs, padding))
            made.append(ValueRow(id_, Outcome.VALUE, payload, 0, tuple(refs)))
        return made

    def let_go(self) -> None:
        """The function returned: its refs die."""
        for id_ in self.cells:
            self.worker.drop(id_)
        self.cells = []
