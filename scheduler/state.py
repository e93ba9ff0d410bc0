"""What the scheduler knows: peers, nodes, and what every part of it shares.

Never decides; it holds the records and keeps each node's account of resources true.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..protocol.frames import Hello, Role
from ..protocol.ids import NO_PEER, ObjectId, PeerId, TaskId, home_of
from ..protocol.labels import carries, show
from ..protocol.messages import (
    Cancel,
    DoneRow,
    Environment,
    Join,
)
from ..protocol.remotes import Remote
from ..protocol.resources import units
from ..protocol.running import RunningRow
from ..protocol.settings import Settings
from .chronicle import INFO, WARNING, Chronicle, Told, order_of, peers_ways
from .claims import Claims
from .holders import Holders
from .hosts import Hosts
from .invariants import check_node
from .outbox import Outbox
from .tasks import FINISHED, Kind, Shape, TaskRecord

if TYPE_CHECKING:
    from random import Random

BlobTaker = Callable[[bytes], None]
#: what it costs to remember a payload whose bytes lie elsewhere
REMOTE_BYTES = 1024


class PeerError(Exception):
    """A peer said what it may not say; it is dropped. Nothing of anyone else's is touched."""


class Peer:
    """A client or node process, as long as its link lives."""

    __slots__ = (
        "args_bytes",
        "behind",
        "connected",
        "early",
        "early_bytes",
        "entered",
        "environment",
        "epoch",
        "expected",
        "here",
        "id",
        "kinds",
        "lag_bytes",
        "met",
        "name",
        "node",
        "payload_lag_bytes",
        "proven",
        "python",
        "role",
        "tasks",
        "unread_bytes",
        "works",
    )

    def __init__(self, peer: PeerId, hello: Hello, proven: str = Role.ADMIN) -> None:
        self.id = peer
        self.role = hello.role
        #: what its key has proven it to be
        self.proven = proven
        self.name = hello.name
        self.python = hello.python
        #: of the scheduler, in which it last lived; 0: in none
        self.epoch = hello.epoch
        #: how many links had begun before its own
        self.met = 0
        #: False once it is forgotten, for those who still point to it
        self.here = True
        self.connected = True
        #: nodes were struck out while it was away, and what it had submitted may have run there
        self.behind = False
        #: whether it has said Enter or Join
        self.entered = False
        self.environment = Environment()
        self.node: Node | None = None
        #: what its numbers mean; None: a kind of a client that has left
        self.kinds: dict[int, Kind | None] = {}
        #: bytes of their arguments at most: what ended since this was counted is still in it
        self.args_bytes = 0
        #: its unfinished tasks
        self.tasks: dict[bytes, TaskRecord] = {}
        #: what waits for it because it does not read; 0: no more than it should
        self.lag_bytes = 0
        #: the same of large payloads
        self.payload_lag_bytes = 0
        #: bytes of output that were dropped since it was last sent some
        self.unread_bytes = 0
        #: it has named work
        self.works = False
        #: large payloads whose row has not come
        self.early: dict[bytes, deque[bytes]] = {}
        self.early_bytes = 0
        #: who waits for a large payload, by its key
        self.expected: dict[bytes, deque[BlobTaker]] = {}

    def expect(self, key: bytes, then: BlobTaker) -> None:
        """A row named a large payload: call `then` with it as soon as it is there."""
        payloads = self.early.get(key)
        if payloads is None:
            self.expected.setdefault(key, deque()).append(then)
            return
        payload = payloads.popleft()
        self.early_bytes -= _kept_bytes(payload)
        if not payloads:
            del self.early[key]
        then(payload)

    def received(self, key: bytes, payload: bytes, early_bytes_max: int) -> None:
        """A large payload is there, perhaps before the row that names it.

        Raises:
            PeerError: too many have come that no row names.
        """
        takers = self.expected.get(key)
        if takers is not None:
            then = takers.popleft()
            if not takers:
                del self.expected[key]
            then(payload)
            return
        self.early.setdefault(key, deque()).append(payload)
        self.early_bytes += _kept_bytes(payload)
        if self.early_bytes > early_bytes_max:
            raise PeerError(f"it sent {self.early_bytes} bytes of payloads that no row names")


def _kept_bytes(payload: bytes) -> int:
    return REMOTE_BYTES if isinstance(payload, Remote) else len(payload)


