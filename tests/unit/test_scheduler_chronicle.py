"""What happened can be asked for: bounded, in order, and without what is ordinary."""

from typing import Any

import pytest
from drumbeat.protocol.ids import show
from drumbeat.protocol.limits import Limits
from drumbeat.protocol.messages import Beat, Leave, Query
from drumbeat.protocol.running import RunningRow, Stack
from drumbeat.scheduler import events
from drumbeat.scheduler.chronicle import TEXT_CHARACTERS_MAX, Chronicle
from support.acting import Acting
from support.scheduling import Stage, died, error_done, failure_done, ids_of, value_done


def happened(stage: Stage, **more: Any) -> list[tuple[str, str]]:
    """Return kind and severity of all that is told."""
    told = stage.ask(stage.client("z"), "events", **more)["events"]
    return [(row["kind"], row["severity"]) for row in told]


def test_who_comes_and_goes_is_told_with_its_name() -> None:
    stage = Stage()
    client, asker, node = stage.client(), stage.client("a"), stage.node()
    stage.define(client)
    stage.turn()
    stage.event(events.PeerDisconnected(node))
    stage.live(5.0, 0.25, node)
    stage.say(client, Leave())
    stage.say(asker, Leave())  # it has never had any work: it is not told of
    told = stage.ask(stage.client("z"), "events")["events"]
    assert [(row["kind"], row["severity"], row["node"]) for row in told] == [
        ("node joined", "info", "n"),
        ("client entered", "info", ""),
        ("node disconnected", "info", "n"),
        ("node gone", "warning", "n"),
        ("client left", "info", ""),
    ]
    assert told[3]["text"] == "node 'n' lost its connection"


def test_a_silent_node_is_a_warning_and_its_return_is_not() -> None:
    stage = Stage()
    node = stage.node()
    stage.turn()
    stage.live(5.0, 0.25, node)
    stage.event(events.PeerHeard([node]))
    stage.live(1.0)
    assert happened(stage)[1:] == [("node suspect", "warning"), ("node well again", "info")]


def test_what_ends_with_a_value_or_an_error_leaves_no_trace_and_a_death_does() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=4)
    ids = ids_of(client, 4)
    stage.submit(client, stage.define(client, max_retries=0), ids)
    stage.turn()
    rows = stage.assigned(node)
    stage.done(node, value_done(rows[0]), error_done(rows[1]), died(rows[2]))
    stage.done(node, failure_done(rows[3], "TaskTimedOut"))
    stage.turn()
    told = stage.ask(client, "events")["events"][2:]
    assert [(row["kind"], row["severity"], row["id"]) for row in told] == [
        ("worker died", "warning", show(ids[2])),
        ("timed out", "warning", show(ids[3])),
    ]
    assert told[0]["text"] == f"work {show(ids[2])}, attempt 1: it was WorkerDied"


def test_a_verdict_is_told_once_when_it_has_lasted_and_once_when_it_is_over() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    (task,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [task])
    stage.turn()

    def beat(verdict: str, for_s: float) -> None:
        row = RunningRow(task, 1, 50.0, "running", verdict, for_s, "", "why")
        stage.say(node, Beat(0.0, 1, 0, [row]))

    for verdict, for_s in (
        ("running", 1.0), ("gil-busy", 2.0), ("gil-busy", 10.5), ("gil-busy", 12.0),
        ("running", 0.1), ("running", 1.0), ("stopped", 0.0),
    ):  # fmt: skip
        beat(verdict, for_s)
    told = stage.ask(client, "events")["events"][2:]
    assert [row["kind"] for row in told] == ["gil-busy", "running", "stopped"]
    assert told[0]["text"] == f"work {show(task)} is gil-busy: why"
    assert told[1]["text"] == f"work {show(task)} is gil-busy no more"


def test_the_lives_and_ends_of_an_actor_are_told() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=1)
    stage.turn()
    (row,) = stage.assigned(node)
    stage.up(node, row)
    stage.done(node, died(row))
    stage.turn()
    kinds = [kind for kind, _ in happened(stage, match=show(actor))]
    assert kinds == ["actor lives", "worker died", "actor ended"]


def test_an_actor_that_is_not_well_is_told_of_as_that_and_restarted_if_it_may() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(restarts=1)
    for _ in range(2):
        stage.turn()
        (row,) = stage.assigned(node)
        stage.up(node, row)
        stage.done(node, failure_done(row, "ActorUnhealthy", died=True, bystander=True))
        stage.turn()
        stage.live(5.0)
    kinds = [kind for kind, _ in happened(stage, match=show(actor))]
    lived = ["actor lives", "actor unhealthy", "actor ended"]
    assert kinds == [*lived, *lived, "actor gone"]


def test_an_order_to_end_something_is_told_with_who_gave_it() -> None:
    stage = Stage()
    client = stage.client()
    ids = ids_of(client, 3)
    stage.submit(client, stage.define(client), ids)
    stage.cancel(client, *ids)
    stage.cancel(client, ids[0], force=True)
    told = stage.ask(client, "events")["events"][1:]
    assert [row["text"] for row in told] == [
        f"client 'client-c' cancels work {show(ids[0])} and 2 more",
        f"client 'client-c' kills {show(ids[0])}",
    ]


