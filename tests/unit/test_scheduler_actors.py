"""Actors at the scheduler: where their calls go and when, and how an actor ends."""

from drumbeat.protocol.messages import (
    Beat,
    Blocked,
    DoneRow,
    Options,
    Outcome,
    StopMode,
    Submit,
    TaskRow,
    ValueRow,
)
from drumbeat.protocol.running import RunningRow
from support.acting import Acting
from support.scheduling import error_done, ids_of, value_done


def test_an_actor_goes_where_fewest_are_and_its_calls_go_there_once_it_is_up() -> None:
    stage = Acting()
    first, second = stage.node("n"), stage.node("m")
    actors = [stage.create() for _ in range(4)]
    stage.turn()
    at_first, at_second = stage.assigned(first), stage.assigned(second)
    assert [len(at_first), len(at_second)] == [2, 2]
    call = stage.call(actors[0])
    stage.turn()
    assert not stage.sent(first)
    assert not stage.sent(second)
    stage.up(first, at_first[0])
    assert stage.sent(first) == [call]
    assert not stage.sent(second)


def test_no_more_actors_go_to_a_node_than_it_may_host() -> None:
    stage = Acting(actors_max=2)
    node = stage.node(cpus=4)
    actors = [stage.create() for _ in range(3)]
    stage.turn()
    rows = stage.assigned(node)
    assert [row.id for row in rows] == actors[:2]
    stage.done(node, value_done(rows[0], b""))
    stage.turn()
    assert stage.sent(node) == [actors[2]]


def test_an_actor_keeps_what_it_asks_for_and_takes_nothing_else_from_tasks() -> None:
    stage = Acting()
    node = stage.node(cpus=2)
    actor = stage.create(num_cpus=1)
    stage.started(actor, node)
    stage.calls(actor, 50)
    tasks = ids_of(stage.node("m", cpus=0), 0)
    kind = stage.define(stage.caller)
    tasks = [stage.name(stage.caller) for _ in range(2)]
    stage.submit(stage.caller, kind, tasks)
    stage.turn()
    sent = stage.sent(node)
    assert tasks[0] in sent
    assert tasks[1] not in sent
    assert len(sent) == 51


def test_calls_go_in_the_order_in_which_they_were_made() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    early = stage.calls(actor, 3)
    stage.started(actor, node)
    late = stage.calls(actor, 3)
    stage.turn()
    assert stage.sent(node) == early + late
    assert stage.rows()[0]["in_flight"] == 6


def test_a_call_that_waits_for_a_value_holds_back_its_caller_alone() -> None:
    stage = Acting()
    node = stage.node(cpus=8)
    actor = stage.create()
    stage.started(actor, node)
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [task])
    stage.turn()
    (row,) = stage.assigned(node)
    held = [stage.call(actor, deps=(task,)), stage.call(actor)]
    other = stage.client("d")
    free = stage.call(actor, other)
    stage.turn()
    assert stage.sent(node) == [free]
    stage.finish(node, [row])
    stage.turn()
    assert stage.sent(node) == held


def test_a_call_whose_argument_failed_does_not_hold_back_those_behind_it() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    task = stage.name(stage.caller)
    stage.submit(stage.caller, stage.define(stage.caller), [task])
    stage.turn()
    (row,) = stage.assigned(node)
    bad, good = stage.call(actor, deps=(task,)), stage.call(actor)
    stage.done(node, error_done(row))
    stage.turn()
    assert stage.errors()[bad] == "DependencyFailed"
    assert stage.sent(node) == [good]


def test_no_more_calls_are_at_a_node_than_the_window_holds() -> None:
    stage = Acting(actor_window_calls=4)
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    calls = stage.calls(actor, 7)
    stage.turn()
    rows = stage.assigned(node)
    assert [row.id for row in rows] == calls[:4]
    stage.finish(node, rows[:2])
    stage.turn()
    assert stage.sent(node) == calls[4:6]


