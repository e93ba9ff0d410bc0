"""What workers say of what they run, and what their ends mean for it.

Never decides what runs next, and never believes what cannot be true: whoever says that is ended.
"""

from ..protocol.messages import DoneRow
from . import events
from .actors import Actors
from .attempts import GONE, KILLED, Attempt, Worker
from .children import Children
from .dispatch import Dispatch
from .drain import Drain
from .lives import Lives
from .packets import (
    ActorMade,
    Finished,
    FinishedRow,
    Item,
    Progressed,
    Ready,
    Refs,
    Returned,
    Submitted,
    Want,
)
from .state import NodeState, how_it_ended
from .stops import Stops
from .texts import WORKERS, Texts
from .trust import fits, put_back, untruth
from .waits import Waits

#: with so many workers that no signal ends, a node gets no more work
UNKILLABLE_MAX = 3


class Reports:
    """See the module. The rooms are those of the core."""

    def __init__(
        self,
        state: NodeState,
        waits: Waits,
        lives: Lives,
        dispatch: Dispatch,
        actors: Actors,
        children: Children,
        drain: Drain,
        stops: Stops,
        texts: Texts,
    ) -> None:
        self._state = state
        self._waits = waits
        self._lives = lives
        self._dispatch = dispatch
        self._actors = actors
        self._children = children
        self._drain = drain
        self._stops = stops
        self._texts = texts

    # ------------------------------------------------------------------------------- what they say

    def ready(self, worker: Worker, packet: Ready, now_s: float) -> None:
        """A worker is set up, or could not be."""
        for text in packet.notices:
            self._texts.noticed(events.Noticed(text))
        if packet.error:
            self._lives.unfit(worker, packet.error, now_s)
        else:
            self._lives.ready(worker, packet.pid, now_s)

    def finished(self, worker: Worker, packet: Finished, now_s: float) -> None:
        """Attempts have ended (hot: a row a task)."""
        state = self._state
        if packet.held:
            state.objects.hold(worker, packet.held)
        if worker.actor is not None:
            self._actors.finished(worker, packet, now_s, self._finish_rare)
            return
        flight, attempts, done = worker.flight, state.attempts, state.done
        inline_bytes_max = state.settings.inline_bytes_max
        name, seq, count = worker.name, 0, 0
        for row in packet.rows:
            attempt = flight.pop(row.seq, None)
            if attempt is None:
                state.counters["stale_dropped"] += 1
                continue
            task, kind, values = attempt.row, attempt.kind, row.values
            plain = False
            if (
                len(values) == 1
                and not (value := values[0]).outcome
                and value.id == task.id
                and kind.options.num_returns == 1
            ):
                payload = value.payload
                if payload is None or len(payload) <= inline_bytes_max:
                    plain = not (value.contained or attempt.pins or attempt.stop)
            elif not fits(attempt, row):
                self._lives.distrust(worker, put_back(worker, row.seq, attempt), now_s)
                break
            seq = row.seq
            count += 1
            name = kind.name
            if not plain or worker.main is not None:
                self._finish_rare(worker, attempt, row)
                continue
            attempt.state = GONE
            del attempts[task.id]
            done.append(DoneRow(task.id, task.attempt, values, row.duration_s, row.retry))
        worker.name = name
        if count:
            state.counters["finished"] += count
            self._dispatch.ended(worker, seq, now_s)

    def _finish_rare(self, worker: Worker, attempt: Attempt, row: FinishedRow) -> None:
        self._waits.ended(worker, row.seq)
        if not (self._drain.has_ended(attempt, row) or self._stops.has_ended(attempt, row)):
            retry = row.retry and not attempt.stop
            self._state.finish(attempt, row.values, row.duration_s, retry=retry)

    def made(self, worker: Worker, packet: ActorMade, now_s: float) -> None:
        """A worker has become the actor that it was to be."""
        self._actors.made(worker, packet, now_s)

    def progressed(self, worker: Worker, packet: Progressed, _now_s: float) -> None:
        """A row that runs tells how far it is, in the user's own words."""
        attempt = worker.has(packet.seq)
        if attempt is not None:
            attempt.details = packet.details

    def yielded(self, worker: Worker, packet: Item, now_s: float) -> None:
        """A row that runs has yielded an item."""
        false = self._state.streams.yielded(worker, packet)
        if false:
            self._lives.distrust(worker, false, now_s)

    def returned(self, worker: Worker, packet: Returned, now_s: float) -> None:
        """A worker has not started these, and will not."""
        if worker.is_up:
            self._actors.returned(worker, packet.seqs)
        else:
            self._dispatch.returned(worker, packet.seqs, now_s)

    def submitted(self, worker: Worker, packet: Submitted, now_s: float) -> None:
        """A worker's task calls others, or puts values."""
        false = untruth(worker, packet, self._state)
        if false:
            self._lives.distrust(worker, false, now_s)
        else:
            self._children.submitted(worker, packet)

    def want(self, worker: Worker, packet: Want, now_s: float) -> None:
        """A worker waits for objects."""
        if packet.request in worker.waits:
            self._lives.distrust(worker, "it asks twice under one number", now_s)
            return
        self._waits.want(worker, packet, now_s)
        if worker.main is not None and len(worker.flight) > 1 and not worker.taking:
            # Rows behind the one that waits could be what it waits for.
            self._dispatch.take_unread(worker)

    def refs(self, worker: Worker, packet: Refs, _now_s: float) -> None:
        """Refs have come to a worker, or have gone."""
        self._state.objects.hold(worker, packet.held)
        self._state.objects.drop(worker, packet.dropped)

    # ------------------------------------------------------------------------- what is seen of them

    def packets_taken(self, event: events.PacketsTaken, now_s: float) -> None:
        """Packets that lay unread in a worker's socket have been read back."""
        worker = self._state.workers.get(event.worker)
        if worker is None or worker.dropped:
            return
        if worker.is_up:
            self._actors.packets_taken(worker, event.seqs)
        else:
            self._dispatch.packets_taken(worker, event.seqs, now_s)

    def page_read(self, worker: Worker, started: int, now_s: float) -> None:
        """A worker's place in the pulse page has been read."""
        if worker.is_up:
            self._actors.page_read(worker, started)
        else:
            self._dispatch.page_read(worker, started, now_s)

    def failed(self, event: events.WorkerFailed, now_s: float) -> None:
        """A worker could not be started."""
        worker = self._state.workers.get(event.worker)
        if worker is not None:
            self._lives.remove(worker)
            if not worker.dropped:
                self._start_failed(worker, event.reason, now_s, crashed=False)

    def exited(self, event: events.WorkerExited, now_s: float) -> None:
        """A worker's process has ended."""
        state = self._state
        worker = state.workers.get(event.worker)
        if worker is None:
            return
        how = self._let_go(worker, event, now_s)
        self._lives.remove(worker)
        if not worker.ready and not worker.dropped and not worker.exiting:
            reason = f"it {how}. {event.stderr_tail}".strip()
            self._start_failed(worker, reason, now_s, crashed=True)

    def stuck(self, now_s: float) -> None:
        """Workers have not ended though they were killed: others take their places."""
        state = self._state
        workers, self._stops.stuck = self._stops.stuck, []
        for worker in workers:
            if worker.dropped or worker.number not in state.workers:
                continue
            after_s = state.settings.reap_timeout_s
            text = f"(pid {worker.pid}) has not ended {after_s:g} s after it was killed"
            state.note(now_s, f"worker {worker.number} {text}: it is unkillable")
            self._texts.noticed(events.Noticed(f"node {state.name}: a worker {text}", WORKERS))
            state.counters["workers_unkillable"] += 1
            for attempt in (worker.flight | worker.rows()).values():
                if attempt.case is not None and attempt.stop == KILLED:
                    attempt.case.took("its process is given up", now_s)
            end = events.WorkerExited(worker.number, -9, "SIGKILL", f"Its process {text}.")
            self._let_go(worker, end, now_s)
            worker.dropped = worker.unkillable = True
            self._lives.give_up(worker)
        if sum(worker.unkillable for worker in state.workers.values()) >= UNKILLABLE_MAX:
            self._drain.asked(False, now_s)

    def _let_go(self, worker: Worker, event: events.WorkerExited, now_s: float) -> str:
        """Tell what becomes of all that a worker had; return how it ended, in words."""
        state = self._state
        flight, worker.flight = worker.flight, {}
        self._dispatch.release(worker)
        self._waits.gone(worker)
        self._children.worker_gone(worker)
        how = how_it_ended(event)
        if flight:
            state.counters["workers_died"] += 1
            state.note(now_s, f"worker {worker.number} {how} with {len(flight)} rows")
            self._actors.gone(worker, event, now_s)
        for seq, attempt in flight.items():
            # Rows that it had not started run elsewhere; whatever it had started went with it.
            if 0 <= worker.started < seq:
                state.requeue(attempt)
            elif attempt.stop or attempt.drained:
                state.stopped(attempt, max(0.0, now_s - worker.since_s))
            else:
                state.died(worker, attempt, event, now_s)
        state.objects.worker_gone(worker)
        return how

    def _start_failed(self, worker: Worker, reason: str, now_s: float, *, crashed: bool) -> None:
        warning = self._lives.start_failed(worker, reason, now_s, crashed=crashed)
        if warning:
            self._texts.warn(worker.crew.key.client, warning)
