"""After a restart of the scheduler: who is awaited, for how long, and what becomes of what."""

from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Discard, Outcome, Shapes, StopMode
from drumbeat.protocol.recovery import Inventory, Phase, Recovered, Registered
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row

FORCE = int(StopMode.FORCE)


def finished(stage: Restarted, client: PeerId = CLIENT) -> dict[bytes, Any]:
    return {id_: value.outcome for id_, value in stage.results(client).items()}


def failure_of(stage: Restarted, id_: bytes, peer: PeerId = CLIENT) -> Any:
    failure = stage.results(peer)[id_].failure
    assert failure is not None
    return failure


# ------------------------------------------------------------------------------- who is awaited


def test_nothing_is_placed_and_no_shapes_are_told_until_all_nodes_have_registered() -> None:
    stage = Restarted("n", "m")
    (new,) = ids(1)
    client = stage.client_back()
    stage.submit(client, stage.define(client), [new])
    stage.node_back()
    other = stage.node_joins("m")
    stage.turn()
    assert stage.assigned(NODE) == []
    assert stage.take(client, Shapes) == []
    stage.say(other, Inventory([], [], True))
    stage.turn()
    assert stage.assigned(NODE) == []
    stage.registered(other)
    stage.turn()
    assert [a.id for a in stage.assigned(NODE) + stage.assigned(OTHER)] == [new]
    assert [{shape.name for shape in shapes.rows} for shapes in stage.take(client, Shapes)] == [
        {"n", "m"}
    ]


def test_status_says_what_it_waits_for() -> None:
    stage = Restarted("n", "m")
    client = stage.client_back()
    stage.node_back()
    status = stage.ask(client, "status")
    assert status["recovering"]
    assert status["waits_for"] == ["m"]
    stage.node_back(letter="m")
    status = stage.ask(client, "status")
    assert not status["recovering"]
    assert status["waits_for"] == []


def test_missing_nodes_are_waited_for_no_longer_than_the_setting() -> None:
    stage = Restarted("n", "m", recovery_wait_s=2.0)
    (new,) = ids(1)
    client = stage.client_back()
    stage.submit(client, stage.define(client), [new])
    stage.node_back()
    stage.at(1.9)
    assert stage.assigned(NODE) == []
    stage.at(2.1)
    assert [a.id for a in stage.assigned(NODE)] == [new]


def test_without_nodes_to_wait_for_placing_begins_at_once() -> None:
    stage = Restarted()
    (one,) = ids(1)
    stage.client_back([one])
    node = stage.node()
    stage.turn()
    assert [(a.id, a.attempt) for a in stage.assigned(node)] == [(one, 1)]


def test_nothing_is_called_infeasible_while_nodes_are_awaited() -> None:
    stage = Restarted("n", "m", infeasible_timeout_s=0.1, no_node_notice_s=0.1)
    (one,) = ids(1)
    client = stage.client_back()
    stage.submit(client, stage.define(client, num_cpus=8), [one])
    stage.node_back()
    stage.at(1.0)
    assert stage.results(client) == {}
    stage.node_back(letter="m", cpus=8)
    stage.turn()
    assert [a.id for a in stage.assigned(OTHER)] == [one]


def test_work_for_a_node_that_may_come_back_is_not_called_infeasible() -> None:
    stage = Restarted("n", "m", infeasible_timeout_s=3.0)
    client = stage.client_back([])
    stage.node_back()
    stage.at(2.5).turn()
    (task,) = ids(1)
    stage.submit(client, stage.define(client, node="m"), [task])
    stage.turn()
    stage.at(11.0).turn()
    assert stage.results(CLIENT) == {}
    stage.at(12.5).turn()
    stage.at(16.0).turn()
    failure = stage.results(CLIENT)[task].failure
    assert failure is not None
    assert failure.error == "Infeasible"