def test_who_asks_again_gets_what_came_since_and_hears_of_what_was_forgotten() -> None:
    chronicle = Chronicle(5)
    for number in range(1, 9):
        chronicle.note(float(number), f"thing {number}", "thing")
    first = chronicle.answer(Query(1, "events", 3), 9.0)
    assert [row["number"] for row in first["events"]] == [6, 7, 8]
    assert (first["first"], first["last"]) == (4, 8)
    assert chronicle.answer(Query(1, "events", 3, since=9), 9.0)["events"] == []
    some = chronicle.answer(Query(1, "events", 2, since=6), 9.0)
    assert ([row["number"] for row in some["events"]], some["last"]) == ([6, 7], 7)
    late = chronicle.answer(Query(1, "events", 100, since=1), 9.0)
    assert (late["first"], [row["number"] for row in late["events"]]) == (4, [4, 5, 6, 7, 8])


def test_events_are_found_by_kind_severity_node_and_id() -> None:
    chronicle = Chronicle(10)
    (task,) = ids_of(Stage().client(), 1)
    chronicle.note(1.0, "a", "node gone", "warning", "lab3")
    chronicle.note(1.0, "b", "kill", task=task)
    for match, texts in (("node", "a"), ("warn", "a"), ("lab", "a"), (show(task), "b"), ("x", "")):
        rows = chronicle.answer(Query(1, "events", 10, match), 1.0)["events"]
        assert "".join(row["text"] for row in rows) == texts


def test_times_are_those_of_the_wall_once_somebody_has_said_what_that_shows() -> None:
    chronicle = Chronicle(10)
    chronicle.note(100.0, "a", "thing")
    assert chronicle.answer(Query(1, "events"), 101.0)["events"][0]["time_s"] is None
    chronicle.clock_read(5000.0, 200.0)
    told = chronicle.answer(Query(1, "events"), 201.0)
    assert (told["events"][0]["time_s"], told["time_s"]) == (4900.0, 5001.0)


def test_neither_texts_nor_answers_grow_without_end() -> None:
    chronicle = Chronicle(10_000)
    for _ in range(10_001):
        chronicle.note(1.0, "x" * 1_000, "thing")
    told = chronicle.answer(Query(1, "events", 10_000), 1.0)
    assert chronicle.sizes() == 10_000
    assert len(told["events"][0]["text"]) == TEXT_CHARACTERS_MAX
    assert sum(len(row["text"]) for row in told["events"]) < 400_000
    on = chronicle.answer(Query(1, "events", 10_000, since=2), 1.0)
    assert on["last"] == on["events"][-1]["number"] < 10_001


@pytest.mark.parametrize("what", ["events", "top"])
def test_a_task_may_ask_for_neither_events_nor_top(what: str) -> None:
    stage = Stage()
    assert "a task may ask for" in stage.ask(stage.node(), what)["error"]


def test_top_tells_figures_nodes_and_the_calls_that_run_longest() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=4)
    ids = ids_of(client, 4)
    stage.submit(client, stage.define(client), ids)
    stage.turn()
    rows = [
        RunningRow(id_, 1, float(at), "running", "running", pid=40 + at, cpu=0.5, progresses=1)
        for at, id_ in enumerate(ids)
    ]
    stage.say(node, Beat(0.0, 4, 0, rows, cpu=0.25))
    told = stage.ask(client, "top", limit=2)
    assert [(row["id"], row["pid"], row["cpu"]) for row in told["calls"]] == [
        (show(ids[3]), 43, 0.5),
        (show(ids[2]), 42, 0.5),
    ]
    assert told["running"] == 4
    assert told["nodes"][0]["cpu"] == 0.25
    assert told["status"]["workers"] == 4
    assert (told["calls"][0]["done"], told["calls"][0]["total"]) == (0.0, None)


def test_a_task_whose_time_in_the_queue_is_over_is_told_of() -> None:
    stage = Stage()
    client = stage.client()
    (task,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, limits=Limits(queue_timeout_s=2.0)), [task])
    stage.turn()
    stage.turn(3.0)
    (told,) = stage.ask(client, "events", match="timed out")["events"]
    assert (told["severity"], told["id"]) == ("warning", show(task))
    assert told["text"].startswith(f"work {show(task)} had not ended within its queue_timeout")


def test_an_actor_is_found_by_its_own_name_where_it_is() -> None:
    stage = Acting()
    node = stage.node()
    actor = stage.create(name="totals")
    stage.turn()
    (row,) = stage.assigned(node)
    stage.up(node, row)
    assert stage.ask(stage.caller, "actors", match="tot")[0]["named"] == "totals"
    stage.say(stage.caller, Query(9, "stack", match="totals"))
    stage.turn()
    (asked,) = stage.take(node, Stack)
    assert asked.tasks == [actor]
