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


class RunningRow(Row):
    """A call that runs, and what its node makes of it."""

    id: TaskBytes
    attempt: Count
    #: since it started
    elapsed_s: Seconds
    #: starting, importing, unpickling, running, pickling, waiting or idle; "": nobody has looked
    phase: Word = ""
    #: running, blocked, gil-busy, gil-held, deadlock, stopped or unkillable, else the phase
    verdict: Word = ""
    #: for how long that has been so
    verdict_s: Seconds = 0.0
    #: the system call that it sleeps in, as far as that can be known
    where: Word = ""
    #: why the node thinks so, for people
    evidence: Sentence = ""


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
