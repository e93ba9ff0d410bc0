"""After a restart of the scheduler: what nodes have meets what submitters name."""

from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Cancel, Outcome, Stop, StopMode
from drumbeat.protocol.recovery import Phase, Report
from support.restarts import CLIENT, NODE, OTHER, Restarted, done, ids, row

FORCE = int(StopMode.FORCE)


def finished(stage: Restarted, client: PeerId = CLIENT) -> dict[bytes, Any]:
    return {id_: value.outcome for id_, value in stage.results(client).items()}


def failure_of(stage: Restarted, id_: bytes, peer: PeerId = CLIENT) -> Any:
    failure = stage.results(peer)[id_].failure
    assert failure is not None
    return failure


# ------------------------------------------------------------------------------- what goes on


@pytest.mark.parametrize("order", ["client first", "node first"])
@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.RUNNING, Phase.BLOCKED])
def test_what_a_node_has_goes_on_there(order: str, phase: Phase) -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    if order == "client first":
        stage.client_back([one])
        stage.turn()
        stage.node_back(row(one, phase=phase))
    else:
        stage.node_back(row(one, phase=phase))
        stage.turn()
        stage.client_back([one])
    stage.turn()
    task = stage.task(one)
    assert task["node"] == "n"
    assert task["state"] == ("blocked" if phase is Phase.BLOCKED else "assigned")
    assert stage.assigned(NODE) == []
    assert stage.stops(NODE) == []
    stage.done(NODE, done(one))
    stage.turn()
    assert finished(stage) == {one: Outcome.VALUE}
    assert stage.at_rest()


def test_what_is_at_no_node_for_sure_is_placed_while_its_client_still_tells() -> None:
    stage = Restarted("n")
    names = ids(6)
    stage.node_back(row(names[2], 2), cpus=8)
    client = stage.client_enters()
    first, second = stage.define(client), stage.define(client, name="other")
    stage.names(client, first, names[:4], 2)
    stage.names(client, second, names[4:5])
    stage.turn()
    placed = [(assigned.id, assigned.attempt) for assigned in stage.assigned(NODE)]
    assert placed == [(names[0], 2), (names[1], 2), (names[3], 2), (names[4], 1)]
    stage.names(client, first, names[5:])
    stage.registered(client)
    stage.turn()
    assert [assigned.id for assigned in stage.assigned(NODE)] == names[5:]


def test_nothing_is_left_of_a_client_that_names_another_ones_task_among_its_own() -> None:
    stage = Restarted("n")
    stage.node_back()
    client = stage.client_enters()
    kind = stage.define(client)
    stage.names(client, kind, [*ids(2), *ids(1, OTHER)])
    stage.turn()
    assert stage.assigned(NODE) == []
    assert stage.at_rest()


def test_what_waits_in_get_lends_its_cpus_in_the_next_life_too() -> None:
    stage = Restarted("n")
    one, more = ids(2)
    stage.node_back(row(one, phase=Phase.BLOCKED), cpus=1)
    client = stage.client_back([one])
    stage.submit(client, stage.define(client), [more])
    stage.turn()
    assert [assigned.id for assigned in stage.assigned(NODE)] == [more]


@pytest.mark.parametrize("order", ["client first", "node first"])
def test_what_has_ended_is_reported_once_its_task_is_named(order: str) -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    if order == "node first":
        stage.node_back(row(one, phase=Phase.ENDED))
        stage.turn()
        assert stage.reports(NODE) == []
        stage.client_back([one])
    else:
        stage.client_back([one])
        stage.turn()
        stage.node_back(row(one, phase=Phase.ENDED))
    stage.turn()
    assert stage.reports(NODE) == [(one, 1)]
    stage.done(NODE, done(one))
    stage.turn()
    assert finished(stage) == {one: Outcome.VALUE}
    assert stage.at_rest()


def test_an_end_is_asked_for_before_the_cancel_that_comes_with_its_task() -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    stage.node_back(row(one, phase=Phase.ENDED))
    client = stage.client_back([one])
    stage.say(client, Cancel([one], True, False))
    stage.turn()
    said = [type(word) for word in stage.mail[NODE]]
    assert said.index(Report) < said.index(Stop), "a node forgets an end that it is to stop"


def test_an_end_that_comes_before_its_client_is_kept_and_not_handed_over() -> None:
    from drumbeat.protocol.messages import Done
    from drumbeat.protocol.recovery import HandedOver

    stage = Restarted("n")
    one, two = ids(2)
    stage.node_back(row(one), row(two))
    stage.say(NODE, Done([done(one)], 1))
    stage.turn()
    stage.at(1.0)
    assert stage.take(NODE, HandedOver) == []
    stage.client_back([one, two])
    stage.turn()
    assert finished(stage) == {one: Outcome.VALUE}
    stage.turn().turn(0.2).turn(0.2)
    assert [numbers.numbers for numbers in stage.take(NODE, HandedOver)] == [[1]]
    assert stage.task(two)["state"] == "assigned"


