"""Checkpoints at the scheduler: the newest of each actor, before what was said after it."""

from typing import Any

from drumbeat.protocol.actors import ActorOptions, ActorsUp
from drumbeat.protocol.checkpoints import (
    Checkpoint,
    CheckpointRow,
    CheckpointsGone,
    CheckpointsKept,
)
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import AssignRow, Submit, TaskRow
from drumbeat.protocol.recovery import Inventory, Phase
from drumbeat.scheduler import events
from support.acting import Acting
from support.restarts import CLIENT, NODE, OTHER, Restarted, ids, row
from support.scheduling import Stage, died, error_done, value_done

LARGE = bytes(100_000)


def tells(
    stage: Stage,
    node: PeerId,
    actor: bytes,
    payload: bytes | None = b"state",
    at: tuple[int, int] = (1, 1),
) -> None:
    """A node tells a checkpoint; None: a large one, which is to follow."""
    size = len(LARGE) if payload is None else 0
    stage.say(node, Checkpoint([CheckpointRow(TaskId(actor), *at, payload, size)]))


def follows(stage: Stage, node: PeerId, actor: bytes) -> None:
    stage.event(events.BlobReceived(node, actor + b"c", LARGE))
    stage.turn()


def gone(stage: Stage, node: PeerId) -> list[tuple[bytes, int]]:
    return [row for message in stage.take(node, CheckpointsGone) for row in message.rows]


def kept(stage: Stage, node: PeerId) -> list[tuple[bytes, int, int]]:
    return [row for message in stage.take(node, CheckpointsKept) for row in message.rows]


def begun(**options: Any) -> tuple[Acting, PeerId, TaskId, AssignRow]:
    stage = Acting()
    node = stage.node()
    actor = stage.create(**{"restarts": 2, **options})
    return stage, node, actor, stage.started(actor, node)


def again(stage: Acting, node: PeerId) -> AssignRow:
    stage.live(0.3, 0.1)
    (creation,) = stage.assigned(node)
    return creation


# ---------------------------------------------------------------------------------- the newest


def test_the_next_incarnation_is_assigned_with_the_last_one_and_without_arguments() -> None:
    stage, node, actor, creation = begun()
    assert creation.checkpoint is None
    tells(stage, node, actor, b"first")
    tells(stage, node, actor, b"second", (1, 2))
    stage.process_ends(node, creation)
    second = again(stage, node)
    assert (second.attempt, second.checkpoint, second.args) == (2, b"second", None)
    stage.up(node, second)
    stage.process_ends(node, second)
    assert again(stage, node).checkpoint == b"second", "nothing newer has been told"


def test_what_an_incarnation_tells_after_it_has_been_replaced_is_not_believed() -> None:
    stage, node, actor, creation = begun()
    tells(stage, node, actor, b"state")
    stage.process_ends(node, creation)
    second = again(stage, node)
    tells(stage, node, actor, b"late", (1, 9))
    stage.turn()
    assert gone(stage, node) == [(actor, 1)]
    stage.process_ends(node, second)
    assert again(stage, node).checkpoint == b"state"


def test_another_node_cannot_tell_the_state_of_an_actor() -> None:
    stage, node, actor, creation = begun()
    other = stage.node("other")
    tells(stage, other, actor, b"false")
    stage.process_ends(node, creation)
    stage.live(0.3, 0.1)
    (second,) = stage.assigned(node) + stage.assigned(other)
    assert second.checkpoint is None


# --------------------------------------------------------------------------- what has no room


def bounded(every_calls: int = 1) -> tuple[Acting, PeerId, TaskId, AssignRow]:
    stage = Acting(checkpoints_bytes_max=100)
    node = stage.node()
    actor = stage.create(restarts=5, checkpoint_every_calls=every_calls)
    return stage, node, actor, stage.started(actor, node)


def ends_a_call(stage: Acting, node: PeerId, actor: TaskId) -> Any:
    (call,) = stage.calls(actor, 1)
    stage.turn()
    (given,) = stage.assigned(node)
    stage.done(node, value_done(given))
    stage.turn()
    return stage.results(stage.caller)[call]


