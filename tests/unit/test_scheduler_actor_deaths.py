"""An actor's process dies, or its node is gone: what is lost, what is tried again, and when."""

import pytest
from drumbeat.protocol.actors import ActorsGone
from drumbeat.protocol.drain import Drain, Draining, DrainNode
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import Cancel, Join, Retried, StopMode
from drumbeat.scheduler import events
from support.acting import Acting
from support.scheduling import died, failure_done, value_done

#: lost_after_intervals * heartbeat_interval_s + lease_margin_s
LEASE_S = 12.0


def begun(stage: Acting, node: PeerId, **options: int) -> tuple:  # type: ignore[type-arg]
    actor = stage.create(**options)
    return actor, stage.started(actor, node)


# ------------------------------------------------------------------------------- its process dies


def test_a_call_that_had_begun_is_lost_and_those_that_had_not_go_to_the_next_incarnation() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1)
    first, second, third = stage.calls(actor, 3)
    stage.turn()
    rows = stage.assigned(node)
    stage.process_ends(node, creation, rows[0], unstarted=(rows[1], rows[2]))
    fourth = stage.call(actor)
    stage.turn()
    failure = stage.failure(first)
    assert failure.error == "ActorCallLost"
    assert failure.details["maybe_executed"] is True
    assert failure.details["incarnation"] == 1
    assert failure.cause is not None
    assert failure.cause.error == "WorkerDied"
    stage.live(0.3, 0.1)
    (again,) = stage.assigned(node)
    assert (again.id, again.attempt) == (actor, 2)
    stage.up(node, again)
    assert stage.sent(node) == [second, third, fourth]


def test_a_call_that_may_be_repeated_is_repeated_before_all_that_came_later() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1)
    calls = stage.calls(actor, 3, retries=2)
    stage.turn()
    rows = stage.assigned(node)
    stage.process_ends(node, creation, rows[0], unstarted=(rows[1], rows[2]))
    stage.turn()
    assert (calls[0], 2) in [row for told in stage.take(stage.caller, Retried) for row in told.rows]
    stage.live(0.3, 0.1)
    (again,) = stage.assigned(node)
    stage.up(node, again)
    sent = stage.assigned(node)
    assert [row.id for row in sent] == calls
    assert [row.attempt for row in sent] == [2, 1, 1]


def test_no_call_goes_to_a_process_of_which_it_is_known_that_it_is_dead() -> None:
    stage = Acting(retry_backoff_max_s=30.0)
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1, retry_backoff_s=5.0)
    stage.process_ends(node, creation)
    stage.call(actor)
    stage.live(0.5)
    assert not stage.sent(node)


def test_a_call_that_was_sent_to_a_dead_process_comes_back_before_later_ones_go_elsewhere() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1)
    first = stage.call(actor)
    stage.turn()
    (sent,) = stage.assigned(node)
    other = stage.node("m", cpus=4)
    stage.done(node, died(creation))
    second = stage.call(actor)
    stage.live(0.5, 0.1)
    (again,) = stage.assigned(other)
    stage.up(other, again)
    assert not stage.sent(other)
    stage.taken_back(node, sent)
    stage.turn()
    assert stage.sent(other) == [first, second]


def test_a_node_that_is_not_connected_gets_no_calls_which_might_be_lost() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node)
    stage.event(events.PeerDisconnected(node))
    call = stage.call(actor)
    stage.turn()
    assert not stage.sent(node)
    stage.event(events.PeerReturned(node))
    stage.turn()
    assert stage.sent(node) == [call]


def test_the_pause_before_a_restart_grows() -> None:
    stage = Acting(retry_backoff_max_s=30.0)
    node = stage.node()
    _, creation = begun(stage, node, restarts=9, retry_backoff_s=1.0)
    pauses = []
    for _ in range(4):
        stage.process_ends(node, creation)
        stage.turn()
        died_s = stage.now_s
        rows: list = []  # type: ignore[type-arg]
        while not rows:
            stage.live(0.1)
            rows = stage.assigned(node)
        pauses.append(stage.now_s - died_s)
        (creation,) = rows
        stage.up(node, creation)
    for n, pause in enumerate(pauses):
        assert 2.0**n / 2 <= pause <= 2.0**n + 0.2


