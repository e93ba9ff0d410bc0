"""A program whose scheduler is gone says so, in plain words and not too often."""

from drumbeat.client.absence import Absence


def test_it_is_said_after_some_seconds_with_the_reason_and_then_more_and_more_rarely() -> None:
    absence = Absence("lab1:7788", 5.0)
    absence.gone(100.0)
    assert absence.words(104.9) == ""
    absence.because("connection refused")
    assert absence.words(105.0) == (
        "no connection to the scheduler at lab1:7788 for 5 s (connection refused); it is tried "
        "again and again, and what was submitted is kept until then"
    )
    said = [second for second in range(106, 800) if absence.words(float(second))]
    assert said == [150, 600]


def test_its_return_is_told_only_to_who_was_told_of_its_absence() -> None:
    absence = Absence("here", 5.0)
    absence.gone(100.0)
    assert absence.back(102.0) == ""
    absence.gone(200.0)
    assert absence.words(206.0)
    assert absence.back(212.4) == "the scheduler at here is back after 12 s"
    assert absence.back(213.0) == ""


def test_before_the_first_connection_and_while_there_is_one_nothing_is_said() -> None:
    absence = Absence("here", 5.0)
    absence.because("no such file")
    assert absence.words(1000.0) == ""
    absence.gone(1000.0)
    absence.gone(1004.0)  # the same absence
    assert absence.words(1005.0)


def test_who_waits_long_for_the_first_connection_is_told_once_why_there_is_none_yet() -> None:
    absence = Absence("lab1:7788", 5.0, waits_s=15.0)
    assert absence.words(1.0) == ""
    absence.because("connection refused")
    assert absence.words(1.0) == (
        "cannot reach the scheduler at lab1:7788: connection refused; it is tried again until "
        "connect_timeout_s are over"
    )
    absence.because("no route")
    assert absence.words(2.0) == ""
    assert absence.back(3.0) == ""


def test_who_gives_up_soon_is_told_then() -> None:
    absence = Absence("lab1:7788", 5.0, waits_s=5.0)
    absence.because("connection refused")
    assert absence.words(4.0) == ""


def test_a_reason_before_the_connection_is_none_for_its_loss() -> None:
    absence = Absence("here", 5.0, waits_s=15.0)
    absence.because("connection refused")
    absence.back(1.0)
    assert absence.words(2.0) == ""
