"""What a daemon says of itself when asked by SIGUSR2: one line of JSON in its log.

Never more than counts: nothing of what users submitted is in it.
"""

import json
import os
from collections.abc import Mapping
from typing import Final

from .lines import say

#: what the line begins with, after the daemon's name
WORD: Final = "sizes"


def say_sizes(who: str, at_rest: Mapping[str, int], registered: Mapping[str, int]) -> None:
    """Write the line.

    Args:
        who: scheduler, or node and its name.
        at_rest: sizes of what is empty when there is nothing to do.
        registered: sizes of what is empty when nobody is there.
    """
    told = {
        "pid": os.getpid(),
        "memory_bytes": _memory_bytes(),
        "descriptors": _descriptors(),
        "at_rest": dict(at_rest),
        "registered": dict(registered),
    }
    say(f"drumbeat {who} {WORD} {json.dumps(told)}")


def _memory_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _descriptors() -> int:
    for directory in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(directory)) - 1  # the one that lists
        except OSError:
            continue
    return 0
