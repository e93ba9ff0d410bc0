"""What a node remembers of how its workers call actors: no longer than they can."""

from drumbeat.node.packets import Refs
from drumbeat.protocol.ids import IdFactory
from drumbeat.protocol.messages import Define, Forget, Options, Results, Submit, TaskRow
from support.node_bench import CLIENT, NODE, NodeBench, nest, restart, value


class Calling:
    """A bench with a worker that holds somebody's actors and calls them."""

    def __init__(self):
        self.bench = NodeBench.ready_with_two()
        self.bench.assign()
        (self.worker,) = self.bench.ran()
        self.ids = IdFactory(NODE, self.worker)
        self.actors = IdFactory(CLIENT)
        self.number = 0
        #: Define and Forget messages, all of them in order
        self.told = []

    def hear(self, *messages):
        self.bench.hear(*messages)
        self._listen()

    def _listen(self):
        self.told += self.bench.sent(Define) + self.bench.sent(Forget)

    def actor(self):
        id_ = self.actors()
        self.bench.say(self.worker, Refs([id_], []))
        return id_

    def call(self, actor, payload=b"nested"):
        """Call an actor as a handle does that is new in the worker; return the call."""
        self.number += 1
        task = self.ids()
        row = TaskRow(task, self.number)
        options = Options(num_cpus=0.0, actor=actor)
        nest(self.bench, self.worker, row, options=options, payload=payload, number=self.number)
        self._listen()
        return task

    def drop(self, *ids):
        self.bench.say(self.worker, Refs([], list(ids)))
        self._listen()
        self.hear()  # the turn after it

    def forgotten(self):
        return [n for told in self.told if isinstance(told, Forget) for n in told.kinds]

    def defined(self):
        return [row for told in self.told if isinstance(told, Define) for row in told.rows]

    def remembered(self):
        children, objects = self.bench.core._children, self.bench.core._state.objects
        worker = self.bench.core._state.workers[self.worker]
        kinds = len(children._kinds), len(children._numbers), len(children._users)
        return (*kinds, len(objects.called), len(worker.nested))


def test_when_nobody_here_can_call_an_actor_any_more_its_kinds_are_forgotten():
    calling = Calling()
    actor = calling.actor()
    task = calling.call(actor)
    calling.drop(task, actor)
    assert calling.forgotten() == [], "the call has no result yet"
    calling.hear(Results([value(task)]))
    calling.hear()
    (row,) = calling.defined()
    assert calling.forgotten() == [row.number]
    assert not any(calling.remembered())


def test_as_long_as_a_worker_holds_the_actor_nothing_is_forgotten():
    calling = Calling()
    actor = calling.actor()
    task = calling.call(actor)
    calling.hear(Results([value(task)]))
    calling.drop(task)
    assert calling.forgotten() == []
    calling.drop(actor)
    assert len(calling.forgotten()) == 1


def test_handles_that_are_new_in_a_worker_share_a_kind_and_go_together():
    calling = Calling()
    actor = calling.actor()
    tasks = [calling.call(actor), calling.call(actor, payload=None)]
    assert len(calling.defined()) == 1
    calling.hear(Results([value(task) for task in tasks]))
    calling.drop(*tasks, actor)
    assert len(calling.forgotten()) == 1
    assert not any(calling.remembered())


def test_the_code_goes_along_again_when_the_scheduler_has_forgotten_the_last_of_its_kinds():
    calling = Calling()
    one, other = calling.actor(), calling.actor()
    tasks = [calling.call(one), calling.call(other, payload=None)]
    calling.hear(Results([value(task) for task in tasks]))
    calling.drop(*tasks, one)
    third, fourth = calling.actor(), calling.actor()
    tasks = [calling.call(third, payload=None)]
    calling.hear(Results([value(task) for task in tasks]))
    calling.drop(*tasks, third, other)
    calling.call(fourth, payload=None)
    assert [row.payload for row in calling.defined()] == [b"nested", None, None, b"nested"]
    assert len(calling.forgotten()) == 3


def test_after_a_restart_of_the_scheduler_only_what_it_was_told_of_is_forgotten():
    calling = Calling()
    one, other = calling.actor(), calling.actor()
    tasks = [calling.call(one), calling.call(other, payload=None)]
    calling.hear(Results([value(tasks[0])]))
    told = restart(calling.bench)
    (define,) = [message for message in told if isinstance(message, Define)]
    assert [row.payload for row in define.rows] == [b"nested"], "the one with an open call"
    assert [len(message.rows) for message in told if isinstance(message, Submit)] == [1]
    calling.hear(Results([value(tasks[1])]))
    calling.drop(*tasks, one, other)
    assert calling.forgotten() == [define.rows[0].number]
    assert not any(calling.remembered())
