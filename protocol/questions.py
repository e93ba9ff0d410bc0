"""What anybody may ask the scheduler, and the form of its answers.

Nothing here may hold behaviour.
"""

from typing import Any

from .actors import ActorName
from .forms import Count, Message


class Query(Message, tag="query"):
    """Anyone -> scheduler: what is there, what runs, what happened; answered by Answer."""

    #: 0, of one that lets a name go: nobody waits for an answer
    request: int
    #: status, nodes, tasks, actors, objects, stack, events, top or name
    what: str
    limit: Count = 100
    #: tasks, actors, objects: only those whose name or id begins so; stack: the id of a task or an
    #: actor, NODE/PID, PID, or all; events: only those whose kind, severity, node or id begins so
    match: str = ""
    #: events: the first `limit` from this number on; 0: the last `limit`
    since: Count = 0
    #: name: of an actor
    named: ActorName | None = None


class Answer(Message, tag="answer"):
    """Scheduler -> asker: plain data (maps, lists, text, numbers)."""

    request: int
    data: Any
