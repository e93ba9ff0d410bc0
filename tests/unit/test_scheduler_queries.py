"""What people can ask of the scheduler."""

import pytest
from drumbeat.protocol.ids import show
from drumbeat.protocol.messages import Answer, Leave, Query
from drumbeat.scheduler.queries import LOOK_AT, Rate
from support.acting import Acting
from support.scheduling import Stage, error_done, ids_of, value_done


def test_the_status_counts_everything() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2, GPU=1)
    kind = stage.define(client)
    ids = ids_of(client, 8)
    stage.submit(client, kind, ids[:6])
    stage.submit(client, kind, ids[6:7], deps=(ids[5],))
    stage.turn()
    rows = stage.assigned(node)
    stage.done(node, value_done(rows[0]), error_done(rows[1]))
    stage.cancel(client, ids[5])
    stage.beat(node)
    stage.turn(1.0)
    stage.blocked(node, stage.assigned(node)[0])
    stage.turn()
    status = stage.ask(client, "status")
    assert status["epoch"] == 1
    assert status["uptime_s"] == 1.0
    assert status["nodes"] == {"alive": 1, "suspect": 0}
    assert (status["clients"], status["workers"]) == (1, 2)
    assert status["tasks"] == {
        "waiting": 0, "queued": 0, "assigned": 3, "blocked": 1,
        "finished": 4, "failed": 2, "cancelled": 1, "retried": 0,
    }  # fmt: skip
    assert status["resources"]["total"] == {"CPU": 2.0, "GPU": 1.0}
    assert status["resources"]["free"] == {"CPU": 0.0, "GPU": 1.0}
    assert status["rate_per_s"] > 0
    assert status["stale_dropped"] == 0


def test_tasks_that_wait_are_counted_as_waiting() -> None:
    stage = Stage()
    client, other = stage.client(), stage.client("o")
    stage.submit(client, stage.define(client), ids_of(client, 1), deps=tuple(ids_of(other, 1)))
    stage.turn()
    assert stage.ask(client, "status")["tasks"]["waiting"] == 1


def test_calls_of_actors_are_counted_apart_by_whether_they_run() -> None:
    stage = Acting()
    client, node = stage.caller, stage.node(cpus=2)
    actor = stage.create()
    stage.started(actor, node)
    calls = stage.calls(actor, 70)
    lost = stage.create(num_cpus=9)  # waits for a node
    stage.call(lost)
    stage.turn()
    sent = stage.assigned(node)
    stage.beat(node, (sent[0].id, 1, 0.5))
    status = stage.ask(client, "status")
    assert status["actor_calls"] == {"waiting": 70, "running": 1}
    assert (status["tasks"]["waiting"], status["tasks"]["queued"]) == (0, 1)
    assert (status["tasks"]["assigned"], status["actors"]) == (1, 1)
    stage.finish(node, sent[:1])
    stage.beat(node)
    status = stage.ask(client, "status")
    assert status["actor_calls"] == {"waiting": 70, "running": 0}
    assert status["tasks"]["waiting"] == 0
    assert len(calls) == 70


def test_nodes_are_listed_with_what_they_told() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.beat(node, (ids_of(client, 1)[0], 1, 0.5))
    stage.turn(2.0)
    (listed,) = stage.ask(client, "nodes")
    expected = {
        "name": "n", "id": node.hex(), "state": "alive", "resources": {"CPU": 2.0},
        "free": {"CPU": 1.0}, "assigned": 1, "running": 1, "blocked": 0, "workers": 2,
        "lag_s": 0.01, "last_heard_s": 2.0,
    }  # fmt: skip
    assert expected.items() <= listed.items()