def ignore(_payload: bytes) -> None:
    """Take a payload whose row was of no use."""


class DrainOf:
    """How far a node is on its way out."""

    __slots__ = ("active", "heard", "hurries", "hurry_heard")

    def __init__(self) -> None:
        #: it gets nothing new; and what runs is to be ended
        self.active = self.hurries = False
        #: it has said so itself, and so will after a restart of anybody
        self.heard = self.hurry_heard = False


class Node:
    """A machine's daemon: what it can do, what it has been given, what it told."""

    __slots__ = (
        "actors", "assigned", "beat_s", "blocked", "calls", "clients", "counts", "cpu",
        "delivering", "drain", "former", "free", "free_cpu", "functions", "host", "id", "joined_s",
        "keeper", "kinds", "labels", "lag_s", "lent_cpu", "memory_bytes", "name", "peer", "pid",
        "progress_s", "resources", "running", "serial", "still", "suspect", "take_back_after_s",
        "taking_back", "told", "total", "used", "work_s", "workers", "workers_blocked",
    )  # fmt: skip

    def __init__(self, peer: Peer, join: Join, serial: int, now_s: float) -> None:
        self.id = peer.id
        self.peer = peer
        #: nodes are ordered by the time they joined
        self.serial = serial
        self.name = join.name
        self.host = join.host
        self.keeper = join.keeper
        self.pid = join.pid
        self.resources = dict(join.resources)
        self.labels = dict(join.labels)
        self.total = {name: units(amount) for name, amount in join.resources.items()}
        self.free = self.total.copy()
        self.cpu = self.total.get("CPU", 0)
        #: kept apart from `free`, which it would be in, because it changes with every task
        self.free_cpu = self.free.pop("CPU", 0)
        #: CPUs of attempts that wait in get()
        self.lent_cpu = 0
        self.blocked = 0
        #: attempts that it has, but for calls of actors
        self.assigned: dict[bytes, TaskRecord] = {}
        #: calls of actors that it has, which ask for nothing of it
        self.calls: dict[bytes, TaskRecord] = {}
        #: how many of `assigned` are actors, which ask for no share of what it does
        self.actors = 0
        #: attempts that ended, whose large values are on their way
        self.delivering: dict[bytes, TaskRecord] = {}
        #: expected durations of all it has and that do not wait in get()
        self.work_s = 0.0
        #: kind number -> how many it has that do not wait in get()
        self.counts: dict[int, int] = {}
        self.suspect = False
        self.drain = DrainOf()
        # What it has been told.
        self.clients: dict[PeerId, None] = {}
        self.kinds: dict[int, Kind] = {}
        #: clients of which it has something over from an earlier life of the scheduler
        self.former: dict[PeerId, None] = {}
        #: how many of its kinds use a function
        self.functions: dict[tuple[PeerId, bytes], int] = {}
        # Taking back.
        self.taking_back = False
        self.take_back_after_s = 0.0
        #: when it last was given something or ended something
        self.progress_s = now_s
        # What it last told of itself.
        self.joined_s = now_s
        self.beat_s = now_s
        self.lag_s = 0.0
        self.workers = 0
        self.workers_blocked = 0
        self.memory_bytes = 0
        self.used = -1.0
        self.running: list[RunningRow] = []
        #: what of that the chronicle was told
        self.told: Told = {}
        #: whether nothing moved there when it last beat
        self.still = False

    def describe(self) -> str:
        """Return what it has and carries, as people say it."""
        has = [f"{name} {amount:g}" for name, amount in self.resources.items()]
        if self.labels:
            has.append(show(self.labels))
        return f"{self.name} has " + ", ".join(has)

    def is_allowed(self, shape: Shape) -> bool:
        """Return whether a shape asks for no other node than this, by name, id or labels."""
        if shape.node and shape.node not in (self.name, self.id.hex()):
            return False
        return not shape.labels or carries(self.labels, shape.labels)

    def could_run(self, shape: Shape) -> bool:
        """Return whether it could run a shape if it were idle."""
        if shape.cpu > self.cpu or not self.is_allowed(shape):
            return False
        return all(self.total.get(name, 0) >= amount for name, amount in shape.others)

    def fits(self, shape: Shape) -> bool:
        """Return whether it has free what a shape asks for."""
        if self.free_cpu + self.lent_cpu < shape.cpu:
            return False
        return all(self.free.get(name, 0) >= amount for name, amount in shape.others)

    def find(self, id_: bytes) -> TaskRecord | None:
        """Return an attempt that it has, of whatever sort."""
        return self.assigned.get(id_) or self.calls.get(id_)

    def name_of(self, id_: bytes) -> str:
        """Return what an attempt that it has is called, for people."""
        record = self.find(id_)
        return "a task" if record is None else record.kind.name

    def records(self) -> list[TaskRecord]:
        """Return all that it has, and what is on its way from it."""
        return [*self.delivering.values(), *self.calls.values(), *self.assigned.values()]

    def take(self, record: TaskRecord) -> None:
        """Count an attempt as its own."""
        kind = record.kind
        if kind.is_special and self._takes_call(record):
            return
        shape = kind.shape
        self.assigned[record.row.id] = record
        record.node = self
        self.free_cpu -= shape.cpu
        self.work_s += record.expected_s
        if shape.others:
            for name, amount in shape.others:
                self.free[name] = self.free.get(name, 0) - amount
        number = kind.number
        self.counts[number] = self.counts.get(number, 0) + 1

    def _takes_call(self, record: TaskRecord) -> bool:
        """Take a call of an actor; or count a new actor, and return False."""
        record.expected_s = 0.0  # however long it takes, it is nothing that tasks wait for
        host = record.kind.host
        if host is None:
            self.actors += 1
            return False
        self.calls[record.row.id] = record
        record.node = self
        host.given(record, self)
        return True

    def _releases_call(self, record: TaskRecord) -> bool:
        host = record.kind.host
        if host is None:
            self.set_blocked(record, False)
            self.actors -= 1
            return False
        del self.calls[record.row.id]
        record.node = None
        record.blocked = False
        host.left(record)
        return True

    def release(self, record: TaskRecord) -> None:
        """Count an attempt as its own no more."""
        kind = record.kind
        if kind.is_special and self._releases_call(record):
            return
        shape = kind.shape
        del self.assigned[record.row.id]
        record.node = None
        if record.blocked:
            record.blocked = False
            self.blocked -= 1
            self.lent_cpu -= shape.cpu
        else:
            self.work_s = self.work_s - record.expected_s if self.assigned else 0.0
            count = self.counts[kind.number] - 1
            if count:
                self.counts[kind.number] = count
            else:
                del self.counts[kind.number]
        self.free_cpu += shape.cpu
        if shape.others:
            for name, amount in shape.others:
                self.free[name] += amount

    def knows(self, client: PeerId) -> bool:
        """Return whether it has, or has had, work of a client that is there."""
        return client in self.clients or client in self.former

    def set_blocked(self, record: TaskRecord, blocked: bool) -> None:
        """An attempt begins or ceases to wait in get(): it lends its CPUs, nothing else."""
        if record.blocked == blocked:
            return
        record.blocked = blocked
        sign = 1 if blocked else -1
        if record.kind.is_special:
            # Of a call, what its actor keeps for life is not lent.
            self.lent_cpu += sign * record.kind.shape.cpu
            return
        self.blocked += sign
        self.lent_cpu += sign * record.kind.shape.cpu
        self.work_s -= sign * record.expected_s
        self._count(record.kind.number, -sign)

    def _count(self, number: int, change: int) -> None:
        count = self.counts.get(number, 0) + change
        if count:
            self.counts[number] = count
        else:
            del self.counts[number]

    @property
    def hears(self) -> bool:
        """Whether what it is sent will be there in a moment, as far as anybody knows."""
        return self.peer.connected and not self.suspect

    @property
    def spare_cpu(self) -> int:
        """CPUs that a new attempt could use, by the scheduler's account; may be negative."""
        return self.free_cpu + self.lent_cpu