def test_what_has_no_room_is_refused_and_the_older_one_is_kept() -> None:
    stage, node, actor, creation = bounded()
    tells(stage, node, actor, b"a" * 60)
    tells(stage, node, actor, b"b" * 101, (1, 2))
    stage.turn()
    (message,) = stage.take(node, CheckpointsGone)
    assert (message.rows, message.refused) == ([], [(actor, 1, 2)])
    told = stage.ask(stage.caller, "status")["checkpoints"]
    assert told == {"kept": 1, "bytes": 60, "bytes_max": 100, "refused": 1}
    stage.process_ends(node, creation)
    assert again(stage, node).checkpoint == b"a" * 60


def test_the_node_hears_which_are_kept_so_that_it_need_not_keep_those_before_them() -> None:
    stage, node, actor, creation = bounded()
    tells(stage, node, actor, b"a" * 60)
    tells(stage, node, actor, b"b" * 101, (1, 2))
    tells(stage, node, actor, b"c" * 70, (1, 3))
    stage.turn()
    assert kept(stage, node) == [(actor, 1, 1), (actor, 1, 3)]
    stage.process_ends(node, creation)
    again(stage, node)
    tells(stage, node, actor, b"late", (1, 4))
    stage.turn()
    assert not kept(stage, node)


def test_one_that_takes_the_place_of_another_needs_room_for_the_difference_only() -> None:
    stage, node, actor, _ = bounded()
    tells(stage, node, actor, b"a" * 60)
    tells(stage, node, actor, b"b" * 100, (1, 2))
    stage.turn()
    assert not stage.take(node, CheckpointsGone)
    assert stage.ask(stage.caller, "status")["checkpoints"]["bytes"] == 100


def test_room_comes_back_with_the_end_of_an_actor_and_the_refusal_is_told_once() -> None:
    stage, node, actor, _ = bounded()
    other = stage.create(restarts=1)
    its = stage.started(other, node)
    tells(stage, node, other, b"o" * 90)
    for number in (1, 2, 3):
        tells(stage, node, actor, b"a" * 60, (1, number))
    stage.turn()
    events_told = stage.ask(stage.caller, "events", limit=100)["events"]
    (told,) = [one for one in events_told if one["kind"] == "checkpoint refused"]
    assert "checkpoints_bytes_max" in told["text"]
    assert "there is none before it" in told["text"]
    stage.done(node, value_done(its))
    stage.turn()
    tells(stage, node, actor, b"a" * 60, (1, 4))
    stage.turn()
    assert stage.ask(stage.caller, "status")["checkpoints"]["bytes"] == 60
    assert stage.core.at_rest()["checkpoints_refused"] == 0


def test_a_call_whose_state_had_no_room_is_not_answered_where_each_is_to_be_saved() -> None:
    stage, node, actor, _ = bounded()
    tells(stage, node, actor, b"b" * 101)
    failure = ends_a_call(stage, node, actor).failure
    assert failure.error == "CheckpointFailed"
    assert "checkpoints_bytes_max" in failure.text
    tells(stage, node, actor, b"b", (1, 2))
    assert ends_a_call(stage, node, actor).payload == b"v"


def test_where_not_each_call_is_saved_the_results_go_on() -> None:
    stage, node, actor, _ = bounded(every_calls=2)
    tells(stage, node, actor, b"b" * 101)
    assert ends_a_call(stage, node, actor).payload == b"v"


# ----------------------------------------------------------------------------------- large ones


def test_a_result_that_was_told_after_a_large_one_waits_until_that_is_here() -> None:
    stage, node, actor, _ = begun()
    before, after = stage.calls(actor, 2)
    stage.turn()
    first, second = stage.assigned(node)
    stage.done(node, value_done(first))
    tells(stage, node, actor, None)
    stage.done(node, value_done(second))
    stage.turn()
    assert stage.errors() == {before: ""}
    assert not kept(stage, node)
    follows(stage, node, actor)
    assert stage.errors() == {after: ""}
    assert kept(stage, node) == [(actor, 1, 1)]


