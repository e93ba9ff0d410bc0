"""What a node may not do with its key: act for clients whose work it never had."""

import pytest
from drumbeat.protocol.ids import IdFactory, PeerId
from drumbeat.protocol.messages import Answer, Cancel, Query, Stop
from support.acting import Acting
from support.scheduling import Stage


def test_a_node_submits_nothing_for_a_client_whose_work_it_never_had() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.turn()
    kind = stage.define(node, client=client)
    task = IdFactory(node, 1)()
    stage.submit(node, kind, [task], client=client)
    stage.turn()
    assert not stage.assigned(node)
    row = stage.results(node)[task]
    assert row.failure is not None
    assert row.failure.error == "TaskCancelled"


def test_a_node_that_has_a_clients_work_submits_for_it_though_the_parent_has_ended() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    parent = IdFactory(client)()
    stage.submit(client, stage.define(client), [parent])
    stage.turn()
    stage.finish(node, stage.assigned(node))
    stage.turn()
    child = IdFactory(node, 1)()
    kind = stage.define(node, client=client)
    stage.submit(node, kind, [child], client=client, parent=parent, depth=1)
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [child]


def test_a_node_cancels_nothing_of_a_client_whose_work_it_never_had() -> None:
    stage = Stage()
    client, node, other = stage.client(), stage.node(), stage.node("o", cpus=0)
    task = IdFactory(client)()
    stage.submit(client, stage.define(client), [task])
    stage.turn()
    assert [row.id for row in stage.assigned(node)] == [task]
    stage.cancel(other, task, force=True)
    stage.turn()
    assert not stage.take(node, Stop)
    stage.cancel(node, task, force=True)
    stage.turn()
    assert stage.take(node, Stop)


@pytest.mark.parametrize("how", ["force", "restart", "exit"])
def test_a_node_ends_no_actor_of_a_client_whose_work_it_never_had(how: str) -> None:
    stage = Acting()
    node, actor = stage.node(), stage.create()
    stage.started(actor, node)
    other = stage.node("o")
    told = Cancel([actor], how == "force", False, exit=how == "exit", restart=how == "restart")
    stage.say(other, told)
    stage.turn()
    assert not stage.take(node, Stop)
    told.ids = [actor]
    stage.say(node, told)
    stage.turn()
    assert stage.take(node, Stop)


def test_a_node_may_ask_how_the_cluster_does_and_not_for_others_tasks() -> None:
    stage = Stage()
    node = stage.node()
    stage.say(node, Query(1, "tasks"))
    stage.say(node, Query(2, "nodes"))
    stage.turn()
    answers: dict[int, Answer] = {one.request: one for one in stage.take(node, Answer)}
    assert "a task may ask for status and nodes, not for 'tasks'" in answers[1].data["error"]
    assert len(answers[2].data) == 1
    stage.say(node, Query(3, "actors"))
    stage.turn()
    (answer,) = stage.take(node, Answer)
    assert "not for 'actors'" in answer.data["error"]


def test_a_node_that_is_told_nothing_of_a_client_knows_none() -> None:
    stage = Stage()
    node = stage.node()
    assert node == PeerId(b"nnnnnn")
    stage.cancel(node, IdFactory(PeerId(b"nobody"))())
    stage.turn()
    assert not stage.drops
