"""Connections that end are counted by how far they came, though not all of that is told of each."""

from drumbeat.protocol.comers import UNKNOWN, Comers


def counts(comers: Comers) -> tuple[int, int, int]:
    """Return how many there are, how many were never let in, and how many were but said nothing."""
    comers.settle()
    return len(comers), comers.failed, comers.unheard


def test_who_speaks_and_goes_is_no_failure_and_its_routes_are_told() -> None:
    comers = Comers()
    comers.came(7)
    comers.entered()
    comers.spoke(7, b"a")
    assert counts(comers) == (1, 0, 0)
    assert comers.gone(7) == [b"a"]
    assert counts(comers) == (0, 0, 0)


def test_who_ends_before_it_is_let_in_has_failed() -> None:
    comers = Comers()
    comers.came(7)
    assert comers.gone(7) == []
    assert counts(comers) == (0, 1, 0)


def test_who_is_let_in_and_ends_before_a_word_is_counted_as_that() -> None:
    comers = Comers()
    comers.came(7)
    comers.entered()
    comers.gone(7)
    assert counts(comers) == (0, 0, 1)


def test_a_refused_key_is_counted_elsewhere() -> None:
    comers = Comers()
    comers.came(7)
    comers.refused()
    comers.gone(7)
    assert counts(comers) == (0, 0, 0)


def test_who_goes_while_another_is_about_to_speak_is_taken_for_that_one_only_until_it_does() -> (
    None
):
    comers = Comers()
    comers.came(7)
    comers.came(8)
    comers.entered()  # 8, which nobody can know
    comers.gone(7)
    assert counts(comers) == (1, 0, 1)
    comers.spoke(8, b"b")
    assert counts(comers) == (1, 1, 0)
    comers.gone(8)
    assert counts(comers) == (0, 1, 0)


def test_a_word_may_be_read_before_it_is_told_that_its_sender_was_let_in() -> None:
    comers = Comers()
    for descriptor in (7, 8):
        comers.came(descriptor)
    comers.entered()
    comers.gone(7)
    comers.spoke(8, b"b")
    comers.entered()
    assert counts(comers) == (1, 0, 1)


def test_routes_whose_descriptor_is_not_known_may_have_gone_with_anybody() -> None:
    comers = Comers()
    comers.came(7)
    comers.came(8)
    comers.spoke(UNKNOWN, b"old")
    comers.spoke(8, b"b")
    assert comers.gone(8) == [b"b", b"old"]
    assert comers.gone(7) == []
