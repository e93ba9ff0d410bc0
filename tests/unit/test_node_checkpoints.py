"""Checkpoints of actors at a node: told in order, one large one at a time, and told again."""

import pytest
from drumbeat.node import events
from drumbeat.node.packets import ActorMade, Checkpointed, CheckpointKept, Finished, FinishedRow
from drumbeat.protocol.checkpoints import (
    Checkpoint,
    CheckpointsGone,
    CheckpointsKept,
)
from drumbeat.protocol.messages import Assign, Discard, ValueRow
from support.node_acting import CREATION, Stage
from support.node_bench import CLIENT, at_rest, restart

LARGE = bytes(100_000)
ALL = 1 << 60


@pytest.fixture
def stage():
    return Stage()


def told(messages):
    """Return what was told of checkpoints: incarnation, number, payload or size."""
    return [
        (row.incarnation, row.number, row.size if row.payload is None else row.payload)
        for message in messages
        if isinstance(message, Checkpoint)
        for row in message.rows
    ]


def sent(stage):
    return told(stage.sent(Checkpoint))


def blobs(stage):
    return [(command.key, len(command.payload)) for command in stage.of(events.SendBlob)]


def kept(stage, actor, *numbers):
    stage.hear(CheckpointsKept([(actor, 1, number) for number in numbers]))


def refused(stage, actor, number):
    stage.hear(CheckpointsGone([], [(actor, 1, number)]))


def gone(stage, actor, incarnation=ALL):
    stage.hear(CheckpointsGone([(actor, incarnation)]))


def test_the_state_is_told_before_the_result_of_the_call_after_which_it_is(stage):
    (call,) = stage.call()
    result = FinishedRow(2, (ValueRow(call, 0, b"value"),), 0.1)
    stage.say(1, Checkpointed(1, b"state"), Finished([result]))
    assert stage.order_of_news() == ["Checkpoint", "Done"]
    assert sent(stage) == [(1, 1, b"state")]


def test_a_large_one_follows_on_the_other_link_and_its_worker_hears_when_it_has_come(stage):
    stage.say(1, Checkpointed(1, LARGE))
    assert sent(stage) == [(1, 1, len(LARGE))]
    assert blobs(stage) == [(stage.actor + b"c", len(LARGE))]
    stage.hear(CheckpointsKept([(stage.actor, 1, 1)]))
    assert [packet.number for packet in stage.told(1, CheckpointKept)] == [1]


def test_of_large_ones_of_several_actors_one_is_on_its_way_at_a_time(stage):
    (other,) = stage.assign(kind=CREATION)
    stage.ready(2)
    stage.say(2, ActorMade(1))
    stage.feed(
        events.WorkerSpoke(1, Checkpointed(1, LARGE)), events.WorkerSpoke(2, Checkpointed(1, LARGE))
    )
    assert len(sent(stage)) == 2, "both are announced"
    assert blobs(stage) == [(stage.actor + b"c", len(LARGE))]
    stage.hear(CheckpointsKept([(stage.actor, 1, 1)]))
    assert blobs(stage) == [(other + b"c", len(LARGE))]
    stage.hear(CheckpointsKept([(other, 1, 1)]))
    assert [packet.number for packet in stage.told(2, CheckpointKept)] == [1]
    assert not blobs(stage)


def test_a_word_of_one_that_is_not_on_its_way_is_dropped(stage):
    stage.hear(CheckpointsKept([(stage.actor, 1, 1)]))
    assert not stage.told(1, CheckpointKept)
    assert stage.core.counters["stale_dropped"] == 1


def test_the_last_one_is_told_to_each_new_scheduler_before_the_attempts_that_are_here(stage):
    stage.say(1, Checkpointed(1, b"first"))
    stage.say(1, Checkpointed(2, b"second"))
    kept(stage, stage.actor, 1, 2)
    news = restart(stage)
    assert told(news) == [(1, 2, b"second")]
    names = [type(message).__name__ for message in news]
    assert names.index("Checkpoint") < names.index("Inventory") < names.index("Registered")


def test_one_of_an_actor_that_has_died_is_kept_until_nobody_needs_it(stage):
    stage.say(1, Checkpointed(1, b"state"))
    stage.die(1, started=1)
    assert told(restart(stage)) == [(1, 1, b"state")]
    gone(stage, stage.actor, 0)
    assert told(restart(stage, 3)) == [(1, 1, b"state")]
    gone(stage, stage.actor, 1)
    assert told(restart(stage, 4)) == []


def test_a_large_one_that_was_on_its_way_is_sent_to_the_next_scheduler(stage):
    stage.say(1, Checkpointed(1, LARGE))
    news = restart(stage)
    assert told(news) == [(1, 1, len(LARGE))]
    assert blobs(stage) == [(stage.actor + b"c", len(LARGE))]
    stage.hear(CheckpointsKept([(stage.actor, 1, 1)]))
    assert stage.told(1, CheckpointKept)


