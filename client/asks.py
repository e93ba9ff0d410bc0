"""What the program asked of the scheduler and is not settled: cancels, and questions.

Never sends: it returns what is to be sent or answered. A cancel that wants no answer is remembered
until its task has ended, since a scheduler in its next life has to be asked again.
"""

from collections.abc import Container
from typing import NamedTuple

from ..protocol.drain import Drain
from ..protocol.ids import ObjectId, TaskId, task_of
from ..protocol.messages import Answer, Cancel, Cancelled, Query, ValueRow
from .events import Asked, CancelAsked, Command, Reply, Send


class How(NamedTuple):
    """How a task is to be cancelled; see messages.Cancel."""

    force: bool
    recursive: bool
    exit: bool = False

    def and_then(self, other: "How") -> "How":
        """Return what holds after a second word: the harder one of both."""
        return How(
            self.force or other.force, self.recursive or other.recursive, self.exit and other.exit
        )

    def message(self, ids: list[bytes], request: int = 0) -> Command:
        """Return what the scheduler is told."""
        return Send(Cancel(ids, self.force, self.recursive, request, self.exit))


class _Open(NamedTuple):
    """A cancel that wants an answer and has none."""

    #: the answer so far
    dropped: list[bool]
    #: task ids at the places that are still open
    places: dict[int, TaskId]
    how: How
    #: of those, the ones that may have started in a link life that ended
    charged: dict[TaskId, None]


class Asks:
    """All that is open.

    Args:
        charged: own tasks that may have started in link lives that ended.
    """

    __slots__ = ("_charged", "_freed", "abroad", "cancelled", "cancels", "questions")

    def __init__(self, charged: Container[TaskId]) -> None:
        self._charged = charged
        #: own unfinished tasks whose cancelling was asked for, and how
        self.cancelled: dict[TaskId, How] = {}
        #: the same of tasks submitted elsewhere, while one of their values is awaited here
        self.abroad: dict[TaskId, How] = {}
        #: of those, whose values are awaited no more, though the scheduler may not have heard
        self._freed: dict[TaskId, None] = {}
        #: asked, not answered, by request
        self.cancels: dict[int, _Open] = {}
        self.questions: dict[int, Query | Drain] = {}

    def cancel(
        self,
        event: CancelAsked,
        dropped: list[bool],
        places: dict[int, TaskId],
        own: Container[TaskId],
    ) -> list[Command]:
        """Ask for the cancelling of what is out.

        Args:
            event: what the program asked for.
            dropped: for each of its ids, whether it never was sent and now never will be.
            places: the tasks that are out, by their place in the event.
            own: the unfinished tasks of this client.
        """
        asked = How(event.force, event.recursive, event.exit)
        if event.restart:
            # Once: whatever lives by the time that a scheduler is asked again is not meant.
            ids: list[bytes] = list(places.values())
            return [Send(Cancel(ids, force=True, recursive=True, restart=True))] if ids else []
        if not event.request:
            for task in places.values():
                _note(self.cancelled if task in own else self.abroad, task, asked)
        elif places:
            made = self.cancels[event.request] = _Open(dropped, places, asked, {})
            self._note_charged(made)
        else:
            return [Reply(event.request, dropped)]
        return [asked.message(list(places.values()), event.request)] if places else []

    def answered(self, message: Cancelled, own: Container[TaskId]) -> Reply | None:
        """The scheduler says which had not started and now never will; None: nobody asked.

        It knows of this link life alone. What it ended is charged no more by the time of its word.
        """
        asked = self.cancels.pop(message.request, None)
        if asked is None:
            return None
        dropped, places, how, charged = asked
        for (place, task), was_dropped in zip(places.items(), message.dropped, strict=False):
            dropped[place] = was_dropped and task not in charged
            if was_dropped and task in own:
                # The program is told that it never starts; its end is still on its way.
                _note(self.cancelled, task, how)
        return Reply(message.request, dropped)

    def _note_charged(self, asked: _Open) -> None:
        for task in asked.places.values():
            if task in self._charged:
                asked.charged[task] = None

    def ask(self, event: Asked) -> list[Command]:
        """Ask the scheduler something."""
        message = event.message
        if message.request:
            self.questions[message.request] = message
        elif isinstance(message, Query) and message.named is not None:
            # Who has asked for that name has given up, and does not take it in a new link life.
            id_ = message.named.id
            for request, query in list(self.questions.items()):
                if isinstance(query, Query) and query.named is not None and query.named.id == id_:
                    del self.questions[request]
        return [Send(message)]

    def told(self, message: Answer) -> Reply | None:
        """The scheduler answers; None: nobody asked."""
        if self.questions.pop(message.request, None) is None:
            return None
        return Reply(message.request, message.data)

    def ended(self, resolved: list[ValueRow], freed: list[ObjectId], *, is_up: bool) -> None:
        """Forget tasks of others that have ended, or of which nobody here waits for anything.

        While there is no connection the latter are kept: a scheduler in its next life is to hear.
        """
        for row in resolved:
            self._forget(task_of(ObjectId(row.id)))
        for id_ in freed:
            task = task_of(id_)
            if is_up:
                self._forget(task)
            elif task in self.abroad:
                self._freed[task] = None

    def _forget(self, task: TaskId) -> None:
        self.abroad.pop(task, None)
        self._freed.pop(task, None)

    def again(self, *, restarted: bool) -> list[Command]:
        """Return all that is open, for a new link life.

        Args:
            restarted: it begins with a scheduler that was restarted; else everything that was
                cancelled has come to its end with the life before.
        """
        commands: list[Command] = []
        if restarted:
            alike: dict[How, list[bytes]] = {}
            for noted in (self.cancelled, self.abroad):
                for task, how in noted.items():
                    alike.setdefault(how, []).append(task)
            commands += [how.message(ids) for how, ids in alike.items()]
        self.told_all()
        for request, asked in self.cancels.items():
            self._note_charged(asked)
            commands.append(asked.how.message(list(asked.places.values()), request))
        return commands + [Send(query) for query in self.questions.values()]

    def told_all(self) -> None:
        """There is a connection again, and what was asked for without one is on its way."""
        for task in list(self._freed):
            self._forget(task)

    def sizes(self) -> dict[str, int]:
        """Return the size of every map."""
        return {
            "cancelled": len(self.cancelled),
            "abroad": len(self.abroad),
            "cancels": len(self.cancels),
            "questions": len(self.questions),
        }


def _note(noted: dict[TaskId, How], task: TaskId, asked: How) -> None:
    # Of two words, the harder one counts: a task that is being killed is not spared by a second.
    before = noted.get(task)
    noted[task] = asked if before is None else before.and_then(asked)