def test_tasks_are_listed_running_ones_first_and_up_to_the_limit() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    kind, other = stage.define(client), stage.define(client, name="other")
    ids = ids_of(client, 6)
    stage.submit(client, kind, ids[:4])
    stage.submit(client, other, ids[4:5])
    stage.submit(client, kind, ids[5:], deps=(ids[0],))
    stage.turn()
    stage.assigned(node)
    stage.beat(node, (ids[1], 1, 0.5))
    stage.turn(1.0)
    tasks = stage.ask(client, "tasks")
    assert [task["id"] for task in tasks] == [show(ids[n]) for n in (1, 0, 2, 3, 4, 5)]
    assert [task["state"] for task in tasks] == [
        "running", "assigned", "queued", "queued", "queued", "waiting",
    ]  # fmt: skip
    assert tasks[0]["running_s"] == pytest.approx(1.5)
    assert tasks[0]["node"] == "n"
    assert tasks[0]["client"] == "client-c"
    assert (tasks[2]["running_s"], tasks[2]["age_s"]) == (None, 1.0)
    assert len(stage.ask(client, "tasks", limit=2)) == 2
    assert [t["name"] for t in stage.ask(client, "tasks", match="oth")] == ["other"]
    assert [t["id"] for t in stage.ask(client, "tasks", match=show(ids[3]))] == [show(ids[3])]


def test_what_is_submitted_in_the_turn_of_the_question_is_listed() -> None:
    stage = Stage()
    client, other = stage.client(), stage.client("o")
    kind, ids = stage.define(client), ids_of(client, 2)
    stage.say(other, Query(3, "tasks"))
    stage.submit(client, kind, ids)
    stage.say(client, Query(4, "tasks"))
    stage.turn()
    for peer in (client, other):
        (answer,) = stage.take(peer, Answer)
        assert [task["id"] for task in answer.data] == [show(id_) for id_ in ids]


def test_a_question_of_one_who_leaves_in_the_same_turn_is_not_answered() -> None:
    stage = Stage()
    client = stage.client()
    stage.turn()
    stage.mail[client].clear()
    stage.say(client, Query(3, "tasks"))
    stage.say(client, Leave())
    stage.turn()
    assert not stage.mail[client]
    assert stage.at_rest()


def test_a_task_is_found_by_its_id_however_long_the_queue_is() -> None:
    stage = Stage()
    stage.checks = False
    client = stage.client()
    kind, ids = stage.define(client), ids_of(client, LOOK_AT + 2)
    stage.submit(client, kind, ids)
    assert [t["id"] for t in stage.ask(client, "tasks", match=show(ids[-1]))] == [show(ids[-1])]
    assert [t["id"] for t in stage.ask(client, "tasks", match=show(ids[0]))] == [show(ids[0])]
    (node,) = [stage.node()]
    stage.turn()
    stage.beat(node, (ids[0], 1, 0.5))
    stage.turn(1.0)
    (task,) = stage.ask(client, "tasks", match=show(ids[0]))
    assert (task["state"], task["running_s"]) == ("running", pytest.approx(1.5))
    stage.core.check_invariants()


def test_a_question_nobody_knows_is_answered_so() -> None:
    stage = Stage()
    error = stage.ask(stage.client(), "weather")["error"]
    assert "status, nodes, tasks, actors, objects, events, top or stack" in error


def test_a_node_may_ask_as_well() -> None:
    stage = Stage()
    assert stage.ask(stage.node(), "status")["nodes"]["alive"] == 1


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    rate = Rate()
    assert rate.per_s(0.0, 0.0) == 0.0
    rate.note(10, 0.5)
    assert rate.per_s(1.0, 0.0) == 10.0
    rate.note(30, 5.0)
    assert rate.per_s(9.9, 0.0) == pytest.approx(30 / 9.9)
    assert rate.per_s(12.0, 0.0) == 2.0
    assert rate.per_s(40.0, 0.0) == 0.0
    for second in range(100, 200):
        rate.note(second, float(second))
    assert rate.per_s(199.0, 0.0) == 1.0


def test_many_queued_tasks_do_not_slow_the_status_down() -> None:
    stage = Stage()
    client = stage.client()
    kind = stage.define(client)
    stage.submit(client, kind, ids_of(client, 20_000))
    assert stage.ask(client, "status")["tasks"]["queued"] == 20_000
    assert len(stage.ask(client, "tasks", limit=5)) == 5