def test_the_next_incarnation_is_made_of_it_and_not_of_its_arguments():
    stage = Stage(made=False)
    row = stage.row(CREATION, args=None, attempt=2, checkpoint=b"state")
    stage.feed(events.Received(Assign([row])))
    stage.ready(2)
    (run,) = stage.rows[2].values()
    assert (run.checkpoint, run.args) == (b"state", None)
    assert told(restart(stage)) == [(2, 0, b"state")], "nobody else may have it"
    stage.say(2, ActorMade(1))
    assert told(restart(stage, 3)) == [(2, 0, b"state")]


def test_a_large_one_is_waited_for_before_the_actor_is_made():
    stage = Stage(made=False)
    row = stage.row(CREATION, args=None, attempt=2, checkpoint_size=len(LARGE))
    stage.feed(events.Received(Assign([row])))
    assert not stage.started()
    stage.feed(events.BlobReceived(row.id + b"c", LARGE))
    assert stage.started() == [2]
    stage.ready(2)
    (run,) = stage.rows[2].values()
    assert run.checkpoint == LARGE


def test_nothing_is_kept_for_a_client_that_has_left(stage):
    stage.say(1, Checkpointed(1, b"state"))
    assert at_rest(stage)["checkpoints"] == 1
    stage.hear(Discard([], [CLIENT]))
    assert "checkpoints" not in at_rest(stage)


def test_nothing_is_kept_of_a_life_that_the_scheduler_had_given_up(stage):
    stage.say(1, Checkpointed(1, LARGE))
    stage.feed(events.Disconnected())
    stage.feed(events.Connected(1, False))
    assert not stage.sent(Checkpoint)
    assert not {"checkpoints", "checkpoints_sent"} & at_rest(stage).keys()


# --------------------------------------------------------------------------- what has no room


def test_what_the_scheduler_had_no_room_for_is_not_kept_and_what_came_after_it_is(stage):
    stage.say(1, Checkpointed(1, b"first"))
    stage.say(1, Checkpointed(2, LARGE))
    refused(stage, stage.actor, 1)
    assert at_rest(stage)["checkpoints"] == 1
    refused(stage, stage.actor, 2)
    assert "checkpoints" not in at_rest(stage)
    assert [packet.number for packet in stage.told(1, CheckpointKept)] == [2], "it may tell another"


def test_after_a_refused_one_the_next_scheduler_is_told_the_one_that_had_room(stage):
    # With each call saved, calls have been answered of which this one alone knows.
    stage.say(1, Checkpointed(1, b"first"))
    kept(stage, stage.actor, 1)
    stage.say(1, Checkpointed(2, LARGE))
    refused(stage, stage.actor, 2)
    assert [packet.number for packet in stage.told(1, CheckpointKept)] == [2]
    kept(stage, stage.actor, 2)
    assert not stage.told(1, CheckpointKept), "that it has come says nothing of whether it is kept"
    stage.die(1, started=1)
    assert told(restart(stage)) == [(1, 1, b"first")]
    gone(stage, stage.actor, 1)
    assert "checkpoints" not in at_rest(stage)


def test_one_goes_when_a_newer_one_is_known_to_be_there_and_not_before(stage):
    for number in (1, 2, 3, 4):
        stage.say(1, Checkpointed(number, b"%d" % number))
    kept(stage, stage.actor, 1, 2)
    assert at_rest(stage)["checkpoints"] == 3
    refused(stage, stage.actor, 3)
    refused(stage, stage.actor, 4)
    assert told(restart(stage)) == [(1, 2, b"2")]


def test_of_an_actor_with_large_ones_there_are_two_at_most(stage):
    for number in range(1, 6):
        stage.say(1, Checkpointed(number, LARGE))
        assert at_rest(stage)["checkpoints"] == min(number, 2)
        kept(stage, stage.actor, number)
    assert at_rest(stage)["checkpoints"] == 1


def test_what_may_have_no_room_is_told_again_after_all_that_had_some(stage):
    (other,) = stage.assign(kind=CREATION)
    stage.ready(2)
    stage.say(2, ActorMade(1))
    for worker, actor in ((1, stage.actor), (2, other)):
        stage.say(worker, Checkpointed(1, b"first"))
        kept(stage, actor, 1)
        stage.say(worker, Checkpointed(2, b"second"))
    numbers = [number for _, number, _ in told(restart(stage))]
    assert numbers == [1, 1, 2, 2]


def test_a_worker_that_is_no_actor_has_no_state():
    stage = Stage(made=False)
    stage.say(1, Checkpointed(1, b"state"))
    assert not stage.sent(Checkpoint)
    assert stage.core.counters["stale_dropped"] == 1