def test_what_ended_each_incarnation_is_a_chain_of_causes() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=2)
    for error in ("WorkerDied", "WorkerOutOfMemory", "NodeLost"):
        stage.done(node, failure_done(creation, error, died=True))
        stage.live(0.5, 0.1)
        for row in stage.assigned(node):
            creation = row
    call = stage.call(actor)
    stage.turn()
    failure = stage.failure(call)
    assert failure.error == "ActorDied"
    chain, cause = [], failure.cause
    while cause is not None:
        chain.append(cause.error)
        cause = cause.cause
    assert chain == ["NodeLost", "WorkerOutOfMemory", "WorkerDied"]


def test_a_call_with_a_queue_timeout_does_not_wait_longer_for_a_restart() -> None:
    stage = Acting(retry_backoff_max_s=30.0)
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1, retry_backoff_s=20.0)
    stage.process_ends(node, creation)
    limits = Limits(queue_timeout_s=2.0)
    kind = stage.define(stage.caller, actor=bytes(actor), num_cpus=0.0, limits=limits)
    hurried, patient = stage.name(stage.caller), stage.call(actor)
    stage.submit(stage.caller, kind, [hurried])
    stage.live(3.0)
    failure = stage.failure(hurried)
    assert failure.error == "ActorUnavailable"
    assert failure.details["maybe_executed"] is False
    assert "its actor has to be restarted first: incarnation 1" in failure.text
    stage.live(30.0)
    (again,) = stage.assigned(node)
    stage.up(node, again)
    assert stage.sent(node) == [patient]


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_an_actor_lives_once_more_than_it_may_be_restarted(restarts: int) -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=restarts)
    for _ in range(restarts):
        stage.process_ends(node, creation)
        stage.live(0.3, 0.1)
        (creation,) = stage.assigned(node)
        stage.up(node, creation)
    queued = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.process_ends(node, creation, unstarted=(row,))
    stage.turn()
    results = stage.results(stage.caller)
    for id_ in (actor, queued):
        failure = results[id_].failure
        assert failure is not None
        assert failure.error == "ActorDied"
        assert f"max_restarts={restarts}" in failure.text
        assert failure.text.count("before that") == (restarts > 0)
        assert failure.cause is not None
        assert failure.cause.error == "WorkerDied"
    assert stage.core.counters["actors_died"] == 1
    assert stage.core.counters["actors_restarted"] == restarts
    assert stage.at_rest()


def test_deaths_of_long_ago_do_not_count_within_a_window() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1, restart_window_s=60)
    for _ in range(3):
        stage.live(61.0, 1.0)
        stage.process_ends(node, creation)
        stage.live(0.3, 0.1)
        (creation,) = stage.assigned(node)
        stage.up(node, creation)
    stage.live(2.0)
    stage.process_ends(node, creation)
    stage.turn()
    assert stage.errors()[actor] == "ActorDied"


def test_a_kill_that_allows_a_restart_counts_as_a_death() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1)
    stage.say(stage.caller, Cancel([actor], True, False, restart=True))
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.RESTART)]
    stage.process_ends(node, creation)
    stage.live(0.3, 0.1)
    (again,) = stage.assigned(node)
    assert again.attempt == 2
    stage.up(node, again)
    stage.say(stage.caller, Cancel([actor], True, False, restart=True))
    stage.process_ends(node, again)
    stage.turn()
    assert stage.errors()[actor] == "ActorDied"


