"""Lines about what others did wrong."""

from drumbeat.protocol.complaints import LINES_MAX, WITHIN_S, Complaints


def test_so_many_lines_are_written_and_the_rest_is_counted() -> None:
    complaints = Complaints()
    told = [line for number in range(1000) for line in complaints.lines(f"no {number}", 5.0)]
    assert told == [f"no {number}" for number in range(LINES_MAX)]
    assert complaints.lines("again", 5.0 + WITHIN_S) == [
        f"({1000 - LINES_MAX} more lines of this sort were left out)",
        "again",
    ]


def test_a_rare_line_is_always_written() -> None:
    complaints = Complaints()
    for number in range(10 * LINES_MAX):
        assert complaints.lines("rare", number * WITHIN_S) == ["rare"]
