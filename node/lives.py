"""The lives of worker processes: when one is started, when it may rest, when it has to end.

Never gives a worker anything to do (dispatch does), and never reuses a worker's number; places in
the pulse page are used again once their process is gone.
"""

from bisect import insort
from typing import Any

from ..protocol.ids import PeerId
from ..protocol.messages import Environment, TakenBack
from ..protocol.resources import UNITS, units
from .attempts import GONE, Attempt, Crew, Worker, WorkerKey
from .events import SendWorker, Signal, StartWorker
from .packets import Exit
from .slots import CPU
from .state import NodeState
from .waits import Waits

#: workers of one key may end before they are ready so often in a row before its attempts fail
START_CRASHES_MAX = 6
#: the client is told when starts fail for so long
START_FAILING_S = 1.0
START_BACKOFF_S = 0.1
START_BACKOFF_MAX_S = 5.0
#: workers started before anything is queued for them
PRESTART_MAX = 4
#: what the pulse page has room for, beside the daemon
PAGE_SLOTS_MAX = 4095
#: workers that may start at once, however few CPUs there are
STARTING_MIN = 4


class Lives:
    """All workers of this node, by what stage of life they are in."""

    def __init__(self, state: NodeState, waits: Waits, machine: str) -> None:
        self._state = state
        self._waits = waits
        self._machine = machine
        self.environments: dict[bytes, Environment] = {}
        self.crews: dict[WorkerKey, Crew] = {}
        #: longest idle first
        self.idle: dict[int, Worker] = {}
        #: not Ready yet
        self.starting: dict[int, Worker] = {}
        #: told to exit, nothing left to do
        self.exiting: dict[int, Worker] = {}
        #: workers that are, or are to be, actors: they are counted apart
        self.actors = 0
        # Forking is quick, but a machine has only so many cores.
        self.starting_max = max(STARTING_MIN, state.slots.capacity[CPU] // UNITS)
        self._last_number = 0
        self._free_pages: list[int] = []
        self._last_page = 0

    def crew(self, key: WorkerKey) -> Crew:
        """Return the workers of a key."""
        crew = self.crews.get(key)
        if crew is None:
            crew = self.crews[key] = Crew(key)
        return crew

    def forget_client(self, client: bytes) -> None:
        """A client has left: its workers are being killed."""
        self.environments.pop(client, None)
        self.crews = {key: crew for key, crew in self.crews.items() if key.client != client}

    def clear(self) -> None:
        """The link's life is over: forget all clients."""
        self.environments.clear()
        self.crews.clear()

    def turn(self, now_s: float) -> None:
        """End who has idled for too long; kill who does not start or does not end. When due."""
        settings = self._state.settings
        while self.idle:
            worker = next(iter(self.idle.values()))
            if now_s < worker.since_s + settings.worker_idle_s:
                break
            self.exit(worker, now_s)
        if not self.starting and not self.exiting:
            return
        for worker in self.starting.values():
            if not worker.dropped and now_s >= worker.started_s + settings.start_timeout_s:
                worker.started_s = now_s
                self._kill(worker, "not ready in time", now_s)
        for worker in self.exiting.values():
            if now_s >= worker.exiting_since_s + settings.term_grace_s:
                worker.exiting_since_s = now_s
                self._kill(worker, "told to exit and did not", now_s)

    def deadline_s(self) -> float | None:
        """Return when `turn` is next due for time alone."""
        settings = self._state.settings
        if not self.starting and not self.exiting:
            if not self.idle:
                return None
            return next(iter(self.idle.values())).since_s + settings.worker_idle_s
        times = [w.started_s + settings.start_timeout_s for w in self.starting.values()]
        times += [w.exiting_since_s + settings.term_grace_s for w in self.exiting.values()]
        if self.idle:
            times.append(next(iter(self.idle.values())).since_s + settings.worker_idle_s)
        return min(times, default=None)

    # ------------------------------------------------------------------------------------ starting

    def prestart(self, key: WorkerKey, now_s: float) -> None:
        """Start a few workers before the first attempts come."""
        crew = self.crew(key)
        if now_s < crew.pause_until_s:
            return
        fits = self._state.slots.capacity[CPU] // max(1, units(key.num_cpus))
        for _ in range(min(fits, PRESTART_MAX) - crew.members):
            if self.has_room(crew):
                self.start(crew, now_s)

    def has_room(self, crew: Crew) -> bool:
        """Return whether there may be another worker."""
        settings, workers = self._state.settings, len(self._state.workers)
        if workers >= PAGE_SLOTS_MAX:
            return False
        if crew.key.hosts:
            return self.actors < settings.actors_max
        return workers - self.actors < settings.workers_max

    def start(self, crew: Crew, now_s: float) -> None:
        """Start a worker."""
        state, key = self._state, crew.key
        if not crew.starting and now_s > crew.pause_until_s + START_BACKOFF_MAX_S:
            crew.failures = crew.crashes = 0  # nobody has asked for one since: it is no series
        self._last_number += 1
        if self._free_pages:
            page = self._free_pages.pop(0)
        else:
            self._last_page = page = self._last_page + 1
        worker = Worker(self._last_number, page, crew, now_s)
        state.workers[worker.number] = self.starting[worker.number] = worker
        state.due_by(now_s + state.settings.start_timeout_s)
        crew.starting += 1
        crew.members += 1
        self.actors += crew.key.hosts
        environment = self.environments.get(key.client) or Environment()
        state.counters["workers_started"] += 1
        state.commands.append(
            StartWorker(
                worker=worker.number,
                page_slot=page,
                client=PeerId(key.client),
                environment=environment,
                env_vars=key.env_vars,
                working_dir=key.working_dir,
                num_cpus=key.num_cpus,
                same_machine=environment.machine == self._machine != "",
                machine=self._machine,
            )
        )

    def ready(self, worker: Worker, pid: int, now_s: float) -> None:
        """A worker is set up."""
        worker.pid = pid
        if worker.ready or worker.number not in self.starting:
            return
        worker.ready = True
        del self.starting[worker.number]
        worker.crew.starting -= 1
        worker.crew.failures = worker.crew.crashes = 0
        self.rest(worker, now_s)

    def unfit(self, worker: Worker, error: str, now_s: float) -> None:
        """A worker could not be set up as its key asks, and no other could; it exits."""
        self._state.note(now_s, f"worker {worker.number} could not be set up: {error}")
        directory = worker.crew.key.working_dir
        self._fail_crew(
            worker.crew, "WorkingDirMissing", f"a worker could not be set up: {error}", directory
        )
        worker.exiting = True
        self.rest(worker, now_s)

    def distrust(self, worker: Worker, false: str, now_s: float) -> None:
        """A worker said what cannot be true: user code wrote into its socket. It is ended."""
        self._state.counters["workers_distrusted"] += 1
        self._state.note(now_s, f"worker {worker.number} is ended: {false}")
        self._state.commands.append(Signal(worker.number, "KILL"))

    def start_failed(self, worker: Worker, reason: str, now_s: float, *, crashed: bool) -> str:
        """A worker could not be made, or ended before it was ready; it is removed already.

        Returns what its client should read now, or "".
        """
        crew, state = worker.crew, self._state
        state.counters["workers_failed"] += 1
        state.note(now_s, f"worker {worker.number} did not start: {reason}")
        if worker.started_s < crew.pause_until_s:
            return ""  # it was started together with one that has failed already
        if not crew.failures:
            crew.failing_since_s = now_s
        was_told = crew.pause_until_s >= crew.failing_since_s + START_FAILING_S
        crew.failures += 1
        crew.crashes += crashed
        pause_s = START_BACKOFF_S * 2.0 ** min(crew.failures - 1, 16)
        crew.pause_until_s = now_s + min(pause_s, START_BACKOFF_MAX_S)
        if crew.members > crew.starting + crew.taken:
            return ""
        if crew.crashes >= START_CRASHES_MAX:
            crew.failures = crew.crashes = 0
            self._fail_crew(crew, "WorkerDied", f"no worker could be started: {reason}")
        elif now_s >= crew.failing_since_s + state.settings.start_timeout_s:
            crew.failures = crew.crashes = 0
            self._give_back(crew)
        elif not was_told and crew.pause_until_s >= crew.failing_since_s + START_FAILING_S:
            return f"no worker can be started, it is tried again and again: {reason}"
        return ""

    def _give_back(self, crew: Crew) -> None:
        # Nothing can be made of them here: they are no worse for it, and may run elsewhere.
        rows: list[tuple[bytes, int]] = []
        for attempt in self._queued(crew):
            rows.append((attempt.row.id, attempt.row.attempt))
            self._state.forget(attempt)
        if rows:
            self._state.counters["taken_back"] += len(rows)
            self._state.send(TakenBack(rows))

    def _queued(self, crew: Crew) -> list[Attempt]:
        shapes = [shape for shape in self._state.queue.waiting if shape.crew is crew]
        return [attempt for shape in shapes for attempt in shape.queued()]

    def _fail_crew(self, crew: Crew, error: str, text: str, directory: str = "") -> None:
        details: dict[str, Any] = {"directory": directory} if directory else {}
        for attempt in self._queued(crew):
            where = f"{attempt.kind.name} did not run on node {self._state.name}"
            self._state.fail(attempt, error, f"{where}: {text}", **details)

    # -------------------------------------------------------------------------- resting and ending

    def rest(self, worker: Worker, now_s: float) -> None:
        """A worker has nothing to do: it is idle, unless it is to end."""
        state, number = self._state, worker.number
        if worker.exiting and number not in self.exiting:
            worker.exiting_since_s = now_s
            self.exiting[number] = worker
            state.due_by(now_s + state.settings.term_grace_s)
        if not worker.ready or worker.exiting or worker.dropped or number in self.idle:
            return
        worker.since_s = now_s
        worker.crew.idle[number] = self.idle[number] = worker
        ends_s = now_s + state.settings.worker_idle_s
        if ends_s < state.due_s:
            state.due_s = ends_s

    def exit(self, worker: Worker, now_s: float) -> None:
        """Tell a worker to exit after what it has been given."""
        worker.exiting = True
        self.leave_idle(worker)
        if not worker.flight or worker.actor is not None:
            self.rest(worker, now_s)
        self._state.commands.append(SendWorker(worker.number, Exit()))

    def leave_idle(self, worker: Worker) -> None:
        """A worker is idle no more."""
        self.idle.pop(worker.number, None)
        worker.crew.idle.pop(worker.number, None)

    def make_room(self, crew: Crew, now_s: float) -> None:
        """There are as many as there may be and another key needs one: the longest idle goes."""
        hosts = crew.key.hosts
        for worker in self.idle.values():
            if worker.crew.key.hosts == hosts:
                self.exit(worker, now_s)
                return

    def drop(self, worker: Worker, now_s: float, why: str = "its client is gone") -> None:
        """Kill a worker whose client, or whose scheduler, is gone; forget what it had."""
        worker.dropped = True
        self.leave_idle(worker)
        for attempt in worker.flight.values():
            if attempt.state != GONE:
                self._state.forget(attempt)
        worker.flight = {}
        worker.packets.clear()
        self._waits.gone(worker)
        self._state.objects.worker_gone(worker)
        self._kill(worker, why, now_s)

    def remove(self, worker: Worker) -> None:
        """A worker's process is gone, and its rows have been dealt with."""
        assert not worker.flight
        del self._state.workers[worker.number]
        insort(self._free_pages, worker.page_slot)
        if self.starting.pop(worker.number, None) is not None:
            worker.crew.starting -= 1
        worker.crew.members -= 1
        worker.crew.taken -= worker.actor is not None
        self.actors -= worker.crew.key.hosts
        self.exiting.pop(worker.number, None)
        self.leave_idle(worker)

    def give_up(self, worker: Worker) -> None:
        """A worker does not end: nothing more is tried until it does."""
        self.exiting.pop(worker.number, None)
        self.leave_idle(worker)

    def _kill(self, worker: Worker, why: str, now_s: float) -> None:
        self._state.note(now_s, f"worker {worker.number} is killed: {why}")
        self._state.commands.append(Signal(worker.number, "KILL"))
