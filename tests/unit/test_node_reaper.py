"""Which actors a keeper kills, and when."""

from drumbeat.node.reaper import NEVER_S, Reaper


def reaper(*pids: int, sleeps_along: bool = False) -> Reaper:
    one = Reaper(sleeps_along=sleeps_along)
    for pid in pids:
        one.lease(pid)
    return one


def test_without_a_lease_nobody_is_killed() -> None:
    assert reaper(7).overdue(0.0, 1e9, 1e9) == []


def test_at_its_end_all_actors_are_killed_once() -> None:
    one = reaper(7, 8)
    assert one.overdue(110.0, 109.9, 9.9) == []
    assert one.overdue(110.0, 110.0, 10.0) == [7, 8]
    assert one.overdue(110.0, 111.0, 11.0) == []


def test_as_long_as_it_is_prolonged_nobody_is_killed() -> None:
    one = reaper(7)
    for second in range(100):
        assert one.overdue(second + 10.0, float(second), float(second)) == []


def test_an_actor_that_is_made_after_the_end_is_killed_at_once() -> None:
    one = reaper()
    one.overdue(110.0, 120.0, 20.0)
    one.lease(9)
    assert one.overdue(110.0, 120.0, 20.0) == [9]


def test_who_has_ended_is_not_killed() -> None:
    one = reaper(7, 8)
    one.gone(7)
    assert one.overdue(110.0, 111.0, 11.0) == [8]


def test_the_next_daemon_begins_without_actors_and_without_a_lease() -> None:
    one = reaper(7)
    one.overdue(110.0, 100.0, 0.0)
    one.begin()
    assert one.overdue(0.0, 120.0, 20.0) == []
    one.lease(8)
    assert one.overdue(0.0, 120.0, 20.0) == []
    assert one.overdue(125.0, 126.0, 26.0) == [8]


def test_it_is_looked_at_again_when_the_lease_ends_if_there_are_actors() -> None:
    one = reaper()
    one.overdue(110.0, 100.0, 0.0)
    assert one.left_s(104.0, 4.0) == NEVER_S
    one.lease(7)
    assert one.left_s(104.0, 4.0) == 6.0


def test_time_in_which_the_machine_was_suspended_counts() -> None:
    one = reaper(7)
    one.overdue(110.0, 100.0, 0.0)
    assert one.overdue(110.0, 4000.0, 1.0) == [7]


def test_it_does_not_count_where_the_scheduler_sleeps_along() -> None:
    one = reaper(7, sleeps_along=True)
    one.overdue(110.0, 100.0, 0.0)
    assert one.overdue(110.0, 4000.0, 1.0) == []
    assert one.overdue(110.0, 4009.0, 10.0) == [7]


def test_nor_does_it_when_the_lease_was_prolonged_just_before_and_is_read_after() -> None:
    one = reaper(7, sleeps_along=True)
    one.overdue(110.0, 100.0, 0.0)
    assert one.overdue(110.9, 4000.0, 1.0) == []
    assert one.overdue(4010.0, 4001.0, 2.0) == []
    assert one.overdue(4010.0, 4009.5, 10.5) == []
    assert one.overdue(4010.0, 4011.0, 12.0) == [7]
