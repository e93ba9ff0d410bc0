"""Actors: where their calls go and when, and what becomes of both when a process ends.

Never places an actor, nor ends an attempt: its creation is a task like any other. Never lets two
incarnations act: the next one begins when the last is proved dead, or cannot act any more.

    creation placed    as any task; its attempt's number is the incarnation
    ActorsUp           calls may go: of each caller in its order, a window's worth at a time
    its process ends   the creation is tried again; what was under way comes back, or is lost
    creation ended     all calls that wait end with ActorDied, and so do all later ones
"""

from collections.abc import Callable, Iterator
from typing import Final

from ..protocol.ids import ObjectId, TaskId, show
from ..protocol.messages import Outcome, StopMode, TaskRow, ValueRow
from .chronicle import WARNING
from .epitaphs import (
    call_lost,
    cannot_begin,
    died,
    ended_for_good,
    failed_call,
    not_restored,
    why,
)
from .hosts import CAUSES_MAX, Actor, Hosts, bytes_of, caller_of
from .lines import CALLER_BYTES, TURN_CALLS
from .objects import Objects
from .state import Node, State
from .tasks import (
    ASSIGNED,
    BACKOFF,
    DELIVERING,
    FINISHED,
    QUEUED,
    WAITING,
    Kind,
    TaskRecord,
    backoff_s,
)

NEVER_S: Final = float("inf")
#: a text of a cause is cut after so many characters
CAUSE_TEXT_MAX: Final = 300