def test_a_scheduler_that_was_away_itself_gives_the_nodes_that_time() -> None:
    from drumbeat.scheduler import events

    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one], options={"max_retries": 0})
    stage.event(events.TimePassed(5.0))
    stage.turn(5.0)
    assert stage.ask(client, "status")["recovering"]
    stage.node_back(row(one))
    stage.turn()
    assert stage.task(one)["node"] == "n"


# ------------------------------------------------------------------------- what no node claims


def test_with_all_nodes_back_what_nobody_claims_never_started() -> None:
    stage = Restarted("n")
    one, two = ids(2)
    stage.client_back([one, two], options={"max_retries": 0})
    stage.node_back()
    stage.turn()
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(one, 1), (two, 1)]
    assert stage.retried(CLIENT) == {}


@pytest.mark.parametrize("order", ["client first", "node first"])
def test_a_retry_that_no_node_claims_has_its_pause_anew(order: str) -> None:
    stage = Restarted("n")
    (task,) = ids(1)
    node = NODE
    if order == "node first":
        stage.node_back()
    stage.client_back([task], attempt=3, options={"retry_backoff_s": 0.4})
    stage.turn()
    if order == "client first":
        stage.node_back()
        stage.turn()
    assert stage.task(task)["state"] == "backoff"
    stage.live(0.39)
    assert stage.assigned(node) == []
    stage.live(0.5)
    assert [(a.id, a.attempt) for a in stage.assigned(node)] == [(task, 3)]


def test_a_retry_in_its_pause_is_found_where_it_runs_after_all() -> None:
    stage = Restarted()
    (task,) = ids(1)
    stage.client_back([task], attempt=2, options={"retry_backoff_s": 0.4})
    stage.turn()
    assert stage.task(task)["state"] == "backoff"
    # The life before could not write down that there is such a node.
    node = stage.node_back(row(task, 2))
    stage.live(1.0)
    assert stage.assigned(node) == []
    assert stage.stops(node) == []
    stage.done(node, done(task, 2))
    stage.turn().turn(0.2)
    assert stage.at_rest()


def test_what_was_never_sent_is_new() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one], attempt=0, options={"max_retries": 0})
    stage.node_back()
    stage.at(2.1)
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(one, 1)]


def test_where_a_node_is_missing_what_may_be_retried_is_charged() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one])
    stage.node_back()
    stage.at(1.9)
    assert stage.retried(CLIENT) == {}
    stage.at(2.1)
    assert stage.retried(CLIENT) == {one: 2}
    assert not stage.assigned(NODE), "the client has yet to hear of it"
    assert [(a.id, a.attempt) for a in stage.turn().assigned(NODE)] == [(one, 2)]
    assert not stage.core.at_rest()["charges_untold"]


def test_where_a_node_is_missing_what_may_not_be_retried_waits_and_fails() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one], options={"max_retries": 0})
    stage.node_back()
    stage.at(11.9)
    assert stage.results(CLIENT) == {}
    assert stage.assigned(NODE) == []
    stage.at(12.1)
    failure = failure_of(stage, one)
    assert failure.error == "NodeLost"
    assert "may have run on m, which has not come back" in failure.text
    assert "max_retries=0 allows no further attempt (attempt 1 of 1)" in failure.text
    assert stage.turn().at_rest()


@pytest.mark.parametrize("at_s", [1.0, 2.5, 11.0])
def test_a_missing_node_that_comes_in_time_saves_what_waits_for_it(at_s: float) -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one], options={"max_retries": 0})
    stage.node_back()
    stage.at(at_s)
    stage.node_back(row(one), letter="m")
    stage.turn()
    assert stage.task(one)["node"] == "m"
    stage.done(OTHER, done(one))
    stage.turn()
    assert finished(stage) == {one: Outcome.VALUE}
    assert stage.at(15.0).at_rest()


def test_a_missing_node_that_comes_after_the_charge_is_told_to_stop() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one])
    stage.node_back()
    stage.at(2.1)
    stage.node_back(row(one), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, FORCE)]
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(one, 2)]