def test_an_incarnation_that_ends_leaves_the_large_one_that_is_on_its_way() -> None:
    stage, node, actor, creation = begun()
    tells(stage, node, actor, None)
    stage.process_ends(node, creation)
    stage.live(0.3, 0.1)
    assert not stage.assigned(node)
    follows(stage, node, actor)
    second = again(stage, node)
    assert (second.attempt, second.checkpoint_size) == (2, len(LARGE))
    assert [blob.key for blob in stage.blobs if blob.peer == node] == [actor + b"c"]


def test_one_that_came_before_it_was_announced_is_no_other() -> None:
    stage, node, actor, creation = begun()
    follows(stage, node, actor)
    tells(stage, node, actor, None)
    stage.turn()
    assert kept(stage, node) == [(actor, 1, 1)]
    stage.process_ends(node, creation)
    assert again(stage, node).checkpoint_size == len(LARGE)


def test_a_result_that_waited_is_lost_with_the_node_that_did_not_send_the_rest() -> None:
    stage, node, actor, _ = begun()
    tells(stage, node, actor, b"small")
    tells(stage, node, actor, None, (1, 2))
    call = stage.call(actor)
    stage.turn()
    stage.done(node, value_done(stage.assigned(node)[0]))
    stage.turn()
    stage.event(events.PeerDisconnected(node))
    other = stage.node("other")
    stage.live(20.0, 0.5, node)
    assert stage.failure(call).error == "ActorCallLost"
    (second,) = stage.assigned(other)
    assert second.checkpoint == b"small"


def test_what_another_node_says_of_an_actor_holds_up_none_of_its_results() -> None:
    stage, node, actor, _ = begun()
    other = stage.node("other")
    call = stage.call(actor)
    stage.turn()
    (sent,) = stage.assigned(node)
    tells(stage, node, actor, None)
    stage.done(node, value_done(sent))
    tells(stage, other, actor, None)
    stage.turn()
    assert stage.errors() == {}
    follows(stage, node, actor)
    assert stage.errors() == {call: ""}
    stage.event(events.PeerDisconnected(other))
    stage.live(20.0, 0.5, other)
    assert stage.core.at_rest()["checkpoints_arriving"] == 0


# ---------------------------------------------------------------------------------- not needed


def test_nodes_forget_what_the_next_incarnations_node_has_when_that_lives() -> None:
    stage, node, actor, creation = begun()
    tells(stage, node, actor)
    other = stage.node("other", cpus=4)
    stage.process_ends(node, creation)
    stage.live(0.3, 0.1)
    (second,) = stage.assigned(other)
    assert not gone(stage, node), "should both end now, nobody else would have it"
    stage.up(other, second)
    assert gone(stage, node) == [(actor, 1)]
    assert not gone(stage, other)


def test_nothing_is_left_of_an_actor_that_has_ended_for_good() -> None:
    stage, node, actor, creation = begun(restarts=0)
    tells(stage, node, actor)
    stage.process_ends(node, creation)
    stage.turn()
    ((id_, incarnation),) = gone(stage, node)
    assert id_ == actor
    assert incarnation > 1_000_000
    assert stage.core.at_rest()["checkpoints"] == 0


def test_a_restore_that_raises_uses_up_a_restart_and_is_told_at_last() -> None:
    stage, node, actor, creation = begun(restarts=1)
    call = stage.call(actor)
    tells(stage, node, actor)
    stage.turn()
    stage.process_ends(node, creation, unstarted=tuple(stage.assigned(node)))
    second = again(stage, node)
    stage.done(node, error_done(second, retry=True))
    stage.live(0.3, 0.1)
    failure = stage.failure(call)
    assert failure.error == "ActorDied"
    assert "max_restarts=1 allows no further restart: its __restore__ raised" in failure.text


# -------------------------------------------------------------------------------- another life


