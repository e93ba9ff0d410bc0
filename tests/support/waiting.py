"""Waiting for what other processes do: as long as it takes, and no longer than a limit."""

import time
from collections.abc import Callable
from typing import Any

LOOK_EACH_S = 0.005


def until(holds: Callable[[], Any], within_s: float = 20.0) -> Any:
    """Look again and again until something holds, and return it.

    Raises:
        AssertionError: it did not within the limit.
    """
    end_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end_s, f"it did not happen within {within_s:g} s"
        time.sleep(LOOK_EACH_S)
    return found
