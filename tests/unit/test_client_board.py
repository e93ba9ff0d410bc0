"""The board: nothing falls between looking for a row and waiting for it."""

from collections.abc import Callable
from typing import Any

import pytest
from drumbeat.client.board import AllWaiter, Board, SomeWaiter
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Outcome, ValueRow


def row(number: int, outcome: Outcome = Outcome.VALUE) -> ValueRow:
    return ValueRow(b"%014d" % number, outcome, b"")


class Hooked(dict[ObjectId, ValueRow]):
    """Results of which a test says what happens around a look at them."""

    before: Callable[[], Any] | None = None
    after: Callable[[], Any] | None = None

    def get(self, id_: Any, default: Any = None) -> Any:
        before, self.before = self.before, None
        if before is not None:
            before()
        found = super().get(id_, default)
        after, self.after = self.after, None
        if after is not None:
            after()
        return found


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_row_that_comes_while_a_callback_is_registered_calls_it_once(moment: str) -> None:
    board = Board()
    board.results = results = Hooked()
    called: list[ValueRow] = []

    def resolve() -> None:
        for callback, one in board.resolve([row(1)]):
            callback(one)

    setattr(results, moment, resolve)
    found = board.when_ready(ObjectId(row(1).id), called.append)
    assert [*called, *([] if found is None else [found])] == [row(1)]
    assert not board.somebody_waits()


def test_a_row_that_is_here_is_returned_and_leaves_no_callback() -> None:
    board = Board()
    id_ = ObjectId(row(1).id)
    seen: list[ValueRow] = []
    assert board.when_ready(id_, seen.append) is None
    board.results[id_] = row(1)
    assert board.when_ready(id_, print) == row(1)
    assert board.resolve([row(1)]) == [(seen.append, row(1))]
    assert not seen
    assert not board.somebody_waits()


def test_a_waiter_for_all_sees_a_failure_that_was_there_before_it() -> None:
    ids = [ObjectId(row(number).id) for number in range(3)]
    waiter = AllWaiter(ids)
    waiter.look({ids[1]: row(1, Outcome.ERROR)})
    assert waiter.done
    assert waiter.failure == row(1, Outcome.ERROR)


def test_a_waiter_for_some_remembers_what_it_saw() -> None:
    ids = [ObjectId(row(number).id) for number in range(2)]
    board = Board()
    waiter = SomeWaiter(ids, 1)
    board.waiters[waiter] = None
    board.resolve([row(0)])
    board.free([ids[0]])
    assert waiter.done
    assert list(waiter.missing) == [ids[1]]