def test_large_arguments_fill_the_window_as_well() -> None:
    stage = Acting(results_backlog_bytes_max=100_000, inline_bytes_max=50_000)
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    calls = stage.calls(actor, 5, args=b"x" * 60_000)
    stage.turn()
    rows = stage.assigned(node)
    assert [row.id for row in rows] == calls[:2]
    stage.finish(node, rows)
    stage.turn()
    assert stage.sent(node) == calls[2:4]


def test_a_node_that_is_silent_gets_no_calls_until_it_is_heard() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    stage.live(4.0, 0.25, node)
    call = stage.call(actor)
    stage.turn()
    assert not stage.sent(node)
    stage.live(0.5)
    assert stage.sent(node) == [call]


def test_a_caller_may_have_so_many_calls_and_others_are_not_held_to_it() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(max_pending_calls=2)
    first, second, third = stage.calls(actor, 3)
    stage.turn()
    assert stage.errors() == {third: "PendingCallsLimitExceeded"}
    other = stage.client("d")
    fourth = stage.call(actor, other)
    row = stage.started(actor, node)
    assert row.attempt == 1
    rows = stage.assigned(node)
    assert [row.id for row in rows] == [first, second, fourth]
    stage.finish(node, rows[:1])
    stage.turn()
    stage.results(stage.caller)
    fifth = stage.call(actor)
    stage.turn()
    assert stage.sent(node) == [fifth]


# ------------------------------------------------------------------------------- cancelled calls


def test_a_queued_call_is_cancelled_and_the_next_one_goes() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    first, second = stage.calls(actor, 2)
    stage.cancel(stage.caller, first)
    stage.started(actor, node)
    assert stage.errors() == {first: "TaskCancelled"}
    assert stage.sent(node) == [second]


def test_a_running_call_is_asked_to_stop_and_never_by_force() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    call = stage.call(actor)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.cancel(stage.caller, call, force=True)
    stage.turn()
    assert stage.stops(node) == [(call, 1, StopMode.SOFT)]
    stage.say(node, Blocked([(row.id, row.attempt, True)]))
    stage.finish(node, [row])
    stage.turn()
    assert stage.errors() == {call: ""}
    assert stage.rows()[0]["state"] == "alive"


# ------------------------------------------------------------------------------------------ asked


def test_actors_are_listed_with_what_becomes_of_them() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=1)
    stage.calls(actor, 2)
    assert stage.rows()[0]["state"] == "starting"
    assert stage.rows()[0]["queued"] == 2
    (creation,) = stage.assigned(node)
    stage.up(node, creation)
    row = stage.rows()[0]
    assert (row["state"], row["node"], row["incarnation"]) == ("alive", "n", 1)
    assert (row["queued"], row["in_flight"], row["restarts"]) == (0, 2, 0)
    calls = stage.assigned(node)
    stage.process_ends(node, creation, *calls)
    row = stage.rows()[0]
    assert (row["state"], row["restarts"]) == ("restarting", 1)
    assert "WorkerDied" in row["why"]
    assert stage.ask(stage.caller, "actors", match="Other") == []


def test_what_an_actor_does_while_no_call_runs_is_listed_with_it() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    assert stage.rows()[0]["phase"] == ""
    stage.say(node, Beat(0.0, 1, 0, [RunningRow(actor, 1, 1.0, "health-check", "health-check")]))
    assert (stage.rows()[0]["state"], stage.rows()[0]["phase"]) == ("alive", "health-check")


def test_a_call_with_the_options_of_a_task_is_a_call_all_the_same() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create()
    stage.started(actor, node)
    options = Options(actor=actor, num_cpus=0.0)
    assert options.actor == actor
    kind = stage.define(stage.caller, name="Counter.two", actor=bytes(actor), num_returns=2)
    call = stage.name(stage.caller)
    stage.say(stage.caller, Submit(stage.caller, b"", 0, [TaskRow(call, kind)]))
    stage.turn()
    (row,) = stage.assigned(node)
    values = tuple(
        ValueRow(call + index.to_bytes(2, "big"), Outcome.VALUE, b"v") for index in range(2)
    )
    stage.done(node, DoneRow(call, row.attempt, values, 0.1))
    stage.turn()
    assert len(stage.results(stage.caller)) == 2
