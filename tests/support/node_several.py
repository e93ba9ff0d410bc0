"""A node core on the bench with an actor that runs several calls at once."""

from drumbeat.node import events
from drumbeat.node.packets import ActorMade
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import Beat

from .node_acting import CALL, Stage

AT_ONCE = 3


def staged(concurrency=AT_ONCE, in_threads=False, settings=None, **limits):
    stage = Stage(settings=settings, made=False)
    stage.say(1, ActorMade(1, [], concurrency, in_threads))
    del stage.rows[1][1]
    if limits:
        stage.knows(stage.actor, CALL + 1)
        stage.prepare(
            CALL + 1, actor=stage.actor, num_cpus=0.0, max_retries=0, limits=Limits(**limits)
        )
    return stage


def page_says(stage, started):
    """Answer whatever asks what the worker has started."""
    new = stage.commands
    while new:
        answers = []
        for command in new:
            if type(command) is events.ReadPage:
                answers.append(events.PageRead([(1, started, True)]))
            elif type(command) is events.TakePackets:
                answers.append(events.PacketsTaken(1, []))
        if not answers:
            return
        new = stage.feed(*answers)


def beaten(commands):
    sent = [c.message for c in commands if type(c) is events.Send]
    return [row for message in sent if type(message) is Beat for row in message.running]
