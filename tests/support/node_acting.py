"""A node core on the bench with an actor."""

from drumbeat.node import events
from drumbeat.node.packets import ActorMade
from drumbeat.protocol.actors import ActorOptions
from drumbeat.protocol.messages import TakenBack

from .node_bench import NodeBench

#: kinds: what makes actors, and calls of the first one
CREATION, CALL = 10, 11


class Stage(NodeBench):
    """A node with one actor, made and told of, in worker 1."""

    def __init__(self, resources=None, settings=None, *, made=True, num_cpus=0.0, limits=None):
        super().__init__(resources, settings, prepare=False)
        self.prepare(
            CREATION, creates=ActorOptions(), num_cpus=num_cpus, max_retries=0, limits=limits
        )
        (self.actor,) = self.assign(kind=CREATION)
        self.knows(self.actor)
        self.ready(1)
        if made:
            self.say(1, ActorMade(1))
            del self.rows[1][1]

    def knows(self, actor, kind=CALL):
        self.prepare(kind, actor=actor, num_cpus=0.0, max_retries=0)

    def call(self, count=1, **given):
        return self.assign(count, kind=CALL, **given)

    def hosted(self):
        return self.core._state.workers[1].actor

    def told_back(self):
        return [row[0] for message in self.sent(TakenBack) for row in message.rows]

    def order_of_news(self):
        return [type(m).__name__ for m in (c.message for c in self.of(events.Send))]