class State:
    """What the parts of the core share."""

    __slots__ = (
        "awaits_nodes", "chronicle", "claims", "counters", "epoch", "held_back", "holders", "hosts",
        "nodes", "nodes_version", "now_s", "out", "peers", "recovering", "rng", "settings",
        "started_s",
    )  # fmt: skip

    def __init__(self, settings: Settings, epoch: int, rng: "Random") -> None:
        self.settings = settings
        self.epoch = epoch
        self.rng = rng
        self.now_s = 0.0
        self.started_s: float | None = None
        self.peers: dict[PeerId, Peer] = {}
        #: in the order they joined
        self.nodes: dict[PeerId, Node] = {}
        #: changes with the nodes there are
        self.nodes_version = 0
        #: clients of which nothing is placed, since they do not read their results
        self.held_back: dict[PeerId, None] = {}
        #: nothing is placed yet: nodes of an earlier life of the scheduler are waited for
        self.recovering = False
        #: nodes of the life before may come back yet: what fits none that is there may fit them
        self.awaits_nodes = False
        self.claims = Claims()
        self.holders = Holders()
        self.hosts = Hosts(self)
        self.out = Outbox(self.holders, settings.inline_bytes_max)
        self.counters: dict[str, int] = dict.fromkeys(
            ("submitted", "finished", "failed", "cancelled", "retried", "stale_dropped",
             "taken_back", "peers_dropped", "nodes_lost", "nodes_drained", "clients_gone",
             "messages_rejected", "output_bytes_dropped", "deadlocks", "strangers_gone",
             "cancels_dropped", "actors_restarted", "actors_moved", "actors_died",
             "actor_calls_lost", "checkpoints_refused"), 0
        )  # fmt: skip
        self.chronicle = Chronicle(settings.events_max)

    def tell(
        self,
        text: str,
        kind: str = "scheduler",
        severity: str = INFO,
        node: str = "",
        task: bytes = b"",
    ) -> None:
        """Remember a rare event and why: for people, see `Chronicle.note`."""
        self.chronicle.note(self.now_s, text, kind, severity, node, task)

    def came_or_went(self, peer: Peer, what: str) -> None:
        """Remember what became of a peer: `joined`, `is suspect`, `lost its connection`.

        Clients are told of once they have named work: others come only to ask, again and again.
        """
        if peer.role != Role.NODE and not peer.works:
            return
        kind, bad = peers_ways(what)
        severity = WARNING if bad and peer.role == Role.NODE else INFO
        node = peer.name if peer.role == Role.NODE else ""
        self.tell(f"{peer.role} {peer.name!r} {what}", f"{peer.role} {kind}", severity, node)

    def ended(self, node: Node, record: TaskRecord, row: DoneRow) -> None:
        """Remember the end of an attempt, if it is no ordinary one."""
        self.chronicle.ended(self.now_s, node.name, record.kind.name, row)

    def ordered(self, peer: Peer, message: Cancel) -> None:
        """Remember who has what ended."""
        first = self.find(TaskId(message.ids[0])) if message.ids else None
        name = "" if first is None else first.kind.name
        self.tell(*order_of(peer.name, message, name))

    def find(self, task: TaskId) -> TaskRecord | None:
        """Return a task that has no outcome yet and whose submitter is there."""
        peer = self.peers.get(home := home_of(task)) or self.hosts.wards.get(home)
        return None if peer is None else peer.tasks.get(task)

    def client(self, peer: PeerId) -> Peer | None:
        """Return a client that has entered."""
        found = self.peers.get(peer) or self.hosts.wards.get(peer)
        if found is None or found.role != Role.CLIENT or not found.entered:
            return None
        return found

    def has_home(self, object_id: ObjectId) -> bool:
        """Return whether the home of an object is there, or may come back."""
        home = home_of(object_id)
        peer = self.peers.get(home)
        return (peer is not None and peer.entered) or self.claims.may_come(home)

    def check_invariants(self) -> None:
        """Assert that peers, nodes and holders agree."""
        self.holders.check_invariants()
        serials = [node.serial for node in self.nodes.values()]
        assert serials == sorted(serials)
        for peer_id, node in self.nodes.items():
            assert self.peers[peer_id].node is node
            check_node(node)
        for peer_id, peer in self.peers.items():
            assert peer_id == peer.id != NO_PEER
            assert peer.here
            assert self.out.is_here(peer_id)
            assert (peer.node is not None) == (peer_id in self.nodes)
            assert peer.early_bytes == sum(
                _kept_bytes(payload) for payloads in peer.early.values() for payload in payloads
            )
            for task, record in peer.tasks.items():
                assert record.id == task
                assert record.owner is peer
                assert record.state != FINISHED
