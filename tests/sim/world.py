"""The world: everything in one process, under one clock, from one scenario.

First comes the chaos, as the tape says. Then everything heals; users wait for all they hold, which
must resolve in bounded time; let go, and every map must empty; leave, and nothing may be left.
Never draws what the scenario's seed does not fix.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from drumbeat.protocol.ids import TASK_BYTES
from drumbeat.protocol.settings import Settings
from drumbeat.scheduler.events import Remember
from drumbeat.scheduler.standstill import HOME_S

from . import bounds, drains
from . import operations as op
from .clock import Clock
from .data_wire import DataDoors, hurt, rest_of_links
from .judge import NEVER_S, Judge
from .network import PING_TIMEOUT_S, Door, Hostility, Network
from .operations import Scenario
from .oracle import Oracle
from .pool import FakePool
from .shells import ClientProcess, NodeProcess, Process, SchedulerProcess
from .users import User

#: all has resolved so long after the chaos, and maps are empty so long after the last ref: at most
REST_S = 60.0
QUIET_S = 40.0
#: the scheduler has told one get() of a deadlock after this long
DEADLOCK_S = 6.0
LOOK_EACH_S = 0.25
#: a run that takes more steps than this is going in circles
STEPS_MAX = 600_000


class Outcome(NamedTuple):
    """What a run came to."""

    violations: list[str]
    steps: int
    virtual_s: float
    faults: int
    digest: str
    counts: Counter[str]


class World:
    """One run. `run()` once."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.settings = Settings(**scenario.settings)
        self.clock = Clock()
        self.oracle = Oracle(self.clock, scenario.nodes, self.settings.retry_backoff_max_s)
        self.oracle.limited.begin(
            scenario, self.settings.cancel_grace_s, self.settings.term_grace_s
        )
        self.oracle.may_be_silent = self._may_be_silent
        self._digest = hashlib.blake2b(digest_size=16)
        self.record = self._digest.update
        self._numbers = 0
        self.faults = 0
        random = Random(f"{scenario.seed} network")
        self.network = Network(
            self.clock, random, scenario.delay_s, scenario.jitter_s, scenario.bytes_per_s
        )
        if scenario.hostility:
            self.network.hostility = Hostility(*scenario.hostility)
            self.oracle.count("hostile network")
        self.door = Door()
        self.data_doors = DataDoors(scenario.walled)
        #: what lies in the scheduler's state file
        self.remembered: list[str] = []
        self.gone: list[str] = []
        self.daemons: list[str] = []
        self.closed = 0
        self.acting: list[tuple[str, str, str]] = []
        #: peers that it gave up, and in which of its lives
        self.given_up: dict[bytes, int] = {}
        #: how long it stays away when it dies, and how long its further lives last
        self._down_s = 0.01
        self._lives_s: list[float] = []
        self._dies_at_note = False
        self._scheduler_back_s = -NEVER_S
        #: the last epoch that has given up the clients which were not back
        self._graced_epoch = 0
        self.scheduler = SchedulerProcess(self)
        self.nodes: dict[str, NodeProcess] = {}
        for name in scenario.nodes:
            self._start_node(name)
        self.users = [User(ClientProcess(self, f"c{number}")) for number in range(scenario.clients)]
        submits = [entry for entry in scenario.tape if isinstance(entry, op.Submit)]
        self._work_s = sum(bounds.work_s(entry.spec) * entry.copies for entry in submits)
        self._work_s += self._acting_s()
        self._work_s += 2 * self.settings.infeasible_timeout_s
        # Until a node that is waited for is back.
        each_s = self.settings.drain_timeout_s + self.settings.infeasible_timeout_s + 4.0
        self._work_s += sum(each_s for entry in scenario.tape if isinstance(entry, op.Drain))
        if "submit_credit_tasks" in scenario.settings:
            # What no node can run is found out one task after the other.
            copies = sum(entry.copies for entry in submits)
            self._work_s += copies * self.settings.infeasible_timeout_s
        tasks = sum(bounds.tasks(entry.spec) * entry.copies for entry in submits)
        keep = any(bounds.keeps(entry.spec) for entry in submits)
        if keep or tasks > self.settings.workers_blocked_max:
            # More may wait at once than may lend: such deadlocks are called one after the other.
            each_s = DEADLOCK_S + self.settings.infeasible_timeout_s
            if "submit_credit_tasks" in scenario.settings:
                # What a client may not submit yet is taken for a value on its way, for a while.
                each_s += HOME_S
            self._work_s += each_s * tasks

    def _acting_s(self) -> float:
        """Return how long actors take at worst: each fault may end them, and they wait then."""
        tape, settings = self.scenario.tape, self.settings
        acts = [entry for entry in tape if isinstance(entry, op.CreateActor | op.CallActor)]
        if not acts:
            return 0.0
        own_s = sum(bounds.work_s(one.spec) * getattr(one, "copies", 1) for one in acts)
        lease_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        again_s = lease_s + settings.lease_margin_s + settings.retry_backoff_max_s + 1.0
        ends = [one for one in tape if isinstance(one, (*op.FAULTS, op.EndActor, op.CallActor))]
        return own_s + again_s * (1 + len(ends))

    def next_number(self) -> int:
        """Number the processes in the order in which they come to life."""
        self._numbers += 1
        return self._numbers

    def host_of(self, name: str) -> str:
        """Return the host on which a process runs."""
        return self.scenario.hosts.get(name, name)

    def _start_node(self, name: str) -> None:
        self.nodes[name] = NodeProcess(self, name)

    def drained(self, node: NodeProcess) -> None:
        """A node has ended in peace, and is started again."""
        self.oracle.drain_ended(node.peer)
        self.clock.after(node.back_s, self._start_node, node.name)

    # ---------------------------------------------------------------------- the scheduler's lives

    def knows(self, peer: bytes, epoch: int) -> bool:
        """Say whether that peer knows of a link life in that epoch of the scheduler."""
        dialling = (*self.nodes.values(), *(user.process for user in self.users))
        return any(one.peer == peer and one.epoch == epoch for one in dialling)

    def may_be_given_up(self, peer: bytes) -> bool:
        """Say whether something was wrong with a peer for long enough, not long ago."""
        settings = self.settings
        lost_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        since_s = self.clock.now_s - 2 * max(lost_s, settings.client_grace_s) - PING_TIMEOUT_S
        if self.scenario.hostility or peer in self.oracle.clients_gone:
            return True
        for one in (*self.nodes.values(), *(user.process for user in self.users)):
            if one.peer == peer:
                troubled_s = self.network.troubled_s.get(one.name, -NEVER_S)
                return (
                    not one.is_alive
                    or max(one.paused_until_s, troubled_s, self._scheduler_back_s) > since_s
                )
        return True  # it crashed, and another one has its name

    def _may_be_silent(self, peer: bytes) -> bool:
        """Say whether a node's words, or the answers to them, may not have come for a while."""
        scheduler = self.scheduler
        if not scheduler.is_alive or self.may_be_given_up(peer):
            return True
        return scheduler.paused_until_s > self.clock.now_s - self._lease_s()

    def _lease_s(self) -> float:
        return self.settings.lost_after_intervals * self.settings.heartbeat_interval_s

    def remember(self, scheduler: SchedulerProcess, noted: Remember) -> None:
        """The scheduler writes down its nodes."""
        if scheduler is self.scheduler:
            self.remembered, self.gone = list(noted.nodes), list(noted.gone)
            self.daemons, self.closed = list(noted.daemons), noted.closed
            self.acting = list(noted.acting)
            if self._dies_at_note:
                self._dies_at_note = False
                self.oracle.count("scheduler crashed with a note")
                scheduler.crash(mid_turn=True)

    def _crash_scheduler(self, entry: op.CrashScheduler) -> None:
        if self.scheduler.is_alive:
            self._down_s = entry.down_s
            self._lives_s = list(entry.again_s)
            self._dies_at_note = entry.at_note
            if not entry.at_note:
                self.scheduler.crash(entry.mid_turn)

    def scheduler_died(self) -> None:
        """It comes back in its next life."""
        self.oracle.count("scheduler crashed")
        self._scheduler_back_s = self.clock.now_s + self._down_s
        self.clock.after(self._down_s, self._start_scheduler)

    def _start_scheduler(self) -> None:
        epoch = self.scheduler.epoch + 1
        self.scheduler = born = SchedulerProcess(
            self, epoch, self.remembered, self.gone, self.daemons, self.closed, self.acting
        )
        self.oracle.epoch = epoch
        if not self.remembered:
            self.oracle.count("scheduler restarted without nodes")
        settings = self.settings
        lost_s = settings.lost_after_intervals * settings.heartbeat_interval_s
        after = self.clock.after
        after(settings.recovery_wait_s * 0.99, self._look_for_late, born)
        after(settings.client_grace_s * 0.99, self._look_for_clients, born)
        after((lost_s + settings.lease_margin_s) * 0.99, self._look_for_lost, born)
        if self._lives_s:
            after(self._lives_s.pop(0), self._crash_again, born)

    def _crash_again(self, scheduler: SchedulerProcess) -> None:
        if scheduler.is_alive:
            self.oracle.count("scheduler crashed again")
            scheduler.crash(mid_turn=False)

    def _missing(self, scheduler: SchedulerProcess) -> list[str]:
        if scheduler is not self.scheduler or not scheduler.is_alive:
            return []
        return [name for name in self.nodes if name not in scheduler.registered]

    def _look_for_late(self, scheduler: SchedulerProcess) -> None:
        """Nodes that are not back in time: what they run may be started elsewhere."""
        for name in self._missing(scheduler):
            self.oracle.count("node late for the scheduler's next life")
            self.oracle.life_late(self.nodes[name].peer)

    def _look_for_lost(self, scheduler: SchedulerProcess) -> None:
        """Nodes that are not back at all are given up."""
        for name in self._missing(scheduler):
            self.oracle.count("node lost by the scheduler's next life")
            self.oracle.life_lost(self.nodes[name].peer)

    def _look_for_clients(self, scheduler: SchedulerProcess) -> None:
        """Clients that are not back in time are given up."""
        if scheduler is self.scheduler and scheduler.is_alive:
            self._graced_epoch = scheduler.epoch
            for user in self._staying():
                if user.process.peer not in scheduler.registered and user.process.has_been_up:
                    self.oracle.count("client late for the scheduler's next life")
                    self.oracle.life_lost(user.process.peer)

    def welcomed(self, process: Process, epoch: int) -> None:
        """A process reads its first welcome: if from a life long over, it was late for the next."""
        if isinstance(process, ClientProcess) and epoch < self._graced_epoch:
            self.oracle.count("client read its first welcome too late")
            self.oracle.life_lost(process.peer)

    def _process(self, name: str) -> Process:
        if name == "scheduler":
            return self.scheduler
        if name.startswith("n"):
            names = list(self.nodes)
            return self.nodes[names[int(name[1:]) % len(names)]]
        return self.users[int(name[1:]) % len(self.users)].process

    # ------------------------------------------------------------------------------ the tape

    def _happen(self, entry: op.Operation | op.Fault) -> None:
        if isinstance(entry, op.FAULTS):
            self.faults += 1
            self.oracle.count(f"fault {entry.__struct_config__.tag}")
            self._go_wrong(entry)
            return
        user = self.users[entry.client % len(self.users)]
        if user.is_gone:
            return
        process = user.process
        if self.clock.now_s < process.paused_until_s:
            self.clock.at(process.paused_until_s, self._happen, entry)
            return
        self._work(user, entry)

    def _work(self, user: User, entry: op.Operation) -> None:
        match entry:
            case op.Submit():
                user.submit(entry.spec, entry.copies, entry.lets_go, entry.segment)
            case op.Put():
                user.put(entry.label, entry.size, entry.contains, entry.segment)
            case op.Get():
                user.get(entry.picks, entry.timeout_s)
            case op.Wait():
                user.wait(entry.picks, entry.count, entry.timeout_s)
            case op.Drop():
                user.drop(entry.picks)
            case op.Cancel():
                user.cancel(entry.picks, entry.force, entry.recursive, entry.asks)
            case op.Share():
                user.share(entry.pick, self.users[entry.to % len(self.users)])
            case op.Query():
                user.query(entry.what)
            case op.CreateActor():
                user.cast.create(entry.spec)
            case op.CallActor():
                user.cast.call(entry)
            case op.EndActor():
                user.cast.end(entry)
            case op.Leave():
                self._leave(user, entry.crash)

    def _leave(self, user: User, crash: bool) -> None:
        self.oracle.count("client crashed" if crash else "client left")
        user.end()
        self.oracle.clients_gone[user.process.peer] = None
        if crash:
            user.process.crash()
        else:
            user.process.leave()

    def _go_wrong(self, entry: op.Fault) -> None:
        names = list(self.nodes)
        match entry:
            case op.Pause():
                self._process(entry.who).pause(entry.for_s)
            case op.PauseHost():
                self._pause_host(names[entry.node % len(names)], entry.for_s)
            case op.CrashScheduler():
                self._crash_scheduler(entry)
            case op.Cut() | op.Stall() | op.Slow() | op.Spoil():
                hurt(self._process(entry.who), entry)
            case op.Drain():
                drains.begin(self, entry)
            case op.CrashNode():
                name = names[entry.node % len(names)]
                if self.nodes[name].is_alive:
                    self.nodes[name].crash()
                    self.clock.after(entry.down_s, self._start_node, name)
            case _:
                self._hit_workers(self.nodes[names[entry.node % len(names)]].pool, entry)

    def _hit_workers(self, pool: FakePool, entry: op.Fault) -> None:
        if isinstance(entry, op.ForkFails):
            pool.fork_fails_until_s = self.clock.now_s + entry.for_s
            return
        worker = pool.pick(entry.pick)
        if worker is None:
            return
        match entry:
            case op.KillWorker():
                pool.signal(worker.number, entry.signal)
            case op.StopWorker():
                worker.stop(entry.for_s)
            case op.OutOfMemory():
                self.oracle.count("worker out of memory")
                worker.die(-9, "SIGKILL", no_memory=True)
            case op.LateWorker():
                pool.hold_back(worker, entry.for_s)

    def _pause_host(self, name: str, for_s: float) -> None:
        self.nodes[name].pause(for_s)
        self.nodes[name].pool.stop_all(for_s)
        for user in self.users:
            if self.host_of(user.name) == name:
                self.oracle.count("client stands still with its host")
                user.process.pause(for_s)

    # ------------------------------------------------------------------------------ the phases

    def run(self) -> Outcome:
        """Live through it all."""
        for entry in self.scenario.tape:
            self.clock.at(entry.at_s, self._happen, entry)
        self._go_on(self.scenario.chaos_s)
        for phase in (self._heal, self._let_go, self._judge, self._part):
            if not self.oracle.violations:
                phase()
        self.record(repr((self.clock.now_s, sorted(self.oracle.counts.items()))).encode())
        return Outcome(
            self.oracle.violations,
            self.clock.steps,
            self.clock.now_s,
            self.faults,
            self._digest.hexdigest(),
            self.oracle.counts,
        )

    def _go_on(self, until_s: float) -> None:
        found = self.oracle.violations
        if self.clock.run_until(until_s, found, STEPS_MAX) and not found:
            self.oracle.wrong(f"{STEPS_MAX} steps, and no end")

    def _wait_until(self, limit_s: float, what: Callable[[], list[str]]) -> list[str]:
        """Go on until nothing is left to wait for; return what is, when the time is over."""
        end_s = self.clock.now_s + limit_s
        pause_s = 0.01
        while left := what():
            if self.clock.now_s >= end_s or self.oracle.violations:
                return [] if self.oracle.violations else left  # that is not its own fault
            self._go_on(self.clock.now_s + pause_s)
            pause_s = min(2 * pause_s, LOOK_EACH_S)
        return []

    def _staying(self) -> list[User]:
        return [user for user in self.users if not user.is_gone]

    def _heal(self) -> None:
        """Nothing goes wrong any more: whatever anybody waits for must come."""
        self.network.heal()
        self._lives_s = []
        self._dies_at_note = False
        while not self.scheduler.is_alive and not self.oracle.violations:
            self._go_on(self._scheduler_back_s + 1e-6)
        processes = [self.scheduler, *self.nodes.values(), *(user.process for user in self.users)]
        self._go_on(max(process.paused_until_s for process in processes) + 0.01)
        for user in self._staying():
            user.cancel_endless()
            user.get_all()

        def waits() -> list[str]:
            left = [f"{user.name}: {_show(getter.ids)}"
                    for user in self._staying() for getter in user.getters]  # fmt: skip
            left += [f"{user.name}: unanswered" for user in self._staying() if user.unanswered()]
            left += [f"{user.name}: to load a ref" for user in self._staying() if user.loading]
            left += [f"{user.name}: {reader.task.hex()}, read {reader.count}"
                     for user in self._staying() for reader in user.readers
                     if not reader.is_over]  # fmt: skip
            if not left:
                for user in self._staying():
                    user.get_all()
                left = [user.name for user in self._staying() for _ in user.getters]
            return left

        if left := self._wait_until(REST_S + self._work_s, waits):
            self.oracle.wrong(f"never resolved: {'; '.join(left[:8])}{self._why()}")

    def _let_go(self) -> None:
        """All refs are dropped: nothing may be left in any core."""
        for user in self._staying():
            user.let_all_go()

        def waits() -> list[str]:
            left = []
            for user in self._staying():
                sizes = user.process.core.at_rest() | user.process.data_sizes()
                left += _sizes(user.name, sizes, pinned=user.has_pinned)
                if user.results and not user.has_pinned:
                    left.append(f"{user.name} was not told to forget {_show(list(user.results))}")
            if not any(user.has_pinned for user in self._staying()):
                left += self._rest_of_cluster(but=("clients", "kinds", "functions"))
            return left

        if left := self._wait_until(QUIET_S + self._work_s, waits):
            self.oracle.wrong(f"not at rest: {'; '.join(left)}{self._why()}")

    def _judge(self) -> None:
        settings = self.settings
        Judge(self.oracle, settings.poison_deaths, settings.infeasible_timeout_s).judge()

    def _part(self) -> None:
        """All clients leave: nothing of them may be left anywhere."""
        for user in self._staying():
            self._leave(user, crash=False)
        if left := self._wait_until(QUIET_S, self._rest_of_cluster):
            self.oracle.wrong(f"left behind: {'; '.join(left)}{self._why()}")

    def _rest_of_cluster(self, but: tuple[str, ...] = ()) -> list[str]:
        left = _sizes("scheduler", self.scheduler.core.at_rest(), but)
        left += _sizes("scheduler", rest_of_links(self.scheduler.shell))
        for name, node in self.nodes.items():
            left += _sizes(name, node.core.at_rest(), but)
            left += _sizes(name, node.data_sizes())
        return left

    def _why(self) -> str:
        """Return what the cores remember, for people."""
        told = []
        for process in (self.scheduler, *self.nodes.values(), *(u.process for u in self.users)):
            story = list(getattr(process.core, "story", ()))[-12:]
            told += [f"\n  {process.name}: {entry}" for entry in story]
        return "".join(told)


def _show(ids: Sequence[bytes]) -> str:
    return ", ".join(f"{id_[6:TASK_BYTES].hex()}.{id_[TASK_BYTES:].hex()}" for id_ in ids)


def _sizes(
    name: str, sizes: dict[str, int], but: tuple[str, ...] = (), *, pinned: bool = False
) -> list[str]:
    if pinned:
        return []
    return [f"{name}.{what} = {size}" for what, size in sizes.items() if size and what not in but]
