"""Which nodes the scheduler's next life is to wait for."""

from drumbeat.protocol.ids import PeerId
from drumbeat.protocol.messages import Leave
from drumbeat.scheduler import events
from support.restarts import NODE, Restarted, row
from support.scheduling import Stage, ids_of


def test_a_node_is_written_down_before_anything_is_given_to_it() -> None:
    stage = Stage()
    client = stage.client()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.node()
    commands = stage.core.turn(stage.now_s)
    assert commands[0] == events.Remember(["n"])
    assert any(isinstance(command, events.Send) for command in commands[1:])


def test_a_node_that_leaves_is_struck_out_once_all_know_what_was_charged() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.say(node, Leave())
    stage.turn()
    stage.live(30.0)
    assert stage.remembered == [["n"]]
    stage.reach(client)
    stage.turn()
    assert stage.remembered == [["n"], []]


def test_a_lost_node_is_struck_out_when_the_client_that_did_not_know_is_gone() -> None:
    stage = Stage()
    client, node = stage.client(), stage.node()
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.live(12.0, 0.25, node)
    assert stage.remembered == [["n"]]
    stage.say(client, Leave())
    stage.turn()
    assert stage.remembered == [["n"], []]


def test_without_anybody_to_tell_a_node_that_leaves_is_struck_out_at_once() -> None:
    stage = Stage()
    node = stage.node()
    stage.turn()
    stage.say(node, Leave())
    stage.turn().turn()
    assert stage.remembered == [["n"], []]


def test_a_daemon_that_replaces_another_stands_beside_it_until_all_know() -> None:
    stage = Stage()
    client = stage.client()
    stage.node("a", name="lab")
    stage.submit(client, stage.define(client), ids_of(client, 1))
    stage.turn()
    stage.prompt = False
    stage.node("b", name="lab")
    stage.turn()
    # The next life waits for both: nobody may take for certain that nothing ran on the first.
    assert stage.remembered[-1] == ["lab", "lab"]
    for peer in list(stage.marks):
        stage.reach(peer)
    stage.turn()
    assert stage.remembered[-1] == ["lab"]


def test_a_node_that_comes_back_is_written_down_already() -> None:
    stage = Restarted("n")
    stage.node_back()
    stage.turn()
    assert stage.remembered == []


def test_a_node_that_nobody_expected_is_written_down() -> None:
    stage = Restarted("n")
    stage.node_back(letter="x")
    stage.turn()
    assert stage.remembered == [["n", "x"]]


def test_the_daemon_before_is_remembered_until_recovery_is_over() -> None:
    stage = Restarted("n")
    stage.node("x", name="n")
    stage.turn()
    assert stage.remembered[-1] == ["n", "n"]
    stage.at(12.5)
    stage.turn()
    assert stage.remembered[-1] == ["n"]


def test_missing_nodes_are_remembered_until_recovery_is_over() -> None:
    stage = Restarted("n", "m")
    stage.node_back(row(ids_of(PeerId(b"c" * 6), 1)[0]))
    stage.at(11.9)
    assert stage.remembered == []
    stage.at(12.5)
    stage.turn()
    assert stage.remembered == [["n"]]
    assert NODE in stage.mail
