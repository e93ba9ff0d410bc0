"""What a program kept of its rate under attack: what counts as done, and what as an attack."""

import pytest
from fuzz.shares import EDGE_S, KEPT_RATE, Part, Told, Turn, complaint, done_at, turn_of

QUIET, ATTACKED, AFTER = Part(0.0, 10.5, 4.0), Part(10.5, 21.0, 8.0), Part(21.0, 31.5, 4.0)
PARTS = (QUIET, ATTACKED, AFTER)


def telling(*rates: float, until_s: float = 33.0) -> list[Told]:
    """A program that tells each half second, and has these rates in the three parts."""
    told, done = [], 0.0
    for half_seconds in range(int(until_s * 2)):
        told.append(Told(round(done), 0, half_seconds / 2))
        number = sum(half_seconds / 2 >= part.begun_s for part in PARTS) - 1
        done += rates[number] / 2
    return told


def turn(kept: float, made: int = 1_500) -> Turn:
    return Turn((100.0, 100.0), 100.0 * kept, made, 10.0, 50.0)


def test_between_two_words_work_is_done_evenly_and_after_the_last_none() -> None:
    told = [Told(100, 0, 1.0), Told(300, 0, 2.0)]
    assert [done_at(told, at_s) for at_s in (0.0, 1.0, 1.25, 2.0, 9.0)] == [
        100.0, 100.0, 150.0, 300.0, 300.0,
    ]  # fmt: skip
    assert done_at([], 1.0) == 0.0


def test_what_is_kept_is_the_rate_under_attack_beside_that_before_and_after() -> None:
    seen = turn_of(telling(120.0, 80.0, 80.0), PARTS, 1_500)
    assert seen.quiet == pytest.approx((120.0, 80.0))
    assert seen.attacked == pytest.approx(80.0)
    assert seen.kept == pytest.approx(0.8)
    assert (seen.made, seen.lasted_s) == (1_500, 10.5)


def test_a_program_that_stands_still_to_the_end_of_an_attack_has_lost_that_time() -> None:
    told = telling(100.0, 100.0, 100.0)
    # It says nothing from the middle of the attack on, and goes on after that.
    still = [word for word in told if word.at_s <= 15.5]
    done = still[-1].done
    still += [word._replace(done=word.done - told[42].done + done) for word in told[42:]]
    assert turn_of(still, PARTS, 1_500).kept == pytest.approx(4.5 / 10.0)


def test_a_program_that_has_ended_under_attack_keeps_nothing_of_what_would_come() -> None:
    seen = turn_of(telling(100.0, 100.0, 100.0, until_s=20.0), PARTS, 1_500)
    assert seen.quiet[1] == 0.0
    assert seen.kept == 0.0


def test_a_connection_costs_what_the_scheduler_took_beyond_its_tasks() -> None:
    # 4 s for 1,050 tasks when all is quiet, so 2 s for half as many; 6 s are the attack's.
    seen = turn_of(telling(100.0, 50.0, 100.0), PARTS, 1_000)
    assert seen.each_us == pytest.approx(6_000.0)
    assert "1,000 connections,     95/s, of the scheduler  6000 us each" in seen.words()


def test_the_first_moment_of_a_part_is_left_out() -> None:
    told = [Told(0, 0, 0.0), Told(1_000, 0, EDGE_S), Told(2_000, 0, 10.5), Told(2_000, 0, 40.0)]
    assert turn_of(told, PARTS, 1).quiet[0] == pytest.approx(100.0)


def test_an_attack_is_withstood_if_the_median_of_its_turns_is_enough() -> None:
    assert not complaint([turn(0.5), turn(KEPT_RATE), turn(1.0)])
    assert complaint([turn(0.79), turn(0.5), turn(1.0)]) == "less than 80%"


def test_a_turn_without_a_connection_was_no_attack() -> None:
    assert "made no connection" in complaint([turn(1.0), turn(1.0, made=0), turn(1.0)])


def test_a_program_that_stands_still_after_an_attack_has_not_withstood_it() -> None:
    still = turn(1.0)._replace(quiet=(100.0, 0.0))
    assert still.kept == 0.0
    assert "stood still" in complaint([turn(1.0), still, turn(1.0)])
