"""After a restart of the scheduler, in whatever order all come back: nothing is lost or run twice.

One client with tasks, two nodes that have some of them, calls of a task that runs on the first.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import (
    Assign,
    Blocked,
    Failure,
    Outcome,
    Stop,
    TakeBack,
    TakenBack,
    ValueRow,
)
from drumbeat.protocol.recovery import Inventory, Phase, Report
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row


class Story:
    """One order of events, drawn by chance; counts what was executed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.stage = Restarted("n", "m")
        self.tasks = ids(8)
        self.calls = ids(4, NODE, 1)
        self.max_retries = {id_: self.random.choice((0, 1)) for id_ in self.tasks + self.calls}
        self.executions: dict[bytes, int] = dict.fromkeys(self.max_retries, 0)
        self.results: dict[bytes, ValueRow] = {}
        #: what each node has: (attempt, phase)
        self.has: dict[PeerId, dict[bytes, tuple[int, Phase]]] = {NODE: {}, OTHER: {}}
        self.here: dict[PeerId, None] = {}
        parent = self.tasks[0]
        self.has[NODE][parent] = 1, Phase.BLOCKED
        self.executions[parent] = 1
        for id_ in (*self.tasks[1:], *self.calls):
            where = self.random.choice((NODE, OTHER, None))
            if where is not None:
                phase = self.random.choice((Phase.QUEUED, Phase.RUNNING, Phase.ENDED))
                self.has[where][id_] = 1, phase
                self.executions[id_] = int(phase is not Phase.QUEUED)

    # ---------------------------------------------------------------------------- who comes back

    def client(self) -> Iterator[None]:
        stage = self.stage
        stage.client_enters()
        yield
        kinds = [stage.define(CLIENT, max_retries=most, retry_backoff_s=0.0) for most in (0, 1)]
        for id_ in self.tasks:
            stage.names(CLIENT, kinds[self.max_retries[id_]], [id_])
            yield
        stage.registered(CLIENT)

    def node(self, letter: str) -> Iterator[None]:
        stage = self.stage
        node = stage.node_joins(letter, cpus=4)
        self.here[node] = None
        yield
        rows = [row(id_, *has) for id_, has in self.has[node].items()]
        stage.say(node, Inventory([CLIENT], rows[:2], False))
        yield
        stage.say(node, Inventory([], rows[2:], True))
        yield
        if node == NODE:
            options = {"retry_backoff_s": 0.0}
            kinds = [stage.define(NODE, CLIENT, max_retries=most, **options) for most in (0, 1)]
            for id_ in self.calls:
                kind = kinds[self.max_retries[id_]]
                stage.names(NODE, kind, [id_], client=CLIENT, parent=self.tasks[0], depth=1)
                yield
        stage.registered(node)

    # -------------------------------------------------------------------------- what nodes do

    def hear(self) -> None:
        """Nodes and submitters take in what they were sent."""
        for node in self.here:
            has = self.has[node]
            for message in self.stage.take(node, object):
                if isinstance(message, Assign):
                    for assigned in message.rows:
                        has[assigned.id] = assigned.attempt, Phase.QUEUED
                elif isinstance(message, Report):
                    for id_, attempt in message.rows:
                        assert has[id_] == (attempt, Phase.ENDED)
                        self.end(node, id_)
                elif isinstance(message, TakeBack):
                    back = [id_ for id_, (_, phase) in has.items() if phase is Phase.QUEUED]
                    rows = [(id_, has.pop(id_)[0]) for id_ in back[: message.count]]
                    self.stage.say(node, TakenBack(rows))
                elif isinstance(message, Stop):
                    for id_, attempt, _ in message.rows:
                        self.stop(node, id_, attempt)
                else:
                    self.note(message)
        for message in self.stage.take(CLIENT, object):
            self.note(message)

    def note(self, message: Any) -> None:
        for value in getattr(message, "rows", ()):
            if isinstance(value, ValueRow):
                assert value.id not in self.results, "one outcome a task"
                self.results[value.id] = value

    def stop(self, node: PeerId, id_: bytes, attempt: int) -> None:
        has = self.has[node].get(id_)
        if has is None or has[0] != attempt:
            return
        del self.has[node][id_]
        if has[1] is not Phase.ENDED:
            failure = Failure("TaskCancelled", "stopped", {})
            ended = done(id_, attempt)
            ended.values = (ValueRow(id_, Outcome.FAILURE, failure=failure),)
            self.stage.done(node, ended)

    def end(self, node: PeerId, id_: bytes) -> None:
        attempt, _ = self.has[node].pop(id_)
        self.stage.done(node, done(id_, attempt))

    def work(self) -> None:
        """Some node goes on with something, whether the scheduler knows of it or not."""
        for node, has in self.has.items():
            for id_, (attempt, phase) in list(has.items()):
                if self.random.random() < 0.7:
                    continue
                if phase is Phase.QUEUED:
                    self.executions[id_] += 1
                    has[id_] = attempt, Phase.RUNNING
                elif phase is Phase.BLOCKED and node in self.here:
                    self.stage.say(node, Blocked([(id_, attempt, False)]))
                    has[id_] = attempt, Phase.RUNNING
                elif phase is Phase.RUNNING and node in self.here:
                    self.end(node, id_)
                elif phase is Phase.RUNNING:
                    has[id_] = attempt, Phase.ENDED

    def play(self, begins_s: dict[Callable[[], Iterator[None]], float], until_s: float) -> None:
        running: list[Iterator[None]] = []
        waiting = dict(begins_s)
        while self.stage.now_s < self.stage.start_s + until_s:
            at_s = self.stage.now_s - self.stage.start_s
            for script in [script for script, due_s in waiting.items() if at_s >= due_s]:
                del waiting[script]
                running.append(script())
            for _ in range(self.random.randrange(6)):
                if running:
                    script_running = self.random.choice(running)
                    if next(script_running, running) is running:
                        running.remove(script_running)
            # Only who has told all goes on in public: before, it is in the inventory.
            if not running:
                self.hear()
                self.work()
            self.stage.live(self.random.choice((0.01, 0.1, 0.3)))
        assert not waiting

    def everything_ended(self) -> None:
        for id_ in self.tasks:
            assert id_ in self.results, "each task has its outcome"
        for id_, count in self.executions.items():
            assert count <= 1 + self.max_retries[id_], "no execution beyond the retries"
        assert not any(self.has[node] for node in self.here)
        self.stage.turn(0.2).turn(0.2)
        assert self.stage.at_rest(), self.stage.core.at_rest()


