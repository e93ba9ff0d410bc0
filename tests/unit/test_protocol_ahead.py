"""Results that come before their rows: of several attempts the last one is meant."""

from drumbeat.protocol.ahead import Ahead, ahead_key, task_ahead
from drumbeat.protocol.ids import TASK_BYTES, TaskId

TASK = TaskId(b"t" * TASK_BYTES)


def test_of_several_attempts_the_last_is_taken_in_whatever_order_they_came() -> None:
    ahead = Ahead()
    for attempt, payload in ((2, b"second"), (1, b"first")):
        ahead.came(ahead_key(TASK, attempt), payload)
    assert ahead.take(TASK) == b"second"
    assert ahead.take(TASK) is None


def test_nothing_is_kept_of_a_task_that_has_its_outcome() -> None:
    ahead = Ahead()
    ahead.came(ahead_key(TASK + b"\0\1", 1), b"value")
    ahead.forget(TASK)
    assert not len(ahead)


def test_only_keys_with_an_attempt_are_ahead() -> None:
    assert task_ahead(ahead_key(TASK, 1)) == TASK
    assert task_ahead(TASK + b"\0\1") is None
    assert task_ahead(TASK + b"a") is None
