"""Attempts that are lost: charged, tried again, and in the end final. And who is alive."""

from typing import Any

import pytest
from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import (
    AssignRow,
    DoneRow,
    Failure,
    Leave,
    Outcome,
    Retried,
    Shapes,
    ValueRow,
)
from drumbeat.scheduler import events
from support.scheduling import Stage, died, error_done, failure_done, ids_of, value_done


def given(stage: Stage, **options: Any) -> tuple[PeerId, PeerId, AssignRow]:
    """Return a client, a node, and the one task it has."""
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client, **options), ids_of(client, 1))
    stage.turn()
    (row,) = stage.assigned(node)
    return client, node, row


def failure_of(stage: Stage, peer: PeerId, row: AssignRow) -> Failure:
    failure = stage.results(peer)[row.id].failure
    assert failure is not None
    return failure


def test_a_task_whose_worker_died_is_tried_again_after_a_pause() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.done(node, died(row))
    stage.turn()
    assert not stage.assigned(node)
    due_s = stage.core.deadline_s()
    assert due_s is not None
    assert 0.05 <= due_s - stage.now_s <= 0.1
    stage.turn(due_s - stage.now_s)
    (again,) = stage.assigned(node)
    assert (again.id, again.attempt) == (row.id, 2)
    stage.finish(node, [again])
    stage.turn()
    assert stage.results(client)[row.id].outcome == Outcome.VALUE
    assert stage.core.counters["retried"] == 1
    assert stage.at_rest()


@pytest.mark.parametrize("max_retries", [0, 1, 2])
def test_a_task_is_executed_at_most_once_more_than_it_may_be_retried(max_retries: int) -> None:
    stage = Stage(poison_deaths=99)
    client, node, row = given(stage, max_retries=max_retries)
    executions = 1
    stage.done(node, died(row))
    for _ in range(8):
        stage.live(1.0)
        for again in stage.assigned(node):
            executions += 1
            stage.done(node, died(again))
    assert executions == 1 + max_retries
    assert failure_of(stage, client, row).error == "WorkerDied"
    assert stage.at_rest()


def test_a_task_that_took_three_workers_along_is_poison() -> None:
    stage = Stage()
    client, node, row = given(stage)
    for attempt in range(1, 5):
        assert row.attempt == attempt
        stage.done(node, died(row))
        stage.live(2.0)
        row = (stage.assigned(node) or [row])[0]
    failure = failure_of(stage, client, row)
    assert failure.error == "PoisonTask"
    assert failure.details["deaths"] == 4
    assert failure.details["exit_code"] == 3
    assert "WorkerDied" in failure.text


def test_errors_that_may_be_retried_use_the_same_counter() -> None:
    stage = Stage()
    client, node, row = given(stage, max_retries=2, retry_exceptions=True)
    for last in (False, False, True):
        stage.done(node, error_done(row, retry=True))
        stage.live(1.0)
        assert bool(stage.assigned(node)) is not last
        row.attempt += 1
    assert stage.results(client)[row.id] == ValueRow(row.id, Outcome.ERROR, b"report")


def test_a_users_error_after_deaths_is_the_users_error() -> None:
    stage = Stage(poison_deaths=1)
    client, node, row = given(stage, max_retries=1)
    stage.done(node, died(row))
    stage.live(1.0)
    stage.done(node, error_done(stage.assigned(node)[0], retry=True))
    stage.turn()
    assert stage.results(client)[row.id].outcome == Outcome.ERROR


def test_a_result_of_an_attempt_that_was_given_up_is_dropped() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.done(node, died(row))
    stage.live(1.0)
    assert len(stage.assigned(node)) == 1
    stage.done(node, value_done(row))
    stage.done(node, value_done(row))
    stage.turn()
    assert not stage.results(client)
    assert stage.core.counters["stale_dropped"] == 2


def test_a_large_value_of_an_attempt_that_was_given_up_is_dropped_with_its_payload() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.done(node, died(row))
    stage.live(1.0)
    assert len(stage.assigned(node)) == 1
    for attempt, payload in ((1, b"old"), (2, b"new")):
        stage.done(node, DoneRow(row.id, attempt, (ValueRow(row.id, 0, None, 3),), 0.1))
        stage.event(events.BlobReceived(node, row.id, payload))
    stage.turn()
    assert stage.results(client)[row.id].payload == b"new"
    assert stage.at_rest()


@pytest.mark.parametrize("how", ["leaves", "is silent", "is cut off", "starts anew"])
def test_what_a_lost_node_had_runs_elsewhere(how: str) -> None:
    stage = Stage()
    client, node, row = given(stage)
    other = stage.node("o")
    if how == "leaves":
        stage.say(node, Leave())
        stage.live(0.2, 0.05)
    elif how == "is silent":
        stage.live(9.5, 0.25, node)
        assert not stage.assigned(other)
        stage.live(1.0, 0.25, node)
    elif how == "is cut off":
        stage.event(events.PeerDisconnected(node))
        stage.live(0.6, 0.1, node)
        assert not stage.assigned(other)
        stage.live(0.4, 0.1, node)
    else:
        stage.node()
        stage.live(0.2, 0.05)
    (again,) = [*stage.assigned(other), *stage.assigned(node)]
    assert (again.id, again.attempt) == (row.id, 2)
    assert not stage.results(client)


def test_a_silent_node_is_suspect_first_and_told_nothing_when_lost() -> None:
    stage = Stage()
    client, node, _ = given(stage)
    stage.live(3.1, 0.1, node)
    assert stage.ask(client, "status")["nodes"] == {"alive": 0, "suspect": 1}
    stage.live(7.0, 0.1, node)
    assert stage.drops == [events.Drop(node)], "it may come again"
    assert stage.ask(client, "status")["nodes"] == {"alive": 0, "suspect": 0}
    assert any("silent" in line for _, line in stage.core.story)


