"""When the keeper leaves its daemon alone, aborts it, kills it."""

import pytest
from drumbeat.node.watch import ABORT, KILL, LEAVE, DaemonWatch
from drumbeat.protocol.settings import Settings

SETTINGS = Settings(heartbeat_interval_s=1.0, lost_after_intervals=10.0, start_timeout_s=30.0)


@pytest.fixture
def watch() -> DaemonWatch:
    one = DaemonWatch(SETTINGS, tick_s=1.0)
    one.begin(0, 0.0)
    one.verdict(1, 1.0, stopped=False)
    return one


def verdicts(
    watch: DaemonWatch, seconds: range, *, beats: int = 1, stopped: bool = False
) -> list[str]:
    return [watch.verdict(beats, float(second), stopped) for second in seconds]


def test_a_daemon_that_beats_is_left_alone(watch: DaemonWatch) -> None:
    assert not any(watch.verdict(second, float(second), False) for second in range(2, 100))


def test_ten_seconds_without_a_beat_abort_it_and_a_second_later_it_is_killed(
    watch: DaemonWatch,
) -> None:
    assert verdicts(watch, range(2, 13)) == [LEAVE] * 9 + [ABORT, KILL]


def test_until_the_first_beat_it_may_take_as_long_as_a_start_may() -> None:
    watch = DaemonWatch(SETTINGS, tick_s=1.0)
    watch.begin(5, 0.0)
    assert verdicts(watch, range(1, 32), beats=5) == [LEAVE] * 29 + [ABORT, KILL]


def test_a_stopped_daemon_is_never_judged(watch: DaemonWatch) -> None:
    assert not any(verdicts(watch, range(2, 1000), stopped=True))
    assert verdicts(watch, range(1000, 1010)) == [LEAVE] * 10


def test_one_that_has_just_gone_on_is_not_judged_for_the_time_before() -> None:
    watch = DaemonWatch(Settings(heartbeat_interval_s=0.1), tick_s=1.0)
    watch.begin(0, 0.0)
    watch.verdict(1, 1.0, stopped=False)
    assert watch.verdict(1, 2.0, stopped=True) == LEAVE
    assert verdicts(watch, range(3, 6)) == [LEAVE, LEAVE, ABORT]


def test_it_takes_two_looks_to_judge_however_short_the_limit_is() -> None:
    watch = DaemonWatch(Settings(heartbeat_interval_s=0.1), tick_s=1.0)
    watch.begin(0, 0.0)
    watch.verdict(1, 1.0, stopped=False)
    assert verdicts(watch, range(2, 5)) == [LEAVE, ABORT, KILL]


def test_time_in_which_the_keeper_itself_stood_still_does_not_count(watch: DaemonWatch) -> None:
    assert watch.verdict(1, 500.0, stopped=False) == LEAVE
    assert verdicts(watch, range(501, 509)) == [LEAVE] * 8
    assert watch.verdict(1, 509.0, stopped=False) == ABORT


def test_a_beat_after_the_abort_is_a_new_start(watch: DaemonWatch) -> None:
    assert verdicts(watch, range(2, 12))[-1] == ABORT
    assert watch.verdict(2, 12.0, stopped=False) == LEAVE
    assert verdicts(watch, range(13, 22), beats=2) == [LEAVE] * 9


def test_without_a_daemon_there_is_nobody_to_judge(watch: DaemonWatch) -> None:
    watch.end()
    assert not any(verdicts(watch, range(0, 10_000, 100)))


def test_whoever_is_told_of_beats_hears_of_each_and_of_no_standstill() -> None:
    heard: list[float] = []
    watch = DaemonWatch(SETTINGS, 1.0, heard.append)
    watch.verdict(0, 0.5, stopped=False)  # there is no daemon
    watch.begin(0, 1.0)
    for beats, at_s in ((0, 2.0), (3, 3.0), (3, 4.0), (4, 5.0)):
        watch.verdict(beats, at_s, stopped=False)
    assert heard == [3.0, 5.0]
