"""What a node tells of the calls that run on it, and how a stack is asked for.

    anybody:    Query("stack")      answered by Answer once the nodes have told
    scheduler:  Stack               whose stacks are wanted
    node:       Stacks              as they were then, as the interpreter wrote them

Nothing here may hold behaviour. Whatever a worker wrote is text of the user's program: whoever
shows it to a person makes it harmless first.
"""

from typing import Annotated

from msgspec import Meta

from .forms import Count, Message, Row, Seconds, TaskBytes

#: a beat tells of so many calls, those that have run longest
RUNNING_ROWS_MAX = 1000
#: the stacks of one worker, and of all that one answer of a node holds
STACK_BYTES_MAX = 64 << 10
STACKS_BYTES_MAX = 256 << 10

Word = Annotated[str, Meta(max_length=32)]
Sentence = Annotated[str, Meta(max_length=400)]
#: whatever the user counts; infinity and NaN are refused
Progress = Annotated[float, Meta(ge=-1e300, le=1e300)]


class RunningRow(Row):
    """A call that runs, and what its node makes of it."""

    id: TaskBytes
    attempt: Count
    #: since it started
    elapsed_s: Seconds
    #: starting, importing, unpickling, running, pickling, waiting, checkpointing, saving or idle
    #: (as far as is known it has not begun); "": nobody has looked
    phase: Word = ""
    #: running, blocked, loop-blocked, gil-busy, gil-held, deadlock, stopped or unkillable, else the
    #: phase
    verdict: Word = ""
    #: for how long that has been so
    verdict_s: Seconds = 0.0
    #: the system call that it sleeps in, as far as that can be known
    where: Word = ""
    #: why the node thinks so, for people
    evidence: Sentence = ""
    #: how far it is by its last progress(), and of how much; -1: it has not said how much
    done: Progress = 0.0
    total: Progress = -1.0
    #: since the last progress()
    progress_s: Seconds = -1.0
    #: how often it has called progress()
    progresses: Count = 0
    #: its worker's process; 0: unknown
    pid: Count = 0
    #: CPU seconds a second that it used when it was looked at last; -1: unknown
    cpu: Annotated[float, Meta(ge=-1, le=1e6)] = -1.0
    #: what its worker keeps in memory; 0: unknown
    memory_bytes: Count = 0


class Stack(Message, tag="stack"):
    """Scheduler -> node: tell the stacks of these workers; answered by Stacks of that number."""

    number: Count
    #: what runs these tasks
    tasks: list[TaskBytes]
    #: workers by process id
    pids: list[Count]
    #: every worker that runs something
    all: bool = False


class StackRow(Row):
    """The stacks of one worker's threads."""

    pid: Count
    #: what it runs; empty: nothing
    task: bytes
    name: str
    #: as `faulthandler` writes them; empty: there is none, `why` says the reason
    text: str
    why: str = ""


class Stacks(Message, tag="stacks"):
    """Node -> scheduler: what there is; `left_off` more had no room."""

    number: Count
    rows: list[StackRow]
    left_off: Count = 0
