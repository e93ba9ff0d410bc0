"""The client's decisions: what is submitted and not yet in hand, what the scheduler is told.

Never blocks, never reads a clock, never touches a socket. `handle` takes one event and fills
outboxes; `turn` hands out the commands of a whole loop turn, so the price is paid a turn, not a
task. What was submitted is kept until its result is in hand: in a new link life (the scheduler was
restarted, or gave us up) all of it is told again, save what may have run and must not run twice;
see lives.py.
"""

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from ..protocol import messages
from ..protocol.actors import ActorName
from ..protocol.ahead import task_ahead
from ..protocol.ids import ObjectId, PeerId, TaskId, home_of, objects_of
from ..protocol.messages import AnyMessage, Environment, TaskRow
from ..protocol.recovery import Recovered
from ..protocol.settings import Settings
from ..protocol.yields import HowFar, ItemsTaken
from . import events, lives
from .asks import Asks
from .budget import Budget
from .credits import Credits
from .events import (
    Call,
    Command,
    Free,
    Print,
    Resolve,
    Send,
    SendBlob,
    SendSegment,
    ShapesKnown,
    Stow,
)
from .home import Entry, Home
from .invariants import check
from .kinds import Kinds
from .lives import SUBMIT_ROWS_MAX
from .results import Results
from .stock import stock_of


