"""What a new link life means for what the life before left unfinished.

Never touches what the program waits for: it says what is void, what is charged, and what is said to
a scheduler again.

A life of the same scheduler begins when that scheduler has given this client up: its tasks were
cancelled, may have run, and are charged. A life of another epoch begins when the scheduler was
restarted: nodes and clients tell it what there is, nothing has stopped, and nothing is charged.
"""

from collections.abc import Callable, Mapping
from typing import Final

from ..protocol.ids import PeerId, TaskId
from ..protocol.messages import Fetch, Notice, Options, Submit, TaskRow
from ..protocol.recovery import Holding, Registered
from .budget import Budget
from .events import Call, Command, Print, Send, SendBlob, SendSegment
from .home import Home

#: rows of a Submit: enough to make its price small, few enough to be on the way early
SUBMIT_ROWS_MAX: Final = 512
#: rows of a Holding, which is not divided on its way
HOLDING_ROWS_MAX: Final = 4096


#: why what was sent to a scheduler which gave this client up is failed
MAY_HAVE_RUN: Final = (
    "may have run: the scheduler that it was sent to had given this client up, and {}={} "
    "allows no further attempt"
)
#: and why an actor is not created anew then, whatever `max_restarts` allows
MAY_LIVE: Final = (
    "may still live where nobody hears of it: the scheduler that it was sent to had given this "
    "client up, and with it all that it knew of its actors"
)


def why_spent(options: Options) -> tuple[str, str]:
    """Return the error, and its text, of what was sent to a scheduler that gave this client up."""
    if options.actor:
        return "ActorCallLost", MAY_HAVE_RUN.format("max_task_retries", options.max_retries)
    if options.creates is not None and not options.creates.detached:
        return "ActorDied", MAY_LIVE
    if options.creates is not None:
        return "ActorDied", MAY_HAVE_RUN.format("max_restarts", options.max_retries)
    return "NodeLost", MAY_HAVE_RUN.format("max_retries", options.max_retries)


def without_sends(commands: list[Command]) -> tuple[list[Command], dict[TaskId, None]]:
    """Return the commands that are not for the link, and the tasks that nobody ever was sent."""
    kept: list[Command] = []
    tasks: dict[TaskId, None] = {}
    for command in commands:
        if type(command) is Send:
            if type(command.message) is Submit:
                rows = command.message.rows
                attempts = command.message.attempts or [0] * len(rows)
                new = [row for row, n in zip(rows, attempts, strict=True) if not n]
                tasks.update((TaskId(row.id), None) for row in new)
        elif type(command) not in {SendBlob, SendSegment}:
            kept.append(command)
    return kept, tasks


def submits(peer: PeerId, rows: list[TaskRow], attempts: list[int]) -> list[Command]:
    """Return the messages that submit these rows.

    Args:
        peer: this client.
        rows: in the order of submission.
        attempts: see `Submit.attempts`.
    """
    if not any(attempts):
        attempts = []
        if 0 < len(rows) <= SUBMIT_ROWS_MAX:
            return [Send(Submit(peer, b"", 0, rows))]
    return [
        Send(Submit(peer, b"", 0, rows[at : at + step], attempts[at : at + step]))
        for step in (SUBMIT_ROWS_MAX,)
        for at in range(0, len(rows), step)
    ]


def spent(
    tasks: Mapping[TaskId, Call], unsent: Mapping[TaskId, None], budget: Budget
) -> list[tuple[TaskId, Call]]:
    """The scheduler had given us up: charge what was sent; return what has no attempt left.

    An actor has none: the scheduler has forgotten where it lived, and under which number. What is
    detached is the scheduler's own, and is known there.
    """
    return [
        (task, call)
        for task, call in tasks.items()
        if task not in unsent
        and (_is_own_actor(call.options) or not budget.spend(task, call.options.max_retries))
    ]


def _is_own_actor(options: Options) -> bool:
    return options.creates is not None and not options.creates.detached


def attempts_of(
    tasks: Mapping[TaskId, Call], unsent: Mapping[TaskId, None], budget: Budget
) -> list[int]:
    """The scheduler was restarted: return what `Submit.attempts` says of each task."""
    if not unsent and not budget.latest:
        return [1] * len(tasks)
    latest = budget.latest
    return [0 if task in unsent else latest.get(task, 1) for task in tasks]


def rows_of(
    tasks: Mapping[TaskId, Call], bytes_max: int, again: Callable[[TaskId, Call], TaskRow]
) -> list[TaskRow]:
    """Return the rows of all tasks as they are told again.

    Args:
        tasks: in the order of submission.
        bytes_max: a row without dependencies travels as it is if its arguments are not more.
        again: returns any other row as it travels.
    """
    return [
        row
        if not (row := call.row).deps and len(row.args or b"") <= bytes_max
        else again(task, call)
        for task, call in tasks.items()
    ]


def last_words(home: Home) -> list[Command]:
    """Return what ends the registration with a scheduler that was restarted."""
    holding = home.holding()
    commands: list[Command] = [
        Send(Holding(holding[at : at + HOLDING_ROWS_MAX]))
        for at in range(0, len(holding), HOLDING_ROWS_MAX)
    ]
    if home.fetches:
        commands.append(Send(Fetch(home.fetches)))
        home.fetches = []
    return [*commands, Send(Registered())]


def recovered(home: Home, budget: Budget, epoch: int) -> None:
    """A scheduler has told what became of everything that its earlier lives had left."""
    budget.settled = epoch
    home.recovered()


def notice(unfinished: int) -> Command:
    """Return what the user reads of a restart."""
    rest = (
        f"it was told again of {unfinished} unfinished tasks" if unfinished else "nothing is lost"
    )
    return Print(Notice(f"the scheduler was restarted; {rest}"))