def test_a_node_that_comes_too_late_is_told_to_stop_everything() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one], options={"max_retries": 0})
    stage.node_back()
    stage.at(13.0)
    assert failure_of(stage, one).error == "NodeLost"
    stage.node_back(row(one), letter="m")
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, FORCE)]
    assert stage.take(OTHER, Recovered) == [Recovered()]
    assert stage.at_rest()


def test_once_the_missing_node_is_back_what_it_does_not_claim_never_started() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one], options={"max_retries": 0})
    stage.node_back()
    stage.at(5.0)
    stage.node_back(letter="m")
    stage.turn()
    assigned = stage.assigned(NODE) + stage.assigned(OTHER)
    assert [(a.id, a.attempt) for a in assigned] == [(one, 1)]


def test_a_node_that_still_tells_what_it_has_is_waited_for() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one])
    stage.node_back()
    other = stage.node_joins("m")
    stage.at(4.0)
    assert stage.retried(CLIENT) == {}
    stage.say(other, Inventory([CLIENT], [row(one)], True))
    stage.registered(other)
    stage.turn()
    assert stage.task(one)["node"] == "m"


def test_another_daemon_of_an_awaited_name_has_nothing_of_the_one_before() -> None:
    stage = Restarted("n")
    one, two = ids(2)
    node = stage.node("x", name="n")
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.names(client, stage.define(client, max_retries=0), [two])
    stage.registered(client)
    stage.turn()
    # Nobody is left to wait for: what may have run there is charged or fails.
    assert stage.retried(client) == {one: 2}
    assert [(a.id, a.attempt) for a in stage.turn().assigned(node)] == [(one, 2)]
    assert failure_of(stage, two).error == "NodeLost"


def test_a_node_that_is_lost_while_it_tells_may_have_run_anything() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.client_back([one])
    stage.node_back()
    other = stage.node_joins("m")
    stage.turn()
    from drumbeat.protocol.messages import Leave

    stage.say(other, Leave())
    stage.turn()
    assert stage.retried(CLIENT) == {one: 2}


def test_claims_of_a_node_that_is_lost_before_the_client_comes_are_charged() -> None:
    stage = Restarted("n", "m")
    one, two = ids(2)
    stage.node_back(row(one), row(two))
    stage.node_back(letter="m")
    from drumbeat.protocol.messages import Leave

    stage.say(NODE, Leave())
    stage.turn()
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.names(client, stage.define(client, max_retries=0), [two])
    stage.registered(client)
    stage.turn()
    assert stage.retried(client) == {one: 2}
    assert failure_of(stage, two).error == "NodeLost"
    assert [a.id for a in stage.turn().assigned(OTHER)] == [one]


# ---------------------------------------------------------------------------------- late clients


def test_what_its_client_does_not_name_is_stopped_as_soon_as_it_has_registered() -> None:
    stage = Restarted("n")
    one, two = ids(2)
    stage.node_back(row(one), row(two))
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.turn()
    assert stage.stops(NODE) == []
    stage.registered(client)
    stage.turn()
    assert stage.stops(NODE) == [(two, 1, FORCE)]


def test_an_inventory_after_its_client_has_registered_is_stopped_where_it_is_not_named() -> None:
    stage = Restarted("n", "m")
    one, two = ids(2)
    stage.client_back([one])
    stage.node_back(row(one), row(two))
    stage.turn()
    assert stage.stops(NODE) == [(two, 1, FORCE)]


def test_a_client_that_does_not_come_back_is_discarded_and_its_work_stopped() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    stage.node_back(row(one))
    stage.at(9.9)
    assert stage.stops(NODE) == []
    stage.at(10.1)
    assert stage.stops(NODE) == [(one, 1, FORCE)]
    assert [discard.clients for discard in stage.take(NODE, Discard)] == [[CLIENT]]
    stage.turn()  # by now it has heard that
    assert stage.at_rest()


