"""How many attempts a task may still have, over all lives of the scheduler."""

from typing import Any

from drumbeat.client import events
from drumbeat.client.budget import Budget
from drumbeat.client.core import ClientCore
from drumbeat.protocol.ids import IdFactory, PeerId, TaskId
from drumbeat.protocol.messages import (
    Define,
    Environment,
    KindRow,
    Options,
    Outcome,
    Results,
    Retried,
    Submit,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.settings import Settings

PEER = PeerId(b"client")


class Program:
    """A connected client core with one task that it has sent."""

    def __init__(self, max_retries: int) -> None:
        self.core = ClientCore(Settings(), PEER, "program", Environment())
        self.task = TaskId(IdFactory(PEER)())
        self.do(events.Connected(1, False))
        options = Options(max_retries=max_retries)
        kind = KindRow(1, b"f" * 16, "work", options, b"code")
        self.do(events.Submitted([kind], [events.Call(TaskRow(self.task, 1), options)]))

    def do(self, event: events.Event) -> list[Any]:
        commands = [*self.core.handle(event, 0.0), *self.core.turn(0.0)]
        self.core.check_invariants()
        return commands

    def retried(self, attempt: int) -> None:
        self.do(events.Received(Retried([(self.task, attempt)])))

    def retries_left_in_the_next_life(self) -> int | None:
        """Return what the task may have beside its first attempt; None: it was not sent."""
        sent = [c.message for c in self.do(events.Connected(1, False)) if hasattr(c, "message")]
        kinds = {row.number: row for one in sent if isinstance(one, Define) for row in one.rows}
        for submit in sent:
            if isinstance(submit, Submit):
                retries: int = kinds[submit.rows[0].kind].options.max_retries
                return retries
        return None


def test_a_lost_life_charges_all_attempts_that_it_told_of() -> None:
    program = Program(max_retries=5)
    program.retried(2)
    program.retried(3)
    assert program.retries_left_in_the_next_life() == 2
    program.retried(2)
    assert program.retries_left_in_the_next_life() == 0
    assert program.retries_left_in_the_next_life() is None


def test_a_task_whose_attempts_are_used_up_fails_with_node_lost() -> None:
    program = Program(max_retries=1)
    program.retried(2)
    commands = program.do(events.Connected(1, False))
    rows = [row for one in commands if isinstance(one, events.Resolve) for row in one.rows]
    assert [row.failure and row.failure.error for row in rows] == ["NodeLost"]


def test_a_finished_task_leaves_nothing_behind() -> None:
    program = Program(max_retries=3)
    program.retried(2)
    program.do(events.Received(Results([ValueRow(program.task, Outcome.VALUE, b"v", 1)])))
    program.retried(3)
    program.do(events.RefsChanged([(program.task, -1)]))  # type: ignore[list-item]
    assert not any(program.core.at_rest().values())


def test_news_that_come_twice_or_late_change_nothing() -> None:
    budget, task = Budget(), TaskId(b"t" * 14)
    budget.told([(task, 3)], {task})
    budget.told([(task, 2), (b"u" * 14, 9)], {task})
    assert budget.latest == {task: 3}
    assert budget.spend(task, 3)
    assert budget.charged == {task: 3}
    assert not budget.spend(task, 3)
