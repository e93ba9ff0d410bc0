"""How hard a keeper ends its node, by how often it is told to."""

from drumbeat.node.ladder import Ladder, Step


def test_a_first_term_drains_a_second_hurries_and_a_third_ends() -> None:
    ladder = Ladder(is_owned=False, exit_grace_s=2.0)
    assert ladder.step(0.0, True) is Step.NOTHING
    steps = []
    for at_s in (1.0, 2.0, 3.0):
        ladder.terms += 1
        steps += [ladder.step(at_s, True), ladder.step(at_s + 0.5, True)]
    assert steps == [Step.DRAIN, Step.NOTHING, Step.HURRY, Step.NOTHING, Step.END, Step.NOTHING]


def test_a_drain_has_no_end_of_its_own_in_the_keeper() -> None:
    ladder = Ladder(is_owned=False, exit_grace_s=2.0)
    ladder.terms = 1
    assert ladder.step(0.0, True) is Step.DRAIN
    assert ladder.due_s is None
    assert ladder.step(1e6, True) is Step.NOTHING


def test_two_at_once_hurry_and_three_end() -> None:
    for terms, step in ((2, Step.HURRY), (3, Step.END), (9, Step.END)):
        ladder = Ladder(is_owned=False, exit_grace_s=2.0)
        ladder.terms = terms
        assert ladder.step(0.0, True) is step


def test_an_owned_node_takes_its_leave_and_ends_when_its_grace_is_over() -> None:
    ladder = Ladder(is_owned=True, exit_grace_s=2.0)
    ladder.terms = 1
    assert ladder.step(5.0, True) is Step.LEAVE
    assert ladder.due_s == 7.0
    assert ladder.step(6.9, True) is Step.NOTHING
    assert ladder.step(7.0, True) is Step.END


def test_an_owned_node_that_is_told_twice_ends() -> None:
    ladder = Ladder(is_owned=True, exit_grace_s=2.0)
    ladder.terms = 1
    assert ladder.step(5.0, True) is Step.LEAVE
    ladder.terms = 2
    assert ladder.step(5.1, True) is Step.END


def test_without_a_daemon_there_is_nothing_to_wait_for() -> None:
    for is_owned in (True, False):
        ladder = Ladder(is_owned, 2.0)
        ladder.terms = 1
        assert ladder.step(0.0, False) is Step.END