@pytest.mark.parametrize("seed", range(60))
def test_when_all_come_back_in_time_everything_has_its_value(seed: int) -> None:
    story = Story(seed)
    begins_s = {
        script: story.random.uniform(0.0, 1.2)
        for script in (story.client, lambda: story.node("n"), lambda: story.node("m"))
    }
    story.play(begins_s, 30.0)
    story.everything_ended()
    assert len(story.results) == len(story.tasks) + len(story.calls)
    assert {value.outcome for value in story.results.values()} == {Outcome.VALUE}


@pytest.mark.parametrize("seed", range(60))
def test_whoever_comes_late_nothing_runs_too_often_and_everything_ends(seed: int) -> None:
    story = Story(seed)
    scripts = story.client, lambda: story.node("n"), lambda: story.node("m")
    late_s = (0.0, 1.0, 3.0, 9.0, 11.0, 14.0)
    begins_s = {script: story.random.choice(late_s) for script in scripts}
    story.play(begins_s, 50.0)
    story.everything_ended()


@pytest.mark.parametrize("role", ["client", "node"])
def test_whoever_never_heard_its_welcome_comes_again_as_it_came(role: str) -> None:
    stage = Restarted("n", "m")
    (one,), (child,) = ids(1), ids(1, NODE, 1)
    stage.node_back(row(one), row(child, phase=Phase.QUEUED), letter="m")
    for _ in range(2):  # the connection is cut while the first Welcome is under way
        stage.hello(CLIENT if role == "client" else NODE, role, role[0], epoch=1)
        stage.turn()
        assert stage.stops(OTHER) == []
    node = stage.node_joins()
    stage.say(node, Inventory([CLIENT], [], True))
    client = stage.client_enters()
    stage.names(client, stage.define(client, max_retries=0), [one])
    stage.names(node, stage.define(node, client, max_retries=0), [child], client=client)
    stage.registered(client)
    stage.registered(node)
    stage.at(20.0)
    assert stage.stops(OTHER) == []
    assert stage.task(one)["node"] == stage.task(child)["node"] == "m"
