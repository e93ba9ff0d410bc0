"""What may be thought of a call that runs, and for how long that may hold.

Never judges: `hangs` does, of processes, and `call_threads` of threads.
"""

from typing import Final, NamedTuple

from ..protocol.settings import Settings
from .page import CHECKPOINTING, HEALTH_CHECK, PHASE_NAMES

RUNNING: Final = "running"
BLOCKED: Final = "blocked"
LOOP_BLOCKED: Final = "loop-blocked"
GIL_BUSY: Final = "gil-busy"
GIL_HELD: Final = "gil-held"
DEADLOCK: Final = "deadlock"
STOPPED: Final = "stopped"
TELLS_STATE: Final = PHASE_NAMES[CHECKPOINTING]
#: its actor is asked whether it is well
ASKS_HEALTH: Final = PHASE_NAMES[HEALTH_CHECK]
UNKILLABLE: Final = "unkillable"


class Verdict(NamedTuple):
    """What is thought of a call, since when, and why."""

    name: str
    #: for how long that has been so
    for_s: float = 0.0
    #: system call, where it sleeps in one that is known
    where: str = ""
    evidence: str = ""


def limit_of(verdict: str, settings: Settings) -> tuple[str, float]:
    """Return the setting that says for how long a verdict may hold, and its value; 0: for ever."""
    if verdict == STOPPED:
        return "stopped_timeout_s", settings.stopped_timeout_s
    if verdict == TELLS_STATE:
        return "checkpoint_timeout_s", settings.checkpoint_timeout_s
    if verdict == ASKS_HEALTH:
        return "health_timeout_s", settings.health_timeout_s
    return "hang_timeout_s", settings.hang_timeout_s