class Cast(Restarted):
    """A scheduler in its second life; the client created an actor in the first."""

    def recalls(self, actor: TaskId, attempt: int = 1) -> None:
        self.client_enters()
        creation = self.define(
            CLIENT, name="Ledger", num_cpus=0.0, creates=ActorOptions(), max_retries=5
        )
        self.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(actor, creation)], [attempt]))
        self.registered(CLIENT)

    def comes(self, actor: TaskId, phase: Phase, *told: CheckpointRow) -> None:
        """The node comes back and tells what it has."""
        self.node_joins("n")
        self.say(NODE, Checkpoint(list(told)))
        self.say(NODE, Inventory([CLIENT], [row(actor, 1, phase)], True))
        if phase != Phase.ENDED:
            self.say(NODE, ActorsUp([(actor, 1)]))
        self.registered(NODE)


def test_a_new_scheduler_knows_what_the_node_tells_though_the_client_comes_later() -> None:
    stage = Cast("n")
    (actor,) = ids(1)
    stage.comes(actor, Phase.RUNNING, CheckpointRow(actor, 1, 7, b"state"))
    stage.turn()
    stage.recalls(actor)
    stage.turn()
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.live(1.0, 0.1)
    (second,) = stage.assigned(NODE)
    assert (second.attempt, second.checkpoint) == (2, b"state")


def test_the_state_of_one_that_died_while_nobody_listened_is_not_lost() -> None:
    stage = Cast("n")
    (actor,) = ids(1)
    stage.recalls(actor)
    stage.comes(actor, Phase.ENDED, CheckpointRow(actor, 1, 7, b"state"))
    stage.turn()
    assert stage.reports(NODE) == [(actor, 1)]
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.live(1.0, 0.1)
    assert stage.assigned(NODE)[0].checkpoint == b"state"


def test_no_creation_is_placed_by_a_new_scheduler_before_large_ones_are_whole() -> None:
    stage = Cast("n")
    (actor,) = ids(1)
    # The former life had it begin a second time, and all of that is lost but the word of it.
    stage.recalls(actor, attempt=2)
    stage.node_joins("n")
    stage.say(NODE, Checkpoint([CheckpointRow(actor, 1, 7, None, len(LARGE))]))
    stage.say(NODE, Inventory([CLIENT], [], True))
    stage.registered(NODE)
    stage.live(0.5, 0.1)
    assert not stage.assigned(NODE)
    follows(stage, NODE, actor)
    stage.live(0.5, 0.1)
    assert [given.checkpoint_size for given in stage.assigned(NODE)] == [len(LARGE)]


def test_of_two_nodes_that_tell_of_one_the_later_incarnation_is_believed() -> None:
    stage = Cast("m", "n")
    (actor,) = ids(1)
    stage.recalls(actor, attempt=3)
    for letter, told in (("n", (2, 1, b"newer")), ("m", (1, 9, b"older"))):
        node = stage.node_back(letter=letter)
        stage.say(node, Checkpoint([CheckpointRow(actor, *told)]))
    stage.live(1.0, 0.1)
    (third,) = stage.assigned(NODE) + stage.assigned(OTHER)
    assert (third.attempt, third.checkpoint) == (3, b"newer")


def test_what_nobody_has_named_when_all_are_back_is_forgotten() -> None:
    stage = Cast("n")
    (actor,) = ids(1)
    stage.comes(actor, Phase.RUNNING, CheckpointRow(actor, 1, 7, b"state"))
    stage.live(30.0, 0.5)
    assert [id_ for id_, _ in gone(stage, NODE)] == [actor]
    assert stage.core.at_rest()["checkpoints"] == 0


def test_what_was_refused_of_an_actor_that_nobody_has_named_is_forgotten_too() -> None:
    stage = Cast("n", checkpoints_bytes_max=10)
    (actor,) = ids(1)
    stage.comes(actor, Phase.RUNNING, CheckpointRow(actor, 1, 7, b"x" * 20))
    stage.turn()
    assert stage.core.at_rest()["checkpoints_refused"] == 1
    stage.live(30.0, 0.5)
    assert stage.core.at_rest()["checkpoints_refused"] == 0
