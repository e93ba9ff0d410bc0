"""What the end of a link life makes void: messages that were about to be sent in it.

Never touches what the program waits for: only commands to the link go.
"""

from ..protocol.ids import TaskId
from ..protocol.messages import Submit
from .events import Command, Send, SendBlob


def without_sends(commands: list[Command]) -> tuple[list[Command], dict[TaskId, None]]:
    """Return the commands that are not for the link, and the tasks of those that are."""
    kept: list[Command] = []
    tasks: dict[TaskId, None] = {}
    for command in commands:
        if type(command) is Send:
            if type(command.message) is Submit:
                tasks.update((TaskId(row.id), None) for row in command.message.rows)
        elif type(command) is not SendBlob:
            kept.append(command)
    return kept, tasks
