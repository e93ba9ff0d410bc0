"""Tasks that ask for labels go to nodes that carry them, and to no others."""

from drumbeat.protocol.messages import Notice, Shapes
from support.scheduling import Stage, ids_of

ZONE_A = (("zone", ("a",)),)


def test_a_task_goes_only_where_its_labels_are_carried() -> None:
    stage = Stage()
    client = stage.client()
    large, a = stage.node("l", cpus=8), stage.node("a", cpus=1, labels={"zone": "a", "x": "y"})
    kind = stage.define(client, node_labels=ZONE_A)
    either = stage.define(client, node_labels=(("zone", ("a", "b")),))
    ids = ids_of(client, 3)
    stage.submit(client, kind, ids[:2])
    stage.turn()
    assert not stage.assigned(large)
    rows = stage.assigned(a)
    assert len(rows) == 1, "one at a time"
    b = stage.node("b", cpus=1, labels={"zone": "b"})
    stage.submit(client, either, ids[2:])
    stage.turn()
    assert len(stage.assigned(b)) == 1
    stage.finish(a, rows)
    stage.turn()
    assert len(stage.assigned(a)) == 1
    assert not stage.assigned(large)


def test_labels_and_resources_are_asked_of_one_node_and_spread_stays_among_those() -> None:
    stage = Stage()
    client = stage.client()
    nodes = [
        stage.node("a", cpus=1, labels={"zone": "a"}), stage.node("b", cpus=4),
        stage.node("l", cpus=2, labels={"zone": "a"}), stage.node("m", cpus=2),
    ]  # fmt: skip
    stage.submit(client, stage.define(client, node_labels=ZONE_A, num_cpus=2), ids_of(client, 1))
    stage.turn()
    assert [len(stage.assigned(node)) for node in nodes] == [0, 0, 1, 0]
    stage = Stage()
    client = stage.client()
    nodes = [stage.node(letter, labels={"zone": letter[0]}) for letter in "ab"]
    spread = stage.define(client, node_labels=(("zone", ("a", "b")),), spread=True)
    stage.submit(client, spread, ids_of(client, 2))
    stage.turn()
    assert [len(stage.assigned(node)) for node in nodes] == [1, 1]


def test_labels_that_no_node_carries_are_named_with_what_there_is() -> None:
    stage = Stage()
    client, _ = stage.client(), stage.node("n", labels={"zone": "b", "disk": "ssd"})
    (id_,) = ids_of(client, 1)
    stage.submit(client, stage.define(client, node_labels=ZONE_A), [id_])
    stage.live(10.5)
    (notice,) = stage.take(client, Notice)
    assert notice.text == (
        "1 task waits for a node with CPU 1, a node with zone=a; n has CPU 2, disk=ssd, zone=b"
    )
    stage.live(61.0)
    failure = stage.results(client)[id_].failure
    assert failure is not None
    assert failure.error == "Infeasible"
    assert "zone=a" in failure.text


def test_a_node_that_comes_with_the_labels_gets_the_task_that_waits() -> None:
    stage = Stage()
    client, _ = stage.client(), stage.node()
    kind = stage.define(client, node_labels=ZONE_A, wait_for_nodes=True)
    stage.submit(client, kind, ids_of(client, 1))
    stage.live(100.0)
    node = stage.node("a", labels={"zone": "a"})
    stage.turn()
    assert len(stage.assigned(node)) == 1


def test_clients_are_told_the_labels() -> None:
    stage = Stage()
    client, _ = stage.client(), stage.node("n", labels={"zone": "b"})
    stage.turn()
    shapes = stage.take(client, Shapes)
    assert [row.labels for row in shapes[-1].rows] == [{"zone": "b"}]
    assert [node["labels"] for node in stage.ask(client, "nodes")] == [{"zone": "b"}]