class Actors:
    """See the module.

    Args:
        state: shared.
        objects: all values; the home of an unknown actor is asked for that of its creation.
        end: gives a task its outcome.
    """

    __slots__ = ("_end", "_objects", "_state", "hosts", "ward_over")

    def __init__(
        self,
        state: State,
        objects: Objects,
        end: Callable[[TaskRecord, list[ValueRow]], None],
    ) -> None:
        self._state = state
        self._objects = objects
        self._end = end
        self.hosts: Hosts = state.hosts
        objects.heard_of = self._heard_of
        #: called with the end of a detached actor; set by `Wards`
        self.ward_over: Callable[[TaskRecord, ValueRow], None] = _nobody_waits

    # ------------------------------------------------------------------------------------ submitted

    def refusal(self, row: TaskRow, kind: Kind) -> ValueRow | None:
        """Return why a new call has no value, if that is known already."""
        actor = kind.host
        if actor is None:
            taken = "" if kind.creates is None else self.hosts.names.refusal(row.id, kind.creates)
            return cannot_begin(row.id, kind, taken) if taken else None
        if actor.over is not None:
            return died(actor, row.id, kind)
        if actor.calls_max >= 0:
            waiting = actor.pending.get(row.id[:CALLER_BYTES], 0)
            if waiting >= actor.calls_max:
                text = (
                    f"{kind.name}: {waiting} calls of this process have no result yet, and the "
                    f"actor takes no more (max_pending_calls={actor.calls_max})"
                )
                return failed_call(actor, row.id, kind, "PendingCallsLimitExceeded", text)
        return None

    def submitted(self, record: TaskRecord) -> None:
        """A creation or a call has been submitted; a call takes its place behind its caller's."""
        actor = record.kind.host
        if actor is None:
            self._born(record)
            return
        actor.large = actor.large or bytes_of(record) > self._state.settings.inline_bytes_max
        self._queued(actor, record, 1)
        actor.lines.push(record)
        if actor.lines.able:
            self.hosts.active[actor] = None
        if actor.record is None and not actor.watched:
            self._watch(actor)

    def _born(self, record: TaskRecord) -> None:
        options = record.kind.creates
        assert options is not None
        actor = self.hosts.of(record.id)
        actor.record = record
        actor.over = None
        self.hosts.fences.named(record.id)
        self.hosts.names.born(record)
        if actor.watched:
            actor.watched = False
            self._objects.unwatch(ObjectId(record.id))
        if options.max_pending_calls >= 0:
            actor.calls_max = options.max_pending_calls
            actor.pending.clear()
            sent = [r for node in self._state.nodes.values() for r in node.calls.values()]
            for call in (*actor.lines, *[call for call in sent if call.kind.host is actor]):
                actor.add(caller_of(call), 1)
        self.hosts.active[actor] = None

    def _watch(self, actor: Actor) -> None:
        """Nobody here has submitted an actor: have its home tell what became of it."""
        known = self._objects.watch(ObjectId(actor.id))
        if known is None:
            actor.watched = True
        else:
            self._over(actor, known)

    def _heard_of(self, row: ValueRow) -> None:
        """The home of an unknown actor tells how that ended, or nobody can tell any more."""
        actor = self.hosts.known.get(TaskId(row.id))
        if actor is not None:
            actor.watched = False
            if actor.record is None:
                self._over(actor, row)

    # ---------------------------------------------------------------------------------- in the line

    def _queued(self, actor: Actor, record: TaskRecord, change: int) -> None:
        actor.queued += change
        if actor.calls_max >= 0:
            actor.add(caller_of(record), change)

    def changed(self, record: TaskRecord) -> None:
        """A call in the line may go now, or has to wait."""
        actor = record.kind.host
        assert actor is not None
        if actor.over is not None:
            self._end(record, [died(actor, record.id, record.kind)])
            return
        actor.lines.changed(record)
        if actor.lines.able:
            self.hosts.active[actor] = None

    def put_back(self, record: TaskRecord) -> None:
        """A call that its node has released goes before what its caller made later."""
        actor = record.kind.host
        assert actor is not None
        self._queued(actor, record, 1)
        actor.lines.put_back(record)

    def waits(self, record: TaskRecord, state: int) -> None:
        """A call that was in this state may not go; it keeps its place, or gets it back."""
        actor = record.kind.host
        assert actor is not None
        if state in (WAITING, QUEUED, BACKOFF):
            actor.lines.changed(record)
        else:
            self.put_back(record)

    def found(self, record: TaskRecord) -> None:
        """A creation, or a call in the line, turned out to be at a node."""
        actor = record.kind.host
        if actor is None:
            self.hosts.active[self.hosts.known[record.id]] = None
            self.hosts.fences.over(record.id)
            self._has_come_on(record)
            return
        self._queued(actor, record, -1)
        actor.lines.remove(record)

    def ended(self, record: TaskRecord, state: int, row: ValueRow) -> None:
        """A creation or a call has its outcome; it was in this state."""
        actor = record.kind.host
        if actor is None:
            self._creation_ended(record, row)
            return
        if state in (WAITING, QUEUED, BACKOFF):
            self._queued(actor, record, -1)
            actor.lines.changed(record)
            if actor.lines.able or actor.exit_asked:
                self.hosts.active[actor] = None
        if actor.watched and not actor.lines:
            actor.watched = False
            self._objects.unwatch(ObjectId(actor.id))

    # --------------------------------------------------------------------------------------- a turn

    def up(self, node: Node, rows: list[tuple[bytes, int]]) -> None:
        """The constructors of these have returned."""
        claims, hosts = self._state.claims, self.hosts
        for id_, incarnation in rows:
            actor = hosts.known.get(TaskId(id_))
            record = None if actor is None else actor.record
            if record is None and claims.open:
                # Its creation has yet to be named again.
                hosts.of(TaskId(id_)).up = node, incarnation
                continue
            if record is None or record.node is not node or record.attempt != incarnation:
                self._state.counters["stale_dropped"] += 1
                continue
            assert actor is not None
            actor.up = node, incarnation
            self.hosts.active[actor] = None
            self.hosts.came_up(record)
            hosts.checkpoints.up(record.id, node.id, incarnation)
            lives = f"{record.kind.name} {show(record.id)} lives, incarnation {incarnation}"
            self._state.tell(lives, "actor lives", node=node.name, task=record.id)

    def turn(self) -> Iterator[tuple[Node, list[TaskRecord]]]:
        """Do what is to be done for each actor; yield calls for a node, which takes them."""
        hosts = self.hosts
        looked_at = list(hosts.active)
        hosts.active.clear()
        for actor in looked_at:
            record = actor.record
            if record is None or record.state == FINISHED:
                continue
            if actor.exit_asked and not actor.has_calls():
                self._exit(actor, record)
                continue
            home = record.node
            if home is not None and record.state == ASSIGNED and home.drain.active:
                self._leave(actor, record, home)
                if not actor.exit_asked:
                    continue
            node = actor.node
            if node is None or not node.hears or not actor.lines.able:
                continue
            if actor.at is not None and actor.at is not node:
                continue  # earlier ones come back first
            if record.kind.client in self._state.held_back:
                hosts.active[actor] = None
                continue
            yield from self._send(actor, node)

    def _send(self, actor: Actor, node: Node) -> Iterator[tuple[Node, list[TaskRecord]]]:
        settings = self._state.settings
        window, bytes_max = settings.actor_window_calls, settings.results_backlog_bytes_max
        record = actor.record
        if record is not None and record.kind.creates is not None:
            window = max(window, record.kind.creates.max_concurrency)
        # So many bytes at a time that the bound is not far exceeded.
        several = 1 if actor.large else TURN_CALLS
        while actor.in_flight < window and actor.in_flight_bytes < bytes_max:
            calls = actor.lines.take(min(several, window - actor.in_flight))
            if not calls:
                return
            actor.queued -= len(calls)
            if actor.calls_max >= 0:
                for call in calls:
                    actor.add(caller_of(call), -1)  # until the node has it
            yield node, calls

    # ------------------------------------------------------------------------------ asked to end it

    def asked(self, ids: list[bytes], *, ends: bool) -> None:
        """End actors when they have done what is queued, or kill them so that they begin anew."""
        for id_ in ids:
            actor = self.hosts.known.get(TaskId(id_))
            record = None if actor is None else actor.record
            if actor is None or record is None:
                continue
            if ends:
                actor.exit_asked = True
                self.hosts.active[actor] = None
            elif record.state == ASSIGNED and record.node is not None and not record.stopping:
                self._stop(record.node, record, StopMode.RESTART)

    def _stop(self, node: Node, record: TaskRecord, mode: StopMode) -> None:
        self._state.out.stop(node.id, record.id, record.attempt, mode)

    def _exit(self, actor: Actor, record: TaskRecord) -> None:
        """No call is left, and nobody can make one."""
        if record.state in (ASSIGNED, DELIVERING):
            node = actor.node
            if node is not None and actor.exit_told != record.attempt:
                actor.exit_told = record.attempt
                self._stop(node, record, StopMode.EXIT)
            return
        self._end(record, [ValueRow(record.id, Outcome.VALUE)])

    def _leave(self, actor: Actor, record: TaskRecord, node: Node) -> None:
        """An actor has to leave its node: what is under way ends first, if there is time."""
        if actor.exit_asked or actor.moved == record.attempt or record.stopping:
            return
        if not actor.in_flight or node.drain.hurries:
            actor.moved = record.attempt
            self._stop(node, record, StopMode.RESTART)

    # -------------------------------------------------------------------------- a process has ended

    def lost_with_its_node(self, record: TaskRecord) -> None:
        """The node of a creation is lost: that it was told to end it is no reason any more."""
        actor = self.hosts.known.get(record.id)
        if actor is not None and actor.moved == record.attempt:
            actor.moved = 0

    def goes_on(self, record: TaskRecord, final: ValueRow) -> bool:
        """Note the end of an attempt; return whether there may be another one."""
        actor = record.kind.host
        if actor is not None:
            return actor.over is None and record.attempt <= record.kind.options.max_retries
        actor = self.hosts.known.get(record.id)
        assert actor is not None, "a creation without an outcome is known"
        node = "" if final.failure is None else str(final.failure.details.get("node") or "")
        text = self._raised(record) if final.failure is None else final.failure.text
        where = f" on {node}" if node else ""
        if final.failure is not None:
            actor.ends.append(final.failure)
            del actor.ends[:-CAUSES_MAX]
        actor.causes.append(f"incarnation {record.attempt}{where}: {text[:CAUSE_TEXT_MAX]}")
        del actor.causes[:-CAUSES_MAX]
        text = f"{record.kind.name} {show(record.id)}: {actor.causes[-1]}"
        self._state.tell(text, "actor ended", WARNING, node, record.id)
        if _is_moved(actor, record, final):
            actor.moved = record.attempt
            actor.uncharged += 1
            self._state.counters["actors_moved"] += 1
            return True
        if actor.exit_asked and not actor.has_calls():
            return False
        return self.allows(record)

    def _raised(self, record: TaskRecord) -> str:
        restored = self.hosts.checkpoints.of(record.id) is not None
        return "its __restore__ raised" if restored else "it raised"

    def allows(self, record: TaskRecord) -> bool:
        """Return whether an attempt that died leaves another one."""
        options, creates = record.kind.options, record.kind.creates
        if creates is None:
            return record.attempt <= options.max_retries
        actor = self.hosts.known[record.id]
        self._has_come_on(record)
        window_s = creates.restart_window_s
        if not window_s:
            return record.attempt - actor.uncharged <= options.max_retries
        now_s = self._state.now_s
        actor.deaths = [at_s for at_s in actor.deaths if at_s > now_s - window_s]
        actor.deaths.append(now_s)
        return len(actor.deaths) <= options.max_retries

    def due_s(self, record: TaskRecord) -> float:
        """Return when the next attempt may begin."""
        now_s = self._state.now_s
        actor = self.hosts.known.get(record.id)
        if actor is None or record.kind.host is not None:
            return now_s  # of a call: its actor has to be there first
        self._has_come_on(record)
        if actor.moved == record.attempt:
            return max(now_s, self.hosts.fences.not_before_s(record))
        deaths = len(actor.deaths) or record.attempt - actor.uncharged
        limit_s, chance = self._state.settings.retry_backoff_max_s, self._state.rng.random()
        pause_s = backoff_s(record.kind.options, max(1, deaths), limit_s, chance)
        self._state.counters["actors_restarted"] += 1
        return max(now_s + pause_s, self.hosts.fences.not_before_s(record))

    def _has_come_on(self, record: TaskRecord) -> None:
        """An actor's next incarnation is another: of a detached one that is written down."""
        if record.owner.id in self.hosts.wards:
            self.hosts.courses[record.owner.id] = None

    def final(self, record: TaskRecord, last: ValueRow) -> ValueRow:
        """Return the outcome of a creation or call that is not tried again."""
        if last.outcome != Outcome.FAILURE or last.failure is None:
            if record.kind.creates is None:
                return last
            return not_restored(record, self.hosts.known[record.id], last)
        if record.kind.host is not None and last.failure.details.get("limit"):
            return last  # it is why its process ended, not one that was there by chance
        if record.kind.host is not None:
            self._state.counters["actor_calls_lost"] += 1
            return call_lost(record, record.kind.host, last.failure)
        actor = self.hosts.known[record.id]
        if actor.exit_asked and not actor.has_calls():
            return ValueRow(record.id, Outcome.VALUE)
        return ended_for_good(record, actor, last.failure)

    # ------------------------------------------------------------------------------- ended for good

    def _creation_ended(self, record: TaskRecord, row: ValueRow) -> None:
        actor = self.hosts.known.get(record.id)
        assert actor is not None, "a creation without an outcome is known"
        record.kind.average_s = -1.0  # nobody knows how long the next one lives
        if row.outcome != Outcome.VALUE:
            self._state.counters["actors_died"] += 1
        self._over(actor, row)
        actor.record = None
        self.hosts.names.over(record.id)
        self.hosts.lives_no_more(record)
        if record.owner.id in self.hosts.wards:
            self.ward_over(record, row)
        assert actor.over is not None
        self.hosts.bury(actor, record, actor.over, why(actor.over))
        ended = f"{record.kind.name} {show(record.id)} is no more: {why(actor.over)}"
        self._state.tell(ended, "actor gone", task=record.id)
        self.hosts.tidy(actor)

    def _over(self, actor: Actor, row: ValueRow) -> None:
        """An actor will never act again: end all that waits for it."""
        raised = row.outcome == Outcome.ERROR
        if row.failure is not None:
            raised = row.failure.error == "ActorDied"  # with what its __restore__ raised
        keep = row.payload is not None and raised and not row.contained
        if keep and len(row.payload or b"") > self._state.settings.small_value_bytes:
            keep = False
        actor.over = ValueRow(
            actor.id, row.outcome, row.payload if keep else None, failure=row.failure
        )
        self.hosts.fences.over(actor.id)
        self.hosts.checkpoints.over(actor.id)
        for call in list(actor.lines):
            self._end(call, [died(actor, call.row.id, call.kind)])

    # -------------------------------------------------------------------------------------- insight

    def sizes(self) -> dict[str, int]:
        """Return the sizes of all maps."""
        return self.hosts.sizes()


def _is_moved(actor: Actor, record: TaskRecord, final: ValueRow) -> bool:
    """Return whether an incarnation ended because its node is drained."""
    if actor.moved == record.attempt:
        return True
    up, failure = actor.up, final.failure
    if up is None or failure is None or up[1] != record.attempt:
        return False
    # Told to hurry, a node ends its actors by itself.
    return up[0].drain.active and up[0].peer.here and failure.error == "NodeLost"


def _nobody_waits(_record: TaskRecord, _row: ValueRow) -> None:
    raise AssertionError("the core has not introduced the wards")