def test_a_node_that_returns_in_time_has_lost_nothing() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.event(events.PeerDisconnected(node))
    stage.live(0.5, 0.1, node)
    stage.event(events.PeerReturned(node))
    stage.live(2.0)
    stage.finish(node, [row])
    stage.turn()
    assert row.id in stage.results(client)


def test_a_scheduler_that_was_away_itself_judges_nobody_for_it() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.now_s += 60.0
    stage.event(events.TimePassed(59.0))
    stage.turn()
    stage.finish(node, [row])
    stage.live(2.0)
    assert row.id in stage.results(client)
    assert not stage.drops


def test_a_task_that_may_not_be_retried_fails_with_its_node() -> None:
    stage = Stage()
    client, node, row = given(stage, max_retries=0)
    stage.say(node, Leave())
    stage.turn()
    failure = failure_of(stage, client, row)
    assert failure.error == "NodeLost"
    assert failure.details["node"] == "n"
    assert failure.details["attempt"] == 1
    assert failure.text.endswith("(attempt 1 of 1)")


def test_a_value_that_was_on_its_way_is_lost_with_its_node() -> None:
    stage = Stage()
    _, node, row = given(stage)
    stage.done(node, DoneRow(row.id, 1, (ValueRow(row.id, 0, None, 9),), 0.1))
    stage.turn()
    stage.say(node, Leave())
    other = stage.node("o")
    stage.live(0.2, 0.05)
    assert [again.attempt for again in stage.assigned(other)] == [2]


def test_a_lost_node_gives_its_resources_to_nobody() -> None:
    stage = Stage()
    client, node, _ = given(stage)
    stage.say(node, Leave())
    stage.turn()
    status = stage.ask(client, "status")
    assert status["resources"] == {"total": {}, "free": {}}
    assert stage.take(client, Shapes)[-1].rows == []


def test_a_client_whose_connection_closed_is_gone_after_its_grace() -> None:
    stage = Stage()
    client, node, _ = given(stage)
    stage.event(events.PeerDisconnected(client))
    stage.live(9.5, 0.25, client)
    assert not stage.drops
    stage.live(1.0, 0.25, client)
    assert [drop.peer for drop in stage.drops] == [client]
    assert stage.at_rest()
    assert stage.ask(node, "status")["clients"] == 0


def test_a_client_that_is_merely_silent_loses_nothing_for_long() -> None:
    stage = Stage(client_silence_s=60)
    client, node, row = given(stage)
    stage.live(59.0, 0.5, client)
    stage.finish(node, [row])
    stage.turn()
    assert row.id in stage.results(client)
    stage.live(2.0, 0.5, client)
    assert [drop.peer for drop in stage.drops] == [client]


def test_a_failure_that_is_no_death_is_final() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.done(node, failure_done(row, "NotPicklable"))
    stage.turn()
    assert failure_of(stage, client, row).error == "NotPicklable"


def test_the_submitter_has_heard_of_each_further_attempt_before_it_is_assigned() -> None:
    stage = Stage()
    stage.prompt = False
    client, node, row = given(stage, max_retries=2, retry_backoff_s=0.0)
    for attempt in (2, 3):
        stage.done(node, died(row))
        stage.turn()
        (told,) = stage.take(client, Retried)
        assert told.rows == [(row.id, attempt)]
        assert not stage.turn(0.5).assigned(node), "word of it is on its way"
        assert stage.core.at_rest()["untold"]
        stage.reach(client)
        (row,) = stage.turn().assigned(node)
        assert row.attempt == attempt
        assert not stage.core.at_rest()["untold"]
    stage.done(node, died(row))
    stage.turn()
    assert not stage.take(client, Retried), "there is no further attempt"


def test_word_that_comes_before_the_pause_is_over_shortens_no_pause() -> None:
    stage = Stage()
    stage.prompt = False
    client, node, row = given(stage, max_retries=1, retry_backoff_s=2.0)
    stage.done(node, died(row))
    stage.turn()
    stage.reach(client)
    assert not stage.turn(0.9).assigned(node)
    assert stage.turn(1.2).assigned(node)


def test_a_client_that_does_not_read_delays_nobody_elses_retries() -> None:
    stage = Stage()
    stage.prompt = False
    client, node, row = given(stage, retry_backoff_s=0.0)
    other = stage.client("d")
    kind = stage.define(other, retry_backoff_s=0.0)
    stage.submit(other, kind, ids_of(other, 1))
    (theirs,) = stage.turn().assigned(node)
    stage.done(node, died(row), died(theirs))
    stage.turn()
    stage.reach(other)
    assert [again.id for again in stage.turn().assigned(node)] == [theirs.id]
    stage.event(events.PeerDisconnected(client))
    stage.live(0.2, 0.1)


def test_what_was_not_charged_is_not_told() -> None:
    stage = Stage()
    client, node, row = given(stage)
    stage.taken_back(node, row)
    stage.turn()
    assert not stage.take(client, Retried)


def test_a_task_that_only_lost_its_result_with_the_worker_is_charged_and_no_poison() -> None:
    stage = Stage(poison_deaths=1)
    client, node, row = given(stage, max_retries=1)
    for _ in range(2):
        stage.done(node, failure_done(row, "WorkerDied", died=True, bystander=True))
        stage.live(1.0)
        row = (stage.assigned(node) or [row])[0]
    assert row.attempt == 2
    assert failure_of(stage, client, row).error == "WorkerDied"