def test_an_end_that_nobody_names_is_dropped_and_handed_over() -> None:
    from drumbeat.protocol.messages import Done
    from drumbeat.protocol.recovery import HandedOver

    stage = Restarted("n")
    (one,) = ids(1)
    stage.node_back(row(one))
    stage.say(NODE, Done([done(one)], 1))
    stage.client_back()
    stage.turn().turn(0.2).turn(0.2)
    assert [numbers.numbers for numbers in stage.take(NODE, HandedOver)] == [[1]]
    assert stage.at_rest()


def test_blocking_and_giving_back_count_before_the_client_is_there() -> None:
    stage = Restarted("n", "m")
    one, two = ids(2)
    stage.node_back(row(one), row(two, phase=Phase.QUEUED))
    from drumbeat.protocol.messages import Blocked, TakenBack

    stage.say(NODE, Blocked([(one, 1, True)]))
    stage.say(NODE, TakenBack([(two, 1)]))
    stage.node_back(letter="m")
    stage.client_back([one, two])
    stage.turn()
    assert stage.task(one)["state"] == "blocked"
    # It was given back: it never started, so it goes on as the same attempt.
    assert [(a.id, a.attempt) for a in stage.assigned(OTHER) + stage.assigned(NODE)] == [(two, 1)]


def test_a_claimed_task_is_charged_when_its_node_is_lost_later() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(row(one))
    stage.node_back(letter="m")
    stage.client_back([one])
    stage.turn()
    stage.live(12.0, 0.25, NODE)
    assert stage.retried(CLIENT) == {one: 2}
    assert [(a.id, a.attempt) for a in stage.assigned(OTHER)] == [(one, 2)]


# --------------------------------------------------------------------------------- two claims


def test_of_two_claims_the_higher_attempt_wins() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(row(one, 1))
    stage.node_back(row(one, 2), letter="m")
    stage.turn()
    assert stage.stops(NODE) == [(one, 1, FORCE)]
    stage.client_back([one])
    stage.turn()
    assert stage.task(one)["node"] == "m"
    # Whoever is charged for more than it knew is told.
    assert stage.retried(CLIENT) == {one: 2}


def test_of_two_equal_claims_the_first_stays() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(row(one))
    stage.node_back(row(one), letter="m")
    stage.client_back([one])
    stage.turn()
    assert stage.stops(OTHER) == [(one, 1, FORCE)]
    assert stage.task(one)["node"] == "n"


def test_a_higher_claim_takes_over_from_one_that_was_met() -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(row(one, 1))
    stage.client_back([one])
    stage.turn()
    stage.node_back(row(one, 2), letter="m")
    stage.turn()
    assert stage.stops(NODE) == [(one, 1, FORCE)]
    assert stage.task(one)["node"] == "m"
    stage.done(OTHER, done(one, 2))
    stage.turn()
    assert finished(stage) == {one: Outcome.VALUE}
    assert stage.at_rest()


@pytest.mark.parametrize("order", ["client first", "node first"])
def test_a_stale_claim_is_stopped_and_its_task_goes_on(order: str) -> None:
    stage = Restarted("n")
    (one,) = ids(1)
    if order == "client first":
        stage.client_back([one], attempt=2)
        stage.node_back(row(one, 1))
    else:
        stage.node_back(row(one, 1))
        stage.client_back([one], attempt=2)
    stage.turn()
    assert stage.stops(NODE) == [(one, 1, FORCE)]
    # Its second attempt never started anywhere.
    assert [(a.id, a.attempt) for a in stage.assigned(NODE)] == [(one, 2)]
    assert stage.retried(CLIENT) == {}


# ---------------------------------------------------------------------------------------- cancel


@pytest.mark.parametrize("claimed", [True, False])
def test_a_cancel_by_another_than_the_submitter_is_remembered(claimed: bool) -> None:
    stage = Restarted("n", "m")
    (one,) = ids(1)
    stage.node_back(*([row(one)] if claimed else []))
    other = stage.client_back(letter="d")
    stage.say(other, Cancel([one], False, True))
    stage.turn()
    assert stage.stops(NODE) == ([(one, 1, int(StopMode.SOFT))] if claimed else [])
    stage.client_back([one])
    stage.turn()
    if claimed:
        assert stage.task(one)["stopping"]
    else:
        stage.node_back(letter="m")
        stage.turn()
        assert failure_of(stage, one).error == "TaskCancelled"


def test_nobody_is_told_that_what_may_run_somewhere_never_started() -> None:
    from drumbeat.protocol.messages import Cancelled

    stage = Restarted("n")
    (one,) = ids(1)
    client = stage.client_back([one])
    stage.cancel(client, one, request=5)
    stage.turn()
    assert [answer.dropped for answer in stage.take(client, Cancelled)] == [[False]]