def test_a_client_that_comes_late_is_charged_for_what_was_stopped() -> None:
    stage = Restarted("n")
    one, two, three = ids(3)
    stage.node_back(row(one), row(two))
    stage.at(10.5)
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.names(client, stage.define(client, max_retries=0), [two, three])
    stage.registered(client)
    stage.turn()
    assert stage.retried(client) == {one: 2}
    assert failure_of(stage, two).error == "NodeLost"
    # The third is claimed by no node, and all are back.
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(three, 1)]
    assert [(a.id, a.attempt) for a in stage.turn().assigned(NODE)] == [(one, 2)]


def test_a_client_that_comes_after_all_is_over_is_charged_for_everything() -> None:
    stage = Restarted("n")
    one, two = ids(2)
    stage.node_back()
    stage.at(20.0)
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.names(client, stage.define(client, max_retries=0), [two])
    stage.registered(client)
    stage.turn()
    assert stage.retried(client) == {one: 2}
    assert failure_of(stage, two).error == "NodeLost"
    assert stage.take(client, Recovered) == [Recovered()]


def test_a_client_that_still_registers_is_waited_for() -> None:
    stage = Restarted("n")
    one, two = ids(2)
    stage.node_back(row(one), row(two))
    client = stage.client_enters()
    kind = stage.define(client, max_retries=0)
    stage.names(client, kind, [one])
    stage.at(30.0)
    stage.names(client, kind, [two])
    stage.registered(client)
    stage.turn()
    assert stage.stops(NODE) == []
    assert stage.task(two)["node"] == "n"
    assert stage.take(client, Recovered) == [Recovered()]


def test_a_client_that_leaves_takes_what_nodes_have_of_it_along() -> None:
    from drumbeat.protocol.messages import Leave

    stage = Restarted("n")
    one, two = ids(2)
    stage.node_back(row(one), row(two))
    client = stage.client_enters()
    stage.names(client, stage.define(client), [one])
    stage.turn()
    stage.say(client, Leave())
    stage.turn()
    assert stage.stops(NODE) == [(two, 1, FORCE)]
    assert [discard.clients for discard in stage.take(NODE, Discard)] == [[CLIENT]]
    stage.turn()  # by now it has heard that
    assert stage.at_rest()


# --------------------------------------------------------------------------------------- the end


def test_at_the_end_all_are_told_and_nothing_is_kept() -> None:
    stage = Restarted("n", "m")
    one, lonely = ids(1)[0], ids(1, OTHER, 1)[0]
    stage.node_back(row(one), row(lonely))
    stage.client_back([one])
    stage.at(11.9)
    assert stage.take(CLIENT, Recovered) == stage.take(NODE, Recovered) == []
    stage.at(12.3)
    # Its submitter was a node that has not come back.
    assert stage.stops(NODE) == [(lonely, 1, FORCE)]
    assert stage.take(CLIENT, Recovered) == stage.take(NODE, Recovered) == [Recovered()]
    stage.done(NODE, done(one))
    stage.turn().turn(0.2)
    assert stage.at_rest()
    assert stage.remembered[-1] == ["n"]


def test_in_the_first_life_of_all_nothing_is_awaited_and_who_registers_is_answered() -> None:
    stage = Restarted(epoch=1)
    client = stage.client()
    stage.say(client, Registered())
    stage.turn()
    assert stage.take(client, Recovered) == [Recovered()]
    assert [shapes.rows for shapes in stage.take(client, Shapes)] == [[]]


def test_a_scheduler_that_is_restarted_while_it_recovers_begins_anew() -> None:
    first = Restarted("n", "m")
    (one,) = ids(1)
    first.node_back(row(one, phase=Phase.ENDED))
    first.turn()
    assert first.remembered == []
    again = Restarted("n", "m", epoch=3)
    again.node_back(row(one, phase=Phase.ENDED))
    again.node_back(letter="m")
    again.client_back([one], options={"max_retries": 0})
    again.turn()
    assert again.reports(NODE) == [(one, 1)]
    again.done(NODE, done(one))
    again.turn()
    assert finished(again) == {one: Outcome.VALUE}
    assert again.at_rest()