def test_an_incarnation_that_is_no_more_is_not_up_again_by_a_late_word() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node, restarts=1, retry_backoff_s=2.0)
    stage.process_ends(node, creation)
    stage.up(node, creation)
    stage.call(actor)
    stage.turn()
    assert stage.core.counters["stale_dropped"] == 1
    assert not stage.sent(node)


def test_a_constructor_that_may_be_tried_again_is() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=1)
    stage.turn()
    (creation,) = stage.assigned(node)
    stage.process_ends(node, creation)
    stage.live(0.3, 0.1)
    (again,) = stage.assigned(node)
    assert (again.id, again.attempt) == (actor, 2)


# --------------------------------------------------------------------------------------- its node


def test_an_actor_of_a_lost_node_begins_anew_when_the_lost_one_cannot_act_any_more() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node, restarts=1)
    running = stage.call(actor)
    stage.turn()
    other = stage.node("m")
    silent_s = stage.now_s
    stage.event(events.PeerDisconnected(node))
    while not (rows := stage.assigned(other)):
        stage.live(0.25, 0.25, node)
        assert stage.now_s < silent_s + 20.0
    assert stage.now_s >= silent_s + LEASE_S
    assert stage.now_s <= silent_s + LEASE_S + 0.6
    assert (rows[0].id, rows[0].attempt) == (actor, 2)
    assert stage.errors() == {running: "ActorCallLost"}


def test_an_actor_begins_anew_at_once_when_the_next_life_of_its_daemon_joins() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    actor, _ = begun(stage, node, restarts=1)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert stage.core.counters["nodes_lost"] == 1
    successor = stage.node("m", name="lab")
    stage.live(0.5, 0.1)
    (row,) = stage.assigned(successor)
    assert (row.id, row.attempt) == (actor, 2)


def test_a_daemon_that_is_replaced_while_it_is_believed_alive_proves_it_dead_too() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    actor, _ = begun(stage, node, restarts=1)
    successor = stage.node("m", name="lab")
    stage.live(0.5, 0.1)
    (row,) = stage.assigned(successor)
    assert (row.id, row.attempt) == (actor, 2)


def test_words_of_the_daemon_before_it_do_not_prove_one_dead() -> None:
    stage = Acting()
    before = PeerId(b"b" * 6)
    stage.hello(before, "node", "lab")
    node = stage.node(name="lab")
    actor, _ = begun(stage, node, restarts=1)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert stage.core.counters["nodes_lost"] == 1
    stage.say(before, Join("lab", "host", 1, {"CPU": 2.0}, keeper="keeper of lab"))
    stage.live(0.5, 0.1)
    assert not stage.assigned(before), "it may act where its connection closed"
    successor = stage.node("m", name="lab")
    stage.live(0.5, 0.1)
    assert [(row.id, row.attempt) for row in stage.assigned(successor)] == [(actor, 2)]


def test_the_same_daemon_or_another_host_proves_nothing() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    begun(stage, node, restarts=1)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    stage.node(name="lab")
    stranger = PeerId(b"s" * 6)
    stage.hello(stranger, "node", "lab2")
    stage.say(stranger, Join("lab2", "elsewhere", 1, {"CPU": 2.0}))
    stage.live(2.0)
    assert not stage.sent(node)
    assert not stage.sent(stranger)


def test_a_node_of_its_name_with_another_keeper_proves_nothing() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    begun(stage, node, restarts=1)
    stage.event(events.PeerDisconnected(node))
    namesake = PeerId(b"s" * 6)
    stage.hello(namesake, "node", "lab")
    stage.say(namesake, Join("lab", "host", 1, {"CPU": 2.0}, keeper="another keeper"))
    stage.live(2.0)
    assert not stage.sent(namesake)
    stage.live(LEASE_S)
    assert len(stage.sent(namesake)) == 1


