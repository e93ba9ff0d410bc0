"""Work that no node can run: told of, and given up after a while; never waited for in silence."""

from drumbeat.protocol.messages import Leave, Notice
from support.scheduling import Stage, ids_of


def test_work_that_no_node_can_run_is_told_of_and_then_fails() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, num_cpus=3), [id_])
    stage.live(9.5)
    assert not stage.take(client, Notice)
    stage.live(1.0)
    (notice,) = stage.take(client, Notice)
    assert notice.text == "1 task waits for a node with CPU 3; n has CPU 2"
    stage.live(49.0)
    assert not stage.results(client)
    stage.live(1.0)
    failure = stage.results(client)[id_].failure
    assert failure is not None
    assert failure.error == "Infeasible"
    assert "CPU 3" in failure.text
    assert not stage.take(client, Notice)
    assert stage.at_rest()
    assert not stage.assigned(node)


def test_without_any_node_work_waits_and_the_client_is_told() -> None:
    stage = Stage()
    client = stage.client()
    stage.submit(client, stage.define(client), ids_of(client, 2))
    stage.live(100.0)
    assert [notice.text for notice in stage.take(client, Notice)] == [
        "2 tasks wait for a node with CPU 1; no node has joined"
    ]
    node = stage.node()
    stage.turn()
    assert len(stage.assigned(node)) == 2


def test_work_that_waits_for_nodes_never_fails_for_want_of_one() -> None:
    stage = Stage()
    client, _ = stage.client(), stage.node(cpus=2)
    stage.submit(client, stage.define(client, num_cpus=3, wait_for_nodes=True), ids_of(client, 1))
    stage.live(100.0)
    assert not stage.results(client)
    assert len(stage.take(client, Notice)) == 1
    large = stage.node("l", cpus=3)
    stage.turn()
    assert len(stage.assigned(large)) == 1


def test_the_time_counts_from_when_the_shape_vanished() -> None:
    stage = Stage()
    client, small, large = stage.client(), stage.node("s", cpus=1), stage.node("l", cpus=4)
    kind = stage.define(client, num_cpus=4)
    ids = ids_of(client, 2)
    stage.submit(client, kind, ids)
    stage.turn()
    assert len(stage.assigned(large)) == 1
    stage.live(100.0)
    stage.say(large, Leave())
    del stage.mail[large]
    stage.live(59.0)
    assert not stage.results(client)
    stage.live(2.0)
    assert list(stage.results(client)) == ids
    assert stage.at_rest()
    assert not stage.assigned(small)


def test_a_busy_node_is_not_a_reason_to_complain() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=1)
    stage.submit(client, stage.define(client), ids_of(client, 2))
    stage.live(100.0)
    assert not stage.take(client, Notice)
    assert len(stage.assigned(node)) == 1


def test_what_a_task_submits_and_no_node_can_run_fails_at_once() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node(cpus=2)
    (parent,) = ids_of(client, 1)
    stage.submit(client, stage.define(client), [parent])
    stage.turn()
    for number, options in enumerate(({"num_cpus": 3}, {"resources": (("tape", 1.0),)})):
        kind = stage.define(node, client, name="nested", **options)
        ids = ids_of(node, 2, worker=number + 1)
        stage.submit(node, kind, ids, client, parent, 1, deps=tuple(ids_of(client, 1)))
        stage.turn()
        rows = stage.results(node)
        assert list(rows) == ids
        for row in rows.values():
            assert row.failure is not None
            assert row.failure.error == "Infeasible"
            assert "n has CPU 2" in row.failure.text
    patient = stage.define(node, client, num_cpus=3, wait_for_nodes=True)
    stage.submit(node, patient, ids_of(node, 1, worker=5), client, parent, 1)
    fits = stage.define(node, client, num_cpus=2)
    stage.submit(node, fits, ids_of(node, 1, worker=6), client, parent, 1)
    stage.turn()
    assert not stage.results(node)
