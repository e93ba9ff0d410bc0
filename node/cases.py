"""The case against a call: why it is to end, what was done about it, what was seen of it.

Never judges and never acts: `limits` and `hangs` open a case, `stops` writes down its steps, and
whoever tells the outcome tells it from here.
"""

from base64 import b64encode
from itertools import pairwise
from typing import Any, Final

from ..protocol.stack_text import in_a_line, thread_of

CANCELLED: Final = "cancelled"
DRAIN: Final = "drain"
HUNG: Final = "hung"
TIMED_OUT: Final = "timed_out"
MEMORY: Final = "memory"
UNHEALTHY: Final = "unhealthy"

#: what an outcome is called; who is cancelled or drained is told of in another way
ERRORS: Final = {
    HUNG: "TaskHung", TIMED_OUT: "TaskTimedOut", MEMORY: "WorkerOutOfMemory",
    UNHEALTHY: "ActorUnhealthy",
}  # fmt: skip
#: of the stacks of all threads so much is kept, the end, where the main thread is
STACKS_BYTES_MAX: Final = 16 << 10
#: of that, for the thread that runs the call
OWN_BYTES_MAX: Final = 8 << 10
#: what stands before a stack whose beginning did not fit
CUT: Final = "\nThread 0x0000000000000000 (most recent call first):\n  ...\n"
#: names of steps, as people read them
CANCEL, TERM, KILL = "cancel", "SIGTERM", "SIGKILL"
_GIB: Final = 1 << 30
_MIB: Final = 1 << 20


class Case:
    """See the module.

    Args:
        reason: one of page.REASONS, or UNHEALTHY.
        offence: in words, after the name of the call: "made no progress for 120 s".
        verdict: what the node makes of the call: "deadlock".
        evidence: why.
        limit: the option or setting that says so.
        limit_s: its value, if that is a time.
        elapsed_s: since the call began.
    """

    __slots__ = (
        "_text", "awaits", "awaits_beside", "beside", "elapsed_s", "evidence", "is_unbegun",
        "limit", "limit_bytes", "limit_s", "looked", "no_stack", "offence", "partial",
        "peak_bytes", "progress", "progress_s", "raised", "reason", "stacks", "stacks_at", "steps",
        "verdict",
    )  # fmt: skip

    def __init__(
        self,
        reason: str,
        offence: str = "",
        verdict: str = "",
        evidence: str = "",
        *,
        limit: str = "",
        limit_s: float = 0.0,
        elapsed_s: float = 0.0,
    ) -> None:
        self.reason = reason
        self.offence = offence
        self.verdict = verdict
        self.evidence = evidence
        self.limit = limit
        self.limit_s = limit_s
        self.elapsed_s = elapsed_s
        self.limit_bytes = self.peak_bytes = 0
        #: "310/900", and how long ago it said so; "": it never did
        self.progress = ""
        self.progress_s = 0.0
        #: (name, when)
        self.steps: list[tuple[str, float]] = []
        #: its stacks were asked for; they are not here yet
        self.looked = self.awaits = False
        self.stacks = self.stacks_at = self.no_stack = ""
        self._text = ""
        #: it has been asked for what is next
        self.awaits_beside = False
        #: of a call that runs beside others: where it is, by its worker's own word
        self.beside = ""
        #: it is against one that did not get its turn; until that has been taken back
        self.is_unbegun = False
        #: a value that came all the same, pickled
        self.partial: bytes | None = None
        #: the traceback of what an actor's __health__ raised
        self.raised = ""

    @property
    def is_verdict(self) -> bool:
        """Whether the outcome is this, whatever still comes."""
        return self.reason in ERRORS

    def blamed_on(self, name: str) -> "Case":
        """Return why an actor ended together with the call of that name, which this is against."""
        return Case(CANCELLED, f"{name} {self.offence.rstrip(',')}")

    def saw(self, text: str, why: str, at: str) -> None:
        """Where its threads are, or why that is not known."""
        self.awaits = False
        self._text, self.no_stack, self.stacks_at = text, why, at
        self._put_together()

    def is_beside(self, text: str) -> None:
        """Where the call is, or which thread runs it, by its worker's own word."""
        self.awaits_beside, self.beside = False, text
        if not self.awaits:
            self._put_together()

    def _put_together(self) -> None:
        # The end is kept, where the main thread is, and where the thread is that runs the call.
        text, room = self._text, STACKS_BYTES_MAX - len(self.beside)
        if len(text) > room:
            own = thread_of(text, self.beside)[:OWN_BYTES_MAX] + CUT
            text = own + text[-(room - len(own)) :]
        self.stacks = self.beside + text

    def took(self, step: str, now_s: float) -> None:
        """A step was taken."""
        self.steps.append((step, now_s))

    def actions(self) -> str:
        """Return all that was done, in words."""
        words = []
        if self.stacks:
            words.append(f"stack {self.stacks_at}".rstrip())
        elif self.no_stack:
            words.append(f"no stack: {self.no_stack}")
        for (step, at_s), (_, next_s) in pairwise(self.steps):
            words.append(f"{step}, no effect in {seconds(next_s - at_s)}")
        words += [step for step, _ in self.steps[-1:]]
        return " · ".join(words)

    def headline(self, name: str, node: str, pid: int, which: str) -> str:
        """Return what happened, in one line; `which` attempt it was."""
        where = f"pid {pid}, " if pid else ""
        return f"{name} {self.offence} on node {node} ({where}{which})"

    def details(self, last_details: bytes | None) -> dict[str, Any]:
        """Return what becomes the error's attributes; see `protocol.errors`."""
        if self.reason == UNHEALTHY:
            return {"traceback_text": self.raised}
        told: dict[str, Any] = {
            "verdict": f"{self.verdict}: {self.evidence}" if self.evidence else self.verdict,
            "evidence": self.evidence,
            "elapsed_s": round(self.elapsed_s, 3),
            "limit": self.limit,
            "limit_s": self.limit_s,
            "progress": self.progress,
            "progress_s": round(self.progress_s, 3),
            "actions": self.actions(),
            "stack": in_a_line(self.stacks),
            "stacks": self.stacks[-STACKS_BYTES_MAX:],
        }
        if self.reason == MEMORY:
            told |= {"limit_bytes": self.limit_bytes, "peak_bytes": self.peak_bytes}
        if last_details is not None:
            # Pickled, for whoever asked for the call; only text can travel here.
            told["pickled_details"] = b64encode(last_details).decode("ascii")
        return told


def seconds(amount_s: float) -> str:
    """Return a time in words, no finer than anybody needs."""
    digits = 0 if amount_s >= 9.95 else 1 if amount_s >= 0.995 else 2
    return f"{round(amount_s, digits):g} s"


def size(amount_bytes: float) -> str:
    """Return an amount of memory in words."""
    unit, name = (_GIB, "GiB") if amount_bytes >= _GIB else (_MIB, "MiB")
    amount = amount_bytes / unit
    return f"{amount:.0f} {name}" if amount >= 100 else f"{amount:.3g} {name}"


def progress_text(done: float, total: float) -> str:
    """Return how far a call is: "310/900", or "310" where the end is not known."""
    return f"{done:g}/{total:g}" if total >= 0.0 else f"{done:g}"
