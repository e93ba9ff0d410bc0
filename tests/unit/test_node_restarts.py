"""How soon what has ended is started again."""

from drumbeat.node.restarts import CRASHES_MAX, CRASHES_WITHIN_S, Restarts


def test_after_its_first_end_it_is_started_at_once() -> None:
    assert Restarts().ended(100.0) == 0.0


def test_each_further_end_doubles_the_pause_up_to_five_seconds() -> None:
    one = Restarts()
    pauses = [one.ended(100.0) for _ in range(12)]
    assert pauses[1:4] == [0.1, 0.2, 0.4]
    assert pauses[-1] == 5.0


def test_ends_of_more_than_a_minute_ago_count_no_more() -> None:
    one = Restarts()
    for _ in range(CRASHES_MAX):
        one.ended(100.0)
    assert one.too_many
    assert one.ended(100.1 + CRASHES_WITHIN_S) == 0.0
    assert not one.too_many