@pytest.mark.parametrize("waits", [False, True])
def test_a_node_that_is_back_proves_that_all_is_dead_which_it_had(waits: bool) -> None:
    stage = Acting()
    node = stage.node(name="lab")
    actor, _ = begun(stage, node, restarts=1, waits_on_partition=waits)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    stage.node(name="lab")
    stage.live(2.0)
    assert not stage.sent(node)
    stage.say(node, ActorsGone())
    stage.live(0.5, 0.1)
    assert stage.sent(node) == [actor]


def test_an_actor_that_waits_for_its_node_is_never_replaced_without_proof() -> None:
    stage = Acting()
    node = stage.node(name="lab")
    actor, _ = begun(stage, node, restarts=1, waits_on_partition=True)
    other = stage.node("m", name="other")
    stage.event(events.PeerDisconnected(node))
    stage.live(60.0, 0.5, node)
    assert not stage.sent(other)
    assert stage.rows()[0]["state"] == "restarting"
    stage.node("k", name="lab")
    stage.live(0.5)
    assert stage.sent(other) + stage.sent(PeerId(b"k" * 6)) == [actor]


def test_calls_that_may_be_repeated_outlive_a_node_in_their_order() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node, restarts=1)
    calls = stage.calls(actor, 3, retries=1)
    stage.turn()
    other = stage.node("m")
    stage.event(events.PeerDisconnected(node))
    calls += stage.calls(actor, 2)
    stage.live(15.0, 0.25, node)
    (row,) = stage.assigned(other)
    stage.up(other, row)
    assert stage.sent(other) == calls


def test_an_actor_of_a_lost_node_that_may_not_be_restarted_is_dead() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node)
    queued = stage.call(actor)
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert stage.errors() == {actor: "ActorDied", queued: "ActorDied"}
    assert stage.at_rest()


# ---------------------------------------------------------------------------------------- drained


def test_an_actor_leaves_a_node_that_is_drained_after_what_is_under_way() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    other = stage.node("m")
    stage.say(node, Draining(cancel=False))
    late = stage.call(actor)
    stage.turn()
    assert not stage.sent(node)
    assert not stage.stops(node)
    stage.finish(node, [row])
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.RESTART)]
    stage.process_ends(node, creation)
    stage.live(0.5, 0.1)
    (again,) = stage.assigned(other)
    assert (again.id, again.attempt) == (actor, 2)
    stage.up(other, again)
    assert stage.sent(other) == [late]
    assert stage.errors() == {call: ""}
    # It was not its fault: it has its restarts yet, which are none.
    assert stage.core.counters["actors_moved"] == 1
    stage.process_ends(other, again)
    stage.turn()
    assert stage.errors()[actor] == "ActorDied"


def test_a_drained_node_that_is_lost_before_it_has_ended_an_actor_costs_it_a_life() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node)
    stage.node("m")
    stage.say(stage.caller, Drain(1, ["n"]))
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.RESTART)]
    # Whether it has heard that nobody knows: for all that is known it died with its node.
    stage.event(events.PeerDisconnected(node))
    stage.live(2.0, 0.25, node)
    assert stage.errors() == {actor: "ActorDied"}
    assert stage.core.counters["actors_moved"] == 0


def test_a_node_in_a_hurry_ends_its_actors_at_once() -> None:
    stage = Acting()
    node = stage.node()
    actor, _ = begun(stage, node)
    stage.call(actor)
    stage.turn()
    stage.say(stage.caller, Drain(1, ["n"], cancel=True))
    stage.turn()
    assert stage.take(node, DrainNode)
    assert stage.stops(node) == [(actor, 1, StopMode.RESTART)]


def test_an_actor_that_is_let_go_at_a_drained_node_ends_there() -> None:
    stage = Acting()
    node = stage.node()
    actor, creation = begun(stage, node)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.drop(actor)
    stage.say(node, Draining(cancel=False))
    stage.turn()
    stage.finish(node, [row])
    stage.turn()
    assert stage.stops(node) == [(actor, 1, StopMode.EXIT)]
    stage.done(node, value_done(creation))
    stage.turn()
    assert stage.errors() == {call: "", actor: ""}
