"""The actors of this node: their calls, in order, and how each of them ends.

Never places or starts a process: an actor's creation is an attempt like any other, queued, handed
out, stopped. It stays in its worker's flight, alone and first, for as long as the actor lives; its
calls are here. Never lets a call overtake an earlier one of the same caller.

    waiting    whole or not, not in the worker's hands
    hand       sent to the worker, in order; what it has started last, its page says
    back       called back from the worker, until all that was called back is
"""

from collections import deque
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from ..protocol.actors import ActorsUp
from ..protocol.ids import show
from ..protocol.messages import DoneRow, StopMode, TakenBack
from .attempts import (
    ARRIVING,
    ASKED,
    CALLED,
    GONE,
    NOT_STOPPED,
    SENT,
    Attempt,
    Hosted,
    Worker,
)
from .checkpoints import Checkpoints
from .dispatch import Dispatch
from .events import Revoke, Signal, WorkerExited
from .handing import forget_gone, hand_out, held_back, note_begun
from .lives import Lives
from .packets import ActorMade, Begun, Finished, FinishedRow
from .state import NodeState
from .trust import fits


class Actors:
    """See the module.

    Args:
        state: shared.
        lives: of all workers.
        dispatch: knows what they hold.
    """

    def __init__(self, state: NodeState, lives: Lives, dispatch: Dispatch) -> None:
        self._state = state
        self.checkpoints = Checkpoints(state)
        self._lives = lives
        self._dispatch = dispatch
        #: made, and not told yet: creation, incarnation
        self.ups: list[tuple[bytes, int]] = []
        #: whose calls, or whose end, are to be looked at in this turn
        self.due: dict[int, Worker] = {}
        #: those of them that get nothing before the scheduler is heard again
        self._held: dict[int, Worker] = {}
        #: calls that cannot run here, to be told
        self.refused: list[tuple[bytes, int]] = []

    # -------------------------------------------------------------------------------- calls come in

    def push(self, attempt: Attempt) -> None:
        """A call has come, perhaps not whole yet."""
        attempt.state = ARRIVING if attempt.missing else CALLED
        worker = self._host(attempt)
        if worker is None or worker.actor is None:
            self._refuse(attempt)
        else:
            worker.actor.waiting.append(attempt)
            self.due[worker.number] = worker

    def whole(self, attempt: Attempt) -> None:
        """The last part of a call has arrived."""
        attempt.state = CALLED
        worker = self._host(attempt)
        if worker is None:
            self._refuse(attempt)
        else:
            self.due[worker.number] = worker

    def _host(self, call: Attempt) -> Worker | None:
        creation = self._state.attempts.get(call.kind.actor)
        if creation is None or creation.state != SENT:
            return None
        worker = self._state.workers[creation.worker]
        return worker if worker.is_up and not (worker.exiting or worker.dropped) else None

    def _refuse(self, attempt: Attempt) -> None:
        self.refused.append((attempt.row.id, attempt.row.attempt))
        self._state.forget(attempt)

    def _give_back(self, calls: Iterable[Attempt]) -> None:
        """Calls of an actor that has ended: they have not started, and may run in the next one."""
        for call in calls:
            if call.state == GONE:
                continue
            if (call.stop and not call.drained) or call.unwanted:
                self._state.cancelled(call)
            else:
                self._refuse(call)
        self.tell_refused()

    def tell_refused(self) -> None:
        """Tell what cannot run here: before the end of what it was meant for is told."""
        if self.refused:
            rows, self.refused = self.refused, []
            self._state.counters["taken_back"] += len(rows)
            self._state.send(TakenBack(rows))

    # ------------------------------------------------------------------------------ once every turn

    def turn(self, now_s: float) -> None:
        """Send calls to actors that can take some; end those that are to end and have none."""
        if self.due:
            due, self.due = self.due, {}
            for worker in due.values():
                hosted = worker.actor
                if hosted is None or not hosted.up or worker.exiting or worker.dropped:
                    continue
                self._send(worker, hosted, now_s)
                if not hosted.hand and not hosted.back and not forget_gone(hosted.waiting):
                    self._look_at_end(worker, hosted, now_s)
        self.tell_refused()

    def heard(self, now_s: float) -> None:
        """The lease goes on: what was held back is looked at again."""
        if self._held and self._state.lease.delivers(now_s):
            held, self._held = self._held, {}
            self.due.update(held)

    def tell(self) -> None:
        """Say which actors have been made."""
        if self.ups:
            rows, self.ups = self.ups, []
            self._state.send(ActorsUp(rows))

    def tell_again(self) -> None:
        """Say to another scheduler which actors there are."""
        self.ups = [
            (worker.actor.attempt.row.id, worker.actor.attempt.row.attempt)
            for worker in self._state.workers.values()
            if worker.actor is not None and worker.actor.up
        ]
        self.tell()

    def clear(self) -> None:
        """The scheduler has given this node up."""
        self.ups.clear()
        self.due.clear()
        self._held.clear()
        self.refused.clear()
        self.checkpoints.clear()

    def behind_arriving(self) -> list[Attempt]:
        """Return calls that are whole and wait for earlier ones of their callers that are not."""
        hosts = [worker.actor for worker in self._state.workers.values()]
        return [
            call for hosted in hosts if hosted is not None for call in held_back(hosted.waiting)
        ]

    def restarted(self) -> None:
        """The scheduler is another: what was to be told is told in another way."""
        self.ups.clear()
        self.refused.clear()

    def _look_at_end(self, worker: Worker, hosted: Hosted, now_s: float) -> None:
        if hosted.leaves:
            attempt = hosted.attempt
            del worker.flight[attempt.seq]
            self._state.drained(attempt, max(0.0, now_s - worker.since_s))
            self._over(worker, hosted, now_s)
        elif hosted.exits:
            self._lives.exit(worker, now_s)

    # -------------------------------------------------------------------------------------- packets

    def _send(self, worker: Worker, hosted: Hosted, now_s: float) -> None:
        if worker.revoked or worker.taking or worker.ghosts or hosted.leaves:
            return
        if not self._state.lease.delivers(now_s):
            self._held[worker.number] = worker
            return
        if hosted.back:
            calls = [hosted.back[seq] for seq in sorted(hosted.back)]
            hosted.back = {}
            hosted.waiting.extendleft(reversed(calls))
        while hosted.waiting and hand_out(self._state, worker, hosted, now_s):
            pass

    # ----------------------------------------------------------------------------- what workers say

    def made(self, worker: Worker, packet: ActorMade, now_s: float) -> None:
        """The constructor of an actor has returned."""
        hosted = worker.actor
        if hosted is None or hosted.up or hosted.attempt.seq != packet.seq:
            self._lives.distrust(worker, "it told of an actor that it was not to make", now_s)
            return
        attempt, objects = hosted.attempt, self._state.objects
        objects.hold(worker, packet.held)
        # What it was made of is not needed again: another life of it is given its own.
        objects.unpin(attempt.pins)
        attempt.pins = ()
        self.checkpoints.made(worker, attempt)
        attempt.row = replace(
            attempt.row, args=None, size=0, contained=(), values=(), checkpoint=None
        )
        hosted.up = True
        hosted.concurrency, hosted.in_threads = packet.concurrency, packet.in_threads
        worker.name = attempt.kind.name
        worker.since_s = now_s
        worker.packets.clear()
        self.ups.append((attempt.row.id, attempt.row.attempt))
        self.due[worker.number] = worker

    def finished(
        self,
        worker: Worker,
        packet: Finished,
        now_s: float,
        finish: Callable[[Worker, Attempt, FinishedRow], None],
    ) -> None:
        """Calls have ended, or the actor itself.

        Args:
            worker: its worker.
            packet: what that said.
            now_s: the time.
            finish: tells what became of an attempt.
        """
        hosted = worker.actor
        assert hosted is not None
        state, count = self._state, 0
        for row in packet.rows:
            call = hosted.hand.pop(row.seq, None)
            if hosted.begun:
                hosted.begun.pop(row.seq, None)
            if call is not None and worker.main is None and self._is_plain(call, row):
                call.state = GONE
                del state.attempts[call.row.id]
                task = call.row
                state.done.append(DoneRow(task.id, task.attempt, row.values, row.duration_s))
                self._ended(worker, row.seq)
                count += 1
                continue
            attempt = worker.flight.pop(row.seq, None) if call is None else call
            if attempt is None:
                state.counters["stale_dropped"] += 1
                continue
            if not fits(attempt, row):
                place = worker.flight if call is None else hosted.hand
                in_order = sorted((*place.items(), (row.seq, attempt)))
                place.clear()
                place.update(in_order)
                false = f"it told of values that are not those of task {show(attempt.row.id)}"
                self._lives.distrust(worker, false, now_s)
                break
            count += 1
            worker.name = attempt.kind.name
            self._ended(worker, row.seq)
            if call is None:
                self._give_back(_calls_of(hosted))
                finish(worker, attempt, row)
                self._over(worker, hosted, now_s)
                break
            finish(worker, attempt, row)
        if not hosted.hand:
            worker.packets.clear()
        if not (hosted.concurrency and hosted.hand):
            worker.since_s = now_s
        state.counters["finished"] += count
        self.due[worker.number] = worker
        if worker.revoked:
            self._clear_revoked(worker, hosted)

    def begun(self, worker: Worker, packet: Begun, now_s: float) -> None:
        """Calls have run for a while beside others, or progress."""
        hosted = worker.actor
        if hosted is not None and hosted.concurrency:
            note_begun(hosted, packet.rows, now_s)

    def _is_plain(self, call: Attempt, row: FinishedRow) -> bool:
        # One small value without refs, as most are: see Reports.finished.
        values = row.values
        if len(values) != 1 or values[0].outcome or call.kind.options.num_returns != 1:
            return False
        value = values[0]
        if value.id != call.row.id or value.contained or call.pins or call.stop or row.retry:
            return False
        payload = value.payload
        return payload is None or len(payload) <= self._state.settings.inline_bytes_max

    def _ended(self, worker: Worker, seq: int) -> None:
        packets = worker.packets
        while packets and packets[0][0] <= seq:
            packets.popleft()

    def _over(self, worker: Worker, hosted: Hosted, now_s: float) -> None:
        """An actor's creation has its outcome; its worker ends with that."""
        self._give_back(_calls_of(hosted))
        hosted.hand, hosted.back, hosted.waiting = {}, {}, deque()
        worker.revoked = 0
        worker.ghosts.clear()
        if worker.exiting:
            self._lives.rest(worker, now_s)
        else:
            self._lives.exit(worker, now_s)
        self._dispatch.release(worker)

    # ---------------------------------------------------------------------------------- taking back

    def packets_taken(self, worker: Worker, seqs: list[int]) -> None:
        """These calls lay unread in the worker's socket and do so no more."""
        worker.taking = max(0, worker.taking - 1)
        self.returned(worker, seqs)

    def returned(self, worker: Worker, seqs: list[int]) -> None:
        """The worker does not have these calls any more and has not started them."""
        hosted = worker.actor
        assert hosted is not None
        for seq in seqs:
            worker.ghosts.pop(seq, None)
        self._take(worker, hosted, seqs)

    def page_read(self, worker: Worker, started: int) -> None:
        """What the worker has started last; once it has seen `revoked`, the rest is ours again."""
        hosted = worker.actor
        assert hosted is not None
        worker.started = started
        worker.reading = max(0, worker.reading - 1)
        if worker.reading or not worker.revoked:
            return
        first = max(worker.revoked, started + 1)
        seqs = [seq for seq in hosted.hand if seq >= first]
        worker.ghosts.update(dict.fromkeys(seqs))
        self._take(worker, hosted, seqs)

    def _take(self, worker: Worker, hosted: Hosted, seqs: list[int]) -> None:
        for seq in seqs:
            attempt = hosted.hand.pop(seq, None)
            if attempt is None:
                continue
            attempt.worker = attempt.seq = 0
            attempt.state = CALLED
            if (attempt.stop and not attempt.drained) or attempt.unwanted:
                self._state.cancelled(attempt)
            else:
                self._state.counters["requeued"] += 1
                hosted.back[seq] = attempt
        # An emptied packet is none; one that lost its end counts until the next row ends.
        last = next(reversed(hosted.hand), 0)
        while len(worker.packets) > 1 and worker.packets[-2][0] >= last:
            worker.packets.pop()
        if not last:
            worker.packets.clear()
        self.due[worker.number] = worker
        self._clear_revoked(worker, hosted)

    def _clear_revoked(self, worker: Worker, hosted: Hosted) -> None:
        # As for tasks: not before the worker has none of the revoked rows, for it would start them.
        if not worker.revoked or worker.ghosts or worker.reading or worker.taking:
            return
        if hosted.hand and next(reversed(hosted.hand)) >= worker.revoked:
            return
        worker.revoked = 0
        self._state.commands.append(Revoke(worker.number, 0))
        self.due[worker.number] = worker

    # ---------------------------------------------------------------------------------- how it ends

    def stop(self, attempt: Attempt, mode: int, now_s: float) -> bool:
        """An actor is to end in a way that no other attempt does; return whether it is seen to."""
        if mode not in (StopMode.EXIT, StopMode.RESTART):
            return False
        if attempt.state != SENT:
            # It is about to be made: anew in any case, or not at all.
            return mode == StopMode.RESTART
        worker = self._state.workers[attempt.worker]
        if mode == StopMode.RESTART:
            self._state.note(now_s, f"actor {show(attempt.row.id)} is killed, as if it had died")
            self._state.commands.append(Signal(worker.number, "KILL"))
        elif worker.actor is not None:
            worker.actor.exits = True
            self.due[worker.number] = worker
        return True

    def drain(self) -> None:
        """The node waits no longer: actors end as soon as what they run has."""
        for worker in self._state.workers.values():
            if worker.actor is not None and not worker.dropped:
                worker.actor.leaves = True
                self.due[worker.number] = worker

    def gone(self, worker: Worker, event: WorkerExited, now_s: float) -> None:
        """An actor's process has ended: calls that had started end with it, others go back."""
        hosted = worker.actor
        if hosted is None:
            return
        started = [c for seq, c in hosted.hand.items() if not 0 <= worker.started < seq]
        for call in started:
            del hosted.hand[call.seq]
        self._give_back(_calls_of(hosted))
        # Whether it ended a little early does not matter to who wanted it to end.
        hosted.attempt.drained = hosted.attempt.drained or hosted.leaves
        hosted.attempt.stop = max(hosted.attempt.stop, ASKED if hosted.exits else NOT_STOPPED)
        for call in started:
            if call.stop:
                if call.case is not None and call.case.is_verdict:
                    hosted.attempt.case = call.case.blamed_on(call.kind.name)
                self._state.stopped(call, max(0.0, now_s - worker.since_s))
            else:
                self._state.died(worker, call, event, now_s)
        self.due.pop(worker.number, None)

    # --------------------------------------------------------------------------------- for checking

    def check_invariants(self) -> None:
        """Check that actors, their workers and their calls agree."""
        for worker in self._state.workers.values():
            hosted = worker.actor
            if hosted is None or worker.dropped or not worker.flight:
                continue
            assert list(worker.flight.values()) == [hosted.attempt], worker.number
            assert hosted.up or not hosted.hand, worker.number
            assert list(hosted.hand) == sorted(hosted.hand), worker.number
            for seq, call in hosted.hand.items():
                assert (call.state, call.seq, call.worker) == (SENT, seq, worker.number)
                assert self._state.attempts[call.row.id] is call
            for call in (*hosted.waiting, *hosted.back.values()):
                assert call.state in (ARRIVING, CALLED, GONE), worker.number
                assert call.kind.actor == hosted.attempt.row.id, worker.number
        for attempt in self._state.attempts.values():
            if attempt.kind.actor and attempt.state == CALLED:
                host = self._host(attempt)
                assert host is not None, show(attempt.row.id)


def _calls_of(hosted: Hosted) -> list[Attempt]:
    """Return all calls that are here for an actor, in order."""
    back = [hosted.back[seq] for seq in sorted(hosted.back)]
    return [*hosted.hand.values(), *back, *hosted.waiting]
