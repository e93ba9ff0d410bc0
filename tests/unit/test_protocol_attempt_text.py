"""Which attempt of how many, in words."""

import pytest
from drumbeat.protocol.attempt_text import attempt_text


@pytest.mark.parametrize(
    ("attempt", "max_retries", "text"),
    [
        (1, 0, "attempt 1 of 1"),
        (2, 3, "attempt 2 of 4"),
        # What the option allows at most, less what was charged before it was submitted again.
        (7, (1 << 31) - 5, "attempt 7"),
    ],
)
def test_where_there_is_no_end_of_attempts_their_number_is_not_told(
    attempt: int, max_retries: int, text: str
) -> None:
    assert attempt_text(attempt, max_retries) == text
