"""Nodes that are drained, in the simulator: drawn, begun, seen to their end.

Whoever runs the node tells it so, or a user who may have the scheduler tell it. It is started again
afterwards: a world whose nodes are all gone would wait for ever. Never looks into a core.
"""

from random import Random
from typing import TYPE_CHECKING

from drumbeat.node.events import StopAsked

from .operations import Drain, Scenario

if TYPE_CHECKING:
    from .world import World

#: share of the worlds in which nodes are drained
SHARE = 0.3


def draw_drains(scenario: Scenario) -> list[Drain]:
    """Return what is drained in this world, with chance of its own."""
    random = Random(f"drains {scenario.seed}")
    if random.random() >= SHARE:
        return []
    scenario.settings["drain_timeout_s"] = random.choice((1.0, 4.0, 10.0))
    return [
        Drain(
            at_s=random.uniform(0.0, scenario.chaos_s),
            node=random.randrange(len(scenario.nodes)),
            client=random.choice((-1, random.randrange(scenario.clients))),
            hurry_after_s=random.choice((-1.0, -1.0, -1.0, 0.0, 0.02, 0.5)),
            back_s=random.choice((0.0, 0.01, 0.5, 2.0)),
        )
        for _ in range(random.choice((1, 1, 2, 3)))
    ]


def begin(world: "World", entry: Drain) -> None:
    """Have a node drained."""
    name = list(world.nodes)[entry.node % len(world.nodes)]
    node = world.nodes[name]
    if not node.is_alive:
        return
    node.back_s = entry.back_s
    users = [user for user in world.users if not user.is_gone]
    if entry.client >= 0 and users:
        world.oracle.count("drained by the scheduler")
        users[entry.client % len(users)].drain(name)
    else:
        node.tell(StopAsked(1))
    if entry.hurry_after_s >= 0:
        world.clock.after(entry.hurry_after_s, node.tell, StopAsked(2))
