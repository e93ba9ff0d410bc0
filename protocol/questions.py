"""What anybody may ask the scheduler, and the form of its answers.

Nothing here may hold behaviour.
"""

from typing import Any

from .forms import Count, Message


class Query(Message, tag="query"):
    """Anyone -> scheduler: `what` is status, nodes, tasks or stack; answered by Answer."""

    request: int
    what: str
    limit: Count = 100
    #: tasks: only those whose name or id begins so; stack: a task's id, NODE/PID, PID, or all
    match: str = ""


class Answer(Message, tag="answer"):
    """Scheduler -> asker: plain data (maps, lists, text, numbers)."""

    request: int
    data: Any
