"""What a worker tells of the refs that live in it."""

from drumbeat.node.held import DROP, HOLD, OWN, Held
from drumbeat.node.packets import Refs
from drumbeat.protocol.ids import ObjectId
from drumbeat.protocol.messages import Outcome, ValueRow

A, B = ObjectId(b"a" * 14), ObjectId(b"b" * 14)


def after(*changes: tuple[ObjectId, int]) -> Held:
    held = Held()
    held.changes.extend(changes)
    return held


def test_at_first_nothing_is_to_be_told() -> None:
    held = Held()
    assert not held.changed
    assert held.report() is None
    assert held.report_held() == []


def test_the_first_ref_is_told_once() -> None:
    held = after((A, HOLD), (A, HOLD), (B, HOLD))
    assert held.changed
    assert held.report_held() == [A, B]
    held.changes.append((A, HOLD))
    assert held.report() is None


def test_the_last_ref_is_told_when_it_goes() -> None:
    held = after((A, HOLD), (A, HOLD))
    held.report_held()
    held.changes.append((A, DROP))
    assert held.report() is None
    held.changes.append((A, DROP))
    assert held.report() == Refs([], [A])
    assert held.report() is None


def test_a_ref_that_came_and_went_unseen_is_not_told() -> None:
    assert after((A, HOLD), (A, DROP)).report() is None


def test_the_node_knows_of_what_was_made_here_so_only_its_end_is_told() -> None:
    held = after((A, OWN))
    assert held.report() is None
    held.changes.append((A, DROP))
    assert held.report() == Refs([], [A])


def test_a_ref_that_goes_and_comes_back_before_that_was_told_never_went() -> None:
    held = after((A, OWN), (A, DROP), (A, HOLD))
    assert held.report() is None
    held.changes.append((A, DROP))
    assert held.report() == Refs([], [A])


def test_a_ref_that_comes_back_after_its_end_was_told_is_told_again() -> None:
    held = after((A, HOLD))
    held.report_held()
    held.changes.append((A, DROP))
    held.report()
    held.changes.append((A, HOLD))
    assert held.report() == Refs([A], [])


def test_what_went_stays_to_be_told_while_only_what_came_is_asked_for() -> None:
    held = after((A, OWN), (A, DROP), (B, HOLD))
    assert held.report_held() == [B]
    assert held.changed
    assert held.report() == Refs([], [A])


def test_a_value_is_forgotten_with_its_last_ref() -> None:
    held = after((A, OWN))
    held.values[A] = ValueRow(A, Outcome.VALUE, b"x")
    held.report()
    assert A in held.values
    held.changes.append((A, DROP))
    held.report()
    assert not held.values
