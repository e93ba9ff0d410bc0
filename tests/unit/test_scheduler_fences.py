"""Actors whose last incarnation may still act: no other one begins, over restarts too."""

import pytest
from drumbeat.protocol.actors import ActorOptions, ActorsGone
from drumbeat.protocol.ids import PeerId, TaskId
from drumbeat.protocol.messages import Join, StopMode, Submit, TaskRow
from drumbeat.protocol.recovery import Inventory, Phase
from drumbeat.scheduler import events
from support.acting import Acting
from support.restarts import CLIENT, NODE, OTHER, Restarted, ids, row
from support.scheduling import died

from drumbeat.protocol.messages import AssignRow  # isort: skip

#: lost_after_intervals * heartbeat_interval_s + lease_margin_s
LEASE_S = 12.0
KEEPER = "keeper of lab"


def lost(stage: Acting, **options: int) -> tuple[TaskId, PeerId]:
    """Have an actor begin at a node that is lost then; return both."""
    node = stage.node(name="lab")
    actor = stage.create(restarts=1, **options)
    stage.started(actor, node)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    return actor, node


class Next(Restarted):
    """The life after one in which the node of an actor was lost; another node is back."""

    def __init__(self, actor: TaskId, **settings: float) -> None:
        acting = [(actor.hex(), NODE.hex(), KEEPER)]
        super().__init__("m", acting=acting, **settings)
        self.node_back(letter="m")

    def recalls(self, actor: TaskId, *, waits: bool = False) -> None:
        """The client that created the actor names it, with the attempt that it was told of."""
        self.client_enters()
        creates = ActorOptions(waits_on_partition=waits)
        kind = self.define(CLIENT, num_cpus=0.0, creates=creates, max_retries=3)
        self.say(CLIENT, Submit(CLIENT, b"", 0, [TaskRow(actor, kind, b"args")], [2]))
        self.registered(CLIENT)
        self.turn()

    def begun(self) -> list[tuple[bytes, int]]:
        """Return what has begun at the other node since this was asked last."""
        return [(sent.id, sent.attempt) for sent in self.assigned(OTHER)]


# ------------------------------------------------------------------------------------ written down


@pytest.mark.parametrize("waits", [False, True])
def test_an_actor_that_may_still_act_is_written_down_until_the_next_one_begins(waits: bool) -> None:
    stage = Acting()
    actor, node = lost(stage, waits_on_partition=waits)
    assert stage.acting[-1] == [(actor.hex(), node.hex(), KEEPER)]
    # A next life does not wait for the node: all know what was charged for it.
    assert stage.remembered[-1] == []
    struck = stage.remembered.index([], 1)
    assert stage.acting[struck]
    stage.node("m", name="lab")
    stage.live(0.5)
    assert stage.acting[-1] == []


def test_one_that_has_no_further_life_is_not_written_down() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    stage.started(stage.create(), node)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert not any(stage.acting)
    assert stage.at_rest()


def test_one_that_is_killed_meanwhile_is_written_down_no_more() -> None:
    stage = Acting()
    actor, _ = lost(stage, waits_on_partition=True)
    stage.drop(actor)
    stage.live(0.5)
    assert stage.acting[-1] == []
    assert stage.at_rest()


# ------------------------------------------------------------------------------- in the next life


def test_in_the_next_life_the_whole_lease_is_waited_for() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor)
    stage.at(LEASE_S - 0.5)
    assert stage.begun() == []
    stage.at(LEASE_S + 0.5)
    assert stage.begun() == [(actor, 2)]


def test_in_the_next_life_one_that_outlives_any_silence_still_waits_for_proof() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor, waits=True)
    stage.at(60.0)
    assert stage.begun() == []
    stranger = PeerId(b"s" * 6)
    stage.hello(stranger, "node", "lab")
    stage.say(stranger, Join("lab", "host", 1, {}, keeper="another keeper"))
    stage.live(1.0)
    assert stage.begun() == []
    successor = PeerId(b"k" * 6)
    stage.hello(successor, "node", "lab2")
    stage.say(successor, Join("lab2", "host", 1, {}, keeper=KEEPER))
    stage.live(1.0)
    assert stage.begun() + [
        (sent.id, sent.attempt) for sent in stage.assigned(stranger) + stage.assigned(successor)
    ] == [(actor, 2)]


@pytest.mark.parametrize("first", ["client", "node"])
@pytest.mark.parametrize("waits", [False, True])
def test_the_node_that_is_back_with_it_ends_it_before_the_next_one_begins(
    first: str, waits: bool
) -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    if first == "client":
        stage.recalls(actor, waits=waits)
    stage.node_joins(cpus=0)
    stage.say(NODE, Inventory([CLIENT], [row(actor)], True))
    stage.registered(NODE)
    stage.say(NODE, ActorsGone())  # of those that it has not named
    if first == "node":
        stage.recalls(actor, waits=waits)
    stage.turn()
    assert stage.stops(NODE) == [(actor, 1, StopMode.FORCE)]
    # It has its lease, as long as its node is there.
    stage.at(LEASE_S + 5.0)
    assert stage.begun() == []
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.live(0.5)
    assert stage.begun() == [(actor, 2)]
    assert stage.acting[-1] == []


@pytest.mark.parametrize("waits", [False, True])
def test_a_node_that_is_back_without_it_proves_it_dead_when_all_that_it_dropped_is(
    waits: bool,
) -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor, waits=waits)
    stage.node_back(cpus=0)
    stage.live(1.0)
    assert stage.begun() == []
    stage.say(NODE, ActorsGone())
    stage.live(0.5)
    assert stage.begun() == [(actor, 2)]


