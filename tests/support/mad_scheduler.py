"""A client core, or a node core, whose scheduler, or worker, says anything that decodes."""

from random import Random
from typing import Any, get_args

from drumbeat.client import events as client_events
from drumbeat.node import events as node_events
from drumbeat.node.packets import Exit, Setup, ToDaemon
from drumbeat.protocol import codec
from drumbeat.protocol.errors import RemoteProtocolError
from drumbeat.protocol.ids import IdFactory, TaskId, objects_of
from drumbeat.protocol.messages import (
    Outcome,
    Query,
    Results,
    TakenBack,
    TaskRow,
    ToClient,
    ToNode,
    ValueRow,
)

from .client_bench import LARGE, NODE, PEER, Client, foreign
from .fuzzing import Words, damaged
from .node_bench import CLIENT, OTHER, NodeBench, nest

HASH = b"\1" * 16
decode_to_daemon = codec.decoder(ToDaemon)


class MadClient:
    """A client that works, and what its scheduler says meanwhile."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self.client = Client()
        self.tasks: list[bytes] = [
            self.client.submit({"num_returns": rng.choice((0, 1, 1, 3))}) for _ in range(4)
        ]
        self.tasks.append(self.client.submit(args=LARGE))
        self.puts = [self.client.put(), self.client.put(LARGE)]
        several = [id_ for task in self.tasks for id_ in objects_of(TaskId(task), 3)]
        others = [foreign(1), foreign(2), foreign(2) + b"\0\1", foreign(3) + b"x"]
        ids = [PEER, NODE, *self.tasks, *self.puts, *several[:6], *others, b"", HASH]
        self.words = Words(rng, ids, (0, 1, 1, 2, 3))
        self.refused = 0

    def step(self) -> None:
        """Have the scheduler say something, and the program do something."""
        rng, client = self.rng, self.client
        read = _said(rng, self.words, ToClient, codec.decode_to_client)
        if read is None:
            self.refused += 1
        else:
            self.do(client_events.Received(read))
        if rng.random() < 0.2:
            payload = rng.choice((b"", b"x", LARGE))
            self.do(client_events.BlobReceived(self.words.bytes_of(14, 17), payload))
        match rng.randrange(12):
            case 0:
                self.tasks.append(client.submit())
            case 1:
                self.do(client_events.Awaited([rng.choice([foreign(1), foreign(2)])]))
            case 2:
                ids: list[Any] = [rng.choice(self.tasks)]
                self.do(client_events.CancelAsked(ids, False, True, rng.choice((0, 1, 2))))
            case 3:
                self.do(client_events.Asked(Query(rng.choice((1, 2)), "status", 1)))
            case 4:
                self.do(client_events.Disconnected())
                self.do(client_events.Connected(rng.choice((1, 2, 3)), rng.random() < 0.5))
            case 5:
                client.drop(rng.choice(self.puts)) if self.puts else None
                self.puts = []

    def do(self, event: client_events.Event) -> None:
        """Tell the core; whatever it sends has to fit the wire."""
        _check(self.client.do(event))

    def end(self) -> None:
        """The scheduler comes to its senses: all that is not finished ends as it should."""
        client = self.client
        self.do(client_events.Disconnected())
        self.do(client_events.Connected(9, False))
        for task in list(client.core.tasks):
            self.do(client_events.Received(Results([ValueRow(task, Outcome.VALUE, b"v")])))
        assert not client.core.tasks


class MadNode:
    """A node that works, and what its scheduler says meanwhile."""

    def __init__(self, rng: Random, mad_workers: bool = False) -> None:
        self.rng = rng
        self.mad_workers = mad_workers
        self.bench = bench = NodeBench()
        bench.ready()
        tasks = bench.assign(4)
        own = [bench.ids[OTHER]() for _ in range(2)]
        make = IdFactory(bench.core._state.peer, 1)
        self.nested = [make() for _ in range(3)]
        ids = [
            CLIENT, OTHER, bench.core._state.peer, *tasks, *own, *self.nested, tasks[0] + b"\0\1",
            tasks[1] + b"a", b"", HASH, b"\2" * 16,
        ]  # fmt: skip
        self.words = Words(rng, ids, (0, 1, 1, 1, 2, 3))
        self.refused = 0

    def step(self) -> None:
        """Have the scheduler say something, and workers do what they were told."""
        rng, bench = self.rng, self.bench
        read = _said(rng, self.words, ToNode, codec.decode_to_node)
        if read is None:
            self.refused += 1
        else:
            self.feed(node_events.Received(read))
        if rng.random() < 0.2:
            payload = rng.choice((b"", b"x", LARGE))
            self.feed(node_events.BlobReceived(self.words.bytes_of(14, 17), payload))
        match rng.randrange(10):
            case 0:
                self.work()
            case 1:
                bench.assign(1, 1) if 1 in bench.core._intake.kinds else None
            case 2:
                self.feed(node_events.Disconnected())
                self.feed(node_events.Connected(rng.choice((1, 2, 3)), rng.random() < 0.5))
            case 3:
                _check(bench.after(rng.choice((0.01, 1.0, 20.0))))
            case 4 if bench.rows:
                self.call(rng.choice(list(bench.rows)))
            case 5 | 6 if self.mad_workers and bench.core._state.workers:
                self.babble(rng.choice(list(bench.core._state.workers)))

    def babble(self, number: int) -> None:
        """Have a worker say anything: its tasks wrote into its socket."""
        read = _said(self.rng, self.words, ToDaemon, decode_to_daemon)
        if read is None:
            # As the pool does with a worker that says what cannot be read.
            if self._there(number):
                self.bench.rows.pop(number, None)
                self.feed(node_events.WorkerExited(number, -9, "SIGKILL", ""))
        else:
            self.feed(node_events.WorkerSpoke(number, read))

    def call(self, number: int) -> None:
        if self.nested and self._there(number):
            nest(self.bench, number, TaskRow(self.nested.pop(), 1))

    def feed(self, event: node_events.Event) -> None:
        """Tell the core; whatever it sends has to fit the wire, and start what it starts."""
        bench = self.bench
        _check(bench.feed(event))
        starting = tuple(bench.core._processes.starting)
        if starting:
            _check(bench.ready(*starting))

    def _there(self, number: int) -> bool:
        worker = self.bench.core._state.workers.get(number)
        return worker is not None and not worker.dropped

    def work(self) -> None:
        """Have workers end what they have."""
        bench = self.bench
        for number in list(bench.rows):
            if self._there(number) and bench.rows[number]:
                _check(bench.finish(number))

    def end(self) -> None:
        """A scheduler in its right mind comes, and this node does as it should."""
        bench = self.bench
        self.feed(node_events.Disconnected())
        self.feed(node_events.Connected(99, False))
        self.feed(node_events.Disconnected())
        self.feed(node_events.Connected(99, False))  # it had given the node up
        for number, worker in list(bench.core._state.workers.items()):
            if worker.dropped:
                self.feed(node_events.WorkerExited(number, -9, "SIGKILL", ""))
        bench.prepare(1)
        (task,) = bench.assign(1)
        if bench.core._drain.active:
            # That was among what it was told, and is for good.
            assert bench.sent(TakenBack) == [TakenBack([(task, 1)])]
            return
        for _ in range(20):
            if task in [id_ for ids in bench.ran().values() for id_ in ids]:
                return
            starting = tuple(bench.core._processes.starting)
            bench.ready(*starting) if starting else bench.after(5.0)
        raise AssertionError("it runs nothing any more")


def _said(rng: Random, words: Words, kinds: Any, decode: Any) -> Any:
    message = words.message(*get_args(kinds))
    encoded = codec.encode(message)
    if rng.random() < 0.3:
        encoded = damaged(rng, encoded)
    try:
        return decode(encoded)
    except RemoteProtocolError:
        return None


def _check(commands: list[Any]) -> None:
    for command in commands:
        if isinstance(command, client_events.Send | node_events.Send):
            codec.encode(command.message)
        elif isinstance(command, node_events.SendWorker):
            assert not isinstance(command.packet, Setup | Exit) or command.worker
            codec.encode(command.packet)
