"""Which attempt of a call it was, as people read it in every error that tells of one.

Never counts anything.
"""

from typing import Final

#: from so many retries on it is not told how many there are: the user asked for no end of them
TOLD_MAX: Final = 1 << 30


def attempt_text(attempt: int, max_retries: int) -> str:
    """Return "attempt 2 of 4", or "attempt 2" where there is no end of them."""
    return f"attempt {attempt}" + (f" of {max_retries + 1}" if max_retries < TOLD_MAX else "")