def test_a_node_that_is_back_with_it_and_is_lost_again_has_its_lease_anew() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor)
    stage.node_back(row(actor), cpus=0)
    stage.at(8.0)
    heard_s = stage.now_s
    stage.event(events.PeerDisconnected(NODE))
    stage.live(LEASE_S - 1.0, 0.25, NODE)
    assert stage.begun() == []
    while not (begun := stage.begun()):
        stage.live(0.25, 0.25, NODE)
        assert stage.now_s < heard_s + LEASE_S + 1.0
    assert begun == [(actor, 2)]


def test_a_node_that_is_back_has_its_lease_anew_until_it_has_told_what_is_left_there() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor)
    stage.at(8.0)
    stage.node_joins(cpus=0)
    stage.at(8.0 + LEASE_S - 0.5)
    assert stage.begun() == []
    stage.at(8.0 + LEASE_S + 0.5)
    assert stage.begun() == [(actor, 2)]


def test_one_that_had_ended_at_the_node_that_is_back_keeps_nobody_waiting() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.recalls(actor, waits=True)
    stage.node_back(row(actor, phase=Phase.ENDED), cpus=0)
    stage.say(NODE, ActorsGone())
    stage.live(0.5)
    assert stage.begun() == [(actor, 2)]


def test_what_a_node_proves_before_the_actor_is_named_counts() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.node_back(cpus=0)
    stage.say(NODE, ActorsGone())
    stage.live(0.5)
    stage.recalls(actor, waits=True)
    stage.live(0.5)
    assert stage.begun() == [(actor, 2)]


def test_one_that_nobody_names_is_forgotten_and_who_was_away_is_charged_for_it() -> None:
    (actor,) = ids(1)
    stage = Next(actor)
    stage.at(60.0)
    assert stage.acting[-1] == []
    assert stage.closed[-1] == 2
    assert stage.at_rest()
    last = Restarted("m", epoch=3, closed=2)
    last.node_back(letter="m")
    Next.recalls(last, actor, waits=True)  # type: ignore[arg-type]
    last.at(20.0)
    assert last.assigned(OTHER) == []
    failure = last.results(CLIENT)[actor].failure
    assert failure is not None
    assert failure.error == "ActorDied"


def test_a_claim_of_nobody_that_is_stopped_ends_before_its_actor_begins_anew() -> None:
    (actor,) = ids(1)
    stage = Restarted("m", "n")
    stage.node_back(letter="m")
    stage.node_back(row(actor), cpus=0)
    stage.client_back()  # which has forgotten it
    stage.turn()
    assert stage.stops(NODE) == [(actor, 1, StopMode.FORCE)]
    kind = stage.define(CLIENT, num_cpus=0.0, creates=ActorOptions(), max_retries=3)
    stage.names(CLIENT, kind, [actor])
    stage.live(1.0)
    assert stage.assigned(OTHER) == []
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    stage.live(0.5)
    assert [(sent.id, sent.attempt) for sent in stage.assigned(OTHER)] == [(actor, 2)]


@pytest.mark.parametrize("waits", [False, True])
def test_a_node_that_was_told_to_discard_a_client_says_nothing_more_of_its_actors(
    waits: bool,
) -> None:
    (actor,) = ids(1)
    stage = Restarted("m", "n", client_grace_s=1.0)
    stage.node_back(letter="m")
    stage.node_back(row(actor), cpus=0)
    stage.prompt = False
    stage.at(1.5)
    assert stage.stops(NODE) == [(actor, 1, StopMode.FORCE)]
    Next.recalls(stage, actor, waits=waits)  # type: ignore[arg-type]
    stage.reach(CLIENT)
    stage.at(8.0)
    assert stage.assigned(OTHER) == [], "it may not have heard that"
    stage.reach(NODE)
    stage.live(1.5)
    assert stage.assigned(OTHER) == [], "nor have killed it"
    for _ in range(4):
        stage.live(0.5)
        stage.reach(CLIENT)
    assert [(sent.id, sent.attempt) for sent in stage.assigned(OTHER)] == [(actor, 2)]


# ------------------------------------------------------ written before, not named in this life


def comes_back_with(actor: TaskId, **settings: float) -> Next:
    """The node is back where the actor was lost, with it, and nobody has named it yet."""
    stage = Next(actor, **settings)
    stage.node_joins(cpus=0)
    stage.say(NODE, Inventory([CLIENT], [row(actor)], True))
    stage.registered(NODE)
    return stage


def test_one_written_down_stays_so_when_its_node_is_back_and_lost_again() -> None:
    (actor,) = ids(1)
    stage = comes_back_with(actor)
    stage.turn()
    stage.event(events.PeerDisconnected(NODE))
    stage.live(2.0, 0.25, NODE)
    assert stage.acting
    assert all(stage.acting)


def test_one_written_down_stays_so_when_it_is_told_to_end_since_nobody_has_named_it() -> None:
    (actor,) = ids(1)
    stage = comes_back_with(actor, client_grace_s=1.0)
    stage.prompt = False
    stage.at(1.5)
    assert stage.stops(NODE) == [(actor, 1, StopMode.FORCE)]
    assert stage.acting
    assert all(stage.acting)


def test_one_written_down_that_is_being_ended_is_waited_for_though_all_are_back() -> None:
    (actor,) = ids(1)
    stage = comes_back_with(actor, client_grace_s=1.0)
    stage.prompt = False
    stage.at(60.0)
    assert stage.acting[-1] == []
    assert stage.closed[-1] == 2
    stage.recalls(actor)
    stage.reach(CLIENT)
    stage.live(10.0)
    assert stage.begun() == [], "its node may not have heard that it is to end"
    stage.done(NODE, died(AssignRow(actor, 1, 1, 1, 0, -1.0)))
    for _ in range(4):
        stage.live(0.5)
        stage.reach(CLIENT)
    assert stage.begun() == [(actor, 3)]