class ClientCore:
    """See the module.

    Args:
        settings: of this process.
        peer: this client's id.
        name: the program's name, for people.
        environment: what workers need to find the program's code.
        moves: what is large goes past the scheduler.
    """

    def __init__(
        self,
        settings: Settings,
        peer: PeerId,
        name: str,
        environment: Environment,
        *,
        moves: bool = False,
    ) -> None:
        self._settings = settings
        self._peer = peer
        self._name = name
        self._environment = environment
        self.home = Home(peer, settings, environment.host, moves=moves)
        self.kinds = Kinds(settings.inline_bytes_max)
        self._credits = Credits()
        self._budget = Budget()
        self._asks = Asks(self._budget.charged)
        self._cancelled = self._asks.cancelled
        self.counters: dict[str, int] = {"stale_dropped": 0, "resubmitted": 0}
        self.results = results = Results(
            self.home, self.kinds, self._budget, self._cancelled, self.counters
        )
        #: what is unfinished, and what of that is unsent
        self.tasks = results.tasks
        self._unsent = results.unsent
        self._up = False
        self._epoch = 0
        self._commands: list[Command] = []
        self._departing: list[TaskRow] = []
        #: rare events and why: (now_s, what)
        self.story: deque[tuple[float, str]] = deque(maxlen=256)
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            events.Connected: self._on_connected,
            events.Disconnected: self._on_disconnected,
            events.Received: self._on_received,
            events.BlobReceived: self._on_blob,
            events.Submitted: self._on_submitted,
            events.Put: lambda event, _now_s: self.home.keep(event.rows),
            events.RefsChanged: lambda event, _now_s: self.home.change_refs(event.changes),
            events.Pinned: self._on_pinned,
            events.Awaited: lambda event, _now_s: self.home.fetch(event.ids),
            events.CancelAsked: self._on_cancel_asked,
            events.Asked: self._on_asked,
            events.KindsDropped: lambda event, _now_s: self.kinds.drop(event.kinds),
            events.ItemsRead: self._on_items_read,
            events.RoomLeft: self._on_room_left,
            events.Leaving: self._on_leaving,
            events.TimePassed: lambda _event, _now_s: None,
            messages.Results: results.came,
            messages.Retried: lambda told, _: self._budget.told(told.rows, self.tasks),
            messages.Values: self._on_values,
            messages.Wanted: lambda message, _now_s: self.home.want(message.ids),
            messages.Shared: lambda message, _: self.home.share(message.ids, shared=True),
            messages.Unshared: lambda message, _: self.home.share(message.ids, shared=False),
            messages.Cancelled: self._on_cancelled,
            messages.Answer: self._on_answer,
            messages.Output: self._on_text,
            messages.Notice: self._on_text,
            messages.Shapes: self._on_shapes,
            HowFar: lambda message, _now_s: results.streams.asked(message.ids),
            messages.Credit: lambda message, _now_s: self._credits.granted(message),
            messages.TakeStock: lambda message, _: self._commands.append(
                events.TellStock(stock_of(message, self.home, self.kinds, self.tasks))
            ),
            Recovered: lambda _, __: lives.recovered(self.home, self._budget, self._epoch),
        }

    # ------------------------------------------------------------------------------ the door

    def handle(self, event: events.Event, now_s: float) -> list[Command]:
        """Take one event; what it leads to is handed out by `turn`."""
        self._handlers[type(event)](event, now_s)
        return []

    def turn(self, now_s: float) -> list[Command]:
        """Return the commands of all events since the last turn, to be carried out in order."""
        home, kinds, taken = self.home, self.kinds, self.results.streams
        if kinds.dropped:
            kinds.forget_unused(len(self.tasks), self.tasks.values)
        if self._departing:
            self._depart()
        while home.unheld:
            self._end_unheld(now_s)
        if self._up:
            if self._unsent and self._credits.worth_a_look(
                len(self.tasks) - len(self._unsent), self.results.finished_bytes
            ):
                self._send_on()
            if kinds.news:
                self._tell_kinds()
            if home.answers or home.fetches or home.releases or kinds.forgotten or taken.news:
                self._commands += home.news()
                self._tell_rest()
        if home.blobs or home.segments or home.filed:
            self._tell_large()
        if self._asks.abroad and (home.resolved or home.freed):
            self._asks.ended(home.resolved, home.freed, is_up=self._up)
        if home.resolved:
            self._commands.append(Resolve(home.resolved))
            home.resolved = []
        if home.freed:
            self._commands.append(Free(home.freed))
            home.freed = []
        commands = self._commands
        if commands:
            self._commands = []
        return commands

    def _tell_large(self) -> None:
        home = self.home
        self._commands += [SendBlob(key, payload, key) for key, payload in home.blobs]
        self._commands += [SendSegment(id_) for id_ in home.segments]
        if home.filed:
            self._commands.append(Stow(home.filed))
        home.blobs, home.segments, home.filed = [], [], []

    def deadline_s(self) -> float | None:
        """Return None: nothing here happens by time alone."""
        return None

    def _send(self, message: AnyMessage) -> None:
        self._commands.append(Send(message))

    def _on_received(self, event: events.Received, now_s: float) -> None:
        self._handlers[type(event.message)](event.message, now_s)

    # ---------------------------------------------------------------------------- submitting

    def _on_submitted(self, event: events.Submitted, _now_s: float) -> None:
        if event.kinds:
            self.kinds.add(event.kinds)
        tasks, entries, departing = self.tasks, self.home.entries, self._departing
        inline_bytes_max = self._settings.inline_bytes_max
        for call in event.calls:
            row = call.row
            id_ = row.id
            tasks[id_] = call  # type: ignore[index]
            options = call.options
            if options.num_returns == 1:
                entries[id_] = Entry(kind=row.kind)  # type: ignore[index]
            elif options.stream_buffer_max:
                self.results.streams.begin(TaskId(id_), row.kind)
            else:
                self._expect_values(TaskId(id_), row.kind, options.num_returns)
            if options.actor:
                self.home.pin((options.actor,))
            elif options.creates is not None:
                entries[id_].is_actor = not options.creates.detached  # type: ignore[index]
            args = row.args
            if row.deps or row.contained:
                self.home.pin(row.deps)
                self.home.pin(row.contained)
                departing.append(self.home.dressed(row, row.kind))
            elif args is not None and len(args) > inline_bytes_max:
                departing.append(self.home.dressed(row, row.kind))
            else:
                departing.append(row)

    def _expect_values(self, id_: TaskId, kind: int, num_returns: int) -> None:
        for object_id in objects_of(id_, num_returns):
            self.home.entries[object_id] = Entry(kind=kind)
        self.results.remaining[id_] = num_returns

    def _depart(self) -> None:
        rows, self._departing = self._departing, []
        # What waits goes first.
        count = 0
        if self._up and not self._unsent:
            out = len(self.tasks) - len(rows)
            count = self._credits.take(rows, out, self.results.finished_bytes)
        if count < len(rows):
            self._unsent.update((TaskId(row.id), None) for row in rows[count:])
            rows = rows[:count]
        if rows:
            self._submit(rows, [])

    def _send_on(self) -> None:
        """Send of what waits as much as the credit allows."""
        tasks, unsent = self.tasks, self._unsent
        while unsent:
            part = list(islice(unsent, SUBMIT_ROWS_MAX))
            rows = [self._again(task, tasks[task]) for task in part]
            out = len(tasks) - len(unsent) - len(self._departing)
            count = self._credits.take(rows, out, self.results.finished_bytes)
            for task in part[:count]:
                del unsent[task]
            if count:
                self._submit(rows[:count], [])
            if count < len(part):
                return

    def _submit(self, rows: list[TaskRow], attempts: list[int]) -> None:
        if self.kinds.news:
            self._tell_kinds()
        self._commands += lives.submits(self._peer, rows, attempts)
        for row in rows:
            if row.args is None and row.size:
                self._send_arguments(self.tasks[TaskId(row.id)])

    def _send_arguments(self, call: Call) -> None:
        payload, creates = call.row.args, call.options.creates
        if payload is not None:
            key = call.row.id + b"a"
            # What makes a detached actor outlives this program.
            outlives = creates is not None and creates.detached
            self._commands.append(SendBlob(key, payload, b"" if outlives else key))

    def _tell_kinds(self) -> None:
        rows, blobs = self.kinds.untold()
        if rows:
            self._send(messages.Define(self._peer, rows))
            self._commands += [SendBlob(key, payload) for key, payload in blobs]

    def _tell_rest(self) -> None:
        taken = self.results.streams
        if taken.news:
            self._send(ItemsTaken(taken.told()))
        if self.kinds.forgotten:
            self._send(messages.Forget(self.kinds.forgotten))
            self.kinds.forgotten = []

    def _on_pinned(self, event: events.Pinned, _now_s: float) -> None:
        self.home.pin(event.ids)
        for id_ in event.ids:
            self.home.pinned[id_] = self.home.pinned.get(id_, 0) + 1

    # ------------------------------------------------------------------------------- results

    def _on_blob(self, event: events.BlobReceived, _now_s: float) -> None:
        task = task_ahead(event.key)
        if task is not None:
            if task in self.tasks:
                self.home.ahead.came(event.key, event.payload)
            return
        row = self.home.payload_came(event.key, event.payload)
        if row is None:
            return
        if home_of(ObjectId(row.id)) == self._peer:
            self.results.one_came(row)
        else:
            self.home.fetched(row)

    def _on_values(self, message: messages.Values, _now_s: float) -> None:
        for row in message.rows:
            if self.home.filled(row):
                self.home.fetched(row)

    # ---------------------------------------------------------------------------- cancelling

    def _on_cancel_asked(self, event: events.CancelAsked, now_s: float) -> None:
        self._depart()
        places: dict[int, TaskId] = {}
        dropped = [False] * len(event.ids)
        for place, task in enumerate(event.ids):
            if task in self._unsent:
                if event.restart:
                    continue  # it has not begun
                # Beyond the credit, it may have been sent in an earlier life.
                dropped[place] = task not in self._budget.charged
                self._cancel_unsent(task)
            elif task in self.tasks or home_of(task) != self._peer:
                places[place] = task
        self.story.append((now_s, f"cancel {len(event.ids)}, of which {len(places)} are out"))
        self._ask(self._asks.cancel(event, dropped, places, self.tasks))

    def _end_unheld(self, now_s: float) -> None:
        unheld, self.home.unheld = dict.fromkeys(self.home.unheld), []
        named = [TaskId(id_) for id_ in unheld]
        tasks = [task for task in named if task in self.tasks and task not in self._cancelled]
        if tasks:
            self._on_cancel_asked(events.CancelAsked(tasks, False, False, exit=True), now_s)

    def _on_items_read(self, event: events.ItemsRead, now_s: float) -> None:
        unread = self.results.streams.read(event.rows)
        tasks = [task for task in unread if task in self.tasks and task not in self._cancelled]
        if tasks:
            self._on_cancel_asked(events.CancelAsked(tasks, False, True), now_s)

    def _cancel_unsent(self, task: TaskId) -> None:
        call = self.tasks[task]
        self._credits.sent([call.row])
        creates = call.options.creates
        if creates is not None and creates.name:
            named = ActorName(creates.name, creates.namespace, task, frees=True)
            self._ask([Send(messages.Query(0, "name", named=named))])
        self.results.fail(task, "TaskCancelled", "was cancelled before it was sent")

    def _on_cancelled(self, message: messages.Cancelled, _now_s: float) -> None:
        self._reply(self._asks.answered(message, self.tasks))

    # ------------------------------------------------------------------------- asking, words

    def _on_asked(self, event: events.Asked, _now_s: float) -> None:
        self._ask(self._asks.ask(event))

    def _on_answer(self, message: messages.Answer, _now_s: float) -> None:
        self._reply(self._asks.told(message))

    def _ask(self, commands: list[Command]) -> None:
        # Without a connection the link keeps it; in a new life it is asked again.
        self._commands += [one for one in commands if self._epoch or type(one) is not Send]

    def _reply(self, reply: events.Reply | None) -> None:
        if reply is None:
            self.counters["stale_dropped"] += 1
        else:
            self._commands.append(reply)

    def _on_text(self, message: messages.Output | messages.Notice, _now_s: float) -> None:
        self._commands.append(Print(message))

    def _on_shapes(self, message: messages.Shapes, _now_s: float) -> None:
        self._commands.append(ShapesKnown(message))

    def _on_room_left(self, event: events.RoomLeft, _now_s: float) -> None:
        self.home.fullness = event.fullness

    def _on_leaving(self, _event: events.Leaving, now_s: float) -> None:
        self.story.append((now_s, "leaving"))
        if self._up:
            self._depart()
            self._send(messages.Leave())

    # ----------------------------------------------------------------------------- link lives

    def _on_disconnected(self, _event: events.Disconnected, now_s: float) -> None:
        self._depart()  # what was submitted before this may be on the link
        self._up = False
        self.story.append((now_s, "disconnected"))

    def _on_connected(self, event: events.Connected, now_s: float) -> None:
        earlier, self._epoch = self._epoch, event.epoch
        self._depart()
        self._up = True
        self.story.append((now_s, f"connected: epoch {event.epoch}, resumed {event.resumed}"))
        if event.resumed and earlier:
            self._asks.told_all()
            self._send_on()
            return
        self._commands, never_sent = lives.without_sends(self._commands)
        self._unsent.update(never_sent)
        for task in [one for one in self._cancelled if one in self._unsent]:
            self.results.fail(task, "TaskCancelled", "was cancelled before it was sent")
        restarted = self._budget.outlives(earlier, event.epoch)
        attempts: list[int] = []
        if restarted:
            attempts = self._outlive_scheduler(now_s)
        elif earlier:
            self._judge_lost_link(now_s)
        self._send(messages.Enter(self._name, self._environment, self._budget.settled))
        self._register(attempts)
        self._commands += self._asks.again(restarted=restarted)
        if restarted:
            self._commands += lives.last_words(self.home)

    def _register(self, attempts: list[int]) -> None:
        """Submit all that is unfinished: what was sent to the life before, the rest on credit."""
        bytes_max = -1 if self._budget.charged else self._settings.inline_bytes_max
        rows = lives.rows_of(self.tasks, bytes_max, self._again)
        known = next((at for at in range(len(attempts), 0, -1) if attempts[at - 1]), 0)
        self._credits.start_anew(self.results.finished_bytes)
        self._credits.sent(rows[:known])
        count = known + self._credits.take(rows[known:], known, self.results.finished_bytes)
        self._unsent.clear()
        self._unsent.update((TaskId(row.id), None) for row in rows[count:])
        self._submit(rows[:count], attempts[:count])
        for asked in self._asks.cancels.values():
            for task in [one for one in asked.places.values() if one in self._unsent]:
                self._cancel_unsent(task)

    def _outlive_scheduler(self, now_s: float) -> list[int]:
        self.home.outlive_scheduler()
        self.kinds.start_anew()
        self._commands.append(lives.notice(len(self.tasks)))
        self.story.append((now_s, f"scheduler restarted: {len(self.tasks)} told again"))
        return lives.attempts_of(self.tasks, self._unsent, self._budget)

    def _judge_lost_link(self, now_s: float) -> None:
        self.home.start_anew()
        self.kinds.start_anew()
        for task in list(self._cancelled):
            self.results.fail(task, "TaskCancelled", "was cancelled")
        spent = lives.spent(self.tasks, self._unsent, self._budget)
        for task, call in spent:
            self.results.fail(task, *lives.why_spent(call.options))
        self.story.append((now_s, f"given up: {len(spent)} failed, {len(self.tasks)} sent anew"))

    def _again(self, task: TaskId, call: Call) -> TaskRow:
        row, charged = call.row, self._budget.charged.get(task, 0)
        self.counters["resubmitted"] += bool(charged)
        if charged:
            return self.home.dressed(row, self.kinds.with_fewer_retries(row.kind, charged))
        large = len(row.args or b"") > self._settings.inline_bytes_max
        return self.home.dressed(row, row.kind) if row.deps or large else row

    # ------------------------------------------------------------------------------- for proofs

    def at_rest(self) -> dict[str, int]:
        """Return the size of every map; all are 0 when nobody holds or waits for anything."""
        return {
            "tasks": len(self.tasks),
            "remaining": len(self.results.remaining),
            "unsent": len(self._unsent),
            "charged": len(self._budget.charged),
            "latest": len(self._budget.latest),
            "streams": len(self.results.streams.open),
            **self._asks.sizes(),
            **self.home.sizes(),
        }

    def check_invariants(self) -> None:
        """Assert that all maps agree; see invariants.py."""
        check(self)
