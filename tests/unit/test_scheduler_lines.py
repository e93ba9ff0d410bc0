"""The calls of one actor that no node has: order within a caller, fairness between callers."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import TaskRow
from drumbeat.scheduler.lines import TURN_CALLS, Lines
from drumbeat.scheduler.tasks import ASSIGNED, BACKOFF, FINISHED, QUEUED, WAITING, TaskRecord
from hypothesis import given
from hypothesis import strategies as st

Call = Callable[..., TaskRecord]


@pytest.fixture
def call() -> Call:
    """Make calls, each newer than the one before, of callers that are named by a number."""
    ids: dict[int, IdFactory] = {}
    orders = iter(range(1, 1_000_000))

    def make(caller: int = 0, state: int = QUEUED) -> TaskRecord:
        name = ids.setdefault(caller, IdFactory(PeerId(bytes([caller]) * 6)))
        nobody = cast("Any", None)
        return TaskRecord(TaskRow(name(), 1), nobody, nobody, name(), 0, next(orders), 0.0, state)

    return make


def test_calls_of_one_caller_go_in_the_order_in_which_they_were_made(call: Call) -> None:
    lines = Lines()
    calls = [call() for _ in range(5)]
    for one in calls:
        lines.push(one)
    assert lines.take(3) == calls[:3]
    assert lines.take(3) == calls[3:]
    assert not lines


def test_a_call_that_waits_for_an_argument_holds_up_its_caller_and_nobody_else(call: Call) -> None:
    lines = Lines()
    waiting, behind, other = call(1, WAITING), call(1), call(2)
    for one in (waiting, behind, other):
        lines.push(one)
    assert lines.take(10) == [other]
    assert not lines.able
    waiting.state = QUEUED
    lines.changed(waiting)
    assert lines.take(10) == [waiting, behind]


def test_a_call_behind_the_first_may_change_without_overtaking(call: Call) -> None:
    lines = Lines()
    first, second = call(1, WAITING), call(1, WAITING)
    lines.push(first)
    lines.push(second)
    second.state = QUEUED
    lines.changed(second)
    assert lines.take(10) == []
    first.state = QUEUED
    lines.changed(first)
    assert lines.take(10) == [first, second]


def test_a_cancelled_call_lets_those_behind_it_go(call: Call) -> None:
    lines = Lines()
    waiting, cancelled, last = call(1, WAITING), call(1), call(1)
    for one in (waiting, cancelled, last):
        lines.push(one)
    cancelled.state = FINISHED
    lines.changed(cancelled)
    waiting.state = FINISHED
    lines.changed(waiting)
    assert list(lines) == [last]
    assert lines.take(10) == [last]
    assert not lines


def test_a_call_that_came_back_from_a_node_stands_before_what_was_made_later(call: Call) -> None:
    lines = Lines()
    first, second, third = call(), call(), call()
    for one in (first, second, third):
        lines.push(one)
    assert lines.take(2) == [first, second]
    lines.put_back(second)
    lines.put_back(first)
    assert lines.take(10) == [first, second, third]


def test_a_call_that_will_be_tried_again_is_tried_before_what_was_made_later(call: Call) -> None:
    lines = Lines()
    first, second = call(), call()
    lines.push(first)
    lines.push(second)
    assert lines.take(1) == [first]
    first.state = BACKOFF
    lines.put_back(first)
    assert lines.take(10) == []
    first.state = QUEUED
    lines.changed(first)
    assert lines.take(10) == [first, second]


def test_callers_take_turns(call: Call) -> None:
    lines = Lines()
    many = [call(1) for _ in range(3 * TURN_CALLS)]
    few = [call(2) for _ in range(2)]
    for one in (*many, *few):
        lines.push(one)
    taken = lines.take(TURN_CALLS + 2)
    assert taken == [*many[:TURN_CALLS], *few]
    assert lines.take(1000) == many[TURN_CALLS:]


def test_a_call_that_turns_out_to_be_at_a_node_is_taken_out(call: Call) -> None:
    lines = Lines()
    first, second = call(1, WAITING), call(1)
    lines.push(first)
    lines.push(second)
    first.state = ASSIGNED
    lines.remove(first)
    assert lines.take(10) == [second]


@given(st.lists(st.tuples(st.sampled_from(["push", "wait", "ready", "end", "take", "back"]),
                          st.integers(0, 2)), max_size=80))  # fmt: skip
def test_no_history_makes_a_call_overtake_one_of_its_caller(steps: list[tuple[str, int]]) -> None:
    ids = [IdFactory(PeerId(bytes([n]) * 6)) for n in range(3)]
    lines, held, nobody = Lines(), [[], [], []], cast("Any", None)  # type: ignore[var-annotated]
    gone: list[list[int]] = [[], [], []]
    for order, (step, caller) in enumerate(steps):
        waiting = [one for one in lines if one.row.id[:6] == bytes([caller]) * 6]
        if step in ("push", "wait"):
            state = QUEUED if step == "push" else WAITING
            row = TaskRow(ids[caller](), 1)
            lines.push(TaskRecord(row, nobody, nobody, ids[caller](), 0, order, 0.0, state))
        elif step in ("ready", "end") and waiting:
            one = next((w for w in waiting if w.state == WAITING), waiting[0])
            one.state = QUEUED if step == "ready" else FINISHED
            lines.changed(one)
        elif step == "take":
            for one in lines.take(2):
                owner = one.row.id[0]
                assert not any(
                    other.order < one.order for other in lines if other.row.id[0] == owner
                )
                assert not gone[owner] or gone[owner][-1] < one.order
                gone[owner].append(one.order)
                one.state = ASSIGNED
                held[owner].append(one)
        elif step == "back" and held[caller]:
            one = held[caller].pop()
            gone[caller].remove(one.order)
            one.state = QUEUED
            lines.put_back(one)
        lines.check_invariants()
